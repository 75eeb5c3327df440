"""Triton kernels of `match_rank`: a chunk of the gallery streams by, and only counters stay.

Shapes: B queries, n gallery rows of a chunk, D embedding size; a program holds BM queries and walks over tiles of BN
rows, its part of a chunk that is split over so many programs that the device is full.

Products of half precision are exact in the tensor cores' float32 sums. Float32 embeddings are split into two
bfloat16 parts, x = h + l + r with |l| ≤ 2⁻⁸|x| and |r| ≤ 2⁻¹⁶|x|, and multiplied as l·h' + h·l' + h·h': three
products at the rate of bfloat16. What is left out, l·l' + r·g + x·r', is at most SPLIT_ERROR·|x||g|.

The first kernel counts what is nearer for sure and lists, by query, what rounding may decide: as words, one bit for
each of 32 neighbouring rows, so that its loop has no branch and the next tile's rows are under way while it compares.
The second decides the listed rows by squared differences in float64. A list that overflows is not used: that query's
whole chunk is decided exactly, which is slow, needs no memory, and happens where embeddings have collapsed. Nothing
waits for the device before the last chunk is under way.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sketchynet.ops.bounds import bounds
from sketchynet.ops.gallery import GalleryRows
from sketchynet.ops.kernels.tiles import (
    Tuned,
    config,
    described,
    dot_tile,
    operand,
    rows_in_place,
    size_class,
)

CHUNK_BYTES = 1 << 28
"""Gallery rows of a chunk, in bytes; a split of float32 takes as many again."""
CAPACITY = 2048
"""Words with unsure rows that are listed for one query and chunk: one in four of them, which random embeddings do not
reach by far."""
MAX_SPLITS = 1024
SPLIT_ERROR = 2.0**-14
PARTS_WIDTH = 128
"""Split halves are padded with zeros to a multiple of so many elements: no block of either reaches into the other."""


@triton.jit
def gram_tile(
    queries, rows,  # (B, P·D), (n, P·D): P = 2 halves of split float32, else 1
    i, j,  # first query and row of the tile
    B, n, stride_q, stride_g, D, width,  # width of a half
    SPLIT: tl.constexpr, EVEN: tl.constexpr, DESCRIBED: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """float32 (BM, BN): products of queries and rows."""
    total = tl.zeros((BM, BN), dtype=tl.float32)
    if SPLIT:
        # The small products first: they add to small sums, whose rounding is smaller still.
        total = dot_tile(
            queries, rows, i, j, B, n, stride_q, stride_g, width, 0, D, total, BM, BN, BK, EVEN, DESCRIBED, "tf32"
        )
        total = dot_tile(
            queries, rows, i, j, B, n, stride_q, stride_g, 0, width, D, total, BM, BN, BK, EVEN, DESCRIBED, "tf32"
        )
    return dot_tile(queries, rows, i, j, B, n, stride_q, stride_g, 0, 0, D, total, BM, BN, BK, EVEN, DESCRIBED, "tf32")


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
def count_kernel(
    queries, rows,  # operands
    above, below,  # float32 (n,): |g|²/2 with the row's part of the bound, added and subtracted
    low, high,  # float32 (B,)
    counts,  # int32 (splits, B): nearer for sure
    listed_counts,  # int32 (B,)
    listed,  # int64 (B, capacity): number of a word, 32 bits up, and the word
    B, n, D, width, stride_q, stride_g, capacity,
    SPLIT: tl.constexpr, EVEN: tl.constexpr, DESCRIBED: tl.constexpr,
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
    bit = (1 << (tl.arange(0, BN) % 32))[None, :]
    # Flattened with the loop over the embedding: the rows of the next tile load while this one is compared.
    for tile in tl.range(tl.program_id(1) * part, min(tl.program_id(1) * part + part, tiles), flatten=DESCRIBED):
        product = gram_tile(
            queries, rows, tl.program_id(0) * BM, tile * BN, B, n, stride_q, stride_g, D, width,
            SPLIT, EVEN, DESCRIBED, BM, BN, BK,
        )  # fmt: skip
        column = tile * BN + tl.arange(0, BN)
        # Rows past the end are infinitely far.
        nearer = tl.load(above + column, mask=column < n, other=float("inf"))[None, :] - product < near_cut[:, None]
        farther = tl.load(below + column, mask=column < n, other=float("inf"))[None, :] - product > far_cut[:, None]
        found += tl.sum(nearer.to(tl.int32), axis=1)
        unsure = tl.where(nearer | farther, 0, bit)
        word = tl.sum(tl.reshape(unsure, (BM, BN // 32, 32)), axis=2)
        some = (word != 0) & (i < B)[:, None]
        number = (tile * (BN // 32) + tl.arange(0, BN // 32)).to(tl.int64)[None, :]
        place = tl.atomic_add(listed_counts + query[:, None] + 0 * number, 1, mask=some, sem="relaxed")
        entry = (number << 32) | (word.to(tl.int64) & 0xFFFFFFFF)
        tl.store(listed + query[:, None] * capacity + place, entry, mask=some & (place < capacity))
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
def true_distance_kernel(
    queries,  # (B, D)
    true_rows,  # (B, D)
    out,  # float64 (B,)
    D, stride_q, stride_t,
    BD: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BD,), dtype=tl.float64)
    for start in range(0, D, BD):
        k = start + tl.arange(0, BD)
        x = tl.load(queries + b * stride_q + k, mask=k < D, other=0.0).to(tl.float64)
        y = tl.load(true_rows + b * stride_t + k, mask=k < D, other=0.0).to(tl.float64)
        total += (x - y) * (x - y)
    tl.store(out + b, tl.sum(total, axis=0))


@triton.jit
def decide_kernel(
    queries,  # (B, D)
    true_rows,  # (B, D): each query's true row
    rows,  # (n, D)
    counts,  # int32 (splits, B): nearer for sure
    listed_counts,  # int32 (B,)
    listed,  # int64 (B, capacity): number of a word, 32 bits up, and the word
    ranks,  # int64 (B,), added to
    B, n, D, stride_q, stride_t, stride_g, splits, capacity,
    BP: tl.constexpr, BD: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    query = queries + b * stride_q
    lane = tl.arange(0, BP)
    # The true distance comes from the same lines as the others, for every lane: the order of its sum is theirs.
    true = exact_distances(query, true_rows, b + tl.zeros((BP,), dtype=tl.int64), stride_t, D, BP, BD)
    entries = tl.load(listed_counts + b)
    overflow = entries > capacity
    words = tl.where(overflow, tl.cdiv(n, 32), entries)
    found = tl.zeros((BP,), dtype=tl.int64)
    for first in range(0, words, BP):
        place = first + lane
        held = place < words
        entry = tl.load(listed + b * capacity + place, mask=held & (place < capacity), other=0)
        number = tl.where(overflow, place, (entry >> 32).to(tl.int32))
        left = tl.where(held, tl.where(overflow, 0xFFFFFFFF, entry & 0xFFFFFFFF), 0)
        while tl.max(left, axis=0) > 0:
            lowest = left & -left
            # The exponent of a power of two is its number.
            place_of_bit = (lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127
            j = (number * 32 + place_of_bit).to(tl.int64)
            real = (left > 0) & (j < n)  # where products overflow, a row past the end is as unsure as another
            distance = exact_distances(query, rows, tl.where(real, j, 0), stride_g, D, BP, BD)
            found += ((distance <= true) & real).to(tl.int64)
            left = left - lowest
    split = tl.arange(0, BS)
    sure = tl.sum(tl.load(counts + split * B + b, mask=split < splits, other=0).to(tl.int64), axis=0)
    rank = tl.sum(found, axis=0) + tl.where(overflow, 0, sure)
    tl.store(ranks + b, tl.load(ranks + b) + rank)


count_tuned = Tuned(
    count_kernel,
    [
        config(8, 3, BM=128, BN=256, BK=64),
        config(4, 3, BM=128, BN=128, BK=64),
        config(8, 4, BM=128, BN=256, BK=64),
        config(8, 4, BM=128, BN=128, BK=64),
        config(4, 3, BM=16, BN=128, BK=128),
    ],
    key=["SIZE", "D", "SPLIT"],
    operands={"queries": ("BM", "BK"), "rows": ("BN", "BK")},
    reset=["counts", "listed_counts"],
)


def half_width(D: int) -> int:
    """Elements of each half of split rows."""
    return triton.cdiv(D, PARTS_WIDTH) * PARTS_WIDTH


def halves(rows: Tensor) -> Tensor:
    """bfloat16 (n, 2 · `half_width`): [h, l] of float32 rows; half-precision rows as they are, (n, D)."""
    if rows.dtype != torch.float32:
        return rows
    (n, D), width = rows.shape, half_width(rows.shape[1])
    out = rows.new_empty((n, 2, width), dtype=torch.bfloat16)
    if width > D:
        out[:, :, D:] = 0
    high, low = out[:, 0, :D], out[:, 1, :D]
    high.copy_(rows)
    torch.sub(rows, high, out=low)
    return out.view(n, 2 * width)


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
    x_squares = row_squares(queries)
    true_squared = torch.empty_like(x_squares)
    true_distance_kernel[(B,)](
        queries, true_rows, true_squared, D, queries.stride(0), true_rows.stride(0), BD=128, num_warps=1
    )
    threshold = (true_squared - x_squares) / 2.0
    parts = halves(queries)
    split = queries.dtype == torch.float32
    width, capacity = half_width(D), min(CAPACITY, triton.cdiv(len(rows), 32))
    ranks = torch.zeros(B, dtype=torch.int64, device=device)
    listed = torch.empty((B, capacity), dtype=torch.int64, device=device)
    check = DeferredCheck(device)
    for first, chunk in rows.chunks(chunk_rows(D, queries.dtype)):
        chunk = rows_in_place(chunk)
        g_squares = row_squares(chunk)
        check.add(first, g_squares)
        bound = bounds(x_squares, g_squares, D, queries.dtype, SPLIT_ERROR if split else 0.0)
        low, high = bound.cuts(threshold)
        chunk_parts, n = halves(chunk), len(chunk)
        listed_counts = torch.zeros(B, dtype=torch.int32, device=device)
        most = max(splits(B, n, choice, device) for choice in count_tuned.choices)
        counts = torch.zeros((most, B), dtype=torch.int32, device=device)
        count_tuned.launch(
            partial(_grid, B, n, device),
            operand(parts), operand(chunk_parts), bound.above, bound.below, low, high, counts, listed_counts, listed,
            B, n, D, width, parts.stride(0), chunk_parts.stride(0), capacity,
            SPLIT=split, EVEN=D % 128 == 0, DESCRIBED=described(device), SIZE=size_class(B, n),
        )  # fmt: skip
        decide_kernel[(B,)](
            queries, true_rows, chunk, counts, listed_counts, listed, ranks,
            B, n, D, queries.stride(0), true_rows.stride(0), chunk.stride(0), most, capacity,
            BP=16, BD=128, BS=triton.next_power_of_2(most),
        )  # fmt: skip
    check.close(rows)
    return ranks
