"""Triton kernels of `match_rank`: a chunk of the gallery streams by, and only counters stay.

Shapes: B queries, n gallery rows of a chunk, D embedding size; a program holds BM queries and walks over tiles of BN
rows, its part of a chunk that is split over so many programs that the device is full.

Products of half precision are exact in the tensor cores' float32 sums. Float32 embeddings are split into two
bfloat16 parts, x = h + l + r with |l| ≤ 2⁻⁸|x| and |r| ≤ 2⁻¹⁶|x|, and multiplied as l·h' + h·l' + h·h': three
products at the rate of bfloat16. What is left out, l·l' + r·g + x·r', is at most SPLIT_ERROR·|x||g|.

What a product is off by is at most u·Σ|partial sums|, and a partial sum at most the norms of the elements it is of.
So an element counts by the sums that it is in (`sums_of`), and with |x||g| ≤ (|x|² + |g|²)/2 the bound has a part of
the query and one of the row, at D = 512 two thirds of what `bounds` states for any order of sums. The counting kernel
counts what is nearer for sure and marks what rounding may decide, one bit for each row, so that its loop has no
branch and the next tile's rows are under way while it compares. Another decides the marked rows by squared
differences in float64. Nothing waits for the device before the last chunk is under way, and the first chunk's norms
are under way before anything is asked of the queries: the device has nothing else to do then.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sketchynet.ops.checks import require_finite
from sketchynet.ops.gallery import GalleryRows, check_target_rows
from sketchynet.ops.kernels.tiles import (
    Tuned,
    cdiv,
    config,
    described,
    device_properties,
    dot_tile,
    launch,
    operand,
    power_of_two,
    rows_in_place,
    size_class,
)

CHUNK_BYTES = 1 << 28
"""Gallery rows of a chunk, in bytes; a split of float32 takes as many again."""
MARK_BYTES = 1 << 27
"""Marks of a chunk: a bit for each query and row."""
MARKED = 1024
"""Words of 32 marks that are set out in a row before they are decided; a query with more goes through all its words."""
MAX_SPLITS = 1024
SLACK_ROWS = 256
"""Rows that share the greatest slack among them; at least those of a tile."""
AHEAD = 4
"""Chunks on the device whose rows are measured before the queries are: the device waits for the host there."""
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
def sums_of(
    k,  # (BD,): elements of the embedding
    D,
    SPLIT: tl.constexpr,
):  # fmt: skip
    """float64 (BD,): partial sums of a product that hold an element, of steps of at most 64 elements in order.

    The eighth and the 32 more cover tensor cores, which add 16 products at once and truncate where they align them.
    Products of split halves are three in one sum: there every element counts for all, with 64 more.
    """
    if SPLIT:
        return (k * 0 + D + 64).to(tl.float64)
    return (k * 0 + D - k // 64 * 64).to(tl.float64) * 1.125 + 32.0


@triton.jit
def rows_kernel(
    rows,  # (n, D)
    parts,  # bfloat16 (n, 2·width), written where SPLIT: halves, with zeros up to their width
    squares,  # float64 (n,): squared norms, written unless BOUNDED
    middles,  # float32 (n,), written where BOUNDED: |g|²/2
    slacks,  # float32 (n / ROWS,) up to rounding, written where BOUNDED: the rows' part of the bound, of ROWS rows the most
    bad,  # int64 (): the least number of a row that is not finite
    first, n, D, width, stride,
    share, flushed,  # of the bound: beside what sums are off by, and what products below the least normal number may lose
    SPLIT: tl.constexpr, BOUNDED: tl.constexpr,
    ROWS: tl.constexpr, BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """What a chunk's rows are asked for, in one pass over them."""
    slack = 0.0
    for begin in range(0, ROWS, BP):
        i = tl.program_id(0) * ROWS + begin + tl.arange(0, BP)
        real = i < n
        row = tl.where(real, i, 0).to(tl.int64)
        total, weighted = tl.zeros((BP,), dtype=tl.float64), tl.zeros((BP,), dtype=tl.float64)
        for start in range(0, width, BD):
            k = start + tl.arange(0, BD)
            x = tl.load(rows + row[:, None] * stride + k[None, :], mask=real[:, None] & (k < D)[None, :], other=0.0)
            square = x.to(tl.float64) * x.to(tl.float64)
            total += tl.sum(square, axis=1)
            if BOUNDED:
                weighted += tl.sum(square * sums_of(k, D, SPLIT)[None, :], axis=1)
            if SPLIT:
                high = x.to(tl.bfloat16)
                low = (x - high.to(tl.float32)).to(tl.bfloat16)
                into = parts + row[:, None] * (2 * width) + k[None, :]
                held = real[:, None] & (k < width)[None, :]
                tl.store(into, high, mask=held)
                tl.store(into + width, low, mask=held)
        if BOUNDED:
            unit = 5.9604644775390625e-08
            part = 0.5 * (unit * weighted + share * total) + 3.0 * unit * total + flushed * (1.0 + tl.sqrt(total))
            tl.store(middles + i, (0.5 * total).to(tl.float32), mask=real)
            slack = tl.maximum(slack, tl.max(tl.where(real, (1.000001 * part).to(tl.float32), 0.0), axis=0))
        else:
            tl.store(squares + i, total, mask=real)
        tl.atomic_min(bad + 0 * row, row + first, mask=real & ~(total < float("inf")), sem="relaxed")
    if BOUNDED:
        tl.store(slacks + tl.program_id(0), slack)


