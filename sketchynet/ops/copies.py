"""Search among photos that may be stored several times each.

How far a photo is from a query is then the mean of the distances of its two nearest copies: of several the nearest alone is
near by luck too often. A gallery (G, D) goes to the operators as it is. One with copies, (G, C, D), is compared by
differences in float64, some queries at a time and without kernels.

Shapes: B queries, G photos, C copies of each, D embedding size, k photos asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sketchynet.errors import InputError
from sketchynet.ops.checks import require_finite, require_same
from sketchynet.ops.gallery import check_target_rows, check_targets
from sketchynet.ops.match_rank import match_rank
from sketchynet.ops.nearest import Nearest, nearest
from sketchynet.ops.pairwise_distance import pairwise_distance, pairwise_distance_eager

AVERAGED = 2
"""Nearest copies of a photo whose distances are averaged."""
CHUNK_ELEMENTS = 1 << 22
"""Distances of copies held at once: 32 MiB of float64."""


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
    return torch.cat(list(_chunks("photo_distance", queries, gallery)))


@torch.no_grad()
def photo_rank(queries: Tensor, gallery: Tensor, target: Tensor, *, backend: str = "auto") -> Tensor:
    """Rank of each query's true photo: int64 (B,), 1 is best; ties count against us, as in `match_rank`.

    Args:
        queries: (B, D).
        gallery: (G, D) or (G, C, D).
        target: int64 (B,), the true photo of each query.
        backend: of `match_rank`, where there are no copies.

    Raises:
        InputError: a gallery of another shape; otherwise as `match_rank`.
    """
    if gallery.ndim == 2:
        return match_rank(queries, gallery, target, backend=backend)
    check_targets("photo_rank", target, len(queries), queries.device)
    check_target_rows("photo_rank", target, len(gallery))
    ranks, first = [], 0
    for distance in _chunks("photo_rank", queries, gallery):
        true = target[first : first + len(distance), None]
        ranks.append((distance <= distance.gather(1, true)).sum(dim=1))
        first += len(distance)
    return torch.cat(ranks)


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
    if not 1 <= k <= len(gallery):
        raise InputError(f"nearest_photos: k = {k} must be between 1 and the {len(gallery)} photos of the gallery")
    found = [distance.sort(dim=1, stable=True) for distance in _chunks("nearest_photos", queries, gallery)]
    return Nearest(*(torch.cat([part[place][:, :k] for part in found]) for place in (0, 1)))


def _chunks(operator: str, queries: Tensor, gallery: Tensor) -> Iterator[Tensor]:
    """float64 (b, G): the distances of some queries at a time, of none once where there are none."""
    if queries.ndim != 2 or gallery.ndim != 3 or gallery.shape[1] == 0 or queries.shape[1] != gallery.shape[2]:
        raise InputError(
            f"{operator} needs queries (B, D) and a gallery (G, D), or (G, C, D) with C copies of every photo; got "
            f"{tuple(queries.shape)} and {tuple(gallery.shape)}"
        )
    require_same(operator, queries=queries, gallery=gallery)
    require_finite(operator, "query", queries)
    require_finite(operator, "gallery", gallery.flatten(1))
    photos, copies, _ = gallery.shape
    stored = gallery.flatten(0, 1).double()
    for some in queries.split(max(1, CHUNK_ELEMENTS // max(1, len(stored)))):
        # Pair by pair: what is equal gives equal distances, so that ties are ties.
        distance = pairwise_distance_eager(some.double(), stored).unflatten(1, (photos, copies))
        yield distance.topk(min(AVERAGED, copies), largest=False).values.mean(dim=2)
