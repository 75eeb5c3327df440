"""The built-in procedural set: chairs as shaded photos and as human-like vector sketches.

Nothing is stored: photo `index` and its drawings follow from a seed alone, on every machine. Consecutive
photos form families. Members of a family mostly share a coarse shape and differ in fine detail (the number of
slats, thin stretchers, the shape of a cut-out), so that some drawings find their photo on a small canvas and
others need a large one.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sketchynet.data.pairs import PairedSet
from sketchynet.data.procedural.build import build
from sketchynet.data.procedural.config import DETAIL_STREAM, PHOTO_STREAM, SKETCH_STREAM, ProceduralConfig
from sketchynet.data.procedural.drawing import Plan, draw, plan
from sketchynet.data.procedural.parameters import Chair, chair
from sketchynet.data.procedural.rendering import render
from sketchynet.data.procedural.scene import Scene
from sketchynet.data.splits import SPLIT_NAMES, TEST, TRAIN, VALIDATION
from sketchynet.errors import InputError
from sketchynet.sketch import Sketch, SketchBatch

SPLIT_START = {TRAIN: 0, VALIDATION: 600_000, TEST: 800_000}
"""First photo index of each split. A split's photos do not depend on the other splits' sizes."""
INDEX_END = 1_000_000
GOLDEN_RATIO = 0.6180339887498949


def photo_id(index: int) -> str:
    return f"chair-{index:06d}"


def photo(config: ProceduralConfig, seed: int, index: int, size: int = 128) -> np.ndarray:
    """Photo of chair `index`: uint8 (size, size, 3), RGB."""
    _check(seed, index)
    if not 8 <= size <= 2048:
        raise InputError(f"procedural photo {photo_id(index)}: size is {size}: give 8 to 2048 pixels")
    rng = np.random.default_rng([seed, PHOTO_STREAM, index])
    instance, scene, _ = _instance(config, seed, index)
    return render(instance, scene, rng, size, scenic=bool(rng.random() < config.background))


def sketch(config: ProceduralConfig, seed: int, index: int, k: int, detail: float | None = None) -> Sketch:
    """Drawing `k` of chair `index`, in the unit frame, with the id "chair-INDEX_K".

    detail: level of detail from 0 (bare outline) to 1 (every slat); None takes it from `config.detail`,
    spread evenly over the drawings of one chair. At one `k`, a higher level mostly adds strokes.
    """
    _check(seed, index)
    name = f"{photo_id(index)}_{k}"
    if k < 0:
        raise InputError(f"procedural drawing {name}: k is {k}: count the drawings from 0")
    if detail is None:
        detail = detail_of(config, seed, index, k)
    elif not 0.0 <= detail <= 1.0:
        raise InputError(f"procedural drawing {name}: detail is {detail}: give a level from 0 to 1")
    rng = np.random.default_rng([seed, SKETCH_STREAM, index, k])
    instance, scene, lines = _instance(config, seed, index)
    return draw(instance, scene, lines, config, detail, rng, name)


def detail_of(config: ProceduralConfig, seed: int, index: int, k: int) -> float:
    """Level of detail that drawing `k` of chair `index` takes from `config.detail`."""
    # Multiples of the golden ratio spread the drawings of one chair evenly over the range.
    start = np.random.default_rng([seed, DETAIL_STREAM, index]).random()
    low, high = config.detail
    return float(low + (high - low) * ((start + k * GOLDEN_RATIO) % 1.0))


def procedural_pairs(
    num_train: int,
    num_validation: int,
    num_test: int,
    sketches_per_photo: int,
    size: int,
    seed: int,
    config: ProceduralConfig | None = None,
) -> PairedSet:
    """Photos of num_train + num_validation + num_test chairs, each drawn `sketches_per_photo` times.

    size: side of the photos in pixels. Families never straddle two splits; the galleries therefore hold the
    look-alikes of their own members. Raises InputError for negative or too large numbers.
    """
    config = config or ProceduralConfig()
    wanted = {TRAIN: num_train, VALIDATION: num_validation, TEST: num_test}
    ends = {TRAIN: SPLIT_START[VALIDATION], VALIDATION: SPLIT_START[TEST], TEST: INDEX_END}
    indices: list[int] = []
    for number, count in wanted.items():
        room = ends[number] - SPLIT_START[number]
        if not 0 <= count <= room:
            raise InputError(f"procedural set: {SPLIT_NAMES[number]} has {count} photos: give 0 to {room}")
        indices += range(SPLIT_START[number], SPLIT_START[number] + count)
    if not indices or sketches_per_photo < 1:
        raise InputError(
            f"procedural set: {len(indices)} photos, {sketches_per_photo} drawings each: give one or more"
        )
    return PairedSet(
        name="procedural",
        photos=np.stack([photo(config, seed, index, size) for index in indices]),
        photo_ids=tuple(photo_id(index) for index in indices),
        categories=np.zeros(len(indices), dtype=np.int64),
        category_names=("chair",),
        content=np.arange(len(indices)),
        sketches=SketchBatch.from_sketches(
            [sketch(config, seed, index, k) for index in indices for k in range(sketches_per_photo)]
        ),
        sketch_photo=np.repeat(np.arange(len(indices)), sketches_per_photo),
        split=np.repeat(np.array(list(wanted), dtype=np.int8), list(wanted.values())),
    )


def _check(seed: int, index: int) -> None:
    if seed < 0 or index < 0:
        raise InputError(f"procedural set: seed {seed}, photo index {index}: neither may be negative")


@lru_cache(maxsize=256)
def _instance(config: ProceduralConfig, seed: int, index: int) -> tuple[Chair, Scene, Plan]:
    instance = chair(config, seed, index)
    scene = build(instance)
    return instance, scene, plan(scene)


__all__ = [
    "Chair",
    "ProceduralConfig",
    "chair",
    "detail_of",
    "photo",
    "photo_id",
    "procedural_pairs",
    "sketch",
]
