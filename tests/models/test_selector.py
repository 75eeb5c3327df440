from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sketchynet.errors import InputError
from sketchynet.flops import count_parameters, selector_flops
from sketchynet.models import CanvasSelector, build_from_config, selector_input
from sketchynet.models.selector import ink_map, stroke_statistics
from sketchynet.sketch import Sketch, SketchBatch


def _batch() -> SketchBatch:
    square = np.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]], dtype=np.float32)
    line = np.array([[0.2, 0.5], [0.5, 0.5], [0.8, 0.5]], dtype=np.float32)
    dot = np.array([[0.5, 0.5]], dtype=np.float32)
    return SketchBatch.from_sketches(
        [Sketch.from_strokes([square, line], id="a"), Sketch.from_strokes([dot])]
    )


def test_points_and_pen_states() -> None:
    points, lengths = selector_input(_batch(), tolerance=0.01, max_points=50)
    assert points.dtype == torch.float32 and lengths.dtype == torch.int64
    assert lengths.tolist() == [6, 1]  # the line's middle point is dropped
    expected = [
        [0.1, 0.1, 1, 0, 0],
        [0.9, 0.1, 1, 0, 0],
        [0.9, 0.9, 1, 0, 0],
        [0.1, 0.9, 0, 1, 0],
        [0.2, 0.5, 1, 0, 0],
        [0.8, 0.5, 0, 0, 1],
    ]
    torch.testing.assert_close(points[0], torch.tensor(expected))
    torch.testing.assert_close(points[1, 0], torch.tensor([0.5, 0.5, 0, 0, 1]))
    assert not points[1, 1:].any()


def test_long_sketches_are_shortened() -> None:
    generator = np.random.default_rng(0)
    wild = generator.random((400, 2)).astype(np.float32)
    strokes = [generator.random((2, 2)).astype(np.float32) for _ in range(60)]
    batch = SketchBatch.from_sketches([Sketch.from_strokes([wild]), Sketch.from_strokes(strokes)])
    points, lengths = selector_input(batch, tolerance=0.001, max_points=40)
    assert int(lengths.max()) <= 40 and int(lengths[1]) == 40
    for row, length in zip(points, lengths, strict=True):
        assert row[:length, 2:].sum(dim=1).tolist() == [1.0] * int(length)
        assert row[int(length) - 1, 4] == 1 and not row[: int(length) - 1, 4].any()
    np.testing.assert_array_equal(points[0, 0, :2], wild[0])


def test_size_and_shape() -> None:
    selector = CanvasSelector()
    assert sum(p.numel() for p in selector.parameters()) == 52_356
    assert selector(*selector_input(_batch(), tolerance=0.01, max_points=50)).shape == (2, 4)


def test_padding_and_company_do_not_matter() -> None:
    torch.manual_seed(0)
    selector = CanvasSelector(hidden=16)
    points = torch.rand(3, 7, 5)
    lengths = torch.tensor([3, 7, 1])
    logits = selector(points, lengths)
    for i, length in enumerate(lengths):
        torch.testing.assert_close(selector(points[i : i + 1, :length], lengths[i : i + 1])[0], logits[i])


@pytest.mark.parametrize("lengths", [[0, 3], [1, 4], [2]])
def test_bad_lengths(lengths: list[int]) -> None:
    with pytest.raises(InputError, match="lengths"):
        CanvasSelector(hidden=4)(torch.zeros(2, 3, 5), torch.tensor(lengths))


def test_bad_settings() -> None:
    with pytest.raises(InputError, match="tolerance"):
        selector_input(_batch(), tolerance=-1.0, max_points=10)
    with pytest.raises(InputError, match="num_canvases 0"):
        CanvasSelector(0)

