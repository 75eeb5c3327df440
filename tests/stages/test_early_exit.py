from __future__ import annotations

import numpy as np
import pytest

from sketchynet.stages.early_exit import EarlyExit, tune_exit

FLOPS = np.array([1.0, 4.0, 16.0])
CLEARNESS = np.array([[0.1, 0.5, 0.9], [0.8, 0.2, 0.9], [0.3, 0.7, 0.9], [0.6, 0.6, 0.9]])


def test_unclear_answers_are_asked_for_again_and_both_canvases_paid() -> None:
    leaving = EarlyExit(0, 2, 0.5)
    assert leaving.goes_on(CLEARNESS).tolist() == [True, False, True, False]
    assert leaving.choices(CLEARNESS).tolist() == [2, 0, 2, 0]
    assert leaving.cost(CLEARNESS, FLOPS).tolist() == [17.0, 1.0, 17.0, 1.0]
    assert leaving.described((16, 32, 64)) == {"first": 16, "then": 64, "threshold": 0.5}


def test_the_least_clear_half_goes_on_where_the_budget_pays_for_half() -> None:
    ranks = np.array([[5, 5, 1], [1, 5, 5], [5, 5, 1], [1, 5, 5]])
    leaving = tune_exit(CLEARNESS, ranks, FLOPS, 9.0)
    assert (leaving.first, leaving.then) == (0, 2)
    assert leaving.choices(CLEARNESS).tolist() == [2, 0, 2, 0]
    assert leaving.cost(CLEARNESS, FLOPS).mean() == 9.0


@pytest.mark.parametrize(("threshold", "share"), [(0.0, 0.0), (0.5, 0.5), (0.7, 0.75), (1.0, 1.0)])
def test_carried_to_clearer_answers_the_same_share_goes_on(threshold: float, share: float) -> None:
    clearer = np.linspace(0.9, 1.0, 100)[:, None].repeat(3, axis=1)
    carried = EarlyExit(0, 2, threshold).carried(CLEARNESS, clearer)
    assert (carried.first, carried.then) == (0, 2)
    assert carried.goes_on(clearer).mean() == share


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("budget", [0.5, 1.0, 3.0, 9.0, 16.0, 30.0])
def test_the_tuned_exit_keeps_the_budget_and_is_no_worse_than_any_canvas_within_it(seed: int, budget: float) -> None:
    generator = np.random.default_rng(seed)
    clearness = generator.integers(0, 6, (30, 3)) / 6  # many equal ones
    ranks = generator.integers(1, 4, (30, 3))
    leaving = tune_exit(clearness, ranks, FLOPS, budget)
    assert leaving.cost(clearness, FLOPS).mean() <= max(budget, FLOPS[0]) + 1e-9
    accuracy = (ranks[np.arange(30), leaving.choices(clearness)] == 1).mean()
    affordable = [(ranks[:, k] == 1).mean() for k in range(3) if FLOPS[k] <= budget]
    assert accuracy >= max(affordable, default=0.0)
