"""The nearest photos of a gallery.

Shapes: B queries, G gallery rows, D embedding size, k rows asked for, n rows of a chunk.

The gallery streams by in chunks. Of each chunk the rows that may be among the k nearest, given the bound of rounding
of their products (see `bounds`) and the k nearest so far, are decided by squared differences in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sketchynet.errors import InputError
from sketchynet.ops.backend import choose_backend
from sketchynet.ops.bounds import Bounds, bounds, exact_squared, row_squares
from sketchynet.ops.checks import require_finite, require_floats
from sketchynet.ops.gallery import Gallery, GalleryRows
from sketchynet.ops.match_rank import chunk_rows
from sketchynet.ops.pairwise_distance import accumulating

START = 4096
"""Rows of the first chunk: what is nearest among them spares most of the later ones."""


class Nearest(NamedTuple):
    """The k nearest gallery rows of each query, the nearest first; of equal distances the lower row comes first."""

    distance: Tensor
    """Euclidean, float32 (float64 of float64) (B, k)."""
    row: Tensor
    """Of the gallery, int64 (B, k)."""


class Best:
    """The k nearest rows seen so far."""

    def __init__(self, queries: int, k: int, device: torch.device) -> None:
        self.squared = torch.full((queries, k), float("inf"), dtype=torch.float64, device=device)
        self.index = torch.full((queries, k), torch.iinfo(torch.int64).max, device=device)

    def merge(self, i: Tensor, j: Tensor, squared: Tensor) -> None:
        """Takes in rows j with their squared distances to queries i, all (n,), each pair once."""
        count, k = self.squared.shape
        every = torch.arange(count, device=i.device)
        i = torch.cat([every.repeat_interleave(k), i])
        j = torch.cat([self.index.flatten(), j])
        squared = torch.cat([self.squared.flatten(), squared])
        order = j.argsort(stable=True)
        order = order[squared[order].argsort(stable=True)]
        order = order[i[order].argsort(stable=True)]
        i = i[order]
        place = torch.arange(len(i), device=i.device) - torch.searchsorted(i, every)[i]
        kept = order[place < k]
        self.squared, self.index = squared[kept].view(count, k), j[kept].view(count, k)

    def close(self, dtype: torch.dtype) -> Nearest:
        return Nearest(self.squared.sqrt().to(torch.float64 if dtype == torch.float64 else torch.float32), self.index)


def nearest_eager(queries: Tensor, gallery: Gallery, k: int) -> Nearest:
    """Reference of `nearest`: squared differences in float64 alone, a few queries and gallery rows at a time."""
    rows = GalleryRows("nearest", queries, gallery)
    best = Best(len(queries), k, queries.device)
    for first, chunk in rows.chunks(1024):
        columns = torch.arange(len(chunk), device=queries.device)
        for query in range(len(queries)):
            i = torch.full_like(columns, query)
            best.merge(i, first + columns, exact_squared(queries, i, chunk, columns))
    return best.close(queries.dtype)


def may_be_nearest(
    queries: Tensor, chunk: Tensor, bound: Bounds, threshold: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs i, j of a chunk that may be among the k nearest, with their squared distances.

    threshold: float64 (B,), F of the k-th nearest row so far, infinite before there is one.
    """
    products = accumulating(queries) @ accumulating(chunk).T
    _, cut = bound.cuts(threshold)
    if len(chunk) >= k:
        # k rows lie at most so far, whatever rounding did to their products.
        upper = (bound.above - products).nan_to_num_(nan=float("inf"))
        kth = upper.topk(k, dim=1, largest=False, sorted=False).values.amax(dim=1).double()
        cut = torch.minimum(cut, (kth + 2.0 * bound.query + 4.0 * bound.unit * kth.abs()).to(cut.dtype))
    i, j = (~(bound.below - products > cut[:, None])).nonzero(as_tuple=True)
    return i, j, exact_squared(queries, i, chunk, j)


def _nearest(queries: Tensor, rows: GalleryRows, k: int) -> Nearest:
    best = Best(len(queries), k, queries.device)
    x_squares = row_squares(queries)
    for first, chunk in rows.chunks(chunk_rows(queries)):
        rows.check(first, chunk)
        bound = bounds(x_squares, row_squares(chunk), queries.shape[1], queries.dtype)
        i, j, squared = may_be_nearest(queries, chunk, bound, (best.squared[:, -1] - x_squares) / 2.0, k)
        best.merge(i, first + j, squared)
    return best.close(queries.dtype)


@torch.no_grad()
def nearest(queries: Tensor, gallery: Gallery, k: int, *, backend: str = "auto") -> Nearest:
    """The k nearest gallery rows of each query by Euclidean distance, nearest first.

    The order is that of squared differences in float64, whatever the type of the embeddings and the arithmetic of
    the products; of equal distances the lower row comes first. No matrix of distances is stored: memory is O(B·D),
    O(B·k) and chunks of a fixed size.

    Args:
        queries: float32, bfloat16, float16 or float64 (B, D).
        gallery: (G, D) of the same type: a tensor where the queries lie; or on the host, also a numpy array or
            memory map, from where it streams to the queries' device.
        k: 1 to G. The kernels take up to 128, the eager operator any number.
        backend: "auto", "eager" or "triton".

    Raises:
        InputError: shapes, types or devices that do not fit, an empty gallery, k outside of it, or a row that is not
            finite, each with its number; a backend that cannot run here.
    """
    with torch.autocast(queries.device.type, enabled=False):
        require_floats("nearest", queries=queries)
        rows = GalleryRows("nearest", queries, gallery)
        if not 1 <= k <= len(rows):
            raise InputError(f"nearest: k = {k} must be between 1 and the {len(rows)} photos of the gallery")
        require_finite("nearest", "query", queries)
        chosen = choose_backend(backend, queries)
        if chosen == "triton":
            from sketchynet.ops.kernels.nearest import MOST, nearest_triton

            if k <= MOST:
                if len(queries):
                    return nearest_triton(queries, rows, k)
            elif backend == "triton":
                raise InputError(
                    f"nearest: backend 'triton' finds up to {MOST} rows, k is {k}: choose backend='auto' or 'eager'"
                )
        if len(queries) == 0:
            return Best(0, k, queries.device).close(queries.dtype)
        return _nearest(queries, rows, k)
