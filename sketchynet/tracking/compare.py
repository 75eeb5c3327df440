"""Compare the pipelines of an experiment: a table and their accuracy–FLOPs plot.

Figures are read from the parent runs: `test/NETWORK/acc1` (a share, 0 to 1), `test/NETWORK/gflops` and
`test/NETWORK/mean_canvas` (pixels), with `acc1_low` and `acc1_high` where an interval was measured. NETWORK ends in
full, direct, v1 or v2; a prefix ("shoes/v2") keeps categories apart.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from sketchynet.errors import InputError
from sketchynet.plots import accuracy_flops_plot
from sketchynet.tables import aligned
from sketchynet.tracking.mlflow_store import open_client, parent_runs

if TYPE_CHECKING:
    from mlflow.entities import Run

NETWORKS = ("full", "direct", "v1", "v2")
COLUMNS = ("run", "recipe", "seed", "date", "status", "network", "Acc@1 %", "GFLOPs", "canvas")
SEED_COLUMNS = ("recipe", "network", "runs", "Acc@1 %", "GFLOPs")
RIGHT = {"Acc@1 %", "GFLOPs", "canvas", "seed", "runs"}


@dataclass(frozen=True)
class RunSummary:
    """One pipeline: `metrics` holds the latest value of every number on the parent run."""

    run_id: str
    name: str
    recipe: str
    seed: str
    date: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]

    def networks(self) -> list[str]:
        """Names with a test accuracy, in the order full, direct, v1, v2 within each prefix."""
        found = [match[1] for name in self.metrics if (match := re.fullmatch(r"test/(.+)/acc1", name))]
        known = [name for name in found if name.split("/")[-1] in NETWORKS]
        return sorted(known, key=lambda name: (name.split("/")[:-1], NETWORKS.index(name.split("/")[-1])))

    def figure(self, network: str, what: str) -> float | None:
        return self.metrics.get(f"test/{network}/{what}")


def compare(experiment: str, uri: str | None, output: Path) -> str:
    """Table of the parent runs of an experiment as aligned text; draws their accuracy–FLOPs plot.

    output: a .png path, or a folder that gets `accuracy_flops.png`. Raises InputError for an experiment that is
    unknown or has no run.
    """
    runs = [summarise(run) for run in parent_runs(experiment, uri)]
    if not runs:
        raise InputError(f"the experiment {experiment!r} has no run; train one with `sketchynet train RECIPE`")
    lines = [aligned(COLUMNS, table_rows(runs), right=RIGHT)]
    seeds = seed_rows(runs)
    if seeds:
        lines += ["", "mean ± standard deviation over the finished runs of a recipe", aligned(SEED_COLUMNS, seeds, right=RIGHT)]
    points = plot_points(runs)
    if points:
        picture = output if output.suffix == ".png" else output / "accuracy_flops.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        accuracy_flops_plot(points, picture, title=f"{experiment}: accuracy and cost")
        lines += ["", f"plot: {picture}"]
    return "\n".join(lines)


def summarise(run: Run) -> RunSummary:
    """The parent run as plain data; recipe and seed are looked for in its tags, then in its parameters."""
    tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    params = dict(run.data.params)
    started = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    return RunSummary(
        run_id=run.info.run_id, name=run.info.run_name or run.info.run_id[:8],
        recipe=_first(tags, params, "recipe", "recipe.name", "name"), seed=_first(tags, params, "seed", "recipe.seed"),
        date=started.strftime("%Y-%m-%d %H:%M"), status=run.info.status, tags=tags, params=params,
        metrics=dict(run.data.metrics),
    )


def table_rows(runs: Sequence[RunSummary]) -> list[tuple[str, ...]]:
    """One row a network; the run is named on its first row only."""
    rows: list[tuple[str, ...]] = []
    for run in runs:
        head = (run.name, run.recipe, run.seed, run.date, run.status)
        for network in run.networks() or ["–"]:
            rows.append((*head, network, _percent(run.figure(network, "acc1")), _number(run.figure(network, "gflops")),
                         _number(run.figure(network, "mean_canvas"))))
            head = ("",) * 5
    return rows


def seed_rows(runs: Sequence[RunSummary]) -> list[tuple[str, ...]]:
    """Mean and spread for every recipe with at least two finished runs."""
    rows: list[tuple[str, ...]] = []
    for (recipe, network), group in _by_network([run for run in runs if run.status == "FINISHED"]).items():
        if len(group) < 2:
            continue
        accuracies = [100 * value for run in group if (value := run.figure(network, "acc1")) is not None]
        costs = [value for run in group if (value := run.figure(network, "gflops")) is not None]
        rows.append((recipe, network, str(len(group)), f"{mean(accuracies):.2f} ± {stdev(accuracies):.2f}",
                     _number(mean(costs)) if costs else "–"))
    return rows


def plot_points(runs: Sequence[RunSummary]) -> list[dict[str, Any]]:
    """One point a recipe and network: the mean over its runs, with the measured interval or the runs' range."""
    groups = {key: [run for run in group if run.figure(key[1], "gflops") is not None]
              for key, group in _by_network(runs).items()}
    recipes = {recipe for (recipe, _), group in groups.items() if group}
    points = []
    for (recipe, network), group in groups.items():
        if not group:
            continue
        accuracies = [run.metrics[f"test/{network}/acc1"] for run in group]
        low, high = min(accuracies), max(accuracies)
        if len(group) == 1:
            low = group[0].metrics.get(f"test/{network}/acc1_low", low)
            high = group[0].metrics.get(f"test/{network}/acc1_high", high)
        points.append({
            "label": network if len(recipes) == 1 else f"{recipe} {network}", "accuracy": mean(accuracies),
            "gflops": mean(run.metrics[f"test/{network}/gflops"] for run in group), "low": low, "high": high,
            "group": network.split("/")[-1], "connect": False,
        })
    return points


def parent_artifacts(experiment: str, uri: str | None, name: str) -> Iterator[tuple[str, Path | None]]:
    """Name of every finished pipeline of an experiment, and its artifact `name` in a folder that lives until the next
    one is asked for; None where it has no such artifact."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar a small file tells nothing
    client = open_client(uri)
    for run in parent_runs(experiment, uri):
        if run.info.status != "FINISHED":
            continue
        shown = run.info.run_name or run.info.run_id
        if name not in {item.path for item in client.list_artifacts(run.info.run_id)}:
            yield shown, None
            continue
        with tempfile.TemporaryDirectory() as folder:
            yield shown, Path(client.download_artifacts(run.info.run_id, name, folder))


def _by_network(runs: Sequence[RunSummary]) -> dict[tuple[str, str], list[RunSummary]]:
    groups: dict[tuple[str, str], list[RunSummary]] = defaultdict(list)
    for run in runs:
        for network in run.networks():
            groups[run.recipe, network].append(run)
    return groups


def _first(tags: dict[str, str], params: dict[str, str], *names: str) -> str:
    return next((source[name] for name in names for source in (tags, params) if name in source), "–")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
