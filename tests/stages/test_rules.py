from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest

from sketchynet.sketch import Sketch, SketchBatch
from sketchynet.stages.rules import CanvasRule, stroke_features, tune_rule

FLOPS = np.array([1.0, 4.0, 16.0])


def test_features_are_counts_and_drawn_length() -> None:
    dot = Sketch.from_strokes([[[0.5, 0.5]]], "dot")
    two = Sketch.from_strokes([[[0, 0], [0.3, 0.4]], [[1, 1], [1, 0.5], [0.5, 0.5]]], "two")
    found = stroke_features(SketchBatch.from_sketches([dot, two, dot]))
    assert found["strokes"].tolist() == [1, 2, 1] and found["points"].tolist() == [1, 5, 1]
    assert found["ink"] == pytest.approx([0.0, 1.5, 0.0], abs=1e-6)  # the way between strokes is not drawn


def test_choices_rise_or_fall_with_the_feature() -> None:
    ink = {"ink": np.array([0.0, 1.0, 1.5, 2.0, 9.0])}
    assert CanvasRule("ink", (1.0, 2.0), falling=False).choices(ink).tolist() == [0, 1, 1, 2, 2]
    assert CanvasRule("ink", (1.0, 2.0), falling=True).choices(ink).tolist() == [2, 1, 1, 0, 0]
    assert CanvasRule("ink", (2.0, 2.0), falling=False).choices(ink).tolist() == [0, 0, 0, 2, 2]
    assert CanvasRule("ink", (-np.inf, np.inf), falling=True).choices(ink).tolist() == [1] * 5


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("budget", [1.0, 3.0, 7.0, 16.0])
def test_the_tuned_rule_is_the_best_that_the_budget_pays(seed: int, budget: float) -> None:
    generator = np.random.default_rng(seed)
    features = {name: generator.integers(1, 9, 30).astype(float) for name in ("strokes", "points", "ink")}
    ranks = generator.integers(1, 4, (30, 3))
    rule = tune_rule(features, ranks, FLOPS, budget)
    rows = np.arange(30)

    def score(candidate: CanvasRule) -> tuple[float, float, float] | None:
        chosen = candidate.choices(features)
        cost = float(FLOPS[chosen].mean())
        picked = ranks[rows, chosen]
        return None if cost > budget + 1e-9 else ((picked == 1).sum(), round((1 / picked).sum(), 9), -round(cost, 9))

    tried = [
        score(CanvasRule(name, bounds, falling))
        for name in features
        for falling in (False, True)
        for bounds in combinations_with_replacement([-np.inf, *np.unique(features[name]), np.inf], 2)
    ]
    assert score(rule) == max(found for found in tried if found is not None)


def test_a_budget_below_the_smallest_canvas_gives_the_smallest() -> None:
    features = {name: np.arange(8.0) for name in ("strokes", "points", "ink")}
    rule = tune_rule(features, np.ones((8, 3), dtype=np.int64), FLOPS, 0.5)
    assert rule.choices(features).tolist() == [0] * 8
    assert rule.described() == {"feature": "ink", "thresholds": ["inf", "inf"], "falling": False}
