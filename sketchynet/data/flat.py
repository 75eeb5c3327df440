"""Large sets of drawings on disk: memory-mapped arrays in shards, written as a stream, read by number.

A folder, written whole or not at all::

    header.json                      format, name, categories, notes, shards with their counts
    shard-00000/
        points.npy                   float32 (N, 2)     the arrays of a SketchBatch
        stroke_offsets.npy           int64 (S + 1,)
        sketch_offsets.npy           int64 (B + 1,)
        labels.npy                   int32 (B,)         index into the header's categories
        ids.npy                      bytes (B,)         UTF-8, of one width
        widths.npy, erasers.npy      (S,)               only where some drawing has them
        shard.json                   its counts, and where the source went on after it

While it is written (`sketchynet.data.flat_writer`) it is called ``FOLDER.partial``; a shard gets its name when it
is complete. A writer that finds such a folder goes on after the last complete shard, so whoever feeds it asks it
where that was. No file holds pickles.

Fetching a drawing touches its own pages alone; a process that reads a set holds what it has read in the page
cache, which all processes of a machine share. `FlatSketches` pickles as its path: hand it to workers, and let
each take its part by `shards(rank, world_size)`.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketchynet._arrays import check_offsets
from sketchynet.errors import InputError
from sketchynet.sketch import DEFAULT_WIDTH, Sketch, SketchBatch

FORMAT = 1
"""Raised whenever the files change their meaning."""

ARRAYS = ("points", "stroke_offsets", "sketch_offsets", "labels", "ids")
OPTIONAL = ("widths", "erasers")


class FlatIds(Sequence[str]):
    """The ids of a flat set, decoded as they are asked for."""

    def __init__(self, sketches: FlatSketches) -> None:
        self._sketches = sketches

    def __len__(self) -> int:
        return len(self._sketches)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        shard, row = self._sketches.locate(range(len(self))[index])
        return self._sketches.maps(shard).ids[row].decode()

    def __iter__(self) -> Iterator[str]:
        for shard in range(self._sketches.num_shards):
            yield from (name.decode() for name in self._sketches.maps(shard).ids.tolist())


class FlatSketches:
    """Drawings of a folder that a `FlatWriter` wrote, by number; pickles as its path.

    Raises:
        InputError: there is no such folder, or what it holds is damaged or of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        try:
            header = json.loads((self.folder / "header.json").read_text())
            if header["format"] != FORMAT:
                raise ValueError(f"it has format {header['format']}, this version reads {FORMAT}")
            self.name: str = header["name"]
            self.source: str = header["source"]
            self.categories: tuple[str, ...] = tuple(header["categories"])
            self.notes: tuple[str, ...] = tuple(header["notes"])
            self.counts: list[dict[str, int]] = header["shards"]
            self._firsts = np.cumsum([0, *(counts["sketches"] for counts in self.counts)])
            self._starts: list[int] = self._firsts.tolist()
        except FileNotFoundError as error:
            partial = self.folder.with_name(f"{self.folder.name}.partial")
            hint = f"; {partial} is unfinished: convert again, it goes on" if partial.exists() else ""
            raise InputError(f"{self.folder} holds no drawings in flat form (no header.json){hint}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error
        # Maps of the shards used last stay open: a set may have more files than a process may open.
        self.maps = lru_cache(maxsize=256)(self._map)

    def __reduce__(self) -> tuple[type[FlatSketches], tuple[Path]]:
        return FlatSketches, (self.folder,)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @property
    def num_shards(self) -> int:
        """Shards of the folder."""
        return len(self.counts)

    @property
    def ids(self) -> FlatIds:
        """The drawings' ids."""
        return FlatIds(self)

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """int32 (len,): index into `categories`."""
        return np.concatenate([self.maps(k).labels for k in range(self.num_shards)])

    def locate(self, index: int) -> tuple[int, int]:
        """Shard of a drawing and its row there."""
        shard = bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def __getitem__(self, index: int) -> Sketch:
        """Drawing `index` (negative from the end); its points are a view of the file."""
        starts = self._starts
        place = index if index >= 0 else index + starts[-1]
        if not 0 <= place < starts[-1]:
            raise IndexError(f"{self.folder}: no drawing {index}; there are {starts[-1]}")
        shard = bisect_right(starts, place) - 1
        row = place - starts[shard]
        maps = self.maps(shard)
        first, last = maps.stroke_at[row], maps.stroke_at[row + 1]
        begin, end = maps.point_at[first], maps.point_at[last]
        numbers = maps.numbers[2 * begin : 2 * end]
        if not math.isfinite(numbers.dot(numbers)):  # the method: np.dot's dispatch costs as much as the product
            raise self._damaged(f"{shard_name(shard)}, row {row}: coordinates are not finite")
        return Sketch.checked(
            maps.points[begin:end],
            maps.stroke_offsets[first : last + 1] - begin,
            maps.ids[row].decode(),
            None if maps.widths is None else maps.widths[first:last],
            None if maps.erasers is None else maps.erasers[first:last],
        )

    def select(self, indices: ArrayLike) -> SketchBatch:
        """The drawings at `indices` (M,) in that order, repeats allowed; bool (len,) masks and slices work too."""
        if isinstance(indices, slice):
            wanted = np.arange(len(self))[indices]
        else:
            chosen = np.asarray(indices)
            wanted = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)
            wanted = np.where(wanted < 0, wanted + len(self), wanted)
            outside = (wanted < 0) | (wanted >= len(self))
            if outside.any():
                raise InputError(f"{self.folder}: no drawing {int(wanted[outside][0])}; there are {len(self)}")
        if not len(wanted):
            return SketchBatch.concat([])
        shards = np.searchsorted(self._firsts, wanted, side="right") - 1
        order = np.argsort(shards, kind="stable")
        used, starts = np.unique(shards[order], return_index=True)
        parts = [
            self._rows(int(shard), wanted[rows] - self._firsts[shard])
            for shard, rows in zip(used, np.split(order, starts[1:]), strict=True)
        ]
        joined = parts[0] if len(parts) == 1 else _Rows.joined(parts)
        return joined.batch(None if len(parts) == 1 else np.argsort(order))

    def _rows(self, shard: int, rows: NDArray[np.int64]) -> _Rows:
        """Some rows of one shard: only their pages are read."""
        maps = self.maps(shard)
        strokes, sketch_offsets = _ranges(maps.sketch_offsets, rows)
        points, stroke_offsets = _ranges(maps.stroke_offsets, strokes)
        return _Rows(
            maps.points.take(points, axis=0),
            stroke_offsets,
            sketch_offsets,
            maps.ids[rows].tolist(),
            None if maps.widths is None else maps.widths[strokes],
            None if maps.erasers is None else maps.erasers[strokes],
        )

    def shards(self, rank: int = 0, world_size: int = 1) -> Iterator[tuple[SketchBatch, NDArray[np.int32]]]:
        """Whole shards, each with its labels: those of one of `world_size` readers that share the work."""
        if not 0 <= rank < world_size:
            raise InputError(f"reader {rank} of {world_size}: count from 0")
        for shard in range(rank, self.num_shards, world_size):
            maps = self.maps(shard)
            ids = tuple(name.decode() for name in maps.ids.tolist())
            batch = SketchBatch(
                maps.points, maps.stroke_offsets, maps.sketch_offsets, ids, maps.widths, maps.erasers
            )
            yield batch, maps.labels

    def _map(self, shard: int) -> _Maps:
        try:
            return _Maps(self.folder / shard_name(shard), self.counts[shard])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"{shard_name(shard)}: {error}") from error

    def _damaged(self, reason: object) -> InputError:
        return InputError(
            f"{self.folder}: the drawings in flat form are damaged ({reason}); delete this folder and convert again"
        )


