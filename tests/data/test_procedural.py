"""The procedural set: the same on every machine, valid, and with abstraction that means something."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from sketchynet.data import TEST, TRAIN, VALIDATION
from sketchynet.data.procedural import (
    ProceduralConfig,
    chair,
    detail_of,
    photo,
    photo_id,
    procedural_pairs,
    sketch,
)
from sketchynet.data.procedural.parameters import INFILLS, family
from sketchynet.data.procedural.scene import superellipse
from sketchynet.errors import InputError

CONFIG = ProceduralConfig()


def digest(seed: int) -> tuple[str, str]:
    """Hashes of a few photos and of a few drawings."""
    photos, drawings = hashlib.sha256(), hashlib.sha256()
    for index in (0, 1, 7, 42, 800_003):
        photos.update(photo(CONFIG, seed, index, 48).tobytes())
        for k in range(3):
            drawing = sketch(CONFIG, seed, index, k)
            drawings.update(drawing.points.tobytes() + drawing.stroke_offsets.tobytes())
    return photos.hexdigest()[:16], drawings.hexdigest()[:16]


def test_golden_values() -> None:
    """Networks are tuned on these very pictures; whoever changes them has to say so here."""
    assert digest(11) == ("83a1e15688a9a577", "824819619104005c")


def test_another_process_and_another_order_give_the_same() -> None:
    code = (
        "from sketchynet.data.procedural import *;import hashlib;c=ProceduralConfig();"
        "print(hashlib.sha256(sketch(c,5,9,1).points.tobytes()+photo(c,5,9,40).tobytes()).hexdigest())"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    photo(CONFIG, 5, 8, 40)
    picture = photo(CONFIG, 5, 9, 40)
    assert hashlib.sha256(sketch(CONFIG, 5, 9, 1).points.tobytes() + picture.tobytes()).hexdigest() == there


def test_photo_has_the_asked_size_and_a_chair() -> None:
    for size in (8, 33, 96):
        picture = photo(CONFIG, 1, 3, size)
        assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
    assert photo(CONFIG, 1, 3, 96).std() > 15.0
    assert not np.array_equal(photo(CONFIG, 1, 3, 32), photo(CONFIG, 2, 3, 32))


def test_every_kind_of_chair_draws_validly_in_the_frame() -> None:
    seen = set()
    for index in range(0, 1200, 12):  # every third family
        instance = chair(CONFIG, 3, index)
        seen |= {instance.legs, instance.arms, instance.panel, instance.infill, instance.stretchers}
        for k, detail in enumerate((0.0, 0.5, 1.0)):
            drawing = sketch(CONFIG, 3, index, k, detail)  # Sketch checks itself
            assert drawing.id == f"{photo_id(index)}_{k}"
            assert drawing.points.dtype == np.float32 and drawing.num_strokes >= 3
            assert drawing.points.min() >= 0.0 and drawing.points.max() <= 1.0
    assert {name for kinds in INFILLS.values() for name in kinds} <= seen


def test_more_detail_means_more_strokes() -> None:
    levels = (0.0, 0.25, 0.5, 0.75, 1.0)
    strokes = np.array([[sketch(CONFIG, 0, index, 0, d).num_strokes for d in levels] for index in range(40)])
    means = strokes.mean(0)
    assert (np.diff(means) > 1.0).all(), means
    assert means[0] < 14 and means[-1] > 2.5 * means[0], means
    assert (strokes[:, -1] > strokes[:, 0]).mean() > 0.95


def test_detail_is_spread_over_the_drawings_of_a_chair() -> None:
    levels = np.array([[detail_of(CONFIG, 0, index, k) for k in range(5)] for index in range(200)])
    assert (np.ptp(levels, axis=1) > 0.55).all()
    assert abs(levels.mean() - 0.5) < 0.03
    narrow = ProceduralConfig(detail=(0.2, 0.4))
    assert all(0.2 <= detail_of(narrow, 0, 1, k) <= 0.4 for k in range(20))


def test_a_steady_hand_repeats_itself() -> None:
    steady = ProceduralConfig(wobble=0.0, distortion=0.0, viewpoint=0.0, missed=0.0)
    low, high = (
        np.array([f(sketch(steady, 2, 5, k, 1.0).points, axis=0) for k in range(4)]) for f in (np.min, np.max)
    )
    np.testing.assert_allclose(low, np.tile(low[0], (4, 1)), atol=1e-3)
    np.testing.assert_allclose(high, np.tile(high[0], (4, 1)), atol=1e-3)


def test_siblings_share_the_coarse_shape_and_differ_in_detail() -> None:
    alike = ProceduralConfig(distinct=0.0)
    differ = []
    for number in range(40):
        members = family(alike, 4, number)
        for name in ("back", "crest", "panel", "legs", "arms", "seat", "infill", "depth", "rake"):
            assert len({getattr(member, name) for member in members}) == 1
        differ.append(len({member.fine() for member in members}) == len(members))
    assert np.mean(differ) > 0.9
    apart = ProceduralConfig(distinct=1.0)
    assert all(len({member.depth for member in family(apart, 4, number)}) == 4 for number in range(10))


def test_pairs_have_disjoint_splits_that_do_not_depend_on_each_other() -> None:
    pairs = procedural_pairs(6, 4, 5, 2, 32, seed=7)
    assert [len(pairs.photo_indices(split)) for split in (TRAIN, VALIDATION, TEST)] == [6, 4, 5]
    assert [len(pairs.sketch_indices(split)) for split in (TRAIN, VALIDATION, TEST)] == [12, 8, 10]
    assert pairs.photos.shape == (15, 32, 32, 3) and pairs.leaks() == []
    assert pairs.sketches.ids is not None
    assert all(
        name.startswith(pairs.photo_ids[shown] + "_")
        for name, shown in zip(pairs.sketches.ids, pairs.sketch_photo, strict=True)
    )
    more = procedural_pairs(9, 4, 5, 2, 32, seed=7)
    assert pairs.photo_ids[6:] == more.photo_ids[9:]
    np.testing.assert_array_equal(pairs.photos[6:], more.photos[9:])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ProceduralConfig(missed=2.0), "missed is 2.0"),
        (lambda: ProceduralConfig(family_size=0), "family_size is 0"),
        (lambda: ProceduralConfig(detail=(0.8, 0.2)), "detail is"),
        (lambda: ProceduralConfig(wobble=float("nan")), "wobble is nan"),
        (lambda: photo(CONFIG, 0, -1, 64), "index -1"),
        (lambda: photo(CONFIG, 0, 1, 4), "chair-000001: size is 4"),
        (lambda: sketch(CONFIG, 0, 1, 0, detail=1.5), "chair-000001_0: detail is 1.5"),
        (lambda: sketch(CONFIG, 0, 1, -2), "k is -2"),
        (lambda: procedural_pairs(-1, 1, 1, 1, 32, 0), "train has -1"),
        (lambda: procedural_pairs(1, 0, 0, 0, 32, 0), "0 drawings"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_superellipse_of_power_two_is_the_circle() -> None:
    np.testing.assert_allclose((superellipse(2.0) ** 2).sum(1), 1.0, atol=1e-9)
