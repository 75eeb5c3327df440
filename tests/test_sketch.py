from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from drawings import random_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchynet import InputError, Sketch, SketchBatch
from sketchynet.sketch import DEFAULT_WIDTH, FRAME_MARGIN, fit_to_frame

coordinate = st.floats(-2, 3, width=32)
strokes = st.lists(
    st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=8), min_size=1, max_size=5
)


def same(first: Sketch, second: Sketch, tolerance: float = 0.0) -> bool:
    return np.array_equal(first.stroke_offsets, second.stroke_offsets) and bool(
        np.abs(first.points - second.points).max() <= tolerance
    )


# --- frame --------------------------------------------------------------------------------------------------------


def test_fit_to_frame_literal() -> None:
    fitted = fit_to_frame([[10, 20], [30, 20], [30, 30]], margin=0.1)
    assert fitted.dtype == np.float32
    np.testing.assert_allclose(fitted, [[0.1, 0.3], [0.9, 0.3], [0.9, 0.7]], atol=1e-7)


def test_fit_to_frame_of_one_place_is_the_centre() -> None:
    assert fit_to_frame([[7, -3], [7, -3]]).tolist() == [[0.5, 0.5], [0.5, 0.5]]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=20))
def test_fit_to_frame_fills_the_frame_up_to_its_margin(points: list) -> None:
    fitted = fit_to_frame(points)
    low, high = fitted.min(axis=0), fitted.max(axis=0)
    assert (low >= FRAME_MARGIN - 1e-5).all() and (high <= 1 - FRAME_MARGIN + 1e-5).all()
    np.testing.assert_allclose((low + high) / 2, 0.5, atol=1e-5)


@pytest.mark.parametrize("margin", [-0.1, 0.5, math.nan])
def test_bad_margin(margin: float) -> None:
    with pytest.raises(InputError, match="margin"):
        fit_to_frame([[0, 0], [1, 1]], margin)


def test_no_points_to_fit() -> None:
    with pytest.raises(InputError, match="no points"):
        fit_to_frame(np.empty((0, 2)))


# --- one sketch ---------------------------------------------------------------------------------------------------


def test_strokes_and_counts() -> None:
    sketch = Sketch.from_strokes([[[0, 0], [1, 0]], [[0.5, 0.5]]], id="a")
    assert (sketch.num_points, sketch.num_strokes, sketch.id) == (3, 2, "a")
    assert sketch.points.dtype == np.float32 and sketch.stroke_offsets.tolist() == [0, 2, 3]
    assert [stroke.tolist() for stroke in sketch.strokes()] == [[[0, 0], [1, 0]], [[0.5, 0.5]]]


def test_from_strokes_fits_all_strokes_together() -> None:
    sketch = Sketch.from_strokes([[[0, 0], [100, 0]], [[50, 100]]], fit=True)
    np.testing.assert_allclose(sketch.points, [[0.04, 0.04], [0.96, 0.04], [0.5, 0.96]], atol=1e-6)


def test_stroke3_literal() -> None:
    sketch = Sketch.from_strokes([[[0.25, 0.5], [0.5, 0.5]], [[0.75, 0.25]]])
    expected = [[0.25, 0.5, 0], [0.25, 0, 1], [0.25, -0.25, 1]]
    assert sketch.to_stroke3().tolist() == expected
    assert same(Sketch.from_stroke3(expected, fit=False), sketch)


def test_stroke3_needs_no_last_lift() -> None:
    sketch = Sketch.from_stroke3([[0, 0, 0], [1, 0, 1], [0, 1, 0]], fit=False)
    assert sketch.stroke_offsets.tolist() == [0, 2, 3]


