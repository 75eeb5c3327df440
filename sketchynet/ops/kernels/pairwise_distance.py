"""Triton kernels of `pairwise_distance`.

Shapes: B rows of x, G rows of y, D embedding size; a program computes a (BM, BN) tile of the distances.

Forward, `distance_kernel` goes through the Gram matrix and notes the tiles that hold a near pair (d² < NEAR · n), and
`near_kernel` visits these alone and computes their near pairs from differences, in sub-tiles of SUB × SUB. Backward,
`weight_kernel` makes weights w of the pairs, two matrix products sum w·y and w·x, with the sums of w along in a column
of ones, and `gradient_kernel` takes x·Σw - Σ w·y, adding near pairs from differences.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sketchynet.ops.kernels.tiles import (
    Tuned,
    config,
    described,
    dot_tile,
    float32_product,
    operand,
    precision_of,
    rows_in_place,
    size_class,
)
from sketchynet.ops.pairwise_distance import NEAR

SUB = 16
TILE = 32


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
    for sub in range(tl.program_id(1) * ACROSS, min(tl.program_id(1) * ACROSS + ACROSS, sub_tiles)):
        if tl.load(flags + tl.program_id(0).to(tl.int64) * stride_flags + sub) != 0:
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
def weight_kernel(
    grad,  # (B, G), any strides
    distance,  # float32 (B, G)
    x_norms, y_norms,  # float32 (B,), (G,): squared
    weights,  # (B, G): ∂L/∂d / d, or 2 ∂L/∂d² of squares; zero for near pairs
    flags,  # int8 (B / TILE, G / TILE) up to rounding: tiles with a near pair
    B, G, grad_row, grad_column, stride_flags,
    NEAR_SHARE: tl.constexpr, SQUARED: tl.constexpr,
    TILE: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    j = tl.program_id(1) * BN + tl.arange(0, BN)
    inside = (i < B)[:, None] & (j < G)[None, :]
    row, column = i.to(tl.int64)[:, None], j.to(tl.int64)[None, :]
    pull = tl.load(grad + row * grad_row + column * grad_column, mask=inside, other=0.0).to(tl.float32)
    found = tl.load(distance + row * G + column, mask=inside, other=0.0)
    squared = found if SQUARED else found * found
    size = tl.load(x_norms + i % B)[:, None] + tl.load(y_norms + j % G)[None, :]
    near = (squared < NEAR_SHARE * size) & (squared > 0.0)
    weight = 2.0 * pull if SQUARED else pull / tl.where(found > 0.0, found, 1.0)
    weight = tl.where(near | (found <= 0.0), 0.0, weight)
    tl.store(weights + row * G + column, weight.to(weights.dtype.element_ty), mask=inside)
    flag = tl.max(tl.max(tl.reshape((near & inside).to(tl.int32), (TILE, BN // TILE, TILE)), axis=2), axis=0)
    tile = tl.program_id(1) * (BN // TILE) + tl.arange(0, BN // TILE)
    tl.store(flags + tl.program_id(0) * stride_flags + tile, flag.to(tl.int8), mask=tile * TILE < G)


@triton.jit
def pack_kernel(
    rows,  # (n, D)
    packed,  # (n, W): the rows, with 1 behind each and zeros up to W; written where PACK
    norms,  # float32 (n,): squared
    n, D, W, stride,
    PACK: tl.constexpr, BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BP + tl.arange(0, BP)
    row = (i % n).to(tl.int64)[:, None]
    norm = tl.zeros((BP,), dtype=tl.float32)
    for start in range(0, W, BD):
        d = start + tl.arange(0, BD)[None, :]
        x = tl.load(rows + row * stride + d, mask=d < D, other=0.0).to(tl.float32)
        norm += tl.sum(x * x, axis=1)
        if PACK:
            with_one = tl.where(d == D, 1.0, x).to(packed.dtype.element_ty)
            tl.store(packed + row * W + d, with_one, mask=d < W)
    tl.store(norms + i, norm, mask=i < n)


@triton.jit
def gradient_kernel(
    own, other,  # (n, D), (m, D)
    products,  # float32 (n, W): of the weights with the others, and at column D of the weights with ones
    grad, distance,  # float32, with the own row first: see the strides
    own_norms, other_norms,  # float32 (n,), (m,)
    flags,  # int8
    out,  # (n, D)
    n, m, D, W, stride_own, stride_other, grad_own, grad_other, distance_own, distance_other, flags_own, flags_other,
    NEAR_SHARE: tl.constexpr, SQUARED: tl.constexpr,
    TILE: tl.constexpr, BF: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """x·Σw - Σ w·y, and what near pairs pull, from differences."""
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    row = (i % n).to(tl.int64)[:, None]
    held = (i < n)[:, None] & (d < D)[None, :]
    x = tl.load(own + row * stride_own + d[None, :], mask=held, other=0.0).to(tl.float32)
    total = tl.load(products + row * W + D)
    result = total * x - tl.load(products + row * W + d[None, :], mask=held, other=0.0)
    tiles = tl.cdiv(m, TILE)
    for start in range(0, tiles, BF):
        tile = start + tl.arange(0, BF)
        line = flags + tl.program_id(0).to(tl.int64) * flags_own
        some = tl.load(line + tile.to(tl.int64) * flags_other, mask=tile < tiles, other=0).to(tl.int32)
        if tl.max(some, axis=0) > 0:
            for number in range(start, min(start + BF, tiles)):
                if tl.load(line + (number + tl.zeros((), tl.int64)) * flags_other) != 0:
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
                        y = tl.load(at + d, mask=d < D, other=0.0).to(tl.float32)
                        result += one[:, None] * (x - y[None, :])
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


def _pack(rows: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """The rows in a type with ones behind them (empty without a type), and squared norms float32 (n,)."""
    (n, D), width = rows.shape, 0
    if dtype is not None:
        line = 16 // dtype.itemsize
        width = (D // line + 1) * line
    packed = torch.empty((n, width), dtype=dtype, device=rows.device)
    norms = torch.empty(n, dtype=torch.float32, device=rows.device)
    pack_kernel[(triton.cdiv(n, 4),)](
        rows, packed, norms, n, D, width if width else D, rows.stride(0), PACK=width > 0, BP=4, BD=256
    )
    return packed, norms


def squared_norms(rows: Tensor) -> Tensor:
    """float32 (n,)."""
    return _pack(rows, None)[1]


def pairwise_distance_triton(x: Tensor, y: Tensor, squared: bool) -> Tensor:
    """float32 (B, G) of x (B, D) and y (G, D), B, G, D ≥ 1."""
    x, y = rows_in_place(x), rows_in_place(y)
    (B, D), G = x.shape, len(y)
    out = torch.empty((B, G), dtype=torch.float32, device=x.device)
    flags = torch.zeros((triton.cdiv(B, SUB), triton.cdiv(G, SUB)), dtype=torch.int8, device=x.device)
    shared = (squared_norms(x), squared_norms(y), out, flags, B, G, D, x.stride(0), y.stride(0), flags.shape[1])
    distance_tuned.launch(
        lambda meta: (triton.cdiv(B, meta["BM"]) * triton.cdiv(G, meta["BN"]),),
        operand(x), operand(y), *shared,
        NEAR_SHARE=NEAR, SQUARED=squared, EVEN=D % 64 == 0, DESCRIBED=described(x.device),
        PRECISION=precision_of(x.dtype), STEP=SUB, SIZE=size_class(B, G),
    )  # fmt: skip
    across = 8
    near_kernel[(flags.shape[0], triton.cdiv(flags.shape[1], across))](
        x, y, *shared, flags.shape[1], NEAR_SHARE=NEAR, SQUARED=squared, STEP=SUB, ACROSS=across, BK=32
    )
    return out


def pairwise_gradients_triton(
    grad: Tensor, x: Tensor, y: Tensor, distance: Tensor, squared: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of x (B, D) and y (G, D), in their types, given that of the distances (B, G).

    Products follow `torch.get_float32_matmul_precision()`, but those of bfloat16 embeddings are of bfloat16: float16
    has not the range that weights may need.
    """
    x, y = rows_in_place(x), rows_in_place(y)
    (B, G), D = distance.shape, x.shape[1]
    dtype = torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32
    (x_packed, x_norms), (y_packed, y_norms) = _pack(x, dtype), _pack(y, dtype)
    weights = torch.empty((B, G), dtype=dtype, device=x.device)
    flags = torch.empty((triton.cdiv(B, TILE), triton.cdiv(G, TILE)), dtype=torch.int8, device=x.device)
    weight_kernel[(flags.shape[0], triton.cdiv(G, 128))](
        grad, distance, x_norms, y_norms, weights, flags, B, G, grad.stride(0), grad.stride(1), flags.stride(0),
        NEAR_SHARE=NEAR, SQUARED=squared, TILE=TILE, BN=128,
    )  # fmt: skip
    gradients = []
    for own, other, product, norms, turn in (
        (x, y, float32_product(weights, y_packed), (x_norms, y_norms), 1),
        (y, x, float32_product(weights.T, x_packed), (y_norms, x_norms), -1),
    ):
        gradients.append(torch.empty((len(own), D), dtype=own.dtype, device=own.device))
        strides = [stride for matrix in (grad, distance, flags) for stride in matrix.stride()[::turn]]
        gradient_kernel[(triton.cdiv(len(own), TILE), triton.cdiv(D, 128))](
            own, other, product, grad, distance, *norms, flags, gradients[-1],
            len(own), len(other), D, product.shape[1], own.stride(0), other.stride(0), *strides,
            NEAR_SHARE=NEAR, SQUARED=squared, TILE=TILE, BF=128, BD=128,
        )  # fmt: skip
    return gradients[0], gradients[1]
