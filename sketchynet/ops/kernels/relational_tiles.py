"""The kernels that `relational_huber` launches.

Shapes: B pairs, K canvases, Dt and Ds embedding sizes, Wt and W these rounded up to 16 bytes, R rows of a panel; a
program of `huber_kernel` computes a (BM, BN) tile for all canvases: the teacher's distances once, then each canvas's.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sketchynet.ops.kernels.tiles import as_tf32, dot_tile, wide

HEAD = tl.constexpr(64)
"""Where the rows of the notes begin.

Notes are what kernels hand on, float32: 1 / unit of the teacher's and of the student's distances, ∂L/∂d through that
unit (times pairs), and 1 / pairs; from HEAD on rows of B numbers: squared norms of the teacher's sketches and photos
(2), of the student's sketches and photos (K + 1), the distances of sketches to their photos, the teacher's (1) and the
student's (K), taken from differences, and the sums of the weights that pull the student's sketches and photos (K + 1).
"""


@triton.jit
def prepare_kernel(
    t_sketch, t_photo,  # (B, Dt)
    s_sketch, s_photo,  # (K, B, Ds), (B, Ds)
    pairs,  # float32 (): ordered pairs of different photos, unless UNIQUE
    t_packed, s_packed,  # (2, B, Wt), (K + 1, B, W): sketches, then photos, with zeros up to the width
    notes,
    B, K, Dt, Ds, Wt, W,
    stride_ts, stride_tp, stride_k, stride_s, stride_p,
    UNIQUE: tl.constexpr, BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    if tl.program_id(0) == 0:
        count = (wide(B) * (B - 1)).to(tl.float32) if UNIQUE else tl.load(pairs)
        tl.store(notes, 1.0)
        tl.store(notes + 1, 1.0)
        tl.store(notes + 2, 0.0)
        tl.store(notes + 3, 1.0 / tl.maximum(count, 1.0))
    i = tl.program_id(0) * BP + tl.arange(0, BP)
    real = i < B
    row = tl.where(real, i, 0).to(tl.int64)
    line = notes + HEAD + row
    sketch_norm, photo_norm, own = tl.zeros((BP,), tl.float32), tl.zeros((BP,), tl.float32), tl.zeros((BP,), tl.float32)
    for start in range(0, Wt, BD):
        d = start + tl.arange(0, BD)
        held = real[:, None] & (d < Dt)[None, :]
        x = tl.load(t_sketch + row[:, None] * stride_ts + d[None, :], mask=held, other=0.0)
        y = tl.load(t_photo + row[:, None] * stride_tp + d[None, :], mask=held, other=0.0)
        into = t_packed + row[:, None] * Wt + d[None, :]
        room = real[:, None] & (d < Wt)[None, :]
        tl.store(into, x, mask=room)
        tl.store(into + wide(B) * Wt, y, mask=room)
        x, y = x.to(tl.float32), y.to(tl.float32)
        sketch_norm += tl.sum(x * x, axis=1)
        photo_norm += tl.sum(y * y, axis=1)
        own += tl.sum((x - y) * (x - y), axis=1)
    tl.store(line, sketch_norm, mask=real)
    tl.store(line + B, photo_norm, mask=real)
    tl.store(line + (K + 3) * B, tl.sqrt(own), mask=real)
    for k in range(K + 1):
        norm, own = tl.zeros((BP,), tl.float32), tl.zeros((BP,), tl.float32)
        canvas = row * 0 + k
        drawn = s_sketch + canvas * stride_k + row * stride_s
        rows = tl.where(canvas == K, s_photo + row * stride_p, drawn)
        into = s_packed + (canvas * B + row) * W
        for start in range(0, W, BD):
            d = start + tl.arange(0, BD)
            held = real[:, None] & (d < Ds)[None, :]
            x = tl.load(rows[:, None] + d[None, :], mask=held, other=0.0)
            y = tl.load(s_photo + row[:, None] * stride_p + d[None, :], mask=held, other=0.0).to(tl.float32)
            tl.store(into[:, None] + d[None, :], x, mask=real[:, None] & (d < W)[None, :])
            x = x.to(tl.float32)
            norm += tl.sum(x * x, axis=1)
            own += tl.sum((x - y) * (x - y), axis=1)
        tl.store(line + (k + 2) * B, norm, mask=real)
        tl.store(line + (k + K + 4) * B, tl.sqrt(own), mask=real & (k < K))


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
    t_rows, t_columns,  # operands: the teacher's (2·B, Wt)
    s_rows, s_columns,  # operands: the student's ((K + 1)·B, W)
    content,  # int32 (B,), unless UNIQUE
    notes,
    sums,  # float32 (programs, 2): Huber's loss and h'·d, or the distances of teacher and student
    weights,  # (canvases, R, B), written where STORE
    row_sums, column_sums,  # float32 (tiles across, canvases, R), (tiles down, canvases, B): of the weights, by tiles
    first, R, B, K, Wt, W,  # the R rows from `first` on, of every canvas, against all
    stride_t, stride_s,
    delta, share,  # share: weight of the relation; twice that of the photos', whose pairs pull both ways
    floor,  # d² below floor · (|x|² + |y|²) is rounding: weights are bounded there
    AMONG: tl.constexpr,  # photos among each other, else sketches with photos
    LOSS: tl.constexpr,  # else sums of distances
    STORE: tl.constexpr,
    UNIT: tl.constexpr,  # h'·d is asked for
    MIRROR: tl.constexpr,  # photos, and all rows are here: a pair is computed once and written twice
    UNIQUE: tl.constexpr,  # no two photos show the same
    ROUND: tl.constexpr,  # the weights will be multiplied in TF32
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
    first_sum = 0.0
    second_sum = 0.0
    if (tile_c + 1) * BN > (tile_r * BM if MIRROR else 0):  # a tile below the diagonal is another's mirror image
        canvases = 1 if AMONG else K
        i = tile_r * BM + tl.arange(0, BM)
        j = tile_c * BN + tl.arange(0, BN)
        # Outside of the batch norms are -inf, distances therefore zero: they count for nothing without a mask.
        outside = float("-inf")
        t_norms, s_norms = notes + HEAD, notes + HEAD + 2 * B
        t_first = first + (B if AMONG else 0)
        t_size = tl.load(t_norms + t_first + i, mask=i < R, other=outside)[:, None]
        t_size += tl.load(t_norms + B + j, mask=j < B, other=outside)[None, :]
        zeros = tl.zeros((BM, BN), dtype=tl.float32)
        product = dot_tile(
            t_rows, t_columns, t_first + tile_r * BM, B + tile_c * BN, 2 * B, 2 * B, stride_t, stride_t, 0, 0, Wt, zeros,
            BM, BN, BK, EVEN, DESCRIBED, T_PRECISION,
        )  # fmt: skip
        t_scale, s_scale, through = tl.load(notes), tl.load(notes + 1), tl.load(notes + 2)
        target = tl.sqrt(tl.maximum(t_size - 2.0 * product, 0.0)) * t_scale
        target = tl.where(counted_pairs(i, j, first, B, content, MIRROR, UNIQUE), target, 0.0)
        both = 2.0 if MIRROR else 1.0
        if not LOSS:
            first_sum += tl.sum(target) * both
        for k in range(canvases):
            s_first = (K if AMONG else k) * B + first
            product = dot_tile(
                s_rows, s_columns, s_first + tile_r * BM, K * B + tile_c * BN, (K + 1) * B, (K + 1) * B,
                stride_s, stride_s, 0, 0, W, zeros, BM, BN, BK, EVEN, DESCRIBED, S_PRECISION,
            )  # fmt: skip
            size = tl.load(s_norms + s_first + i, mask=i < R, other=outside)[:, None]
            size += tl.load(s_norms + K * B + j, mask=j < B, other=outside)[None, :]
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
                    pull = -slope * (share * s_scale)
                    if AMONG:
                        pull += through
                    weight = tl.where(squared > 0.0, pull * root, 0.0)
                    narrow = (as_tf32(weight) if ROUND else weight).to(weights.dtype.element_ty)
                    slot = weights + wide(k) * R * B
                    place = slot + wide(tile_r) * BM * B + tile_c * BN
                    place += tl.arange(0, BM)[:, None] * B + tl.arange(0, BN)[None, :]
                    inside = (i < R)[:, None] & (j < B)[None, :]
                    if MIRROR:
                        turned = slot + wide(tile_c) * BN * B + tile_r * BM
                        turned += tl.arange(0, BN)[None, :] * B + tl.arange(0, BM)[:, None]
                        tl.store(place, narrow, mask=inside & (j[None, :] >= i[:, None]))
                        tl.store(turned, narrow, mask=inside & (j[None, :] > i[:, None]))
                    else:
                        tl.store(place, narrow, mask=inside)
                    counted = narrow.to(tl.float32)
                    row_sum = row_sums + (wide(tile_c) * canvases + k) * R + i
                    tl.store(row_sum, tl.sum(counted, axis=1), mask=i < R)
                    column_sum = column_sums + (wide(tile_r) * canvases + k) * B + j
                    tl.store(column_sum, tl.sum(counted, axis=0), mask=j < B)
            else:
                second_sum += tl.sum(distance) * both
    tl.store(sums + program * 2, first_sum)
    tl.store(sums + program * 2 + 1, second_sum)


@triton.jit
def pull_of_tiles(
    parts,  # float32: sums by tiles, a number of each `step` apart
    tiles, step,
    at,  # (BP,): which of a tile's numbers
    real,  # bool (BP,)
    edge, own,  # tile t counts where edge + t·own > 0, edge (BP,)
    BT: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """float32 (BP,)."""
    total = tl.zeros((BP,), dtype=tl.float32)
    for start in range(0, tiles, BT):
        tile = start + tl.arange(0, BT)
        counted = (tile < tiles)[:, None] & real[None, :] & (edge[None, :] + (tile * own)[:, None] > 0)
        total += tl.sum(tl.load(parts + tile.to(tl.int64)[:, None] * step + at[None, :], mask=counted, other=0.0), axis=0)
    return total


@triton.jit
def collect_kernel(
    notes,
    cross_sums, cross_rows, cross_columns,  # sums, row_sums and column_sums of `huber_kernel`: sketches with photos
    among_sums, among_rows, among_columns,  # photos among each other
    totals,  # float64 (4,): Huber's loss and h'·d of sn and pn, of the panels so far
    out,  # float32 (7,), written with the last panel: the loss; Huber's loss and h'·d of sp, sn, pn
    first, R, B, K, cross_tiles, among_tiles, delta,
    own_share, cross_share, among_share,
    STORE: tl.constexpr, MIRROR: tl.constexpr,
    FIRST: tl.constexpr, LAST: tl.constexpr,  # panel
    CROSS_BM: tl.constexpr, CROSS_BN: tl.constexpr, AMONG_BM: tl.constexpr, AMONG_BN: tl.constexpr,
    BT: tl.constexpr, BP: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Adds up what tiles left: one program the sums, in float64, and where STORE others the weights' sums, those of B
    photos and then those of K·R sketches."""
    measures = notes + HEAD
    if tl.program_id(0) == 0:
        lane = tl.arange(0, BL)
        sn_loss, sn_pull = tl.zeros((BL,), tl.float64), tl.zeros((BL,), tl.float64)
        pn_loss, pn_pull = tl.zeros((BL,), tl.float64), tl.zeros((BL,), tl.float64)
        for start in range(0, cross_tiles, BL):
            at = cross_sums + 2 * (start + lane)
            held = start + lane < cross_tiles
            sn_loss += tl.load(at, mask=held, other=0.0).to(tl.float64)
            sn_pull += tl.load(at + 1, mask=held, other=0.0).to(tl.float64)
        for start in range(0, among_tiles, BL):
            at = among_sums + 2 * (start + lane)
            held = start + lane < among_tiles
            pn_loss += tl.load(at, mask=held, other=0.0).to(tl.float64)
            pn_pull += tl.load(at + 1, mask=held, other=0.0).to(tl.float64)
        sn, sn_by_unit = tl.sum(sn_loss, axis=0), tl.sum(sn_pull, axis=0)
        pn, pn_by_unit = tl.sum(pn_loss, axis=0), tl.sum(pn_pull, axis=0)
        if not FIRST:
            sn += tl.load(totals)
            sn_by_unit += tl.load(totals + 1)
            pn += tl.load(totals + 2)
            pn_by_unit += tl.load(totals + 3)
        tl.store(totals, sn)
        tl.store(totals + 1, sn_by_unit)
        tl.store(totals + 2, pn)
        tl.store(totals + 3, pn_by_unit)
        if LAST:
            t_scale, s_scale = tl.load(notes), tl.load(notes + 1)
            t_own = measures + (K + 3) * B
            own_loss, own_pull = tl.zeros((BL,), tl.float64), tl.zeros((BL,), tl.float64)
            for start in range(0, K * B, BL):
                at = start + lane
                distance = tl.load(t_own + B + at, mask=at < K * B, other=0.0)
                target = tl.load(t_own + at % B, mask=at < K * B, other=0.0)
                difference = target * t_scale - distance * s_scale
                slope = tl.minimum(tl.maximum(difference, -delta), delta)
                own_loss += (slope * (difference - 0.5 * slope)).to(tl.float64)
                own_pull += (slope * distance).to(tl.float64)
            sp = tl.sum(own_loss, axis=0)
            loss = own_share * sp + (cross_share * sn + among_share * pn) * tl.load(notes + 3)
            tl.store(out, loss.to(tl.float32))
            tl.store(out + 1, sp.to(tl.float32))
            tl.store(out + 2, tl.sum(own_pull, axis=0).to(tl.float32))
            tl.store(out + 3, sn.to(tl.float32))
            tl.store(out + 4, sn_by_unit.to(tl.float32))
            tl.store(out + 5, pn.to(tl.float32))
            tl.store(out + 6, pn_by_unit.to(tl.float32))
    elif STORE:
        pulls = measures + (2 * K + 4) * B
        cross_down, among_down = tl.cdiv(R, CROSS_BM), tl.cdiv(R, AMONG_BM)
        every = tl.full((BP,), 1, dtype=tl.int32)
        photos = tl.cdiv(B, BP)
        block = tl.program_id(0) - 1
        if block < photos:
            j = block * BP + tl.arange(0, BP)
            real = j < B
            total = tl.zeros((BP,), dtype=tl.float32)
            if cross_tiles > 0:
                for k in range(K):
                    total += pull_of_tiles(cross_columns + k * B, cross_down, K * B, j, real, every, 0, BT, BP)
            if among_tiles > 0:
                # Where pairs are mirrored, tiles below the diagonal have left nothing, and rows are pulled too.
                edge = (j // AMONG_BN + 1) * AMONG_BN if MIRROR else every
                total += pull_of_tiles(among_columns, among_down, B, j, real, edge, -AMONG_BM if MIRROR else 0, BT, BP)
                if MIRROR:
                    edge = AMONG_BN - j // AMONG_BM * AMONG_BM
                    total += pull_of_tiles(among_rows, tl.cdiv(B, AMONG_BN), R, j, real, edge, AMONG_BN, BT, BP)
            if not FIRST:
                total += tl.load(pulls + K * B + j, mask=real, other=0.0)
            tl.store(pulls + K * B + j, total, mask=real)
        else:
            across = tl.cdiv(R, BP)
            k = (block - photos) // across
            i = (block - photos) % across * BP + tl.arange(0, BP)
            total = pull_of_tiles(cross_rows + k * R, tl.cdiv(B, CROSS_BN), K * R, i, i < R, every, 0, BT, BP)
            tl.store(pulls + k * B + first + i, total, mask=i < R)


@triton.jit
def finish_kernel(
    upstream,  # float32 (): ∂/∂ loss
    s_sketch, s_photo,  # (K, B, Ds), (B, Ds)
    sketch_products, photo_products,  # float32 (K, B, W) where CROSS, (B, W) where PULLED: of the weights
    notes,
    sketch_gradient, photo_gradient,  # (K, B, Ds), (B, Ds)
    B, K, Ds, W, stride_k, stride_s, stride_p, delta, own_share,
    CROSS: tl.constexpr, PULLED: tl.constexpr, BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BP + tl.arange(0, BP)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    real = i < B
    row = tl.where(real, i, 0).to(tl.int64)
    held = real[:, None] & (d < Ds)[None, :]
    own, pulls = notes + HEAD + (K + 3) * B + row, notes + HEAD + (2 * K + 4) * B + row
    t_scale, s_scale, factor = tl.load(notes), tl.load(notes + 1), tl.load(upstream).to(tl.float32)
    per_pair = tl.load(notes + 3) * factor
    target = tl.load(own) * t_scale
    y = tl.load(s_photo + row[:, None] * stride_p + d[None, :], mask=held, other=0.0).to(tl.float32)
    photo = tl.zeros((BP, BD), dtype=tl.float32)
    if PULLED:
        product = tl.load(photo_products + row[:, None] * W + d[None, :], mask=held, other=0.0)
        photo += per_pair * (tl.load(pulls + K * B)[:, None] * y - product)
    for k in range(K):
        canvas = row * 0 + k
        distance = tl.load(own + (k + 1) * B)
        slope = tl.minimum(tl.maximum(target - distance * s_scale, -delta), delta)
        apart_at_all = distance > 0.0
        pull = tl.where(apart_at_all, -slope * (own_share * s_scale) / tl.where(apart_at_all, distance, 1.0), 0.0)
        rows = s_sketch + canvas * stride_k + row * stride_s
        x = tl.load(rows[:, None] + d[None, :], mask=held, other=0.0).to(tl.float32)
        apart = factor * pull[:, None] * (x - y)
        gradient = apart
        at = canvas * B + row
        if CROSS:
            product = tl.load(sketch_products + at[:, None] * W + d[None, :], mask=held, other=0.0)
            gradient += per_pair * (tl.load(pulls + k * B)[:, None] * x - product)
        into = sketch_gradient + at[:, None] * Ds + d[None, :]
        tl.store(into, gradient.to(sketch_gradient.dtype.element_ty), mask=held)
        photo -= apart
    narrow = photo.to(photo_gradient.dtype.element_ty)
    tl.store(photo_gradient + row[:, None] * Ds + d[None, :], narrow, mask=held)
