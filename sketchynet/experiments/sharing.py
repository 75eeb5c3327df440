"""What runs share: stages that depend on the same parts of a recipe are trained once and taken over."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from sketchynet import checkpoint
from sketchynet.config import Recipe, load_recipe
from sketchynet.errors import InputError
from sketchynet.results.summary import BORROWED_NAME
from sketchynet.stages.folds import fold_name
from sketchynet.stages.run_folder import SEARCH, TEACHER_EMBEDDINGS, RunFolder
from sketchynet.stages.train import planned_networks

Known = Sequence[tuple[RunFolder, Recipe]]
"""Runs on disk, each with its recipe."""


def known_runs(places: Iterable[Path]) -> Iterator[tuple[RunFolder, Recipe]]:
    """Every run in some places, with its recipe; one whose recipe this version does not know is passed over."""
    for place in places:
        for path in sorted([place / "recipe.json", *place.glob("*/recipe.json")]):
            if path.exists():
                try:
                    yield RunFolder(path.parent), load_recipe(path)
                except InputError as error:
                    tqdm.write(f"  passed over: {error}")


def identity(recipe: Recipe) -> str:
    """Text that two recipes share where they train the same networks and policies."""
    return json.dumps(recipe.model_dump(mode="json", exclude={"name", "description", "evaluation"}), sort_keys=True)


def stage_keys(recipe: Recipe) -> dict[str, str]:
    """What the result of every stage depends on, as text: equal texts make equal networks."""
    values = recipe.model_dump(mode="json")
    shared = {key: values[key] for key in ("seed", "data", "augmentation", "recognition")}
    teacher, student, selector = values["teacher"], values["student"], values["selector"]
    member = shared | {"teacher": _without(teacher, "members", "flip")}
    keys: dict[str, object] = {RunFolder.teacher(n): member | {"member": n} for n in range(recipe.teacher.members)}
    full = shared | {"teacher": teacher}
    keys[TEACHER_EMBEDDINGS] = {"embeddings": full}
    fitted = {key: selector[key] for key in ("folds", "holdout")}
    direct = shared | {"student": _without(student, "direct", "distillation", "gallery", "dimensions"), "fitted": fitted}
    distilled = recipe.student.distillation.ranking_share < 1.0
    taught = {key: student[key] for key in ("distillation", "gallery", "dimensions")}
    learnt = full | direct | {"taught": taught} if distilled else direct
    keys |= {"direct": direct, "student": learnt}
    from_weights = taught | {"distillation": _without(student["distillation"], "start")}
    judges = learnt | {"taught": from_weights} if distilled else direct
    for fold in range(recipe.selector.folds):
        keys[fold_name(fold)] = judges | {"fold": fold, "epochs": selector["fold_epochs"]}
    keys["selector"] = learnt | {"selector": selector, "search": _without(values["search"], "flip")}
    return {name: json.dumps(key, sort_keys=True) for name, key in keys.items()}


def _without(section: dict[str, object], *names: str) -> dict[str, object]:
    return {key: value for key, value in section.items() if key not in names}


def needed_stages(recipe: Recipe, *, teacher: bool) -> dict[str, str]:
    """The keys of the stages that a run of the recipe goes through, with a full network or without one."""
    needed = {*planned_networks(recipe, ("teacher", "student") if teacher else ("student",))}
    if recipe.selector.train:
        needed.add("selector")
    return {name: key for name, key in stage_keys(recipe).items() if name in needed}


def is_finished(run: RunFolder, stage: str) -> bool:
    """Whether a run has the result of a stage."""
    return run.result(stage).exists()


def finished_stages(known: Known) -> dict[str, tuple[RunFolder, str]]:
    """Where the result of a stage lies, by its key: the first run that has it, and the stage's name there."""
    found: dict[str, tuple[RunFolder, str]] = {}
    for run, recipe in known:
        for name, key in stage_keys(recipe).items():
            if is_finished(run, name):
                found.setdefault(key, (run, name))
    return found


def borrow_stages(needed: dict[str, str], run: RunFolder, known: Known) -> None:
    """Takes over finished stages of other runs that this one would train again."""
    finished = finished_stages([(other, recipe) for other, recipe in known if other.root != run.root])
    borrowed = {}
    for name, key in needed.items():
        if key in finished and not is_finished(run, name):
            owner, theirs = finished[key]
            _link(owner.stage(theirs), run.stage(name))
            borrowed[name] = owner.root.name
    if borrowed:
        tqdm.write(f"  taken over: {', '.join(f'{name} of {owner}' for name, owner in borrowed.items())}")
        checkpoint.write_json(run.root / BORROWED_NAME, borrowed)


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
            source, temporary, copy_function=place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("epoch-*", SEARCH, ".*")
        )
        if target.exists():  # an unfinished attempt of this run's own
            shutil.rmtree(target)
        os.replace(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InputError(f"could not take over {source} ({error}); free some space, then run the command again") from error
