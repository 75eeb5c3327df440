"""Seeds of one recipe pooled: every system's mean and spread, and the differences that the claims are about.

A difference is between two systems on the same queries: each query's difference is averaged over the seeds, and the
queries are resampled (paired bootstrap), so that a query counts once however many seeds there are. The interval
therefore tells what other sketches would give; the spread between seeds stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from sketchynet.errors import InputError
from sketchynet.report import display_name
from sketchynet.results.summary import DEALT, Summary
from sketchynet.retrieval import Interval, bootstrap_interval
from sketchynet.stages.evaluate import claimed_differences
from sketchynet.stages.systems import best_mixture

RESAMPLES = 10_000
_ORDER = ("full", "direct", "v1", "v2", "shuffled", "mixture", "rule", "exit", "oracle")


@dataclass(frozen=True)
class Pool:
    """Finished runs that differ in their seeds alone, ascending by seed."""

    runs: tuple[Summary, ...]

    @property
    def canvases(self) -> tuple[int, ...]:
        return self.runs[0].canvases

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)

    @property
    def systems(self) -> list[str]:
        """Systems that every run has, V2 at other prices left out, in the order of the pipeline."""
        shared = set.intersection(*(set(run.values["systems"]) for run in self.runs))
        return sorted((name for name in shared if "[" not in name), key=_place)

    def bracketed(self, prefix: str) -> list[str]:
        """Systems of every run whose names are ``prefix``, a number and a bracket, ascending by the number."""
        shared = set.intersection(*(set(run.values["systems"]) for run in self.runs))
        names = [name for name in shared if name.startswith(prefix) and name[len(prefix)].isdigit()]
        return sorted(names, key=lambda name: float(name[len(prefix) : -1]))

    @property
    def comparable(self) -> set[str]:
        """`systems`, and V2's choices dealt out within each category where there are several."""
        dealt = "v2" in self.systems and len(self.runs[0].values["categories"]["names"]) > 1
        return {*self.systems, DEALT} if dealt else {*self.systems}

    @property
    def largest(self) -> str:
        """V1 at its largest canvas."""
        return f"v1@{self.canvases[-1]}"

    def figure(self, system: str, key: str, scope: str = "all") -> np.ndarray:
        """float64 (runs,): a figure of a system in every run."""
        return np.array([run.figures(system, scope)[key] for run in self.runs], dtype=np.float64)

    def mean_hits(self, system: str) -> np.ndarray:
        """float64 (n,): share of the seeds in which a system puts the truth of a query first."""
        return np.mean([run.hits(system) for run in self.runs], axis=0)

    def mixture_hits(self, system: str) -> np.ndarray:
        """float64 (n,): as `mean_hits`, of the best mixture of two fixed canvases at the cost of a system, seed by seed."""
        found = []
        for run in self.runs:
            fixed = [f"v1@{size}" for size in self.canvases]
            cost = np.array([run.figures(name)["gflops"] for name in fixed])
            hits = np.stack([run.hits(name) for name in fixed], axis=1)
            found.append(hits @ best_mixture(cost, hits.mean(axis=0), run.figures(system)["gflops"]))
        return np.mean(found, axis=0)

    def accuracy(self, system: str, scope: str = "all") -> Interval:
        """Acc@1 over seeds and queries, with the 95 % interval over queries."""
        return bootstrap_interval(self.mean_hits(system)[self.runs[0].scope(scope)], resamples=RESAMPLES)

    def difference(self, first: str, second: str, scope: str = "all") -> Interval:
        """Mean difference of two systems in Acc@1 over seeds and queries, with its 95 % interval."""
        return self.mean_difference([(first, second)], scope)

    def mean_difference(self, pairs: Sequence[tuple[str, str]], scope: str = "all") -> Interval:
        """As `difference`, in the mean over pairs of systems, as one network and another at every canvas."""
        gap = np.mean([self.mean_hits(first) - self.mean_hits(second) for first, second in pairs], axis=0)
        return unrounded(bootstrap_interval(gap[self.runs[0].scope(scope)], resamples=RESAMPLES))


