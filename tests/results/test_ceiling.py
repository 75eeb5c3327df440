"""What a canvas for each sketch could bring: choices within a budget, and seeds left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from summaries import make_summary

from sketchynet.results.ceiling import affordable, ceiling_table
from sketchynet.results.pooling import pool

COST = np.array([0.1, 0.2, 0.5])


def test_the_budget_goes_where_it_brings_most() -> None:
    worth = np.array([[0.0, 0.0, 1.0], [0.0, 0.9, 0.9], [1.0, 1.0, 1.0]])
    assert affordable(worth, COST, 1.0).tolist() == [2, 1, 0]  # of equals the cheapest
    assert affordable(worth, COST, 0.2).tolist() == [0, 1, 0]  # 1.0 for 0.4 is dearer than 0.9 for 0.1
    assert affordable(worth, COST, 0.1).tolist() == [0, 0, 0]


@given(arrays(np.float64, (6, 3), elements=st.floats(0, 1)), st.floats(0.1, 0.6))
def test_the_budget_is_never_passed_and_no_choice_is_wasted(worth: np.ndarray, budget: float) -> None:
    chosen = affordable(worth, COST, budget)
    assert COST[chosen].mean() <= budget + 1e-12
    taken = worth[np.arange(6), chosen]
    cheaper = np.arange(3)[None] < chosen[:, None]
    assert (worth[cheaper] < np.broadcast_to(taken[:, None], worth.shape)[cheaper]).all()


def test_the_other_seeds_know_less_than_the_seed_itself() -> None:
    # Ranks at 16 and 32: one sketch needs 32 under both seeds' networks, one under the second's alone.
    ranks = ([[9, 1], [1, 1], [1, 1]], [[9, 1], [9, 1], [1, 1]])
    runs = [make_summary(seed, ranks=ranks[seed]) for seed in (0, 1)]
    for run in runs:
        run.values["systems"]["v2"]["all"]["gflops"] = 0.09
    own, others, policy = ceiling_table(pool(runs)).split("\n")[2:]
    assert own.startswith("| its own ranks: the oracle at that cost | 100.00 | 0.0800 |")
    # The second seed's choice for the middle sketch follows the first's ranks and fails.
    assert others.startswith("| the ranks of the other seeds' networks | 83.33 | 0.0800 |")
    assert policy.startswith("| the policy: V2 | 83.33 | 0.0900 |")


@pytest.mark.parametrize("systems", [("v1@16", "v1@32"), ("v1@16", "v1@32", "v2", "mixture")])
def test_runs_without_a_policy_or_with_one_seed(systems: tuple[str, ...]) -> None:
    values = make_summary(0).values["systems"]
    text = ceiling_table(pool([make_summary(0, systems={name: values[name] for name in systems})]))
    assert ("no policy" in text) == ("v2" not in systems)
    assert "other seeds" not in text
