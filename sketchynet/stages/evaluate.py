"""The test split, read once: full network, directly trained student, V1 and V2 against each other.

V2 is compared with what one could have had for the same FLOPs (see :mod:`sketchynet.stages.systems`). What a run
did not train is left out: a pipeline without a policy ends with V1, one without a teacher has no full network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sketchynet import checkpoint
from sketchynet.config import Recipe
from sketchynet.flops import count_parameters, embedder_flops
from sketchynet.models import fold_grey_stem
from sketchynet.models.embedder import Embedder
from sketchynet.models.selector import CanvasSelector, selector_input
from sketchynet.retrieval import paired_bootstrap
from sketchynet.stages.early_exit import tune_exit
from sketchynet.stages.networks import read_embedder, read_selector
from sketchynet.stages.picking import HeldOut, pick, shifted
from sketchynet.stages.rules import stroke_features, tune_rule
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.search_head import searched
from sketchynet.stages.selector import choose_read, query_flops
from sketchynet.stages.systems import (
    System,
    chosen_system,
    fixed_systems,
    full_system,
    matched_mixture,
    oracle_system,
    shuffled_system,
)
from sketchynet.stages.task import TEST, VALIDATION, Answers, Task
from sketchynet.stages.teacher import full_network


@dataclass(frozen=True)
class Evaluation:
    """Everything that was found on a split."""

    sketches: np.ndarray
    """int64 (n,): the queries."""
    systems: tuple[System, ...]
    ranks: dict[str, np.ndarray]
    """int64 (n, canvases) of every network: ``full``, ``direct``, ``v1``."""
    features: dict[str, np.ndarray]
    """float64 (n,) each, of the drawings: see :func:`~sketchynet.stages.rules.stroke_features`."""
    choices: np.ndarray | None
    """int64 (n,): index of the canvas that V2 chose; None without a policy."""
    summary: dict[str, Any]
    """JSON-ready figures (see :func:`evaluate`)."""

    def system(self, name: str) -> System:
        """The system of that name."""
        return next(s for s in self.systems if s.name == name)


def evaluate(task: Task, folder: RunFolder, *, split: int = TEST, device: str = "cpu") -> Evaluation:
    """Evaluates a finished pipeline.

    The summary holds ``systems`` (name → scope → figures, scope ``all`` or a category), ``differences``
    (paired bootstrap of Acc@1 on the same queries), ``canvas_counts`` (None without a policy), ``queries`` (every
    query's choice, ranks and stroke features), and what was read: split hash, counts, leaks.
    """
    recipe = task.recipe
    sketches = task.indices(split)
    photo_sizes = recipe.student.gallery_sizes
    features = stroke_features(task.sketches.select(sketches))
    student = _network(task, folder, "student", device)
    ranks: dict[str, np.ndarray] = {}
    systems: list[System] = []
    members = map(folder.teacher, range(recipe.teacher.members))
    if all(checkpoint.is_complete(searched(recipe, folder, member)) for member in members):
        network, size = full_network(recipe, folder, searching=True).to(device), recipe.teacher.canvas
        ranks["full"] = task.answers(network, split, (size,), (size,)).ranks
        systems.append(full_system(network, ranks["full"][:, 0], size))
    if checkpoint.is_complete(searched(recipe, folder, "direct")):
        direct = _network(task, folder, "direct", device)
        ranks["direct"] = task.answers(direct, split, direct.canvases, photo_sizes).ranks
        systems += fixed_systems("direct", direct, ranks["direct"])
    answers = task.answers(student, split, student.canvases, photo_sizes)
    ranks["v1"] = answers.ranks
    fixed = fixed_systems("v1", student, ranks["v1"])
    systems += fixed
    choices = None
    if checkpoint.is_complete(folder.final("selector")):
        selected = _selected(task, folder, split, student, fixed, answers)
        choices = selected[0].choices
        systems += selected
    systems.append(oracle_system(fixed, ranks["v1"], student.canvases))
    counts = None if choices is None else np.bincount(choices, minlength=len(student.canvases)).tolist()
    summary = {
        **task.facts(split),
        "queries_count": len(sketches),
        "canvases": list(student.canvases),
        "canvas_counts": counts,
        "systems": _all_figures(recipe, systems, task.scopes(sketches), _saved_by_grey(recipe, student)),
        "differences": _differences(recipe, systems, student.canvases),
        "queries": _queries(task, sketches, choices, ranks, features),
    }
    return Evaluation(sketches, tuple(systems), ranks, features, choices, summary)


def _network(task: Task, folder: RunFolder, name: str, device: str) -> Embedder:
    network = read_embedder(searched(task.recipe, folder, name)).to(device)
    return fold_grey_stem(network) if task.recipe.evaluation.grey_stem else network


def _saved_by_grey(recipe: Recipe, student: Embedder) -> np.ndarray | None:
    """float64 (K,): FLOPs that a first layer of one channel saves at every canvas; None where it is not used."""
    if not recipe.evaluation.grey_stem:
        return None
    saved = [embedder_flops(student, size) - embedder_flops(student, size, grey=True) for size in student.canvases]
    return np.array(saved, dtype=np.float64)


def _selected(
    task: Task, folder: RunFolder, split: int, student: Embedder, fixed: list[System], answers: Answers
) -> list[System]:
    """V2, its rivals at the same cost, V2 as trained at every price, and V2 at every share of the FLOPs."""
    recipe, sizes, ranks = task.recipe, student.canvases, answers.ranks
    queries = task.sketches.select(task.indices(split))
    settings = recipe.selector
    read = selector_input(queries, tolerance=settings.tolerance, max_points=settings.max_points)

    def answered(name: str, policy: CanvasSelector) -> System:
        chosen = choose_read(policy, *read)
        flops = query_flops(policy, student, chosen)
        parameters = count_parameters(student) + count_parameters(policy)
        return chosen_system(name, "v2", parameters, ranks, chosen.canvases, flops, sizes)

    policy = read_selector(folder.final("selector"))
    v2 = answered("v2", policy)
    systems = [v2, shuffled_system(v2, ranks, sizes), matched_mixture(v2, fixed, ranks, sizes)]
    # Rule and early exit are tuned on what the policy was picked on, and given what it spends there, its GRU included.
    held_out = HeldOut.read(task, folder, student)
    spent = query_flops(policy, student, choose_read(policy, held_out.points, held_out.lengths)).mean()
    cost = np.array([float(s.flops.mean()) for s in fixed])
    rule = tune_rule(stroke_features(task.sketches.select(held_out.sketches)), held_out.answers.ranks, cost, float(spent))
    chosen = rule.choices(stroke_features(queries))
    systems.append(
        chosen_system("rule", "rule", fixed[0].parameters, ranks, chosen, cost[chosen], sizes, rule=rule.described())
    )
    leaving = tune_exit(held_out.answers.clearness, held_out.answers.ranks, cost, float(spent))
    if settings.picked_on == "folds":  # tuned on answers of the folds' students, which are less clear than the student's
        unlabelled = task.answers(student, VALIDATION, student.canvases, recipe.student.gallery_sizes)
        leaving = leaving.carried(held_out.answers.clearness, unlabelled.clearness)
    stands, paid = leaving.choices(answers.clearness), leaving.cost(answers.clearness, cost)
    told = leaving.described(sizes)
    systems.append(chosen_system("exit", "exit", fixed[0].parameters, ranks, stands, paid, sizes, exit=told))
    weights = settings.cost_weights
    policies = [read_selector(folder.candidate(number)) for number in range(len(weights))]
    systems += [answered(f"v2[{w:g}]", trained) for w, trained in zip(weights, policies, strict=True)]
    candidates = checkpoint.read_checkpoint_json(folder.final("selector"), "metrics")["candidates"]
    for share in settings.shares:
        # What would have been picked, on the same drawings, had this been the budget.
        within = settings.model_copy(update={"budget": share})
        picked = candidates[pick(candidates, held_out.full, within)]
        trained = policies[weights.index(picked["cost_weight"])]
        systems.append(answered(f"v2[<={share:g}]", shifted(trained, held_out.cost, picked["shift"])))
    return systems


def _all_figures(
    recipe: Recipe, systems: list[System], scopes: dict[str, np.ndarray], saved: np.ndarray | None
) -> dict[str, Any]:
    resamples, seed = recipe.evaluation.bootstrap, recipe.seed
    return {
        system.name: {scope: system.figures(rows, resamples=resamples, seed=seed) for scope, rows in scopes.items()}
        | {"details": system.details | _grey_figures(system, saved)}
        for system in systems
    }


def _grey_figures(system: System, saved: np.ndarray | None) -> dict[str, float]:
    """GFLOPs of a query where the student's first layer takes one channel; left out where two canvases are drawn."""
    if saved is None or system.source == "full" or system.network == "exit":
        return {}
    drawn = system.probabilities @ saved if system.choices is None else saved[system.choices]
    return {"gflops_grey": float((system.flops - drawn).mean() / 1e9)}


def _differences(recipe: Recipe, systems: list[System], canvases: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Differences of Acc@1 that the claims are about, on the same queries."""
    by_name = {system.name: system for system in systems}
    return {
        f"{a} - {b}": paired_bootstrap(
            by_name[a].hits(1), by_name[b].hits(1), seed=recipe.seed, resamples=recipe.evaluation.bootstrap
        )._asdict()
        for a, b in claimed_differences(canvases)
        if a in by_name and b in by_name
    }


def claimed_differences(canvases: tuple[int, ...]) -> list[tuple[str, str]]:
    """Pairs of systems that the claims compare: V1 with the direct student and the full network, V2 with its rivals."""
    best = f"v1@{canvases[-1]}"
    rivals = ("mixture", "shuffled", "rule", "exit", *(f"v1@{size}" for size in reversed(canvases[:-1])))
    return [(best, f"direct@{canvases[-1]}"), (best, "full"), ("v2", best), *(("v2", rival) for rival in rivals)]


def _queries(
    task: Task,
    sketches: np.ndarray,
    choices: np.ndarray | None,
    ranks: dict[str, np.ndarray],
    features: dict[str, np.ndarray],
) -> list[dict[str, Any]]:
    """A record of every query: the truth, its features, V2's choice, every network's rank at each of its canvases."""
    ids = task.sketches.ids
    assert ids is not None  # the data of a task has them
    names = {"full": "full_rank", "direct": "direct_ranks", "v1": "ranks"}
    listed = {names[key]: values.tolist() for key, values in ranks.items()}
    if "full" in ranks:
        listed["full_rank"] = ranks["full"][:, 0].tolist()
    if choices is not None:
        listed["choice"] = choices.tolist()
    listed |= {name: [round(float(v), 3) for v in values] for name, values in features.items()}
    return [
        {"sketch": ids[sketch], **task.answer(int(sketch))} | {name: values[row] for name, values in listed.items()}
        for row, sketch in enumerate(sketches)
    ]


def save_evaluation(folder: RunFolder, evaluation: Evaluation) -> None:
    """Writes the summary to the run's folder."""
    checkpoint.write_json(folder.evaluation, evaluation.summary)
