"""All networks that are trained by gradient, in their order: one job for one group of workers.

Starting a group of workers costs more than a small stage, so a job runs the stages one after another.
Finished stages are skipped, which makes every job its own resume.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sketchynet.config import Recipe
from sketchynet.data import load_pairs
from sketchynet.data.pairs import PairedSet
from sketchynet.errors import InputError
from sketchynet.stages.allocator import keep_freed_memory
from sketchynet.stages.folds import Folds, make_folds
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import Runtime
from sketchynet.stages.student import Student, train_student
from sketchynet.stages.teacher import store_embeddings, train_member


@dataclass(frozen=True)
class Places:
    """Folders that a job reads from and writes to; picklable."""

    run: RunFolder
    data: Path | None
    """Root of the data sets, None where ``$SKETCHYNET_DATA`` or a built-in source is meant."""
    cache: Path | None
    weights: Path | None

    def load(self, recipe: Recipe, *, progress: bool) -> PairedSet:
        """The recipe's paired set, prepared once and read from the cache afterwards."""
        data = recipe.data
        return load_pairs(
            data.source,
            root=self.data,
            size=data.photo_size,
            validation=data.validation,
            seed=data.seed,
            options=data.options,
            cache_dir=self.cache,
            progress=progress,
        )


def folds_of(recipe: Recipe, pairs: PairedSet) -> Folds:
    """The recipe's partition of the training photos."""
    return make_folds(pairs, recipe.selector, seed=recipe.data.seed)


def train_networks(runtime: Runtime, *, recipe: Recipe, places: Places, stages: Collection[str]) -> None:
    """Trains the full network (stage ``teacher``) and the students (stage ``student``)."""
    keep_freed_memory()
    pairs = places.load(recipe, progress=False)
    folds = folds_of(recipe, pairs)
    run = places.run
    if "teacher" in stages:
        for member in range(recipe.teacher.members):
            train_member(
                member, recipe, pairs, runtime, run, sketches=pairs.sketch_indices(0), weights=places.weights
            )
        store_embeddings(recipe, pairs, runtime, run)
    if "student" in stages:
        if not run.teacher_embeddings.exists():
            raise InputError(f"{run.root} has no finished teacher to distil from; run --stage teacher first")
        jobs = [Student("direct", folds.student, distilled=False)] if recipe.student.direct else []
        jobs.append(Student("student", folds.student))
        if folds.cross_fitted:
            epochs = recipe.selector.fold_epochs
            jobs += [Student(run.fold(n), sketches, epochs=epochs) for n, sketches in enumerate(folds.fitted)]
        for job in jobs:
            train_student(job, recipe, pairs, runtime, run, weights=places.weights)
