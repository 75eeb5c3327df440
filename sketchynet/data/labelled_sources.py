"""Where labelled drawings come from, by name: `load_labelled`, and the conversion into the flat form behind it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sketchynet.data import flat_writer, quickdraw
from sketchynet.data.cache import cache_folder, cache_key, write
from sketchynet.data.detection import DRAWING_SOURCES, quickdraw_files
from sketchynet.data.flat import FlatSketches
from sketchynet.data.flat_writer import SHARD, FlatWriter, replace_file
from sketchynet.data.labelled import LabelledSet, split_drawings
from sketchynet.data.quickdraw import DrawingChunk, stream_drawings
from sketchynet.data.skips import Skips
from sketchynet.data.sources import existing_root
from sketchynet.data.tu_berlin import list_tu_berlin, stream_tu_berlin
from sketchynet.errors import InputError

logger = logging.getLogger("sketchynet.data")

LABELLED_OPTIONS: dict[str, dict[str, Any]] = {
    "quickdraw": {"test": 0.28, "recognized": False, "limit": None},
    "tu_berlin": {"test": 0.33},
}
"""Sources by name, with their options. `test`: share of each category's drawings that is tested on.
`recognized`: only drawings that Google's network recognised. `limit`: at most so many drawings of each file."""


@dataclass(frozen=True)
class Stream:
    """Drawings that come one chunk after the other, always in the same order."""

    path: Path
    open: Callable[[Skips], Iterator[DrawingChunk]]
    files: tuple[Path, ...]
    """What is read, for the fingerprint and the progress bar."""

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(path.stat().st_size for path in self.files)


def streams_of(source: str, folder: Path, skips: Skips) -> list[Stream]:
    """The streams of a set in its folder. InputError where there are none."""
    if source == "tu_berlin":
        files = tuple(file.path for file in list_tu_berlin(folder, skips))
        return [Stream(folder, partial(stream_tu_berlin, folder), files)]
    found = quickdraw_files(folder, skips)
    if not found:
        raise InputError(f"{folder}: no QuickDraw files here ({', '.join(quickdraw.SUFFIXES)})")
    return [Stream(path, partial(stream_drawings, path), (path,)) for path in found]


def load_labelled(
    source: str,
    *,
    root: Path | None = None,
    validation: float,
    seed: int,
    options: Mapping[str, Any] | None = None,
    skip_bad: bool = False,
    cache_dir: Path | None = None,
    progress: bool = True,
) -> LabelledSet:
    """The drawings of a source in flat form, converted once into the cache and memory-mapped afterwards.

    source: a name in LABELLED_OPTIONS. root: the folder with real data, by default $SKETCHYNET_DATA. validation:
    share of the drawings outside the test part that becomes validation; like the test part it is drawn within each
    category, by `seed`. skip_bad: leave out drawings that cannot be read, counted and listed in the notes. Raises
    InputError for an unknown source or option, a missing root, and whatever is wrong with the files.
    """
    if source not in LABELLED_OPTIONS:
        known = ", ".join(LABELLED_OPTIONS)
        raise InputError(f"data source {source!r} has no categories to recognise; use one of {known}")
    values = {**LABELLED_OPTIONS[source], **(options or {})}
    unknown = sorted(values.keys() - LABELLED_OPTIONS[source].keys())
    if unknown:
        known = ", ".join(LABELLED_OPTIONS[source])
        raise InputError(f"option {unknown[0]!r} is unknown to {source}; it knows {known}")
    folder = existing_root(source, root)
    found = DRAWING_SOURCES[source].find(folder)
    if found is None:
        raise InputError(
            f"{folder}: no {DRAWING_SOURCES[source].title} here. Pass --data DIR or set SKETCHYNET_DATA to the folder "
            f"that holds {source}/"
        )
    skips = Skips(allowed=skip_bad)
    streams = streams_of(source, found, skips)
    kept = {name: value for name, value in values.items() if name != "test"}
    target = cache_folder(cache_dir) / f"{source}-{_fingerprint(streams, skips, **kept)}"
    flat = (
        FlatSketches(target)
        if target.is_dir()
        else flatten(streams, target, name=source, skips=skips, progress=progress, **kept)
    )
    labelled = _with_split(source, flat, {"test": values["test"], "validation": validation, "seed": seed})
    logger.info("%s: %d drawings, %d categories", source, len(flat), len(flat.categories))
    for note in labelled.notes:
        logger.info("%s: %s", source, note)
    return labelled