def unrounded(gap: Interval) -> Interval:
    """A difference whose zeros are zero: means that are equal may come out some 1e-17 apart, one query counts 1e-6 at least."""
    return Interval(*(0.0 if abs(bound) < 1e-9 else bound for bound in gap))


def pool(runs: Sequence[Summary]) -> Pool:
    """Puts the seeds of one recipe together.

    Raises:
        InputError: there is none, a seed occurs twice, or the runs differ in more than their seeds; names the files.
    """
    if not runs:
        raise InputError("no finished run to pool; `sketchynet train` makes one, `sketchynet results` says which there are")
    ordered = sorted(runs, key=lambda run: run.seed)
    for before, run in pairwise(ordered):
        if before.seed == run.seed:
            raise InputError(f"{before.place} and {run.place} are both seed {run.seed} of {run.recipe.name}; keep one")
    first = ordered[0]
    for run in ordered[1:]:
        if not same_but_seed(first, run):
            raise InputError(
                f"{first.place} and {run.place} are not seeds of one recipe: they differ in {_differing(first, run)}; "
                "remove the outdated one, or give one of them another name with --set name=NAME"
            )
    return Pool(tuple(ordered))


def same_but_seed(first: Summary, second: Summary) -> bool:
    """Whether two runs used the same recipe on the same queries, whatever their seeds, names and descriptions."""
    return not _differing(first, second)


def same_queries(first: Summary, second: Summary) -> bool:
    """Whether two runs were tested on the same queries in the same order, among as many photos.

    What was not for the test may be divided between training and validation in another way.
    """
    keys = ("queries_hash", "gallery_count")
    return all(first.values["data"][key] == second.values["data"][key] for key in keys)


def paired_difference(first: Pool, a: str, second: Pool, b: str, scope: str = "all") -> Interval | None:
    """System ``a`` of one configuration minus ``b`` of another, over their common seeds; None where there is none."""
    seeds = sorted({*first.seeds} & {*second.seeds})
    if not seeds:
        return None
    ours, theirs = ({run.seed: run for run in pooled.runs} for pooled in (first, second))
    for seed in seeds:
        if not same_queries(ours[seed], theirs[seed]):
            raise InputError(f"{ours[seed].place} and {theirs[seed].place} were tested on other queries: they cannot be paired")
    gaps = [ours[seed].hits(a) - theirs[seed].hits(b) for seed in seeds]
    rows = first.runs[0].scope(scope)
    return bootstrap_interval(np.mean(gaps, axis=0)[rows], resamples=RESAMPLES)


def _differing(first: Summary, second: Summary) -> str:
    fields = ["canvases"] if first.canvases != second.canvases else []
    fields += [f"data.{k}" for k in ("split_hash", "queries_hash") if first.values["data"][k] != second.values["data"][k]]
    ignored = {"seed", "name", "description", "evaluation"}
    a, b = (run.recipe.model_dump(mode="json", exclude=ignored) for run in (first, second))
    return ", ".join([*_different_keys(a, b), *fields])


def _different_keys(a: Any, b: Any, prefix: str = "") -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        keys = sorted({*a, *b})
        return [found for key in keys for found in _different_keys(a.get(key), b.get(key), f"{prefix}.{key}".lstrip("."))]
    return [] if a == b else [prefix]


def _place(name: str) -> tuple[int, int]:
    """Where a system stands in a table: networks as the pipeline makes them, canvases ascending."""
    network, _, canvas = name.partition("@")
    return _ORDER.index(network), int(canvas or 0)


def percent(value: float, signed: bool = False) -> str:
    """A share as percent, with a typographic minus; what rounds to zero has none."""
    rounded = round(100 * value, 2) + 0.0  # makes -0.0 zero
    return f"{rounded:{'+' if signed else ''}.2f}".replace("-", "−")


