"""The test split, read once: full network, directly trained student, V1 and V2 against each other.

V2 is compared with what one could have had for the same FLOPs: fixed canvases, the best mixture of two fixed
canvases, and its own choices dealt out at random; and with the oracle that knows the ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sketchynet import checkpoint
from sketchynet.config import Recipe
from sketchynet.flops import count_parameters, embedder_flops
from sketchynet.models.selector import CanvasSelector
from sketchynet.retrieval import bootstrap_interval, paired_bootstrap
from sketchynet.stages.networks import read_embedder, read_selector
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.selector import choose, query_flops
from sketchynet.stages.task import TEST, Task
from sketchynet.stages.teacher import full_network

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
    """``full``, ``direct``, ``v1``, ``v2`` or ``oracle``."""
    parameters: int
    ranks: np.ndarray
    """int64 (n, outcomes)."""
    probabilities: np.ndarray
    """float64 (n, outcomes), rows sum to 1."""
    flops: np.ndarray
    """float64 (n,): expected FLOPs of each query."""
    canvases: np.ndarray
    """float64 (n,): expected canvas size of each query."""
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


@dataclass(frozen=True)
class Evaluation:
    """Everything that was found on a split."""

    sketches: np.ndarray
    """int64 (n,): the queries."""
    systems: tuple[System, ...]
    choices: np.ndarray
    """int64 (n,): index of the canvas that V2 chose."""
    summary: dict[str, Any]
    """JSON-ready figures (see :func:`evaluate`)."""

    def system(self, name: str) -> System:
        """The system of that name."""
        return next(s for s in self.systems if s.name == name)


def evaluate(task: Task, folder: RunFolder, *, split: int = TEST, device: str = "cpu") -> Evaluation:
    """Evaluates a finished pipeline.

    The summary holds ``systems`` (name → scope → figures, scope ``all`` or a category), ``differences``
    (paired bootstrap of Acc@1 on the same queries), ``canvas_counts``, ``queries`` (every query's choice and
    ranks), and what was read: split hash, counts, leaks.
    """
    recipe = task.recipe
    sketches = task.indices(split)
    queries = task.sketches.select(sketches)
    photo_size = recipe.student.photo_size
    student = read_embedder(folder.final("student")).to(device)
    ranks = task.ranks(student, split, student.canvases, photo_size)
    systems = [_full_system(task, folder, split, device)]
    found = {"full_rank": systems[0].ranks[:, 0], "ranks": ranks}
    if folder.final("direct").exists():
        direct = read_embedder(folder.final("direct")).to(device)
        found["direct_ranks"] = task.ranks(direct, split, direct.canvases, photo_size)
        systems += _fixed_systems("direct", direct, found["direct_ranks"])
    fixed = _fixed_systems("v1", student, ranks)
    systems += fixed

    def selected(name: str, policy: CanvasSelector) -> tuple[System, np.ndarray]:
        chosen = choose(policy, queries, recipe.selector)
        flops = query_flops(policy, student, chosen)
        parameters = count_parameters(student) + count_parameters(policy)
        system = _chosen(name, "v2", parameters, ranks, chosen.canvases, flops, student.canvases)
        return system, chosen.canvases

    v2, choices = selected("v2", read_selector(folder.final("selector")))
    systems += [
        v2,
        _shuffled(v2, ranks, choices, student.canvases),
        _matched_mixture(v2, fixed, ranks, student.canvases),
        _oracle(fixed, ranks, student.canvases),
    ]
    for number, weight in enumerate(recipe.selector.cost_weights):
        systems.append(selected(f"v2[{weight:g}]", read_selector(folder.candidate(number)))[0])
    summary = {
        **task.facts(split),
        "queries_count": len(sketches),
        "canvases": list(student.canvases),
        "canvas_counts": np.bincount(choices, minlength=len(student.canvases)).tolist(),
        "systems": _all_figures(recipe, systems, task.scopes(sketches)),
        "differences": _differences(recipe, systems, student.canvases[-1]),
        "queries": _queries(task, sketches, choices, found),
    }
    return Evaluation(sketches, tuple(systems), choices, summary)


def _all_figures(recipe: Recipe, systems: list[System], scopes: dict[str, np.ndarray]) -> dict[str, Any]:
    resamples, seed = recipe.evaluation.bootstrap, recipe.seed
    return {
        system.name: {scope: system.figures(rows, resamples=resamples, seed=seed) for scope, rows in scopes.items()}
        | {"details": system.details}
        for system in systems
    }


def _differences(recipe: Recipe, systems: list[System], largest: int) -> dict[str, dict[str, float]]:
    """Differences of Acc@1 that the claims are about, on the same queries."""
    by_name = {system.name: system for system in systems}
    best = f"v1@{largest}"
    claims = ((best, f"direct@{largest}"), (best, "full"), ("v2", best), ("v2", "mixture"), ("v2", "shuffled"))
    return {
        f"{a} - {b}": paired_bootstrap(
            by_name[a].hits(1), by_name[b].hits(1), seed=recipe.seed, resamples=recipe.evaluation.bootstrap
        )._asdict()
        for a, b in claims
        if a in by_name and b in by_name
    }


def _certain(ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One outcome a query, with probability 1."""
    return ranks[:, None], np.ones((len(ranks), 1))


