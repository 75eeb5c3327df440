"""`relational_huber` by Triton kernels: both networks' distances, a tile at a time, and the gradient from products.

Shapes: B pairs, K canvases, Dt and Ds embedding sizes, R rows of a panel.

A tile's distances live in registers alone. What leaves the kernel is the tile's share of the sums and, where the
gradient is wanted, the weights w = ∂L/∂d / d in the type of the embeddings, (K + 1, R, B), the photos' relation
behind the canvases, with their sums by rows and columns. A row x is pulled by Σ w(x - y) = x·Σw - Σ w·y, so that two
matrix products give all gradients: of the weights with the photos, and of the transposed weights with sketches and
photos. (Sums from a column of ones behind the embeddings made the products a fifth slower: their width was a multiple
of no tile.) Weights are kept times the number of pairs: half precision would flush them to zero otherwise.

Kernels (`relational_tiles`) by the order in which they run: `prepare_kernel`; for each panel `huber_kernel`, a
relation at a time, and `collect_kernel`; backward `finish_kernel`. Rows go in as few panels as hold no more weights
than three times the embeddings' elements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sketchynet.ops.kernels.relational_tiles import (
    HEAD,
    collect_kernel,
    finish_kernel,
    huber_kernel,
    prepare_kernel,
)
from sketchynet.ops.kernels.tiles import (
    Tuned,
    cdiv,
    config,
    described,
    float32_product,
    launch,
    operand,
    precision_of,
    rows_in_place,
    size_class,
)
from sketchynet.ops.pairwise_distance import product_error

PANEL_SHARE = 3
"""A panel's weights have at most so many times the elements of all embeddings."""

huber_tuned = Tuned(
    huber_kernel,
    [
        config(8, 3, BM=128, BN=128, BK=64, GROUP=8),
        config(8, 4, BM=128, BN=128, BK=32, GROUP=8),
        config(8, 3, BM=64, BN=128, BK=64, GROUP=8),
        config(4, 3, BM=64, BN=128, BK=64, GROUP=8),
        config(4, 4, BM=64, BN=64, BK=64, GROUP=8),
    ],
    key=["SIZE", "K", "Wt", "W", "AMONG", "LOSS", "STORE", "UNIT", "MIRROR", "T_PRECISION", "S_PRECISION"],
    operands={
        "t_rows": ("BM", "BK"),
        "t_columns": ("BN", "BK"),
        "s_rows": ("BM", "BK"),
        "s_columns": ("BN", "BK"),
    },
)


@dataclass(frozen=True)
class Relations:
    """Weights of the relations, over what they are averages of; True where a relation is computed."""

    own: float
    cross: float
    among: float
    with_cross: bool
    with_among: bool

    @classmethod
    def of(cls, weights: Sequence[float], canvases: int, pairs: int, through_unit: bool) -> Relations:
        """through_unit: every distance between photos moves the unit, and so has a gradient."""
        own, cross, among = weights
        return cls(own / (canvases * pairs), cross / canvases, among, cross != 0, among != 0 or through_unit)


@dataclass(frozen=True)
class _Left:
    """What the tiles of a relation left of a panel: see `huber_kernel`."""

    sums: Tensor
    row_sums: Tensor
    column_sums: Tensor
    tiles: int
    blocks: dict[str, int]


