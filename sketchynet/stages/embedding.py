"""Embeddings of many sketches or photos by a frozen network, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch

from sketchynet.data.pairs import PairedSet
from sketchynet.models import Embedder, Ensemble
from sketchynet.raster import rasterize
from sketchynet.sketch import SketchBatch
from sketchynet.stages.batches import clean_photos, resized
from sketchynet.stages.copies import ONCE, PhotoCopies

_CHUNK = 32


EmbeddingNetwork = Embedder | Ensemble
"""What turns canvases and photos into embeddings."""


_watcher: ContextVar[Callable[[int], object] | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Callable[[int], object]) -> Iterator[None]:
    """Within it, ``watcher`` is told how many more sketches or photos have been embedded, copies not counted, however deep below the caller."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


@contextmanager
def evaluating(network: EmbeddingNetwork):
    """Evaluation mode without gradients, on a CPU channels last; the former mode returns afterwards."""
    training = network.training
    network.train(False)
    if next(network.parameters()).device.type == "cpu":  # where convolutions are faster so, and norms fused
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)


def embed_sketches(network: EmbeddingNetwork, sketches: SketchBatch, canvas: int) -> torch.Tensor:
    """float32 (n, D) on the CPU: sketches drawn at one canvas size, embedded where the network lies."""

    def chunk(rows: np.ndarray, device: torch.device) -> tuple[torch.Tensor]:
        drawn = torch.from_numpy(rasterize(sketches.select(rows), canvas))
        return (network.embed_sketches(drawn.to(device)),)

    return in_chunks(network, len(sketches), chunk)[0]


def embed_photos(
    network: EmbeddingNetwork, pairs: PairedSet, rows: np.ndarray, size: int, copies: PhotoCopies = ONCE
) -> torch.Tensor:
    """float32 (n, D) on the CPU: photos of a paired set, resized to ``size``, embedded where the network lies.

    Of several copies of each photo float32 (n, C, D), the photo as it is first.
    """
    return _embedded(network, len(rows), lambda part: clean_photos(pairs, rows[part], size), copies)


def embed_galleries(
    network: EmbeddingNetwork, pairs: PairedSet, rows: np.ndarray, sizes: Iterable[int], copies: PhotoCopies = ONCE
) -> dict[int, torch.Tensor]:
    """Photos embedded at each of some sizes, which may repeat: size → embeddings as of :func:`embed_photos`."""
    return {size: embed_photos(network, pairs, rows, size, copies) for size in sorted(set(sizes))}


def embed_images(network: EmbeddingNetwork, photos: np.ndarray, size: int, copies: PhotoCopies = ONCE) -> torch.Tensor:
    """Decoded photos, uint8 (n, H, W, 3), resized to ``size``, embedded as by :func:`embed_photos`."""
    return _embedded(network, len(photos), lambda part: resized(photos[part], size), copies)


def _embedded(
    network: EmbeddingNetwork, count: int, read: Callable[[np.ndarray], torch.Tensor], copies: PhotoCopies
) -> torch.Tensor:
    """Photos 0 to ``count``, of which ``read`` gives some, uint8 (n, S, S, 3)."""

    def chunk(part: np.ndarray, device: torch.device) -> tuple[torch.Tensor]:
        images = read(part)
        embedded = [network.embed_photos(copy.to(device)) for copy in (images, *copies.moved(images))]
        return (torch.stack(embedded, dim=1) if copies.count > 1 else embedded[0],)

    return in_chunks(network, count, chunk)[0]


def in_chunks(
    network: EmbeddingNetwork,
    count: int,
    answer: Callable[[np.ndarray, torch.device], tuple[torch.Tensor, ...]],
) -> tuple[torch.Tensor, ...]:
    """What a network, evaluating, answers about rows 0 to ``count``, a chunk at a time: float32 on the CPU."""
    device = next(network.parameters()).device
    parts, watcher = [], _watcher.get()
    with evaluating(network):
        for first in range(0, max(1, count), _CHUNK):  # of no rows the network says what shape the answers have
            rows = np.arange(first, min(first + _CHUNK, count))
            parts.append([answers.float().cpu() for answers in answer(rows, device)])
            if watcher is not None:
                watcher(len(rows))
    return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))
