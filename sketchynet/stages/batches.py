"""Batches of sketches, with their photos or alone: who is in them, and how they are drawn.

Everything random is derived from (seed, epoch, index of the sketch), never from a running generator: the
batches of an epoch are the same after a resume and for any number of workers.

Shapes: B batch, S canvas size, K canvases, P photos.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
import torch

from sketchynet.augment import PhotoAugmentation, augment_photos, augment_sketches
from sketchynet.config import AugmentationConfig
from sketchynet.data.labelled import Drawings
from sketchynet.data.pairs import PairedSet
from sketchynet.raster import rasterize_sizes
from sketchynet.sketch import SketchBatch

_ORDER, _SKETCH, _PHOTO, _FLIP, _CANVAS = range(5)
_Batch = TypeVar("_Batch")


@dataclass(frozen=True)
class PairBatch:
    """Sketches at several canvases, and their photos."""

    sketches: np.ndarray
    """int64 (B,): indices of the sketches in the paired set."""
    photos: np.ndarray
    """int64 (B,): indices of their photos."""
    canvases: tuple[torch.Tensor, ...]
    """One uint8 (B, S, S) a canvas size, 255 = ink."""
    images: tuple[torch.Tensor, ...]
    """One uint8 (B, H, H, 3) a photo size of the plan, ascending."""


@dataclass(frozen=True)
class BatchPlan:
    """What a step trains on, before anything is drawn."""

    sketches: np.ndarray
    """int64: the sketches of the global batch."""
    canvases: tuple[int, ...]
    photo_sizes: tuple[int, ...] = ()
    """Side of the photos that the sketches are compared with, one a canvas; none where no photos are drawn."""

    @property
    def galleries(self) -> list[int]:
        """The distinct photo sizes, ascending."""
        return sorted(set(self.photo_sizes))


def shuffled_batches(members: np.ndarray, *, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Global batches of an epoch: every member once, int64 (<= batch_size,) each."""
    generator = np.random.default_rng([seed, epoch, 0, _ORDER])
    return np.array_split(generator.permutation(members), -(-len(members) // batch_size))


class PairSampler:
    """Global batches of an epoch: every photo once, with one of its sketches.

    A batch holds one category, or with ``mixed`` all of them. A photo appears once a batch, so no in-batch
    negative shows the anchor's photo unless the data repeats it.
    """

    def __init__(
        self, pairs: PairedSet, sketches: np.ndarray, *, batch_size: int, seed: int, mixed: bool = False
    ) -> None:
        self._seed = seed
        self._batch_size = batch_size
        photos = pairs.sketch_photo[sketches]
        order = np.argsort(photos, kind="stable")
        self._photos, starts = np.unique(photos[order], return_index=True)
        self._drawings = np.split(sketches[order], starts[1:])
        self._groups = np.zeros(len(self._photos), np.int64) if mixed else pairs.categories[self._photos]

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The global batches of an epoch, each int64 (<= batch_size,)."""
        generator = np.random.default_rng([self._seed, epoch, 0, _ORDER])
        batches: list[np.ndarray] = []
        for group in np.unique(self._groups):
            members = generator.permutation(np.flatnonzero(self._groups == group))
            chosen = np.array([generator.choice(self._drawings[m]) for m in members], dtype=np.int64)
            batches += np.array_split(chosen, -(-len(chosen) // self._batch_size))
        return [batches[i] for i in generator.permutation(len(batches))]


def random_canvases(canvases: Sequence[int], count: int | None, *, seed: int, epoch: int, step: int) -> tuple[int, ...]:
    """``count`` of the canvas sizes, ascending; all of them where ``count`` is None."""
    if count is None or count >= len(canvases):
        return tuple(canvases)
    generator = np.random.default_rng([seed, epoch, step, _CANVAS])
    return tuple(sorted(int(c) for c in generator.choice(np.asarray(canvases), size=count, replace=False)))


def draw(
    sketches: Drawings, chosen: np.ndarray, augmentation: AugmentationConfig, *, seed: int, view: int
) -> tuple[SketchBatch, np.ndarray]:
    """The chosen sketches, augmented and perhaps flipped, and bool (n,) which of them were flipped.

    The same seed and view give a sketch the same changes, whatever batch it is in.
    """
    flips = flipped(chosen, augmentation, seed=seed, view=view)
    generators = _generators(chosen, _SKETCH, seed=seed, view=view)
    return augment_sketches(sketches.select(chosen), augmentation.sketch, generators, flips), flips


def flipped(chosen: np.ndarray, augmentation: AugmentationConfig, *, seed: int, view: int) -> np.ndarray:
    """bool (n,): which of the chosen sketches :func:`draw` flips."""
    generators = _generators(chosen, _FLIP, seed=seed, view=view)
    return np.array([g.random() < augmentation.flip for g in generators], dtype=bool)


def _generators(chosen: np.ndarray, purpose: int, *, seed: int, view: int) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, view, int(i), purpose]) for i in chosen]


def compose(
    pairs: PairedSet,
    plan: BatchPlan,
    augmentation: AugmentationConfig,
    *,
    seed: int,
    epoch: int,
    rows: np.ndarray,
) -> PairBatch:
    """Augments and draws ``rows`` (this worker's part) of a planned batch; flips meet both sides together."""
    sketches = plan.sketches[rows]
    photos = pairs.sketch_photo[sketches]
    drawn, flips = draw(pairs.sketches, sketches, augmentation, seed=seed, view=epoch)
    decoded = np.asarray(pairs.photos[photos])

    def images(size: int) -> torch.Tensor:
        generators = _generators(sketches, _PHOTO, seed=seed, view=epoch)  # afresh: every size sees the same changes
        return torch.from_numpy(augment_photos(decoded, augmentation.photo, generators, flips, size))

    return PairBatch(
        sketches=sketches,
        photos=photos,
        canvases=tuple(torch.from_numpy(drawing) for drawing in rasterize_sizes(drawn, plan.canvases)),
        images=tuple(map(images, plan.galleries)),
    )


class Prefetched(Generic[_Batch]):
    """The planned batches with this worker's share drawn, in so many parts, ahead of their use in threads.

    A batch is split over the workers into consecutive shares, so that gathering restores its order, and a share into
    consecutive parts. What is drawn depends on the plan alone: not on the number of threads.
    """

    def __init__(
        self,
        plans: Sequence[BatchPlan],
        compose: Callable[[BatchPlan, np.ndarray], _Batch],
        *,
        rank: int,
        world_size: int,
        parts: int = 1,
        drawers: int = 1,
    ) -> None:
        """``compose`` draws some rows of a plan; ``drawers`` threads draw a batch each, so many are under way."""
        self._plans, self._compose = plans, compose
        self._rank, self._world_size, self._parts, self._drawers = rank, world_size, parts, drawers
        self.waited = 0.0
        """Seconds for which the iteration has waited for a batch so far."""

    def __iter__(self) -> Iterator[tuple[BatchPlan, list[_Batch]]]:
        with ThreadPoolExecutor(self._drawers, thread_name_prefix="drawer") as pool:
            waiting = iter(self._plans)
            pending = deque((plan, pool.submit(self._share, plan)) for plan in islice(waiting, self._drawers))
            while pending:
                plan, future = pending.popleft()
                began = time.perf_counter()
                drawn = future.result()
                self.waited += time.perf_counter() - began
                pending.extend((upcoming, pool.submit(self._share, upcoming)) for upcoming in islice(waiting, 1))
                yield plan, drawn

    def _share(self, plan: BatchPlan) -> list[_Batch]:
        rows = np.array_split(np.arange(len(plan.sketches)), self._world_size)[self._rank]
        return [self._compose(plan, part) for part in np.array_split(rows, self._parts)]


def drawers_beside(device: torch.device) -> int:
    """Threads that draw batches for a network on a device.

    Where the CPU trains, one: more would take its cores. Beside a GPU, what the process has of them but one, up to eight.
    """
    return 1 if device.type == "cpu" else min(8, max(1, torch.get_num_threads() - 1))


def clean_photos(pairs: PairedSet, rows: np.ndarray, size: int) -> torch.Tensor:
    """uint8 (n, size, size, 3): photos as they are, resized."""
    return resized(np.asarray(pairs.photos[rows]), size)


def resized(photos: np.ndarray, size: int) -> torch.Tensor:
    """uint8 (n, size, size, 3): decoded photos, uint8 (n, H, W, 3), as a network that is not being trained sees them."""
    generators = [np.random.default_rng(0)] * len(photos)
    still = np.zeros(len(photos), dtype=bool)
    return torch.from_numpy(augment_photos(photos, PhotoAugmentation(), generators, still, size))
