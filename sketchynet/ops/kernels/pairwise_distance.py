"""Triton kernels of `pairwise_distance`.

Shapes: B rows of x, G rows of y, D embedding size; a program computes a (BM, BN) tile of the distances.

Forward, `distance_kernel` goes through the Gram matrix and notes the tiles that hold a near pair (d² < NEAR · n), and
`near_kernel` visits these alone and computes their near pairs from differences, in sub-tiles of SUB × SUB. Backward,
`weight_kernel` makes weights w of the pairs and sums them by rows and columns of its tiles, two matrix products sum w·y
and w·x, and `gradient_kernel` takes x·Σw - Σ w·y, adding near pairs from differences. (Sums of w from a column of ones
behind y would make the products up to twice as slow: their width would be a multiple of no tile.)
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sketchynet.ops.kernels.tiles import (
    Tuned,
    as_tf32,
    cdiv,
    config,
    described,
    dot_tile,
    float32_product,
    launch,
    operand,
    precision_of,
    rows_in_place,
    size_class,
    wide,
)
from sketchynet.ops.pairwise_distance import NEAR

SUB = 16
ACROSS = 64
"""Sub-tiles that a program of `near_kernel` looks through."""
TILE, ACROSS_TILE = 32, 128
"""Rows and columns of a tile of weights."""


@triton.jit
def distance_kernel(
    x, y,  # (B, D), (G, D): operands
    x_norms, y_norms,  # float32 (B,), (G,): squared
    out,  # float32 (B, G)
    flags,  # int8 (B / SUB, G / SUB) up to rounding: sub-tiles of tiles with a near pair
    B, G, D, stride_x, stride_y, stride_flags,
    NEAR_SHARE: tl.constexpr, SQUARED: tl.constexpr, EVEN: tl.constexpr, DESCRIBED: tl.constexpr, PRECISION: tl.constexpr,
    STEP: tl.constexpr,  # SUB
    SIZE: tl.constexpr,  # class of sizes, for tuning alone
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    # Tiles go in groups of GROUP rows, so that programs that run together share rows of x and y in the L2 cache.
    tiles_b, tiles_g = tl.cdiv(B, BM), tl.cdiv(G, BN)
    program = tl.program_id(0)
    first = program // (GROUP * tiles_g) * GROUP
    height = min(tiles_b - first, GROUP)
    tile_b = first + program % (GROUP * tiles_g) % height
    tile_g = program % (GROUP * tiles_g) // height
    i = tile_b * BM + tl.arange(0, BM)
    j = tile_g * BN + tl.arange(0, BN)
    zeros = tl.zeros((BM, BN), dtype=tl.float32)
    product = dot_tile(
        x, y, tile_b * BM, tile_g * BN, B, G, stride_x, stride_y, 0, 0, D, zeros,
        BM, BN, BK, EVEN, DESCRIBED, PRECISION,
    )  # fmt: skip
    size = tl.load(x_norms + i % B)[:, None] + tl.load(y_norms + j % G)[None, :]
    squared = size - 2.0 * product
    inside = (i < B)[:, None] & (j < G)[None, :]
    near = inside & ~(squared >= NEAR_SHARE * size)
    squared = tl.maximum(squared, 0.0)
    result = squared if SQUARED else tl.sqrt(squared)
    tl.store(out + i.to(tl.int64)[:, None] * G + j[None, :], result, mask=inside)
    if tl.max(tl.max(near.to(tl.int32), axis=1), axis=0) > 0:
        sub_b = tile_b * (BM // STEP) + tl.arange(0, BM // STEP)
        sub_g = tile_g * (BN // STEP) + tl.arange(0, BN // STEP)
        flag = flags + sub_b.to(tl.int64)[:, None] * stride_flags + sub_g[None, :]
        one = tl.full((BM // STEP, BN // STEP), 1, dtype=tl.int8)
        tl.store(flag, one, mask=(sub_b * STEP < B)[:, None] & (sub_g * STEP < G)[None, :])


@triton.jit
def near_kernel(
    x, y,  # (B, D), (G, D)
    x_norms, y_norms,  # float32 (B,), (G,): squared
    out,  # float32 (B, G), near pairs of flagged sub-tiles are overwritten
    flags,  # int8, one for each sub-tile
    B, G, D, stride_x, stride_y, stride_flags, sub_tiles,
    NEAR_SHARE: tl.constexpr, SQUARED: tl.constexpr,
    STEP: tl.constexpr, ACROSS: tl.constexpr,  # sub-tiles that a program looks through
    BK: tl.constexpr,
):  # fmt: skip
    k = tl.arange(0, BK)
    i = tl.program_id(0) * STEP + tl.arange(0, STEP)
    row = (i % B).to(tl.int64)
    line = flags + tl.program_id(0).to(tl.int64) * stride_flags
    across = tl.program_id(1) * ACROSS + tl.arange(0, ACROSS)
    some = tl.max(tl.load(line + across, mask=across < sub_tiles, other=0).to(tl.int32), axis=0)
    past = tl.where(some > 0, min(tl.program_id(1) * ACROSS + ACROSS, sub_tiles), 0)
    for sub in range(tl.program_id(1) * ACROSS, past):
        if tl.load(line + sub) != 0:
            j = sub * STEP + tl.arange(0, STEP)
            column = (j % G).to(tl.int64)
            place = out + row[:, None] * G + column[None, :]
            found = tl.load(place)
            squared = found if SQUARED else found * found
            size = tl.load(x_norms + row)[:, None] + tl.load(y_norms + column)[None, :]
            # A shade more than the first kernel's share, for the root and its square.
            near = ~(squared >= 1.0001 * NEAR_SHARE * size)
            if tl.max(tl.max(near.to(tl.int32), axis=1), axis=0) > 0:
                exact = tl.zeros((STEP, STEP), dtype=tl.float32)
                for start in range(0, D, BK):
                    held = k < D - start
                    a = tl.load(x + row[:, None] * stride_x + start + k[None, :], mask=held[None, :], other=0.0)
                    b = tl.load(y + column[:, None] * stride_y + start + k[None, :], mask=held[None, :], other=0.0)
                    apart = a.to(tl.float32)[:, None, :] - b.to(tl.float32)[None, :, :]
                    exact += tl.sum(apart * apart, axis=2)
                result = exact if SQUARED else tl.sqrt(exact)
                tl.store(place, result, mask=near & (i < B)[:, None] & (j < G)[None, :])


@triton.jit
def norms_kernel(
    x, y,  # (B, D), (G, D)
    norms,  # float32 (B + G,): squared
    flags,  # int8, set to zero
    B, G, D, stride_x, stride_y, flag_count,
    BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Programs for the rows of x, then for those of y."""
    program, of_x = tl.program_id(0), tl.cdiv(B, BP)
    second = program >= of_x
    i = tl.where(second, program - of_x, program) * BP + tl.arange(0, BP)
    real = i < tl.where(second, G, B)
    row = tl.where(real, i, 0).to(tl.int64)
    rows = tl.where(second, y + row * stride_y, x + row * stride_x)
    norm = tl.zeros((BP,), dtype=tl.float32)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        value = tl.load(rows[:, None] + d[None, :], mask=(d < D)[None, :], other=0.0).to(tl.float32)
        norm += tl.sum(value * value, axis=1)
    tl.store(norms + tl.where(second, B, 0) + i, norm, mask=real)
    part = tl.cdiv(flag_count, tl.num_programs(0))
    for start in range(0, part, BD):
        place = start + tl.arange(0, BD)
        flag = program * part + place
        tl.store(flags + flag, tl.zeros((BD,), dtype=tl.int8), mask=(place < part) & (flag < flag_count))