def _with_split(source: str, flat: FlatSketches, shares: dict[str, Any]) -> LabelledSet:
    """The set with its split, made once and kept beside the flat form: hashing millions of ids takes a minute."""
    kept = flat.folder.with_name(f"{flat.folder.name}-split-{cache_key(shares)}.json")
    array = kept.with_suffix(".npy")
    if kept.is_file():  # written last
        try:
            split, split_hash = np.load(array, allow_pickle=False), json.loads(kept.read_text())["split_hash"]
            return LabelledSet(source, flat, flat.labels, flat.categories, split, split_hash, flat.notes)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{kept}: the split is damaged ({error}); delete this file, it is made anew") from error
    split = split_drawings(flat.labels, flat.ids, **shares)
    labelled = LabelledSet(source, flat, flat.labels, flat.categories, split, notes=flat.notes)
    replace_file(array, lambda file: np.lib.format.write_array(file, labelled.split, allow_pickle=False))
    about = json.dumps({**shares, "split_hash": labelled.split_hash}).encode()
    replace_file(kept, lambda file: write(file, about))
    return labelled


def flatten(
    streams: Sequence[Stream],
    folder: Path,
    *,
    name: str,
    recognized: bool = False,
    limit: int | None = None,
    skips: Skips | None = None,
    shard: int = SHARD,
    progress: bool = True,
) -> FlatSketches:
    """Converts streams of drawings into the flat form; an attempt that was cut off goes on.

    Args:
        streams: see `streams_of`.
        folder: where the flat form comes to lie; must not exist.
        name: of the set.
        recognized: leave out what Google's network did not recognise.
        limit: at most so many drawings of each stream, the first ones.
        skips: what takes the faults of the input; by default the first one is raised.

    Raises:
        InputError: whatever is wrong with the files, with file and line; complete shards stay for the next attempt.
    """
    skips = Skips() if skips is None else skips
    source = _fingerprint(streams, skips, recognized=recognized, limit=limit)
    with (
        FlatWriter(folder, name=name, source=source, shard=shard) as writer,
        tqdm(
            total=sum(stream.size for stream in streams),
            desc=f"converting {name}",
            unit="B",
            unit_scale=True,
            disable=not progress,
        ) as bar,
    ):
        again = writer.position is not None
        at, number, part, kept = writer.position or (0, 0, "", 0)
        for index, stream in enumerate(streams):
            if index > at:
                number, part, kept = 0, "", 0
            if index >= at:
                _append(writer, index, _caught(stream, skips), (number, part, kept), recognized, limit)
                bar.set_postfix_str(f"{len(writer):,} drawings", refresh=False)
            bar.update(stream.size)
        notes = skips.notes()
        if again and skips.allowed:
            notes += ("converted in several attempts: what the earlier ones skipped is not listed",)
        return writer.finish(notes)


def _caught(stream: Stream, skips: Skips) -> Iterator[DrawingChunk]:
    """The chunks of a stream; a fault that ends it is taken by `skips`, faults of whoever uses them are not."""
    with skips.catch():
        yield from stream.open(skips)


def _append(
    writer: FlatWriter,
    index: int,
    chunks: Iterator[DrawingChunk],
    done: tuple[int, str, int],
    recognized: bool,
    limit: int | None,
) -> None:
    """Adds one stream's drawings, those after `done` (number, part, how many were kept)."""
    number, part, kept = done
    reached = part == ""
    for chunk in chunks:
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


def _fingerprint(
    streams: Sequence[Stream], skips: Skips, *, recognized: bool = False, limit: int | None = None
) -> str:
    """A hash of names, sizes, times of change and options, and of the code that reads."""
    files = [path for stream in streams for path in stream.files]
    found = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    code = [Path(str(module.__file__)) for module in (quickdraw, flat_writer)]
    options = {"recognized": recognized, "limit": limit, "skip_bad": skips.allowed}
    return cache_key({"files": found, **options}, code)
