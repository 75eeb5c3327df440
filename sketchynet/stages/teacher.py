"""The full network: members trained by the ranking loss, and their embeddings for distillation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sketchynet import checkpoint
from sketchynet.config import RankingConfig, Recipe
from sketchynet.data.pairs import PairedSet
from sketchynet.losses import contrastive_loss, triplet_loss
from sketchynet.stages.embedding import EmbeddingNetwork, embed_photos, embed_sketches
from sketchynet.stages.networks import new_embedder, read_full_network
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import Runtime
from sketchynet.stages.training import EmbeddingStage, Objective, train_embedder


def ranking_loss(
    config: RankingConfig, sketch: torch.Tensor, photo: torch.Tensor, content: torch.Tensor
) -> torch.Tensor:
    """The recipe's loss on sketch–photo distances, sketch and photo (B, D); scalar."""
    if config.kind == "triplet":
        return triplet_loss(sketch, photo, content, margin=config.margin, mining=config.mining)
    return contrastive_loss(
        sketch, photo, content, temperature=config.temperature, similarity="cosine", symmetric=True
    )


def ranking_objective(config: RankingConfig, pairs: PairedSet) -> Objective:
    """The ranking loss averaged over the canvases, as an objective of the training loop."""

    def objective(
        sketch: list[torch.Tensor], photo: torch.Tensor, sketches: np.ndarray, photos: np.ndarray
    ) -> tuple[torch.Tensor, dict[str, float]]:
        content = torch.from_numpy(pairs.content[photos]).to(photo.device)
        return torch.stack([ranking_loss(config, s, photo, content) for s in sketch]).mean(), {}

    return objective


def train_member(
    member: int,
    recipe: Recipe,
    pairs: PairedSet,
    runtime: Runtime,
    folder: RunFolder,
    *,
    sketches: np.ndarray,
    weights: Path | None,
) -> None:
    """Trains one member of the full network."""
    settings = recipe.teacher
    share = settings.optimization.epochs / len(settings.train_sizes)
    sizes = tuple(sorted({*settings.train_sizes, settings.canvas}))

    def plan(epoch: int, step: int) -> tuple[tuple[int, ...], int]:
        size = settings.train_sizes[min(int(epoch / share), len(settings.train_sizes) - 1)]
        return (size,), size

    name = folder.teacher(member)
    stage = EmbeddingStage(
        name=name,
        build=lambda: new_embedder(settings.network, sizes, weights),
        objective=ranking_objective(settings.ranking, pairs),
        plan=plan,
        optimization=settings.optimization,
        augmentation=recipe.augmentation,
        seed=recipe.seed * 1000 + member,
        sketches=sketches,
        validation_canvases=(settings.canvas,),
        validation_photo_size=settings.canvas,
        parameters=settings.model_dump(mode="json"),
    )
    train_embedder(stage, pairs, runtime, folder.stage(name))


def full_network(recipe: Recipe, folder: RunFolder) -> EmbeddingNetwork:
    """The trained full network of a run, in evaluation mode."""
    members = [folder.final(folder.teacher(m)) for m in range(recipe.teacher.members)]
    return read_full_network(members, flip=recipe.teacher.flip)


def store_embeddings(recipe: Recipe, pairs: PairedSet, runtime: Runtime, folder: RunFolder) -> None:
    """Embeds every pair of the training split by the full network, once, for distillation.

    Rows of other splits are not embedded (they stay NaN), so no student can be distilled on them by mistake.
    """
    target = folder.teacher_embeddings
    if not target.exists() and runtime.rank == 0:
        network = full_network(recipe, folder).to(runtime.device)
        sketches, photos = pairs.sketch_indices(0), pairs.photo_indices(0)
        size = recipe.teacher.canvas
        tables = {
            "sketches": torch.full((len(pairs.sketches), network.dim), float("nan")),
            "photos": torch.full((len(pairs.photos), network.dim), float("nan")),
        }
        chosen = pairs.sketches.select(sketches)
        tables["sketches"][sketches] = embed_sketches(network, chosen, size)
        tables["photos"][photos] = embed_photos(network, pairs, photos, size)
        checkpoint.write_checkpoint(target, network=tables, config={"canvas": size}, metrics={})
    runtime.barrier()
