"""Large sets of drawings on disk: memory-mapped arrays in shards, written as a stream, read by number.

A folder, written whole or not at all::

    header.json                      format, name, categories, shards with their counts
    shard-00000/
        points.npy                   float32 (N, 2)     the arrays of a SketchBatch
        stroke_offsets.npy           int64 (S + 1,)
        sketch_offsets.npy           int64 (B + 1,)
        labels.npy                   int32 (B,)         index into the header's categories
        ids.npy                      bytes (B,)         UTF-8, of one width
        widths.npy, erasers.npy      (S,)               only where some drawing has them
        shard.json                   its counts, and where the source went on after it

While it is written it is called ``FOLDER.partial``; a shard gets its name when it is complete. A writer that
finds such a folder goes on after the last complete shard, so whoever feeds it asks it where that was
(`FlatWriter.position`). No file holds pickles, and nothing is ever held but one shard.

Fetching a drawing touches its own pages alone; a process that reads a set holds what it has read in the page
cache, which all processes of a machine share. `FlatSketches` pickles as its path: hand it to workers, and let
each take its part by `shards(rank, world_size)`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketchynet._arrays import check_offsets
from sketchynet.errors import InputError
from sketchynet.sketch import Sketch, SketchBatch

FORMAT = 1
SHARD = 65_536
"""Drawings a shard: about 30 MB of QuickDraw."""

_ARRAYS = ("points", "stroke_offsets", "sketch_offsets", "labels", "ids")
_OPTIONAL = ("widths", "erasers")


class FlatWriter:
    """Writes drawings that come in chunks; a context manager. `finish` gives the folder its name.

    Without `finish` (an error, a kill) the complete shards stay in ``FOLDER.partial`` for the next attempt.
    """

    def __init__(self, folder: Path, *, name: str, source: str, shard: int = SHARD) -> None:
        """
        Args:
            folder: does not exist yet.
            name: of the set, for tables and logs.
            source: tells what is read and how, for example a hash over the files; shards that were left by
                another source are thrown away.
            shard: drawings a shard.

        Raises:
            InputError: the folder exists, or cannot be written.
        """
        if folder.exists():
            raise InputError(f"{folder} exists already; remove it, or choose another place")
        if shard < 1:
            raise InputError(f"shard = {shard}: a shard holds at least 1 drawing")
        self.folder, self.partial = folder, folder.with_name(f"{folder.name}.partial")
        self._about = {"format": FORMAT, "name": name, "source": source, "shard": shard}
        self._shard = shard
        self._categories: dict[str, int] = {}
        self._shards: list[dict[str, Any]] = []
        self._chunks: list[tuple[SketchBatch, NDArray[np.int32]]] = []
        self._waiting = 0
        self.position: Any = None
        """What was given with the last chunk that is safely on disk; None at the start."""
        try:
            self._go_on()
        except OSError as error:
            raise self._unwritable(error) from error

    def _go_on(self) -> None:
        about = self.partial / "about.json"
        if not about.is_file() or json.loads(about.read_text()) != self._about:
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir(parents=True)
            _write_json(about, self._about)
        for leftover in self.partial.glob(".shard-*"):
            shutil.rmtree(leftover)
        while (found := self.partial / _shard_name(len(self._shards)) / "shard.json").is_file():
            shard = json.loads(found.read_text())
            self._shards.append(shard["counts"])
            self._categories = {name: number for number, name in enumerate(shard["categories"])}
            self.position = shard["position"]

    def __len__(self) -> int:
        """Drawings on disk and waiting."""
        return sum(counts["sketches"] for counts in self._shards) + self._waiting

    def append(self, batch: SketchBatch, categories: Sequence[str], position: Any) -> None:
        """Adds a chunk.

        Args:
            batch: n drawings with ids.
            categories: n names.
            position: JSON-able; where the source goes on after this chunk.

        Raises:
            InputError: no ids, another number of categories, or the disk is full; complete shards stay.
        """
        if batch.ids is None or len(categories) != len(batch):
            raise InputError(
                f"a chunk of {len(batch)} drawings has {len(categories)} categories and "
                f"{'no' if batch.ids is None else len(batch.ids)} ids; each drawing needs one of both"
            )
        known = self._categories
        for name in dict.fromkeys(categories):
            known.setdefault(name, len(known))
        labels = np.fromiter((known[name] for name in categories), np.int32, len(categories))
        self._chunks.append((batch, labels))
        self._waiting += len(batch)
        if self._waiting >= self._shard:
            self._close_shard(position)

    def _close_shard(self, position: Any) -> None:
        batch = SketchBatch.concat([batch for batch, _ in self._chunks])
        labels = np.concatenate([labels for _, labels in self._chunks])
        self._chunks, self._waiting = [], 0
        assert batch.ids is not None
        arrays: dict[str, np.ndarray] = {
            "points": batch.points,
            "stroke_offsets": batch.stroke_offsets,
            "sketch_offsets": batch.sketch_offsets,
            "labels": labels,
            "ids": _encoded(batch.ids),
        }
        arrays |= {key: value for key in _OPTIONAL if (value := getattr(batch, key)) is not None}
        name = _shard_name(len(self._shards))
        temporary = self.partial / f".{name}"
        counts = {"sketches": len(batch), "strokes": batch.num_strokes, "points": len(batch.points)}
        try:
            temporary.mkdir()
            for key, value in arrays.items():
                with (temporary / f"{key}.npy").open("wb") as file:
                    np.lib.format.write_array(file, value, allow_pickle=False)
            shard = {"counts": counts, "categories": list(self._categories), "position": position}
            _write_json(temporary / "shard.json", shard)
            temporary.rename(self.partial / name)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise self._unwritable(error) from error
        self._shards.append(counts)
        self.position = position

    def finish(self) -> FlatSketches:
        """Writes what is waiting and gives the folder its name. InputError where there is no drawing at all."""
        if self._waiting:
            self._close_shard(None)
        if not self._shards:
            raise InputError(f"{self.folder}: there is no drawing to write")
        header = {**self._about, "categories": list(self._categories), "shards": self._shards}
        try:
            _write_json(self.partial / "header.json", header)
            (self.partial / "about.json").unlink()
            self.partial.rename(self.folder)
        except OSError as error:
            raise self._unwritable(error) from error
        return FlatSketches(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._chunks = []

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"{self.partial} cannot be written ({error.strerror or error}); its complete shards are kept: free some "
            "space and start again, it goes on from there"
        )


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
        return bytes(self._sketches.arrays(shard)["ids"][row]).decode()

    def __iter__(self) -> Iterator[str]:
        for shard in range(self._sketches.num_shards):
            yield from (name.decode() for name in self._sketches.arrays(shard)["ids"].tolist())


class FlatSketches:
    """Drawings of a folder that `FlatWriter` wrote, by number; pickles as its path.

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
        self.arrays = lru_cache(maxsize=256)(self._map)

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
        return np.concatenate([np.asarray(self.arrays(k)["labels"]) for k in range(self.num_shards)])

    def locate(self, index: int) -> tuple[int, int]:
        """Shard of a drawing and its row there."""
        shard = bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def __getitem__(self, index: int) -> Sketch:
        """Drawing `index` (negative from the end); its points are a view of the file."""
        shard, row = self.locate(range(len(self))[index])
        arrays = self.arrays(shard)
        first, last = arrays["sketch_offsets"][row : row + 2].tolist()
        offsets = arrays["stroke_offsets"][first : last + 1]
        points = arrays["points"][offsets[0] : offsets[-1]]
        widths, erasers = arrays.get("widths"), arrays.get("erasers")
        if not math.isfinite(np.add.reduce(points, axis=None)):
            raise self._damaged(f"{_shard_name(shard)}, row {row}: coordinates are not finite")
        return Sketch.checked(
            points,
            offsets - offsets[0],
            arrays["ids"][row].decode(),
            None if widths is None else widths[first:last],
            None if erasers is None else erasers[first:last],
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
        shards = np.searchsorted(self._firsts, wanted, side="right") - 1
        parts, places = [], []
        for shard in np.unique(shards):
            rows = np.flatnonzero(shards == shard)
            parts.append(self._rows(int(shard), wanted[rows] - self._firsts[shard]))
            places.append(rows)
        if not parts:
            return SketchBatch.concat([])
        joined = parts[0] if len(parts) == 1 else SketchBatch.concat(parts)
        order = np.concatenate(places)
        return joined if len(parts) == 1 else joined.select(np.argsort(order))

    def _rows(self, shard: int, rows: NDArray[np.int64]) -> SketchBatch:
        """Some rows of one shard: only their pages are read."""
        arrays = self.arrays(shard)
        strokes, sketch_offsets = _ranges(arrays["sketch_offsets"], rows)
        points, stroke_offsets = _ranges(arrays["stroke_offsets"], strokes)
        widths, erasers = arrays.get("widths"), arrays.get("erasers")
        return SketchBatch(
            arrays["points"].take(points, axis=0),
            stroke_offsets,
            sketch_offsets,
            tuple(name.decode() for name in arrays["ids"][rows].tolist()),
            None if widths is None else widths[strokes],
            None if erasers is None else erasers[strokes],
        )

    def shards(self, rank: int = 0, world_size: int = 1) -> Iterator[tuple[SketchBatch, NDArray[np.int32]]]:
        """Whole shards, each with its labels: those of one of `world_size` readers that share the work."""
        if not 0 <= rank < world_size:
            raise InputError(f"reader {rank} of {world_size}: count from 0")
        for shard in range(rank, self.num_shards, world_size):
            arrays = self.arrays(shard)
            ids = tuple(name.decode() for name in arrays["ids"].tolist())
            yield (
                SketchBatch(
                    arrays["points"],
                    arrays["stroke_offsets"],
                    arrays["sketch_offsets"],
                    ids,
                    arrays.get("widths"),
                    arrays.get("erasers"),
                ),
                arrays["labels"],
            )

    def _map(self, shard: int) -> dict[str, np.ndarray]:
        folder = self.folder / _shard_name(shard)
        counts = self.counts[shard]
        try:
            arrays = {name: _mapped(folder / f"{name}.npy") for name in _ARRAYS}
            arrays |= {name: _mapped(folder / f"{name}.npy") for name in _OPTIONAL if (folder / f"{name}.npy").exists()}
            lengths = {
                "points": counts["points"],
                "stroke_offsets": counts["strokes"] + 1,
                "sketch_offsets": counts["sketches"] + 1,
                "labels": counts["sketches"],
                "ids": counts["sketches"],
                "widths": counts["strokes"],
                "erasers": counts["strokes"],
            }
            for name, array in arrays.items():
                if len(array) != lengths[name]:
                    raise ValueError(f"{name}.npy has {len(array)} rows instead of {lengths[name]}")
            # Once for the whole shard: fetching a drawing then takes a tenth of the time.
            check_offsets(arrays["stroke_offsets"], counts["points"], "stroke_offsets", "point")
            check_offsets(arrays["sketch_offsets"], counts["strokes"], "sketch_offsets", "stroke")
            for name, kind in (("points", np.float32), ("widths", np.float32), ("erasers", np.bool_)):
                if name in arrays and arrays[name].dtype != kind:
                    raise ValueError(f"{name}.npy is {arrays[name].dtype} instead of {np.dtype(kind)}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"{folder.name}: {error}") from error
        return arrays

    def _damaged(self, reason: object) -> InputError:
        return InputError(
            f"{self.folder}: the drawings in flat form are damaged ({reason}); delete this folder and convert again"
        )


def _mapped(path: Path) -> np.ndarray:
    # As a plain array: slicing a np.memmap costs ten times as much. The map lives as long as its arrays.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)).view(np.ndarray)


def _ranges(offsets: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers [offsets[p], offsets[p + 1]) for every p of `parts`, joined, and the offsets of the joint parts."""
    firsts = offsets[parts]
    counts = offsets[parts + 1] - firsts
    joined = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return np.arange(joined[-1]) + np.repeat(firsts - joined[:-1], counts), joined


def _encoded(ids: Sequence[str]) -> np.ndarray:
    encoded = [name.encode() for name in ids]
    # numpy drops zero bytes at the end of a bytes entry.
    bad = next((name for name, raw in zip(ids, encoded, strict=True) if raw.endswith(b"\0")), None)
    if bad is not None:
        raise InputError(f"drawing {bad!r}: an id cannot end with a zero character; rename it")
    return np.array(encoded, dtype=np.bytes_)


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}"


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(value, indent=1))
    os.replace(temporary, path)