@triton.jit
def cuts_kernel(
    queries, true_rows,  # (B, D)
    target,  # int64 (B,)
    low, high,  # float32 (B,): v below low is nearer than the true row for sure, above high farther
    ranks,  # int64 (B,): set to zero
    bad, astray,  # int64 (): the least number of a query that is not finite, or whose target is no row of the gallery
    B, D, rows, stride_q, stride_t,
    share, flushed,  # as in `rows_kernel`
    SPLIT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    apart, squares = tl.zeros((BD,), dtype=tl.float64), tl.zeros((BD,), dtype=tl.float64)
    weighted = tl.zeros((BD,), dtype=tl.float64)
    for start in range(0, D, BD):
        k = start + tl.arange(0, BD)
        x = tl.load(queries + b * stride_q + k, mask=k < D, other=0.0).to(tl.float64)
        y = tl.load(true_rows + b * stride_t + k, mask=k < D, other=0.0).to(tl.float64)
        apart += (x - y) * (x - y)
        squares += x * x
        weighted += x * x * sums_of(k, D, SPLIT)
    square = tl.sum(squares, axis=0)
    tl.atomic_min(bad, b, mask=~(square < float("inf")), sem="relaxed")
    at = tl.load(target + b)
    tl.atomic_min(astray, b, mask=(at < 0) | (at >= rows), sem="relaxed")
    threshold = (tl.sum(apart, axis=0) - square) / 2.0
    unit = 5.9604644775390625e-08
    part = 0.5 * (unit * tl.sum(weighted, axis=0) + share * square)
    slack = part + flushed * tl.sqrt(square) + 6.0 * unit * tl.abs(threshold)
    tl.store(low + b, (threshold - slack).to(tl.float32))
    tl.store(high + b, (threshold + slack).to(tl.float32))
    tl.store(ranks + b, 0)


@triton.jit
def count_kernel(
    queries, rows,  # operands
    middles, slacks,  # float32 (n,), (n / ROWS,): see `rows_kernel`
    low, high,  # float32 (B,)
    counts,  # int32 (splits, B): nearer for sure
    flags,  # int8 (B, tiles): tiles with a mark
    marks,  # int32 (B, words), written where flagged: bit r of word w marks that rounding may decide about row 32·w + r
    B, n, D, width, stride_q, stride_g, most, words,  # most: tiles that there is room for
    SPLIT: tl.constexpr, EVEN: tl.constexpr, DESCRIBED: tl.constexpr,
    ROWS: tl.constexpr,
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
        # Rows have the slack of the one with most around them: an operation less for each pair. Rows past the end are
        # infinitely far.
        slack = tl.load(slacks + tile * BN // ROWS)
        value = tl.load(middles + column, mask=column < n, other=float("inf"))[None, :] - product
        nearer = value < (near_cut - slack)[:, None]
        farther = value > (far_cut + slack)[:, None]
        found += tl.sum(nearer.to(tl.int32), axis=1)
        unsure = tl.where(nearer | farther, 0, bit)
        word = tl.sum(tl.reshape(unsure, (BM, BN // 32, 32)), axis=2)
        some = tl.max((word != 0).to(tl.int32), axis=1)
        tl.store(flags + query * most + tile, some.to(tl.int8), mask=i < B)
        place = query[:, None] * words + tile * (BN // 32) + tl.arange(0, BN // 32)[None, :]
        tl.store(marks + place, word, mask=((i < B) & (some > 0))[:, None])
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
    flags, marks,  # int8 (B, tiles), int32 (B, words): see `count_kernel`
    flagged,  # int32 (B, tiles): room for numbers of tiles
    listed,  # int64 (B, capacity): room for numbers of words, 32 bits up, and the words
    ranks,  # int64 (B,), added to
    B, n, D, stride_q, stride_t, stride_g, splits, tiles, most, words, capacity,
    PER: tl.constexpr,  # words of a tile
    BP: tl.constexpr, BD: tl.constexpr, BS: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    query, flag, marked = queries + b * stride_q, flags + b * most, marks + b * words
    tile_list, word_list = flagged + b * most, listed + b * capacity
    tile_count, entries = 0, 0
    for start in range(0, tiles, BW):
        number = start + tl.arange(0, BW)
        some = tl.load(flag + number, mask=number < tiles, other=0).to(tl.int32)
        tl.store(tile_list + tile_count + tl.cumsum(some, axis=0) - 1, number, mask=some > 0)
        tile_count += tl.sum(some, axis=0)
    tl.debug_barrier()  # what some threads listed others read
    for start in range(0, tile_count * PER, BW):
        item = start + tl.arange(0, BW)
        held = item < tile_count * PER
        number = tl.load(tile_list + item // PER, mask=held, other=0) * PER + item % PER
        word = tl.load(marked + number, mask=held & (number * 32 < n), other=0)
        some = (word != 0).to(tl.int32)
        place = entries + tl.cumsum(some, axis=0) - 1
        entry = (number.to(tl.int64) << 32) | (word.to(tl.int64) & 0xFFFFFFFF)
        tl.store(word_list + place, entry, mask=(some > 0) & (place < capacity))
        entries += tl.sum(some, axis=0)
    tl.debug_barrier()
    lane = tl.arange(0, BP)
    # The true distance comes from the same lines as the others, for every lane: the order of its sum is theirs.
    true = exact_distances(query, true_rows, b + tl.zeros((BP,), dtype=tl.int64), stride_t, D, BP, BD)
    overflow = entries > capacity
    count = tl.where(overflow, tile_count * PER, entries)
    found = tl.zeros((BP,), dtype=tl.int64)
    for first in range(0, count, BP):
        place = first + lane
        held = place < count
        entry = tl.load(word_list + place, mask=held & (place < capacity), other=0)
        if overflow:
            number = tl.load(tile_list + place // PER, mask=held, other=0) * PER + place % PER
            word = tl.load(marked + number, mask=held & (number * 32 < n), other=0)
            entry = (number.to(tl.int64) << 32) | (word.to(tl.int64) & 0xFFFFFFFF)
        left = tl.where(held, entry & 0xFFFFFFFF, 0)
        while tl.max(left, axis=0) > 0:
            lowest = left & -left
            # The exponent of a power of two is its number.
            place_of_bit = (lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127
            j = (entry >> 32) * 32 + place_of_bit
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
        config(4, 4, BM=16, BN=128, BK=64),
    ],
    key=["SIZE", "D", "SPLIT"],
    operands={"queries": ("BM", "BK"), "rows": ("BN", "BK")},
)


def half_width(D: int) -> int:
    """Elements of each half of split rows."""
    return cdiv(D, PARTS_WIDTH) * PARTS_WIDTH


def measured(
    rows: Tensor, bad: Tensor, first: int = 0, *, share: float | None = None, flushed: float = 0.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Squared norms float64 (n,), empty with a share; rows as products take them, split where float32; and with a
    share `middles` and `slacks` of `rows_kernel`, else empty. The least number, from `first` on, of a row that is not
    finite goes to bad."""
    (n, D), split, device = rows.shape, rows.dtype == torch.float32, rows.device
    width, bounded = half_width(D), share is not None
    parts = torch.empty((n, 2 * width), dtype=torch.bfloat16, device=device) if split else rows
    squares = torch.empty(0 if bounded else n, dtype=torch.float64, device=device)
    group = SLACK_ROWS if bounded else 16
    middles, slacks = (
        torch.empty(count if bounded else 0, dtype=torch.float32, device=device) for count in (n, cdiv(n, group))
    )
    launch(
        rows_kernel, (cdiv(n, group),),
        rows, parts, squares, middles, slacks, bad, first, n, D, width, rows.stride(0), share or 0.0, flushed,
        SPLIT=split, BOUNDED=bounded, ROWS=group, BP=16, BD=128,
    )  # fmt: skip
    return squares, parts, middles, slacks


def chunk_rows(D: int, dtype: torch.dtype) -> int:
    return max(1024, min(1 << 19, CHUNK_BYTES // (D * dtype.itemsize)))


@functools.cache
def _splits(across: int, tiles: int, processors: int) -> int:
    """Parts of a chunk that keep all processors busy to the end, each of as many programs as there are `across`."""

    def tiles_in_turn(parts: int) -> float:
        # A program's start takes about a third of a tile.
        return cdiv(across * parts, processors) * (cdiv(tiles, parts) + 0.3)

    return min(range(1, min(tiles, MAX_SPLITS, cdiv(16 * processors, across)) + 1), key=tiles_in_turn)


def splits(queries: int, rows: int, meta: dict[str, Any], device: torch.device) -> int:
    """Parts of a chunk, each for a program of its own for every tile of queries."""
    processors = device_properties(device).multi_processor_count if device.type == "cuda" else 1
    return _splits(cdiv(queries, meta["BM"]), cdiv(rows, meta["BN"]), processors)


class DeferredCheck:
    """Remembers on the device what is wrong, so that the check waits for nothing: the least numbers of rows of the
    gallery and of queries that are not finite, and of targets outside of the gallery."""

    def __init__(self, operator: str, device: torch.device) -> None:
        self._operator = operator
        self.gallery, self.queries, self.targets = self._first = torch.full(
            (3,), torch.iinfo(torch.int64).max, device=device
        )
        """int64 (), for the kernels."""

    def close(self, rows: GalleryRows, queries: Tensor, target: Tensor | None = None) -> None:
        """InputError if there was one."""
        of_gallery, of_queries, of_targets = self._first.tolist()
        if target is not None and of_targets < len(queries):
            check_target_rows(self._operator, target, len(rows))
        if of_queries < len(queries):
            require_finite(self._operator, "query", queries)
        if of_gallery < len(rows):
            rows.check(of_gallery, rows.take(torch.tensor([of_gallery])))


def _grid(queries: int, rows: int, device: torch.device, meta: dict[str, Any]) -> tuple[int, int]:
    return cdiv(queries, meta["BM"]), splits(queries, rows, meta, device)


def match_rank_triton(queries: Tensor, rows: GalleryRows, target: Tensor) -> Tensor:
    """As `match_rank`, B ≥ 1; targets outside of the gallery and what is not finite are found in the end."""
    queries = rows_in_place(queries)
    (B, D), device, split = queries.shape, queries.device, queries.dtype == torch.float32
    check = DeferredCheck("match_rank", device)
    share, flushed = (SPLIT_ERROR if split else 0.0) + 2.0 * UNIT, D * 2.0**-120
    size = min(chunk_rows(D, queries.dtype), max(1 << 15, 8 * MARK_BYTES // B // 256 * 256), len(rows))

    def measured_chunks() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        for first, chunk in rows.chunks(size):
            chunk = rows_in_place(chunk)
            yield chunk, *measured(chunk, check.gallery, first, share=share, flushed=flushed)[1:]

    chunks = measured_chunks()
    ahead = list(islice(chunks, 1 if split or rows.moves else AHEAD))
    true_rows = rows_in_place(rows.take(target.clamp(0, len(rows) - 1)))
    low, high = torch.empty((2, B), dtype=torch.float32, device=device)
    ranks = torch.empty(B, dtype=torch.int64, device=device)
    launch(
        cuts_kernel, (B,),
        queries, true_rows, target, low, high, ranks, check.queries, check.targets,
        B, D, len(rows), queries.stride(0), true_rows.stride(0), share, flushed, SPLIT=split, BD=128, num_warps=1,
    )  # fmt: skip
    parts = measured(queries, check.queries)[1] if split else queries
    words = 8 * cdiv(size, 256)  # whole tiles of either width
    lengths = (size, len(rows) % size or size)
    most = max(splits(B, n, choice, device) for choice in count_tuned.choices for n in lengths)
    room = cdiv(size, min(choice["BN"] for choice in count_tuned.choices))
    counts = torch.empty((most, B), dtype=torch.int32, device=device)
    flags, flagged = (torch.empty((B, room), dtype=dtype, device=device) for dtype in (torch.int8, torch.int32))
    marks = torch.empty((B, words), dtype=torch.int32, device=device)
    listed = torch.empty((B, min(MARKED, words)), dtype=torch.int64, device=device)
    for chunk, chunk_parts, middles, slacks in chain(ahead, chunks):
        n = len(chunk)
        blocks = count_tuned.launch(
            partial(_grid, B, n, device),
            operand(parts), operand(chunk_parts), middles, slacks, low, high, counts, flags, marks,
            B, n, D, half_width(D), parts.stride(0), chunk_parts.stride(0), room, words,
            SPLIT=split, EVEN=D % 128 == 0, DESCRIBED=described(device), ROWS=SLACK_ROWS, SIZE=size_class(B, n),
        )  # fmt: skip
        counted = splits(B, n, blocks, device)
        launch(
            decide_kernel, (B,),
            queries, true_rows, chunk, counts, flags, marks, flagged, listed, ranks,
            B, n, D, queries.stride(0), true_rows.stride(0), chunk.stride(0),
            counted, cdiv(n, blocks["BN"]), room, words, listed.shape[1], PER=blocks["BN"] // 32,
            BP=4, BD=min(256, power_of_two(D)), BS=power_of_two(counted), BW=512, num_warps=1,
        )  # fmt: skip
    check.close(rows, queries, target)
    return ranks
