"""Embeddings of many sketches or photos by a frozen network, batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import torch

from sketchynet.data.pairs import PairedSet
from sketchynet.models import Embedder, Ensemble
from sketchynet.raster import rasterize
from sketchynet.sketch import SketchBatch
from sketchynet.stages.batches import clean_photos

_CHUNK = 32


EmbeddingNetwork = Embedder | Ensemble
"""What turns canvases and photos into embeddings."""


@contextmanager
def evaluating(network: EmbeddingNetwork):
    """Evaluation mode without gradients; the former mode returns afterwards."""
    training = network.training
    network.train(False)
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)


def embed_sketches(network: EmbeddingNetwork, sketches: SketchBatch, canvas: int) -> torch.Tensor:
    """float32 (n, D) on the CPU: sketches drawn at one canvas size, embedded where the network lies."""

    def chunk(rows: np.ndarray) -> torch.Tensor:
        drawn = torch.from_numpy(rasterize(sketches.select(rows), canvas))
        return network.embed_sketches(drawn.to(_device(network)))

    return _in_chunks(network, len(sketches), chunk)


def embed_photos(network: EmbeddingNetwork, pairs: PairedSet, rows: np.ndarray, size: int) -> torch.Tensor:
    """float32 (n, D) on the CPU: photos of a paired set, resized to ``size``, embedded where the network lies."""

    def chunk(part: np.ndarray) -> torch.Tensor:
        return network.embed_photos(clean_photos(pairs, rows[part], size).to(_device(network)))

    return _in_chunks(network, len(rows), chunk)


def _device(network: EmbeddingNetwork) -> torch.device:
    return next(network.parameters()).device


def _in_chunks(
    network: EmbeddingNetwork, count: int, embed: Callable[[np.ndarray], torch.Tensor]
) -> torch.Tensor:
    with evaluating(network):
        firsts = range(0, count, _CHUNK)
        parts = [embed(np.arange(first, min(first + _CHUNK, count))).float().cpu() for first in firsts]
    return torch.cat(parts) if parts else torch.zeros(0, network.dim)