@triton.jit
def weight_kernel(
    grad,  # (B, G), any strides
    distance,  # float32 (B, G)
    norms,  # float32 (B + G,): squared
    weights,  # (B, G): ∂L/∂d / d, or 2 ∂L/∂d² of squares; zero for near pairs
    row_sums, column_sums,  # float32 (G / BN, B), (B / TILE, G) up to rounding: of the weights, by tiles
    flags,  # int8 (B / TILE, G / TILE) up to rounding: tiles with a near pair
    B, G, grad_row, grad_column, stride_flags,
    NEAR_SHARE: tl.constexpr, SQUARED: tl.constexpr,
    ROUND: tl.constexpr,  # the weights will be multiplied in TF32
    TILE: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    j = tl.program_id(1) * BN + tl.arange(0, BN)
    inside = (i < B)[:, None] & (j < G)[None, :]
    row, column = i.to(tl.int64)[:, None], j.to(tl.int64)[None, :]
    pull = tl.load(grad + row * grad_row + column * grad_column, mask=inside, other=0.0).to(tl.float32)
    found = tl.load(distance + row * G + column, mask=inside, other=0.0)
    squared = found if SQUARED else found * found
    size = tl.load(norms + i % B)[:, None] + tl.load(norms + B + j % G)[None, :]
    near = (squared < NEAR_SHARE * size) & (squared > 0.0)
    weight = 2.0 * pull if SQUARED else pull / tl.where(found > 0.0, found, 1.0)
    weight = tl.where(near | (found <= 0.0), 0.0, weight)
    narrow = (as_tf32(weight) if ROUND else weight).to(weights.dtype.element_ty)
    tl.store(weights + row * G + column, narrow, mask=inside)
    counted = narrow.to(tl.float32)
    tl.store(row_sums + tl.program_id(1).to(tl.int64) * B + i, tl.sum(counted, axis=1), mask=i < B)
    tl.store(column_sums + tl.program_id(0).to(tl.int64) * G + j, tl.sum(counted, axis=0), mask=j < G)
    flag = tl.max(tl.max(tl.reshape((near & inside).to(tl.int32), (TILE, BN // TILE, TILE)), axis=2), axis=0)
    tile = tl.program_id(1) * (BN // TILE) + tl.arange(0, BN // TILE)
    tl.store(flags + tl.program_id(0) * stride_flags + tile, flag.to(tl.int8), mask=tile * TILE < G)


@triton.jit
def gradient_kernel(
    x, y,  # (B, D), (G, D)
    x_products, y_products,  # float32 (B, D), (G, D): of the weights with the other rows
    row_sums, column_sums,  # float32 (parts_x, B), (parts_y, G): of the weights
    grad, distance,  # (B, G)
    norms,  # float32 (B + G,): squared
    flags,  # int8
    x_gradient, y_gradient,  # (B, D), (G, D)
    B, G, D, stride_x, stride_y, parts_x, parts_y, grad_row, grad_column, stride_flags,
    NEAR_SHARE: tl.constexpr, SQUARED: tl.constexpr,
    TILE: tl.constexpr, BF: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """x·Σw - Σ w·y, and what near pairs pull, from differences; programs for the rows of x, then for those of y."""
    tiles_x, tiles_y = tl.cdiv(B, TILE), tl.cdiv(G, TILE)
    second = tl.program_id(0) >= tiles_x
    tile = tl.program_id(0) - (tiles_x if second else 0)
    own, other, products, sums, out = x, y, x_products, row_sums, x_gradient
    n, m, parts, tiles = wide(B), wide(G), wide(parts_x), wide(tiles_y)
    stride_own, stride_other = wide(stride_x), wide(stride_y)
    own_norms, other_norms = norms, norms + B
    distance_own, distance_other = wide(G), wide(1)
    grad_own, grad_other = wide(grad_row), wide(grad_column)
    flags_own, flags_other = wide(stride_flags), wide(1)
    if second:
        own, other, products, sums, out = y, x, y_products, column_sums, y_gradient
        n, m, parts, tiles = wide(G), wide(B), wide(parts_y), wide(tiles_x)
        stride_own, stride_other = stride_other, stride_own
        own_norms, other_norms = other_norms, own_norms
        distance_own, distance_other = distance_other, distance_own
        grad_own, grad_other = grad_other, grad_own
        flags_own, flags_other = flags_other, flags_own
    i = tile * TILE + tl.arange(0, TILE)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    row = (i % n).to(tl.int64)
    held = (i < n)[:, None] & (d < D)[None, :]
    total = tl.zeros((TILE,), dtype=tl.float32)
    for start in range(0, parts, TILE):
        part = start + tl.arange(0, TILE)
        some = tl.load(sums + part.to(tl.int64)[:, None] * n + row[None, :], mask=(part < parts)[:, None], other=0.0)
        total += tl.sum(some, axis=0)
    row = row[:, None]
    ours = tl.load(own + row * stride_own + d[None, :], mask=held, other=0.0).to(tl.float32)
    result = total[:, None] * ours - tl.load(products + row * D + d[None, :], mask=held, other=0.0)
    for start in range(0, tiles, BF):
        across = start + tl.arange(0, BF)
        line = flags + tile * flags_own
        flagged = tl.load(line + across * flags_other, mask=across < tiles, other=0).to(tl.int32)
        if tl.max(flagged, axis=0) > 0:
            for number in range(start, min(start + BF, tiles)):
                if tl.load(line + number * flags_other) != 0:
                    j = number * TILE + tl.arange(0, TILE)
                    column = (j % m).to(tl.int64)[None, :]
                    pull = tl.load(grad + row * grad_own + column * grad_other).to(tl.float32)
                    found = tl.load(distance + row * distance_own + column * distance_other)
                    squared = found if SQUARED else found * found
                    size = tl.load(own_norms + row) + tl.load(other_norms + column)
                    near = (squared < NEAR_SHARE * size) & (squared > 0.0) & (j < m)[None, :]
                    weight = 2.0 * pull if SQUARED else pull / tl.where(found > 0.0, found, 1.0)
                    weight = tl.where(near, weight, 0.0)
                    for k in range(TILE):
                        one = tl.sum(tl.where((tl.arange(0, TILE) == k)[None, :], weight, 0.0), axis=1)
                        at = other + ((number * TILE + k) % m).to(tl.int64) * stride_other
                        theirs = tl.load(at + d, mask=d < D, other=0.0).to(tl.float32)
                        result += one[:, None] * (ours - theirs[None, :])
    tl.store(out + row * D + d[None, :], result.to(out.dtype.element_ty), mask=held)


distance_tuned = Tuned(
    distance_kernel,
    [
        config(8, 3, BM=128, BN=128, BK=64, GROUP=8),
        config(8, 4, BM=128, BN=128, BK=32, GROUP=8),
        config(4, 4, BM=64, BN=128, BK=32, GROUP=8),
        config(4, 4, BM=64, BN=64, BK=64, GROUP=8),
    ],
    key=["SIZE", "D", "PRECISION"],
    operands={"x": ("BM", "BK"), "y": ("BN", "BK")},
    reset=["flags"],
)


def _measured(x: Tensor, y: Tensor, flags: Tensor) -> Tensor:
    """Squared norms float32 (B + G,) of x and y; the flags are set to zero."""
    (B, D), G = x.shape, len(y)
    norms = torch.empty(B + G, dtype=torch.float32, device=x.device)
    launch(
        norms_kernel, (cdiv(B, 4) + cdiv(G, 4),),
        x, y, norms, flags, B, G, D, x.stride(0), y.stride(0), flags.numel(), BP=4, BD=256,
    )  # fmt: skip
    return norms


def squared_norms(rows: Tensor) -> Tensor:
    """float32 (n,)."""
    return _measured(rows, rows[:0], torch.empty(0, dtype=torch.int8, device=rows.device))


def pairwise_distance_triton(x: Tensor, y: Tensor, squared: bool) -> tuple[Tensor, Tensor]:
    """float32 (B, G) of x (B, D) and y (G, D), B, G, D ≥ 1, and the rows' squared norms, for the gradients."""
    x, y = rows_in_place(x), rows_in_place(y)
    (B, D), G = x.shape, len(y)
    out = torch.empty((B, G), dtype=torch.float32, device=x.device)
    flags = torch.empty((cdiv(B, SUB), cdiv(G, SUB)), dtype=torch.int8, device=x.device)
    norms = _measured(x, y, flags)
    shared = (norms, norms[B:], out, flags, B, G, D, x.stride(0), y.stride(0), flags.shape[1])
    distance_tuned.launch(
        lambda meta: (cdiv(B, meta["BM"]) * cdiv(G, meta["BN"]),),
        operand(x), operand(y), *shared,
        NEAR_SHARE=NEAR, SQUARED=squared, EVEN=D % 64 == 0, DESCRIBED=described(x.device),
        PRECISION=precision_of(x.dtype), STEP=SUB, SIZE=size_class(B, G),
    )  # fmt: skip
    launch(
        near_kernel, (flags.shape[0], cdiv(flags.shape[1], ACROSS)),
        x, y, *shared, flags.shape[1], NEAR_SHARE=NEAR, SQUARED=squared, STEP=SUB, ACROSS=ACROSS, BK=32,
    )  # fmt: skip
    return out, norms


def pairwise_gradients_triton(
    grad: Tensor, x: Tensor, y: Tensor, distance: Tensor, norms: Tensor, squared: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of x (B, D) and y (G, D), in their types, given that of the distances (B, G).

    Products follow `torch.get_float32_matmul_precision()`, but those of bfloat16 embeddings are of bfloat16: float16
    has not the range that weights may need.
    """
    x, y = rows_in_place(x), rows_in_place(y)
    (B, G), D, device = distance.shape, x.shape[1], x.device
    dtype = torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32
    weights = torch.empty((B, G), dtype=dtype, device=device)
    tiles, across = (cdiv(B, TILE), cdiv(G, TILE)), cdiv(G, ACROSS_TILE)
    flags = torch.empty(tiles, dtype=torch.int8, device=device)
    row_sums = torch.empty((across, B), dtype=torch.float32, device=device)
    column_sums = torch.empty((tiles[0], G), dtype=torch.float32, device=device)
    launch(
        weight_kernel, (tiles[0], across),
        grad, distance, norms, weights, row_sums, column_sums, flags, B, G, *grad.stride(), tiles[1],
        NEAR_SHARE=NEAR, SQUARED=squared, ROUND=dtype == torch.float32 and precision_of(dtype) == "tf32",
        TILE=TILE, BN=ACROSS_TILE,
    )  # fmt: skip
    x_products, y_products = float32_product(weights, y.to(dtype)), float32_product(weights.T, x.to(dtype))
    x_gradient, y_gradient = (torch.empty((len(t), D), dtype=t.dtype, device=device) for t in (x, y))
    launch(
        gradient_kernel, (tiles[0] + tiles[1], cdiv(D, 128)),
        x, y, x_products, y_products, row_sums, column_sums, grad, distance, norms, flags, x_gradient, y_gradient,
        B, G, D, x.stride(0), y.stride(0), across, tiles[0], *grad.stride(), tiles[1],
        NEAR_SHARE=NEAR, SQUARED=squared, TILE=TILE, BF=128, BD=128,
    )  # fmt: skip
    return x_gradient, y_gradient
