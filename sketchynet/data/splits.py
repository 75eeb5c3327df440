"""Splits by photo: numbers, validation carved out of train, hash, leaks between splits.

A split belongs to a *photo*; its drawings follow it. So no drawing of a training photo can be a test query.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from sketchynet.errors import InputError

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLIT_NAMES = ("train", "validation", "test")


def split_hash(photo_ids: Sequence[str], split: np.ndarray) -> str:
    """First 16 hex digits of the SHA-256 over the sorted (photo id, split) pairs.

    photo_ids: P ids; split: integers (P,). The order of the photos does not matter.
    """
    if len(photo_ids) != len(split):
        raise InputError(
            f"{len(photo_ids)} photo ids but {len(split)} split values; give one split value a photo"
        )
    digest = hashlib.sha256()
    for photo_id, number in sorted(zip(photo_ids, (int(value) for value in split), strict=True)):
        # Length first: an id that holds the separators cannot imitate another pair.
        digest.update(f"{len(photo_id)}:{photo_id}={number}\n".encode())
    return digest.hexdigest()[:16]


def carve_validation(
    split: np.ndarray,
    categories: np.ndarray,
    content: np.ndarray,
    photo_ids: Sequence[str],
    *,
    fraction: float,
    seed: int,
    part: int = VALIDATION,
) -> np.ndarray:
    """Move a share of the training photos of every category to validation; returns a new int8 (P,).

    split int (P,): 0 train, 1 validation, 2 test; test (and validation that is already there) stays as it is.
    categories int64 (P,). content int64 (P,): photos with an equal number are one picture and stay on one side.
    fraction: share of each category's training photos, in [0, 1); rounded to whole photos, at least one where
    the share is positive, and at least one picture stays in train. A picture that also lies in test stays in
    train, so that validation never looks at a test picture. The choice depends on the ids and the seed, not on
    the order of the photos. part: where they go instead of validation, for a source that has no test part.
    """
    if not 0.0 <= fraction < 1.0:
        raise InputError(
            f"{SPLIT_NAMES[part]}={fraction}: the share of training photos has to be in [0, 1), for example 0.2"
        )
    result = np.array(split, dtype=np.int8)
    if fraction == 0.0:
        return result
    # A picture that train shares with another split, or with another category, is left where it is.
    members: dict[int, list[int]] = {}
    for index, number in enumerate(content):
        members.setdefault(int(number), []).append(index)
    for category in np.unique(categories):
        train = np.flatnonzero((categories == category) & (result == TRAIN))
        groups = {tuple(members[int(content[index])]) for index in train}
        movable = [
            group for group in groups if all(split[i] == TRAIN and categories[i] == category for i in group)
        ]
        wanted = max(1, round(fraction * len(train)))
        movable.sort(key=lambda group: _priority(min(photo_ids[i] for i in group), seed))
        taken = 0
        for group in movable:
            if taken >= wanted:
                break
            if taken + len(group) > wanted and taken > 0 or taken + len(group) >= len(train):
                continue
            result[list(group)] = part
            taken += len(group)
    return result


def find_leaks(photo_ids: Sequence[str], content: np.ndarray, split: np.ndarray) -> list[tuple[str, str]]:
    """Pairs (photo id, photo id) that show one picture on two sides of the split, earlier split first."""
    leaks = []
    order = np.lexsort((np.arange(len(content)), split, content))
    for start, stop in _runs(np.asarray(content)[order]):
        group = order[start:stop]
        leaks += [
            (photo_ids[a], photo_ids[b])
            for k, a in enumerate(group)
            for b in group[k + 1 :]
            if split[a] != split[b]
        ]
    return leaks


def _priority(photo_id: str, seed: int) -> bytes:
    """A seeded shuffle that another photo's presence cannot change."""
    return hashlib.sha256(f"{seed}\0{photo_id}".encode()).digest()


def _runs(values: np.ndarray) -> list[tuple[int, int]]:
    """Start and stop of every run of equal values."""
    if len(values) == 0:
        return []
    edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    bounds = [0, *edges.tolist(), len(values)]
    return list(pairwise(bounds))
