"""Retrieval of the photo that a sketch shows: what its networks learn from, and how it is ranked and rewarded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sketchynet import checkpoint
from sketchynet.config import NetworkConfig, OptimizationConfig, Recipe
from sketchynet.data.pairs import PairedSet
from sketchynet.models.embedder import Embedder
from sketchynet.retrieval import category_clearness
from sketchynet.stages.batches import BatchPlan, PairBatch, PairSampler, compose
from sketchynet.stages.copies import PhotoCopies
from sketchynet.stages.distillation import (
    LevelSupervision,
    Objective,
    distillation_objective,
    ranking_objective,
)
from sketchynet.stages.embedding import EmbeddingNetwork, embed_galleries, embed_photos, embed_sketches
from sketchynet.stages.folds import Folds, make_folds
from sketchynet.stages.networks import new_embedder, read_embedder
from sketchynet.stages.ranks import ranks_of, validation_score
from sketchynet.stages.rewards import Judge, RolloutWorker
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import FrozenStudents, Runtime, agreed, spread
from sketchynet.stages.search_head import searched
from sketchynet.stages.stored_gallery import GalleryExamples, new_gallery_student
from sketchynet.stages.task import TRAIN, Answers
from sketchynet.stages.teacher import full_network


class PairExamples:
    """Sketch–photo pairs, flipped and changed together."""

    def __init__(
        self,
        recipe: Recipe,
        pairs: PairedSet,
        objective: Objective,
        optimization: OptimizationConfig,
        *,
        sketches: np.ndarray,
        seed: int,
        canvases: tuple[int, ...],
        photo_sizes: tuple[int, ...],
        levels: LevelSupervision | None = None,
    ) -> None:
        """``canvases``, and the photo size of each, are those at which the network is validated."""
        self.levels = levels
        self._pairs, self._objective, self._augmentation = pairs, objective, recipe.augmentation
        self._canvases, self._photo_sizes, self._seed = canvases, photo_sizes, seed
        self._sampler = PairSampler(
            pairs,
            sketches,
            batch_size=optimization.batch_size,
            seed=seed,
            mixed=optimization.batches == "mixed",
        )

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """Every photo once, with one of its sketches."""
        return self._sampler.epoch(epoch)

    def compose(self, plan: BatchPlan, *, epoch: int, rows: np.ndarray) -> PairBatch:
        """Augments and draws this worker's part."""
        return compose(self._pairs, plan, self._augmentation, seed=self._seed, epoch=epoch, rows=rows)

    def outputs(self, network: Embedder, batch: PairBatch, device: torch.device) -> list[torch.Tensor]:
        """Embeddings of the photos at every size, then of the sketches at every canvas; regressed features and levels as
        further columns."""
        levels = self.levels
        with network.reading(levels.numbers, levels.fields) if levels is not None else nullcontext():
            photos = [network.embed_photos(images.to(device)) for images in batch.images]
            embedded = [*photos, *(network.embed_sketches(canvas.to(device)) for canvas in batch.canvases)]
        if network.regressor is None:
            return embedded
        # Each worker regresses its own rows: gathered first, the layer's gradient would count once a worker.
        apart = [rows.tensor_split([network.dim], dim=1) for rows in embedded]
        return [torch.cat([rows, network.regressor(rows), read], dim=1) for rows, read in apart]

    def loss(
        self, outputs: list[torch.Tensor], plan: BatchPlan, epoch: int
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The objective over the global batch: the mean over the canvases, each beside the photos of its size."""
        sizes, photos = plan.galleries, self._pairs.sketch_photo[plan.sketches]
        read = sum(self.levels.sizes) if self.levels is not None else 0
        apart = [rows.tensor_split([rows.shape[1] - read], dim=1) for rows in outputs]
        sketch = apart[len(sizes) :]
        loss, figures = outputs[0].new_zeros(()), dict[str, float]()
        for size, (photo, shown) in zip(sizes, apart, strict=False):
            among = [rows for rows, own in zip(sketch, plan.photo_sizes, strict=True) if own == size]
            part, parts = self._objective([rows for rows, _ in among], photo, plan.sketches, photos)
            if self.levels is not None:
                supervised = self.levels.loss([drawn for _, drawn in among], shown, plan.sketches, photos)
                part, parts = part + self.levels.weight * supervised, parts | {"loss_levels": float(supervised.detach())}
            share = len(among) / len(sketch)
            loss = loss + share * part
            figures = {name: figures.get(name, 0.0) + share * value for name, value in parts.items()}
        return loss, figures

    def validate(self, network: Embedder) -> dict[str, float]:
        """See :func:`validation_score`."""
        return validation_score(network, self._pairs, canvases=self._canvases, photo_sizes=self._photo_sizes)


@dataclass(frozen=True)
class Retrieval:
    """The task of finding the photo that a sketch shows."""

    recipe: Recipe
    pairs: PairedSet

    @property
    def sketches(self):
        """The sketches of the paired set."""
        return self.pairs.sketches

    def indices(self, split: int) -> np.ndarray:
        """int64: the sketches whose photo is in the split."""
        return self.pairs.sketch_indices(split)

    def folds(self) -> Folds:
        """By photo, pictures that repeat together."""
        return make_folds(self.pairs, self.recipe.selector, seed=self.recipe.data.seed)

    def new_network(self, config: NetworkConfig, canvases: tuple[int, ...], weights: Path | None) -> Embedder:
        """An embedder, shared between sketch and photo."""
        return new_embedder(config, canvases, weights)

    def new_student(self, folder: RunFolder, weights: Path | None, *, distilled: bool) -> Embedder:
        """An embedder over the student's canvases: of both sides, or of sketches beside the full network."""
        settings = self.recipe.student
        if distilled and settings.gallery == "full":
            return new_gallery_student(self.recipe, folder, weights)
        network = self.new_network(settings.network, settings.canvases, weights)
        if distilled and settings.distillation.kind == "features":
            network.add_regressor(settings.distillation.components)
        return network

    def teacher_examples(self, sketches: np.ndarray, *, seed: int) -> PairExamples:
        """Pairs under the ranking loss."""
        settings = self.recipe.teacher
        return PairExamples(
            self.recipe,
            self.pairs,
            ranking_objective(settings.ranking, self.pairs),
            settings.optimization,
            sketches=sketches,
            seed=seed,
            canvases=(settings.canvas,),
            photo_sizes=(settings.canvas,),
            levels=LevelSupervision.of(settings.ranking, settings.network.backbone, self.pairs),
        )

    def student_examples(
        self, sketches: np.ndarray, folder: RunFolder, *, distilled: bool, seed: int, device: torch.device
    ) -> PairExamples | GalleryExamples:
        """Pairs under the ranking loss, or under its mixture with the distilled relations; or sketches alone."""
        settings = self.recipe.student
        if distilled and settings.gallery == "full":
            return GalleryExamples(self.recipe, self.pairs, folder, sketches=sketches, seed=seed, device=device)
        if distilled:
            teacher = checkpoint.read_network(folder.teacher_embeddings)
            objective = distillation_objective(self.recipe, self.pairs, teacher)
        else:
            objective = ranking_objective(settings.ranking, self.pairs)
        share = settings.distillation.ranking_share if distilled else 1.0
        return PairExamples(
            self.recipe,
            self.pairs,
            objective,
            settings.optimization,
            sketches=sketches,
            seed=seed,
            canvases=settings.canvases,
            photo_sizes=settings.gallery_sizes,
            levels=LevelSupervision.of(settings.ranking, settings.network.backbone, self.pairs, share=share),
        )

    def store_teacher(self, runtime: Runtime, folder: RunFolder) -> None:
        """The full network's embeddings of all training pairs, of clean inputs.

        Rows of other splits are not embedded (they stay NaN), so no student can be distilled on them by mistake.
        """
        target, pairs = folder.teacher_embeddings, self.pairs
        if agreed(runtime, checkpoint.is_complete(target)):
            return
        network = full_network(self.recipe, folder).to(runtime.device)
        size, keeps = self.recipe.teacher.canvas, runtime.rank == 0

        def table(count: int, rows: np.ndarray, embed: Callable[[np.ndarray], torch.Tensor]) -> torch.Tensor:
            filled = torch.full((count if keeps else 0, network.dim), float("nan"))
            for block, (embeddings,) in spread(runtime, rows, lambda own: (embed(own),)):
                if keeps:
                    filled[block] = embeddings
            return filled

        tables = {
            "sketches": table(
                len(pairs.sketches),
                pairs.sketch_indices(TRAIN),
                lambda rows: embed_sketches(network, pairs.sketches.select(rows), size),
            ),
            "photos": table(
                len(pairs.photos), pairs.photo_indices(TRAIN), lambda rows: embed_photos(network, pairs, rows, size)
            ),
        }
        if keeps:
            checkpoint.write_checkpoint(target, network=tables, config={"canvas": size}, metrics={})
        runtime.barrier()

    def answers(
        self, network: EmbeddingNetwork, split: int, canvases: Sequence[int], photo_sizes: Sequence[int]
    ) -> Answers:
        """Rank of each sketch's photo among the split's photos of its category; the nearest photo's clearness."""
        pairs = self.pairs
        rows, photos = pairs.sketch_indices(split), pairs.photo_indices(split)
        galleries = embed_galleries(network, pairs, photos, photo_sizes, PhotoCopies.of(self.recipe))
        drawn = pairs.sketches.select(rows)
        categories = [torch.from_numpy(pairs.categories[p]) for p in (pairs.sketch_photo[rows], photos)]
        ranks, clearness = [], []
        for size, photo_size in zip(canvases, photo_sizes, strict=True):
            queries, gallery = embed_sketches(network, drawn, size), galleries[photo_size]
            ranks.append(ranks_of(pairs, rows, queries, photos, gallery).numpy())
            clearness.append(category_clearness(queries, categories[0], gallery, categories[1]).numpy())
        return Answers(np.stack(ranks, axis=1), np.stack(clearness, axis=1))

    def rollouts(self, folder: RunFolder, folds: Folds) -> FrozenStudents:
        """Ranks, triplet losses and clearness by the students that were not fitted on the sketch."""
        recipe = self.recipe
        judges, sizes = [], recipe.student.gallery_sizes
        for name, rewarded, photos in zip(folds.judges, folds.rewarded, folds.galleries, strict=True):
            judge = read_embedder(searched(recipe, folder, name))
            galleries = embed_galleries(judge, self.pairs, photos, sizes, PhotoCopies.of(recipe))
            judges.append(Judge(judge, rewarded, photos, tuple(galleries[size] for size in sizes)))
        return RolloutWorker(
            self.pairs,
            judges,
            recipe.student.canvases,
            recipe.augmentation,
            margin=recipe.selector.margin,
            seed=recipe.seed,
        )

    def scopes(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """All queries, and those of each category where there are several."""
        categories = self.pairs.categories[self.pairs.sketch_photo[rows]]
        scopes = {"all": np.arange(len(rows))}
        present = np.unique(categories)
        if len(present) > 1:
            scopes |= {self.pairs.category_names[c]: np.flatnonzero(categories == c) for c in present}
        return scopes

    def facts(self, split: int) -> dict[str, Any]:
        """Hash of the split, photos in the gallery, pictures on both sides of the split."""
        return {
            "split_hash": self.pairs.split_hash,
            "gallery_count": len(self.pairs.photo_indices(split)),
            "leaks": [list(pair) for pair in self.pairs.leaks()],
        }

    def answer(self, row: int) -> dict[str, Any]:
        """The id of the photo."""
        return {"photo": self.pairs.photo_ids[self.pairs.sketch_photo[row]]}
