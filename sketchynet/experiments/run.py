"""Runs the configurations of an experiment, seed after seed or side by side; what is finished is skipped, what is equal
is shared.

Configurations of a set mostly differ in one stage. A stage that another run has finished on the same recipe sections
and seed is taken over (hard links where the disk allows), so that a sweep trains one full network a seed. A whole
run with the same recipe is not trained again but counted for both experiments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from tqdm import tqdm

from sketchynet import checkpoint
from sketchynet.config import Recipe
from sketchynet.distributed.processes import Ended, Post, Processes
from sketchynet.errors import InputError
from sketchynet.experiments.sharing import (
    Known,
    borrow_stages,
    finished_stages,
    identity,
    is_finished,
    known_runs,
    needed_stages,
)
from sketchynet.pipeline import STAGES, Execution, run_pipeline
from sketchynet.recipes.experiments import Experiment, Variant
from sketchynet.results.claims import experiment_section
from sketchynet.results.summary import SUMMARY_NAME, add_membership, read_summaries
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.train import Places
from sketchynet.tracking import import_journal, make_tracker

_CONSOLE = "console.txt"


@dataclass(frozen=True)
class _Job:
    """One configuration with one seed."""

    variant: Variant
    recipe: Recipe

    @property
    def name(self) -> str:
        return f"{self.variant.name}, seed {self.recipe.seed}"

    @cached_property
    def needed(self) -> dict[str, str]:
        """Keys of the stages that it trains or takes over."""
        return needed_stages(self.recipe, teacher=self.variant.teacher)


def run_experiment(
    experiment: Experiment,
    seeds: Sequence[int],
    root: Path,
    execution: Execution,
    *,
    jobs: int = 1,
    threads: int = 1,
    borrow: Sequence[Path] = (),
    data: Path | None = None,
    cache: Path | None = None,
    weights: Path | None = None,
) -> str:
    """Trains and evaluates every configuration with every seed; returns the experiment's table.

    Args:
        root: folder of the runs; the same one for several experiments lets them share stages.
        jobs: runs at a time, where more than one each in a process of its own. A run waits for a stage that another
            one is training for both.
        threads: CPU threads of each of several processes.
        borrow: further runs, or folders of runs, whose equal stages are taken over.

    Raises:
        InputError: some runs failed, named with their reasons; the others were finished before it is raised.
    """
    if jobs > 1 and execution.workers:
        raise InputError(
            f"--jobs {jobs} trains runs beside each other in processes of this machine, --workers {execution.workers} "
            "each of them on Ray: give one"
        )
    planned = [_Job(variant, experiment.recipe(variant, seed)) for seed in seeds for variant in experiment.variants]
    series = _Series(experiment, execution, root, (root, *borrow), data, cache, weights)
    if jobs == 1:
        series.one_by_one(planned)
    else:
        series.side_by_side(planned, jobs, threads)
    table = ""
    if series.finished:
        table = experiment_section(experiment.name, experiment.base.name, read_summaries(series.finished)).text
    if series.failures:
        raise InputError(
            f"{len(series.failures)} of {len(planned)} runs failed; the same command tries them again\n"
            + "\n".join(series.failures)
        )
    return table


@dataclass
class _Series:
    """The runs of an experiment, and how they ended."""

    experiment: Experiment
    execution: Execution
    root: Path
    places: tuple[Path, ...]
    """Where runs are looked for."""
    data: Path | None
    cache: Path | None
    weights: Path | None
    finished: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def one_by_one(self, planned: Sequence[_Job]) -> None:
        """In this process."""
        for number, job in enumerate(planned, start=1):
            tqdm.write(f"{self.experiment.name}, run {number} of {len(planned)}: {job.name}")
            try:
                places = self._begin(job)
                if places is not None:
                    run_pipeline(job.recipe, places, replace(self.execution, stages=_stages(job)))
                    self.finished.append(places.run.root)
            except InputError as error:
                self._failed(job, error)

    def side_by_side(self, planned: Sequence[_Job], jobs: int, threads: int) -> None:
        """So many at a time, in processes with so many threads each."""
        apart = self.execution
        if apart.track == "mlflow":
            make_tracker("mlflow", self.root, experiment=apart.experiment, uri=apart.tracking_uri).check()
            # Processes write journals alone: of several that write to one store at a time, some would find it locked.
            apart = replace(apart, track="jsonl")
        waiting, running = list(planned), dict[str, tuple[_Job, Places]]()
        prepared: set[str] = set()
        with Processes(threads=threads) as processes, tqdm(total=len(planned), unit="run", dynamic_ncols=True) as bar:
            while waiting or running:
                while len(processes) < jobs and (job := self._ready(waiting, running.values())) is not None:
                    waiting.remove(job)
                    try:
                        places = self._begin(job)
                        if places is not None and (source := job.recipe.data.model_dump_json()) not in prepared:
                            places.load(job.recipe, progress=True)  # once, not by every process at the same time
                            prepared.add(source)
                    except InputError as error:
                        self._failed(job, error)
                        places = None
                    if places is None:
                        bar.update()
                        continue
                    console = places.run.root / _CONSOLE
                    tqdm.write(f"  started: {job.name}; {console}")
                    work = partial(_run_apart, job.recipe, places, replace(apart, stages=_stages(job)))
                    processes.start(job.name, work, console)
                    running[job.name] = job, places
                for ended in processes.wait():
                    job, places = running.pop(ended.name)
                    self._ended(job, places, ended)
                    bar.update()
                bar.set_postfix_str(f"{len(running)} running, {len(waiting)} waiting")

    def _begin(self, job: _Job) -> Places | None:
        """Makes the run ready, with what others have finished of it; None where it was finished before."""
        known = self._known()
        run = _run_of(job.recipe, job.variant, self.root, known)
        add_membership(run, _member(self.experiment, job.variant))
        if not (run.root / SUMMARY_NAME).exists():
            # A full network that is there is compared with, even where none is trained.
            borrow_stages(needed_stages(job.recipe, teacher=True), run, known)
            return Places(run, self.data, self.cache, self.weights)
        tqdm.write(f"  finished before: {run.root}")
        self._record(run.root)
        self.finished.append(run.root)
        return None

    def _ready(self, waiting: Iterable[_Job], running: Iterable[tuple[_Job, Places]]) -> _Job | None:
        """The first that may start now: none of its stages is being trained by another run."""
        under_way = {
            key
            for other, places in running
            for name, key in other.needed.items()
            if not is_finished(places.run, name)
        }
        under_way -= finished_stages(self._known()).keys()
        return next((job for job in waiting if under_way.isdisjoint(job.needed.values())), None)

    def _ended(self, job: _Job, places: Places, ended: Ended) -> None:
        if ended.error is not None:
            self._failed(job, ended.error)
            return
        tqdm.write(f"  finished: {job.name}")
        self.finished.append(places.run.root)
        try:
            self._record(places.run.root)
        except InputError as error:  # the run is whole: the same command records it
            self._failed(job, error)

    def _record(self, run: Path) -> None:
        """Brings the journal of a finished run into MLflow, where that is where records go."""
        if self.execution.track == "mlflow":
            import_journal(run, self.execution.experiment, self.execution.tracking_uri)

    def _failed(self, job: _Job, error: object) -> None:
        self.failures.append(f"{job.name}: {error}")
        tqdm.write(f"  failed: {job.name}: {error}")

    def _known(self) -> Known:
        return list(known_runs(self.places))


def _run_apart(recipe: Recipe, places: Places, execution: Execution, post: Post) -> None:
    """A run in a process of its own, whose records are its own as well: nothing is posted."""
    run_pipeline(recipe, places, execution)


def _stages(job: _Job) -> tuple[str, ...]:
    return STAGES if job.variant.teacher else tuple(stage for stage in STAGES if stage != "teacher")


def _member(experiment: Experiment, variant: Variant) -> dict[str, object]:
    return {
        "experiment": experiment.name,
        "base": experiment.base.name,
        "variant": variant.name,
        "position": experiment.position(variant),
        "reference": experiment.reference,
        "compare": experiment.compare,
    }


def _run_of(recipe: Recipe, variant: Variant, root: Path, known: Known) -> RunFolder:
    """The folder of a configuration: that of a run with the same recipe, evaluated or of this root, or a new one."""
    wanted = identity(recipe)
    for run, other in known:
        if identity(other) == wanted and (run.root.parent == root or (run.root / SUMMARY_NAME).exists()):
            return run
    words = re.sub(r"[^0-9A-Za-z]+", "-", variant.name).strip("-").lower()
    base = root / f"{re.sub(r'[^0-9A-Za-z_.-]+', '-', recipe.name.partition('[')[0])}-{words}-s{recipe.seed}"
    taken = {run.root for run, _ in known}
    number = 1
    folder = base
    while folder in taken or (folder.exists() and any(folder.iterdir())):
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    folder.mkdir(parents=True, exist_ok=True)
    run = RunFolder(folder)
    checkpoint.write_json(run.recipe, recipe.model_dump(mode="json"))
    return run
