"""Embeddings of a photo collection: shards that appear whole, and one array to read them as.

One folder (or URL), written by ``sketchynet embed``::

    manifest.json        format, what was embedded by which network, rows of every shard (present when all is done)
    collection.json      the same without the shards (present from the start: it decides whether a run may go on)
    shard-00000.npy      float32 (n, D), in the order of the ids
    shard-00000.json     {"ids": [...], "skipped": [[id, message], ...]}; written last: with it the shard is done
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import lru_cache
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem

from sketchynet.data.collection import STORAGE_FAULTS
from sketchynet.errors import InputError

FORMAT = 1


class ShardFolder:
    """Where shards are written: a local folder or any storage that fsspec writes; picklable."""

    def __init__(self, place: str) -> None:
        self.place = place

    def begin(self, about: Mapping[str, Any]) -> None:
        """Makes the folder, or checks that what lies there is of the same network and photos."""
        about = {"format": FORMAT, **about}
        known = self._json("collection.json")
        if known is None:
            if self._names():
                raise InputError(f"{self.place} holds other files; give --out a folder of its own")
            self._write("collection.json", json.dumps(about, indent=1).encode())
            return
        other = [key for key in about if known.get(key) != about[key]]
        if other:
            raise InputError(
                f"{self.place} holds embeddings made otherwise: {other[0]} was {known.get(other[0])!r}, is now "
                f"{about[other[0]]!r}; give another --out, or remove the folder"
            )

    def done(self) -> set[int]:
        """Numbers of the shards that are whole."""
        names = self._names()
        numbers = {int(name[6:-5]) for name in names if name.startswith("shard-") and name.endswith(".json")}
        return {number for number in numbers if f"{shard_name(number)}.npy" in names}

    def write(self, number: int, embeddings: np.ndarray, ids: list[str], skipped: list[list[str]]) -> None:
        """Writes a shard; it counts as done only when all of it is there."""
        buffer = BytesIO()
        np.save(buffer, np.ascontiguousarray(embeddings, dtype=np.float32), allow_pickle=False)
        self._write(f"{shard_name(number)}.npy", buffer.getvalue())
        self._write(f"{shard_name(number)}.json", json.dumps({"ids": ids, "skipped": skipped}).encode())

    def entries(self, number: int) -> dict[str, Any]:
        """Ids and skipped photos of a shard that is done."""
        found = self._json(f"{shard_name(number)}.json")
        if found is None:
            raise InputError(f"{self.place}/{shard_name(number)}.json is gone; run the same command again")
        return found

    def finish(self, about: Mapping[str, Any], shards: int) -> dict[str, Any]:
        """Writes the manifest over all shards and returns it."""
        every = [self.entries(number) for number in range(shards)]
        manifest = {
            "format": FORMAT,
            **about,
            "rows": [len(entry["ids"]) for entry in every],
            "skipped": [fault for entry in every for fault in entry["skipped"]],
        }
        self._write("manifest.json", json.dumps(manifest, indent=1).encode())
        return manifest

    def _names(self) -> set[str]:
        try:
            filesystem, root = fsspec.url_to_fs(self.place)
            if not filesystem.isdir(root):
                return set()
            return {path.rstrip("/").rsplit("/", 1)[-1] for path in filesystem.ls(root, detail=False)}
        except STORAGE_FAULTS as error:
            raise InputError(f"{self.place}: the storage cannot be read ({error})") from error

    def _json(self, name: str) -> Any:
        try:
            filesystem, root = fsspec.url_to_fs(self.place)
            return json.loads(filesystem.cat_file(f"{root}/{name}"))
        except FileNotFoundError:
            return None
        except STORAGE_FAULTS as error:
            raise InputError(f"{self.place}/{name}: cannot be read ({error}); remove it and run again") from error

    def _write(self, name: str, content: bytes) -> None:
        """One file, whole or not at all: on a file system by renaming; an object store shows only whole objects."""
        try:
            filesystem, root = fsspec.url_to_fs(self.place)
            filesystem.makedirs(root, exist_ok=True)
            if isinstance(filesystem, LocalFileSystem):
                temporary = Path(root) / f".{name}.{os.uname().nodename}.{os.getpid()}"
                try:
                    temporary.write_bytes(content)
                    os.replace(temporary, Path(root) / name)
                finally:
                    temporary.unlink(missing_ok=True)
            else:
                filesystem.pipe_file(f"{root}/{name}", content)
        except STORAGE_FAULTS as error:
            raise InputError(
                f"{self.place}/{name}: cannot be written ({error}); what is finished is kept: mend the place, then "
                "run the same command again"
            ) from error


def shard_name(number: int) -> str:
    return f"shard-{number:05d}"


class EmbeddingSet:
    """The embeddings of a collection as one array (G, D), read from its shards as they are asked for.

    Shards are memory-mapped, so a set may be larger than memory, and `sketchynet.ops.nearest` and `match_rank` take
    it as their gallery. Row numbers that they return go to :meth:`id`.

    Where every photo is stored in several ``copies``, they are consecutive rows of one id. As they are meant, by the two
    nearest of a photo, `nearest_photos` searches them in memory: its gallery is
    ``torch.from_numpy(np.array(s[:])).unflatten(0, (-1, s.copies))``, photo ``i`` of its answer ``s.id(i * s.copies)``.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, folder: str | Path) -> None:
        """Opens a finished local folder. Raises InputError where it is none, or does not hold what it says."""
        self._folder = Path(folder)
        path = self._folder / "manifest.json"
        try:
            self.manifest: dict[str, Any] = json.loads(path.read_text())
            rows, self.dim = self.manifest["rows"], int(self.manifest["dim"])
            self.copies = int(self.manifest.get("copies", {"count": 1})["count"])
            if self.manifest["format"] != FORMAT:
                raise ValueError(f"it has format {self.manifest['format']}, this version reads {FORMAT}")
        except FileNotFoundError:
            raise InputError(f"{path} is missing: the folder holds no embeddings, or not all of them yet; "
                             "let `sketchynet embed` finish") from None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error}); run `sketchynet embed` again") from error
        self._starts = [0, *accumulate(rows)]
        self._shard = lru_cache(maxsize=1024)(self._open)
        self._entries = lru_cache(maxsize=16)(ShardFolder(str(self._folder)).entries)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.dim

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """float32 (n, D): consecutive rows, a view where they lie in one shard; or rows by number, int (n,)."""
        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            if step != 1:
                raise InputError(f"an EmbeddingSet is cut with step 1, not {step}")
            parts = [self._shard(number)[begin:end] for number, begin, end in self._spans(first, last)]
            return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)
        wanted = np.asarray(rows)
        found = np.empty((len(wanted), self.dim), np.float32)
        shards = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(shards):
            here = shards == number
            found[here] = self._shard(int(number))[wanted[here] - self._starts[number]]
        return found

    def _spans(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        number = bisect_right(self._starts, first) - 1
        while first < last:
            end = min(last, self._starts[number + 1])
            if end > first:
                yield number, first - self._starts[number], end - self._starts[number]
            first, number = end, number + 1

    def id(self, row: int) -> str:
        """The id of the photo in a row."""
        if not 0 <= row < len(self):
            raise InputError(f"there is no row {row} in {self._folder}: it holds {len(self)} embeddings")
        number = bisect_right(self._starts, row) - 1
        return self._entries(number)["ids"][row - self._starts[number]]

    def ids(self) -> Iterator[str]:
        """The ids of all rows, in order."""
        for number in range(len(self._starts) - 1):
            yield from self._entries(number)["ids"]

    def _open(self, number: int) -> np.ndarray:
        path = self._folder / f"{shard_name(number)}.npy"
        rows = self._starts[number + 1] - self._starts[number]
        try:
            # A file without rows cannot be mapped.
            shard = np.load(path, mmap_mode="r" if rows else None, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path} is damaged ({error}); remove its .json and run `sketchynet embed` again") from error
        if shard.shape != (rows, self.dim) or shard.dtype != self.dtype:
            raise InputError(f"{path} holds {shard.dtype} {shard.shape}, expected float32 {(rows, self.dim)}; remove "
                             "its .json and run `sketchynet embed` again")
        return shard