class _Maps:
    """The arrays of one shard. Offsets are checked here, once: fetching a drawing then takes a tenth of the time."""

    def __init__(self, folder: Path, counts: dict[str, int]) -> None:
        sketches, strokes, points = counts["sketches"], counts["strokes"], counts["points"]
        self.points = _mapped(folder, "points", np.float32, (points, 2))
        self.numbers = self.points.reshape(-1)
        self.stroke_offsets = _mapped(folder, "stroke_offsets", np.int64, (strokes + 1,))
        self.sketch_offsets = _mapped(folder, "sketch_offsets", np.int64, (sketches + 1,))
        self.labels = _mapped(folder, "labels", np.int32, (sketches,))
        self.ids = _mapped(folder, "ids", np.bytes_, (sketches,))
        has = {name for name in OPTIONAL if (folder / f"{name}.npy").exists()}
        self.widths = _mapped(folder, "widths", np.float32, (strokes,)) if "widths" in has else None
        self.erasers = _mapped(folder, "erasers", np.bool_, (strokes,)) if "erasers" in has else None
        check_offsets(self.stroke_offsets, points, "stroke_offsets", "point")
        check_offsets(self.sketch_offsets, strokes, "sketch_offsets", "stroke")
        # One number out of a memoryview comes several times faster than out of an array.
        self.point_at, self.stroke_at = self.stroke_offsets.data, self.sketch_offsets.data


