"""PairedSet: photos, the drawings of them, and who may be trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sketchynet.data.splits import SPLIT_NAMES, find_leaks, split_hash
from sketchynet.errors import InputError
from sketchynet.sketch import SketchBatch


@dataclass(frozen=True, eq=False)
class PairedSet:
    """P photos and S drawings; every drawing shows one photo.

    A photo without a drawing is allowed (it distracts in the gallery), a drawing without its photo is not.
    Raises InputError, naming the photo or sketch id, where the parts do not fit together.
    """

    name: str
    """Name of the source, for tables and logs."""
    photos: np.ndarray
    """uint8 (P, H, W, 3), RGB; may be a memory map."""
    photo_ids: tuple[str, ...]
    """P unique ids, for example "shoes/train/12"."""
    categories: np.ndarray
    """int64 (P,): index into category_names; retrieval runs within a category."""
    category_names: tuple[str, ...]
    """Names of the categories."""
    content: np.ndarray
    """int64 (P,): equal numbers mean the same picture; such photos are never negatives of each other."""
    sketches: SketchBatch
    """S drawings with unique ids."""
    sketch_photo: np.ndarray
    """int64 (S,): index of the photo that a drawing shows."""
    split: np.ndarray
    """int8 (P,): 0 train, 1 validation, 2 test; by photo, so a drawing is where its photo is."""
    split_hash: str = ""
    """First 16 hex digits of SHA-256 over the sorted (photo id, split); computed where it is left empty."""
    notes: tuple[str, ...] = ()
    """What a reader of results should know: leaks, drawings left out, an order of strokes that nobody drew."""

    def __post_init__(self) -> None:
        where = f"paired set {self.name!r}"
        photos = self.photos
        if photos.dtype != np.uint8 or photos.ndim != 4 or photos.shape[3] != 3 or 0 in photos.shape[1:3]:
            raise InputError(
                f"{where}: photos are {photos.dtype} {photos.shape}, expected uint8 (P, H, W, 3); "
                "convert every photo to RGB of one size"
            )
        count = photos.shape[0]
        if count == 0:
            raise InputError(f"{where}: there is no photo; check the source's folder")
        if len(self.photo_ids) != count:
            raise InputError(
                f"{where}: {count} photos but {len(self.photo_ids)} photo ids; give every photo one id"
            )
        _unique(self.photo_ids, f"{where}: photo id")
        for field, dtype in (("categories", np.int64), ("content", np.int64), ("split", np.int8)):
            self._integers(field, dtype, count, "photo")
        self._within("categories", len(self.category_names), self.photo_ids, "photo")
        self._within("split", len(SPLIT_NAMES), self.photo_ids, "photo")
        self._check_sketches(where, count)
        found = split_hash(self.photo_ids, self.split)
        if self.split_hash not in ("", found):
            raise InputError(
                f"{where}: split hash {self.split_hash!r} does not belong to this split (its hash is {found!r}); "
                "leave it empty to have it computed, or load the split that the hash was made from"
            )
        object.__setattr__(self, "split_hash", found)

    def _check_sketches(self, where: str, photo_count: int) -> None:
        if self.sketches.ids is None:
            raise InputError(
                f"{where}: the sketches have no ids; give every sketch one, errors and results name it"
            )
        _unique(self.sketches.ids, f"{where}: sketch id")
        self._integers("sketch_photo", np.int64, len(self.sketches), "sketch")
        self._within("sketch_photo", photo_count, self.sketches.ids, "sketch")

    def _integers(self, field: str, dtype: type, count: int, thing: str) -> None:
        value = np.asarray(getattr(self, field))
        if value.shape != (count,) or value.dtype.kind not in "iu":
            raise InputError(
                f"paired set {self.name!r}: {field} is {value.dtype} {value.shape}, expected integers ({count},), "
                f"one a {thing}"
            )
        converted: np.ndarray = value.astype(dtype)
        if not np.array_equal(converted, value):
            raise InputError(
                f"paired set {self.name!r}: {field} holds values that do not fit {np.dtype(dtype)}"
            )
        object.__setattr__(self, field, converted)

    def _within(self, field: str, stop: int, ids: tuple[str, ...], thing: str) -> None:
        value = getattr(self, field)
        wrong = np.flatnonzero((value < 0) | (value >= stop))
        if len(wrong):
            first = int(wrong[0])
            fault = f"{field} is {int(value[first])}, expected 0 to {stop - 1}"
            if field == "sketch_photo":
                fault = f"shows photo number {int(value[first])}, but there are {stop} photos"
            raise InputError(
                f"paired set {self.name!r}, {thing} {ids[first]!r}: {fault} ({len(wrong)} such); correct or drop it"
            )

    def sketch_indices(self, split: int) -> np.ndarray:
        """int64: the drawings whose photo is in `split` (0 train, 1 validation, 2 test), ascending."""
        return np.flatnonzero(self.split[self.sketch_photo] == _known(split))

    def photo_indices(self, split: int) -> np.ndarray:
        """int64: the photos in `split` (0 train, 1 validation, 2 test), ascending."""
        return np.flatnonzero(self.split == _known(split))

    def leaks(self) -> list[tuple[str, str]]:
        """Pairs of photo ids that show one picture on two sides of the split."""
        return find_leaks(self.photo_ids, self.content, self.split)


def _known(split: int) -> int:
    if split not in range(len(SPLIT_NAMES)):
        named = ", ".join(f"{number} {name}" for number, name in enumerate(SPLIT_NAMES))
        raise InputError(f"split {split!r} does not exist; use one of {named}")
    return int(split)


def _unique(ids: Iterable[str], what: str) -> None:
    counted = Counter(ids)
    twice = [value for value, times in counted.items() if times > 1]
    if twice:
        raise InputError(f"{what} {twice[0]!r} occurs {counted[twice[0]]} times; every id has to be unique")
