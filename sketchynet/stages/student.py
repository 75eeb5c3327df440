"""The light network on all canvases: trained directly, distilled (SketchyNetV1), and per fold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sketchynet import checkpoint
from sketchynet.config import Recipe
from sketchynet.data.pairs import PairedSet
from sketchynet.ops import relational_huber
from sketchynet.stages.batches import random_canvases
from sketchynet.stages.networks import new_embedder
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import Runtime
from sketchynet.stages.teacher import ranking_objective
from sketchynet.stages.training import EmbeddingStage, Objective, train_embedder


def distillation_objective(recipe: Recipe, pairs: PairedSet, teacher: dict[str, torch.Tensor]) -> Objective:
    """λ·L_tri + (1−λ)·L_RKD, averaged over the canvases (section "SketchyNetV1" of the paper).

    Args:
        teacher: the full network's embeddings, ``sketches`` (S, Dt) and ``photos`` (P, Dt), of clean inputs.
    """
    settings = recipe.student.distillation
    ranking = ranking_objective(recipe.student.ranking, pairs)

    def objective(
        sketch: list[torch.Tensor], photo: torch.Tensor, sketches: np.ndarray, photos: np.ndarray
    ) -> tuple[torch.Tensor, dict[str, float]]:
        rank_loss, _ = ranking(sketch, photo, sketches, photos)
        relational = settings.scale * relational_huber(
            teacher["sketches"][sketches].to(photo.device),
            teacher["photos"][photos].to(photo.device),
            torch.stack(sketch),
            photo,
            content=torch.from_numpy(pairs.content[photos]).to(photo.device),
            weights=settings.relations,
            delta=settings.huber_delta,
            normalize=settings.normalize,
        )
        share = settings.ranking_share
        loss = share * rank_loss + (1.0 - share) * relational
        return loss, {"loss_ranking": float(rank_loss.detach()), "loss_relational": float(relational.detach())}

    return objective


@dataclass(frozen=True)
class Student:
    """One student to train."""

    name: str
    """Of the stage: ``direct``, ``student``, or ``fold-N``."""
    sketches: np.ndarray
    """int64: the sketches it is fitted on."""
    distilled: bool = True
    """By the full network's stored embeddings; otherwise by the ranking loss alone."""
    epochs: int | None = None
    """Instead of the recipe's."""


def train_student(
    student: Student, recipe: Recipe, pairs: PairedSet, runtime: Runtime, folder: RunFolder, *, weights: Path | None
) -> None:
    """Trains a student on all canvases at once."""
    if folder.final(student.name).exists():
        return
    settings = recipe.student
    if student.distilled:
        objective = distillation_objective(recipe, pairs, checkpoint.read_network(folder.teacher_embeddings))
    else:
        objective = ranking_objective(settings.ranking, pairs)
    optimization = settings.optimization
    if student.epochs is not None:
        optimization = optimization.model_copy(update={"epochs": student.epochs})
    seed = recipe.seed * 1000 + 500

    def plan(epoch: int, step: int) -> tuple[tuple[int, ...], int]:
        chosen = random_canvases(
            settings.canvases, settings.canvases_per_step, seed=seed, epoch=epoch, step=step
        )
        return chosen, settings.photo_size

    stage = EmbeddingStage(
        name=student.name,
        build=lambda: new_embedder(settings.network, settings.canvases, weights),
        objective=objective,
        plan=plan,
        optimization=optimization,
        augmentation=recipe.augmentation,
        seed=seed,
        sketches=student.sketches,
        validation_canvases=settings.canvases,
        validation_photo_size=settings.photo_size,
        parameters=settings.model_dump(mode="json") | {"distilled": student.distilled},
    )
    train_embedder(stage, pairs, runtime, folder.stage(student.name))