def test_statistics_are_those_of_the_drawing() -> None:
    two = Sketch.from_strokes([[[0, 0], [0.3, 0.4]], [[1, 1], [1, 0.5], [0.5, 0.5]]], "two")
    dot = Sketch.from_strokes([[[0.5, 0.25]]], "dot")
    points, lengths = selector_input(SketchBatch.from_sketches([two, dot]), tolerance=0.0, max_points=9)
    found = stroke_statistics(points, lengths)

    def expected(points: int, strokes: int, ink: float, width: float, height: float) -> list[float]:
        logarithms = [math.log(points) - 3, math.log(strokes) - 1.5, math.log1p(ink) - 1.5, 3 * math.log1p(ink / strokes) - 1]
        return [*logarithms, 2 * width - 1.5, 2 * height - 1.5]

    torch.testing.assert_close(found, torch.tensor([expected(5, 2, 1.5, 1, 1), expected(1, 1, 0, 0, 0)]))
    # Padding, whatever it holds, says nothing.
    padded = torch.cat([points, torch.full((2, 3, 5), 7.0)], dim=1)
    torch.testing.assert_close(stroke_statistics(padded, lengths), found)


def test_the_ink_map_is_the_length_in_each_cell() -> None:
    # Along the middles of the second row of cells, from the middle of the third column to that of the fifth.
    level = Sketch.from_strokes([[[2.5 / 8, 1.5 / 8], [4.5 / 8, 1.5 / 8]]], "level")
    outside = Sketch.from_strokes([[[-3.0, -3.0], [-2.0, -3.0]], [[0.5, 0.5]]], "outside")
    points, lengths = selector_input(SketchBatch.from_sketches([level, outside]), tolerance=0.0, max_points=9)
    found = ink_map(points, lengths).expm1() / 4
    expected = torch.zeros(2, 8, 8)
    # Eight places, an eighth, three eighths, … from the start of the two cells: tents around the middles.
    expected[0, 1, 2:5] = torch.tensor([0.5, 1.0, 0.5])
    expected[1, 0, 0] = 8.0  # the dot beside has no length
    torch.testing.assert_close(found.view(2, 8, 8), expected)
    padded = torch.cat([points, torch.full((2, 3, 5), 7.0)], dim=1)
    torch.testing.assert_close(ink_map(padded, lengths), ink_map(points, lengths))


@given(st.integers(0, 2**32 - 1))
def test_the_ink_map_holds_all_ink_and_moves_with_it(seed: int) -> None:
    generator = np.random.default_rng(seed)
    strokes = [generator.uniform(0.1, 0.6, size=(generator.integers(1, 6), 2)) for _ in range(3)]
    moved = [stroke + [1 / 8, 2 / 8] for stroke in strokes]
    batch = SketchBatch.from_sketches([Sketch.from_strokes(strokes, "a"), Sketch.from_strokes(moved, "b")])
    found = ink_map(*selector_input(batch, tolerance=0.0, max_points=99)).expm1().view(2, 8, 8) / 4
    ink = sum(np.linalg.norm(np.diff(stroke, axis=0), axis=1).sum() for stroke in strokes)
    assert float(found[0].sum()) == pytest.approx(8 * ink, rel=1e-4)
    torch.testing.assert_close(found[1, 2:, 1:], found[0, :-2, :-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("reads", "parameters"), [("points", 52_356), ("statistics", 1_412), ("both", 52_356 + 6 * 16 + 16 + 16 * 4), ("ink", 9_604)])
def test_what_a_policy_reads_is_counted(reads: str, parameters: int) -> None:
    policy = CanvasSelector(reads=reads)
    assert count_parameters(policy) == parameters
    twin = build_from_config(policy.config)
    twin.load_state_dict(policy.state_dict())
    points, lengths = torch.rand(3, 6, 5), torch.tensor([6, 1, 4])
    torch.testing.assert_close(twin(points, lengths), policy(points, lengths))
    policy(points, lengths).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in policy.parameters())
    step = 3 * 128 * (5 + 128) + 13 * 128
    counted = {
        "points": 10 * step + 129 * 4, "statistics": 120 + 128 * 8 + 129 * 4,
        "both": 10 * step + 120 + 16 * 8 + 145 * 4, "ink": 120 + 128 * 72 + 129 * 4 + 17 * 8 * 10 + 2 * 64,
    }
    assert selector_flops(policy, 10) == 2 * counted[reads]


def test_an_older_policy_reads_points() -> None:
    twin = build_from_config({"kind": "selector", "num_canvases": 3, "hidden": 8})
    assert twin.reads == "points"
    with pytest.raises(InputError, match="reads 'tea' is unknown: choose one of points, statistics, both"):
        CanvasSelector(reads="tea")