def test_stroke5_literal() -> None:
    sketch = Sketch.from_strokes([[[0.25, 0.5], [0.5, 0.5]], [[0.75, 0.25]]])
    expected = [[0.25, 0.5, 1, 0, 0], [0.25, 0, 0, 1, 0], [0.25, -0.25, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert sketch.to_stroke5().tolist() == expected
    assert sketch.to_stroke5(6).tolist() == expected + [[0, 0, 0, 0, 1]] * 2
    assert same(Sketch.from_stroke5(expected + [[9, 9, 1, 0, 0]], fit=False), sketch)
    with pytest.raises(InputError, match="needs 4 rows"):
        sketch.to_stroke5(3)


@settings(max_examples=80, deadline=None)
@given(strokes)
def test_round_trips(drawing: list) -> None:
    sketch = Sketch.from_strokes(drawing)
    assert same(Sketch.from_strokes(sketch.strokes()), sketch)
    assert same(Sketch.from_stroke3(sketch.to_stroke3(), fit=False), sketch, tolerance=1e-4)
    assert same(Sketch.from_stroke5(sketch.to_stroke5(60), fit=False), sketch, tolerance=1e-4)


def test_formats_are_fitted_alike() -> None:
    sketch = Sketch.from_strokes([[[0.04, 0.04], [0.96, 0.3]], [[0.5, 0.96]]])
    assert same(Sketch.from_stroke3(sketch.to_stroke3() * [256, 256, 1]), sketch, tolerance=1e-6)
    assert same(Sketch.from_stroke5(sketch.to_stroke5() * [256, 256, 1, 1, 1]), sketch, tolerance=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_coordinates_must_be_finite(bad: float) -> None:
    with pytest.raises(InputError, match="'chair/7'.*finite"):
        Sketch(np.array([[0, 0], [0, bad]]), np.array([0, 2]), "chair/7")  # type: ignore[arg-type]  # float64
    with pytest.raises(InputError, match="'chair/7'.*finite"):
        Sketch.from_strokes([[[0, 0], [bad, 0]]], "chair/7")


@pytest.mark.parametrize(
    "points, offsets, message",
    [
        (np.zeros((2, 3)), [0, 2], r"\(2, 3\)"),
        (np.zeros(4), [0, 2], r"must be \(N, 2\)"),
        (np.zeros((2, 2)), [0, 1], "from 0 to 2"),
        (np.zeros((2, 2)), [1, 2], "from 0 to 2"),
        (np.zeros((2, 2)), [0, 0, 2], "at least one point"),
        (np.zeros((2, 2)), [0, 3, 1, 2], "must rise"),
        (np.zeros((2, 2)), [0.0, 2.0], "integers"),
        (np.zeros((2, 2)), [], "integers"),
        (np.zeros((0, 2)), [0], "empty"),
        ([["x", "y"]], [0, 1], "numbers"),
        ([[0, 0], [1]], [0, 2], "numbers"),
    ],
)
def test_bad_sketch(points: object, offsets: list, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Sketch(points, np.array(offsets), "shoe/3")  # type: ignore[arg-type]  # the point of the test
    assert "'shoe/3'" in str(caught.value)


def test_bad_strokes() -> None:
    with pytest.raises(InputError, match="'s' is empty"):
        Sketch.from_strokes([], "s")
    with pytest.raises(InputError, match="'s'.*stroke 1"):
        Sketch.from_strokes([[[0, 0]], []], "s")
    with pytest.raises(InputError, match="'s'.*at least one point"):
        Sketch.from_strokes([[[0, 0]], np.empty((0, 2))], "s")


def test_bad_attributes() -> None:
    points, offsets = np.zeros((2, 2), np.float32), np.array([0, 1, 2])
    for widths in ([1.0], [1.0, 0.0], [1.0, math.nan]):
        with pytest.raises(InputError, match="'s'.*width"):
            Sketch(points, offsets, "s", widths=np.array(widths, np.float32))
    for erasers in (np.zeros(1, bool), np.zeros(2, int)):
        with pytest.raises(InputError, match="'s'.*erasers"):
            Sketch(points, offsets, "s", erasers=erasers)  # type: ignore[arg-type]  # the point of the test


def test_bad_stroke_formats() -> None:
    for rows in ([[0, 0, 2]], [[0, 0]], [[0, math.nan, 1]], np.empty((0, 3))):
        with pytest.raises(InputError, match="'s'"):
            Sketch.from_stroke3(rows, "s")
    for rows in ([[0, 0, 1, 1, 0]], [[0, 0, 0, 0, 0]], [[0, 0, 0.5, 0.5, 0]], [[0, 0, 0, 0, 1]], [[0, 0, 1]]):
        with pytest.raises(InputError, match="'s'"):
            Sketch.from_stroke5(rows, "s")


# --- batches ------------------------------------------------------------------------------------------------------


def test_batch_holds_its_sketches() -> None:
    sketches = list(random_batch(5, seed=1))
    batch = SketchBatch.from_sketches(sketches)
    assert len(batch) == 5 and batch.ids == tuple(sketch.id for sketch in sketches)
    assert np.diff(batch.point_offsets).tolist() == [sketch.num_points for sketch in sketches]
    for b, sketch in enumerate(sketches):
        assert same(batch[b], sketch) and batch[b].id == sketch.id
        assert same(batch[b - 5], sketch)
    with pytest.raises(IndexError):
        batch[5]


def test_select_and_concat() -> None:
    batch = random_batch(6, seed=2)
    chosen = batch.select([4, 0, 4, -1])
    assert chosen.ids == tuple(f"random-2-{i}" for i in (4, 0, 4, 5))
    for sketch, index in zip(chosen, (4, 0, 4, 5), strict=True):
        assert same(sketch, batch[index])
    joined = SketchBatch.concat([batch.select([0, 1]), batch.select([]), batch.select(np.arange(6) >= 2)])
    assert joined.ids == batch.ids
    assert np.array_equal(joined.points, batch.points)
    assert np.array_equal(joined.stroke_offsets, batch.stroke_offsets)
    assert np.array_equal(joined.sketch_offsets, batch.sketch_offsets)
    assert len(SketchBatch.concat([])) == 0
    with pytest.raises(IndexError):
        batch.select([6])


def test_attributes_follow_their_strokes() -> None:
    plain = Sketch.from_strokes([[[0, 0]], [[1, 1]]])
    styled = Sketch(
        plain.points,
        plain.stroke_offsets,
        "styled",
        widths=np.array([0.1, 0.2], np.float32),
        erasers=np.array([False, True]),
    )
    batch = SketchBatch.from_sketches([plain, styled])
    assert batch.ids == ("", "styled")
    assert batch.widths is not None and batch.erasers is not None
    np.testing.assert_array_equal(
        batch.widths, np.array([DEFAULT_WIDTH, DEFAULT_WIDTH, 0.1, 0.2], np.float32)
    )
    assert batch.erasers.tolist() == [False, False, False, True]
    chosen = batch.select([1, 0])
    assert chosen.widths is not None and chosen.erasers is not None
    assert chosen.erasers.tolist() == [False, True, False, False]
    last = chosen[0]
    assert last.widths is not None and last.widths.tolist() == styled.widths.tolist()  # type: ignore[union-attr]  # set


def test_no_attributes_stay_none() -> None:
    batch = SketchBatch.from_sketches([Sketch.from_strokes([[[0, 0]]])])
    assert batch.ids is None and batch.widths is None and batch.erasers is None


def test_bad_numbers_name_the_sketch() -> None:
    batch = random_batch(4, seed=3)
    points = batch.points.copy()
    points[batch.point_offsets[2] + 1, 0] = math.nan
    with pytest.raises(InputError, match="sketch 'random-3-2': point 1 is .*nan"):
        SketchBatch(points, batch.stroke_offsets, batch.sketch_offsets, batch.ids)
    with pytest.raises(InputError, match="sketch 2 of the batch"):
        SketchBatch(points, batch.stroke_offsets, batch.sketch_offsets)


def test_empty_sketch_in_a_batch_is_named() -> None:
    with pytest.raises(InputError, match="part 1 \\('b'\\).*at least one stroke"):
        SketchBatch(
            np.zeros((2, 2), np.float32), np.array([0, 1, 2]), np.array([0, 1, 1, 2]), ("a", "b", "c")
        )


def test_bad_batches() -> None:
    points, one = np.zeros((1, 2), np.float32), np.array([0, 1])
    with pytest.raises(InputError, match="2 ids for 1"):
        SketchBatch(points, one, one, ("a", "b"))
    with pytest.raises(InputError, match="sketch_offsets must run"):
        SketchBatch(points, one, np.array([0, 2]))
    with pytest.raises(InputError, match="widths"):
        SketchBatch(points, one, one, widths=np.ones(2, np.float32))


def test_sketches_travel_between_processes() -> None:
    batch = random_batch(2, seed=4)
    for copied in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch)):
        assert np.array_equal(copied.points, batch.points) and copied.ids == batch.ids


def test_the_package_imports_no_heavy_framework() -> None:
    code = "import sketchynet, sys; print([m for m in ('torch', 'ray', 'mlflow') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
