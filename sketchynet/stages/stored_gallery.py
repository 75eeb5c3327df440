"""What a student learns that embeds sketches alone, into the gallery that the full network stores.

The gallery does not change while the student learns. So every sketch is compared with all training photos in every step,
not with those of its batch, and no photo is drawn. A flipped sketch is compared with the photos' mirror images.

Shapes: B sketches of the global batch, K canvases, G photos, D embedding size, Dt that of the full network.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sketchynet import checkpoint
from sketchynet.config import Recipe
from sketchynet.data.pairs import PairedSet
from sketchynet.losses import gallery_contrastive, triplet_rows
from sketchynet.models import AsymmetricEmbedder
from sketchynet.models.asymmetric import reduced
from sketchynet.models.embedder import Embedder
from sketchynet.ops import pairwise_distance, relational_huber
from sketchynet.raster import rasterize_sizes
from sketchynet.stages.batches import BatchPlan, PairSampler, clean_photos, draw, flipped
from sketchynet.stages.distillation import principal_directions
from sketchynet.stages.embedding import EmbeddingNetwork, in_chunks
from sketchynet.stages.networks import new_asymmetric
from sketchynet.stages.ranks import validation_score
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.teacher import full_network

Canvases = tuple[torch.Tensor, ...]
"""One uint8 (B, S, S) a canvas size."""


def new_gallery_student(recipe: Recipe, folder: RunFolder, weights: Path | None) -> AsymmetricEmbedder:
    """The student of a recipe beside the full network of the run."""
    settings = recipe.student
    _, reduction = _stored(recipe, folder)
    photos = full_network(recipe, folder)
    return new_asymmetric(settings.network, settings.canvases, weights, photos=photos, reduction=reduction)


def _stored(recipe: Recipe, folder: RunFolder) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """The full network's embeddings of the training pairs, float32 (rows, D) by name, and what reduces them (Dt, D)."""
    tables = checkpoint.read_network(folder.teacher_embeddings)
    dimensions, reduction = recipe.student.dimensions, None
    if tables["photos"].shape[1] > dimensions:
        joined = torch.cat([tables["sketches"], tables["photos"]])
        reduction = principal_directions(joined[~joined.isnan().any(dim=1)], dimensions).float()
    return {name: reduced(rows, reduction) for name, rows in tables.items()}, reduction


class GalleryExamples:
    """Sketches against the stored embeddings of the training photos: L_tri over all of them, and L_RKD.

    Of the relations, those between photos are the full network's own already; sketch–positive and sketch–negative are
    learnt.
    """

    def __init__(
        self,
        recipe: Recipe,
        pairs: PairedSet,
        folder: RunFolder,
        *,
        sketches: np.ndarray,
        seed: int,
        device: torch.device,
    ) -> None:
        """``sketches`` are those that the student is fitted on; their photos are the gallery."""
        settings = recipe.student
        self._recipe, self._pairs, self._seed = recipe, pairs, seed
        self._sampler = PairSampler(
            pairs,
            sketches,
            batch_size=settings.optimization.batch_size,
            seed=seed,
            mixed=settings.optimization.batches == "mixed",
        )
        photos = np.unique(pairs.sketch_photo[sketches])
        tables, reduction = _stored(recipe, folder)
        self._sketches = tables["sketches"]
        self._sides = [tables["photos"][photos]]
        """float32 (G, D): the photos; and where sketches are flipped, their mirror images."""
        if recipe.augmentation.flip > 0:
            network = full_network(recipe, folder).to(device)
            self._sides.append(reduced(self._mirrored(network, photos), reduction))
        self._content = torch.from_numpy(pairs.content[photos])
        self._place = np.full(len(pairs.photos), -1)
        self._place[photos] = np.arange(len(photos))

    def _mirrored(self, network: EmbeddingNetwork, photos: np.ndarray) -> torch.Tensor:
        """float32 (G, Dt): the full network's embeddings of the photos' mirror images."""
        size = self._recipe.teacher.canvas

        def chunk(rows: np.ndarray, device: torch.device) -> tuple[torch.Tensor]:
            return (network.embed_photos(clean_photos(self._pairs, photos[rows], size).flip(2).to(device)),)

        return in_chunks(network, len(photos), chunk)[0]

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """Every photo once, with one of its sketches."""
        return self._sampler.epoch(epoch)

    def compose(self, plan: BatchPlan, *, epoch: int, rows: np.ndarray) -> Canvases:
        """Augments and draws this worker's part."""
        augmentation = self._recipe.augmentation
        drawn, _ = draw(self._pairs.sketches, plan.sketches[rows], augmentation, seed=self._seed, view=epoch)
        return tuple(torch.from_numpy(canvas) for canvas in rasterize_sizes(drawn, plan.canvases))

    def outputs(self, network: Embedder, batch: Canvases, device: torch.device) -> list[torch.Tensor]:
        """Embeddings of the sketches at every canvas."""
        return [network.embed_sketches(canvas.to(device)) for canvas in batch]

    def loss(
        self, outputs: list[torch.Tensor], plan: BatchPlan, epoch: int
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """λ·L_tri + (1−λ)·L_RKD over the global batch, averaged over the canvases."""
        sketch = torch.stack(outputs)
        flips = flipped(plan.sketches, self._recipe.augmentation, seed=self._seed, view=epoch)
        ranking = relational = sketch.new_zeros(())
        for side, gallery in enumerate(self._sides):
            rows = np.flatnonzero(flips == side)
            if len(rows):
                losses = self._losses(sketch[:, rows], gallery.to(sketch.device), plan.sketches[rows])
                share = len(rows) / len(flips)
                ranking, relational = ranking + share * losses[0], relational + share * losses[1]
        settings = self._recipe.student.distillation
        relational = settings.scale * relational
        loss = settings.ranking_share * ranking + (1.0 - settings.ranking_share) * relational
        return loss, {"loss_ranking": float(ranking.detach()), "loss_relational": float(relational.detach())}

    def _losses(
        self, sketch: torch.Tensor, gallery: torch.Tensor, rows: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both losses of sketches (K, B, D), numbered ``rows``, against one side of the gallery (G, D)."""
        settings, device = self._recipe.student, sketch.device
        target = torch.from_numpy(self._place[self._pairs.sketch_photo[rows]]).to(device)
        content = self._content.to(device)
        negative = content[target][:, None] != content
        if settings.ranking.kind == "triplet":
            distance = pairwise_distance(sketch, gallery)
            margin, mining = settings.ranking.margin, settings.ranking.mining
            ranking = triplet_rows(distance, target, negative, margin=margin, mining=mining).mean()
        else:
            ranking = gallery_contrastive(sketch, gallery, target, negative, temperature=settings.ranking.temperature)
        photo = gallery[target]
        relational = relational_huber(
            self._sketches[rows].to(device),
            photo,
            sketch,
            photo,
            content=content[target],
            weights=settings.distillation.relations,
            delta=settings.distillation.huber_delta,
            normalize=settings.distillation.normalize,
        )
        return ranking, relational

    def validate(self, network: Embedder) -> dict[str, float]:
        """See :func:`validation_score`."""
        settings = self._recipe.student
        return validation_score(network, self._pairs, canvases=settings.canvases, photo_sizes=settings.gallery_sizes)
