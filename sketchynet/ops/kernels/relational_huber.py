"""Triton kernels of `relational_huber`: both networks' distances, a tile at a time, and the gradient from products.

Shapes: B pairs, K canvases, Dt and Ds embedding sizes, R rows of a panel; a program computes a (BM, BN) tile for all
canvases: the teacher's distances once, then each canvas's.

A tile's distances live in registers alone. What leaves the kernel is the tile's share of the sums and, where the
gradient is wanted, the weights w = ∂L/∂d / d in the type of the embeddings, (K + 1, R, B), the photos' relation
behind the canvases. A row x is pulled by Σ w(x - y) = x·Σw - Σ w·y, so that two matrix products give all gradients:
of the weights with the photos, and of the transposed weights with sketches and photos. Sums of weights come along
in a column of ones behind the embeddings. Weights are kept times the number of pairs: half precision would flush
them to zero otherwise.

Kernels by the order in which they run: `prepare_kernel`, `huber_kernel` for each relation, `total_kernel`,
`finish_kernel`. Rows go in as few panels as hold no more weights than three times the embeddings' elements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
from sketchynet.ops.pairwise_distance import product_error
from sketchynet.ops.panels import gradient_type

PANEL_SHARE = 3
"""A panel's weights have at most so many times the elements of all embeddings."""


