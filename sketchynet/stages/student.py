"""The light network on all canvases: trained directly, distilled (SketchyNetV1), and per fold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sketchynet import checkpoint
from sketchynet.models import Embedder
from sketchynet.stages.batches import random_canvases
from sketchynet.stages.networks import read_embedder
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import Runtime, agreed
from sketchynet.stages.task import Task
from sketchynet.stages.training import TrainingStage, train_network


@dataclass(frozen=True)
class Student:
    """One student to train."""

    name: str
    """Of the stage: ``direct``, ``student``, or ``fold-N``."""
    sketches: np.ndarray
    """int64: the sketches it is fitted on."""
    distilled: bool = True
    """By what the full network said; otherwise by the loss on the labels alone."""
    epochs: int | None = None
    """Instead of the recipe's."""
    start: Path | None = None
    """Checkpoint of the trained network that it starts from, instead of the recipe's weights."""


def train_student(
    student: Student, task: Task, runtime: Runtime, folder: RunFolder, *, weights: Path | None
) -> None:
    """Trains a student on all canvases at once."""
    if agreed(runtime, checkpoint.is_complete(folder.final(student.name))):
        return
    settings = task.recipe.student
    optimization = settings.optimization
    if student.epochs is not None:
        optimization = optimization.model_copy(update={"epochs": student.epochs})
    seed = task.recipe.seed * 1000 + 500

    photo_size = dict(zip(settings.canvases, settings.gallery_sizes, strict=True))

    def plan(epoch: int, step: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        chosen = random_canvases(
            settings.canvases, settings.canvases_per_step, seed=seed, epoch=epoch, step=step
        )
        return chosen, tuple(photo_size[canvas] for canvas in chosen)

    def build() -> Embedder:
        network = task.new_student(folder, weights, distilled=student.distilled)
        if student.start is not None:
            network.start_from(read_embedder(student.start))
        return network

    examples = task.student_examples(
        student.sketches, folder, distilled=student.distilled, seed=seed, device=runtime.device
    )
    stage = TrainingStage(
        name=student.name,
        build=build,
        examples=examples,
        plan=plan,
        optimization=optimization,
        seed=seed,
        parameters=settings.model_dump(mode="json") | {"distilled": student.distilled},
    )
    train_network(stage, runtime, folder.stage(student.name))
