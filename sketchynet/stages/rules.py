"""Canvas by one feature of the drawing: what a policy must beat to be worth its GRU.

A rule puts K - 1 thresholds on the number of strokes, the number of points or the length of ink; they are tuned on
the drawings that the policy was picked on, within the mean FLOPs that it spends there.

Shapes: n sketches, K canvases.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from sketchynet.sketch import SketchBatch

FEATURES = ("strokes", "points", "ink")
_LEVELS = 16
"""Parts into which quantiles cut a feature of many values."""


def stroke_features(sketches: SketchBatch) -> dict[str, np.ndarray]:
    """float64 (n,) each: ``strokes``, ``points`` and ``ink``, the drawn length in sides of the frame."""
    points = sketches.points.astype(np.float64)
    length = np.hypot(*np.diff(points, axis=0, prepend=points[:1]).T)
    length[sketches.stroke_offsets[:-1]] = 0.0  # the pen is lifted on its way to a stroke's first point
    bounds = sketches.point_offsets
    total = np.concatenate([[0.0], np.cumsum(length)])
    return {
        "strokes": np.diff(sketches.sketch_offsets).astype(np.float64),
        "points": np.diff(bounds).astype(np.float64),
        "ink": total[bounds[1:]] - total[bounds[:-1]],
    }


@dataclass(frozen=True)
class CanvasRule:
    """Thresholds on one feature."""

    feature: str
    thresholds: tuple[float, ...]
    """K - 1, ascending; equal ones leave a canvas out."""
    falling: bool
    """Whether much of the feature asks for a small canvas instead of a large one."""

    def choices(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """int64 (n,): index of the canvas of every sketch."""
        level = np.searchsorted(np.array(self.thresholds), features[self.feature], side="right")
        return len(self.thresholds) - level if self.falling else level

    def described(self) -> dict[str, object]:
        """The rule as JSON can hold it: an infinite threshold, which no drawing passes or fails, is its text."""
        bounds = [value if np.isfinite(value) else str(value) for value in self.thresholds]
        return {"feature": self.feature, "thresholds": bounds, "falling": self.falling}


def tune_rule(features: dict[str, np.ndarray], ranks: np.ndarray, flops: np.ndarray, budget: float) -> CanvasRule:
    """The rule with the best Acc@1 (then MRR) whose sketches cost at most ``budget`` FLOPs on average.

    All thresholds at the values of each feature (of many: at 15 inner quantiles), and beyond both ends, are tried,
    rising and falling.

    Args:
        features: of held-out sketches.
        ranks: int64 (n, K) of the same sketches.
        flops: float64 (K,), ascending.
    """
    best: tuple[float, float, float] | None = None
    found = CanvasRule("ink", (np.inf,) * (len(flops) - 1), falling=False)  # the smallest canvas for everyone
    hit, reciprocal = (ranks == 1).astype(np.float64), 1.0 / ranks
    for name in FEATURES:
        values = features[name]
        levels = np.unique(values)
        if len(levels) >= _LEVELS:
            levels = np.unique(np.quantile(values, np.arange(1, _LEVELS) / _LEVELS))
        levels = np.concatenate([[-np.inf], levels, [np.inf]])
        # One row a level: the sums over the sketches at or above it; a canvas then gets a difference of two rows.
        above = np.array([values >= level for level in levels], dtype=np.float64)
        hits, gains, counts = above @ hit, above @ reciprocal, above.sum(axis=1)
        for falling in (False, True):
            for places in combinations_with_replacement(range(len(levels)), len(flops) - 1):
                edges = np.array([0, *places, len(levels) - 1])
                order = np.arange(len(flops))[::-1] if falling else np.arange(len(flops))
                shares = counts[edges[:-1]] - counts[edges[1:]]
                if shares @ flops[order] > budget * len(ranks) * (1 + 1e-12):
                    continue
                score = (
                    float((hits[edges[:-1], order] - hits[edges[1:], order]).sum()),
                    # Equal sums may differ in their last bits, by the order in which a processor adds.
                    round(float((gains[edges[:-1], order] - gains[edges[1:], order]).sum()), 9),
                    -float(shares @ flops[order]),
                )
                if best is None or score > best:
                    best, found = score, CanvasRule(name, tuple(float(levels[p]) for p in places), falling)
    return found
