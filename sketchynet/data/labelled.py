"""LabelledSet: drawings with categories, and who may be trained on; for sketch recognition."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from sketchynet.data.splits import SPLIT_NAMES, TEST, TRAIN, VALIDATION
from sketchynet.errors import InputError
from sketchynet.sketch import SketchBatch


class Drawings(Protocol):
    """Drawings by number: a `SketchBatch` in memory, or a `FlatSketches` on disk."""

    @property
    def ids(self) -> Any:
        """The drawings' ids, by number; None where there are none."""

    def __len__(self) -> int: ...

    def select(self, indices: Any) -> SketchBatch:
        """The drawings of these numbers, in this order."""


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """S drawings, each of one category. Raises InputError where the parts do not fit together."""

    name: str
    """Name of the source, for tables and logs."""
    sketches: Drawings
    """S drawings with unique ids."""
    labels: np.ndarray
    """int64 (S,): index into category_names."""
    category_names: tuple[str, ...]
    """Names of the categories."""
    split: np.ndarray
    """int8 (S,): 0 train, 1 validation, 2 test; by drawing, every category in the same shares."""
    split_hash: str = ""
    """16 hex digits that tell ids and split, whatever the order of the drawings. Where it is left empty it is
    computed, and the ids are checked to be unique; it takes a minute for tens of millions."""
    notes: tuple[str, ...] = ()
    """What a reader of results should know."""

    def __post_init__(self) -> None:
        where, count = f"labelled set {self.name!r}", len(self.sketches)
        ids = self.sketches.ids
        if ids is None:
            raise InputError(f"{where}: the drawings have no ids; give every drawing one, errors name it")
        for field, dtype, stop in (
            ("labels", np.int64, len(self.category_names)),
            ("split", np.int8, len(SPLIT_NAMES)),
        ):
            value = np.asarray(getattr(self, field))
            if value.shape != (count,) or value.dtype.kind not in "iu":
                raise InputError(
                    f"{where}: {field} is {value.dtype} {value.shape}, expected integers ({count},), one a drawing"
                )
            wrong = np.flatnonzero((value < 0) | (value >= stop))
            if len(wrong):
                raise InputError(
                    f"{where}, drawing {ids[int(wrong[0])]!r}: {field} is {int(value[wrong[0]])}, expected 0 to "
                    f"{stop - 1} ({len(wrong)} such); correct or drop it"
                )
            object.__setattr__(self, field, value.astype(dtype))
        if self.split_hash == "":
            keys = _keys(ids, 0)
            _check_unique(ids, keys, where)
            object.__setattr__(self, "split_hash", _hash_of(keys, self.split))

    def sketch_indices(self, split: int) -> np.ndarray:
        """int64: the drawings in `split` (0 train, 1 validation, 2 test), ascending."""
        return np.flatnonzero(self.split == split)


def split_drawings(
    labels: np.ndarray, ids: Any, *, test: float, validation: float, seed: int
) -> np.ndarray:
    """int8 (S,): a split by drawing within each category, by a seeded order of the drawings.

    Args:
        labels: int64 (S,).
        ids: S ids; they and the seed decide, not the order of the drawings.
        test: share of each category's drawings that is tested on, in (0, 1), rounded, at least one drawing.
        validation: share of the remaining ones, likewise.

    Raises:
        InputError: a share out of range, or a category with too few drawings for three parts.
    """
    for name, share in (("test", test), ("validation", validation)):
        if not 0 < share < 1:
            raise InputError(f"{name}={share}: the share of each category's drawings has to be in (0, 1)")
    split = np.full(len(labels), TRAIN, dtype=np.int8)
    # Ids are hashed to 64-bit keys at once: millions of drawings are no reason to wait.
    keys = _keys(ids, seed)
    order = np.lexsort((keys, labels))
    bounds = np.flatnonzero(np.diff(labels[order], prepend=-1, append=-1))
    for first, last in pairwise(bounds.tolist()):
        members, count = order[first:last], last - first
        tested = max(1, round(test * count))
        validated = max(1, round(validation * (count - tested)))
        if count - tested - validated < 1:
            raise InputError(
                f"category number {int(labels[members[0]])} has {count} drawings, too few for training, validation "
                "and test; leave the category out"
            )
        split[members[:tested]] = TEST
        split[members[tested : tested + validated]] = VALIDATION
    return split


def _hash_of(keys: np.ndarray, split: np.ndarray) -> str:
    """The hash over (key, split), sorted; arrays throughout, since there may be millions."""
    order = np.argsort(keys)
    digest = sha256(keys[order].astype(">u8").tobytes())
    digest.update(split[order].tobytes())
    return digest.hexdigest()[:16]


def _check_unique(ids: Any, keys: np.ndarray, where: str) -> None:
    order = np.argsort(keys, kind="stable")
    for n in np.flatnonzero(np.diff(keys[order]) == 0):
        first, second = ids[int(order[n])], ids[int(order[n + 1])]
        if first == second:
            places = f"numbers {int(order[n])} and {int(order[n + 1])}"
            raise InputError(f"{where}: drawing {first!r} occurs twice ({places}); remove one of them")


def _keys(ids: Any, seed: int) -> np.ndarray:
    """uint64 (S,): a seeded hash of every id, so that another drawing's presence cannot change a split."""
    prefix = f"{seed}\0".encode()
    return np.fromiter(
        (int.from_bytes(sha256(prefix + str(name).encode()).digest()[:8], "big") for name in ids),
        np.uint64,
        len(ids),
    )
