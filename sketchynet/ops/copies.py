"""Search among photos that may be stored several times each.

How far a photo is from a query, is then the mean of the distances of its two nearest copies: of many copies the nearest alone
is near by luck too often. A gallery (G, D) goes to the operators as it is. One with copies, (G, C, D), is compared in
float64, a few queries at a time.

Shapes: B queries, G photos, C copies of each, D embedding size, k photos asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sketchynet.errors import InputError
from sketchynet.ops.gallery import check_target_rows, check_targets
from sketchynet.ops.match_rank import match_rank
from sketchynet.ops.nearest import Nearest, nearest
from sketchynet.ops.pairwise_distance import pairwise_distance

AVERAGED = 2
"""Nearest copies of a photo whose distances are averaged."""
CHUNK_ELEMENTS = 1 << 22
"""Distances held at once: 32 MiB of float64."""


def photo_distance(queries: Tensor, gallery: Tensor) -> Tensor:
    """Euclidean distance of each query to each photo, where there are copies the mean of the two nearest: (B, G).

    Args:
        queries: (B, D).
        gallery: (G, D), whose result is that of `pairwise_distance`, or (G, C, D), whose result is float64.

    Raises:
        InputError: a gallery of another shape; otherwise as `pairwise_distance`.
    """
    if gallery.ndim == 2:
        return pairwise_distance(queries, gallery)
    if gallery.ndim != 3:
        raise InputError(f"a gallery is (G, D), or (G, C, D) with C copies of every photo, not {tuple(gallery.shape)}")
    photos, copies, _ = gallery.shape
    stored = gallery.flatten(0, 1).double()
    parts = []
    for some in queries.split(max(1, CHUNK_ELEMENTS // max(1, len(stored)))):
        distance = pairwise_distance(some.double(), stored, backend="eager").unflatten(1, (photos, copies))
        parts.append(distance.topk(min(AVERAGED, copies), largest=False).values.mean(dim=2))
    return torch.cat(parts)


@torch.no_grad()
def photo_rank(queries: Tensor, gallery: Tensor, target: Tensor, *, backend: str = "auto") -> Tensor:
    """Rank of each query's true photo: int64 (B,), 1 is best; ties count against us, as in `match_rank`.

    Args:
        queries: (B, D).
        gallery: (G, D) or (G, C, D).
        target: int64 (B,), the true photo of each query.
        backend: of `match_rank`; copies are counted without kernels.

    Raises:
        InputError: a gallery of another shape; otherwise as `match_rank`.
    """
    if gallery.ndim == 2:
        return match_rank(queries, gallery, target, backend=backend)
    check_targets("photo_rank", target, len(queries), queries.device)
    check_target_rows("photo_rank", target, len(gallery))
    distance = photo_distance(queries, gallery)
    return (distance <= distance.gather(1, target[:, None])).sum(dim=1)


@torch.no_grad()
def nearest_photos(queries: Tensor, gallery: Tensor, k: int) -> Nearest:
    """The k nearest photos of each query, nearest first; of equal distances the lower number comes first.

    Args:
        queries: (B, D).
        gallery: (G, D) or (G, C, D). Rows of the result number photos, not copies.
        k: 1 to G.

    Raises:
        InputError: a gallery of another shape, or k outside of it; otherwise as `nearest`.
    """
    if gallery.ndim == 2:
        return nearest(queries, gallery, k)
    distance = photo_distance(queries, gallery)
    if not 1 <= k <= distance.shape[1]:
        raise InputError(f"nearest_photos: k = {k} must be between 1 and the {distance.shape[1]} photos of the gallery")
    sorted_distance, order = distance.sort(dim=1, stable=True)
    return Nearest(sorted_distance[:, :k], order[:, :k])
