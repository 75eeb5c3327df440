"""A collection of photos on any storage that fsspec reads: a folder, a bucket, or a list of files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem

from sketchynet.data.images import read_photo
from sketchynet.data.scan import IMAGES
from sketchynet.errors import InputError

STORAGE_FAULTS = (OSError, ValueError, ImportError)
"""What fsspec raises where a storage cannot be used: no such place or no rights, no such protocol, no driver."""


@dataclass(frozen=True)
class PhotoCollection:
    """The photos of a place, in a stable order; picklable, reads nothing until it is asked to."""

    root: str
    """URL or path that the ids are relative to."""
    ids: tuple[str, ...]
    """Path of every photo below the root, ascending."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the ids."""
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()[:16]

    def read(self, id: str, size: int, *, fit: bool) -> np.ndarray:
        """uint8 (size, size, 3): a photo as `read_photo` prepares it for training. InputError names the photo."""
        place = f"{self.root}/{id}" if self.root else id
        if "://" not in place:
            return read_photo(Path(place), size, fit=fit)
        try:
            with fsspec.open(place, "rb") as file:
                return read_photo(Path(place), size, fit=fit, file=file)
        except InputError:
            raise
        except STORAGE_FAULTS as error:
            raise InputError(f"{place}: the photo cannot be read ({error})") from error


def list_photos(place: str) -> PhotoCollection:
    """The photos below a folder or URL; or those that a `.txt` file names, one path or URL a line.

    Hidden files and files that are no pictures are passed over. Raises InputError where there is no photo, and where
    the storage cannot be reached.
    """
    if place.endswith(".txt"):
        return PhotoCollection("", _listed(place))
    try:
        filesystem, root = fsspec.url_to_fs(place)
        if not filesystem.isdir(root):
            raise InputError(f"{place}: there is no such folder of photos; give a folder, a URL, or a .txt list of files")
        found = filesystem.find(root)
    except STORAGE_FAULTS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{place}: the storage cannot be read ({error})") from error
    root = root.rstrip("/")
    below = (path[len(root) + 1 :] for path in found if path.lower().endswith(IMAGES))
    ids = sorted(id for id in below if not any(part.startswith(".") for part in id.split("/")))
    if not ids:
        raise InputError(f"{place}: no photo in it; expected files that end in {', '.join(IMAGES)}")
    local = isinstance(filesystem, LocalFileSystem)
    return PhotoCollection(root if local else filesystem.unstrip_protocol(root), tuple(ids))


def _listed(place: str) -> tuple[str, ...]:
    try:
        with fsspec.open(place, "rt", encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except STORAGE_FAULTS as error:
        raise InputError(f"{place}: the list cannot be read ({error}); it has to be UTF-8 text, one photo a line") from error
    numbers: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if line and numbers.setdefault(line, number) != number:
            raise InputError(f"{place}, line {number}: {line!r} stands in line {numbers[line]} already; remove one")
    if not numbers:
        raise InputError(f"{place}: the list names no photo; expected one path or URL a line")
    return tuple(sorted(numbers))


def read_many(
    collection: PhotoCollection, ids: Sequence[str], size: int, *, fit: bool
) -> tuple[np.ndarray, list[str], list[list[str]]]:
    """The photos that can be read, uint8 (n, size, size, 3), their ids, and [id, message] of the others."""
    photos: list[Any] = []
    good: list[str] = []
    faults: list[list[str]] = []
    for id in ids:
        try:
            photos.append(collection.read(id, size, fit=fit))
            good.append(id)
        except InputError as error:
            faults.append([id, str(error)])
    return np.stack(photos) if photos else np.zeros((0, size, size, 3), np.uint8), good, faults
