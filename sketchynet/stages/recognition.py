"""Recognition of what a sketch shows: what its networks learn from, and how it is ranked and rewarded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F

from sketchynet import checkpoint
from sketchynet.config import AugmentationConfig, NetworkConfig, OptimizationConfig, Recipe, RecognitionConfig
from sketchynet.data.labelled import Drawings, LabelledSet
from sketchynet.losses import logit_distillation, margin_rows
from sketchynet.models.embedder import Classifier, Embedder, Ensemble
from sketchynet.ops import relational_huber
from sketchynet.raster import rasterize, rasterize_sizes
from sketchynet.retrieval import accuracy, label_clearness, label_ranks, mean_reciprocal_rank
from sketchynet.sketch import SketchBatch
from sketchynet.stages.batches import BatchPlan, draw, shuffled_batches
from sketchynet.stages.embedding import EmbeddingNetwork, evaluating, in_chunks
from sketchynet.stages.folds import Folds, drawing_folds
from sketchynet.stages.networks import new_classifier, read_embedder
from sketchynet.stages.rewards import unique_views
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import FrozenStudents, RolloutRequest, RolloutResult, Runtime, agreed, spread
from sketchynet.stages.task import TRAIN, VALIDATION, Answers
from sketchynet.stages.teacher import full_network


def classify(network: EmbeddingNetwork, sketches: SketchBatch, canvas: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits float32 (n, C) and embeddings (n, D) on the CPU, of sketches drawn at one canvas size."""

    def chunk(rows: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = torch.from_numpy(rasterize(sketches.select(rows), canvas))
        assert isinstance(network, Classifier | Ensemble)
        return network.classify(drawn.to(device))

    logits, embeddings = in_chunks(network, len(sketches), chunk)
    return logits, embeddings


class Objective(Protocol):
    """Loss of a global batch: logits (K, B, C) and embeddings (K, B, D) over the canvases, labels int64 (B,)."""

    def __call__(
        self, logits: torch.Tensor, embeddings: torch.Tensor, labels: torch.Tensor, sketches: np.ndarray, view: int
    ) -> tuple[torch.Tensor, dict[str, float]]: ...


def label_objective(settings: RecognitionConfig) -> Objective:
    """Cross-entropy with smoothed labels, averaged over the canvases."""

    def objective(
        logits: torch.Tensor, embeddings: torch.Tensor, labels: torch.Tensor, sketches: np.ndarray, view: int
    ) -> tuple[torch.Tensor, dict[str, float]]:
        targets = labels.repeat(len(logits))
        return F.cross_entropy(logits.flatten(0, 1), targets, label_smoothing=settings.label_smoothing), {}

    return objective


def distillation_objective(recipe: Recipe, teacher: dict[str, torch.Tensor]) -> Objective:
    """λ·L_CE + (1−λ)·(L_logits + L_RKD), averaged over the canvases.

    The relations are those between drawings: the place that photos have in retrieval is taken by the same
    drawings at the largest canvas of the step, so that a drawing also learns to lie, at every canvas, where it
    lies at the largest.

    Args:
        teacher: what the full network said of every view, ``logits`` (V, S, C) and ``embeddings`` (V, S, Dt).
    """
    settings = recipe.student.distillation
    recognition = recipe.recognition
    assert recognition is not None
    labelled = label_objective(recognition)

    def objective(
        logits: torch.Tensor, embeddings: torch.Tensor, labels: torch.Tensor, sketches: np.ndarray, view: int
    ) -> tuple[torch.Tensor, dict[str, float]]:
        entropy, _ = labelled(logits, embeddings, labels, sketches, view)
        said, place = (teacher[k][view, sketches].float().to(logits.device) for k in ("logits", "embeddings"))
        distilled = recognition.logits_weight * logit_distillation(
            logits, said, temperature=recognition.temperature
        )
        relational = settings.scale * relational_huber(
            place,
            place,
            embeddings,
            embeddings[-1],
            content=torch.arange(len(labels), device=labels.device),
            weights=settings.relations,
            delta=settings.huber_delta,
            normalize=settings.normalize,
        )
        share = settings.ranking_share
        loss = share * entropy + (1.0 - share) * (distilled + relational)
        return loss, {
            "loss_labels": float(entropy.detach()),
            "loss_logits": float(distilled.detach()),
            "loss_relational": float(relational.detach()),
        }

    return objective


@dataclass(frozen=True)
class DrawingExamples:
    """Drawings with their categories, in a new view every epoch or, with ``views``, in so many by turns."""

    data: LabelledSet
    sketches: np.ndarray
    """int64: the drawings to learn from."""
    augmentation: AugmentationConfig
    objective: Objective
    optimization: OptimizationConfig
    seed: int
    canvases: tuple[int, ...]
    """Canvas sizes at which the network is validated."""
    views: int | None = None
    view_seed: int = 0

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """Every drawing once."""
        return shuffled_batches(
            self.sketches, batch_size=self.optimization.batch_size, seed=self.seed, epoch=epoch
        )

    def compose(self, plan: BatchPlan, *, epoch: int, rows: np.ndarray) -> list[torch.Tensor]:
        """Augments and draws this worker's part: uint8 (b, S, S) for every canvas of the plan, ascending."""
        drawn, _ = draw(
            self.data.sketches,
            plan.sketches[rows],
            self.augmentation,
            seed=self.view_seed if self.views else self.seed,
            view=self._view(epoch),
        )
        return [torch.from_numpy(drawing) for drawing in rasterize_sizes(drawn, plan.canvases)]

    def _view(self, epoch: int) -> int:
        return epoch % self.views if self.views else epoch

    def outputs(
        self, network: Embedder, batch: list[torch.Tensor], device: torch.device
    ) -> list[torch.Tensor]:
        """Logits and embedding at every canvas, one after the other."""
        assert isinstance(network, Classifier)
        return [rows for canvas in batch for rows in network.classify(canvas.to(device))]

    def loss(
        self, outputs: list[torch.Tensor], plan: BatchPlan, epoch: int
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The objective over the global batch."""
        logits, embeddings = torch.stack(outputs[::2]), torch.stack(outputs[1::2])
        labels = torch.from_numpy(self.data.labels[plan.sketches]).to(logits.device)
        return self.objective(logits, embeddings, labels, plan.sketches, self._view(epoch))

    def validate(self, network: Embedder) -> dict[str, float]:
        """Accuracy and mean reciprocal rank at every canvas; the score is the mean of all."""
        ranks = drawing_answers(network, self.data, VALIDATION, self.canvases).ranks
        figures: dict[str, float] = {}
        for canvas, column in zip(self.canvases, torch.from_numpy(ranks).T, strict=True):
            figures[f"validation/acc1_{canvas}"] = accuracy(column, 1)
            figures[f"validation/mrr_{canvas}"] = mean_reciprocal_rank(column)
        return figures | {"validation/score": float(np.mean(list(figures.values())))}


def drawing_answers(
    network: EmbeddingNetwork, data: LabelledSet, split: int, canvases: Sequence[int]
) -> Answers:
    """Rank of each drawing's category among all, and how clear the likeliest one is."""
    rows = data.sketch_indices(split)
    sketches, labels = data.sketches.select(rows), torch.from_numpy(data.labels[rows])
    ranks, clearness = [], []
    for size in canvases:
        logits = classify(network, sketches, size)[0]
        ranks.append(label_ranks(logits, labels).numpy())
        clearness.append(label_clearness(logits).numpy())
    return Answers(np.stack(ranks, axis=1), np.stack(clearness, axis=1))


class RecognitionWorker:
    """Answers rollout requests: the rank of the category, and in place of the triplet loss the margin loss.

    A plain object, picklable. Every drawing is judged by the student that was not fitted on it.
    """

    def __init__(
        self, data: LabelledSet, judges: Sequence[Embedder], rewarded: Sequence[np.ndarray], recipe: Recipe
    ) -> None:
        self._sketches: Drawings = data.sketches
        self._labels, self._judges = data.labels, tuple(judges)
        self._canvases, self._augmentation = recipe.student.canvases, recipe.augmentation
        self._margin, self._seed = recipe.selector.margin, recipe.seed
        self._device = torch.device("cpu")
        self._judge_of = np.full(len(data.sketches), -1, dtype=np.int64)
        for number, rows in enumerate(rewarded):
            self._judge_of[rows] = number

    def to(self, device: torch.device) -> Self:
        """The worker with its students on a device; the results are the CPU's either way."""
        self._device = device
        self._judges = tuple(judge.to(device) for judge in self._judges)
        return self

    def __call__(self, request: RolloutRequest) -> RolloutResult:
        """Ranks, margin losses and clearness of the request's rows, in its order."""
        found = RolloutResult.unknown(len(request))
        judges = self._judge_of[request.sketches]
        if (judges < 0).any():
            stranger = int(request.sketches[np.flatnonzero(judges < 0)[0]])
            raise ValueError(f"sketch number {stranger} has no student that may judge it")
        drawn, place = unique_views(self._sketches, request, self._augmentation, self._seed)
        groups = np.stack([judges, request.canvases], axis=1)
        for judge, canvas in np.unique(groups, axis=0):
            rows = np.flatnonzero((groups == (judge, canvas)).all(axis=1))
            network = self._judges[judge]
            assert isinstance(network, Classifier)
            with evaluating(network):
                pixels = rasterize(drawn.select(place[rows]), self._canvases[canvas], threads=1)
                logits = network.classify(torch.from_numpy(pixels).to(self._device))[0].float().cpu()
            labels = torch.from_numpy(self._labels[request.sketches[rows]])
            losses = margin_rows(logits.softmax(dim=1), labels, margin=self._margin)
            outcome = RolloutResult(label_ranks(logits, labels).numpy(), losses.numpy(), label_clearness(logits).numpy())
            found.put(rows, outcome)
        return found


@dataclass(frozen=True)
class Recognition:
    """The task of naming the category of a sketch."""

    recipe: Recipe
    data: LabelledSet

    @property
    def sketches(self) -> Drawings:
        """The drawings of the labelled set."""
        return self.data.sketches

    @property
    def _settings(self) -> RecognitionConfig:
        assert self.recipe.recognition is not None
        return self.recipe.recognition

    def indices(self, split: int) -> np.ndarray:
        """int64: the drawings of the split."""
        return self.data.sketch_indices(split)

    def folds(self) -> Folds:
        """By drawing, every category in the same shares."""
        return drawing_folds(self.data, self.recipe.selector, seed=self.recipe.data.seed)

    def new_network(self, config: NetworkConfig, canvases: tuple[int, ...], weights: Path | None) -> Embedder:
        """A classifier of the set's categories."""
        classes = len(self.data.category_names)
        return new_classifier(config, canvases, weights, classes=classes, dropout=self._settings.dropout)

    def new_student(self, folder: RunFolder, weights: Path | None, *, distilled: bool) -> Embedder:
        """A classifier over the student's canvases."""
        settings = self.recipe.student
        return self.new_network(settings.network, settings.canvases, weights)

    def teacher_examples(self, sketches: np.ndarray, *, seed: int) -> DrawingExamples:
        """Labels alone."""
        settings = self.recipe.teacher
        return DrawingExamples(
            self.data,
            sketches,
            self.recipe.augmentation,
            label_objective(self._settings),
            settings.optimization,
            seed,
            (settings.canvas,),
        )

    def student_examples(
        self, sketches: np.ndarray, folder: RunFolder, *, distilled: bool, seed: int, device: torch.device
    ) -> DrawingExamples:
        """Labels, and when distilled the full network's logits and relations of the same views."""
        settings = self.recipe.student
        if distilled:
            objective = distillation_objective(self.recipe, checkpoint.read_network(folder.teacher_embeddings))
        else:
            objective = label_objective(self._settings)
        return DrawingExamples(
            self.data,
            sketches,
            self.recipe.augmentation,
            objective,
            settings.optimization,
            seed,
            settings.canvases,
            self._settings.views if distilled else None,
            self._view_seed,
        )

    @property
    def _view_seed(self) -> int:
        return self.recipe.seed * 1000 + 700

    def store_teacher(self, runtime: Runtime, folder: RunFolder) -> None:
        """The full network's logits and embeddings of the seeded views of all training drawings, float16.

        Rows of other splits stay NaN, so no student can be distilled on them by mistake.
        """
        target = folder.teacher_embeddings
        if agreed(runtime, checkpoint.is_complete(target)):
            return
        network = full_network(self.recipe, folder).to(runtime.device)
        size, keeps = self.recipe.teacher.canvas, runtime.rank == 0
        shape = (self._settings.views, len(self.sketches) if keeps else 0)
        empty = float("nan")
        tables = {
            "logits": torch.full((*shape, len(self.data.category_names)), empty, dtype=torch.float16),
            "embeddings": torch.full((*shape, network.dim), empty, dtype=torch.float16),
        }
        for view in range(self._settings.views):

            def answer(rows: np.ndarray, view: int = view) -> tuple[torch.Tensor, ...]:
                drawn, _ = draw(self.sketches, rows, self.recipe.augmentation, seed=self._view_seed, view=view)
                return classify(network, drawn, size)

            for rows, (logits, embeddings) in spread(runtime, self.indices(TRAIN), answer):
                if keeps:
                    tables["logits"][view, rows] = logits.half()
                    tables["embeddings"][view, rows] = embeddings.half()
        if keeps:
            checkpoint.write_checkpoint(target, network=tables, config={"canvas": size}, metrics={})
        runtime.barrier()

    def answers(
        self, network: EmbeddingNetwork, split: int, canvases: Sequence[int], photo_sizes: Sequence[int]
    ) -> Answers:
        """See :func:`drawing_answers`."""
        return drawing_answers(network, self.data, split, canvases)

    def probabilities(self, network: EmbeddingNetwork, sketches: SketchBatch, canvas: int) -> np.ndarray:
        """float32 (n, C): probability of every category."""
        return classify(network, sketches, canvas)[0].softmax(dim=1).numpy()

    def rollouts(self, folder: RunFolder, folds: Folds) -> FrozenStudents:
        """Ranks, margin losses and clearness by the students that were not fitted on the drawing."""
        judges = [read_embedder(folder.final(name)) for name in folds.judges]
        return RecognitionWorker(self.data, judges, folds.rewarded, self.recipe)

    def scopes(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """All drawings; single categories have too few for figures of their own."""
        return {"all": np.arange(len(rows))}

    def facts(self, split: int) -> dict[str, Any]:
        """Hash of the split, number of categories."""
        return {
            "task": "recognition",
            "split_hash": self.data.split_hash,
            "gallery_count": len(self.data.category_names),
            "leaks": [],
        }

    def answer(self, row: int) -> dict[str, Any]:
        """The category's name."""
        return {"category": self.data.category_names[self.data.labels[row]]}
