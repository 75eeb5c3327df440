from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from drawings import chair_strokes, random_batch
from exact_coverage import distance
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchynet import InputError, Sketch, SketchBatch, _core, simplify

coordinate = st.floats(0, 1, width=32)
stroke = st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=25)


def point_to_segment(p: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    along, offset = b - a, p - a
    length = float(along @ along)
    t = min(max(float(offset @ along) / length, 0.0), 1.0) if length > 0 else 0.0
    return float(np.hypot(*(offset - t * along)))


def douglas_peucker(points: np.ndarray, tolerance: float) -> list[int]:
    """The definition, recursive: indices that stay."""
    if len(points) < 3:
        return list(range(len(points)))
    gaps = [point_to_segment(p, points[0], points[-1]) for p in points[1:-1]]
    split = int(np.argmax(gaps)) + 1
    if gaps[split - 1] <= tolerance:
        return [0, len(points) - 1]
    first = douglas_peucker(points[: split + 1], tolerance)
    return first[:-1] + [split + i for i in douglas_peucker(points[split:], tolerance)]


def test_drops_what_lies_within_the_tolerance() -> None:
    sketch = Sketch.from_strokes([[[0, 0], [0.25, 0.01], [0.5, 0], [0.5, 0.5], [0.5, 1]], [[0.3, 0.3]]])
    [result] = simplify(SketchBatch.from_sketches([sketch]), 0.02)
    assert result.strokes()[0].tolist() == [[0, 0], [0.5, 0], [0.5, 1]]
    assert result.strokes()[1].tolist() == sketch.strokes()[1].tolist()


def test_closed_stroke_keeps_its_far_side() -> None:
    square = Sketch.from_strokes([[[0, 0], [0.5, 0], [1, 0], [1, 1], [0, 1], [0, 0]]])
    [result] = simplify(SketchBatch.from_sketches([square]), 0.01)
    assert result.points.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]


def test_points_behind_the_end_of_the_segment_count_by_their_distance_to_it() -> None:
    hook = Sketch.from_strokes([[[0.1, 0.5], [0.9, 0.5], [0.3, 0.5]]])
    [result] = simplify(SketchBatch.from_sketches([hook]), 0.1)
    assert result.num_points == 3


@pytest.mark.parametrize("tolerance", [0.0, 0.005, 0.03, 0.2])
def test_equals_the_recursive_definition(tolerance: float) -> None:
    batch = random_batch(6, seed=11, strokes=4, points=40)
    for sketch, result in zip(batch, simplify(batch, tolerance), strict=True):
        for points, kept in zip(sketch.strokes(), result.strokes(), strict=True):
            exact = points.astype(np.float64)
            assert np.array_equal(points[douglas_peucker(exact, tolerance)], kept)


@settings(max_examples=100, deadline=None)
@given(st.lists(stroke, min_size=1, max_size=4), st.floats(0, 0.3))
def test_every_dropped_point_lies_within_the_tolerance(drawing: list, tolerance: float) -> None:
    batch = SketchBatch.from_sketches([Sketch.from_strokes(drawing, id="a")])
    result = simplify(batch, tolerance)
    assert result.ids == ("a",) and len(result) == 1
    for points, kept in zip(batch[0].strokes(), result[0].strokes(), strict=True):
        assert np.array_equal(kept[[0, -1]], points[[0, -1]])
        assert {tuple(p) for p in kept} <= {tuple(p) for p in points}
        pieces = np.hstack([kept[:-1], kept[1:]]) if len(kept) > 1 else np.hstack([kept, kept])
        assert distance(points.astype(np.float64), pieces.astype(np.float64)).max() <= tolerance + 1e-6


def test_long_strokes_need_no_recursion() -> None:
    # Every point splits off the next one: as deep as it gets.
    spiral = np.arange(20_000)
    points = np.stack([spiral / 20_000, (spiral % 2) * 0.5 * (1 - spiral / 20_000)], axis=1)
    batch = SketchBatch.from_sketches([Sketch.from_strokes([points])])
    assert simplify(batch, 1e-7)[0].num_points == 20_000


def test_attributes_ids_and_strokes_stay() -> None:
    batch = random_batch(3, seed=12)
    widths = np.linspace(0.01, 0.02, batch.num_strokes, dtype=np.float32)
    erasers = np.arange(batch.num_strokes) % 3 == 0
    batch = SketchBatch(batch.points, batch.stroke_offsets, batch.sketch_offsets, batch.ids, widths, erasers)
    result = simplify(batch, 0.1)
    assert result.ids == batch.ids
    assert np.array_equal(result.sketch_offsets, batch.sketch_offsets)
    assert result.widths is not None and np.array_equal(result.widths, widths)
    assert result.erasers is not None and np.array_equal(result.erasers, erasers)
    assert len(result.points) < len(batch.points)


def test_empty_batch() -> None:
    assert len(simplify(SketchBatch.from_sketches([]), 0.1)) == 0


def test_real_strokes(data_root: Path) -> None:
    batch = chair_strokes(data_root, 200)
    counts = [len(simplify(batch, tolerance).points) for tolerance in (0, 1 / 512, 1 / 64, 0.5)]
    assert len(batch.points) >= counts[0] > counts[1] > counts[2] > counts[3] >= batch.num_strokes


@pytest.mark.parametrize("tolerance", [-0.1, math.nan, math.inf])
def test_bad_tolerance(tolerance: float) -> None:
    with pytest.raises(InputError, match="tolerance"):
        simplify(random_batch(1, seed=0), tolerance)
    with pytest.raises(ValueError, match="tolerance"):
        batch = random_batch(1, seed=0)
        _core.simplify(batch.points, batch.stroke_offsets, tolerance)
