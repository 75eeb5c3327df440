"""A whole pipeline: teacher → SketchyNetV1 → SketchyNetV2 → evaluation, here or on Ray, tracked.

This is where the parts meet: stages do the work, ``distributed`` spreads it, ``tracking`` keeps the records.
The driver (this process) alone owns the records and the progress bars; workers report to it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from tqdm import tqdm

from sketchynet import checkpoint
from sketchynet.config import Recipe
from sketchynet.distributed.side_by_side import train_side_by_side
from sketchynet.errors import InputError
from sketchynet.pictures import draw_pictures
from sketchynet.plots import has_curves, training_curves
from sketchynet.report import evaluation_table
from sketchynet.results.summary import SUMMARY_NAME, summarise_run
from sketchynet.stages.embedding import watched
from sketchynet.stages.evaluate import evaluate, save_evaluation
from sketchynet.stages.meters import MeteredRollout, MeteredRuntime
from sketchynet.stages.networks import read_embedder
from sketchynet.stages.rewards import in_chunks
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import FrozenStudents, LocalRuntime, Report, Rollout, Runtime
from sketchynet.stages.search_head import check_levels, searched
from sketchynet.stages.selector import train_selector
from sketchynet.stages.task import Task, task_of
from sketchynet.stages.train import Places, is_trained, planned_networks, train_networks
from sketchynet.storage import download, is_local, run_lock
from sketchynet.tracking import Tracker, make_tracker, read_journal

STAGES = ("teacher", "student", "selector", "evaluate")
"""Names for ``--stage``, in their order; ``student`` includes the directly trained one and the folds."""

_ROLLOUT_ROWS = 64
"""Choices answered at a time, here or by an actor: the same batches give the same bits."""


@dataclass(frozen=True)
class Execution:
    """How a pipeline runs; nothing here changes what is computed."""

    workers: int = 0
    """0: in this process; else so many Ray Train workers."""
    actors: int = 2
    """Rollout actors (with ``workers`` ≥ 1)."""
    jobs: int = 1
    """Networks trained at a time, where more than one each in a process of its own (with ``workers`` 0)."""
    threads: int = 1
    """CPU threads of each of several ``jobs``."""
    actor_gpus: float = 0.0
    """Share of a GPU that each of them has; 0: a CPU."""
    gpu: bool = False
    track: str = "mlflow"
    tracking_uri: str | None = None
    experiment: str = "sketchynet"
    stages: tuple[str, ...] = STAGES
    max_failures: int = 2
    """Times that Ray starts the workers again after one of them died."""
    wait: float = 0.0
    """Seconds that a cluster is given to grow to what is asked."""
    profile: bool = False
    """Trace some steps of every stage, and what Ray ran where."""


class Recorder:
    """Turns reports into records and progress bars; a context manager that ends what is open."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._bars: dict[str, tqdm] = {}
        """Of the stages that are under way."""

    def __call__(self, report: Report) -> None:
        bar = self._bars.get(report.stage)
        if report.kind == "start":
            self._begin(report)
        elif report.kind == "progress" and bar is not None:
            bar.n = round(report.step + report.metrics["share"], 2)
            bar.refresh()
        elif report.kind == "metrics":
            self._tracker.metrics(report.stage, report.metrics, report.step)
            if bar is not None:
                bar.n = report.step
                bar.set_postfix_str(_headline(report.metrics))
        elif report.kind == "notice":
            tqdm.write(report.payload["text"], file=sys.stderr)
        elif report.kind == "artifact":
            self._tracker.artifact(Path(report.payload["path"]), report.stage)
        elif report.kind == "end":
            self._finish(report.stage, report.payload["status"])

    def _begin(self, report: Report) -> None:
        if report.stage in self._bars:  # workers that were started again begin their stage anew
            self._bars.pop(report.stage).close()
        self._tracker.stage_start(report.stage, report.payload.get("parameters", {}))
        self._bars[report.stage] = tqdm(
            total=report.payload["epochs"],
            initial=report.step,
            desc=f"{report.stage:<10}",
            unit="epoch",
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}%|{bar:24}| {n:.4g}/{total} epochs [{elapsed}<{remaining}] {postfix}",
        )

    def _finish(self, stage: str, status: str) -> None:
        if stage in self._bars:
            self._bars.pop(stage).close()
            self._tracker.stage_end(stage, status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED"
        for stage in list(self._bars):
            self._finish(stage, status)
        self._tracker.end(status)


def _headline(metrics: dict[str, float]) -> str:
    shown = {"loss": "loss", "validation/score": "validation"}
    parts = [f"{label} {metrics[key]:.3f}" for key, label in shown.items() if key in metrics]
    rewards = [value for key, value in metrics.items() if key.endswith("/reward")]
    return "  ".join(parts + [f"reward {value:.3f}" for value in rewards])


def run_pipeline(recipe: Recipe, places: Places, execution: Execution) -> dict[str, Any] | None:
    """Runs the stages that are not done yet; returns the evaluation's summary if it is among the stages.

    Raises:
        InputError: bad input, named; the run's folder keeps what was finished, ``--resume`` goes on.
    """
    folder = places.run
    tracker = make_tracker(
        execution.track, folder.root, experiment=execution.experiment, uri=execution.tracking_uri
    )
    # Before anything is written or spent: may the run be recorded, can it be searched, and is there a cluster for it?
    tracker.check()
    check_levels(recipe)
    if execution.workers:
        from sketchynet.distributed.cluster import prepare_cluster

        processes = execution.workers if execution.gpu else max(execution.workers, execution.actors)
        prepare_cluster(
            processes,
            gpu=execution.gpu,
            actors=execution.actors,
            actor_gpus=execution.actor_gpus,
            wait=execution.wait,
        )
    folder.root.mkdir(parents=True, exist_ok=True)
    with run_lock(folder.kept):
        if folder.storage is not None:
            checkpoint.write_json(folder.pointer, {"storage": str(folder.storage)})
        checkpoint.write_json(folder.recipe, recipe.model_dump(mode="json"))
        return _run_stages(recipe, places, execution, tracker)


def _run_stages(recipe: Recipe, places: Places, execution: Execution, tracker: Tracker) -> dict[str, Any] | None:
    folder = places.run
    data = places.load(recipe, progress=True)
    task = task_of(recipe, data)
    tracker.start(
        folder.root.name,
        recipe.model_dump(mode="json") | {"workers": execution.workers},
        {"recipe": recipe.name, "seed": str(recipe.seed), "data": data.name, "data_hash": data.split_hash},
    )
    summary = None
    with Recorder(tracker) as recorder:
        tracker.artifact(_recipe_here(folder, recipe))
        if {"teacher", "student"} & set(execution.stages):
            _train_networks(recipe, places, execution, recorder)
        if "selector" in execution.stages:
            _train_selector(task, places, execution, recorder)
        if "evaluate" in execution.stages:
            summary = _evaluate(task, places, execution, tracker)
        _keep_networks(recipe, places, tracker)
    return summary


def _train_networks(recipe: Recipe, places: Places, execution: Execution, recorder: Recorder) -> None:
    traces = _traces(places, execution)
    plan = planned_networks(recipe, execution.stages)
    train = partial(_train_metered, recipe=recipe, places=places, traces=traces)
    if execution.jobs > 1:
        finished = {name for name in plan if is_trained(recipe, places.run, name)}
        train_side_by_side(
            {name: needed - finished for name, needed in plan.items() if name not in finished},
            train,
            jobs=execution.jobs,
            threads=execution.threads,
            listener=recorder,
            consoles=places.run.root / "consoles",
            device=_device(execution),
        )
        return
    if execution.workers == 0:
        train(plan.keys(), LocalRuntime(device=_device(execution), listener=recorder))
        return
    from sketchynet.distributed.training import run_training  # Ray is needed only where workers are asked for

    tqdm.write(f"starting {execution.workers} workers on Ray")
    run_training(
        partial(train, tuple(plan)),
        workers=execution.workers,
        storage=places.run.kept,
        name="networks",
        listener=recorder,
        gpu=execution.gpu,
        max_failures=execution.max_failures,
    )
    if traces is not None:
        from sketchynet.distributed.cluster import write_timeline

        write_timeline(traces / "ray-timeline.json")
        recorder(Report("", "artifact", payload={"path": str(traces / "ray-timeline.json")}))


def _train_metered(
    names: Collection[str], runtime: Runtime, *, recipe: Recipe, places: Places, traces: Path | None
) -> None:
    train_networks(names, MeteredRuntime(runtime, traces), recipe=recipe, places=places)


def _traces(places: Places, execution: Execution) -> Path | None:
    return places.run.root.resolve() / "profile" if execution.profile else None


def _device(execution: Execution) -> str:
    if execution.gpu and not torch.cuda.is_available():
        raise InputError("--gpu was given, but torch finds no CUDA device; leave it out or install a CUDA torch")
    return "cuda" if execution.gpu else "cpu"


def _train_selector(task: Task, places: Places, execution: Execution, recorder: Recorder) -> None:
    run = places.run
    if checkpoint.is_complete(run.final("selector")) or not task.recipe.selector.train:
        return
    folds = task.folds()
    student = read_embedder(searched(task.recipe, run, "student"))
    sketches = np.sort(np.concatenate(folds.rewarded))
    with _rollouts(task.rollouts(run, folds), execution) as answers:
        rollout = MeteredRollout(answers)
        runtime = MeteredRuntime(LocalRuntime(listener=rollout.listener(recorder)), _traces(places, execution))
        train_selector(task, runtime, rollout, run, student=student, sketches=sketches)


@contextmanager
def _rollouts(worker: FrozenStudents, execution: Execution) -> Iterator[Rollout]:
    """Answers rollouts in this process, or by Ray actors that each hold a copy of the worker."""
    if execution.workers == 0:
        yield in_chunks(worker.to(torch.device(_device(execution))), _ROLLOUT_ROWS)
        return
    from sketchynet.distributed.rollouts import RolloutPool

    gpus = execution.actor_gpus
    with RolloutPool(partial(_itself, worker), execution.actors, _ROLLOUT_ROWS, gpus_per_actor=gpus) as pool:
        yield pool


def _itself(worker: FrozenStudents) -> FrozenStudents:
    return worker


def _evaluate(task: Task, places: Places, execution: Execution, tracker: Tracker) -> dict[str, Any]:
    run, recipe = places.run, task.recipe
    tracker.stage_start("evaluate", recipe.evaluation.model_dump(mode="json"))
    table = run.root / "table.txt"
    with tqdm(desc=f"{'evaluate':<10}", unit=" images", dynamic_ncols=True) as bar, watched(bar.update):
        evaluation = evaluate(task, run, device=_device(execution))
        save_evaluation(run, evaluation)
        tracker.metrics("evaluate", tracked_figures(evaluation.summary), 0)
        table.write_text(evaluation_table(evaluation.summary) + "\n")
        bar.set_postfix_str("drawing pictures")
        pictures = draw_pictures(task, evaluation, run, device=_device(execution))
        bar.set_postfix_str("")
    if execution.track != "none" and has_curves(rows := read_journal(run.root)):
        pictures.append(training_curves(rows, run.pictures / "training.png"))
    for path in (run.evaluation, table, *pictures):
        tracker.artifact(path, "evaluate")
    tracker.stage_end("evaluate", "FINISHED")
    summary = run.root / SUMMARY_NAME
    checkpoint.write_json(summary, summarise_run(task, evaluation, run))
    tracker.artifact(summary)
    for path in (run.evaluation, table, *pictures, summary):
        run.keep(path)
    return evaluation.summary


def _recipe_here(folder: RunFolder, recipe: Recipe) -> Path:
    """The recipe as a file of this machine."""
    path = RunFolder(folder.root).recipe
    if not path.exists():
        checkpoint.write_json(path, recipe.model_dump(mode="json"))
    return path


def tracked_figures(summary: dict[str, Any]) -> dict[str, float]:
    """``test/[CATEGORY/]NETWORK/FIGURE`` for the tracker: what ``sketchynet compare`` reads."""
    largest = max(summary["canvases"])
    shown = {"full": "full", f"direct@{largest}": "direct", f"v1@{largest}": "v1", "v2": "v2"}
    figures: dict[str, float] = {}
    for name, scopes in summary["systems"].items():
        short = shown.get(name, name.replace("@", "_").replace("[", "_").replace("]", ""))
        for scope, values in scopes.items():
            if scope == "details":
                continue
            prefix = "" if scope == "all" else f"{scope}/"
            figures |= {f"test/{prefix}{short}/{key}": float(value) for key, value in values.items()}
    return figures


def _keep_networks(recipe: Recipe, places: Places, tracker: Tracker) -> None:
    """Hands the finished networks of SketchyNetV2 to the tracker."""
    finals = {"student": searched(recipe, places.run, "student"), "selector": places.run.final("selector")}
    for name, final in finals.items():
        if not checkpoint.is_complete(final):
            continue
        if is_local(final):
            tracker.artifact(final, name)
            continue
        # Kept until it is sent, which may be long after the run.
        here = places.run.root / "tracked" / name
        if not checkpoint.is_complete(here):
            shutil.rmtree(here, ignore_errors=True)
            download(final, here)
        tracker.artifact(here, name)
