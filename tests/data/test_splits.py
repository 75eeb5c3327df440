"""Splits by photo."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchynet import InputError
from sketchynet.data.splits import TEST, TRAIN, VALIDATION, carve_validation, find_leaks, split_hash

photos = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([TRAIN, TRAIN, TRAIN, TEST]), st.integers(0, 30)),
    min_size=1,
    max_size=40,
)
"""Category, official split and picture of each photo."""


def columns(rows: list[tuple[int, int, int]]) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(rows)
    return [f"p{i}" for i in range(len(rows))], table[:, 0], table[:, 1], table[:, 2]


@given(photos, st.floats(0.01, 0.9), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_validation_is_disjoint_and_keeps_pictures_together(rows: list, fraction: float, seed: int) -> None:
    ids, categories, official, content = columns(rows)
    split = carve_validation(official, categories, content, ids, fraction=fraction, seed=seed)
    assert np.array_equal(split == TEST, official == TEST)
    for number in np.unique(content):
        found = set(split[content == number].tolist())
        # A picture of test stays out of validation, whatever else it is in.
        assert found != {VALIDATION, TEST} and not {TRAIN, VALIDATION} <= found
        assert not {VALIDATION, TEST} <= found
    for category in np.unique(categories):
        here = categories == category
        before = int((official[here] == TRAIN).sum())
        moved = int((split[here] == VALIDATION).sum())
        assert before == 0 or moved < before
        # One group of equal pictures may overshoot only where nothing smaller was taken.
        largest = max(np.unique(content[here], return_counts=True)[1])
        assert moved <= max(max(1, round(fraction * before)), largest)


@given(photos, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_order_of_the_photos_changes_nothing(rows: list, random) -> None:
    ids, categories, official, content = columns(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    split = carve_validation(official, categories, content, ids, fraction=0.3, seed=1)
    again = carve_validation(
        official[order], categories[order], content[order], [ids[i] for i in order], fraction=0.3, seed=1
    )
    assert np.array_equal(split[order], again)
    assert split_hash(ids, split) == split_hash([ids[i] for i in order], again)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=20), st.data())
@settings(max_examples=100, deadline=None)
def test_hash_tells_every_change(split: list[int], data: st.DataObject) -> None:
    ids = [f"p{i}" for i in range(len(split))]
    changed = list(split)
    place = data.draw(st.integers(0, len(split) - 1))
    changed[place] = (changed[place] + data.draw(st.integers(1, 2))) % 3
    assert split_hash(ids, np.array(split)) != split_hash(ids, np.array(changed))


def test_hash_is_fixed() -> None:
    """The definition in literal form: hashes in old logs stay comparable."""
    ids = ["shoes/train/1=12", "shoes/train/12"]
    expected = hashlib.sha256(b"14:shoes/train/12=0\n16:shoes/train/1=12=2\n").hexdigest()[:16]
    assert split_hash(ids, np.array([2, 0], dtype=np.int8)) == expected
    assert split_hash(ids[::-1], np.array([0, 2])) == expected == "478b7593288636d1"


def test_share_of_every_category() -> None:
    categories = np.repeat([0, 1], [200, 300])
    ids = [f"p{i}" for i in range(500)]
    zeros = np.zeros(500, np.int8)
    split = carve_validation(zeros, categories, np.arange(500), ids, fraction=0.12, seed=0)
    assert [(split[categories == c] == VALIDATION).sum() for c in (0, 1)] == [24, 36]
    other = carve_validation(zeros, categories, np.arange(500), ids, fraction=0.12, seed=1)
    assert not np.array_equal(split, other)


def test_leaks_naive() -> None:
    content = np.array([5, 1, 5, 5, 2])
    split = np.array([2, 0, 0, 1, 2])
    ids = list("abcde")
    assert set(find_leaks(ids, content, split)) == {("c", "d"), ("c", "a"), ("d", "a")}


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_bad_share(fraction: float) -> None:
    one = np.zeros(1, np.int8)
    with pytest.raises(InputError, match="validation="):
        carve_validation(one, one, one, ["a"], fraction=fraction, seed=0)


def test_hash_needs_one_split_a_photo() -> None:
    with pytest.raises(InputError, match="2 photo ids but 1 split"):
        split_hash(["a", "b"], np.array([0]))
