"""Triton kernels of `match_rank`: a chunk of the gallery streams by, and only counters stay.

Shapes: B queries, n gallery rows of a chunk, D embedding size; a program holds BM queries and walks over tiles of BN
rows, its part of a chunk that is split over so many programs that the device is full.

Products of half precision are exact in the tensor cores' float32 sums. Float32 embeddings are split into two
bfloat16 parts, x = h + l + r with |l| ≤ 2⁻⁸|x| and |r| ≤ 2⁻¹⁶|x|, and multiplied as l·h' + h·l' + h·h': three
products at the rate of bfloat16. What is left out, l·l' + r·g + x·r', is at most SPLIT_ERROR·|x||g|.

A pair's products are off by no more than γ|x||g| ≤ γ(|x|² + |g|²)/2: a part of the query and one of the row. The
counting kernel counts what is nearer for sure and marks what rounding may decide, one bit for each row, so that
its loop has no branch and the next tile's rows are under way while it compares. Another decides the marked rows by
squared differences in float64. Nothing waits for the device before the last chunk is under way.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sketchynet.ops.checks import require_finite
from sketchynet.ops.gallery import GalleryRows
from sketchynet.ops.kernels.tiles import (
    Tuned,
    config,
    described,
    device_properties,
    dot_tile,
    operand,
    rows_in_place,
    size_class,
)
from sketchynet.ops.pairwise_distance import product_error

CHUNK_BYTES = 1 << 28
"""Gallery rows of a chunk, in bytes; a split of float32 takes as many again."""
MARK_BYTES = 1 << 27
"""Marks of a chunk: a bit for each query and row."""
MARKED = 1024
"""Words of 32 marks that are set out in a row before they are decided; a query with more goes through all words."""
MAX_SPLITS = 1024
SPLIT_ERROR = 2.0**-14
UNIT = 2.0**-24
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
def rows_kernel(
    rows,  # (n, D)
    parts,  # bfloat16 (n, 2·width), written where SPLIT: halves, with zeros up to their width
    squares,  # float64 (n,): squared norms
    above, below,  # float32 (n,), written where BOUNDED: |g|²/2 with the row's part of the bound, added and subtracted
    bad,  # int64 (): the least number of a row that is not finite
    first, n, D, width, stride,
    share, flushed,  # γ + 2u, and what products below the least normal number may lose
    SPLIT: tl.constexpr, BOUNDED: tl.constexpr,
    BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """What a chunk's rows are asked for, in one pass over them."""
    i = tl.program_id(0) * BP + tl.arange(0, BP)
    real = i < n
    row = tl.where(real, i, 0).to(tl.int64)
    total = tl.zeros((BP,), dtype=tl.float64)
    for start in range(0, width, BD):
        k = start + tl.arange(0, BD)
        x = tl.load(rows + row[:, None] * stride + k[None, :], mask=real[:, None] & (k < D)[None, :], other=0.0)
        wide = x.to(tl.float64)
        total += tl.sum(wide * wide, axis=1)
        if SPLIT:
            high = x.to(tl.bfloat16)
            low = (x - high.to(tl.float32)).to(tl.bfloat16)
            into = parts + row[:, None] * (2 * width) + k[None, :]
            held = real[:, None] & (k < width)[None, :]
            tl.store(into, high, mask=held)
            tl.store(into + width, low, mask=held)
    tl.store(squares + i, total, mask=real)
    if BOUNDED:
        unit = 5.9604644775390625e-08
        part = 0.5 * share * total + 3.0 * unit * total + flushed * (1.0 + tl.sqrt(total))
        tl.store(above + i, (0.5 * total + part).to(tl.float32), mask=real)
        tl.store(below + i, (0.5 * total - part).to(tl.float32), mask=real)
    tl.atomic_min(bad + 0 * row, row + first, mask=real & ~(total < float("inf")), sem="relaxed")


