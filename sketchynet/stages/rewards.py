"""Rollouts of the canvas policy: what a chosen canvas leads to, by the frozen students.

A rollout draws a view of the sketch at the chosen canvas, embeds it with a student that was not fitted on it,
and ranks that student's gallery. Worker and table know nothing of where the work is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sketchynet.augment import augment_sketches
from sketchynet.config import AugmentationConfig
from sketchynet.data.labelled import Drawings
from sketchynet.data.pairs import PairedSet
from sketchynet.losses import triplet_rows
from sketchynet.models.embedder import Embedder
from sketchynet.ops import match_rank, pairwise_distance
from sketchynet.raster import rasterize
from sketchynet.sketch import SketchBatch
from sketchynet.stages.embedding import evaluating
from sketchynet.stages.runtime import Rollout, RolloutRequest, RolloutResult

_VIEW = 77


@dataclass(frozen=True)
class Judge:
    """A frozen student with the sketches it may judge and the photos it searches."""

    student: Embedder
    sketches: np.ndarray
    """int64: sketches that this student was not fitted on."""
    photos: np.ndarray
    """int64 (g,), ascending: its gallery."""
    gallery: torch.Tensor
    """float32 (g, D): embeddings of the gallery."""


def view_sketches(
    sketches: Drawings, indices: np.ndarray, views: np.ndarray, augmentation: AugmentationConfig, seed: int
) -> SketchBatch:
    """The seeded views of some sketches; view 0 is the sketch as drawn.

    Views are never mirrored: the gallery is not, and a mirrored shoe is another shoe.
    """
    drawn = sketches.select(indices)
    changed = np.flatnonzero(views != 0)
    if not len(changed):
        return drawn
    generators = [np.random.default_rng([seed, int(views[i]), int(indices[i]), _VIEW]) for i in changed]
    still = np.zeros(len(changed), dtype=bool)
    augmented = augment_sketches(drawn.select(changed), augmentation.sketch, generators, still)
    parts = [drawn[i] for i in range(len(drawn))]
    for place, i in enumerate(changed):
        parts[i] = augmented[place]
    return SketchBatch.from_sketches(parts)


class RolloutWorker:
    """Answers rollout requests with the judges it holds; a plain object, picklable."""

    def __init__(
        self,
        pairs: PairedSet,
        judges: Sequence[Judge],
        canvases: tuple[int, ...],
        augmentation: AugmentationConfig,
        *,
        margin: float,
        seed: int,
    ) -> None:
        self._sketches = pairs.sketches
        self._sketch_photo, self._categories, self._content = pairs.sketch_photo, pairs.categories, pairs.content
        self._judges = tuple(judges)
        self._canvases = canvases
        self._augmentation = augmentation
        self._margin = margin
        self._seed = seed
        self._judge_of = np.full(len(pairs.sketches), -1, dtype=np.int64)
        for number, judge in enumerate(self._judges):
            self._judge_of[judge.sketches] = number

    def __call__(self, request: RolloutRequest) -> RolloutResult:
        """Ranks and triplet losses of the request's rows, in its order."""
        ranks = np.zeros(len(request), dtype=np.int64)
        triplets = np.zeros(len(request), dtype=np.float32)
        judges = self._judge_of[request.sketches]
        if (judges < 0).any():
            stranger = int(request.sketches[np.flatnonzero(judges < 0)[0]])
            raise ValueError(f"sketch number {stranger} has no student that may judge it")
        categories = self._categories[self._sketch_photo[request.sketches]]
        groups = np.stack([judges, request.canvases, categories], axis=1)
        for judge, canvas, category in np.unique(groups, axis=0):
            rows = np.flatnonzero((groups == (judge, canvas, category)).all(axis=1))
            part = request.part(rows)
            ranks[rows], triplets[rows] = self._judged(
                self._judges[judge], part, self._canvases[canvas], int(category)
            )
        return RolloutResult(ranks, triplets)

    def _judged(
        self, judge: Judge, request: RolloutRequest, canvas: int, category: int
    ) -> tuple[np.ndarray, np.ndarray]:
        drawn = view_sketches(self._sketches, request.sketches, request.views, self._augmentation, self._seed)
        columns = np.flatnonzero(self._categories[judge.photos] == category)
        photos = judge.photos[columns]
        wanted = self._sketch_photo[request.sketches]
        target = torch.from_numpy(np.searchsorted(photos, wanted))
        negative = torch.from_numpy(self._content[photos][None, :] != self._content[wanted][:, None])
        with evaluating(judge.student):
            queries = judge.student.embed_sketches(torch.from_numpy(rasterize(drawn, canvas, threads=1))).float()
            gallery = judge.gallery[torch.from_numpy(columns)]
            ranks = match_rank(queries, gallery, target)
            distance = pairwise_distance(queries, gallery)
            triplets = triplet_rows(distance, target, negative, margin=self._margin, mining="hard")
        return ranks.numpy(), triplets.numpy()


def in_chunks(rollout: Rollout, rows: int) -> Rollout:
    """The same rollout, asked for so many rows at a time, as a pool of actors asks."""

    def answer(request: RolloutRequest) -> RolloutResult:
        firsts = range(0, len(request), rows)
        return RolloutResult.join(rollout(request.part(slice(first, first + rows))) for first in firsts)

    return answer


class RewardTable:
    """Outcomes of every (view, sketch, canvas) that was ever asked for.

    Students and galleries are frozen and views are seeded, so an outcome never changes: a policy update that
    meets a choice again costs nothing.
    """

    def __init__(self, views: int, sketches: np.ndarray, canvases: int) -> None:
        """For the given int64 (n,) sketches, ascending."""
        self._sketches = sketches
        shape = (views, len(sketches), canvases)
        self.ranks = np.zeros(shape, dtype=np.int64)
        """int64 (views, n, canvases): 0 where unknown."""
        self.triplets = np.zeros(shape, dtype=np.float32)

    def lookup(self, request: RolloutRequest, rollout: Rollout) -> RolloutResult:
        """Outcomes of a request; unknown ones are rolled out first, each once."""
        place = (request.views, np.searchsorted(self._sketches, request.sketches), request.canvases)
        flat = np.ravel_multi_index(place, self.ranks.shape)
        unknown = np.unique(flat[self.ranks.ravel()[flat] == 0])
        if len(unknown):
            views, rows, canvases = np.unravel_index(unknown, self.ranks.shape)
            found = rollout(RolloutRequest(self._sketches[rows], views, canvases))
            self.ranks[views, rows, canvases] = found.ranks
            self.triplets[views, rows, canvases] = found.triplets
        return RolloutResult(self.ranks[place], self.triplets[place])

    @property
    def known(self) -> int:
        """Outcomes known so far."""
        return int(np.count_nonzero(self.ranks))
