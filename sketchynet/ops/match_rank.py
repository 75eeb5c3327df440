"""Rank of the true photo in a gallery.

Shapes: B queries, G gallery rows, D embedding size, n rows of a chunk.

The gallery streams by in chunks. Products of a chunk decide nearly every comparison with the true photo's distance;
those inside the bound of rounding (see `bounds`) are decided by squared differences in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sketchynet.ops.backend import choose_backend
from sketchynet.ops.bounds import bounds, exact_squared, row_squares
from sketchynet.ops.checks import require_finite, require_floats
from sketchynet.ops.gallery import Gallery, GalleryRows, check_target_rows, check_targets
from sketchynet.ops.pairwise_distance import accumulating

CHUNK_ELEMENTS = 1 << 21
"""Products held at once: 8 MiB of float32, which lie in a processor's cache."""
PAIRS = 1 << 16
"""Unsure pairs decided at once."""


def match_rank_eager(queries: Tensor, gallery: Gallery, target: Tensor) -> Tensor:
    """Reference of `match_rank`: squared differences in float64 alone, a few queries and gallery rows at a time."""
    rows = GalleryRows("match_rank", queries, gallery)
    every = torch.arange(len(queries), device=queries.device)
    true = exact_squared(queries, every, rows.take(target), every)
    ranks = torch.zeros_like(target)
    for _, chunk in rows.chunks(1024):
        columns = torch.arange(len(chunk), device=queries.device)
        for query in range(len(queries)):
            distance = exact_squared(queries, torch.full_like(columns, query), chunk, columns)
            ranks[query] += (distance <= true[query]).sum()
    return ranks


def _count_chunk(
    queries: Tensor, chunk: Tensor, low: Tensor, high: Tensor, above: Tensor, below: Tensor, true: Tensor
) -> Tensor:
    """int64 (B,): rows of the chunk at most as far as the true one."""
    products = accumulating(queries) @ accumulating(chunk).T
    nearer = above - products < low[:, None]
    counts = nearer.sum(dim=1)
    unsure = (~nearer & ~(below - products > high[:, None])).nonzero()
    for part in unsure.split(PAIRS):
        i, j = part.unbind(1)
        counts.index_add_(0, i, (exact_squared(queries, i, chunk, j) <= true[i]).long())
    return counts


def _match_rank(queries: Tensor, rows: GalleryRows, target: Tensor) -> Tensor:
    every = torch.arange(len(queries), device=queries.device)
    true = exact_squared(queries, every, rows.take(target), every)
    x_squares = row_squares(queries)
    threshold = (true - x_squares) / 2.0
    ranks = torch.zeros_like(target)
    for first, chunk in rows.chunks(chunk_rows(queries)):
        rows.check(first, chunk)
        bound = bounds(x_squares, row_squares(chunk), queries.shape[1], queries.dtype)
        low, high = bound.cuts(threshold)
        ranks += _count_chunk(queries, chunk, low, high, bound.above, bound.below, true)
    return ranks


def chunk_rows(queries: Tensor) -> int:
    # Whole cache lines in every row of the products, without which a matrix product takes 1.3 times as long.
    return max(256, CHUNK_ELEMENTS // len(queries) // 256 * 256)


def _match_rank_native(queries: Tensor, rows: GalleryRows, target: Tensor) -> Tensor:
    from sketchynet.ops.native import NativeCounter

    counter = NativeCounter(queries, rows.take(target))
    for first, chunk in rows.chunks(chunk_rows(queries)):
        if not counter.add(chunk):
            rows.check(first, chunk)
    return counter.counts


@torch.no_grad()
def match_rank(queries: Tensor, gallery: Gallery, target: Tensor, *, backend: str = "auto") -> Tensor:
    """Rank of each query's true gallery row by Euclidean distance: int64 (B,), 1 is best, G worst.

    rank = 1 + number of other gallery rows at most as far as the true one: ties count against us, so that
    collapsed embeddings score last, and a duplicate of the true photo ties with it. Ranks are those of squared
    differences in float64, whatever the type of the embeddings and the arithmetic of the products. No matrix of
    distances is stored: memory is O(B·D) and chunks of a fixed size (64 MiB on the CPU).

    Args:
        queries: float32, bfloat16, float16 or float64 (B, D).
        gallery: (G, D) of the same type: a tensor where the queries lie; or on the host, also a numpy array or
            memory map, from where it streams to the queries' device.
        target: int64 (B,), the true row of each query.
        backend: "auto", "eager" or "triton".

    Raises:
        InputError: shapes, types or devices that do not fit, an empty gallery, a target outside of it, or a row that
            is not finite, each with its number; a backend that cannot run here.
    """
    with torch.autocast(queries.device.type, enabled=False):
        require_floats("match_rank", queries=queries)
        rows = GalleryRows("match_rank", queries, gallery)
        check_targets("match_rank", target, len(queries), queries.device)
        chosen = choose_backend(backend, queries)
        if len(queries) == 0:
            return target.new_zeros(0)
        if chosen == "triton":
            from sketchynet.ops.kernels.match_rank import match_rank_triton

            return match_rank_triton(queries, rows, target)
        check_target_rows("match_rank", target, len(rows))
        require_finite("match_rank", "query", queries)
        if queries.device.type == "cpu" and queries.dtype != torch.float64:
            return _match_rank_native(queries, rows, target)
        return _match_rank(queries, rows, target)
