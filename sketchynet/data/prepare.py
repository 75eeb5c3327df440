"""From a listing of files to a prepared set: decode photos, read drawings, find equal pictures; in parallel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from tqdm import tqdm

import sketchynet
from sketchynet.data.cache import Prepared, Writer, cache_key, prepared_set
from sketchynet.data.images import read_photo, same_pictures
from sketchynet.data.listing import Listing, SketchFile
from sketchynet.data.pairs import PairedSet
from sketchynet.data.splits import SPLIT_NAMES, find_leaks
from sketchynet.errors import InputError
from sketchynet.sketch import Sketch, SketchBatch

Item = TypeVar("Item")
Result = TypeVar("Result")

_PACKAGE = Path(sketchynet.__file__).parent
_CODE = tuple(
    _PACKAGE / name
    for name in ("vectorize", "sketch.py", "data/images.py", "data/listing.py", "data/prepare.py")
)
_IN_PROCESS = 48
"""Up to so many files are read in this process: starting others takes longer."""


def prepare_files(
    listing: Listing,
    size: int,
    *,
    cache_dir: Path | None = None,
    progress: bool = True,
    workers: int | None = None,
) -> PairedSet:
    """The listed files as a PairedSet with photos of size×size, from the cache where they are prepared already.

    Names, sizes and modification times of all files, and the code that reads them, decide whether a prepared
    set still holds. workers: processes that read files; None takes one a usable core.
    Raises InputError naming the file that is missing, truncated, unreadable or without ink.
    """
    settings = {"name": listing.name, "size": size, "fit": listing.fit_photos, "files": _fingerprint(listing)}
    key = cache_key(settings, _CODE)
    build = partial(_build, listing=listing, size=size, progress=progress, workers=workers)
    return prepared_set(listing.name, key, build, cache_dir)


def _build(writer: Writer, *, listing: Listing, size: int, progress: bool, workers: int | None) -> Prepared:
    with _Pool(workers, progress) as pool:
        paths = [photo.path for photo in listing.photos]
        rows = pool.map(partial(read_photo, size=size, fit=listing.fit_photos), paths, "decoding photos", "photo")
        photos = writer.photos(rows, len(paths), size)
        if listing.refine is not None:
            listing = listing.refine(listing, progress)
        read = partial(_read_sketch, listing.read_sketch)
        sketches = list(pool.map(read, listing.sketches, "reading drawings", "drawing"))
    if not sketches:
        raise InputError(f"{listing.name}: no photo has a drawing; at least one pair is needed")
    photo_ids = [photo.id for photo in listing.photos]
    index = {photo_id: number for number, photo_id in enumerate(photo_ids)}
    orphans = [sketch for sketch in listing.sketches if sketch.photo_id not in index]
    if orphans:
        first = orphans[0]
        raise InputError(
            f"{first.path}: sketch {first.id!r} shows {first.photo_id!r}, which is not among the photos"
        )
    category_names = sorted({photo.category for photo in listing.photos})
    split = np.array([photo.split for photo in listing.photos], dtype=np.int8)
    content = same_pictures(photos)
    leaks = [
        f"{first} and {second} are one picture in {SPLIT_NAMES[split[index[first]]]} and {SPLIT_NAMES[split[index[second]]]}"
        for first, second in find_leaks(photo_ids, content, split)
    ]
    return Prepared(
        photo_ids=photo_ids,
        categories=np.array(
            [category_names.index(photo.category) for photo in listing.photos], dtype=np.int64
        ),
        category_names=category_names,
        content=content,
        split=split,
        sketches=SketchBatch.from_sketches(sketches),
        sketch_photo=np.array([index[sketch.photo_id] for sketch in listing.sketches], dtype=np.int64),
        notes=(*listing.notes, *leaks),
    )


def _read_sketch(read: Callable[[Path, str], Sketch], file: SketchFile) -> Sketch:
    return read(file.path, file.id)


def _fingerprint(listing: Listing) -> list[tuple[str, str, str, int, int, int]]:
    """Id, photo or category, file, official split, size in bytes, modification time, for every file."""
    rows = [(photo.id, photo.category, photo.path, photo.split) for photo in listing.photos]
    rows += [(sketch.id, sketch.photo_id, sketch.path, -1) for sketch in listing.sketches]
    result = []
    for id, of, path, split in rows:
        try:
            state = path.stat()
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror}); restore it or remove its entry"
            ) from error
        result.append((id, of, str(path.absolute()), split, state.st_size, state.st_mtime_ns))
    return result


class _Pool:
    """Maps a function over files with a progress bar, in other processes where there are many."""

    def __init__(self, workers: int | None, progress: bool) -> None:
        self.workers = len(os.sched_getaffinity(0)) if workers is None else workers
        self.progress = progress
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], what: str, unit: str
    ) -> Iterator[Result]:
        """Results in the order of the items; the first error ends it."""
        results: Iterable[Result]
        if self.workers <= 1 or len(items) <= _IN_PROCESS:
            results = map(function, items)
        else:
            if self._executor is None:
                # Fresh processes: a fork would inherit the locks of torch's and Ray's threads.
                self._executor = ProcessPoolExecutor(self.workers, mp_context=get_context("spawn"))
            results = self._executor.map(function, items, chunksize=8)
        try:
            yield from tqdm(results, desc=what, unit=unit, total=len(items), disable=not self.progress)
        except BrokenProcessPool as error:
            raise InputError(
                f"{what}: a worker process ended before its time; it may have run out of memory. In a script of your "
                'own, put the call under `if __name__ == "__main__":`'
            ) from error