class _Rows(NamedTuple):
    """The fields of a SketchBatch, unchecked."""

    points: np.ndarray
    stroke_offsets: np.ndarray
    sketch_offsets: np.ndarray
    ids: list[bytes]
    widths: np.ndarray | None
    erasers: np.ndarray | None

    @classmethod
    def joined(cls, parts: Sequence[_Rows]) -> _Rows:
        """The rows of several shards; attributes that only some have are filled in."""

        def attribute(name: str, default: np.ndarray) -> np.ndarray | None:
            values = [getattr(part, name) for part in parts]
            if all(value is None for value in values):
                return None
            filled = [
                np.full(len(part.stroke_offsets) - 1, default) if value is None else value
                for part, value in zip(parts, values, strict=True)
            ]
            return np.concatenate(filled)

        return cls(
            np.concatenate([part.points for part in parts]),
            _joined_offsets([part.stroke_offsets for part in parts]),
            _joined_offsets([part.sketch_offsets for part in parts]),
            [name for part in parts for name in part.ids],
            attribute("widths", np.array(DEFAULT_WIDTH, np.float32)),
            attribute("erasers", np.array(False)),
        )

    def batch(self, order: np.ndarray | None) -> SketchBatch:
        """The drawings, checked, in another order where one is given."""
        ids, rows = tuple(name.decode() for name in self.ids), self
        if order is not None:
            strokes, sketch_offsets = _ranges(self.sketch_offsets, order)
            points, stroke_offsets = _ranges(self.stroke_offsets, strokes)
            ids = tuple(ids[n] for n in order.tolist())
            rows = _Rows(
                self.points.take(points, axis=0),
                stroke_offsets,
                sketch_offsets,
                [],
                None if self.widths is None else self.widths[strokes],
                None if self.erasers is None else self.erasers[strokes],
            )
        return SketchBatch(
            rows.points, rows.stroke_offsets, rows.sketch_offsets, ids, rows.widths, rows.erasers
        )


def _joined_offsets(offsets: Sequence[np.ndarray]) -> np.ndarray:
    return np.cumsum(np.concatenate([[0], *(np.diff(part) for part in offsets)]), dtype=np.int64)


def _mapped(folder: Path, name: str, kind: type, shape: tuple[int, ...]) -> np.ndarray:
    # As a plain array: slicing a np.memmap costs ten times as much. The map lives as long as its arrays.
    array = np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)).view(np.ndarray)
    if array.shape != shape or array.dtype.type is not kind:
        raise ValueError(f"{name}.npy is {array.dtype} {array.shape} instead of {kind.__name__} {shape}")
    return array


def _ranges(offsets: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers [offsets[p], offsets[p + 1]) for every p of `parts`, joined, and the offsets of the joint parts."""
    firsts = offsets[parts]
    counts = offsets[parts + 1] - firsts
    joined = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return np.arange(joined[-1]) + np.repeat(firsts - joined[:-1], counts), joined


def shard_name(number: int) -> str:
    """Name of a shard's folder."""
    return f"shard-{number:05d}"