class _Batch:
    """What the launches of a batch share."""

    def __init__(
        self,
        embeddings: tuple[Tensor, ...],
        content: Tensor | None,
        pairs: Tensor | None,
        relations: Relations,
        delta: float,
    ) -> None:
        ts, tp, ss, sp = (rows_in_place(t) for t in embeddings)
        (self.K, self.B, Ds), Dt, device = ss.shape, ts.shape[1], sp.device
        self.content, self.relations, self.delta = content, relations, delta
        t_width, width = padded(Dt, ts.itemsize), padded(Ds, sp.itemsize)
        self.teacher, self.packed = ts.new_empty((2, self.B, t_width)), sp.new_empty((self.K + 1, self.B, width))
        self.notes = torch.empty(HEAD.value + (3 * self.K + 5) * self.B, dtype=torch.float32, device=device)
        self.totals = torch.empty(4, dtype=torch.float64, device=device)
        self.out = torch.empty(7, dtype=torch.float32, device=device)
        launch(
            prepare_kernel, (cdiv(self.B, 4),),
            ts, tp, ss, sp, self.notes if pairs is None else pairs, self.teacher, self.packed, self.notes,
            self.B, self.K, Dt, Ds, t_width, width,
            ts.stride(0), tp.stride(0), ss.stride(0), ss.stride(1), sp.stride(0),
            UNIQUE=pairs is None, BP=4, BD=256,
        )  # fmt: skip

    def run(
        self, among: bool, span: tuple[int, int], weights: Tensor | None = None, *,
        loss: bool = True, unit: bool = False,
    ) -> _Left:  # fmt: skip
        """The distances of a span's rows: photos among each other, or else sketches with photos."""
        (first, last), B, K, store = span, self.B, self.K, weights is not None
        rows, t_rows, s_rows = last - first, self.teacher.flatten(0, 1), self.packed.flatten(0, 1)
        # Room for the tiles of the smallest blocks.
        down = cdiv(rows, min(choice["BM"] for choice in huber_tuned.choices))
        across, canvases = cdiv(B, min(choice["BN"] for choice in huber_tuned.choices)), 1 if among else K
        shapes = (down * across, 2), (across * store, canvases, rows), (down * store, canvases, B)
        sums, row_sums, column_sums = (
            torch.empty(shape, dtype=torch.float32, device=s_rows.device) for shape in shapes
        )
        t_precision, precision = precision_of(t_rows.dtype), precision_of(s_rows.dtype)

        def tiles(blocks: dict[str, int]) -> int:
            return cdiv(rows, blocks["BM"]) * cdiv(B, blocks["BN"])

        blocks = huber_tuned.launch(
            lambda blocks: (tiles(blocks),),
            operand(t_rows), operand(t_rows), operand(s_rows), operand(s_rows),
            self.notes if self.content is None else self.content, self.notes,
            sums, sums if weights is None else weights, row_sums, column_sums,
            first, rows, B, K, t_rows.shape[1], s_rows.shape[1], t_rows.stride(0), s_rows.stride(0),
            self.delta, 2.0 * self.relations.among if among else self.relations.cross,
            product_error(s_rows.shape[1], s_rows.dtype),
            AMONG=among, LOSS=loss, STORE=store, UNIT=unit, MIRROR=among and rows == B, UNIQUE=self.content is None,
            ROUND=s_rows.dtype == torch.float32 and precision == "tf32",
            EVEN=t_rows.shape[1] % 64 == 0 and s_rows.shape[1] % 64 == 0, DESCRIBED=described(s_rows.device),
            T_PRECISION=t_precision, S_PRECISION=precision, SIZE=size_class(rows, B),
        )  # fmt: skip
        return _Left(sums, row_sums, column_sums, tiles(blocks), blocks)

    def collect(self, span: tuple[int, int], cross: _Left | None, among: _Left | None, *, store: bool) -> None:
        """Adds what the tiles left to that of the spans before; after the last span `out` holds the loss."""
        (first, last), of, notes = span, self.relations, self.notes
        rows, block = last - first, 128
        nothing = _Left(notes, notes, notes, 0, {"BM": 1, "BN": 1})
        cross, among = cross or nothing, among or nothing
        pulled = cdiv(self.B, block) + (self.K * cdiv(rows, block) if cross.tiles else 0)
        launch(
            collect_kernel, (1 + (pulled if store else 0),),
            notes, cross.sums, cross.row_sums, cross.column_sums, among.sums, among.row_sums, among.column_sums,
            self.totals, self.out,
            first, rows, self.B, self.K, cross.tiles, among.tiles, self.delta, of.own, of.cross, of.among,
            STORE=store, MIRROR=rows == self.B, FIRST=first == 0, LAST=last == self.B,
            CROSS_BM=cross.blocks["BM"], CROSS_BN=cross.blocks["BN"],
            AMONG_BM=among.blocks["BM"], AMONG_BN=among.blocks["BN"], BT=32, BP=block, BL=1024, num_warps=8,
        )  # fmt: skip


def padded(dim: int, itemsize: int) -> int:
    """dim, rounded up so that rows begin at 16 bytes."""
    line = 16 // itemsize
    return cdiv(dim, line) * line


