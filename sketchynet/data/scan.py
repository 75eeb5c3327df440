"""Looking through the folders of a data set: what is there, in a stable order, nothing passed over in silence."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sketchynet.data.skips import Skips
from sketchynet.errors import InputError

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Suffixes of picture files, lower case."""
MAX_DEPTH = 12


def files_below(
    folder: Path, root: Path, suffixes: Iterable[str], skips: Skips, *, deep: bool = True
) -> list[Path]:
    """All files with one of the suffixes (lower case, any case in the folder), with `deep` in all sub-folders, by name.

    Hidden files are passed over, as are files with other suffixes. Faults go to `skips`: a name that is not UTF-8,
    a link that leads out of `root` or to a folder, an empty file, a folder that cannot be read.
    """
    wanted = tuple(suffixes)
    return sorted(_walk(folder, root.resolve(), wanted, skips, 0 if deep else None), key=lambda path: path.parts)


def _walk(folder: Path, root: Path, suffixes: tuple[str, ...], skips: Skips, depth: int | None) -> Iterator[Path]:
    """depth: of the folder below where the search began; None leaves sub-folders out."""
    if depth is not None and depth > MAX_DEPTH:
        skips.add(f"{folder}: folders nested more than {MAX_DEPTH} deep; what lies below is not read")
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        skips.add(f"{folder}: the folder cannot be read ({error.strerror}); correct its permissions")
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = Path(entry.path)
        is_folder = entry.is_dir(follow_symlinks=True)
        if is_folder and depth is None or not is_folder and path.suffix.lower() not in suffixes:
            continue
        fault = _fault(path, entry, is_folder, root)
        if fault:
            skips.add(fault)
        elif is_folder and depth is not None:
            yield from _walk(path, root, suffixes, skips, depth + 1)
        else:
            yield path


def _fault(path: Path, entry: os.DirEntry[str], is_folder: bool, root: Path) -> str:
    try:
        entry.name.encode("utf-8")
    except UnicodeEncodeError:
        name = os.fsencode(entry.name)
        return f"{path.parent}: the name {name!r} is not UTF-8; rename it"
    if entry.is_symlink():
        target = Path(os.path.realpath(path))
        if is_folder:
            return f"{path}: a link to a folder ({target}); put the folder itself here, or give --data the target"
        if not target.is_relative_to(root):
            return f"{path}: links to {target}, outside of {root}; put the file itself here"
        if not target.is_file():
            return f"{path}: links to {target}, which does not exist; restore it or remove the link"
    if is_folder:
        return ""
    if not entry.is_file():
        return f"{path}: no regular file; remove it"
    if entry.stat().st_size == 0:
        return f"{path}: the file is empty; restore or remove it"
    return ""


def names_in(path: Path, skips: Skips) -> dict[str, int]:
    """The lines of a list, stripped, with the number of the line; empty lines left out. Repeats go to `skips`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); it has to be UTF-8 text, one name a line") from error
    result: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if name and name in result:
            skips.add(f"{path}, line {number}: {name!r} stands in line {result[name]} already; remove one")
        elif name:
            result[name] = number
    return result


def first_folder(root: Path, *names: str) -> Path | None:
    """The first of the sub-folders that exists; names may hold slashes."""
    return next((root / name for name in names if (root / name).is_dir()), None)
