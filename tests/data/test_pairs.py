"""PairedSet: what fits together and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sketchynet import InputError, Sketch, SketchBatch
from sketchynet.data import TEST, TRAIN, VALIDATION, PairedSet


def line(id: str) -> Sketch:
    return Sketch.from_strokes([[[0.1, 0.2], [0.8, 0.9]]], id=id)


def small_set() -> PairedSet:
    """Four photos, five drawings; photo "d" has none."""
    return PairedSet(
        name="small",
        photos=np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3),
        photo_ids=("a", "b", "c", "d"),
        categories=np.array([0, 0, 1, 1]),
        category_names=("chairs", "shoes"),
        content=np.array([0, 1, 2, 0]),
        sketches=SketchBatch.from_sketches([line(id) for id in ("a#0", "a#1", "b#0", "c#0", "c#1")]),
        sketch_photo=np.array([0, 0, 1, 2, 2]),
        split=np.array([0, 2, 1, 2]),
    )


def test_indices_follow_the_photo() -> None:
    pairs = small_set()
    assert pairs.sketch_indices(TRAIN).tolist() == [0, 1]
    assert pairs.sketch_indices(VALIDATION).tolist() == [3, 4]
    assert pairs.sketch_indices(TEST).tolist() == [2]
    assert pairs.photo_indices(TEST).tolist() == [1, 3]
    assert pairs.split.dtype == np.int8 and pairs.categories.dtype == np.int64


def test_leak_between_splits_is_named() -> None:
    assert small_set().leaks() == [("a", "d")]


def test_hash_is_computed_and_checked() -> None:
    pairs = small_set()
    assert len(pairs.split_hash) == 16
    with pytest.raises(InputError, match="does not belong to this split"):
        replace(pairs, split=np.array([0, 0, 1, 2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sketch_photo": np.array([0, 0, 1, 2, 4])}, "'c#1': shows photo number 4, but there are 4"),
        ({"sketch_photo": np.array([0, 0, -1, 2, 2])}, "'b#0': shows photo number -1"),
        ({"sketch_photo": np.array([0, 0, 1])}, "sketch_photo is .*expected integers"),
        ({"photo_ids": ("a", "b", "b", "d")}, "photo id 'b' occurs 2 times"),
        ({"photo_ids": ("a", "b", "c")}, "4 photos but 3 photo ids"),
        ({"split": np.array([0, 3, 1, 2])}, "photo 'b': split is 3, expected 0 to 2"),
        ({"split": np.array([0.0, 1.0, 1.0, 2.0])}, "split is float64"),
        ({"categories": np.array([0, 0, 1, 2])}, "photo 'd': categories is 2"),
        ({"content": np.array([0, 1])}, "content is"),
        ({"photos": np.zeros((4, 8, 8, 3), np.float32)}, "photos are float32"),
        ({"photos": np.zeros((4, 8, 8), np.uint8)}, r"expected uint8 \(P, H, W, 3\)"),
        ({"photos": np.zeros((0, 8, 8, 3), np.uint8)}, "there is no photo"),
        ({"sketches": SketchBatch.from_sketches([line("x")] * 5)}, "sketch id 'x' occurs 5 times"),
        ({"sketches": SketchBatch.from_sketches([line("")] * 5)}, "the sketches have no ids"),
    ],
)
def test_bad_parts_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(small_set(), split_hash="", **change)


def test_unknown_split_number() -> None:
    with pytest.raises(InputError, match="split 3 does not exist"):
        small_set().sketch_indices(3)


def test_nan_coordinates_name_the_sketch() -> None:
    with pytest.raises(InputError, match="chairs/train/7"):
        Sketch.from_strokes([[[0.1, float("nan")]]], id="chairs/train/7")
