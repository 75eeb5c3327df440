"""Euclidean distances between all rows of two sets.

Shapes: B rows of x, G rows of y, D embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sketchynet.errors import InputError
from sketchynet.ops.backend import choose_backend


def pairwise_distance_eager(x: Tensor, y: Tensor, *, squared: bool = False) -> Tensor:
    """Reference of `pairwise_distance`: sums squared differences, pair by pair."""
    if x.dtype in (torch.float16, torch.bfloat16):
        x, y = x.float(), y.float()
    rows = x.reshape(-1, x.shape[-1])
    # Not through |x|^2 + |y|^2 - 2xy: near-equal embeddings, the ones that decide a rank, would cancel.
    distance = torch.cdist(rows, y, compute_mode="donot_use_mm_for_euclid_dist")
    distance = distance.reshape(*x.shape[:-1], len(y))
    return distance.square() if squared else distance


def pairwise_distance(x: Tensor, y: Tensor, *, squared: bool = False, backend: str = "auto") -> Tensor:
    """Euclidean distances between the rows of x (..., B, D) and of y (G, D): (..., B, G).

    Half-precision input gives float32. The relative error of a distance is at most about D units in the last
    place of the type whatever the size of the embeddings, since differences are taken before squares. The
    gradient at distance zero is zero.
    """
    choose_backend(backend)
    if x.ndim < 2 or y.ndim != 2 or x.shape[-1] != y.shape[-1] or x.dtype != y.dtype:
        raise InputError(
            f"distances need x (..., B, D) and y (G, D) of one type; got {x.dtype} {tuple(x.shape)} "
            f"and {y.dtype} {tuple(y.shape)}"
        )
    return pairwise_distance_eager(x, y, squared=squared)
