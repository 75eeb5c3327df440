"""Triton kernels of `relational_huber`: a panel of both networks' distances, a tile at a time.

Shapes: R rows and C columns of a panel, K canvases, Dt and Ds embedding sizes; a program computes a (BM, BN) tile for
all canvases: the teacher's distances once, then each canvas's.

A tile's distances live in registers alone. What leaves the kernel is the tile's share of the sums and, where the
gradient is wanted, the weights w = ∂L/∂d / d in the type of the embeddings, (K, R, C), which two matrix products
turn into gradients while they lie in the L2 cache. Weights are kept times the number of pairs: half precision would
flush them to zero otherwise.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sketchynet.ops.kernels.tiles import Tuned, config, dot_tile, precision_of, size_class
from sketchynet.ops.pairwise_distance import product_error
from sketchynet.ops.panels import Panel, Scales, WeightPull


@triton.jit
def huber_kernel(
    t_rows, t_columns,  # (R, Dt), (C, Dt): teacher
    s_rows, s_columns,  # (K, R, Ds), (C, Ds): student
    t_norms, t_norms_columns,  # float32 (R,), (C,): squared
    s_norms, s_norms_columns,  # float32 (K, R), (C,)
    content, content_columns,  # int32 (R,), (C,)
    scales,  # float32 (3,): 1 / unit of teacher and of student, ∂L/∂d through the unit, times pairs
    sums,  # float32 (tiles, 2): Huber's loss and h'·d, or the distances of teacher and student
    weights,  # (K, R, C), written where STORE
    R, C, K, Dt, Ds, square,  # columns from `square` on count twice
    stride_t, stride_tc, stride_k, stride_s, stride_sc,
    delta, share,  # share: weight of the relation
    floor,  # d² below floor · (|x|² + |y|²) is rounding: weights are bounded there
    LOSS: tl.constexpr,  # else sums of distances
    STORE: tl.constexpr, EVEN: tl.constexpr, T_PRECISION: tl.constexpr, S_PRECISION: tl.constexpr,
    SIZE: tl.constexpr,  # class of sizes, for tuning alone
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    tiles_r, tiles_c = tl.cdiv(R, BM), tl.cdiv(C, BN)
    program = tl.program_id(0)
    first = program // (GROUP * tiles_c) * GROUP
    height = min(tiles_r - first, GROUP)
    tile_r = first + program % (GROUP * tiles_c) % height
    tile_c = program % (GROUP * tiles_c) // height
    i = tile_r * BM + tl.arange(0, BM)
    j = tile_c * BN + tl.arange(0, BN)
    row, column = (i % R).to(tl.int64), (j % C).to(tl.int64)
    inside = (i < R)[:, None] & (j < C)[None, :]
    shown, shown_columns = tl.load(content + row), tl.load(content_columns + column)

    zeros = tl.zeros((BM, BN), dtype=tl.float32)
    product = dot_tile(t_rows, t_columns, row, column, stride_t, stride_tc, Dt, zeros, BK, EVEN, T_PRECISION)
    size = tl.load(t_norms + row)[:, None] + tl.load(t_norms_columns + column)[None, :]
    target = tl.sqrt(tl.maximum(size - 2.0 * product, 0.0))
    t_scale, s_scale = tl.load(scales), tl.load(scales + 1)
    through = tl.load(scales + 2)
    first_sum = 0.0
    second_sum = 0.0
    if LOSS:
        target = target * t_scale
    else:
        counted = inside & (shown[:, None] != shown_columns[None, :])
        first_sum += tl.sum(tl.where(counted, target * tl.where(j >= square, 2.0, 1.0)[None, :], 0.0))
    for k in range(K):
        product = dot_tile(s_rows, s_columns, row, column, stride_s, stride_sc, Ds, zeros, BK, EVEN, S_PRECISION)
        size = tl.load(s_norms + k * R + row)[:, None] + tl.load(s_norms_columns + column)[None, :]
        squared = size - 2.0 * product
        # The mask is made anew for each canvas: kept through the products it would take a register an element.
        counted = inside & (shown[:, None] != shown_columns[None, :])
        times = tl.where(j >= square, 2.0, 1.0)[None, :]
        distance = tl.sqrt(tl.maximum(squared, 0.0))
        if LOSS:
            difference = target - distance * s_scale
            slope = tl.minimum(tl.maximum(difference, -delta), delta)
            loss = slope * (difference - 0.5 * slope)  # Huber's: quadratic within delta, linear beyond
            first_sum += tl.sum(tl.where(counted, loss * times, 0.0))
            second_sum += tl.sum(tl.where(counted, slope * distance * times, 0.0))
            if STORE:
                pull = through - slope * (share * s_scale)
                weight = pull * tl.rsqrt(tl.maximum(squared, floor * size))
                weight = tl.where(counted & (squared > 0.0), weight, 0.0)
                place = weights + (k * R + i).to(tl.int64)[:, None] * C + j[None, :]
                tl.store(place, weight.to(weights.dtype.element_ty), mask=inside)
        else:
            second_sum += tl.sum(tl.where(counted, distance * times, 0.0))
        s_rows += stride_k
    tl.store(sums + program * 2, first_sum)
    tl.store(sums + program * 2 + 1, second_sum)


huber_tuned = Tuned(
    huber_kernel,
    [
        config(8, 3, BM=128, BN=128, BK=64, GROUP=8),
        config(8, 4, BM=128, BN=128, BK=32, GROUP=8),
        config(8, 3, BM=64, BN=128, BK=64, GROUP=8),
        config(8, 4, BM=64, BN=128, BK=32, GROUP=8),
        config(4, 4, BM=64, BN=64, BK=64, GROUP=8),
    ],
    key=["SIZE", "K", "Dt", "Ds", "LOSS", "STORE", "T_PRECISION", "S_PRECISION"],
    reset=["sums"],
)


def _launch(
    panel: Panel, scales: Tensor, delta: float, share: float, *, loss: bool, store: bool
) -> tuple[Tensor, Tensor]:
    """Sums (2,) float32 and weights (K, R, C), empty unless stored."""
    teacher, teacher_columns, student, student_columns = (
        panel.teacher, panel.teacher_columns, panel.student, panel.student_columns,
    )  # fmt: skip
    norms = panel.norms
    if norms is None:
        raise ValueError("the kernels need the squared norms of the panel")
    (canvases, rows, width), columns = student.shape, len(student_columns)
    # Room for the tiles of the smallest blocks; those of bigger ones leave the rest at zero.
    tiles = max(triton.cdiv(rows, m["BM"]) * triton.cdiv(columns, m["BN"]) for m in huber_tuned.choices)
    sums = torch.zeros((tiles, 2), dtype=torch.float32, device=student.device)
    weights = student.new_empty((canvases, rows, columns) if store else (0,))
    huber_tuned.launch(
        lambda meta: (triton.cdiv(rows, meta["BM"]) * triton.cdiv(columns, meta["BN"]),),
        teacher, teacher_columns, student, student_columns,
        norms[0], norms[1], norms[2].contiguous(), norms[3],
        panel.content.int(), panel.content_columns.int(), scales, sums, weights,
        rows, columns, canvases, teacher.shape[1], width, panel.square,
        teacher.stride(0), teacher_columns.stride(0), student.stride(0), student.stride(1), student_columns.stride(0),
        delta, share, product_error(width, student.dtype),
        LOSS=loss, STORE=store, EVEN=teacher.shape[1] % 64 == 0 and width % 64 == 0,
        T_PRECISION=precision_of(teacher.dtype), S_PRECISION=precision_of(student.dtype),
        SIZE=size_class(rows, columns),
    )  # fmt: skip
    return sums.sum(dim=0, dtype=torch.float64).float(), weights


def distance_sums_triton(panel: Panel) -> Tensor:
    """As `distance_sums_eager`."""
    scales = torch.ones(3, dtype=torch.float32, device=panel.student.device)
    return _launch(panel, scales, 1.0, 1.0, loss=False, store=False)[0]


def huber_panel_triton(panel: Panel, scales: Scales, delta: float, gradients: bool) -> tuple[Tensor, WeightPull | None]:
    """As `huber_panel_eager`, of float32, bfloat16 or float16 embeddings."""
    scalars = torch.stack([scales.teacher, scales.student, scales.through_unit])
    sums, weights = _launch(panel, scalars, delta, scales.share, loss=True, store=gradients)
    return sums, WeightPull(panel, weights) if gradients else None
