from __future__ import annotations

import numpy as np
import pytest

from sketchynet.stages.systems import System, chosen_system, matched_mixture, oracle_system, shuffled_system

RANKS = np.array([[1, 1, 1], [3, 1, 1], [9, 9, 1], [9, 9, 9]])
SIZES = (16, 32, 64)
COST = (1.0, 4.0, 16.0)


def _fixed() -> list[System]:
    one = np.ones((4, 1))
    return [
        System(f"v1@{s}", "v1", 10, RANKS[:, [k]], one, np.full(4, c), np.full(4, float(s)))
        for k, (s, c) in enumerate(zip(SIZES, COST, strict=True))
    ]


def _v2(choices: list[int]) -> System:
    picked = np.array(choices)
    return chosen_system("v2", "v2", 12, RANKS, picked, np.asarray(COST)[picked], SIZES)


def test_oracle_takes_the_cheapest_canvas_that_succeeds() -> None:
    oracle = oracle_system(_fixed(), RANKS, SIZES)
    assert oracle.canvases.tolist() == [16, 32, 64, 16]
    assert oracle.hits(1).tolist() == [1, 1, 1, 0]
    assert oracle.flops.tolist() == [1, 4, 16, 1]


def test_shuffled_is_the_exact_expectation_over_permutations() -> None:
    choices = [0, 1, 2, 0]
    shuffled = shuffled_system(_v2(choices), RANKS, SIZES)
    from itertools import permutations

    drawn = [np.mean([RANKS[i, c] == 1 for i, c in enumerate(p)]) for p in permutations(choices)]
    assert shuffled.hits(1).mean() == pytest.approx(np.mean(drawn))
    assert shuffled.flops.mean() == pytest.approx(_v2(choices).flops.mean())


def test_mixture_is_the_best_at_the_same_cost() -> None:
    v2 = _v2([0, 1, 2, 0])
    mixture = matched_mixture(v2, _fixed(), RANKS, SIZES)
    budget = v2.flops.mean()
    assert mixture.flops.mean() == pytest.approx(budget)
    accuracy = (RANKS == 1).mean(axis=0)
    for low in range(3):
        for high in range(low + 1, 3):
            share = (budget - COST[low]) / (COST[high] - COST[low])
            if 0 <= share <= 1:
                assert mixture.hits(1).mean() >= (1 - share) * accuracy[low] + share * accuracy[high] - 1e-12


def test_figures_are_means_and_intervals() -> None:
    figures = _fixed()[1].figures(np.arange(4), resamples=200, seed=0)
    assert figures["acc1"] == 0.5 and figures["acc10"] == 1.0
    assert figures["mrr"] == pytest.approx((1 + 1 + 1 / 9 + 1 / 9) / 4)
    assert figures["acc1_low"] <= 0.5 <= figures["acc1_high"]
    assert figures["gflops"] == pytest.approx(4e-9) and figures["mean_canvas"] == 32
