"""From a listing of files to a prepared set: decode photos, read drawings, find equal pictures; in parallel."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import numpy as np
from tqdm import tqdm

import sketchynet
from sketchynet.data.blocks import Arrays, block_folder, block_path, read_block, write_block
from sketchynet.data.cache import (
    Prepared,
    Writer,
    cache_folder,
    cache_key,
    prepared_set,
    read_prepared,
    unwritable,
)
from sketchynet.data.images import read_photo, same_pictures
from sketchynet.data.listing import Listing, PhotoFile, SketchFile
from sketchynet.data.pairs import PairedSet
from sketchynet.data.skips import Skips
from sketchynet.data.splits import SPLIT_NAMES, find_leaks
from sketchynet.errors import InputError
from sketchynet.sketch import SketchBatch

_PACKAGE = Path(sketchynet.__file__).parent
_CODE = (
    *(_PACKAGE / name for name in ("vectorize", "sketch.py")),
    *(_PACKAGE / "data" / f"{name}.py" for name in ("images", "listing", "prepare", "drawing_files", "svg", "quickdraw")),
)
_IN_PROCESS = 48
"""Up to so many files are read in this process: starting others takes longer."""
_BLOCK = 16
"""Photos or drawings in a block, the unit of parallel work and of going on after an interruption."""


def prepare_files(
    listing: Listing,
    size: int,
    *,
    cache_dir: Path | None = None,
    progress: bool = True,
    workers: int | None = None,
    skips: Skips | None = None,
) -> PairedSet:
    """The listed files as a PairedSet with photos of size×size, from the cache where they are prepared already.

    Names, sizes and modification times of all files, and the code that reads them, decide whether a prepared
    set still holds. An interrupted preparation goes on after its last complete block. workers: processes that
    read files; None takes one a usable core. skips: what takes the faults; where it allows them, bad files, the
    drawings of bad or missing photos are left out, counted and listed in the set's notes.
    Raises InputError naming the file that is missing, truncated, unreadable or without ink.
    """
    skips = Skips() if skips is None else skips
    listing = _without_missing(listing, skips)
    settings = {
        "name": listing.name,
        "size": size,
        "fit": listing.fit_photos,
        "files": _fingerprint(listing),
        # What is skipped is a part of the result: its notes tell it.
        "skip": [skips.count, skips.messages] if skips.allowed else False,
    }
    key = cache_key(settings, _CODE)
    folder = cache_folder(cache_dir) / f"{listing.name}-{key}"
    if folder.is_dir():
        return read_prepared(folder)
    try:
        with block_folder(folder.parent, listing.name) as blocks, _Work(blocks, workers, progress, skips) as work:
            build = partial(_build, listing=listing, size=size, work=work)
            return prepared_set(listing.name, key, build, cache_dir)
    except OSError as error:
        raise unwritable(folder, error) from error


def _without_missing(listing: Listing, skips: Skips) -> Listing:
    """The listing without photos that have no file and drawings of them; those go to `skips`."""
    known = {photo.id: photo.path for photo in listing.photos}
    sketches = []
    for sketch in listing.sketches:
        if known.get(sketch.photo_id) is None:
            skips.add(
                f"{sketch.path}: sketch {sketch.id!r} shows {sketch.photo_id!r}, which is not among the photos; restore "
                "the photo or leave out the sketch"
            )
        else:
            sketches.append(sketch)
    photos = tuple(photo for photo in listing.photos if photo.path is not None)
    return replace(listing, photos=photos, sketches=tuple(sketches))


def _build(writer: Writer, *, listing: Listing, size: int, work: _Work) -> Prepared:
    read = partial(_photo_block, size=size, fit=listing.fit_photos)
    good: list[PhotoFile] = []

    def rows() -> Iterator[np.ndarray]:
        for block, arrays in work.run("photos", listing.photos, read, {"size": size, "fit": listing.fit_photos}):
            good.extend(block[k] for k in arrays["good"])
            yield from arrays["photos"]

    photos = writer.photos(rows(), len(listing.photos), size)
    listing = _without_bad_photos(listing, good, work.skips)
    if listing.refine is not None:
        listing = listing.refine(listing, work.progress)
    sketches, batches = [], []
    name = f"{listing.read_sketch.__module__}.{listing.read_sketch.__qualname__}"
    for block, arrays in work.run("drawings", listing.sketches, partial(_sketch_block, listing.read_sketch), {"by": name}):
        sketches += [block[k] for k in arrays["good"]]
        batches.append(_batch(arrays))
    if not sketches:
        raise InputError(f"{listing.name}: no photo has a drawing; at least one pair is needed")
    return _prepared(listing, sketches, SketchBatch.concat(batches), photos, work.skips)


def _prepared(
    listing: Listing, sketches: Sequence[SketchFile], batch: SketchBatch, photos: np.ndarray, skips: Skips
) -> Prepared:
    photo_ids = [photo.id for photo in listing.photos]
    index = {photo_id: number for number, photo_id in enumerate(photo_ids)}
    category_names = sorted({photo.category for photo in listing.photos})
    number_of = {name: number for number, name in enumerate(category_names)}
    split = np.array([photo.split for photo in listing.photos], dtype=np.int8)
    content = same_pictures(photos)
    leaks = [
        f"{first} and {second} are one picture in {SPLIT_NAMES[split[index[first]]]} and {SPLIT_NAMES[split[index[second]]]}"
        for first, second in find_leaks(photo_ids, content, split)
    ]
    return Prepared(
        photo_ids=photo_ids,
        categories=np.array([number_of[photo.category] for photo in listing.photos], dtype=np.int64),
        category_names=category_names,
        content=content,
        split=split,
        sketches=replace(batch, ids=tuple(sketch.id for sketch in sketches)),
        sketch_photo=np.array([index[sketch.photo_id] for sketch in sketches], dtype=np.int64),
        notes=(*listing.notes, *skips.notes(), *leaks),
    )


def _without_bad_photos(listing: Listing, good: Sequence[PhotoFile], skips: Skips) -> Listing:
    ids = {photo.id for photo in good}
    kept = []
    for sketch in listing.sketches:
        if sketch.photo_id in ids:
            kept.append(sketch)
        else:
            skips.add(f"{sketch.path}: sketch {sketch.id!r} goes with its photo {sketch.photo_id!r}")
    return replace(listing, photos=tuple(good), sketches=tuple(kept))


def _photo_block(photos: Sequence[PhotoFile], strict: bool, *, size: int, fit: bool) -> Arrays:
    skips = Skips(allowed=not strict)
    rows, good = [], []
    for k, photo in enumerate(photos):
        with skips.catch():
            assert photo.path is not None
            rows.append(read_photo(photo.path, size, fit=fit))
            good.append(k)
    return {
        "photos": np.array(rows, np.uint8).reshape(-1, size, size, 3),
        "good": np.array(good, np.int64),
        "faults": np.array(skips.messages, str),
    }


def _sketch_block(read: Callable[[SketchFile], Any], sketches: Sequence[SketchFile], strict: bool) -> Arrays:
    skips = Skips(allowed=not strict)
    drawings, good = [], []
    for k, sketch in enumerate(sketches):
        with skips.catch():
            drawings.append(read(sketch))
            good.append(k)
    batch = SketchBatch.from_sketches(drawings)
    arrays = {name: getattr(batch, name) for name in ("points", "stroke_offsets", "sketch_offsets", "widths", "erasers")}
    return {
        **{name: array for name, array in arrays.items() if array is not None},
        "good": np.array(good, np.int64),
        "faults": np.array(skips.messages, str),
    }


def _batch(arrays: Arrays) -> SketchBatch:
    return SketchBatch(
        arrays["points"],
        arrays["stroke_offsets"],
        arrays["sketch_offsets"],
        None,
        arrays.get("widths"),
        arrays.get("erasers"),
    )


def _state(path: Path) -> tuple[str, int, int]:
    """File, size in bytes, modification time."""
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); restore it or remove its entry"
        ) from error
    return str(path.absolute()), state.st_size, state.st_mtime_ns


def _fingerprint(listing: Listing) -> list[Any]:
    """Id, category or photo, official split, file and its state, for every file."""
    photos = [(p.id, p.category, p.split, *_state(p.path)) for p in listing.photos if p.path is not None]
    states = {path: _state(path) for path in {sketch.path for sketch in listing.sketches}}
    return [*photos, *((s.id, s.photo_id, s.part, *states[s.path]) for s in listing.sketches)]


@dataclass
class _Work:
    """Runs a function over blocks of files with a progress bar, in other processes where there are many."""

    folder: Path
    workers: int | None
    progress: bool
    skips: Skips
    executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.executor is not None:
            self.executor.shutdown(cancel_futures=True)

    def run(
        self, kind: str, items: Sequence[Any], read: Callable[..., Arrays], settings: dict[str, Any]
    ) -> Iterator[tuple[Sequence[Any], Arrays]]:
        """Every block of items and what was read of it, in order; blocks that are there already are not read again.

        Faults of the files go to `skips`. The first error ends it; complete blocks stay.
        """
        code = cache_key({}, _CODE)
        blocks = [items[start : start + _BLOCK] for start in range(0, len(items), _BLOCK)]
        paths = [block_path(self.folder, kind, {**settings, "code": code, "files": _states(block)}) for block in blocks]
        missing = [number for number, path in enumerate(paths) if not path.is_file()]
        done = len(items) - sum(len(blocks[number]) for number in missing)
        what = {"photos": "decoding photos", "drawings": "reading drawings"}[kind]
        with tqdm(total=len(items), desc=what, unit=kind[:-1], initial=done, disable=not self.progress) as bar:
            task = partial(_make_block, read, strict=not self.skips.allowed)
            for number in self._completed(task, [(blocks[n], paths[n]) for n in missing], what):
                bar.update(len(blocks[missing[number]]))
        for block, path in zip(blocks, paths, strict=True):
            arrays = read_block(path)
            if arrays is None:
                _make_block(read, (block, path), strict=not self.skips.allowed)
                arrays = read_block(path)
            assert arrays is not None
            for message in arrays["faults"]:
                self.skips.add(str(message))
            yield block, arrays

    def _completed(self, task: Callable[..., None], work: list[Any], what: str) -> Iterator[int]:
        workers = len(os.sched_getaffinity(0)) if self.workers is None else self.workers
        if workers <= 1 or sum(len(block) for block, _ in work) <= _IN_PROCESS:
            for number, item in enumerate(work):
                task(item)
                yield number
            return
        if self.executor is None:
            # Fresh processes: a fork would inherit the locks of torch's and Ray's threads.
            # Ctrl-C reaches them too: one that died with the queue's lock in hand would hold up the end for ever.
            self.executor = ProcessPoolExecutor(
                workers, mp_context=get_context("spawn"), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
            )
        futures = {self.executor.submit(task, item): number for number, item in enumerate(work)}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BrokenProcessPool as error:
            raise InputError(
                f"{what}: a worker process ended before its time; it may have run out of memory. In a script of your "
                'own, put the call under `if __name__ == "__main__":`'
            ) from error


def _make_block(read: Callable[..., Arrays], item: tuple[Sequence[Any], Path], *, strict: bool) -> None:
    block, path = item
    write_block(path, read(block, strict))


def _states(block: Sequence[PhotoFile] | Sequence[SketchFile]) -> list[Any]:
    return [(item.id, getattr(item, "part", ""), *_state(item.path)) for item in block if item.path is not None]