def _full_system(task: Task, folder: RunFolder, split: int, device: str) -> System:
    network, size = full_network(task.recipe, folder).to(device), task.recipe.teacher.canvas
    ranks, certain = _certain(task.ranks(network, split, (size,), size)[:, 0])
    count = len(ranks)
    flops = np.full(count, float(embedder_flops(network, size)))
    return System("full", "full", count_parameters(network), ranks, certain, flops, np.full(count, float(size)))


def _fixed_systems(name: str, network: Any, ranks: np.ndarray) -> list[System]:
    count, parameters = len(ranks), count_parameters(network)
    systems = []
    for number, size in enumerate(network.canvases):
        outcome, certain = _certain(ranks[:, number])
        flops = np.full(count, float(embedder_flops(network, size)))
        systems.append(
            System(f"{name}@{size}", name, parameters, outcome, certain, flops, np.full(count, float(size)))
        )
    return systems


def _chosen(
    name: str,
    network: str,
    parameters: int,
    ranks: np.ndarray,
    choices: np.ndarray,
    flops: np.ndarray,
    sizes: tuple[int, ...],
) -> System:
    outcome, certain = _certain(ranks[np.arange(len(ranks)), choices])
    shares = np.bincount(choices, minlength=len(sizes)) / len(choices)
    details = {"shares": {str(size): float(share) for size, share in zip(sizes, shares, strict=True)}}
    canvases = np.asarray(sizes, dtype=np.float64)[choices]
    return System(name, network, parameters, outcome, certain, flops, canvases, details)


def _shuffled(v2: System, ranks: np.ndarray, choices: np.ndarray, sizes: tuple[int, ...]) -> System:
    """V2's choices dealt to the queries at random: the expectation over all permutations."""
    shares = np.bincount(choices, minlength=len(sizes)) / len(choices)
    flops = np.full(len(ranks), v2.flops.mean())
    canvases = np.full(len(ranks), v2.canvases.mean())
    return System("shuffled", "mixture", v2.parameters, ranks, np.tile(shares, (len(ranks), 1)), flops, canvases)


def _matched_mixture(v2: System, fixed: list[System], ranks: np.ndarray, sizes: tuple[int, ...]) -> System:
    """The most accurate mixture of two fixed canvases that costs on average what V2 costs.

    It pays no policy, and its canvases are picked with the test ranks in hand: a rival that no one could do
    better than without looking at the sketch.
    """
    budget = float(v2.flops.mean())
    cost = np.array([float(s.flops.mean()) for s in fixed])
    accuracy = np.array([float(s.hits(1).mean()) for s in fixed])
    best, weights = -1.0, np.zeros(len(fixed))
    for low in range(len(fixed)):
        for high in range(len(fixed)):
            if cost[low] > budget or (cost[high] <= budget and low != high):
                continue
            share = 0.0 if low == high else (budget - cost[low]) / (cost[high] - cost[low])
            value = (1 - share) * accuracy[low] + share * accuracy[high]
            if value > best:
                best, weights = value, np.eye(len(fixed))[low] * (1 - share) + np.eye(len(fixed))[high] * share
    count = len(ranks)
    details = {"shares": {str(size): float(w) for size, w in zip(sizes, weights, strict=True)}}
    return System(
        "mixture",
        "mixture",
        fixed[0].parameters,
        ranks,
        np.tile(weights, (count, 1)),
        np.full(count, float(weights @ cost)),
        np.full(count, float(weights @ np.asarray(sizes))),
        details,
    )


def _oracle(fixed: list[System], ranks: np.ndarray, sizes: tuple[int, ...]) -> System:
    """The cheapest canvas that ranks the truth first, or the cheapest of all where none does."""
    hit = ranks == 1
    choices = np.where(hit.any(axis=1), hit.argmax(axis=1), 0)
    cost = np.array([s.flops.mean() for s in fixed])
    return _chosen("oracle", "oracle", fixed[0].parameters, ranks, choices, cost[choices], sizes)


def _queries(
    task: Task, sketches: np.ndarray, choices: np.ndarray, ranks: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """A record of every query: the truth, V2's choice, and every network's rank at each of its canvases."""
    ids = task.sketches.ids
    assert ids is not None  # the data of a task has them
    listed = {name: values.tolist() for name, values in ranks.items()}
    return [
        {"sketch": ids[sketch], **task.answer(int(sketch)), "choice": int(choice)}
        | {name: values[row] for name, values in listed.items()}
        for row, (sketch, choice) in enumerate(zip(sketches, choices, strict=True))
    ]


def save_evaluation(folder: RunFolder, evaluation: Evaluation) -> None:
    """Writes the summary to the run's folder."""
    checkpoint.write_json(folder.evaluation, evaluation.summary)