def interval_text(value: Interval, signed: bool = True) -> str:
    """An interval in points: ``+2.31 [+0.81, +3.77]``."""
    return f"{percent(value.value, signed)} [{percent(value.low, signed)}, {percent(value.high, signed)}]"


def spread_text(values: np.ndarray) -> str:
    """Mean ± standard deviation of shares, in percent; one value alone has no spread."""
    spread = f" ± {100 * values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return percent(float(values.mean())) + spread


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    head = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def pooled_table(pooled: Pool) -> str:
    """Everything about the seeds of a recipe, as Markdown: systems, differences, canvases, runs."""
    parts = [_heading(pooled), _systems(pooled), *_grey(pooled), _differences(pooled), *_canvases(pooled)]
    return "\n\n".join([*parts, run_list(pooled.runs)])


def _heading(pooled: Pool) -> str:
    data = pooled.runs[0].values["data"]
    text = f"{data['queries']:,} test queries, {data['gallery_count']} to choose from, split `{data['split_hash']}`, {seeds_text(pooled)}."
    if data["leaks"]:
        pairs = ", ".join(" = ".join(pair) for pair in data["leaks"])
        text += f" The official split repeats pictures across its parts: {pairs}."
    return text


def seeds_text(pooled: Pool) -> str:
    """How many seeds there are."""
    return f"{len(pooled.runs)} seed{'s' if len(pooled.runs) > 1 else ''}"


def _systems(pooled: Pool) -> str:
    categories = pooled.runs[0].values["categories"]["names"]
    columns = ["network", "parameters", "GFLOPs", *(f"seed {seed}" for seed in pooled.seeds)]
    columns += ["Acc@1, mean ± sd", "95 %", "Acc@5", "Acc@10", *(f"{name} Acc@1" for name in categories)]
    rows = []
    for name in pooled.systems:
        accuracy = pooled.figure(name, "acc1")
        interval = pooled.accuracy(name)
        row = [display_name(name).strip(), f"{pooled.runs[0].figures(name)['parameters'] / 1e6:.2f} M"]
        row.append(f"{pooled.figure(name, 'gflops').mean():.4f}")
        row += [percent(value) for value in accuracy]
        row += [spread_text(accuracy), f"{percent(interval.low)}–{percent(interval.high)}"]
        row += [percent(pooled.figure(name, key).mean()) for key in ("acc5", "acc10")]
        rows.append(row + [spread_text(pooled.figure(name, "acc1", category)) for category in categories])
    return markdown(columns, rows)


def _grey(pooled: Pool) -> list[str]:
    """GFLOPs with a first layer of one channel, where every run was evaluated so."""
    named = []
    for system in (pooled.largest, "v2"):
        details = [run.values["systems"].get(system, {}).get("details", {}) for run in pooled.runs]
        if all("gflops_grey" in d for d in details):
            named.append(f"{display_name(system)} {np.mean([d['gflops_grey'] for d in details]):.4f}")
    return [f"GFLOPs with the first layer folded to one channel: {', '.join(named)}."] if named else []


def _differences(pooled: Pool) -> str:
    known = pooled.comparable
    scopes = ["all", *pooled.runs[0].values["categories"]["names"]]
    columns = ["difference of Acc@1, points", *(f"seed {seed}" for seed in pooled.seeds), "pooled, with 95 % interval"]
    columns += [f"{scope}, pooled" for scope in scopes[1:]]
    rows = []
    smaller = [(f"v1@{size}", f"direct@{size}") for size in reversed(pooled.canvases[:-1])]
    for first, second in [*claimed_differences(pooled.canvases), ("v2", DEALT), *smaller]:
        if not {first, second} <= known:
            continue
        each = [float((run.hits(first) - run.hits(second)).mean()) for run in pooled.runs]
        row = [f"{display_name(first).strip()} − {display_name(second).strip()}"]
        row += [percent(value, signed=True) for value in each]
        rows.append(row + [interval_text(pooled.difference(first, second, scope)) for scope in scopes])
    return markdown(columns, rows)


