from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from drawings import chair_strokes, random_batch
from exact_coverage import distance, exact_coverage, segments
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sketchynet import InputError, Sketch, SketchBatch, _core, raster, rasterize

SIZES = (8, 32, 64, 128, 256)

LARGE = 200
"""A size at which a canvas is drawn in bands (csrc/raster/rasterizer.cpp)."""

# Coordinates on a lattice of 1/1024: mirroring and shifting them is then exact in float32.
lattice = st.integers(0, 1024).map(lambda i: i / 1024)
strokes = st.lists(st.lists(st.tuples(lattice, lattice), min_size=1, max_size=6), min_size=1, max_size=4)


def batch_of(*drawings: list) -> SketchBatch:
    return SketchBatch.from_sketches([Sketch.from_strokes(drawing) for drawing in drawings])


def difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> int:
    return int(np.abs(first.astype(int) - second).max())


def test_the_extension_under_test_is_the_one_wanted() -> None:
    wanted = os.environ.get("SKETCHYNET_EXPECT_CORE")
    assert wanted is None or _core.__file__.startswith(wanted)


# --- coverage -----------------------------------------------------------------------------------------------------


def test_reference_gives_the_area_of_a_capsule() -> None:
    sketch = Sketch.from_strokes([[[0.3, 0.4], [0.6, 0.55]]])
    length = 32 * math.hypot(0.3, 0.15)
    assert exact_coverage(sketch, 32, 3.0).sum() / 255 == pytest.approx(
        math.pi * 1.5**2 + 3 * length, abs=0.01
    )


@pytest.mark.parametrize("size", SIZES)
def test_coverage_is_exact_within_sampling(size: int) -> None:
    batch = random_batch(3, seed=size)
    width = max(1.0, size / 128)
    drawn = rasterize(batch, size)
    exact = np.stack([exact_coverage(sketch, size, width) for sketch in batch])
    assert np.abs(drawn - exact).mean() < 0.5
    assert np.abs(drawn - exact).max() < 20


@pytest.mark.parametrize("width", [0.3, 2.5, 11.0])
def test_coverage_of_other_widths(width: float) -> None:
    batch = random_batch(2, seed=7)
    drawn = rasterize(batch, 48, line_width=width)
    exact = np.stack([exact_coverage(sketch, 48, width) for sketch in batch])
    assert np.abs(drawn - exact).mean() < 0.5


def test_coverage_of_real_strokes(data_root: Path) -> None:
    batch = chair_strokes(data_root, 900).select(np.arange(100, 900, 200))
    for size, mean in ((32, 0.4), (64, 0.2), (128, 0.1), (256, 0.05)):
        exact = np.stack([exact_coverage(sketch, size, max(1.0, size / 128)) for sketch in batch])
        assert np.abs(rasterize(batch, size) - exact).mean() < mean
        assert np.abs(rasterize(batch, size) - exact).max() < 20


def cairo_canvas(sketch: Sketch, size: int, width: float) -> NDArray[np.uint8]:
    """The same drawing by cairo, an independent rasteriser with 8-bit coverage and its own approximations."""
    try:
        import cairocffi
    except (ImportError, OSError) as error:  # OSError: the package without the system's library
        pytest.skip(f"cairocffi needs the system's libcairo (Debian: apt-get install libcairo2): {error}")
    surface = cairocffi.ImageSurface(cairocffi.FORMAT_A8, size, size)
    context = cairocffi.Context(surface)
    context.set_line_width(width)
    context.set_line_cap(cairocffi.LINE_CAP_ROUND)
    context.set_line_join(cairocffi.LINE_JOIN_ROUND)
    context.set_antialias(cairocffi.ANTIALIAS_BEST)
    for stroke in sketch.strokes():
        x, y = (stroke[0] * size).tolist()
        context.move_to(x, y)
        context.line_to(x, y)
        for x, y in (stroke * size).tolist():
            context.line_to(x, y)
    context.stroke()
    rows = np.frombuffer(surface.get_data(), np.uint8).reshape(size, surface.get_stride())
    return rows[:, :size].copy()


@pytest.mark.parametrize("size", [32, 64, 256])
def test_agrees_with_cairo(size: int) -> None:
    batch = random_batch(4, seed=size + 1)
    width = max(1.0, size / 128)
    for sketch, drawn in zip(batch, rasterize(batch, size), strict=True):
        gap = np.abs(drawn.astype(float) - cairo_canvas(sketch, size, width))
        assert gap.mean() < 0.6
        assert gap.max() < 32