@triton.jit
def prepare_kernel(
    t_sketch, t_photo,  # (B, Dt)
    s_sketch, s_photo,  # (K, B, Ds), (B, Ds)
    packed,  # (K + 1, B, W): the student's sketches, then its photos, each with 1 behind it and zeros up to W
    t_norms, s_norms,  # float32 (2, B), (K + 1, B): squared
    t_own, s_own,  # float32 (B,), (K, B): distances of sketches to their photos, from differences
    B, K, Dt, Ds, W,
    stride_ts, stride_tp, stride_k, stride_s, stride_p,
    BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BP + tl.arange(0, BP)
    real = i < B
    row = tl.where(real, i, 0).to(tl.int64)
    sketch_norm, photo_norm, own = tl.zeros((BP,), tl.float32), tl.zeros((BP,), tl.float32), tl.zeros((BP,), tl.float32)
    for start in range(0, Dt, BD):
        d = start + tl.arange(0, BD)
        held = real[:, None] & (d < Dt)[None, :]
        x = tl.load(t_sketch + row[:, None] * stride_ts + d[None, :], mask=held, other=0.0).to(tl.float32)
        y = tl.load(t_photo + row[:, None] * stride_tp + d[None, :], mask=held, other=0.0).to(tl.float32)
        sketch_norm += tl.sum(x * x, axis=1)
        photo_norm += tl.sum(y * y, axis=1)
        own += tl.sum((x - y) * (x - y), axis=1)
    tl.store(t_norms + i, sketch_norm, mask=real)
    tl.store(t_norms + B + i, photo_norm, mask=real)
    tl.store(t_own + i, tl.sqrt(own), mask=real)
    for k in range(K + 1):
        norm, own = tl.zeros((BP,), tl.float32), tl.zeros((BP,), tl.float32)
        canvas = row * 0 + k
        drawn = s_sketch + canvas * stride_k + row * stride_s
        rows = tl.where(canvas == K, s_photo + row * stride_p, drawn)
        into = packed + (canvas * B + row) * W
        for start in range(0, W, BD):
            d = start + tl.arange(0, BD)
            held = real[:, None] & (d < Ds)[None, :]
            x = tl.load(rows[:, None] + d[None, :], mask=held, other=0.0).to(tl.float32)
            y = tl.load(s_photo + row[:, None] * stride_p + d[None, :], mask=held, other=0.0).to(tl.float32)
            with_one = tl.where((d == Ds)[None, :], 1.0, x).to(packed.dtype.element_ty)
            tl.store(into[:, None] + d[None, :], with_one, mask=real[:, None] & (d < W)[None, :])
            norm += tl.sum(x * x, axis=1)
            own += tl.sum((x - y) * (x - y), axis=1)
        tl.store(s_norms + k * B + i, norm, mask=real)
        tl.store(s_own + k * B + i, tl.sqrt(own), mask=real & (k < K))


@triton.jit
def counted_pairs(
    i, j, first, B, content,  # rows (BM,) from `first` on, columns (BN,)
    MIRROR: tl.constexpr, UNIQUE: tl.constexpr,
):  # fmt: skip
    """bool (BM, BN): pairs of different photos, once each where they are mirrored."""
    if UNIQUE:
        return (j[None, :] > i[:, None]) if MIRROR else (j[None, :] != (first + i)[:, None])
    shown = tl.load(content + (first + i) % B)
    different = shown[:, None] != tl.load(content + j % B)[None, :]
    return different & (j[None, :] > i[:, None]) if MIRROR else different


@triton.jit
def huber_kernel(
    t_rows, t_columns,  # (B, Dt): operands, teacher
    s_rows, s_columns,  # (K·B, Ds), (B, Ds): operands, student
    t_norms, t_norms_columns,  # float32 (B,): squared
    s_norms, s_norms_columns,  # float32 (K·B,), (B,)
    content,  # int32 (B,), unless UNIQUE
    scales,  # float32 (3,): 1 / unit of teacher and of student, ∂L/∂d through the unit, times pairs
    sums,  # float32 (tiles, 2): Huber's loss and h'·d, or the distances of teacher and student
    weights,  # (K, R, B), written where STORE
    first, R, B, K, Dt, Ds,  # the R rows from `first` on, of every canvas, against all
    stride_t, stride_tc, stride_s, stride_sc,
    delta, share,  # share: weight of the relation; twice that of the photos', whose pairs pull both ways
    floor,  # d² below floor · (|x|² + |y|²) is rounding: weights are bounded there
    LOSS: tl.constexpr,  # else sums of distances
    STORE: tl.constexpr,
    UNIT: tl.constexpr,  # h'·d is asked for
    MIRROR: tl.constexpr,  # rows and columns are the same and all here: a pair is computed once and written twice
    UNIQUE: tl.constexpr,  # no two photos show the same
    EVEN: tl.constexpr, DESCRIBED: tl.constexpr, T_PRECISION: tl.constexpr, S_PRECISION: tl.constexpr,
    SIZE: tl.constexpr,  # class of sizes, for tuning alone
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    tiles_r, tiles_c = tl.cdiv(R, BM), tl.cdiv(B, BN)
    program = tl.program_id(0)
    top = program // (GROUP * tiles_c) * GROUP
    height = min(tiles_r - top, GROUP)
    tile_r = top + program % (GROUP * tiles_c) % height
    tile_c = program % (GROUP * tiles_c) // height
    if (tile_c + 1) * BN > (tile_r * BM if MIRROR else 0):  # a tile below the diagonal is another's mirror image
        i = tile_r * BM + tl.arange(0, BM)
        j = tile_c * BN + tl.arange(0, BN)
        # Outside of the batch norms are -inf, distances therefore zero: they count for nothing without a mask.
        row, column, outside = first + i, j, float("-inf")
        t_size = tl.load(t_norms + row, mask=i < R, other=outside)[:, None]
        t_size += tl.load(t_norms_columns + column, mask=j < B, other=outside)[None, :]
        zeros = tl.zeros((BM, BN), dtype=tl.float32)
        product = dot_tile(
            t_rows, t_columns, first + tile_r * BM, tile_c * BN, B, B, stride_t, stride_tc, 0, 0, Dt, zeros,
            BM, BN, BK, EVEN, DESCRIBED, T_PRECISION,
        )  # fmt: skip
        t_scale, s_scale, through = tl.load(scales), tl.load(scales + 1), tl.load(scales + 2)
        target = tl.sqrt(tl.maximum(t_size - 2.0 * product, 0.0)) * t_scale
        target = tl.where(counted_pairs(i, j, first, B, content, MIRROR, UNIQUE), target, 0.0)
        first_sum = 0.0
        second_sum = 0.0
        both = 2.0 if MIRROR else 1.0
        if not LOSS:
            first_sum += tl.sum(target) * both
        for k in range(K):
            product = dot_tile(
                s_rows, s_columns, k * B + first + tile_r * BM, tile_c * BN, K * B, B, stride_s, stride_sc, 0, 0, Ds,
                zeros, BM, BN, BK, EVEN, DESCRIBED, S_PRECISION,
            )  # fmt: skip
            size = tl.load(s_norms + k * B + row, mask=i < R, other=outside)[:, None]
            size += tl.load(s_norms_columns + column, mask=j < B, other=outside)[None, :]
            squared = tl.maximum(size - 2.0 * product, 0.0)
            # The mask is made anew for each canvas: kept through the products it would take a register an element.
            squared = tl.where(counted_pairs(i, j, first, B, content, MIRROR, UNIQUE), squared, 0.0)
            root = tl.rsqrt(tl.maximum(squared, floor * size) + 1e-37)
            distance = squared * root  # one root does for the distance and its inverse, within the rounding of d²
            if LOSS:
                difference = target - distance * s_scale
                slope = tl.minimum(tl.maximum(difference, -delta), delta)
                # Huber's: quadratic within delta, linear beyond.
                first_sum += tl.sum(slope * (difference - 0.5 * slope)) * both
                if UNIT:
                    second_sum += tl.sum(slope * distance) * both
                if STORE:
                    weight = tl.where(squared > 0.0, (through - slope * (share * s_scale)) * root, 0.0)
                    narrow = weight.to(weights.dtype.element_ty)
                    place = weights + (i + k * R).to(tl.int64)[:, None] * B + j[None, :]
                    inside = (i < R)[:, None] & (j < B)[None, :]
                    if MIRROR:
                        turned = weights + j.to(tl.int64)[None, :] * B + i[:, None]
                        tl.store(place, narrow, mask=inside & (j[None, :] >= i[:, None]))
                        tl.store(turned, narrow, mask=inside & (j[None, :] > i[:, None]))
                    else:
                        tl.store(place, narrow, mask=inside)
            else:
                second_sum += tl.sum(distance) * both
        tl.store(sums + program * 2, first_sum)
        tl.store(sums + program * 2 + 1, second_sum)


@triton.jit
def total_kernel(
    t_own, s_own,  # float32 (B,), (K, B)
    cross, among,  # float32 (parts, 2): sums of `huber_kernel`
    scales,  # float32 (3,)
    pair,  # float32 (): 1 / pairs
    out,  # float32 (7,): the loss; Huber's loss and h'·d of sp, sn, pn
    B, K, parts, delta,
    own_share, cross_share, among_share,
    BP: tl.constexpr,
):  # fmt: skip
    """One program adds everything up, in float64."""
    lane = tl.arange(0, BP)
    t_scale, s_scale = tl.load(scales), tl.load(scales + 1)
    own_loss, own_pull = tl.zeros((BP,), tl.float64), tl.zeros((BP,), tl.float64)
    for start in range(0, K * B, BP):
        at = start + lane
        distance = tl.load(s_own + at, mask=at < K * B, other=0.0)
        target = tl.load(t_own + at % B, mask=at < K * B, other=0.0)
        difference = target * t_scale - distance * s_scale
        slope = tl.minimum(tl.maximum(difference, -delta), delta)
        own_loss += (slope * (difference - 0.5 * slope)).to(tl.float64)
        own_pull += (slope * distance).to(tl.float64)
    cross_loss, cross_pull = tl.zeros((BP,), tl.float64), tl.zeros((BP,), tl.float64)
    among_loss, among_pull = tl.zeros((BP,), tl.float64), tl.zeros((BP,), tl.float64)
    for start in range(0, parts, BP):
        at = start + lane
        cross_loss += tl.load(cross + 2 * at, mask=at < parts, other=0.0).to(tl.float64)
        cross_pull += tl.load(cross + 2 * at + 1, mask=at < parts, other=0.0).to(tl.float64)
        among_loss += tl.load(among + 2 * at, mask=at < parts, other=0.0).to(tl.float64)
        among_pull += tl.load(among + 2 * at + 1, mask=at < parts, other=0.0).to(tl.float64)
    own, sn, pn = tl.sum(own_loss, axis=0), tl.sum(cross_loss, axis=0), tl.sum(among_loss, axis=0)
    loss = own_share * own + (cross_share * sn + among_share * pn) * tl.load(pair)
    tl.store(out, loss.to(tl.float32))
    tl.store(out + 1, own.to(tl.float32))
    tl.store(out + 2, tl.sum(own_pull, axis=0).to(tl.float32))
    tl.store(out + 3, sn.to(tl.float32))
    tl.store(out + 4, tl.sum(cross_pull, axis=0).to(tl.float32))
    tl.store(out + 5, pn.to(tl.float32))
    tl.store(out + 6, tl.sum(among_pull, axis=0).to(tl.float32))


@triton.jit
def finish_kernel(
    packed,  # (K + 1, B, W)
    sketch_products, photo_products,  # float32 (K, B, W), (B, W): products of the weights, their sums at column Ds
    t_own, s_own,  # float32 (B,), (K, B)
    scales, pair,  # float32 (3,), ()
    sketch_gradient, photo_gradient,  # (K, B, Ds), (B, Ds)
    B, K, Ds, W, delta, own_share,
    BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BP + tl.arange(0, BP)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    real = i < B
    row = tl.where(real, i, 0).to(tl.int64)
    held = real[:, None] & (d < Ds)[None, :]
    t_scale, s_scale, per_pair = tl.load(scales), tl.load(scales + 1), tl.load(pair)
    target = tl.load(t_own + row) * t_scale
    y = tl.load(packed + ((row * 0 + K) * B + row)[:, None] * W + d[None, :], mask=held, other=0.0).to(tl.float32)
    product = tl.load(photo_products + row[:, None] * W + d[None, :], mask=held, other=0.0)
    photo = per_pair * (tl.load(photo_products + row * W + Ds)[:, None] * y - product)
    for k in range(K):
        at = (row * 0 + k) * B + row
        distance = tl.load(s_own + at)
        slope = tl.minimum(tl.maximum(target - distance * s_scale, -delta), delta)
        apart_at_all = distance > 0.0
        pull = tl.where(apart_at_all, -slope * (own_share * s_scale) / tl.where(apart_at_all, distance, 1.0), 0.0)
        x = tl.load(packed + at[:, None] * W + d[None, :], mask=held, other=0.0).to(tl.float32)
        product = tl.load(sketch_products + at[:, None] * W + d[None, :], mask=held, other=0.0)
        total = tl.load(sketch_products + at * W + Ds)[:, None]
        apart = pull[:, None] * (x - y)
        gradient = (per_pair * (total * x - product) + apart).to(sketch_gradient.dtype.element_ty)
        tl.store(sketch_gradient + at[:, None] * Ds + d[None, :], gradient, mask=held)
        photo -= apart
    narrow = photo.to(photo_gradient.dtype.element_ty)
    tl.store(photo_gradient + row[:, None] * Ds + d[None, :], narrow, mask=held)


huber_tuned = Tuned(
    huber_kernel,
    [
        config(8, 3, BM=128, BN=128, BK=64, GROUP=8),
        config(8, 4, BM=128, BN=128, BK=32, GROUP=8),
        config(8, 3, BM=64, BN=128, BK=64, GROUP=8),
        config(4, 3, BM=64, BN=128, BK=64, GROUP=8),
        config(4, 4, BM=64, BN=64, BK=64, GROUP=8),
    ],
    key=["SIZE", "K", "Dt", "Ds", "LOSS", "STORE", "UNIT", "MIRROR", "T_PRECISION", "S_PRECISION"],
    operands={
        "t_rows": ("BM", "BK"),
        "t_columns": ("BN", "BK"),
        "s_rows": ("BM", "BK"),
        "s_columns": ("BN", "BK"),
    },
    reset=["sums"],
)


@dataclass(frozen=True)
class _Batch:
    """What every launch needs of the batch."""

    teacher: tuple[Tensor, Tensor]
    """Sketches and photos (B, Dt)."""
    packed: Tensor
    """(K + 1, B, W), see `prepare_kernel`."""
    width: int
    """Ds."""
    t_norms: Tensor
    s_norms: Tensor
    t_own: Tensor
    s_own: Tensor
    content: Tensor | None
    """int32 (B,); None where no two photos show the same."""
    delta: float

    def launch(
        self, among: bool, span: tuple[int, int], scales: Tensor, share: float, sums: Tensor, weights: Tensor | None,
        *, loss: bool = True, unit: bool = False,
    ) -> None:  # fmt: skip
        """Runs a relation, photos among each other or else sketches with photos, for the rows of a span."""
        (first, last), photos = span, self.packed[-1][:, : self.width]
        if among:
            t_rows, t_norms, s_rows, s_norms, canvases = self.teacher[1], self.t_norms[1], photos, self.s_norms[-1], 1
        else:
            canvases = len(self.packed) - 1
            s_rows, s_norms = self.packed[:-1].flatten(0, 1)[:, : self.width], self.s_norms
            t_rows, t_norms = self.teacher[0], self.t_norms[0]
        (B, Dt), t_columns = t_rows.shape, self.teacher[1]
        huber_tuned.launch(
            lambda meta: (triton.cdiv(last - first, meta["BM"]) * triton.cdiv(B, meta["BN"]),),
            operand(t_rows), operand(t_columns), operand(s_rows), operand(photos),
            t_norms, self.t_norms[1], s_norms, self.s_norms[-1],
            scales if self.content is None else self.content, scales, sums, sums if weights is None else weights,
            first, last - first, B, canvases, Dt, self.width,
            t_rows.stride(0), t_columns.stride(0), s_rows.stride(0), photos.stride(0),
            self.delta, share, product_error(self.width, photos.dtype),
            LOSS=loss, STORE=weights is not None, UNIT=unit, MIRROR=among and last - first == B, UNIQUE=self.content is None,
            EVEN=Dt % 64 == 0 and self.width % 64 == 0, DESCRIBED=described(photos.device),
            T_PRECISION=precision_of(t_rows.dtype), S_PRECISION=precision_of(photos.dtype),
            SIZE=size_class(last - first, B),
        )  # fmt: skip


def _prepare(embeddings: tuple[Tensor, ...], content: Tensor | None, delta: float) -> _Batch:
    ts, tp, ss, sp = (rows_in_place(t) for t in embeddings)
    (K, B, Ds), Dt, device = ss.shape, ts.shape[1], sp.device
    line = 16 // sp.itemsize
    width = (Ds // line + 1) * line  # room for the ones, and rows that begin at 16 bytes
    packed = sp.new_empty((K + 1, B, width))
    t_norms, s_norms, t_own, s_own = (
        torch.empty(shape, dtype=torch.float32, device=device) for shape in ((2, B), (K + 1, B), (B,), (K, B))
    )
    prepare_kernel[(triton.cdiv(B, 4),)](
        ts, tp, ss, sp, packed, t_norms, s_norms, t_own, s_own, B, K, Dt, Ds, width,
        ts.stride(0), tp.stride(0), ss.stride(0), ss.stride(1), sp.stride(0), BP=4, BD=256,
    )  # fmt: skip
    return _Batch((ts, tp), packed, Ds, t_norms, s_norms, t_own, s_own, content, delta)


def relational_triton(
    embeddings: tuple[Tensor, ...],
    content: Tensor | None,
    pairs: Tensor,
    relation_weights: tuple[float, ...],
    delta: float,
    normalize: bool,
    gradients: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `relational_panels`, of float32, bfloat16 or float16.

    content: int32 (B,); None where no two photos show the same. pairs: (), ordered pairs of different photos.
    """
    ss, sp = embeddings[2:]
    (K, B, Ds), device = ss.shape, sp.device
    batch = _prepare(embeddings, content, delta)
    own_share, cross_share, among_share = relation_weights[0] / (K * B), relation_weights[1] / K, relation_weights[2]
    with_cross, with_among = relation_weights[1] != 0, relation_weights[2] != 0
    panels = math.ceil((K + 1) * B * B / (PANEL_SHARE * sum(t.numel() for t in embeddings)))
    rows = max(128, -(-B // (panels * 128)) * 128)
    spans = [(first, min(first + rows, B)) for first in range(0, B, rows)]
    # Room for the tiles of the smallest blocks; those of bigger ones leave the rest at zero.
    tiles = max(triton.cdiv(min(rows, B), m["BM"]) * triton.cdiv(B, m["BN"]) for m in huber_tuned.choices)
    sums = torch.zeros((2, len(spans), tiles, 2), dtype=torch.float32, device=device)
    scales = torch.zeros(3, dtype=torch.float32, device=device)
    pair = 1.0 / pairs.clamp(min=1.0)
    scales[:2] = 1.0
    if normalize:
        for part, span in zip(sums[1], spans, strict=True):
            batch.launch(True, span, scales, 0.0, part, None, loss=False)
        means = torch.where(pairs > 0, sums[1].sum(dim=(0, 1), dtype=torch.float64).float() * pair, 1.0)
        scales[:2] = 1.0 / means.clamp(min=torch.finfo(torch.float32).tiny)
        sums.zero_()

    def total() -> Tensor:
        out = torch.empty(7, dtype=torch.float32, device=device)
        total_kernel[(1,)](
            batch.t_own, batch.s_own, sums[0], sums[1], scales, pair, out, B, K, len(spans) * tiles, delta,
            own_share, cross_share, among_share, BP=1024, num_warps=8,
        )  # fmt: skip
        return out

    photo_scales = scales
    if normalize and gradients:
        # What the student's unit does to the loss needs every sum, before the gradient of the photos is taken.
        for number, span in enumerate(spans):
            if with_cross:
                batch.launch(False, span, scales, cross_share, sums[0, number], None, unit=True)
            if with_among:
                batch.launch(True, span, scales, 2.0 * among_share, sums[1, number], None, unit=True)
        sp_pull, sn_pull, pn_pull = total()[2::2]
        by_unit = own_share * sp_pull + (cross_share * sn_pull + among_share * pn_pull) * pair
        photo_scales = scales.clone()
        photo_scales[2] = 2.0 * by_unit * scales[1].square()  # both orders of a pair, as in the share
        sums.zero_()
        with_among = True  # every distance between photos moves the unit
    width, parts = batch.packed.shape[2], with_cross * K + with_among
    of_sketches: list[Tensor] = []
    of_photos: list[Tensor] = []
    for number, (first, last) in enumerate(spans):
        weights = sp.new_empty((parts, last - first, B)) if gradients else None
        if with_cross:
            into = None if weights is None else weights[:K]
            batch.launch(False, (first, last), scales, cross_share, sums[0, number], into)
        if with_among:
            into = None if weights is None else weights[parts - 1 :]
            batch.launch(True, (first, last), photo_scales, 2.0 * among_share, sums[1, number], into)
        if weights is not None and with_cross:
            found = float32_product(weights[:K].view(-1, B), batch.packed[K])
            of_sketches.append(found.view(K, last - first, width))
        if weights is not None and parts > 0:
            drawn = batch.packed[0 if with_cross else K : K + with_among, first:last].reshape(-1, width)
            found = float32_product(weights.view(-1, B).T, drawn)
            of_photos = [found if not of_photos else of_photos[0].add_(found)]
    sketch_products = of_sketches[0] if len(of_sketches) == 1 else None
    if gradients and sketch_products is None:
        zeros = torch.zeros((K, 0 if of_sketches else B, width), dtype=torch.float32, device=device)
        sketch_products = torch.cat([zeros, *of_sketches], dim=1)
    photo_products = of_photos[0] if of_photos else None
    if gradients and photo_products is None:
        photo_products = torch.zeros((B, width), dtype=torch.float32, device=device)
    loss = total()[0]
    held = gradient_type(sp.dtype)
    sketch_gradient = torch.empty(ss.shape if gradients else (0,), dtype=held, device=device)
    photo_gradient = torch.empty(sp.shape if gradients else (0,), dtype=held, device=device)
    if gradients:
        finish_kernel[(triton.cdiv(B, 4), triton.cdiv(Ds, 256))](
            batch.packed, sketch_products, photo_products, batch.t_own, batch.s_own, scales, pair,
            sketch_gradient, photo_gradient, B, K, Ds, width, delta, own_share, BP=4, BD=256,
        )  # fmt: skip
    return loss, sketch_gradient, photo_gradient
