"""Rollouts of the canvas policy: what a chosen canvas leads to, by the frozen students.

A rollout draws a view of the sketch at a canvas, embeds it with a student that was not fitted on it, and ranks that
student's gallery. Worker and table know nothing of where the work is done.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np
import torch

from sketchynet.augment import augment_sketches
from sketchynet.config import AugmentationConfig
from sketchynet.data.labelled import Drawings
from sketchynet.data.pairs import PairedSet
from sketchynet.losses import triplet_rows
from sketchynet.models.embedder import Embedder
from sketchynet.ops import photo_distance, photo_rank
from sketchynet.raster import rasterize
from sketchynet.retrieval import clearness
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
    galleries: tuple[torch.Tensor, ...]
    """float32 (g, D), or (g, C, D) of C copies of every photo, a canvas: embeddings of the gallery that a sketch on it is
    searched in, often the same one."""


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


def unique_views(
    sketches: Drawings, request: RolloutRequest, augmentation: AugmentationConfig, seed: int
) -> tuple[SketchBatch, np.ndarray]:
    """The views that a request asks about, each once, and int64 (n,) which of them each row means."""
    asked = np.stack([request.sketches, request.views], axis=1)
    unique, place = np.unique(asked, axis=0, return_inverse=True)
    return view_sketches(sketches, unique[:, 0], unique[:, 1], augmentation, seed), place.reshape(-1)


def _moved(judge: Judge, device: torch.device) -> Judge:
    """A judge on a device; canvases that share a gallery share the copy."""
    galleries = {id(gallery): gallery.to(device) for gallery in judge.galleries}
    student = judge.student.to(device)
    return replace(judge, student=student, galleries=tuple(galleries[id(gallery)] for gallery in judge.galleries))


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
        self._device = torch.device("cpu")
        self._judge_of = np.full(len(pairs.sketches), -1, dtype=np.int64)
        for number, judge in enumerate(self._judges):
            self._judge_of[judge.sketches] = number

    def __call__(self, request: RolloutRequest) -> RolloutResult:
        """Ranks, triplet losses and clearness of the request's rows, in its order."""
        found = RolloutResult.unknown(len(request))
        judges = self._judge_of[request.sketches]
        if (judges < 0).any():
            stranger = int(request.sketches[np.flatnonzero(judges < 0)[0]])
            raise ValueError(f"sketch number {stranger} has no student that may judge it")
        categories = self._categories[self._sketch_photo[request.sketches]]
        drawn, place = unique_views(self._sketches, request, self._augmentation, self._seed)
        groups = np.stack([judges, request.canvases], axis=1)
        for number, canvas in np.unique(groups, axis=0):
            rows = np.flatnonzero((groups == (number, canvas)).all(axis=1))
            judge = self._judges[number]
            with evaluating(judge.student):
                pixels = rasterize(drawn.select(place[rows]), self._canvases[canvas], threads=1)
                queries = judge.student.embed_sketches(torch.from_numpy(pixels).to(self._device)).float()
            for category in np.unique(categories[rows]):
                own = np.flatnonzero(categories[rows] == category)
                wanted = self._sketch_photo[request.sketches[rows[own]]]
                among = queries[torch.from_numpy(own).to(self._device)]
                found.put(rows[own], self._judged(judge, canvas, among, wanted, int(category)))
        return found

    def to(self, device: torch.device) -> Self:
        """The worker with its students and galleries on a device; the results are the CPU's either way."""
        self._device = device
        self._judges = tuple(_moved(judge, device) for judge in self._judges)
        return self

    def _judged(
        self, judge: Judge, canvas: int, queries: torch.Tensor, wanted: np.ndarray, category: int
    ) -> RolloutResult:
        """Of drawings embedded at a canvas, (n, D), that show the photos ``wanted``, int64 (n,), all of one category."""
        columns = np.flatnonzero(self._categories[judge.photos] == category)
        photos = judge.photos[columns]
        target = torch.from_numpy(np.searchsorted(photos, wanted)).to(self._device)
        negative = torch.from_numpy(self._content[photos][None, :] != self._content[wanted][:, None])
        gallery = judge.galleries[canvas][torch.from_numpy(columns).to(self._device)]
        ranks = photo_rank(queries, gallery, target)
        distance = photo_distance(queries, gallery)
        triplets = triplet_rows(distance.float(), target, negative.to(self._device), margin=self._margin, mining="hard")
        return RolloutResult(ranks.cpu().numpy(), triplets.cpu().numpy(), clearness(distance).cpu().numpy())