def _canvases(pooled: Pool) -> list[str]:
    if any(run.values["canvas_counts"] is None for run in pooled.runs):
        return []
    best = pooled.largest
    saved = pooled.figure(best, "gflops") / pooled.figure("v2", "gflops")
    sizes = " / ".join(map(str, pooled.canvases))
    rows = [
        [f"FLOPs of {display_name(best)} over those of V2", *(f"{value:.2f}×" for value in saved)],
        [f"queries at {sizes}", *(" / ".join(map(str, run.values["canvas_counts"])) for run in pooled.runs)],
    ]
    if all("rule" in run.values["systems"] for run in pooled.runs):
        rows.append(["the rule", *(_rule_text(run) for run in pooled.runs)])
    if all("exit" in run.values["systems"] for run in pooled.runs):
        rows.append(["the early exit", *(_exit_text(run) for run in pooled.runs)])
    return [markdown(["", *(f"seed {seed}" for seed in pooled.seeds)], rows)]


def _rule_text(run: Summary) -> str:
    rule = run.values["systems"]["rule"]["details"]["rule"]
    order = run.canvases[::-1] if rule["falling"] else run.canvases
    bounds = " / ".join(f"{value:.4g}" if isinstance(value, float | int) else value for value in rule["thresholds"])
    return f"{rule['feature']} at {bounds}: {', '.join(map(str, order))}"


def _exit_text(run: Summary) -> str:
    details = run.values["systems"]["exit"]["details"]
    told, shares = details["exit"], details["shares"]
    if told["first"] == told["then"]:
        return f"{told['first']} alone"
    return f"{told['first']}, of which {100 * shares[str(told['then'])]:.0f} % go on to {told['then']}"


def run_list(runs: Sequence[Summary]) -> str:
    """A line that names every run: seed, id, commit, machine and time."""
    parts = []
    for run in runs:
        values = run.values["run"]
        hardware = values["hardware"]
        machine = hardware["gpu"] if hardware.get("gpu", "none") != "none" else f"{hardware['cpu_count']} CPU cores"
        minutes = sum(values["seconds"].values()) / 60
        spent = f", {minutes:.0f} min" if minutes else ""
        commits = " + ".join(commit[:7] + ("*" if commit.endswith("-dirty") else "") for commit in values["commits"])
        parts.append(f"seed {run.seed} `{run.run_id[:8]}` ({commits}, {machine}{spent})")
    return f"Runs: {'; '.join(parts)}."


def plot_points(pooled: Pool) -> list[dict[str, Any]]:
    """Points for the accuracy–FLOPs plot: means over the seeds, with the pooled intervals."""
    points = []
    for name in pooled.systems:
        network, _, size = name.partition("@")
        interval = pooled.accuracy(name)
        cost = float(pooled.figure(name, "gflops").mean())
        points.append({"label": size or name, "group": network, "gflops": cost, "accuracy": interval.value,
                       "low": interval.low, "high": interval.high})
    for name in pooled.bracketed("v2[<="):
        cost, accuracy = (float(pooled.figure(name, key).mean()) for key in ("gflops", "acc1"))
        points.append({"label": "", "group": "v2 budgets", "gflops": cost, "accuracy": accuracy})
    return points


def by_recipe(summaries: Sequence[Summary]) -> dict[str, list[Summary]]:
    """Summaries by the name of their recipe, in order of name."""
    groups: dict[str, list[Summary]] = {}
    for summary in sorted(summaries, key=lambda s: (s.recipe.name, s.seed)):
        groups.setdefault(summary.recipe.name, []).append(summary)
    return groups


def image_path(images: Path, name: str) -> Path:
    """Where the plot of a recipe or experiment is kept."""
    return images / f"{''.join(c if c.isalnum() or c in '._-' else '-' for c in name)}.png"