def relational_triton(
    embeddings: tuple[Tensor, ...],
    content: Tensor | None,
    pairs: Tensor | None,
    weights: Sequence[float],
    delta: float,
    normalize: bool,
    gradients: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss, and what `relational_gradients_triton` makes the gradients of, empty unless they are asked for.

    embeddings: as of `relational_panels`, in float32, bfloat16 or float16. content: int32 (B,), and pairs, float32
    (): ordered pairs of different photos; None where no two photos show the same.
    """
    ss, sp = embeddings[2:]
    K, B, _ = ss.shape
    relations = Relations.of(weights, K, B, through_unit=normalize and gradients)
    batch = _Batch(embeddings, content, pairs, relations, delta)
    notes, with_cross, with_among = batch.notes, relations.with_cross, relations.with_among
    panels = math.ceil((K + 1) * B * B / (PANEL_SHARE * sum(t.numel() for t in embeddings)))
    rows = max(128, -(-B // (panels * 128)) * 128)
    spans = [(first, min(first + rows, B)) for first in range(0, B, rows)]
    if normalize:
        found = [batch.run(True, span, loss=False) for span in spans]
        sums = torch.stack([left.sums[: left.tiles].sum(dim=0, dtype=torch.float64) for left in found])
        means = sums.sum(dim=0).float() * notes[3]
        notes[:2] = 1.0 / torch.where(means > torch.finfo(torch.float32).tiny, means, 1.0)
    if normalize and gradients:
        # What the student's unit does to the loss needs every sum, before the gradient of the photos is taken.
        for span in spans:
            cross = batch.run(False, span, unit=True) if with_cross else None
            among = batch.run(True, span, unit=True) if relations.among else None
            batch.collect(span, cross, among, store=False)
        sp_pull, sn_pull, pn_pull = batch.out[2::2]
        by_unit = relations.own * sp_pull + (relations.cross * sn_pull + relations.among * pn_pull) * notes[3]
        notes[2] = 2.0 * by_unit * notes[1].square()  # both orders of a pair, as in the share
    width, parts = batch.packed.shape[2], with_cross * K + with_among
    of_sketches: list[Tensor] = []
    of_photos: list[Tensor] = []
    for first, last in spans:
        pulls = sp.new_empty((parts, last - first, B)) if gradients else None
        cross_pulls, among_pulls = (None, None) if pulls is None else (pulls[:K], pulls[parts - 1 :])
        cross = batch.run(False, (first, last), cross_pulls) if with_cross else None
        among = batch.run(True, (first, last), among_pulls) if with_among else None
        batch.collect((first, last), cross, among, store=pulls is not None and parts > 0)
        if pulls is not None and with_cross:
            product = float32_product(pulls[:K].view(-1, B), batch.packed[K])
            of_sketches.append(product.view(K, last - first, width))
        if pulls is not None and parts > 0:
            drawn = batch.packed[0 if with_cross else K : K + with_among, first:last].reshape(-1, width)
            product = float32_product(pulls.view(-1, B).T, drawn)
            of_photos = [product if not of_photos else of_photos[0].add_(product)]
    if len(of_sketches) > 1:
        of_sketches = [torch.cat(of_sketches, dim=1)]
    sketch_products, photo_products = (
        found[0] if found else notes.new_empty(0) for found in (of_sketches, of_photos)
    )
    return batch.out[0], sketch_products, photo_products, notes if gradients else notes.new_empty(0)


def shapes_of_pulls(
    shape: torch.Size, dtype: torch.dtype, weights: Sequence[float], normalize: bool
) -> tuple[tuple[int, ...], ...]:
    """Shapes of what `relational_triton` hands on for the gradients of student sketches of a shape (K, B, Ds)."""
    K, B, Ds = shape
    relations, width = Relations.of(weights, K, B, through_unit=normalize), padded(Ds, dtype.itemsize)
    pulled = relations.with_cross or relations.with_among
    return (
        (K, B, width) if relations.with_cross else (0,),
        (B, width) if pulled else (0,),
        (HEAD.value + (3 * K + 5) * B,),
    )


def relational_gradients_triton(
    grad: Tensor,
    ss: Tensor,
    sp: Tensor,
    sketch_products: Tensor,
    photo_products: Tensor,
    notes: Tensor,
    weights: Sequence[float],
    delta: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of ss (K, B, Ds) and sp (B, Ds), in their type, given that of the loss."""
    ss, sp = rows_in_place(ss), rows_in_place(sp)
    (K, B, Ds), device = ss.shape, sp.device
    sketch_gradient, photo_gradient = torch.empty(ss.shape, dtype=ss.dtype, device=device), torch.empty_like(sp)
    crossed, pulled = sketch_products.numel() > 0, photo_products.numel() > 0
    launch(
        finish_kernel, (cdiv(B, 4), cdiv(Ds, 256)),
        grad, ss, sp, sketch_products, photo_products, notes, sketch_gradient, photo_gradient,
        B, K, Ds, padded(Ds, sp.itemsize), ss.stride(0), ss.stride(1), sp.stride(0), delta,
        Relations.of(weights, K, B, through_unit=False).own,
        CROSS=crossed, PULLED=pulled, BP=4, BD=256,
    )  # fmt: skip
    return sketch_gradient, photo_gradient