def in_chunks(rollout: Rollout, rows: int) -> Rollout:
    """The same rollout, asked for so many rows at a time, as a pool of actors asks."""

    def answer(request: RolloutRequest) -> RolloutResult:
        firsts = range(0, len(request), rows)
        return RolloutResult.join(rollout(request.part(slice(first, first + rows))) for first in firsts)

    return answer


class RewardTable:
    """Outcomes of every canvas for every view of a sketch that was ever asked for; a context manager.

    Students and galleries are frozen and views are seeded, so an outcome never changes, and it does not depend on the
    policy: all canvases of a view are rolled out together, once, and reused by every later update and every price.
    That is also why rollouts may run ahead of the learner (:meth:`prepare`) without ever being stale: the policy
    that samples a canvas is always the newest one, whatever the order in which outcomes arrive. The staleness bound
    is zero updates.
    """

    def __init__(self, views: int, sketches: np.ndarray, canvases: int, rollout: Rollout) -> None:
        """For the given int64 (n,) sketches, ascending; ``rollout`` is called in a thread of the table's own."""
        self._sketches = sketches
        self._rollout = rollout
        self.outcomes = RolloutResult.unknown(views, len(sketches), canvases)
        """Of every canvas for every view of every sketch, (views, n, canvases)."""
        self.waited = 0.0
        """Seconds for which whoever asked has waited so far."""
        self._asked = np.zeros((views, len(sketches)), dtype=bool)
        self._pending: deque[tuple[np.ndarray, np.ndarray, Future[RolloutResult]]] = deque()
        self._thread = ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix="rollouts",
            initializer=torch.set_num_threads,  # as many as here, whatever the learner sets for itself later
            initargs=(torch.get_num_threads(),),
        )

    def prepare(self, sketches: np.ndarray, views: np.ndarray) -> None:
        """Starts to roll out all canvases of these views, int64 (n,) each, where they are not known yet."""
        rows = np.searchsorted(self._sketches, sketches)
        flat = np.unique(np.ravel_multi_index((views, rows), self._asked.shape))
        flat = flat[~self._asked.ravel()[flat]]
        views, rows = np.unravel_index(flat, self._asked.shape)
        new = (self.outcomes.ranks[views, rows] == 0).any(axis=1)  # those of a resumed run are there already
        views, rows = views[new], rows[new]
        if not len(rows):
            return
        self._asked[views, rows] = True
        canvases = self.outcomes.ranks.shape[2]
        # Canvas by canvas: what is answered together is then of one size, and embedded in few large batches.
        request = RolloutRequest(
            np.tile(self._sketches[rows], canvases),
            np.tile(views, canvases),
            np.repeat(np.arange(canvases), len(rows)),
        )
        self._pending.append((views, rows, self._thread.submit(self._rollout, request)))

    def lookup(self, request: RolloutRequest) -> RolloutResult:
        """Outcomes of a request; waits for those that are under way, and rolls out unknown ones first."""
        self.prepare(request.sketches, request.views)
        place = (request.views, np.searchsorted(self._sketches, request.sketches), request.canvases)
        while (self.outcomes.ranks[place] == 0).any():
            views, rows, found = self._pending.popleft()
            began = time.perf_counter()
            outcome = found.result()
            self.waited += time.perf_counter() - began
            # Asked for canvas by canvas: (canvases, n), where the table has (n, canvases).
            table = np.arange(len(outcome.ranks)).reshape(-1, len(rows)).T
            self.outcomes.put((views, rows), outcome.at(table))
        return self.outcomes.at(place)

    def as_drawn(self) -> RolloutResult:
        """Outcomes (n, canvases) of every sketch as drawn, view 0, on every canvas; rolls out what is not known."""
        count, canvases = self.outcomes.ranks.shape[1:]
        rows, canvas = np.divmod(np.arange(count * canvases), canvases)
        found = self.lookup(RolloutRequest(self._sketches[rows], np.zeros(len(rows), np.int64), canvas))
        return found.at(np.arange(count * canvases).reshape(count, canvases))

    @property
    def known(self) -> int:
        """Outcomes known so far."""
        return int(np.count_nonzero(self.outcomes.ranks))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)