def test_agrees_with_cairo_on_real_strokes(data_root: Path) -> None:
    batch = chair_strokes(data_root, 20)
    for sketch, drawn in zip(batch, rasterize(batch, 64), strict=True):
        assert np.abs(drawn.astype(float) - cairo_canvas(sketch, 64, 1.0)).mean() < 0.8


# --- literal pixels -----------------------------------------------------------------------------------------------


def test_horizontal_line_fills_its_row() -> None:
    [canvas] = rasterize(batch_of([[[-1, 3.5 / 8], [2, 3.5 / 8]]]), 8, line_width=1)
    assert canvas[3].tolist() == [255] * 8
    assert canvas.sum() == 8 * 255


def test_line_between_rows_inks_both_by_half() -> None:
    [canvas] = rasterize(batch_of([[[-1, 0.5], [2, 0.5]]]), 8, line_width=1)
    assert canvas[3].tolist() == canvas[4].tolist() == [128] * 8
    assert canvas[[0, 1, 2, 5, 6, 7]].sum() == 0


def test_vertical_line_and_width() -> None:
    [canvas] = rasterize(batch_of([[[0.5, -1], [0.5, 2]]]), 8, line_width=3)
    assert canvas[5].tolist() == [0, 0, 128, 255, 255, 128, 0, 0]


def test_one_point_is_a_dot() -> None:
    [canvas] = rasterize(batch_of([[[0.5, 0.5]]]), 32, line_width=10)
    assert canvas.sum() / 255 == pytest.approx(math.pi * 25, rel=2e-3)
    assert canvas[16, 16] == 255 and canvas[0, 0] == 0


def test_default_width_grows_with_the_canvas() -> None:
    batch = batch_of([[[0.2, 0.3], [0.8, 0.6]]])
    assert np.array_equal(rasterize(batch, 64), rasterize(batch, 64, line_width=1))
    assert np.array_equal(rasterize(batch, 512), rasterize(batch, 512, line_width=4))


def test_stroke_widths_are_in_unit_frame_units() -> None:
    lines = [[[-1, 0.25], [2, 0.25]], [[-1, 0.75], [2, 0.75]]]
    sketch = Sketch.from_strokes(lines)
    sketch = Sketch(sketch.points, sketch.stroke_offsets, widths=np.array([0.25, 0.001], np.float32))
    batch = SketchBatch.from_sketches([sketch])
    [canvas] = rasterize(batch, 16)
    assert (canvas[:, 5] / 255).sum() == pytest.approx(4 + 1, abs=0.01)  # 16 * 0.25, and at least 1 pixel
    assert np.array_equal(rasterize(batch, 16, line_width=2), rasterize(batch_of(lines), 16, line_width=2))


def test_eraser_takes_away_earlier_ink_only() -> None:
    across = [[-1, 0.5], [2, 0.5]]
    sketch = Sketch.from_strokes([across, [[0.5, -1], [0.5, 2]], [[0.25, -1], [0.25, 2]]])
    sketch = Sketch(sketch.points, sketch.stroke_offsets, erasers=np.array([False, True, False]))
    [canvas] = rasterize(SketchBatch.from_sketches([sketch]), 8, line_width=2)
    assert canvas[3].tolist() == [255, 255, 255, 0, 0, 255, 255, 255]
    assert canvas[0].tolist() == [0, 255, 255, 0, 0, 0, 0, 0]


def test_ink_outside_the_frame_is_clipped() -> None:
    far = batch_of(
        [[[5, 5], [6, 7]]], [[[-3e38, 0.5], [3e38, 0.5]]], [[[0.5, -1e30]]], [[[-0.001, -0.5], [-0.001, 1.5]]]
    )
    canvases = rasterize(far, 16, line_width=2)
    assert canvases[0].sum() == canvases[2].sum() == 0
    assert canvases[1].sum() == 2 * 16 * 255
    assert (canvases[3][:, 0] > 0).all() and canvases[3][:, 1:].sum() == 0


def test_denormals_and_repeated_points_are_dots() -> None:
    tiny = batch_of([[[1e-45, 1e-42], [0, 0]]], [[[0.5, 0.5]] * 5], [[[0.5, 0.5], [0.5, 0.5 + 1e-7]]])
    for size in (32, LARGE):
        dots = rasterize(batch_of([[[0, 0]]], [[[0.5, 0.5]]], [[[0.5, 0.5]]]), size, line_width=5)
        assert difference(rasterize(tiny, size, line_width=5), dots) <= 1


