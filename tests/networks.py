"""A distilled student as a training stage, small enough for tests, whose losses are written down step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from small import small_pairs, small_recipe

from sketchynet.models.embedder import Embedder
from sketchynet.stages.networks import new_embedder
from sketchynet.stages.retrieval import PairExamples, distillation_objective
from sketchynet.stages.training import TrainingStage


class Stop(Exception):
    """Ends a run where a kill would."""


@dataclass
class Watched:
    """Examples that remember the loss of every step, and stop the run after so many."""

    examples: PairExamples
    losses: list[float] = field(default_factory=list)
    stop: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.examples, name)

    def loss(self, outputs: list[torch.Tensor], plan: Any, epoch: int) -> tuple[torch.Tensor, dict[str, float]]:
        if len(self.losses) == self.stop:
            raise Stop
        loss, figures = self.examples.loss(outputs, plan, epoch)
        self.losses.append(float(loss.detach()))
        return loss, figures


def student_stage(*changes: str, dtype: torch.dtype = torch.float32) -> tuple[TrainingStage, Watched]:
    """A student over two canvases with triplets and distilled relations; two batches an epoch, of 12 and 11."""
    pairs = small_pairs()
    recipe = small_recipe(
        "student.network.norm=frozen",
        "student.network.normalize=true",
        "student.distillation.scale=1",
        "student.optimization.keep=last",
        "student.optimization.validate_every=100",
        *changes,
    )
    generator = torch.Generator().manual_seed(5)
    teacher = {
        "sketches": torch.randn(len(pairs.sketches), 8, generator=generator, dtype=dtype),
        "photos": torch.randn(len(pairs.photos), 8, generator=generator, dtype=dtype),
    }
    settings = recipe.student
    watched = Watched(
        PairExamples(
            recipe,
            pairs,
            distillation_objective(recipe, pairs, teacher),
            settings.optimization,
            sketches=pairs.sketch_indices(0)[:-2],  # without the last photo
            seed=3,
            canvases=settings.canvases,
            photo_sizes=settings.gallery_sizes,
        )
    )

    def build() -> Embedder:
        return new_embedder(settings.network, settings.canvases, None).to(dtype)

    stage = TrainingStage(
        name="student",
        build=build,
        examples=watched,
        plan=lambda epoch, step: (settings.canvases, settings.gallery_sizes),
        optimization=settings.optimization,
        seed=3,
        parameters={},
    )
    return stage, watched
