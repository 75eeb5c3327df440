"""Triton kernels of `nearest`: a chunk of the gallery streams by and leaves a short list for each query.

Shapes: B queries, n gallery rows of a chunk, D embedding size, k rows asked for; a program holds BM queries and walks
over tiles of BN rows.

A tile's columns are dealt to BUCKETS ≥ k buckets, and each query keeps the least upper bound of F (see `bounds`) that
its buckets have seen. Their maximum is reached by BUCKETS different rows, so the k-th nearest row is no farther, and
a row whose lower bound is greater cannot be among the k nearest. The other rows are listed, a few for each doubling
of the rows seen, and decided by squared differences in float64. A list that overflows, as it does when every row is
nearer than all before, sends its query through the chunk again, in parts no longer than a list.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from sketchynet.ops.bounds import bounds
from sketchynet.ops.gallery import GalleryRows
from sketchynet.ops.kernels.match_rank import (
    SPLIT_ERROR,
    DeferredCheck,
    chunk_rows,
    exact_distances,
    gram_tile,
    half_width,
    measured,
    splits,
)
from sketchynet.ops.kernels.tiles import (
    Tuned,
    cdiv,
    config,
    described,
    launch,
    operand,
    power_of_two,
    rows_in_place,
    size_class,
)
from sketchynet.ops.nearest import START, Best, Nearest

MOST = 128
"""k can be so large: a tile has so many columns to deal."""
CAPACITY = 2048


@triton.jit
def list_open(
    open_pairs,  # bool (BM, BN)
    j,  # int32 (BN,): rows, ascending
    query,  # int64 (BM,)
    live,  # bool (BM,): no repetition of another query
    listed_counts,  # int32 (B,)
    listed,  # int32 (B, capacity)
    capacity,
):  # fmt: skip
    """Appends to each query's list its open rows, in any order; what is past its capacity is counted alone.

    Few rows are open in a tile. So each query takes room for its own at once, and then all write their first, their
    second ...: one vector of addresses instead of a matrix, which would not fit in the registers.
    """
    row_open = tl.where(live, tl.sum(open_pairs.to(tl.int32), axis=1), 0)
    if tl.max(row_open, axis=0) > 0:
        base = tl.atomic_add(listed_counts + query, row_open, mask=row_open > 0, sem="relaxed")
        room = tl.where(row_open > 0, tl.minimum(row_open, capacity - base), 0)
        place = listed + query * capacity + base
        last = tl.full(row_open.shape, -1, dtype=tl.int32)
        for number in range(tl.max(room, axis=0)):
            ahead = open_pairs & (j[None, :] > last[:, None])
            last = tl.min(tl.where(ahead, j[None, :], 2147483647), axis=1)
            tl.store(place + number, last, mask=number < room)


@triton.jit
def candidates_kernel(
    queries, rows,  # operands
    above, below,  # float32 (n,): |g|²/2 with the row's part of the bound, added and subtracted
    cut,  # float32 (B,): a lower bound above it is too far, by the chunks before
    margin,  # float32 (B,): twice the query's part of the bound
    listed_counts,  # int32 (B,)
    listed,  # int32 (B, capacity)
    B, n, D, width, stride_q, stride_g, capacity,
    SPLIT: tl.constexpr, EVEN: tl.constexpr, DESCRIBED: tl.constexpr,
    BUCKETS: tl.constexpr,
    SIZE: tl.constexpr,  # class of sizes, for tuning alone
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BM + tl.arange(0, BM)
    query = (i % B).to(tl.int64)
    before, slack = tl.load(cut + query), tl.load(margin + query)
    tiles = tl.cdiv(n, BN)
    part = tl.cdiv(tiles, tl.num_programs(1))
    least = tl.full((BM, BUCKETS), float("inf"), dtype=tl.float32)
    for tile in range(tl.program_id(1) * part, min(tl.program_id(1) * part + part, tiles)):
        j = tile * BN + tl.arange(0, BN)
        product = gram_tile(
            queries, rows, tl.program_id(0) * BM, tile * BN, B, n, stride_q, stride_g, D, width,
            SPLIT, EVEN, DESCRIBED, BM, BN, BK,
        )  # fmt: skip
        # Rows past the end are infinitely far. NaN of overflown products bounds nothing from above.
        upper = tl.load(above + j, mask=j < n, other=float("inf"))[None, :] - product
        upper = tl.where(upper >= float("-inf"), upper, float("inf"))
        least = tl.minimum(least, tl.min(tl.reshape(upper, (BM, BN // BUCKETS, BUCKETS)), axis=1))
        reached = tl.max(least, axis=1)
        # 2⁻²¹ is more than what the rounding of this sum takes.
        now = tl.minimum(before, reached + slack + tl.abs(reached) * 4.76837158203125e-07)
        lower = tl.load(below + j, mask=j < n, other=float("inf"))[None, :] - product
        list_open((j < n)[None, :] & ~(lower > now[:, None]), j, query, i < B, listed_counts, listed, capacity)


@triton.jit
def list_distances_kernel(
    queries, rows,  # (B, D), (n, D)
    listed_counts,  # int32 (B,)
    listed,  # int32 (B, capacity)
    out,  # float64 (B, capacity): squared distances of the listed rows
    D, stride_q, stride_g, capacity,
    BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    count = tl.minimum(tl.load(listed_counts + b), capacity)
    for first in range(0, count, BP):
        place = first + tl.arange(0, BP)
        j = tl.load(listed + b * capacity + place, mask=place < count, other=0).to(tl.int64)
        squared = exact_distances(queries + b * stride_q, rows, j, stride_g, D, BP, BD)
        tl.store(out + b * capacity + place, squared, mask=place < count)


candidates_tuned = Tuned(
    candidates_kernel,
    [
        config(8, 3, BM=128, BN=128, BK=64),
        config(8, 4, BM=128, BN=128, BK=64),
        config(4, 4, BM=64, BN=128, BK=64),
        config(4, 3, BM=16, BN=128, BK=128),
    ],
    key=["SIZE", "D", "SPLIT", "BUCKETS"],
    operands={"queries": ("BM", "BK"), "rows": ("BN", "BK")},
    reset=["listed_counts"],
)


def _merge(best: Best, first: int, counts: Tensor, listed: Tensor, squared: Tensor) -> None:
    """Takes lists into the best: sorted by row, then, keeping that order, by distance."""
    held = torch.arange(listed.shape[1], device=counts.device) < counts[:, None]
    last = torch.iinfo(torch.int64).max
    index = torch.cat([best.index, torch.where(held, listed.long() + first, last)], dim=1)
    squared = torch.cat([best.squared, torch.where(held, squared, float("inf"))], dim=1)
    index, order = index.sort(dim=1)
    squared, order = squared.gather(1, order).sort(dim=1, stable=True)
    k = best.index.shape[1]
    best.squared, best.index = squared[:, :k].contiguous(), index.gather(1, order[:, :k])


@dataclass(frozen=True)
class Queries:
    rows: Tensor
    """(B, D)."""
    parts: Tensor
    """Their halves."""
    squares: Tensor
    """float64 (B,)."""

    def some(self, which: Tensor) -> Queries:
        return Queries(self.rows[which], self.parts[which], self.squares[which])


def _take_in(
    best: Best, queries: Queries, first: int, chunk: Tensor, chunk_parts: Tensor, g_squares: Tensor
) -> None:
    """Merges a chunk, whose row 0 is gallery row `first`, into the best."""
    (B, D), n, k, device = queries.rows.shape, len(chunk), best.index.shape[1], chunk.device
    split, capacity = chunk.dtype == torch.float32, min(CAPACITY, n)
    bound = bounds(queries.squares, g_squares, D, chunk.dtype, SPLIT_ERROR if split else 0.0)
    _, cut = bound.cuts((best.squared[:, -1] - queries.squares) / 2.0)
    parts = queries.parts
    counts = torch.zeros(B, dtype=torch.int32, device=device)
    listed = torch.empty((B, capacity), dtype=torch.int32, device=device)
    squared = torch.empty((B, capacity), dtype=torch.float64, device=device)
    candidates_tuned.launch(
        lambda meta: (cdiv(B, meta["BM"]), splits(B, n, meta, device)),
        operand(parts), operand(chunk_parts), bound.above, bound.below, cut, (2.0 * bound.query).float(),
        counts, listed,
        B, n, D, half_width(D), parts.stride(0), chunk_parts.stride(0), capacity,
        SPLIT=split, EVEN=D % 128 == 0, DESCRIBED=described(device), BUCKETS=max(16, power_of_two(k)),
        SIZE=size_class(B, n),
    )  # fmt: skip
    launch(
        list_distances_kernel, (B,),
        queries.rows, chunk, counts, listed, squared, D, queries.rows.stride(0), chunk.stride(0), capacity,
        BP=16, BD=128,
    )  # fmt: skip
    if int(counts.max()) > capacity:
        over = (counts > capacity).nonzero()[:, 0]
        rest = Best(len(over), k, device)
        rest.squared, rest.index = best.squared[over], best.index[over]
        for start in range(0, n, capacity):  # of so few rows no list overflows
            part = slice(start, start + capacity)
            _take_in(rest, queries.some(over), first + start, chunk[part], chunk_parts[part], g_squares[part])
        best.squared[over], best.index[over] = rest.squared, rest.index
        counts = torch.where(counts > capacity, 0, counts)
    most = int(counts.max())
    _merge(best, first, counts, listed[:, :most], squared[:, :most])


def nearest_triton(queries: Tensor, rows: GalleryRows, k: int) -> Nearest:
    """As `nearest`, of checked queries, B ≥ 1, k ≤ MOST."""
    queries = rows_in_place(queries)
    check = DeferredCheck("nearest", queries.device)
    squares, parts, _, _ = measured(queries, check.queries)
    asked, best = Queries(queries, parts, squares), Best(len(queries), k, queries.device)
    for first, chunk in rows.chunks(chunk_rows(queries.shape[1], queries.dtype), START):
        chunk = rows_in_place(chunk)
        g_squares, chunk_parts, _, _ = measured(chunk, check.gallery, first)
        _take_in(best, asked, first, chunk, chunk_parts, g_squares)
    check.close(rows, queries)
    return best.close(queries.dtype)
