"""Where labelled drawings come from, by name: `load_labelled`, and the conversion into the flat form behind it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sketchynet.data import flat_writer, quickdraw
from sketchynet.data.cache import cache_folder, cache_key, write
from sketchynet.data.flat import FlatSketches
from sketchynet.data.flat_writer import SHARD, FlatWriter, replace_file
from sketchynet.data.labelled import LabelledSet, split_drawings
from sketchynet.data.quickdraw import SUFFIXES, stream_drawings
from sketchynet.data.skips import Skips
from sketchynet.data.sources import existing_root
from sketchynet.errors import InputError

logger = logging.getLogger("sketchynet.data")

LABELLED_OPTIONS: dict[str, dict[str, Any]] = {
    "quickdraw": {"test": 0.28, "recognized": False, "limit": None},
}
"""Sources by name, with their options. `test`: share of each category's drawings that is tested on.
`recognized`: only drawings that Google's network recognised. `limit`: at most so many drawings of each file."""


def load_labelled(
    source: str,
    *,
    root: Path | None = None,
    validation: float,
    seed: int,
    options: Mapping[str, Any] | None = None,
    cache_dir: Path | None = None,
    progress: bool = True,
) -> LabelledSet:
    """The drawings of a source in flat form, converted once into the cache and memory-mapped afterwards.

    root: the folder with real data, by default $SKETCHYNET_DATA. validation: share of the drawings outside the test
    part that becomes validation; like the test part it is drawn within each category, by `seed`. Raises InputError
    for an unknown source or option, a missing root, and whatever is wrong with the files.
    """
    if source not in LABELLED_OPTIONS:
        raise InputError(f"data source {source!r} has no categories to recognise; use one of {', '.join(LABELLED_OPTIONS)}")
    values = {**LABELLED_OPTIONS[source], **(options or {})}
    unknown = sorted(values.keys() - LABELLED_OPTIONS[source].keys())
    if unknown:
        known = ", ".join(LABELLED_OPTIONS[source])
        raise InputError(f"option {unknown[0]!r} is unknown to {source}; it knows {known}")
    folder = existing_root(source, root)
    files = find_drawings(folder / source if (folder / source).is_dir() else folder)
    key = _fingerprint(files, values["recognized"], values["limit"])
    target = cache_folder(cache_dir) / f"{source}-{key}"
    flat = (
        FlatSketches(target)
        if target.is_dir()
        else flatten(
            files,
            target,
            name=source,
            recognized=values["recognized"],
            limit=values["limit"],
            progress=progress,
        )
    )
    labelled = _with_split(source, flat, {"test": values["test"], "validation": validation, "seed": seed})
    logger.info("%s: %d drawings, %d categories", source, len(flat), len(flat.categories))
    return labelled


def _with_split(source: str, flat: FlatSketches, shares: dict[str, Any]) -> LabelledSet:
    """The set with its split, made once and kept beside the flat form: hashing millions of ids takes a minute."""
    kept = flat.folder.with_name(f"{flat.folder.name}-split-{cache_key(shares)}.json")
    array = kept.with_suffix(".npy")
    if kept.is_file():  # written last
        try:
            split, split_hash = np.load(array, allow_pickle=False), json.loads(kept.read_text())["split_hash"]
            return LabelledSet(source, flat, flat.labels, flat.categories, split, split_hash)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{kept}: the split is damaged ({error}); delete this file, it is made anew") from error
    labelled = LabelledSet(
        source, flat, flat.labels, flat.categories, split_drawings(flat.labels, flat.ids, **shares)
    )
    replace_file(array, lambda file: np.lib.format.write_array(file, labelled.split, allow_pickle=False))
    about = json.dumps({**shares, "split_hash": labelled.split_hash}).encode()
    replace_file(kept, lambda file: write(file, about))
    return labelled


def find_drawings(folder: Path) -> list[Path]:
    """The QuickDraw files of a folder by name. InputError where there are none."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise InputError(
            f"{folder}: no QuickDraw files here ({', '.join(SUFFIXES)}). Pass --data DIR or set SKETCHYNET_DATA to the "
            "folder that holds quickdraw/"
        )
    return files


def flatten(
    files: Sequence[Path],
    folder: Path,
    *,
    name: str = "quickdraw",
    recognized: bool = False,
    limit: int | None = None,
    skips: Skips | None = None,
    shard: int = SHARD,
    progress: bool = True,
) -> FlatSketches:
    """Converts QuickDraw files into the flat form, as a stream; an attempt that was cut off goes on.

    Args:
        files: of any of the formats of `sketchynet.data.quickdraw`.
        folder: where the flat form comes to lie; must not exist.
        recognized: leave out what Google's network did not recognise.
        limit: at most so many drawings of each file, the first ones.
        skips: what takes the faults of the input; by default the first one is raised.

    Raises:
        InputError: whatever is wrong with the files, with file and line; complete shards stay for the next attempt.
    """
    source = _fingerprint(files, recognized, limit)
    total = sum(path.stat().st_size for path in files)
    with (
        FlatWriter(folder, name=name, source=source, shard=shard) as writer,
        tqdm(total=total, desc=f"converting {name}", unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        at, number, part, kept = writer.position or (0, 0, "", 0)
        for index, path in enumerate(files):
            if index < at:
                bar.update(path.stat().st_size)
                continue
            if index > at:
                number, part, kept = 0, "", 0
            _append_file(writer, index, path, (number, part, kept), recognized, limit, skips)
            bar.set_postfix_str(f"{len(writer):,} drawings", refresh=False)
            bar.update(path.stat().st_size)
        return writer.finish()


def _append_file(
    writer: FlatWriter,
    index: int,
    path: Path,
    done: tuple[int, str, int],
    recognized: bool,
    limit: int | None,
    skips: Skips | None,
) -> None:
    """Adds one file's drawings, those after `done` (number, part, how many were kept)."""
    number, part, kept = done
    reached = part == ""
    for chunk in stream_drawings(path, skips):
        if limit is not None and kept >= limit:
            return
        wanted = np.ones(len(chunk.numbers), bool)
        if not reached and chunk.part != part:
            continue  # parts of an archive come in order: this one was written before
        reached = True
        if chunk.part == part:
            wanted &= chunk.numbers > number
        if recognized:
            wanted &= chunk.recognized
        rows = np.flatnonzero(wanted)[: None if limit is None else limit - kept]
        if not len(rows):
            continue
        chosen = chunk if len(rows) == len(chunk.numbers) else chunk.select(rows)
        kept += len(rows)
        writer.append(chosen.sketches, chosen.labels, (index, int(chosen.numbers[-1]), chosen.part, kept))


def _fingerprint(files: Sequence[Path], recognized: bool, limit: int | None) -> str:
    """A hash of names, sizes, times of change and options, and of the code that reads."""
    found = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    code = [Path(str(module.__file__)) for module in (quickdraw, flat_writer)]
    return cache_key({"files": found, "recognized": recognized, "limit": limit}, code)
