"""Vectoriser: shapes with known strokes, real drawings, bad input."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.filters import threshold_otsu

import sketchynet
from sketchynet.errors import InputError
from sketchynet.sketch import FRAME_MARGIN, SketchBatch
from sketchynet.vectorize import vectorize, vectorize_pixels


def paint(strokes, size=128, width=2.0, *, ink=0, paper=255) -> np.ndarray:
    """Anti-aliased uint8 (size, size) of polylines [(x, y), ...] with round caps, drawn 8 times as large."""
    canvas = Image.new("L", (size * 8, size * 8), 0)
    pen = ImageDraw.Draw(canvas)
    radius = 4.0 * width
    for stroke in strokes:
        points = [(8.0 * x, 8.0 * y) for x, y in stroke]
        pen.line(points, fill=255, width=round(8 * width))
        for x, y in points:
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
    coverage = np.asarray(canvas, dtype=float).reshape(size, 8, size, 8).mean(axis=(1, 3)) / 255
    return np.round(paper + (ink - paper) * coverage).astype(np.uint8)


def ring(x, y, radius) -> np.ndarray:
    angle = np.linspace(0.0, 2.0 * np.pi, 181)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def dense(strokes) -> np.ndarray:
    """Points every 0.25 pixel or closer along polylines."""
    pieces = []
    for stroke in strokes:
        stroke = np.asarray(stroke, dtype=float)
        pieces.append(stroke[:1])
        for a, b in itertools.pairwise(stroke):
            steps = np.linspace(0.0, 1.0, int(np.hypot(*(b - a)) * 4) + 2)[:, None]
            pieces.append(a + steps * (b - a))
    return np.concatenate(pieces)


def farthest(found, truth) -> float:
    """Hausdorff distance between two sets of polylines, in pixels."""
    a, b = dense(found), dense(truth)
    return float(max(cKDTree(b).query(a)[0].max(), cKDTree(a).query(b)[0].max()))


def is_closed(stroke) -> bool:
    return len(stroke) > 2 and np.array_equal(stroke[0], stroke[-1])


SHAPES = {
    "line": [[(20, 30), (100, 90)]],
    "flat line": [[(20, 64.5), (100, 64.5)]],
    "corner": [[(20, 20), (20, 100), (100, 100)]],
    "wide bend": [[(20 + t, 64 + 30 * np.sin(t / 12)) for t in range(90)]],
    "cross": [[(20, 60), (110, 66)], [(60, 15), (66, 110)]],
    "slanting cross": [[(15, 50), (115, 80)], [(15, 80), (115, 50)]],
    "T": [[(20, 40), (110, 40)], [(64, 40), (64, 110)]],
    "two lines": [[(20, 20), (20, 100)], [(40, 20), (40, 100)]],
    "grid": [[(15, y), (113, y)] for y in (40, 88)] + [[(x, 15), (x, 113)] for x in (40, 88)],
}


@pytest.mark.parametrize("width", [1.0, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("name", SHAPES)
def test_shape_gives_its_own_strokes(name, width):
    found = vectorize_pixels(paint(SHAPES[name], width=width))
    assert len(found) == len(SHAPES[name])
    # Half a line width of a free end belongs to its round cap.
    assert farthest(found, SHAPES[name]) <= 1.0 + 0.5 * width


@pytest.mark.parametrize("width", [1.5, 3.0, 6.0])
def test_circle_is_one_closed_stroke_of_subpixel_accuracy(width):
    (found,) = vectorize_pixels(paint([ring(64, 60, 40)], width=width))
    assert is_closed(found)
    radius = np.hypot(found[:, 0] - 64, found[:, 1] - 60)
    assert np.abs(radius - 40).max() < 0.6
    assert found[0, 1] == found[:, 1].min()  # begins at its top and
    assert found[1, 0] > found[0, 0]  # runs clockwise


def test_small_angle_crossing_stays_two_lines():
    lines = [[(10, 58), (118, 70)], [(10, 70), (118, 58)]]
    found = vectorize_pixels(paint(lines, width=3.0))
    assert len(found) == 2
    for line in found:  # each goes from one side to the other and changes its height
        assert np.ptp(line[:, 0]) > 100 and abs(line[0, 1] - line[-1, 1]) > 9


def test_figure_eight_is_drawn_in_one_go():
    t = np.linspace(0.0, 2.0 * np.pi, 200)
    eight = np.stack([64 + 45 * np.sin(t), 64 + 30 * np.sin(2 * t)], axis=1)
    (found,) = vectorize_pixels(paint([eight], width=2.0))
    assert is_closed(found)
    assert farthest([found], [eight]) < 1.5


def test_ring_on_a_stick_keeps_ring_and_stick():
    drawing = [ring(64, 40, 20), [(64, 60), (64, 115)]]
    found = vectorize_pixels(paint(drawing, width=2.0))
    assert farthest(found, drawing) < 1.6
    assert len(found) <= 2


@pytest.mark.parametrize("width", [1.0, 3.0, 6.0])
def test_dot_is_a_stroke_of_one_point_and_comes_last(width):
    found = vectorize_pixels(paint([[(90.5, 90.5)], [(20, 20), (100, 30)]], width=width))
    assert [len(stroke) == 1 for stroke in found] == [False, True]
    np.testing.assert_allclose(found[1], [[90.5, 90.5]], atol=0.5)


def test_thick_ragged_line_grows_no_spurs():
    generator = np.random.default_rng(0)
    line = [(20.0, 64.0), (108.0, 64.0)]
    bumps = [[(x, 64 + generator.choice([-1, 1]) * 3.0)] for x in generator.uniform(25, 103, 12)]
    image = np.minimum(paint([line], width=8.0), paint(bumps, width=5.0))
    assert len(vectorize_pixels(image)) == 1


def test_two_pixel_diagonal_survives_thinning():
    # Zhang-Suen thinning deletes such a line but for a point.
    image = np.full((64, 64), 255, np.uint8)
    for i in range(12):
        image[20 + i, 20 + i] = image[20 + i, 21 + i] = 0
    (found,) = vectorize_pixels(image)
    assert np.hypot(*(found[-1] - found[0])) > 13


def test_order_is_longest_first_from_the_top_left():
    lines = [[(100, 20), (80, 20)], [(110, 110), (10, 110)], [(60, 90), (60, 40)]]
    found = vectorize_pixels(paint(lines))
    lengths = [np.hypot(*(stroke[-1] - stroke[0])) for stroke in found]
    assert lengths == sorted(lengths, reverse=True)
    for stroke in found:
        assert stroke[0].sum() < stroke[-1].sum()


def test_pixel_centres_lie_at_a_half():
    image = np.full((40, 40), 255, np.uint8)
    image[10, 5:30] = 0
    (found,) = vectorize_pixels(image)
    np.testing.assert_allclose(found[:, 1], 10.5)
    np.testing.assert_allclose(found[[0, -1], 0], [5.5, 29.5])


def test_ink_at_the_border_is_kept():
    image = np.full((40, 50), 255, np.uint8)
    image[0] = image[:, -1] = 0
    (found,) = vectorize_pixels(image)
    assert farthest([found], [[(0.5, 0.5), (49.5, 0.5), (49.5, 39.5)]]) <= 1.0


def test_channels_and_transparency_agree(tmp_path):
    grey = paint(SHAPES["cross"])
    black = np.zeros((*grey.shape, 3), np.uint8)
    forms = [
        grey,
        grey[:, :, None],
        np.repeat(grey[:, :, None], 3, axis=2),
        np.dstack([black, 255 - grey]),  # black ink on a transparent ground
        np.dstack([np.repeat(grey[:, :, None], 3, axis=2), np.full_like(grey, 255)]),
        np.dstack([grey, np.full_like(grey, 255)]),
    ]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(forms[3]).save(tmp_path / "alpha.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    expected = vectorize_pixels(grey)
    for form in [*forms, *tmp_path.glob("*.png"), str(tmp_path / "grey.png")]:
        found = vectorize_pixels(form)
        assert len(found) == len(expected)
        assert farthest(found, expected) < 0.1


def test_uneven_light_noise_and_pale_ink():
    generator = np.random.default_rng(1)
    clean = paint(SHAPES["cross"], width=3.0, ink=140).astype(float)
    light = np.linspace(1.0, 0.7, 128)[None, :]
    scan = np.clip(clean * light + generator.normal(0.0, 3.0, clean.shape), 0, 255).astype(np.uint8)
    found = vectorize_pixels(scan)
    assert len(found) == 2
    assert farthest(found, SHAPES["cross"]) <= 2.5


def test_large_scan_keeps_its_own_coordinates():
    line = np.array([(20.0, 30.0), (110.0, 90.0)])
    scan = Image.fromarray(paint([line], width=1.5)).resize((2100, 2100), Image.Resampling.BICUBIC)
    (found,) = vectorize_pixels(np.asarray(scan))
    assert farthest([found], [line * 2100 / 128]) <= 16.0


def test_sketch_is_fitted_to_the_frame_and_redraws_in_the_image_frame():
    image = paint(SHAPES["grid"], width=2.0)
    sketch = vectorize(image, id="grid")
    assert sketch.id == "grid" and sketch.points.dtype == np.float32
    low, high = sketch.points.min(), sketch.points.max()
    assert low == pytest.approx(FRAME_MARGIN, abs=1e-6) and high == pytest.approx(1 - FRAME_MARGIN, abs=1e-6)

    inked = vectorize(image, fit=False)
    drawn = sketchynet.rasterize(SketchBatch.from_sketches([inked]), 128, line_width=2.0)[0]
    assert np.abs(drawn.astype(float) - (255.0 - image)).mean() < 2.0


strokes_strategy = st.lists(
    st.lists(st.tuples(st.floats(4, 60), st.floats(4, 60)), min_size=1, max_size=5), min_size=1, max_size=5
)


@settings(max_examples=60, deadline=None)
@given(strokes_strategy, st.sampled_from([1.0, 2.0, 4.0]))
def test_any_drawing_is_covered_and_nothing_is_added(strokes, width):
    image = paint(strokes, size=64, width=width)
    found = vectorize_pixels(image)
    points = dense(found)
    assert np.isfinite(points).all()
    # Nothing lies off the ink, by more than the pen's own half width.
    to_ink = ndimage.distance_transform_edt(image > 200)
    cells = np.clip(points.astype(int), 0, 63)
    assert to_ink[cells[:, 1], cells[:, 0]].max() <= 1.0 + width
    # On average ink lies under the pen; strokes that fill areas leave some of it.
    ink = np.argwhere(image < 128)[:, ::-1] + 0.5
    if len(ink):
        assert cKDTree(points).query(ink)[0].mean() <= 1.5 + 0.5 * width
    again = vectorize_pixels(image)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((32, 32), 255, np.uint8), "drawing 'shoe 7': no ink"),
        (np.full((32, 32), 250, np.uint8), "drawing 'shoe 7': no ink"),
        (np.zeros((32, 32, 4), np.uint8), "drawing 'shoe 7': no ink"),
        (255 - paint(SHAPES["cross"]), "drawing 'shoe 7': .* is dark"),
        (np.zeros((32, 32), np.uint8), "drawing 'shoe 7': .*"),
        (np.zeros((32, 32), np.float32), "drawing 'shoe 7': .*float32, expected uint8"),
        (np.zeros((32, 32, 5), np.uint8), r"drawing 'shoe 7': shape \(32, 32, 5\)"),
        (np.zeros((0, 32), np.uint8), r"drawing 'shoe 7': shape \(0, 32, 1\)"),
    ],
)
def test_bad_image_names_the_drawing(image, message):
    with pytest.raises(InputError, match=message):
        vectorize(image, id="shoe 7")


def test_bad_file_is_named(tmp_path):
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:1000])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("cut.png", "text.png", "empty.png", "missing.png"):
        with pytest.raises(InputError, match=name):
            vectorize(tmp_path / name, id="x")


@pytest.mark.parametrize("option", [{"spacing": 0.0}, {"smoothing": -1.0}, {"spacing": float("nan")}])
def test_bad_option(option):
    with pytest.raises(InputError, match=next(iter(option))):
        vectorize_pixels(paint(SHAPES["line"]), **option)


def test_real_drawings_lie_within_a_pixel(data_root: Path):
    paths = sorted(data_root.glob("qmul_v1/*/*/sketches/*.png"))
    assert len(paths) == 716
    for path in paths[::24]:
        with Image.open(path) as picture:
            grey = np.asarray(picture.convert("L"))
        ink = grey <= threshold_otsu(grey)
        inked = vectorize(path, fit=False)
        drawn = sketchynet.rasterize(SketchBatch.from_sketches([inked]), 256, line_width=2.0)[0] >= 128
        to_ink, to_drawn = (ndimage.distance_transform_edt(~mask) for mask in (ink, drawn))
        assert 0.5 * (to_ink[drawn].mean() + to_drawn[ink].mean()) <= 1.0, path
        assert np.quantile(to_drawn[ink], 0.999) <= 4.0, path
        assert inked.num_strokes <= 120, path
