"""Writing drawings into the flat form (see `sketchynet.data.flat`), as a stream and in memory that does not grow."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from sketchynet.data.cache import write
from sketchynet.data.flat import ARRAYS, FORMAT, OPTIONAL, FlatSketches, shard_name
from sketchynet.errors import InputError
from sketchynet.sketch import DEFAULT_WIDTH, SketchBatch

SHARD = 65_536
"""Drawings a shard: about 30 MB of QuickDraw."""


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
            shard: drawings a shard; it closes with the chunk that reaches the number.

        Raises:
            InputError: the folder exists, or cannot be written.
        """
        if folder.exists():
            raise InputError(f"{folder} exists already; remove it, or choose another place")
        if shard < 1:
            raise InputError(f"shard = {shard}: a shard holds at least 1 drawing")
        self.folder, self.partial = folder, folder.with_name(f"{folder.name}.partial")
        self._about = {"format": FORMAT, "name": name, "source": source, "shard": shard}
        self._limit = shard
        self._categories: dict[str, int] = {}
        self._shards: list[dict[str, int]] = []
        self._open: _Shard | None = None
        self._last: Any = None
        self.position: Any = None
        """What was given with the last chunk of the last complete shard; None at the start."""
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
        while (found := self.partial / shard_name(len(self._shards)) / "shard.json").is_file():
            shard = json.loads(found.read_text())
            self._shards.append(shard["counts"])
            self._categories = {name: number for number, name in enumerate(shard["categories"])}
            self.position = shard["position"]

    def __len__(self) -> int:
        """Drawings written so far."""
        return sum(counts["sketches"] for counts in self._shards) + (self._open.sketches if self._open else 0)

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
        try:
            if self._open is None:
                self._open = _Shard(self.partial / f".{shard_name(len(self._shards))}")
            self._open.append(batch, labels)
            self._last = position
            if self._open.sketches >= self._limit:
                self._close_shard(position)
        except OSError as error:
            self._drop()
            raise self._unwritable(error) from error

    def _close_shard(self, position: Any) -> None:
        assert self._open is not None
        counts = self._open.close()
        shard = {"counts": counts, "categories": list(self._categories), "position": position}
        _write_json(self._open.folder / "shard.json", shard)
        self._open.folder.rename(self.partial / shard_name(len(self._shards)))
        self._open = None
        self._shards.append(counts)
        self.position = position

    def finish(self, notes: Sequence[str] = ()) -> FlatSketches:
        """Closes the last shard and gives the folder its name. InputError where there is no drawing at all.

        notes: what a reader of results should know.
        """
        if not len(self):
            raise InputError(f"{self.folder}: there is no drawing to write")
        try:
            if self._open is not None:
                self._close_shard(self._last)
            header = {**self._about, "categories": list(self._categories), "notes": list(notes), "shards": self._shards}
            _write_json(self.partial / "header.json", header)
            self.partial.rename(self.folder)
            (self.folder / "about.json").unlink()  # last: a writer that was killed before this goes on
        except OSError as error:
            self._drop()
            raise self._unwritable(error) from error
        return FlatSketches(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._drop()

    def _drop(self) -> None:
        """Forgets the shard under way: whoever goes on reads its drawings again."""
        if self._open is not None:
            self._open.abandon()
            self._open = None

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"{self.partial} cannot be written ({error.strerror or error}); its complete shards are kept: free some "
            "space and start again, it goes on from there"
        )


class _Shard:
    """The files of one shard under way. Only the ids wait in memory: their width is known at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.sketches = self.strokes = self.points = 0
        self._ids: list[np.ndarray] = []
        self._files: dict[str, _Column] = {}
        for name in ("stroke_offsets", "sketch_offsets"):
            self._column(name, np.zeros(1, np.int64))

    def append(self, batch: SketchBatch, labels: np.ndarray) -> None:
        assert batch.ids is not None
        self._column("points", batch.points)
        self._column("stroke_offsets", batch.stroke_offsets[1:] + self.points)
        self._column("sketch_offsets", batch.sketch_offsets[1:] + self.strokes)
        self._column("labels", labels)
        self._ids.append(_encoded(batch.ids))
        for name, default in (("widths", np.float32(DEFAULT_WIDTH)), ("erasers", np.bool_(False))):
            values = getattr(batch, name)
            if values is None and name in self._files:
                values = np.full(batch.num_strokes, default)
            elif values is not None and name not in self._files:
                values = np.concatenate([np.full(self.strokes, default), values])
            if values is not None:
                self._column(name, values)
        self.sketches += len(batch)
        self.strokes += batch.num_strokes
        self.points += len(batch.points)

    def _column(self, name: str, values: np.ndarray) -> None:
        if name not in self._files:
            self._files[name] = _Column(self.folder / f"{name}.npy", values)
        self._files[name].append(values)

    def close(self) -> dict[str, int]:
        """Completes the files; the counts of the shard."""
        self._column("ids", np.concatenate(self._ids))
        assert set(ARRAYS) <= self._files.keys() <= {*ARRAYS, *OPTIONAL}
        for column in self._files.values():
            column.close()
        return {"sketches": self.sketches, "strokes": self.strokes, "points": self.points}

    def abandon(self) -> None:
        """Closes and removes the files."""
        for column in self._files.values():
            column.file.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class _Column:
    """One .npy file that grows by rows."""

    def __init__(self, path: Path, like: np.ndarray) -> None:
        self.file: IO[bytes] = path.open("wb")
        self._dtype, self._row, self._rows = like.dtype, like.shape[1:], 0
        self._header()

    def _header(self) -> int:
        # numpy leaves room for a first axis of any length, so that the header keeps its size.
        shape = (self._rows, *self._row)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)
        return self.file.tell()

    def append(self, values: np.ndarray) -> None:
        values = np.ascontiguousarray(values, self._dtype)
        write(self.file, values.data.cast("B") if values.size else b"")
        self._rows += len(values)

    def close(self) -> None:
        self.file.seek(0)
        self._header()
        self.file.close()


def _encoded(ids: Sequence[str]) -> np.ndarray:
    encoded = [name.encode() for name in ids]
    # numpy drops zero bytes at the end of a bytes entry.
    bad = next((name for name, raw in zip(ids, encoded, strict=True) if raw.endswith(b"\0")), None)
    if bad is not None:
        raise InputError(f"drawing {bad!r}: an id cannot end with a zero character; rename it")
    return np.array(encoded, dtype=np.bytes_)


def _write_json(path: Path, value: Any) -> None:
    replace_file(path, lambda file: write(file, json.dumps(value, indent=1).encode()))


def replace_file(path: Path, fill: Callable[[IO[bytes]], None]) -> None:
    """Writes a file under a temporary name and renames it: what is there is whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            fill(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
