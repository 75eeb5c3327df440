"""Any data set into the forms that one's own data has: a folder of pairs, or QuickDraw lines without photos.

Pairs become `photos/CATEGORY/ID.jpg` and `sketches/CATEGORY/ID_K.svg`, see `sketchynet.data.folder`: photos and
drawings are copied as they are, drawings from collective files (a stroke pickle, lines, arrays) become one `.npz`
each. `splits.csv` keeps a published split. Drawings without photos become one `.ndjson` a category.
"""

from __future__ import annotations

import csv
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
from tqdm import tqdm

from sketchynet.data.detection import DRAWING_SOURCES, Detected
from sketchynet.data.drawing_files import write_drawing
from sketchynet.data.folder import DRAWINGS
from sketchynet.data.listing import Listing, PhotoFile
from sketchynet.data.quickdraw import DrawingChunk
from sketchynet.data.skips import Skips
from sketchynet.data.sources import list_source
from sketchynet.data.splits import SPLIT_NAMES
from sketchynet.errors import InputError

_OPEN_FILES = 64


def convert(
    found: Detected,
    target: Path,
    *,
    options: Mapping[str, Any] | None = None,
    skips: Skips | None = None,
    progress: bool = True,
) -> dict[str, int]:
    """Writes a data set to `target`, which must not exist; whole or not at all. Returns what it counted.

    Raises InputError for a target that is there or cannot be written, and for whatever is wrong with the files,
    unless `skips` takes it.
    """
    if target.exists():
        raise InputError(f"{target}: is there already; name a folder that does not exist")
    skips = Skips() if skips is None else skips
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); name another place") from error
    try:
        if found.paired:
            listing = list_source(found.source, found.folder, options or {}, skips)
            counted = _write_pairs(listing, temporary, skips, progress)
        else:
            counted = _write_lines(found, temporary, skips, progress)
        temporary.chmod(0o755)  # mkdtemp makes it private
        temporary.rename(target)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); nothing was left there") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return dict(counted)


def _write_pairs(listing: Listing, target: Path, skips: Skips, progress: bool) -> Counter[str]:
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    counted: Counter[str] = Counter(photos=0, drawings=0)
    rows: list[tuple[str, str]] = []
    for photo in tqdm(listing.photos, desc="copying photos", unit="photo", disable=not progress):
        if photo.path is None:
            continue
        name = _name(photo)
        other = taken.setdefault(name.casefold(), photo.id)
        if other != photo.id:
            raise InputError(f"{photo.path}: photos {other!r} and {photo.id!r} would get one name; rename one of them")
        _copy(photo.path, target / "photos" / f"{name}{photo.path.suffix.lower()}")
        names[photo.id] = name
        rows.append((name, SPLIT_NAMES[photo.split]))
    counted["photos"] = len(names)
    drawings: Counter[str] = Counter()
    for sketch in tqdm(listing.sketches, desc="writing drawings", unit="drawing", disable=not progress):
        if sketch.photo_id not in names:
            skips.add(f"{sketch.path}: the photo {sketch.photo_id!r} of sketch {sketch.id!r} is not there; restore it")
            continue
        stem = f"{names[sketch.photo_id]}_{drawings[sketch.photo_id] + 1}"
        with skips.catch():
            if sketch.part or sketch.path.suffix.lower() not in DRAWINGS:
                drawing = listing.read_sketch(sketch)
                path = target / "sketches" / f"{stem}.npz"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_drawing(path, drawing)
            else:
                _copy(sketch.path, target / "sketches" / f"{stem}{sketch.path.suffix.lower()}")
            drawings[sketch.photo_id] += 1
    counted["drawings"] = drawings.total()
    if not counted["drawings"]:
        raise InputError(f"{listing.name}: no drawing with its photo, nothing to convert")
    if listing.has_test:
        with (target / "splits.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("photo", "split"), *rows])
    return counted


def _name(photo: PhotoFile) -> str:
    """CATEGORY/REST-OF-THE-ID; what else the id has in folders becomes a part of the name."""
    rest = photo.id.removeprefix(f"{photo.category}/")
    return f"{photo.category}/{_plain(rest)}"


def _plain(name: str) -> str:
    return re.sub(r"[/\\:*?\"<>|\0]", "-", name).lstrip(".") or "-"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write_lines(found: Detected, target: Path, skips: Skips, progress: bool) -> Counter[str]:
    counted: Counter[str] = Counter()
    names: dict[str, str] = {}
    files: dict[str, IO[bytes]] = {}
    try:
        with tqdm(desc="writing drawings", unit="drawing", disable=not progress) as bar:
            for chunk in DRAWING_SOURCES[found.source].stream(found.folder, skips):
                for label in sorted(set(chunk.labels)):
                    name = names.setdefault(label, _plain(label))
                    if list(names.values()).count(name) > 1:
                        raise InputError(f"{found.folder}: two categories would get the name {name!r}; rename one")
                    if name not in files:
                        if len(files) >= _OPEN_FILES:
                            files.pop(next(iter(files))).close()
                        files[name] = (target / f"{name}.ndjson").open("ab")
                    files[name].writelines(_lines(chunk, label))
                counted["drawings"] += len(chunk.labels)
                bar.update(len(chunk.labels))
    finally:
        for file in files.values():
            file.close()
    if not counted["drawings"]:
        raise InputError(f"{found.folder}: no drawing could be read, nothing to convert")
    counted["categories"] = len(names)
    return counted


def _lines(chunk: DrawingChunk, label: str) -> list[bytes]:
    """Drawings of one category as lines; coordinates in 256ths of the frame, four decimals."""
    lines = []
    for b, found in enumerate(chunk.labels):
        if found == label:
            sketch = chunk.sketches[b]
            strokes = [
                [np.round(stroke[:, 0].astype(np.float64) * 256.0, 4).tolist(), np.round(stroke[:, 1].astype(np.float64) * 256.0, 4).tolist()]
                for stroke in sketch.strokes()
            ]
            record = {"word": label, "key_id": sketch.id, "recognized": bool(chunk.recognized[b]), "drawing": strokes}
            lines.append(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    return lines
