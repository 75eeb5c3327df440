"""All networks that are trained by gradient, in their order: one job for one group of workers.

Starting a group of workers costs more than a small stage, so a job runs the stages one after another.
Finished stages are skipped, which makes every job its own resume.
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
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import Runtime, agreed
from sketchynet.stages.student import Student, train_student
from sketchynet.stages.task import TRAIN, task_of
from sketchynet.stages.teacher import train_member


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


def train_networks(runtime: Runtime, *, recipe: Recipe, places: Places, stages: Collection[str]) -> None:
    """Trains the full network (stage ``teacher``) and the students (stage ``student``)."""
    keep_freed_memory()
    run = places.run
    if runtime.world_size > 1 and not run.recipe.exists():
        raise InputError(
            f"worker {runtime.rank} on {socket.gethostname()} does not see {run.recipe}: the run must lie on storage "
            "that all machines share; give such a folder as --output, or a URL as --storage"
        )
    task = task_of(recipe, places.load(recipe, progress=False))
    folds = task.folds()
    if "teacher" in stages:
        for member in range(recipe.teacher.members):
            train_member(member, task, runtime, run, sketches=task.indices(TRAIN), weights=places.weights)
        task.store_teacher(runtime, run)
    if "student" in stages:
        distilled = recipe.student.distillation.ranking_share < 1.0
        if distilled and not agreed(runtime, checkpoint.is_complete(run.teacher_embeddings)):
            raise InputError(f"{run.root} has no finished teacher to distil from; run --stage teacher first")
        jobs = [Student("direct", folds.student, distilled=False)] if recipe.student.direct else []
        jobs.append(Student("student", folds.student, distilled=distilled))
        if folds.cross_fitted and recipe.selector.train:
            epochs = recipe.selector.fold_epochs
            jobs += [
                Student(name, sketches, distilled=distilled, epochs=epochs)
                for name, sketches in zip(folds.judges, folds.fitted, strict=True)
            ]
        for job in jobs:
            train_student(job, task, runtime, run, weights=places.weights)
