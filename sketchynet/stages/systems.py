"""Ways to answer queries, and what each of them costs and finds: fixed canvases, the policy, and its rivals.

The rivals are what one could have had for the same FLOPs without a policy: the best mixture of two fixed canvases,
the policy's own choices dealt out at random, a rule on one feature of the drawing, and an early exit, which looks at the
answer at one canvas before it pays for another; and, as a bound, the oracle that knows the ranks.

Shapes: n queries, K canvases.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sketchynet.flops import count_parameters, embedder_flops
from sketchynet.retrieval import bootstrap_interval

QUERY_RANKS = (1, 5, 10)


@dataclass(frozen=True)
class System:
    """One way to answer queries: what it costs and where the truth (photo or category) ends up.

    A randomised system (a mixture of canvases) has several outcomes a query, each with its probability; its
    figures are exact expectations, not one draw.
    """

    name: str
    """Unique, e.g. ``v1@64``."""
    network: str
    """``full``, ``direct``, ``v1``, ``v2``, ``mixture``, ``rule``, ``exit`` or ``oracle``."""
    parameters: int
    ranks: np.ndarray
    """int64 (n, outcomes)."""
    probabilities: np.ndarray
    """float64 (n, outcomes), rows sum to 1."""
    flops: np.ndarray
    """float64 (n,): expected FLOPs of each query."""
    canvases: np.ndarray
    """float64 (n,): expected canvas size of each query's answer."""
    source: str = "v1"
    """Whose ranks these are: ``full``, ``direct`` or ``v1``."""
    choices: np.ndarray | None = None
    """int64 (n,): index of the canvas of each query; None where it is drawn at random."""
    details: dict[str, Any] = field(default_factory=dict)

    def hits(self, q: int) -> np.ndarray:
        """float64 (n,): probability that the truth is among the first q."""
        return ((self.ranks <= q) * self.probabilities).sum(axis=1)

    def figures(self, rows: np.ndarray, *, resamples: int, seed: int) -> dict[str, float]:
        """Acc@1/5/10 with 95 % intervals, MRR, GFLOPs and mean canvas over some of the queries."""
        found: dict[str, float] = {}
        for q in QUERY_RANKS:
            interval = bootstrap_interval(self.hits(q)[rows], seed=seed, resamples=resamples)
            found |= {f"acc{q}": interval.value, f"acc{q}_low": interval.low, f"acc{q}_high": interval.high}
        found["mrr"] = float((self.probabilities / self.ranks).sum(axis=1)[rows].mean())
        found["gflops"] = float(self.flops[rows].mean() / 1e9)
        found["mean_canvas"] = float(self.canvases[rows].mean())
        found["parameters"] = self.parameters
        return found


def full_system(network: Any, ranks: np.ndarray, size: int) -> System:
    """The full network at its own canvas; ranks int64 (n,)."""
    count = len(ranks)
    cost = np.full(count, float(embedder_flops(network, size)))
    return System(
        "full", "full", count_parameters(network), *_certain(ranks), cost, np.full(count, float(size)),
        source="full", choices=np.zeros(count, dtype=np.int64),
    )


def fixed_systems(name: str, network: Any, ranks: np.ndarray) -> list[System]:
    """A network at each of its canvases; ranks int64 (n, K)."""
    count, parameters = len(ranks), count_parameters(network)
    return [
        System(
            f"{name}@{size}",
            name,
            parameters,
            *_certain(ranks[:, number]),
            np.full(count, float(embedder_flops(network, size))),
            np.full(count, float(size)),
            source=name,
            choices=np.full(count, number, dtype=np.int64),
        )
        for number, size in enumerate(network.canvases)
    ]


def chosen_system(
    name: str,
    network: str,
    parameters: int,
    ranks: np.ndarray,
    choices: np.ndarray,
    flops: np.ndarray,
    sizes: tuple[int, ...],
    **details: Any,
) -> System:
    """A canvas chosen for every query: ranks (n, K), choices int64 (n,), flops (n,)."""
    shares = np.bincount(choices, minlength=len(sizes)) / len(choices)
    details["shares"] = {str(size): float(share) for size, share in zip(sizes, shares, strict=True)}
    canvases = np.asarray(sizes, dtype=np.float64)[choices]
    outcome = _certain(ranks[np.arange(len(ranks)), choices])
    return System(name, network, parameters, *outcome, flops, canvases, choices=choices, details=details)


def shuffled_system(v2: System, ranks: np.ndarray, sizes: tuple[int, ...]) -> System:
    """V2's choices dealt to the queries at random: the expectation over all permutations."""
    assert v2.choices is not None
    shares = np.bincount(v2.choices, minlength=len(sizes)) / len(v2.choices)
    return _drawn("shuffled", v2.parameters, ranks, shares, v2.flops.mean(), v2.canvases.mean(), sizes)


def matched_mixture(v2: System, fixed: list[System], ranks: np.ndarray, sizes: tuple[int, ...]) -> System:
    """The most accurate mixture of two fixed canvases that costs on average what V2 costs.

    It pays no policy, and its canvases are picked with the test ranks in hand: a rival that no one could do
    better than without looking at the sketch.
    """
    cost = np.array([float(s.flops.mean()) for s in fixed])
    accuracy = np.array([float(s.hits(1).mean()) for s in fixed])
    weights = best_mixture(cost, accuracy, float(v2.flops.mean()))
    return _drawn("mixture", fixed[0].parameters, ranks, weights, weights @ cost, weights @ np.asarray(sizes), sizes)


def best_mixture(cost: np.ndarray, accuracy: np.ndarray, budget: float) -> np.ndarray:
    """Shares float64 (K,) of the most accurate mixture of two canvases that costs ``budget`` on average.

    One canvas alone where that is more accurate, or where the budget pays for all; the cheapest where it pays for none.

    Args:
        cost: float64 (K,) of the canvases, ascending; in the unit of ``budget``.
        accuracy: float64 (K,).
    """
    one = np.eye(len(cost))
    best, weights = -1.0, one[0]
    for low in range(len(cost)):
        for high in range(len(cost)):
            if cost[low] > budget or (cost[high] <= budget and low != high):
                continue
            share = 0.0 if low == high else (budget - cost[low]) / (cost[high] - cost[low])
            value = (1 - share) * accuracy[low] + share * accuracy[high]
            if value > best:
                best, weights = value, one[low] * (1 - share) + one[high] * share
    return weights


def oracle_system(fixed: list[System], ranks: np.ndarray, sizes: tuple[int, ...]) -> System:
    """The cheapest canvas that ranks the truth first, or the cheapest of all where none does."""
    hit = ranks == 1
    choices = np.where(hit.any(axis=1), hit.argmax(axis=1), 0)
    cost = np.array([s.flops.mean() for s in fixed])
    return chosen_system("oracle", "oracle", fixed[0].parameters, ranks, choices, cost[choices], sizes)


def _certain(ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One outcome a query, with probability 1."""
    return ranks[:, None], np.ones((len(ranks), 1))


def _drawn(
    name: str,
    parameters: int,
    ranks: np.ndarray,
    shares: np.ndarray,
    flops: float,
    canvas: float,
    sizes: tuple[int, ...],
) -> System:
    """A canvas drawn at random, the same way for every query."""
    count = len(ranks)
    details = {"shares": {str(size): float(share) for size, share in zip(sizes, shares, strict=True)}}
    return System(
        name,
        "mixture",
        parameters,
        ranks,
        np.tile(shares, (count, 1)),
        np.full(count, float(flops)),
        np.full(count, float(canvas)),
        details=details,
    )
