"""Drawings for tests: random ones, and the real strokes of QMUL-ChairV2."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from sketchynet import Sketch, SketchBatch


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


class _ArraysOnly(pickle.Unpickler):
    """Builds numpy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {"numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"}
        if f"{module}.{name}" not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not an array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def chair_strokes(data_root: Path, count: int) -> SketchBatch:
    return read_chair_strokes(data_root / "chairv2_strokes" / "ChairV2_Coordinate", count)


def read_chair_strokes(file: Path, count: int) -> SketchBatch:
    """The first `count` drawings of ChairV2 (rows x, y, pen lifted; frame of 256), fitted to the unit frame."""
    drawings = _ArraysOnly(io.BytesIO(file.read_bytes())).load()
    sketches = []
    for name, rows in list(drawings.items())[:count]:
        ends = np.flatnonzero(rows[:-1, 2]) + 1
        sketches.append(Sketch.from_strokes(np.split(rows[:, :2], ends), id=name, fit=True))
    return SketchBatch.from_sketches(sketches)
