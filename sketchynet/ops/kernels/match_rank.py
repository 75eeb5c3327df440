"""Triton kernels of `match_rank`: a chunk of the gallery streams by, and only counters stay.

Shapes: B queries, n gallery rows of a chunk, D embedding size; a program holds BM queries and walks over tiles of BN
rows, its part of a chunk that is split over so many programs that the device is full.

Products of half precision are exact in the tensor cores' float32 sums. Float32 embeddings are split into two
bfloat16 parts, x = h + l + r with |l| ≤ 2⁻⁸|x| and |r| ≤ 2⁻¹⁶|x|, and multiplied as l·h' + h·l' + h·h': three
products at the rate of bfloat16. What is left out, l·l' + r·g + x·r', is at most SPLIT_ERROR·|x||g|.

The first kernel counts what is nearer for sure and lists, by query, what rounding may decide. The second decides the
list by squared differences in float64. A list that overflows is not used: that query's whole chunk is decided
exactly, which is slow, needs no memory, and happens where embeddings have collapsed. Nothing waits for the device
before the last chunk is under way.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sketchynet.ops.bounds import bounds, exact_squared
from sketchynet.ops.gallery import GalleryRows
from sketchynet.ops.kernels.tiles import Tuned, config, dot_tile, rows_in_place, size_class

CHUNK_BYTES = 1 << 29
"""Gallery rows of a chunk, in bytes; a split of float32 takes as many again."""
CAPACITY = 4096
"""Unsure rows of a chunk that are listed for one query: more than 1 % of the rows, which random embeddings in float32
do not reach."""
MAX_SPLITS = 1024
SPLIT_ERROR = 2.0**-14


@triton.jit
def gram_tile(
    queries, rows,  # (B, P·D), (n, P·D): P = 2 halves of split float32, else 1
    i, j,  # int64 (BM,), (BN,)
    stride_q, stride_g, D,
    SPLIT: tl.constexpr, EVEN: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """float32 (BM, BN): products of queries and rows."""
    total = tl.zeros((BM, BN), dtype=tl.float32)
    if SPLIT:
        # The small products first: they add to small sums, whose rounding is smaller still.
        total = dot_tile(queries + D, rows, i, j, stride_q, stride_g, D, total, BK, EVEN, "tf32")
        total = dot_tile(queries, rows + D, i, j, stride_q, stride_g, D, total, BK, EVEN, "tf32")
    return dot_tile(queries, rows, i, j, stride_q, stride_g, D, total, BK, EVEN, "tf32")


@triton.jit
def squares_kernel(
    rows,  # (n, D)
    out,  # float64 (n,)
    n, D, stride,
    BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BP + tl.arange(0, BP)
    row = (i % n).to(tl.int64)
    total = tl.zeros((BP,), dtype=tl.float64)
    for start in range(0, D, BD):
        k = start + tl.arange(0, BD)
        x = tl.load(rows + row[:, None] * stride + k[None, :], mask=(k < D)[None, :], other=0.0).to(tl.float64)
        total += tl.sum(x * x, axis=1)
    tl.store(out + i, total, mask=i < n)


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
def count_kernel(
    queries, rows,
    above, below,  # float32 (n,): |g|²/2 with the row's part of the bound, added and subtracted
    low, high,  # float32 (B,)
    counts,  # int32 (splits, B): nearer for sure
    unsure_counts,  # int32 (B,)
    unsure,  # int32 (B, capacity)
    B, n, D, stride_q, stride_g, capacity,
    SPLIT: tl.constexpr, EVEN: tl.constexpr,
    SIZE: tl.constexpr,  # class of sizes, for tuning alone
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    # Axis 0, which runs first, goes over queries: programs that run together read the same rows, from the L2 cache.
    i = tl.program_id(0) * BM + tl.arange(0, BM)
    query = (i % B).to(tl.int64)
    near_cut, far_cut = tl.load(low + query), tl.load(high + query)
    tiles = tl.cdiv(n, BN)
    part = tl.cdiv(tiles, tl.num_programs(1))
    found = tl.zeros((BM,), dtype=tl.int32)
    for tile in range(tl.program_id(1) * part, min(tl.program_id(1) * part + part, tiles)):
        j = tile * BN + tl.arange(0, BN)
        row = (j % n).to(tl.int64)
        product = gram_tile(queries, rows, query, row, stride_q, stride_g, D, SPLIT, EVEN, BM, BN, BK)
        # Half a tile at a time, which takes half the registers.
        halved = tl.permute(tl.reshape(product, (BM, 2, BN // 2)), (0, 2, 1))
        left, right = tl.split(halved)
        for side in tl.static_range(2):
            some = left if side == 0 else right
            column = tile * BN + side * (BN // 2) + tl.arange(0, BN // 2)
            # Rows past the end are infinitely far.
            nearer = tl.load(above + column, mask=column < n, other=float("inf"))[None, :] - some < near_cut[:, None]
            farther = tl.load(below + column, mask=column < n, other=float("inf"))[None, :] - some > far_cut[:, None]
            found += tl.sum(nearer.to(tl.int32), axis=1)
            list_open(~(nearer | farther), column, query, i < B, unsure_counts, unsure, capacity)
    tl.store(counts + tl.program_id(1) * B + i, found, mask=i < B)


@triton.jit
def exact_distances(
    query, rows,  # pointers: one query (D,), rows of D elements
    j,  # int64 (BP,)
    stride_g, D,
    BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """float64 (BP,): squared distances of one query to rows; equal rows give equal distances."""
    total = tl.zeros((BP,), dtype=tl.float64)
    for start in range(0, D, BD):
        k = start + tl.arange(0, BD)
        x = tl.load(query + k, mask=k < D, other=0.0).to(tl.float64)
        y = tl.load(rows + j[:, None] * stride_g + k[None, :], mask=(k < D)[None, :], other=0.0).to(tl.float64)
        apart = x[None, :] - y
        total += tl.sum(apart * apart, axis=1)
    return total


@triton.jit
def decide_kernel(
    queries,  # (B, D)
    true_rows,  # (B, D): each query's true row
    rows,  # (n, D)
    counts,  # int32 (splits, B): nearer for sure
    unsure_counts,  # int32 (B,)
    unsure,  # int32 (B, capacity)
    ranks,  # int64 (B,), added to
    B, n, D, stride_q, stride_t, stride_g, splits, capacity,
    BP: tl.constexpr, BD: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    query = queries + b * stride_q
    lane = tl.arange(0, BP)
    # The true distance comes from the same lines as the others, for every lane: the order of its sum is theirs.
    true = exact_distances(query, true_rows, b + tl.zeros((BP,), dtype=tl.int64), stride_t, D, BP, BD)
    open_rows = tl.load(unsure_counts + b)
    overflow = open_rows > capacity
    count = tl.where(overflow, n, open_rows)
    found = tl.zeros((BP,), dtype=tl.int64)
    for first in range(0, count, BP):
        place = first + lane
        listed = tl.load(unsure + b * capacity + place, mask=(place < count) & (place < capacity), other=0)
        j = tl.where(overflow, place, listed).to(tl.int64)
        distance = exact_distances(query, rows, tl.minimum(j, n - 1), stride_g, D, BP, BD)
        # Where products overflow, a row past the end is as unsure as another.
        found += ((distance <= true) & (place < count) & (j < n)).to(tl.int64)
    split = tl.arange(0, BS)
    sure = tl.sum(tl.load(counts + split * B + b, mask=split < splits, other=0).to(tl.int64), axis=0)
    rank = tl.sum(found, axis=0) + tl.where(overflow, 0, sure)
    tl.store(ranks + b, tl.load(ranks + b) + rank)


count_tuned = Tuned(
    count_kernel,
    [
        config(8, 3, BM=128, BN=256, BK=64),
        config(8, 4, BM=128, BN=256, BK=64),
        config(8, 3, BM=256, BN=128, BK=64),
        config(8, 4, BM=128, BN=128, BK=64),
        config(4, 3, BM=16, BN=128, BK=128),
    ],
    key=["SIZE", "D", "SPLIT"],
    reset=["counts", "unsure_counts"],
)


def halves(rows: Tensor) -> Tensor:
    """bfloat16 (n, 2D): [h, l] of float32 rows; half-precision rows as they are, (n, D)."""
    if rows.dtype != torch.float32:
        return rows_in_place(rows)
    out = rows.new_empty((len(rows), 2 * rows.shape[1]), dtype=torch.bfloat16)
    high, low = out[:, : rows.shape[1]], out[:, rows.shape[1] :]
    high.copy_(rows)
    torch.sub(rows, high, out=low)
    return out


def chunk_rows(D: int, dtype: torch.dtype) -> int:
    return max(1024, min(1 << 19, CHUNK_BYTES // (D * dtype.itemsize)))


def row_squares(rows: Tensor) -> Tensor:
    """Squared norms float64 (n,), NaN or infinite for a row that is not finite."""
    out = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    squares_kernel[(triton.cdiv(len(rows), 32),)](rows, out, *rows.shape, rows.stride(0), BP=32, BD=128)
    return out


def splits(queries: int, rows: int, meta: dict[str, Any], device: torch.device) -> int:
    """Parts of a chunk, so that programs fill the device about four times over."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
    wanted = triton.cdiv(4 * processors, triton.cdiv(queries, meta["BM"]))
    return min(wanted, triton.cdiv(rows, meta["BN"]), MAX_SPLITS)


