"""Drawings for tests: random ones, and the real strokes of QMUL-ChairV2."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sketchynet import Sketch, SketchBatch
from sketchynet.data.restricted import read_array_dict


def random_batch(count: int, seed: int, strokes: int = 5, points: int = 12) -> SketchBatch:
    """Wobbly strokes through the whole frame, that cross themselves and each other."""
    rng = np.random.default_rng(seed)
    return SketchBatch.from_sketches(
        [
            Sketch.from_strokes(
                [
                    rng.random(2) + np.cumsum(rng.normal(0, 0.04, (rng.integers(1, points + 1), 2)), axis=0)
                    for _ in range(strokes)
                ],
                id=f"random-{seed}-{i}",
            )
            for i in range(count)
        ]
    )


def chair_strokes(data_root: Path, count: int) -> SketchBatch:
    """The first `count` drawings of ChairV2 (rows x, y, pen lifted; frame of 256), fitted to the unit frame."""
    drawings = read_array_dict(data_root / "chairv2_strokes" / "ChairV2_Coordinate")
    sketches = []
    for name, rows in list(drawings.items())[:count]:
        ends = np.flatnonzero(rows[:-1, 2]) + 1
        sketches.append(Sketch.from_strokes(np.split(rows[:, :2], ends), id=name, fit=True))
    return SketchBatch.from_sketches(sketches)
