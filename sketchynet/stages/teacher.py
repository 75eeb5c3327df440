"""The full network: its members, trained one after another."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sketchynet.config import Recipe
from sketchynet.stages.embedding import EmbeddingNetwork
from sketchynet.stages.networks import read_full_network
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import Runtime
from sketchynet.stages.search_head import searched
from sketchynet.stages.task import Task
from sketchynet.stages.training import TrainingStage, train_network


def train_member(
    member: int,
    task: Task,
    runtime: Runtime,
    folder: RunFolder,
    *,
    sketches: np.ndarray,
    weights: Path | None,
) -> None:
    """Trains one member of the full network."""
    settings = task.recipe.teacher
    share = settings.optimization.epochs / len(settings.train_sizes)
    sizes = tuple(sorted({*settings.train_sizes, settings.canvas}))

    def plan(epoch: int, step: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        size = settings.train_sizes[min(int(epoch / share), len(settings.train_sizes) - 1)]
        return (size,), (size,)

    name = folder.teacher(member)
    seed = task.recipe.seed * 1000 + member
    stage = TrainingStage(
        name=name,
        build=lambda: task.new_network(settings.network, sizes, weights),
        examples=task.teacher_examples(sketches, seed=seed),
        plan=plan,
        optimization=settings.optimization,
        seed=seed,
        parameters=settings.model_dump(mode="json"),
    )
    train_network(stage, runtime, folder.stage(name))


def full_network(recipe: Recipe, folder: RunFolder, *, searching: bool = False) -> EmbeddingNetwork:
    """The trained full network of a run, in evaluation mode: as students learn from it, or as it is searched with."""
    names = map(folder.teacher, range(recipe.teacher.members))
    members = [searched(recipe, folder, name) if searching else folder.final(name) for name in names]
    return read_full_network(members, flip=recipe.searches_mirrored if searching else recipe.teacher.flip)
