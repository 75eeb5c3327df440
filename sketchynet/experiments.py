"""Runs the configurations of an experiment, seed after seed; what is finished is skipped, what is equal is shared.

Configurations of a set mostly differ in one stage. A stage that another run has finished on the same recipe sections
and seed is taken over (hard links where the disk allows), so that a sweep trains one full network a seed. A whole
run with the same recipe is not trained again but counted for both experiments.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from sketchynet import checkpoint
from sketchynet.config import Recipe, load_recipe
from sketchynet.errors import InputError
from sketchynet.pipeline import STAGES, Execution, run_pipeline
from sketchynet.recipes.experiments import Experiment, Variant
from sketchynet.results.claims import experiment_section
from sketchynet.results.summary import BORROWED_NAME, SUMMARY_NAME, add_membership, read_summaries
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.train import Places
from sketchynet.tracking import import_journal

_EMBEDDINGS = "teacher-embeddings"


def run_experiment(
    experiment: Experiment,
    seeds: Sequence[int],
    root: Path,
    execution: Execution,
    *,
    borrow: Iterable[Path] = (),
    data: Path | None = None,
    cache: Path | None = None,
    weights: Path | None = None,
) -> str:
    """Trains and evaluates every configuration with every seed; returns the experiment's table.

    Args:
        root: folder of the runs; the same one for several experiments lets them share stages.
        borrow: further runs, or folders of runs, whose equal stages are taken over.

    Raises:
        InputError: some runs failed, named with their reasons; the others were finished before it is raised.
    """
    jobs = [(seed, variant) for seed in seeds for variant in experiment.variants]
    failures, finished = [], []
    for number, (seed, variant) in enumerate(jobs, start=1):
        tqdm.write(f"{experiment.name}, run {number} of {len(jobs)}: {variant.name}, seed {seed}")
        recipe = experiment.recipe(variant, seed)
        known = list(_runs([root, *borrow]))
        try:
            run = _run_of(recipe, variant, root, known)
            add_membership(run, _member(experiment, variant))
            if (run.root / SUMMARY_NAME).exists():
                tqdm.write(f"  finished before: {run.root}")
                if execution.track == "mlflow":
                    import_journal(run.root, execution.experiment, execution.tracking_uri)
            else:
                _borrow_stages(recipe, run, known)
                stages = STAGES if variant.teacher else tuple(stage for stage in STAGES if stage != "teacher")
                places = Places(run, data, cache, weights)
                run_pipeline(recipe, places, replace(execution, stages=stages))
            finished.append(run.root)
        except InputError as error:
            failures.append(f"{variant.name}, seed {seed}: {error}")
            tqdm.write(f"  failed: {error}")
    table = experiment_section(experiment.name, experiment.base.name, read_summaries(finished)).text if finished else ""
    if failures:
        raise InputError(f"{len(failures)} of {len(jobs)} runs failed; the same command tries them again\n" + "\n".join(failures))
    return table


def _member(experiment: Experiment, variant: Variant) -> dict[str, object]:
    return {
        "experiment": experiment.name,
        "base": experiment.base.name,
        "variant": variant.name,
        "position": experiment.position(variant),
        "reference": experiment.reference,
        "compare": experiment.compare,
    }


def _runs(places: Iterable[Path]) -> Iterable[tuple[RunFolder, Recipe]]:
    """Every run in some places, with its recipe; one whose recipe this version does not know is passed over."""
    for place in places:
        for path in sorted([place / "recipe.json", *place.glob("*/recipe.json")]):
            if path.exists():
                try:
                    yield RunFolder(path.parent), load_recipe(path)
                except InputError as error:
                    tqdm.write(f"  passed over: {error}")


def _run_of(recipe: Recipe, variant: Variant, root: Path, known: Sequence[tuple[RunFolder, Recipe]]) -> RunFolder:
    """The folder of a configuration: that of a run with the same recipe, evaluated or of this root, or a new one."""
    wanted = _identity(recipe)
    for run, other in known:
        if _identity(other) == wanted and (run.root.parent == root or (run.root / SUMMARY_NAME).exists()):
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


def _identity(recipe: Recipe) -> str:
    return json.dumps(recipe.model_dump(mode="json", exclude={"name", "description", "evaluation"}), sort_keys=True)


def stage_keys(recipe: Recipe) -> dict[str, str]:
    """What the result of every stage depends on, as text: equal texts make equal networks."""
    values = recipe.model_dump(mode="json")
    shared = {key: values[key] for key in ("seed", "data", "augmentation", "recognition")}
    teacher, student, selector = values["teacher"], values["student"], values["selector"]
    member = shared | {"teacher": _without(teacher, "members", "flip")}
    keys: dict[str, object] = {f"teacher-{n}": member | {"member": n} for n in range(recipe.teacher.members)}
    full = shared | {"teacher": teacher}
    keys[_EMBEDDINGS] = {"embeddings": full}
    fitted = {key: selector[key] for key in ("folds", "holdout")}
    direct = shared | {"student": _without(student, "direct", "distillation"), "fitted": fitted}
    distilled = recipe.student.distillation.ranking_share < 1.0
    learnt = full | direct | {"distillation": student["distillation"]} if distilled else direct
    keys |= {"direct": direct, "student": learnt}
    for fold in range(recipe.selector.folds):
        keys[f"fold-{fold}"] = learnt | {"fold": fold, "epochs": selector["fold_epochs"]}
    keys["selector"] = learnt | {"selector": selector}
    return {name: json.dumps(key, sort_keys=True) for name, key in keys.items()}


def _without(section: dict[str, object], *names: str) -> dict[str, object]:
    return {key: value for key, value in section.items() if key not in names}


def _borrow_stages(recipe: Recipe, run: RunFolder, known: Sequence[tuple[RunFolder, Recipe]]) -> None:
    """Takes over finished stages of other runs that this one would train again."""
    finished: dict[str, tuple[Path, str]] = {}
    for other, theirs in known:
        if other.root != run.root:
            for name, key in stage_keys(theirs).items():
                if _finished(other.root / name):
                    finished.setdefault(key, (other.root / name, other.root.name))
    borrowed = {}
    for name, key in stage_keys(recipe).items():
        needed = (name != "direct" or recipe.student.direct) and (
            recipe.selector.train or not name.startswith(("fold-", "selector"))
        )
        if needed and key in finished and not _finished(run.root / name):
            source, owner = finished[key]
            _link(source, run.root / name)
            borrowed[name] = owner
    if borrowed:
        tqdm.write(f"  taken over: {', '.join(f'{name} of {owner}' for name, owner in borrowed.items())}")
        checkpoint.write_json(run.root / BORROWED_NAME, borrowed)


def _finished(stage: Path) -> bool:
    return stage.exists() if stage.name == _EMBEDDINGS else (stage / "final").exists()


def _link(source: Path, target: Path) -> None:
    """A copy of a finished stage, made of hard links where the disk allows: finished files are never written again."""

    def place(file: str, copy: str) -> str:
        try:
            os.link(file, copy)
        except OSError:  # another disk, or one without links
            shutil.copy2(file, copy)
        return copy

    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        shutil.copytree(
            source, temporary, copy_function=place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("epoch-*", ".*")
        )
        if target.exists():  # an unfinished attempt of this run's own
            shutil.rmtree(target)
        os.replace(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InputError(f"could not take over {source} ({error}); free some space, then run the command again") from error
