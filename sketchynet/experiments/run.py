"""Runs the configurations of an experiment, seed after seed or side by side; what is finished is skipped, what is equal
is shared.

Configurations of a set mostly differ in one stage. A stage that another run has finished on the same recipe sections
and seed is taken over (hard links where the disk allows), so that a sweep trains one full network a seed. A whole
run with the same recipe is not trained again but counted for both experiments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from sketchynet import checkpoint
from sketchynet.config import Recipe
from sketchynet.errors import InputError
from sketchynet.experiments.processes import CONSOLE_NAME, Processes
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
from sketchynet.tracking import import_journal


@dataclass(frozen=True)
class _Job:
    """One configuration with one seed."""

    variant: Variant
    recipe: Recipe
    needed: dict[str, str]
    """Keys of its stages."""

    @property
    def name(self) -> str:
        return f"{self.variant.name}, seed {self.recipe.seed}"


@dataclass
class _Outcomes:
    finished: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def failed(self, job: _Job, error: object) -> None:
        self.failures.append(f"{job.name}: {error}")
        tqdm.write(f"  failed: {job.name}: {error}")


def run_experiment(
    experiment: Experiment,
    seeds: Sequence[int],
    root: Path,
    execution: Execution,
    *,
    jobs: int = 1,
    threads: int = 1,
    borrow: Iterable[Path] = (),
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
        raise InputError(f"--jobs {jobs} trains runs beside each other in this machine's processes, --workers {execution.workers} each on Ray: give one")
    planned = []
    for seed in seeds:
        for variant in experiment.variants:
            recipe = experiment.recipe(variant, seed)
            planned.append(_Job(variant, recipe, needed_stages(recipe, teacher=variant.teacher)))
    outcomes = _Outcomes()

    def look() -> Known:
        return list(known_runs([root, *borrow]))

    def begin(job: _Job, known: Known) -> Places | None:
        """Makes the run ready; None where it was finished before."""
        run = _run_of(job.recipe, job.variant, root, known)
        add_membership(run, _member(experiment, job.variant))
        if not (run.root / SUMMARY_NAME).exists():
            borrow_stages(job.needed, run, known)
            return Places(run, data, cache, weights)
        tqdm.write(f"  finished before: {run.root}")
        if execution.track == "mlflow":
            import_journal(run.root, execution.experiment, execution.tracking_uri)
        outcomes.finished.append(run.root)
        return None

    if jobs == 1:
        _one_by_one(planned, execution, outcomes, look, begin)
    else:
        _side_by_side(planned, execution, outcomes, look, begin, jobs=jobs, threads=threads)
    table = experiment_section(experiment.name, experiment.base.name, read_summaries(outcomes.finished)).text if outcomes.finished else ""
    if outcomes.failures:
        raise InputError(
            f"{len(outcomes.failures)} of {len(planned)} runs failed; the same command tries them again\n" + "\n".join(outcomes.failures)
        )
    return table


def _one_by_one(
    planned: Sequence[_Job],
    execution: Execution,
    outcomes: _Outcomes,
    look: Callable[[], Known],
    begin: Callable[[_Job, Known], Places | None],
) -> None:
    for number, job in enumerate(planned, start=1):
        tqdm.write(f"{execution.experiment}, run {number} of {len(planned)}: {job.name}")
        try:
            places = begin(job, look())
            if places is not None:
                run_pipeline(job.recipe, places, _execution(job, execution))
                outcomes.finished.append(places.run.root)
        except InputError as error:
            outcomes.failed(job, error)


def _side_by_side(
    planned: Sequence[_Job],
    execution: Execution,
    outcomes: _Outcomes,
    look: Callable[[], Known],
    begin: Callable[[_Job, Known], Places | None],
    *,
    jobs: int,
    threads: int,
) -> None:
    # Processes write journals alone: of several that write to one store at a time, some would find it locked.
    apart = replace(execution, track="jsonl") if execution.track == "mlflow" else execution
    waiting, running = list(planned), dict[str, tuple[_Job, RunFolder]]()
    prepared: set[str] = set()
    with Processes(jobs, threads=threads) as processes, tqdm(total=len(planned), unit="run", dynamic_ncols=True) as bar:
        while waiting or running:
            for job in _ready(waiting, running, look, lambda: processes.full):
                waiting.remove(job)
                try:
                    places = begin(job, look())
                    if places is None:
                        bar.update()
                        continue
                    if (source := job.recipe.data.model_dump_json()) not in prepared:
                        places.load(job.recipe, progress=True)  # once, not by every process at the same time
                        prepared.add(source)
                except InputError as error:
                    outcomes.failed(job, error)
                    bar.update()
                    continue
                tqdm.write(f"  started: {job.name}, {places.run.root / CONSOLE_NAME}")
                work = partial(run_pipeline, job.recipe, places, _execution(job, apart))
                processes.start(job.name, work, places.run.root / CONSOLE_NAME)
                running[job.name] = job, places.run
            for ended in processes.wait():
                job, run = running.pop(ended.name)
                bar.update()
                if ended.error is not None:
                    outcomes.failed(job, ended.error)
                    continue
                tqdm.write(f"  finished: {job.name}")
                outcomes.finished.append(run.root)
                if execution.track == "mlflow":
                    import_journal(run.root, execution.experiment, execution.tracking_uri)
            bar.set_postfix_str(f"{len(running)} running, {len(waiting)} waiting")


def _ready(
    waiting: Sequence[_Job],
    running: dict[str, tuple[_Job, RunFolder]],
    look: Callable[[], Known],
    full: Callable[[], bool],
) -> Iterator[_Job]:
    """Those that may start now: none of their stages is being trained by another run."""
    for job in list(waiting):
        if full():
            return
        under_way = {
            key
            for other, run in running.values()
            for name, key in other.needed.items()
            if not is_finished(run, name)
        }
        wanted = set(job.needed.values()) & under_way
        if not wanted or wanted <= finished_stages(look()).keys():
            yield job


def _execution(job: _Job, execution: Execution) -> Execution:
    return replace(execution, stages=STAGES if job.variant.teacher else tuple(s for s in STAGES if s != "teacher"))


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
