"""How much a canvas for each sketch can bring, and how much of that is luck of one seed.

The oracle knows the ranks of the very networks that it is judged by, so it counts every lucky rank as a gain. A policy
reads the sketch alone: at best it learns what holds for the sketch whatever network is asked. That is estimated here by
leaving a seed out: each sketch's canvas is chosen by its ranks under the *other* seeds' networks, which still know the
truth, and judged by the seed's own.

Shapes: n queries, K canvases.
"""

from __future__ import annotations

import numpy as np

from sketchynet.results.pooling import RESAMPLES, Pool, interval_text, markdown, percent
from sketchynet.results.summary import Summary
from sketchynet.retrieval import bootstrap_interval
from sketchynet.stages.systems import best_mixture

_STEPS = 60  # of the bisection: more than the digits of a float64


def ceiling_table(pooled: Pool) -> str:
    """Canvases chosen by a seed's own ranks, by the other seeds' ranks, and by V2, at V2's cost, as Markdown.

    Each beside the best mixture of two fixed canvases at its own cost; over seeds and queries, with 95 % intervals.
    """
    if not {"v2", "mixture"} <= {*pooled.systems}:
        return "*These runs have no policy.*"
    choosers = {"its own ranks: the oracle at that cost": [_worth([run]) for run in pooled.runs]}
    if len(pooled.runs) > 1:
        choosers["the ranks of the other seeds' networks"] = [
            _worth([other for other in pooled.runs if other is not run]) for run in pooled.runs
        ]
    rows = [[name, *_figures(pooled, worth)] for name, worth in choosers.items()]
    found, spent = pooled.mean_hits("v2").mean(), pooled.figure("v2", "gflops").mean()
    rows.append(["the policy: V2", percent(found), f"{spent:.4f}", interval_text(pooled.difference("v2", "mixture"))])
    return markdown(["a sketch's canvas is chosen by", "Acc@1", "GFLOPs", "above the best mixture at its cost"], rows)


def affordable(worth: np.ndarray, cost: np.ndarray, budget: float) -> np.ndarray:
    """int64 (n,): canvases of the greatest worth less their price, at the least price that keeps the mean cost within a budget.

    Args:
        worth: float64 (n, K).
        cost: float64 (K,), ascending; in the unit of ``budget``, which pays for the cheapest canvas at least.
    """
    free = worth.argmax(axis=1)  # the cheapest among equals
    if cost[free].mean() <= budget:
        return free
    low, high = 0.0, 2.0 * np.ptp(worth) / np.diff(cost).min()
    for _ in range(_STEPS):
        price = (low + high) / 2
        if cost[(worth - price * cost).argmax(axis=1)].mean() > budget:
            low = price
        else:
            high = price
    return (worth - high * cost).argmax(axis=1)


def _worth(runs: list[Summary]) -> np.ndarray:
    """float64 (n, K): reciprocal rank, averaged over runs."""
    return np.mean([1.0 / run.ranks["v1"] for run in runs], axis=0)


def _cost(run: Summary) -> np.ndarray:
    """float64 (K,): GFLOPs of V1 at each canvas."""
    return np.array([run.figures(f"v1@{size}")["gflops"] for size in run.canvases])


def _figures(pooled: Pool, worths: list[np.ndarray]) -> list[str]:
    """Acc@1, GFLOPs and the difference from the best mixture at that cost, of choices by each seed's worths."""
    found, mixed, spent = [], [], []
    for run, worth in zip(pooled.runs, worths, strict=True):
        cost, hits = _cost(run), (run.ranks["v1"] == 1).astype(np.float64)
        chosen = affordable(worth, cost, run.figures("v2")["gflops"])
        spent.append(float(cost[chosen].mean()))
        found.append(hits[np.arange(len(hits)), chosen])
        mixed.append(hits @ best_mixture(cost, hits.mean(axis=0), spent[-1]))
    gap = bootstrap_interval(np.mean(found, axis=0) - np.mean(mixed, axis=0), resamples=RESAMPLES)
    return [percent(float(np.mean(found))), f"{np.mean(spent):.4f}", interval_text(gap)]