class DeferredCheck:
    """Remembers on the device the first row that is not finite, so that the check waits for nothing."""

    def __init__(self, device: torch.device) -> None:
        self._first = torch.full((), torch.iinfo(torch.int64).max, device=device)

    def add(self, first: int, squares: Tensor) -> None:
        bad = ~torch.isfinite(squares)
        row = torch.where(bad.any(), bad.to(torch.int32).argmax() + first, self._first)
        self._first = torch.minimum(self._first, row)

    def close(self, rows: GalleryRows) -> None:
        """InputError if there was one."""
        first = int(self._first)
        if first < len(rows):
            rows.check(first, rows.take(torch.tensor([first])))


def _grid(queries: int, rows: int, device: torch.device, meta: dict[str, Any]) -> tuple[int, int]:
    return triton.cdiv(queries, meta["BM"]), splits(queries, rows, meta, device)


def match_rank_triton(queries: Tensor, rows: GalleryRows, target: Tensor) -> Tensor:
    """As `match_rank`, of checked queries, B ≥ 1."""
    queries = rows_in_place(queries)
    (B, D), device = queries.shape, queries.device
    true_rows = rows_in_place(rows.take(target))
    every = torch.arange(B, device=device)
    x_squares = row_squares(queries)
    threshold = (exact_squared(queries, every, true_rows, every) - x_squares) / 2.0
    parts = halves(queries)
    split = queries.dtype == torch.float32
    capacity = min(CAPACITY, len(rows))
    ranks = torch.zeros(B, dtype=torch.int64, device=device)
    unsure = torch.empty((B, capacity), dtype=torch.int32, device=device)
    check = DeferredCheck(device)
    for first, chunk in rows.chunks(chunk_rows(D, queries.dtype)):
        chunk = rows_in_place(chunk)
        g_squares = row_squares(chunk)
        check.add(first, g_squares)
        bound = bounds(x_squares, g_squares, D, queries.dtype, SPLIT_ERROR if split else 0.0)
        low, high = bound.cuts(threshold)
        chunk_parts, n = halves(chunk), len(chunk)
        unsure_counts = torch.zeros(B, dtype=torch.int32, device=device)
        most = max(splits(B, n, choice, device) for choice in count_tuned.choices)
        counts = torch.zeros((most, B), dtype=torch.int32, device=device)
        count_tuned.launch(
            partial(_grid, B, n, device),
            parts, chunk_parts, bound.above, bound.below, low, high, counts, unsure_counts, unsure,
            B, n, D, parts.stride(0), chunk_parts.stride(0), capacity,
            SPLIT=split, EVEN=D % 128 == 0, SIZE=size_class(B, n),
        )  # fmt: skip
        decide_kernel[(B,)](
            queries, true_rows, chunk, counts, unsure_counts, unsure, ranks,
            B, n, D, queries.stride(0), true_rows.stride(0), chunk.stride(0), most, capacity,
            BP=16, BD=128, BS=triton.next_power_of_2(most),
        )  # fmt: skip
    check.close(rows)
    return ranks
