"""Prepared sets: photos decoded and drawings turned into strokes once, then memory-mapped.

One folder a set, `<cache>/<name>-<key>/`, the key a hash of everything that its content depends on::

    meta.json            format, name, ids, category names, notes
    photos.npy           uint8 (P, size, size, 3), memory-mapped when read
    categories.npy, content.npy, split.npy             (P,), the source's own split
    points.npy, stroke_offsets.npy, sketch_offsets.npy the drawings, flat as in SketchBatch
    sketch_photo.npy     int64 (S,)
    widths.npy, erasers.npy                            only where the drawings have them

The folder is filled under a temporary name beside its place and then renamed: what is there is whole. Two
processes that prepare the same set at once do the work twice, and one result stays. No file holds pickles.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from sketchynet.data.pairs import PairedSet
from sketchynet.errors import InputError
from sketchynet.sketch import SketchBatch

FORMAT = 1
"""Raised whenever the files of a prepared set change their meaning."""

logger = logging.getLogger("sketchynet.data")

_PHOTO_ARRAYS = ("categories", "content", "split")
_SKETCH_ARRAYS = ("points", "stroke_offsets", "sketch_offsets")
_OPTIONAL_ARRAYS = ("widths", "erasers")


@dataclass(frozen=True)
class Prepared:
    """What a build hands over besides the photos, which it writes row by row (`Writer.photos`)."""

    photo_ids: Sequence[str]
    categories: np.ndarray
    category_names: Sequence[str]
    content: np.ndarray
    split: np.ndarray
    sketches: SketchBatch
    sketch_photo: np.ndarray
    notes: Sequence[str] = ()


class Writer:
    """Writes the arrays of one prepared set into its temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def photos(self, rows: Iterable[np.ndarray], count: int, size: int) -> np.ndarray:
        """Writes at most `count` photos, uint8 (size, size, 3) each, as they come; returns them as a memory map.

        Plain writes, no map: on a full disk a write fails with an error, a mapped page with a bus error.
        """
        path = self.folder / "photos.npy"
        with path.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
            np.lib.format.write_array_header_1_0(file, header)
            start, written = file.tell(), 0
            for row in rows:
                write(file, np.ascontiguousarray(row).data)
                written += 1
            if written != count:
                # numpy pads the header so that it keeps its length when the number of rows changes.
                file.seek(0)
                np.lib.format.write_array_header_1_0(file, header | {"shape": (written, size, size, 3)})
                assert file.tell() == start
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def array(self, name: str, value: np.ndarray) -> None:
        """Writes one array as `<name>.npy`."""
        value = np.ascontiguousarray(value)
        with (self.folder / f"{name}.npy").open("wb") as file:
            header = np.lib.format.header_data_from_array_1_0(value)
            np.lib.format.write_array_header_1_0(file, header)
            write(file, value.data.cast("B") if value.size else b"")

    def text(self, name: str, value: str) -> None:
        """Writes one UTF-8 text file."""
        with (self.folder / name).open("wb") as file:
            write(file, value.encode())


def write(file: IO[bytes], data: bytes | memoryview) -> None:
    """Every byte of a prepared set goes through here (tests let it fail)."""
    file.write(data)


def cache_folder(cache_dir: Path | None = None) -> Path:
    """Where prepared sets lie: `cache_dir`, else $SKETCHYNET_CACHE, else ~/.cache/sketchynet."""
    if cache_dir is not None:
        return Path(cache_dir)
    named = os.environ.get("SKETCHYNET_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "sketchynet"


def cache_key(parts: Mapping[str, Any], modules: Iterable[Path] = ()) -> str:
    """16 hex digits over JSON-able parts and over the text of the source files that make the content."""
    digest = hashlib.sha256(json.dumps({"format": FORMAT, **parts}, sort_keys=True).encode())
    for module in modules:
        for path in sorted(module.rglob("*.py")) if module.is_dir() else [module]:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def prepared_set(
    name: str, key: str, build: Callable[[Writer], Prepared], cache_dir: Path | None = None
) -> PairedSet:
    """The set `<name>-<key>` from the cache; where it is not there yet, `build` fills it first.

    Raises InputError, naming the folder, where the cache cannot be written (then nothing of that name is left
    there) or where what it holds is damaged.
    """
    parent = cache_folder(cache_dir)
    folder = parent / f"{name}-{key}"
    if not folder.is_dir():
        try:
            parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f".{name}-{key}."))
        except OSError as error:
            raise unwritable(folder, error) from error
        try:
            writer = Writer(temporary)
            _write_rest(writer, name, build(writer))
            _move(temporary, folder)
        except OSError as error:
            raise unwritable(folder, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return read_prepared(folder)


def read_prepared(folder: Path) -> PairedSet:
    """Reads a prepared set; the photos stay on disk as a read-only memory map. InputError where it is damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            raise ValueError(f"it has format {meta['format']}, this version reads {FORMAT}")
        photos = np.load(folder / "photos.npy", mmap_mode="r", allow_pickle=False)
        arrays = {
            name: np.load(folder / f"{name}.npy", allow_pickle=False)
            for name in (*_PHOTO_ARRAYS, *_SKETCH_ARRAYS, "sketch_photo", *meta["optional"])
        }
        sketches = SketchBatch(
            arrays["points"],
            arrays["stroke_offsets"],
            arrays["sketch_offsets"],
            tuple(meta["sketch_ids"]),
            arrays.get("widths"),
            arrays.get("erasers"),
        )
        return PairedSet(
            name=meta["name"],
            photos=photos,
            photo_ids=tuple(meta["photo_ids"]),
            category_names=tuple(meta["category_names"]),
            sketches=sketches,
            sketch_photo=arrays["sketch_photo"],
            notes=tuple(meta["notes"]),
            **{name: arrays[name] for name in _PHOTO_ARRAYS},
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: the prepared set is damaged ({error}); delete this folder, it is prepared anew from the data"
        ) from error


def _write_rest(writer: Writer, name: str, prepared: Prepared) -> None:
    sketches = prepared.sketches
    for field in _PHOTO_ARRAYS:
        writer.array(field, getattr(prepared, field))
    for field in _SKETCH_ARRAYS:
        writer.array(field, getattr(sketches, field))
    writer.array("sketch_photo", prepared.sketch_photo)
    optional = [field for field in _OPTIONAL_ARRAYS if getattr(sketches, field) is not None]
    for field in optional:
        writer.array(field, getattr(sketches, field))
    meta = {
        "format": FORMAT,
        "name": name,
        "photo_ids": list(prepared.photo_ids),
        "sketch_ids": list(sketches.ids or ()),
        "category_names": list(prepared.category_names),
        "optional": optional,
        "notes": list(prepared.notes),
    }
    writer.text("meta.json", json.dumps(meta, indent=1))
    read_prepared(writer.folder)  # What does not read back, or does not fit together, never gets its name.


def _move(temporary: Path, folder: Path) -> None:
    temporary.chmod(0o755)  # mkdtemp makes it private; a cache may be shared.
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        logger.info("%s was prepared by another process meanwhile; its result is used", folder)


def unwritable(folder: Path, error: OSError) -> InputError:
    """What to tell where the cache cannot be written."""
    return InputError(
        f"{folder}: the prepared set cannot be written ({error.strerror or error}). Free some space, or name another "
        "place with SKETCHYNET_CACHE, and run the same again: it goes on where it was"
    )
