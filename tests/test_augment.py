"""Augmentation: identity, independence of the batch, and what each field does."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sketchynet import InputError, Sketch, SketchBatch
from sketchynet.augment import PhotoAugmentation, SketchAugmentation, augment_photos, augment_sketches

SKETCHES = SketchAugmentation(
    rotation=10,
    scale=0.2,
    aspect=0.1,
    shear=0.1,
    translation=0.05,
    jitter=0.01,
    noise=0.002,
    stroke_dropout=0.4,
)
PHOTOS = PhotoAugmentation(
    rotation=10, scale=0.2, aspect=0.1, shear=0.1, translation=0.05,
    brightness=0.2, contrast=0.2, saturation=0.5, grayscale=0.3, erasing=0.5,
)  # fmt: skip


def sketch(seed: int, strokes: int = 6, **attributes) -> Sketch:
    rng = np.random.default_rng(seed)
    made = Sketch.from_strokes(
        [rng.uniform(0, 1, (rng.integers(1, 12), 2)) for _ in range(strokes)], id=f"s{seed}"
    )
    return Sketch(made.points, made.stroke_offsets, made.id, **attributes)


def batch(count: int) -> SketchBatch:
    return SketchBatch.from_sketches([sketch(seed) for seed in range(count)])


def photos(count: int, size: int = 32) -> np.ndarray:
    """Smooth pictures, so that moving them by parts of a pixel changes little."""
    y, x = np.mgrid[:size, :size] / size
    waves = [[np.sin(5 * x + k + c) * np.cos(4 * y - c) for c in range(3)] for k in range(count)]
    return (127 + 100 * np.moveaxis(np.array(waves), 1, -1)).astype(np.uint8)


def generators(numbers: range | list[int]) -> list[np.random.Generator]:
    return [np.random.default_rng([3, 1, number]) for number in numbers]


def still(count: int) -> np.ndarray:
    return np.zeros(count, dtype=bool)


def test_identity() -> None:
    drawn, images = batch(4), photos(3)
    same = augment_sketches(drawn, SketchAugmentation(), generators(range(4)), still(4))
    for field in fields(SketchBatch):
        assert np.array_equal(getattr(same, field.name), getattr(drawn, field.name)), field.name
    assert np.array_equal(
        augment_photos(images, PhotoAugmentation(), generators(range(3)), still(3), 32), images
    )


def test_identity_resizes_well() -> None:
    image = photos(1, 64)
    resized = augment_photos(image, PhotoAugmentation(), generators([0]), still(1), 16)
    expected = np.asarray(Image.fromarray(image[0]).resize((16, 16), Image.Resampling.LANCZOS))
    assert np.array_equal(resized[0], expected)


def test_flip_is_joint() -> None:
    drawn, images = batch(2), photos(2)
    flips = np.array([True, False])
    flipped = augment_sketches(drawn, SketchAugmentation(), generators(range(2)), flips)
    count = drawn.point_offsets[1]
    assert np.allclose(flipped.points[:count], np.array([1, 0]) + np.array([-1, 1]) * drawn.points[:count])
    assert np.array_equal(flipped.points[count:], drawn.points[count:])
    turned = augment_photos(images, PhotoAugmentation(), generators(range(2)), flips, 32)
    assert np.array_equal(turned[0], images[0, :, ::-1]) and np.array_equal(turned[1], images[1])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_a_sample_does_not_depend_on_its_batch(chosen: list[int]) -> None:
    drawn, images = batch(10), photos(10)
    flips = np.arange(10) % 2 == 0
    together = augment_sketches(drawn.select(chosen), SKETCHES, generators(chosen), flips[chosen])
    moved = augment_photos(images[chosen], PHOTOS, generators(chosen), flips[chosen], 24)
    for place, number in enumerate(chosen):
        alone = augment_sketches(drawn.select([number]), SKETCHES, generators([number]), flips[[number]])[0]
        assert np.array_equal(alone.points, together[place].points)
        assert np.array_equal(alone.stroke_offsets, together[place].stroke_offsets)
        alone_photo = augment_photos(images[[number]], PHOTOS, generators([number]), flips[[number]], 24)
        assert np.array_equal(alone_photo[0], moved[place])


def test_affine_map_is_about_the_centre_and_affine() -> None:
    """Centre stays without translation; a grid stays a grid: second differences vanish."""
    steps = np.linspace(0, 1, 5)
    drawn = SketchBatch.from_sketches([Sketch.from_strokes([np.stack([steps, steps**0], 1), [[0.5, 0.5]]])])
    config = SketchAugmentation(rotation=30, scale=0.5, aspect=0.3, shear=0.3)
    moved = augment_sketches(drawn, config, generators([5]), still(1)).points
    assert np.allclose(moved[-1], 0.5, atol=1e-6)
    assert np.abs(np.diff(moved[:5], n=2, axis=0)).max() < 1e-6
    assert np.abs(moved - drawn.points).max() > 0.02


@pytest.mark.parametrize("field", ["rotation", "scale", "translation"])
def test_affine_ranges(field: str) -> None:
    limit = {"rotation": 25.0, "scale": 0.3, "translation": 0.1}[field]
    drawn = SketchBatch.from_sketches([Sketch.from_strokes([[[0.5, 0.5], [0.9, 0.5]]])] * 300)
    moved = augment_sketches(drawn, SketchAugmentation(**{field: limit}), generators(range(300)), still(300))
    start, end = moved.points[::2], moved.points[1::2]
    arm = end - start
    angle = np.degrees(np.arctan2(arm[:, 1], arm[:, 0]))
    length = np.hypot(*arm.T) / 0.4
    shift = np.abs(start - 0.5).max(axis=1)
    found = {"rotation": np.abs(angle), "scale": np.maximum(length, 1 / length) - 1, "translation": shift}
    for name, values in found.items():
        assert values.max() <= (limit if name == field else 0) + 1e-4, name
        assert name != field or values.max() > 0.9 * limit


def test_jitter_is_smooth_bounded_and_keeps_joints() -> None:
    line = np.stack([np.linspace(0, 1, 200), np.full(200, 0.4)], 1)
    other = np.stack([np.full(200, line[100, 0]), np.linspace(0.4, 1, 200)], 1)
    drawn = SketchBatch.from_sketches([Sketch.from_strokes([line, other])])
    moved = augment_sketches(drawn, SketchAugmentation(jitter=0.02), generators([2]), still(1)).points
    change = moved - drawn.points
    assert 0.004 < np.abs(change).max() <= 0.02 + 1e-6
    assert np.abs(np.diff(change[:200], axis=0)).max() < 0.02 * 2 * np.pi * 3 / 199 * 1.01
    assert np.allclose(moved[100], moved[200], atol=1e-6)


def test_noise_has_its_deviation() -> None:
    drawn = SketchBatch.from_sketches([Sketch.from_strokes([np.full((4000, 2), 0.5)])])
    moved = augment_sketches(drawn, SketchAugmentation(noise=0.01), generators([0]), still(1)).points
    assert np.isclose((moved - 0.5).std(), 0.01, rtol=0.05)


def length(stroke: np.ndarray) -> float:
    """Ink of a stroke by a plain loop; a dot counts as a hundredth of the frame."""
    parts = [float(np.hypot(*(b - a))) for a, b in pairwise(stroke)]
    return max(sum(parts), 0.01)


@given(st.integers(0, 10_000), st.floats(0.05, 1.0), st.floats(0.0, 1.0), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_dropout_keeps_a_stroke_and_most_ink(seed: int, chance: float, share: float, strokes: int) -> None:
    drawn = SketchBatch.from_sketches([sketch(seed, strokes)])
    config = SketchAugmentation(stroke_dropout=chance, max_dropped_ink=share)
    kept = augment_sketches(drawn, config, generators([seed]), still(1))
    before, after = drawn[0].strokes(), kept[0].strokes()
    assert 1 <= len(after) <= len(before)
    # What stays is unchanged and in order.
    rest = iter(before)
    assert all(any(np.array_equal(stroke, candidate) for candidate in rest) for stroke in after)
    total = sum(map(length, before))
    assert total - sum(map(length, after)) <= share * total + 1e-4


def test_dropout_happens_and_keeps_attributes() -> None:
    widths = np.linspace(0.01, 0.06, 6).astype(np.float32)
    erasers = np.array([False, True, False, False, False, True])
    drawn = SketchBatch.from_sketches([sketch(1, widths=widths, erasers=erasers)] * 50)
    config = SketchAugmentation(stroke_dropout=0.9, max_dropped_ink=1.0)
    kept = augment_sketches(drawn, config, generators(range(50)), still(50))
    assert kept.num_strokes < 0.7 * drawn.num_strokes and len(kept) == 50 and kept.ids == drawn.ids
    for after in kept:
        assert after.widths is not None and after.erasers is not None
        places = [int(np.flatnonzero(widths == width)[0]) for width in after.widths]
        assert after.erasers.tolist() == erasers[places].tolist() and {1, 5} <= set(places)
        assert len(places) >= 3


def test_photo_and_sketch_move_alike() -> None:
    """The same draw of the same affine fields puts a photo's dot where it puts a sketch's dot."""
    size = 101
    image = np.full((1, size, size, 3), 255, np.uint8)
    image[0, 28:33, 68:73] = 0
    moves = {"rotation": 20.0, "scale": 0.3, "aspect": 0.2, "shear": 0.2, "translation": 0.05}
    for number in range(10):
        photo = augment_photos(image, PhotoAugmentation(**moves), generators([number]), still(1), size)[0]
        dot = SketchBatch.from_sketches([Sketch.from_strokes([[[70.5 / size, 30.5 / size]]])])
        point = augment_sketches(dot, SketchAugmentation(**moves), generators([number]), still(1)).points[0]
        y, x = np.nonzero(photo[..., 0] < 128)
        assert np.allclose([x.mean() + 0.5, y.mean() + 0.5], point * size, atol=0.7)


def test_border() -> None:
    red = np.zeros((1, 32, 32, 3), np.uint8)
    red[..., 0] = 200
    far = {"rotation": 45.0, "scale": 1.0, "translation": 0.5}
    for number in range(20):
        same = augment_photos(red, PhotoAugmentation(**far), generators([number]), still(1), 32)
        assert np.array_equal(same, red)
    white = augment_photos(red, PhotoAugmentation(**far, border="white"), generators([1]), still(1), 32)
    assert (white == 255).all(axis=-1).any()


def test_colours_against_a_formula() -> None:
    image = photos(1)
    luma = np.array([0.299, 0.587, 0.114])
    bright = augment_photos(image, PhotoAugmentation(brightness=0.3), generators([4]), still(1), 32)
    ratio = bright.astype(float)[image > 60] / image[image > 60]
    ratio = ratio[bright[image > 60] < 255]
    assert np.ptp(ratio) < 0.03 and 0.01 < abs(ratio.mean() - 1) <= 0.3
    grey = augment_photos(image, PhotoAugmentation(grayscale=1.0), generators([4]), still(1), 32)
    assert np.abs(grey[..., 0].astype(float) - image @ luma).max() <= 1.0
    assert np.array_equal(grey[..., 0], grey[..., 2])
    for config in (PhotoAugmentation(contrast=0.5), PhotoAugmentation(saturation=1.0)):
        changed = augment_photos(image, config, generators([4]), still(1), 32)
        assert abs((changed @ luma).mean() - (image @ luma).mean()) < 3 and not np.array_equal(changed, image)


def test_erasing_stays_within_its_share() -> None:
    image = np.tile((np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)[..., None], (1, 1, 3))[None]
    shares = []
    for number in range(60):
        config = PhotoAugmentation(erasing=1.0, erased_area=0.25)
        erased = augment_photos(image, config, generators([number]), still(1), 32)
        shares.append((erased != image).all(axis=-1).mean())
    assert 0 < min(shares) and 0.15 < max(shares) <= 0.25


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        (SketchAugmentation, "rotation", -1.0, "SketchAugmentation.rotation is -1.0"),
        (SketchAugmentation, "stroke_dropout", 1.5, "at most 1"),
        (SketchAugmentation, "noise", float("nan"), "noise is nan"),
        (PhotoAugmentation, "border", "black", "'replicate' or 'white'"),
    ],
)
def test_bad_configuration(kind: type, field: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**{field: value})


def test_counts_have_to_agree() -> None:
    with pytest.raises(InputError, match="2 samples, 1 generators"):
        augment_sketches(batch(2), SKETCHES, generators([0]), still(2))
    with pytest.raises(InputError, match="expected uint8"):
        augment_photos(np.zeros((1, 8, 8, 3)), PHOTOS, generators([0]), still(1), 8)
