"""All networks that are trained by gradient: which there are, what each needs, and how it is trained.

Starting a group of workers costs more than a small network, so one job trains several, one after another. Those
that are finished are skipped, which makes every job its own resume.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sketchynet import checkpoint
from sketchynet.config import Recipe
from sketchynet.data import LabelledSet, PairedSet, load_labelled, load_pairs
from sketchynet.errors import InputError
from sketchynet.stages.allocator import keep_freed_memory
from sketchynet.stages.folds import Folds, fold_name
from sketchynet.stages.run_folder import TEACHER_EMBEDDINGS, RunFolder
from sketchynet.stages.runtime import Runtime, agreed
from sketchynet.stages.search_head import add_search_head
from sketchynet.stages.student import Student, train_student
from sketchynet.stages.task import TRAIN, task_of
from sketchynet.stages.teacher import train_member

_DIRECT, _STUDENT = "direct", "student"


@dataclass(frozen=True)
class Places:
    """Folders that a job reads from and writes to; picklable."""

    run: RunFolder
    data: Path | None
    """Root of the data sets, None where ``$SKETCHYNET_DATA`` or a built-in source is meant."""
    cache: Path | None
    weights: Path | None

    def load(self, recipe: Recipe, *, progress: bool) -> PairedSet | LabelledSet:
        """The recipe's data, prepared once and read from the cache afterwards."""
        data = recipe.data
        if recipe.recognition is not None:
            return load_labelled(
                data.source,
                root=self.data,
                validation=data.validation,
                seed=data.seed,
                options=data.options,
                skip_bad=data.skip_bad,
                cache_dir=self.cache,
                progress=progress,
            )
        return load_pairs(
            data.source,
            root=self.data,
            size=data.photo_size,
            validation=data.validation,
            seed=data.seed,
            options=data.options,
            skip_bad=data.skip_bad,
            cache_dir=self.cache,
            progress=progress,
        )


def planned_networks(recipe: Recipe, stages: Collection[str]) -> dict[str, frozenset[str]]:
    """What a run trains, in order, each with those of it that must be finished before.

    Args:
        stages: of ``teacher`` (the full network, and what it says of the training examples) and ``student``.
    """
    plan: dict[str, frozenset[str]] = {}
    if "teacher" in stages:
        members = [RunFolder.teacher(member) for member in range(recipe.teacher.members)]
        plan |= dict.fromkeys(members, frozenset())
        plan[TEACHER_EMBEDDINGS] = frozenset(members)
    if "student" in stages:
        taught = frozenset({TEACHER_EMBEDDINGS} & plan.keys()) if _distils(recipe) else frozenset()
        if recipe.student.direct:
            plan[_DIRECT] = frozenset()
        plan[_STUDENT] = taught
        if recipe.selector.train:
            plan |= {fold_name(fold): taught for fold in range(recipe.selector.folds)}
    return plan


def train_networks(names: Collection[str], runtime: Runtime, *, recipe: Recipe, places: Places) -> None:
    """Trains those of the :func:`planned_networks` that are named, in the order of the names."""
    keep_freed_memory()
    run = places.run
    if runtime.world_size > 1 and not run.recipe.exists():
        raise InputError(
            f"worker {runtime.rank} on {socket.gethostname()} does not see {run.recipe}: the run must lie on storage "
            "that all machines share; give such a folder as --output, or a URL as --storage"
        )
    data = places.load(recipe, progress=False)
    task = task_of(recipe, data)
    teacher, student = recipe.teacher, recipe.student
    members = {run.teacher(member): member for member in range(recipe.teacher.members)}
    students = _students(recipe, task.folds(), run)
    taught = any(students[name].distilled for name in names if name in students)
    if taught and TEACHER_EMBEDDINGS not in names and not agreed(runtime, checkpoint.is_complete(run.teacher_embeddings)):
        raise InputError(f"{run.root} has no finished teacher to distil from; run --stage teacher first")
    for name in names:
        if name == TEACHER_EMBEDDINGS:
            task.store_teacher(runtime, run)
            continue
        if runtime.rank == 0 and not checkpoint.is_complete(run.final(name)):
            checkpoint.remove(run.search(name))  # the head of a network that is no longer there
        if name in members:
            fitted = task.indices(TRAIN)
            train_member(members[name], task, runtime, run, sketches=fitted, weights=places.weights)
        else:
            fitted = students[name].sketches
            train_student(students[name], task, runtime, run, weights=places.weights)
        if recipe.search.head and isinstance(data, PairedSet):
            add_search_head(
                recipe,
                data,
                runtime,
                run,
                name,
                sketches=fitted,
                canvases=(teacher.canvas,) if name in members else student.canvases,
                photo_sizes=(teacher.canvas,) if name in members else student.gallery_sizes,
                mirrored=name in members and recipe.searches_mirrored,
            )


def is_trained(recipe: Recipe, run: RunFolder, name: str) -> bool:
    """Whether a run has all that :func:`train_networks` makes of one of the :func:`planned_networks`."""
    headed = recipe.search.head and name != TEACHER_EMBEDDINGS
    return checkpoint.is_complete(run.result(name)) and (not headed or checkpoint.is_complete(run.search(name)))


def _students(recipe: Recipe, folds: Folds, run: RunFolder) -> dict[str, Student]:
    distilled, epochs = _distils(recipe), recipe.selector.fold_epochs
    start = run.final(run.teacher(0)) if recipe.student.distillation.start == "member" else None
    students = [
        Student(_DIRECT, folds.student, distilled=False),
        Student(_STUDENT, folds.student, distilled=distilled, start=start),
    ]
    if folds.cross_fitted:
        students += [
            Student(name, sketches, distilled=distilled, epochs=epochs)
            for name, sketches in zip(folds.judges, folds.fitted, strict=True)
        ]
    return {student.name: student for student in students}


def _distils(recipe: Recipe) -> bool:
    return recipe.student.distillation.ranking_share < 1.0