@pytest.mark.parametrize("size", [32, LARGE])
def test_a_million_points_in_one_sketch(size: int) -> None:
    turn = np.linspace(0, 2 * np.pi * 50, 1_000_000)
    points = np.stack([0.5 + 0.4 * np.cos(turn), 0.5 + 0.4 * np.sin(turn)], axis=1)
    circle = points[: 1_000_000 // 50 + 1 : 100]
    many, few = rasterize(batch_of([points], [circle]), size, line_width=3)
    assert np.abs(many.astype(float) - few).mean() < 0.1
    assert difference(many, few) <= 24


def test_largest_canvas_is_drawn_in_bands_without_seams() -> None:
    batch = batch_of([[[0.4, 0.1], [0.4, 0.9]]])
    [canvas] = rasterize(batch, 2048, line_width=10)
    middle = canvas[300:1700]
    assert (middle == middle[0]).all() and middle[0].astype(int).sum() == pytest.approx(10 * 255, abs=8)


# --- instruction sets, several sizes, widths ----------------------------------------------------------------------


@pytest.fixture(params=raster.instruction_sets())
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    before = raster.use_instruction_set(request.param)
    yield request.param
    raster.use_instruction_set(before)


@pytest.mark.parametrize("size", [8, 31, 64, 100, 256, 300])
def test_instruction_sets_give_the_same_pixels(instructions: str, size: int) -> None:
    batch = random_batch(8, seed=size)
    drawn = [rasterize(batch, size, line_width=width) for width in (0.4, 1.0, 2.0, 7.0, 80.0)]
    raster.use_instruction_set("portable")
    for width, canvases in zip((0.4, 1.0, 2.0, 7.0, 80.0), drawn, strict=True):
        assert np.array_equal(rasterize(batch, size, line_width=width), canvases)


def run_python(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )


def test_instruction_set_by_environment() -> None:
    script = "from sketchynet import raster; print(raster.use_instruction_set())"
    for name in raster.instruction_sets():
        environment = {**os.environ, "SKETCHYNET_SIMD": name}
        run = run_python(script, environment)
        assert run.stdout.strip() == name, run.stderr
    environment = {**os.environ, "SKETCHYNET_SIMD": "mmx"}
    run = run_python(script, environment)
    assert run.returncode == 1 and "SKETCHYNET_SIMD: instruction set 'mmx' cannot be used here" in run.stderr


def test_several_sizes_in_one_call() -> None:
    batch = random_batch(5, seed=9)
    sizes = [64, 32, 100, 32]
    for size, canvases in zip(sizes, raster.rasterize_sizes(batch, sizes), strict=True):
        assert np.array_equal(canvases, rasterize(batch, size))
    assert raster.rasterize_sizes(batch, []) == []
    assert raster.rasterize_sizes(SketchBatch.from_sketches([]), [32])[0].shape == (0, 32, 32)
    with pytest.raises(InputError, match="size is 7"):
        raster.rasterize_sizes(batch, [32, 7])


def test_each_sketch_at_its_own_size() -> None:
    batch = random_batch(7, seed=10)
    sizes = [64, 32, 64, 32, 128, 32, 64]
    groups = raster.rasterize_grouped(batch, sizes, threads=2)
    assert list(groups) == [32, 64, 128]
    for size, (rows, canvases) in groups.items():
        assert rows.tolist() == [i for i, wanted in enumerate(sizes) if wanted == size]
        assert np.array_equal(canvases, rasterize(batch.select(rows), size))
    assert raster.rasterize_grouped(SketchBatch.from_sketches([]), []) == {}
    for wrong in ([32] * 6, np.full(7, 32.0), [[32] * 7]):
        with pytest.raises(InputError, match="one integer for each of 7 sketches"):
            raster.rasterize_grouped(batch, wrong)
    with pytest.raises(InputError, match="size is 4096"):
        raster.rasterize_grouped(batch, [4096] * 7)


def test_line_width_of_every_stroke() -> None:
    lines = [[[-1, 0.25], [2, 0.25]], [[-1, 0.75], [2, 0.75]]]
    batch = batch_of(lines, lines[:1])
    canvases = rasterize(batch, 16, line_width=[1.0, 3.0, 2.0])
    assert [(canvas[:, 5] / 255).sum() for canvas in canvases] == pytest.approx([4, 2], abs=0.01)
    with pytest.raises(InputError, match="there are 3 strokes"):
        rasterize(batch, 16, line_width=[1.0, 3.0])
    with pytest.raises(InputError, match="line_width of stroke 1 is -3"):
        rasterize(batch, 16, line_width=[1.0, -3.0, 2.0])


@pytest.mark.parametrize("width", [1e3, 2100.0, 5e3, 1e9])
def test_huge_widths(width: float) -> None:
    batch = batch_of([[[0.5, 0.5 + width / 32]]], [[[-0.5 - width / 32 * 0.6, 0.1 - width / 32 * 0.8]]])
    canvases = rasterize(batch, 16, line_width=width)
    exact = np.stack([exact_coverage(sketch, 16, width) for sketch in batch])
    # A float32 of 1e8 is exact within 4.
    assert np.abs(canvases - exact).mean() < (1.5 if width < 1e6 else 40)
    assert (rasterize(random_batch(1, seed=0), 16, line_width=width) == 255).all()


# --- properties ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(strokes, st.integers(-3, 3), st.integers(-3, 3), st.floats(0.5, 6), st.sampled_from([32, 256]))
def test_whole_pixel_shifts_shift_the_pixels(
    drawing: list, dx: int, dy: int, width: float, size: int
) -> None:
    [canvas] = rasterize(batch_of(drawing), size, line_width=width)
    shifted = [np.array(stroke) + np.array([dx, dy]) / size for stroke in drawing]
    [moved] = rasterize(batch_of(shifted), size, line_width=width)
    expected = np.roll(canvas, (dy, dx), axis=(0, 1))
    inner = slice(3, size - 3)
    assert difference(moved[inner, inner], expected[inner, inner]) <= 1


@settings(max_examples=60, deadline=None)
@given(strokes, st.floats(0.5, 6), st.sampled_from([8, 31, 64, LARGE]))
def test_mirrored_strokes_give_mirrored_pixels(drawing: list, width: float, size: int) -> None:
    [canvas] = rasterize(batch_of(drawing), size, line_width=width)
    for axis in (0, 1):
        mirror = [[(1 - x, y) if axis == 0 else (x, 1 - y) for x, y in stroke] for stroke in drawing]
        [mirrored] = rasterize(batch_of(mirror), size, line_width=width)
        assert difference(np.flip(mirrored, 1 - axis), canvas) <= 1


@settings(max_examples=60, deadline=None)
@given(strokes, st.randoms(use_true_random=False), st.sampled_from([32, LARGE]))
def test_order_of_strokes_and_points_does_not_matter(drawing: list, random, size: int) -> None:
    expected = rasterize(batch_of(drawing), size)
    changed = [stroke[::-1] for stroke in drawing]
    random.shuffle(changed)
    assert np.array_equal(rasterize(batch_of(changed), size), expected)


@settings(max_examples=60, deadline=None)
@given(strokes, strokes, st.floats(0.5, 6), st.sampled_from([32, LARGE, 256]))
def test_more_strokes_never_lighten_a_pixel(drawing: list, more: list, width: float, size: int) -> None:
    [less_ink, ink] = rasterize(batch_of(drawing, drawing + more), size, line_width=width)
    assert (ink >= less_ink).all()
    [wider] = rasterize(batch_of(drawing), size, line_width=width + 0.5)
    assert (wider >= less_ink).all()


@settings(max_examples=60, deadline=None)
@given(strokes, st.floats(0.5, 6), st.sampled_from([32, LARGE]))
def test_no_ink_beyond_the_radius_and_full_ink_within(drawing: list, width: float, size: int) -> None:
    batch = batch_of(drawing)
    [canvas] = rasterize(batch, size, line_width=width)
    rows, columns = np.mgrid[:size, :size] + 0.5
    points = np.stack([columns.ravel(), rows.ravel()], axis=1)
    away = distance(points, segments(batch[0], size)).reshape(size, size)
    assert canvas[away > width / 2 + math.sqrt(0.5) + 1e-3].sum() == 0
    assert (canvas[away < width / 2 - math.sqrt(0.5) - 1e-3] == 255).all()


@settings(max_examples=30, deadline=None)
@given(strokes, st.floats(0.5, 6), st.sampled_from([24, LARGE]))
def test_coverage_of_any_drawing(drawing: list, width: float, size: int) -> None:
    batch = batch_of(drawing)
    error = np.abs(rasterize(batch, size, line_width=width)[0] - exact_coverage(batch[0], size, width))
    assert error.max() <= 24
