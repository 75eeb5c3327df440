"""Triton kernels of `pairwise_distance`.

Shapes: B rows of x, G rows of y, D embedding size; a program computes a (BM, BN) tile of the distances.

The first kernel goes through the Gram matrix and notes the tiles that hold a near pair (d² < NEAR · n). The second
visits these tiles alone and computes their near pairs from differences, in sub-tiles of SUB × SUB.
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
    operand,
    precision_of,
    rows_in_place,
    size_class,
)
from sketchynet.ops.pairwise_distance import NEAR

SUB = 16


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


def squared_norms(rows: Tensor) -> Tensor:
    """float32 (n,)."""
    return torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float32).square_()


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
        NEAR_SHARE=NEAR, SQUARED=squared, EVEN=D % 64 == 0, DESCRIBED=described(x.device), PRECISION=precision_of(x.dtype), STEP=SUB,
        SIZE=size_class(B, G),
    )  # fmt: skip
    across = 8
    near_kernel[(flags.shape[0], triton.cdiv(flags.shape[1], across))](
        x, y, *shared, flags.shape[1], NEAR_SHARE=NEAR, SQUARED=squared, STEP=SUB, ACROSS=across, BK=32
    )
    return out
