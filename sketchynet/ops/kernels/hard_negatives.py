"""Triton kernel of `hard_negatives`: distances pass through registers, and each sketch keeps the best so far.

Shapes: S = K·B sketches, sketch s belongs to photo s mod B, D embedding size; a program holds BM sketches and walks
over tiles of BN photos. Distances are compared by F = |p|²/2 - s·p, with which they grow.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sketchynet.ops.kernels.pairwise_distance import squared_norms
from sketchynet.ops.kernels.tiles import (
    Tuned,
    cdiv,
    config,
    described,
    dot_tile,
    operand,
    precision_of,
    rows_in_place,
    size_class,
)


@triton.jit
def negatives_kernel(
    sketch, photo,  # (S, D), (B, D)
    half_norms,  # float32 (B,): |p|²/2
    own,  # float32 (S,): F of the sketch's own photo
    content,  # int64 (B,)
    out,  # int64 (S,)
    S, B, D, stride_s, stride_p,
    SEMI: tl.constexpr, EVEN: tl.constexpr, DESCRIBED: tl.constexpr, PRECISION: tl.constexpr,
    SIZE: tl.constexpr,  # class of sizes, for tuning alone
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BM + tl.arange(0, BM)
    row = i % S
    shown, threshold = tl.load(content + row % B), tl.load(own + row)
    nearest = tl.full((BM,), float("inf"), dtype=tl.float32)
    nearest_at = tl.full((BM,), -1, dtype=tl.int32)
    farthest = tl.full((BM,), float("-inf"), dtype=tl.float32)
    farthest_at = tl.full((BM,), -1, dtype=tl.int32)
    for start in range(0, B, BN):
        j = start + tl.arange(0, BN)
        column = j % B
        zeros = tl.zeros((BM, BN), dtype=tl.float32)
        product = dot_tile(
            sketch, photo, tl.program_id(0) * BM, start, S, B, stride_s, stride_p, 0, 0, D, zeros,
            BM, BN, BK, EVEN, DESCRIBED, PRECISION,
        )  # fmt: skip
        value = tl.load(half_norms + column)[None, :] - product
        negative = (j < B)[None, :] & (tl.load(content + column)[None, :] != shown[:, None])
        wanted = negative & (value > threshold[:, None]) if SEMI else negative
        near, at = tl.min(tl.where(wanted, value, float("inf")), axis=1, return_indices=True)
        nearest_at = tl.where(near < nearest, start + at, nearest_at)
        nearest = tl.minimum(near, nearest)
        if SEMI:
            far, at = tl.max(tl.where(negative, value, float("-inf")), axis=1, return_indices=True)
            farthest_at = tl.where(far > farthest, start + at, farthest_at)
            farthest = tl.maximum(far, farthest)
    picked = tl.where(nearest_at >= 0, nearest_at, farthest_at) if SEMI else nearest_at
    tl.store(out + i, picked.to(tl.int64), mask=i < S)


negatives_tuned = Tuned(
    negatives_kernel,
    [
        config(8, 3, BM=128, BN=128, BK=64),
        config(4, 4, BM=64, BN=128, BK=32),
        config(4, 4, BM=32, BN=128, BK=64),
    ],
    key=["SIZE", "D", "SEMI", "PRECISION"],
    operands={"sketch": ("BM", "BK"), "photo": ("BN", "BK")},
)


def hard_negatives_triton(sketch: Tensor, photo: Tensor, content: Tensor, mining: str) -> Tensor:
    """int64 (S,) of finite sketch (S, D), photo (B, D), S a multiple of B ≥ 1."""
    sketch, photo = rows_in_place(sketch), rows_in_place(photo)
    (S, D), B = sketch.shape, len(photo)
    half_norms = squared_norms(photo) / 2.0
    apart = sketch.float() - photo.float().repeat(S // B, 1)
    own = (apart.square_().sum(dim=1) - squared_norms(sketch)) / 2.0
    out = torch.empty(S, dtype=torch.int64, device=sketch.device)
    negatives_tuned.launch(
        lambda meta: (cdiv(S, meta["BM"]),),
        operand(sketch), operand(photo), half_norms, own, content, out, S, B, D, sketch.stride(0), photo.stride(0),
        SEMI=mining == "semi-hard", EVEN=D % 64 == 0, DESCRIBED=described(sketch.device),
        PRECISION=precision_of(sketch.dtype), SIZE=size_class(S, B),
    )  # fmt: skip
    return out