@triton.jit
def cuts_kernel(
    queries, true_rows,  # (B, D)
    low, high,  # float32 (B,): v below low is nearer than the true row for sure, above high farther
    bad,  # int64 (): the least number of a query that is not finite
    B, D, stride_q, stride_t,
    share, flushed,
    BD: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    apart, squares = tl.zeros((BD,), dtype=tl.float64), tl.zeros((BD,), dtype=tl.float64)
    for start in range(0, D, BD):
        k = start + tl.arange(0, BD)
        x = tl.load(queries + b * stride_q + k, mask=k < D, other=0.0).to(tl.float64)
        y = tl.load(true_rows + b * stride_t + k, mask=k < D, other=0.0).to(tl.float64)
        apart += (x - y) * (x - y)
        squares += x * x
    square = tl.sum(squares, axis=0)
    tl.atomic_min(bad, b, mask=~(square < float("inf")), sem="relaxed")
    threshold = (tl.sum(apart, axis=0) - square) / 2.0
    unit = 5.9604644775390625e-08
    slack = 0.5 * share * square + flushed * tl.sqrt(square) + 4.0 * unit * tl.abs(threshold)
    tl.store(low + b, (threshold - slack).to(tl.float32))
    tl.store(high + b, (threshold + slack).to(tl.float32))


@triton.jit
def count_kernel(
    queries, rows,  # operands
    above, below,  # float32 (n,): |g|²/2 with the row's part of the bound, added and subtracted
    low, high,  # float32 (B,)
    counts,  # int32 (splits, B): nearer for sure
    marks,  # int32 (B, words): bit r of word w marks that rounding may decide about row 32·w + r
    B, n, D, width, stride_q, stride_g, words,
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
        place = query[:, None] * words + tile * (BN // 32) + tl.arange(0, BN // 32)[None, :]
        tl.store(marks + place, word, mask=(i < B)[:, None])
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
    marks,  # int32 (B, words)
    listed,  # int64 (B, capacity): room for numbers of words, 32 bits up, and the words
    ranks,  # int64 (B,), added to
    B, n, D, stride_q, stride_t, stride_g, splits, words, capacity,
    BP: tl.constexpr, BD: tl.constexpr, BS: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    query, marked, list = queries + b * stride_q, marks + b * words, listed + b * capacity
    entries = 0
    for start in range(0, words, BW):
        number = start + tl.arange(0, BW)
        word = tl.load(marked + number, mask=number * 32 < n, other=0)
        some = (word != 0).to(tl.int32)
        place = entries + tl.cumsum(some, axis=0) - 1
        entry = (number.to(tl.int64) << 32) | (word.to(tl.int64) & 0xFFFFFFFF)
        tl.store(list + place, entry, mask=(some > 0) & (place < capacity))
        entries += tl.sum(some, axis=0)
    tl.debug_barrier()  # what some threads listed others read
    lane = tl.arange(0, BP)
    # The true distance comes from the same lines as the others, for every lane: the order of its sum is theirs.
    true = exact_distances(query, true_rows, b + tl.zeros((BP,), dtype=tl.int64), stride_t, D, BP, BD)
    overflow = entries > capacity
    count = tl.where(overflow, words, entries)
    found = tl.zeros((BP,), dtype=tl.int64)
    for first in range(0, count, BP):
        place = first + lane
        held = place < count
        entry = tl.load(list + place, mask=held & (place < capacity), other=0)
        number = tl.where(overflow, place, (entry >> 32).to(tl.int32))
        word = tl.load(marked + place, mask=held & overflow & (place * 32 < n), other=0).to(tl.int64)
        left = tl.where(held, tl.where(overflow, word, entry) & 0xFFFFFFFF, 0)
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
    tl.store(ranks + b, tl.load(ranks + b) + tl.sum(found, axis=0) + sure)


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
    reset=["counts"],
)


def half_width(D: int) -> int:
    """Elements of each half of split rows."""
    return triton.cdiv(D, PARTS_WIDTH) * PARTS_WIDTH


def measured(
    rows: Tensor, bad: Tensor, first: int = 0, *, share: float | None = None, flushed: float = 0.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Squared norms float64 (n,); rows as products take them, split where float32; and with a share `above` and
    `below` of `rows_kernel`, else empty. The least number, from `first` on, of a row that is not finite goes to bad."""
    (n, D), split, device = rows.shape, rows.dtype == torch.float32, rows.device
    width = half_width(D)
    parts = torch.empty((n, 2 * width), dtype=torch.bfloat16, device=device) if split else rows
    squares = torch.empty(n, dtype=torch.float64, device=device)
    above, below = torch.empty((2, 0 if share is None else n), dtype=torch.float32, device=device)
    rows_kernel[(triton.cdiv(n, 16),)](
        rows, parts, squares, above, below, bad, first, n, D, width, rows.stride(0), share or 0.0, flushed,
        SPLIT=split, BOUNDED=share is not None, BP=16, BD=128,
    )  # fmt: skip
    return squares, parts, above, below


def chunk_rows(D: int, dtype: torch.dtype) -> int:
    return max(1024, min(1 << 19, CHUNK_BYTES // (D * dtype.itemsize)))


def splits(queries: int, rows: int, meta: dict[str, Any], device: torch.device) -> int:
    """Parts of a chunk, so that programs fill the device about four times over."""
    processors = device_properties(device).multi_processor_count if device.type == "cuda" else 1
    # Whole waves of programs, not one more that leaves the device idle.
    wanted = max(1, 4 * processors // triton.cdiv(queries, meta["BM"]))
    return min(wanted, triton.cdiv(rows, meta["BN"]), MAX_SPLITS)


class DeferredCheck:
    """Remembers on the device the first rows that are not finite, so that the check waits for nothing."""

    def __init__(self, operator: str, device: torch.device) -> None:
        self._operator = operator
        self.gallery, self.queries = self._first = torch.full((2,), torch.iinfo(torch.int64).max, device=device)
        """int64 (), for the kernels."""

    def close(self, rows: GalleryRows, queries: Tensor) -> None:
        """InputError if there was one."""
        of_gallery, of_queries = self._first.tolist()
        if of_queries < len(queries):
            require_finite(self._operator, "query", queries)
        if of_gallery < len(rows):
            rows.check(of_gallery, rows.take(torch.tensor([of_gallery])))


def _grid(queries: int, rows: int, device: torch.device, meta: dict[str, Any]) -> tuple[int, int]:
    return triton.cdiv(queries, meta["BM"]), splits(queries, rows, meta, device)


def match_rank_triton(queries: Tensor, rows: GalleryRows, target: Tensor) -> Tensor:
    """As `match_rank`, B ≥ 1; queries that are not finite are found in the end."""
    queries, true_rows = rows_in_place(queries), rows_in_place(rows.take(target))
    (B, D), device, split = queries.shape, queries.device, queries.dtype == torch.float32
    check = DeferredCheck("match_rank", device)
    share = product_error(D, queries.dtype) + (SPLIT_ERROR if split else 0.0) + 2.0 * UNIT
    flushed = D * 2.0**-120
    low, high = torch.empty((2, B), dtype=torch.float32, device=device)
    cuts_kernel[(B,)](
        queries, true_rows, low, high, check.queries, B, D, queries.stride(0), true_rows.stride(0), share, flushed,
        BD=128, num_warps=1,
    )  # fmt: skip
    parts = measured(queries, check.queries)[1] if split else queries
    ranks = torch.zeros(B, dtype=torch.int64, device=device)
    size = min(chunk_rows(D, queries.dtype), max(1 << 15, 8 * MARK_BYTES // B // 256 * 256), len(rows))
    words = 8 * triton.cdiv(size, 256)  # whole tiles of either width
    marks = torch.empty((B, words), dtype=torch.int32, device=device)
    listed = torch.empty((B, min(MARKED, words)), dtype=torch.int64, device=device)
    for first, chunk in rows.chunks(size):
        chunk, n = rows_in_place(chunk), len(chunk)
        _, chunk_parts, above, below = measured(chunk, check.gallery, first, share=share, flushed=flushed)
        most = max(splits(B, n, choice, device) for choice in count_tuned.choices)
        counts = torch.zeros((most, B), dtype=torch.int32, device=device)
        count_tuned.launch(
            partial(_grid, B, n, device),
            operand(parts), operand(chunk_parts), above, below, low, high, counts, marks,
            B, n, D, half_width(D), parts.stride(0), chunk_parts.stride(0), words,
            SPLIT=split, EVEN=D % 128 == 0, DESCRIBED=described(device), SIZE=size_class(B, n),
        )  # fmt: skip
        decide_kernel[(B,)](
            queries, true_rows, chunk, counts, marks, listed, ranks,
            B, n, D, queries.stride(0), true_rows.stride(0), chunk.stride(0), most, words, listed.shape[1],
            BP=16, BD=min(512, triton.next_power_of_2(D)), BS=triton.next_power_of_2(most), BW=1024, num_warps=8,
        )  # fmt: skip
    check.close(rows, queries)
    return ranks
