"""Rank of the true photo in a gallery.

Shapes: B queries, G gallery rows, D embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sketchynet.errors import InputError
from sketchynet.ops.backend import choose_backend
from sketchynet.ops.pairwise_distance import pairwise_distance_eager

CHUNK_ELEMENTS = 1 << 24  # distances held at once: 64 MiB of float32


def match_rank_eager(queries: Tensor, gallery: Tensor, target: Tensor) -> Tensor:
    """Reference of `match_rank`: distances in chunks of queries."""
    rows = max(1, CHUNK_ELEMENTS // max(1, len(gallery)))
    ranks = []
    for start in range(0, len(queries), rows):
        distance = pairwise_distance_eager(queries[start : start + rows], gallery)
        # Taken from the same matrix, the true distance is bit-equal to that of a duplicate: they tie.
        true = distance.gather(1, target[start : start + rows, None])
        ranks.append((distance <= true).sum(dim=1))  # the true photo itself counts as the 1
    return torch.cat(ranks) if ranks else target.new_zeros(0)


def _require_finite(rows: Tensor, name: str) -> None:
    bad = ~torch.isfinite(rows).all(dim=1)
    if bool(bad.any()):
        first = int(bad.nonzero()[0, 0])
        raise InputError(
            f"{name} row {first} of {len(rows)} is not finite ({int(bad.sum())} such rows): "
            "the network that made it has diverged"
        )


@torch.no_grad()
def match_rank(queries: Tensor, gallery: Tensor, target: Tensor, *, backend: str = "auto") -> Tensor:
    """Rank of each query's true gallery row by Euclidean distance: int64 (B,), 1 is best, G worst.

    rank = 1 + number of other gallery rows at most as far as the true one: ties count against us, so that
    collapsed embeddings score last. NaN or infinity in any row raises InputError with the row's number.

    Args:
        queries: float (B, D).
        gallery: float (G, D).
        target: int64 (B,), the true row of each query.
    """
    choose_backend(backend)
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise InputError(
            "match_rank needs queries (B, D) and gallery (G, D); "
            f"got {tuple(queries.shape)} and {tuple(gallery.shape)}"
        )
    if target.shape != (len(queries),) or target.dtype != torch.int64:
        raise InputError(f"target must be int64 ({len(queries)},); got {target.dtype} {tuple(target.shape)}")
    outside = (target < 0) | (target >= len(gallery))
    if bool(outside.any()):
        row = int(outside.nonzero()[0, 0])
        raise InputError(f"target {int(target[row])} of query {row} is no row of a gallery of {len(gallery)}")
    _require_finite(queries, "query")
    _require_finite(gallery, "gallery")
    return match_rank_eager(queries, gallery, target)
