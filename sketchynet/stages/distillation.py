"""What a student of retrieval learns from: the ranking loss, and what the full network said of the same pairs.

Shapes: B pairs of the global batch, D and Dt embedding sizes of student and full network, C components.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from sketchynet.config import DistillationConfig, RankingConfig, Recipe
from sketchynet.data.pairs import PairedSet
from sketchynet.losses import contrastive_loss, feature_regression, softmax_distillation, triplet_loss
from sketchynet.models.backbones import level_sizes
from sketchynet.ops import relational_huber

Objective = Callable[[list[torch.Tensor], torch.Tensor, np.ndarray, np.ndarray], tuple[torch.Tensor, dict[str, float]]]
"""(sketch embeddings of the global batch, one (B, D) a canvas; photo embeddings (B, D); sketch indices;
photo indices) → loss and figures for the log."""


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


@dataclass(frozen=True)
class LevelSupervision:
    """The ranking loss on levels of a backbone, beside that on the embedding (deep supervision)."""

    numbers: tuple[int, ...]
    fields: int
    sizes: tuple[int, ...]
    """Columns that each level adds to the embedding."""
    weight: float
    """Of each level's loss in the whole one."""
    objective: Objective
    """The ranking loss alone."""

    @classmethod
    def of(cls, config: RankingConfig, backbone: str, pairs: PairedSet, *, share: float = 1.0) -> LevelSupervision | None:
        """As a recipe has it, if its loss ranks at all; ``share`` is that of the ranking loss in the whole one."""
        if not config.levels or not share:
            return None
        sizes = level_sizes(backbone, config.levels, config.level_fields)
        objective = ranking_objective(config, pairs)
        return cls(config.levels, config.level_fields, tuple(sizes), share * config.level_weight, objective)

    def loss(
        self, sketch: list[torch.Tensor], photo: torch.Tensor, sketches: np.ndarray, photos: np.ndarray
    ) -> torch.Tensor:
        """The sum over the levels, unweighted; sketch, a tensor a canvas, and photo (B, sum of sizes)."""
        apart = zip(*(rows.split(self.sizes, dim=1) for rows in [photo, *sketch]), strict=True)
        losses = [self.objective(list(drawn), shown, sketches, photos)[0] for shown, *drawn in apart]
        return torch.stack(losses).sum()


def distillation_objective(recipe: Recipe, pairs: PairedSet, teacher: dict[str, torch.Tensor]) -> Objective:
    """λ·L_tri + (1−λ)·L_distilled, averaged over the canvases (section "SketchyNetV1" of the paper).

    Args:
        teacher: the full network's embeddings, ``sketches`` (S, Dt) and ``photos`` (P, Dt), of clean inputs; NaN in
            rows that are not trained on.
    """
    settings = recipe.student.distillation
    ranking = ranking_objective(recipe.student.ranking, pairs)
    features = settings.kind == "features"
    known = principal_coordinates(teacher, settings.components) if features else teacher

    def objective(
        sketch: list[torch.Tensor], photo: torch.Tensor, sketches: np.ndarray, photos: np.ndarray
    ) -> tuple[torch.Tensor, dict[str, float]]:
        stacked = torch.stack(sketch)
        regressed = [stacked[..., -settings.components :], photo[:, -settings.components :]] if features else []
        if features:
            stacked, photo = stacked[..., : -settings.components], photo[:, : -settings.components]
        rank_loss, _ = ranking(list(stacked), photo, sketches, photos)
        seen = known["sketches"][sketches].to(photo.device), known["photos"][photos].to(photo.device)
        if features:
            distilled = 0.5 * (feature_regression(regressed[0], seen[0]) + feature_regression(regressed[1], seen[1]))
        else:
            content = torch.from_numpy(pairs.content[photos]).to(photo.device)
            distilled = _distilled(settings, *seen, stacked, photo, content)
        distilled = settings.scale * distilled
        share = settings.ranking_share
        loss = share * rank_loss + (1.0 - share) * distilled
        return loss, {"loss_ranking": float(rank_loss.detach()), f"loss_{_LOGGED[settings.kind]}": float(distilled.detach())}

    return objective


_LOGGED = {"relations": "relational", "features": "features", "softmax": "softmax"}


def _distilled(
    settings: DistillationConfig,
    teacher_sketch: torch.Tensor,
    teacher_photo: torch.Tensor,
    sketch: torch.Tensor,
    photo: torch.Tensor,
    content: torch.Tensor,
) -> torch.Tensor:
    """The distilled loss on distances; sketch (K, B, D), photo (B, D), the teacher's (B, Dt)."""
    if settings.kind == "softmax":
        return softmax_distillation(teacher_sketch, teacher_photo, sketch, photo, temperature=settings.temperature)
    return relational_huber(
        teacher_sketch,
        teacher_photo,
        sketch,
        photo,
        content=content,
        weights=settings.relations,
        delta=settings.huber_delta,
        normalize=settings.normalize,
    )


def principal_coordinates(teacher: dict[str, torch.Tensor], components: int) -> dict[str, torch.Tensor]:
    """The full network's embeddings in the coordinates of their principal components.

    What a joined full network says has tens of thousands of dimensions, of which a data set of some hundred pairs
    spans few. Columns beyond the data's rank are zero; rows that were NaN stay NaN.

    Args:
        teacher: tables (rows, Dt) by name, float32.

    Returns:
        The same tables, float32 (rows, components).
    """
    joined = torch.cat(list(teacher.values())).double()
    kept = ~joined.isnan().any(dim=1)
    rows = joined[kept] - joined[kept].mean(dim=0)
    found = rows @ principal_directions(rows, components)
    table = torch.full((len(joined), components), float("nan"))
    table[kept] = torch.nn.functional.pad(found, (0, components - found.shape[1])).float()
    parts = table.split([len(rows) for rows in teacher.values()])
    return dict(zip(teacher, parts, strict=True))


def principal_directions(rows: torch.Tensor, count: int) -> torch.Tensor:
    """float64 (D, <= count): orthonormal directions of the largest second moments of rows (n, D), the largest first.

    As many as there are among the first `count` with a moment above rounding, at least one.
    """
    rows = rows.double()
    wide = rows.shape[1] > rows.shape[0]
    values, vectors = torch.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    order = values.argsort(descending=True)[:count]
    order = order[: max(1, int((values[order] > 1e-10 * values.max()).sum()))]
    directions = rows.T @ vectors[:, order] if wide else vectors[:, order]
    directions = torch.nn.functional.normalize(directions, dim=0)
    # Eigenvectors have no sign of their own: without one, two machines of a cluster could learn mirror images.
    heaviest = directions.abs().argmax(dim=0)
    return directions * directions[heaviest, torch.arange(directions.shape[1])].sign()
