"""Comparisons of distances by their products, with proof: what rounding may decide is left to exact differences.

Shapes: B queries x, n gallery rows g, D embedding size.

Of one query x the distance grows with F(g) = |g|²/2 - x·g, since |x - g|² = |x|² + 2F(g). A product computed in
float32 gives a = x·g + e with |e| ≤ γ|x||g| (`product_error`; a split of float32 into halves adds to γ). With
|x||g| ≤ (w|x|² + |g|²/w)/2 for any w > 0 the error has a part of the query and one of the row,

    |v - F(g)| ≤ query + row,   v = |g|²/2 - a,   query = (γ + 2u) w|x|²/2,   row = (γ + 2u) |g|²/(2w) + 3u|g|²,

where u = 2⁻²⁴ pays for the rounding of |g|²/2, of the subtraction and of the bounds themselves. So a row with
|g|²/2 + row - a < t - query lies nearer than F = t, and one with |g|²/2 - row - a > t + query farther. All else,
NaN of overflown products included, is unsure: there the squared differences in float64 decide, summed in one order
for all rows, so that duplicates tie. They are exact but for the rounding of float64, and where squares underflow in
float32 they do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sketchynet.ops.pairwise_distance import product_error

PAIR_ELEMENTS = 1 << 20
"""Elements of pairs' differences held at once: 8 MiB of float64."""


def summed(terms: Tensor) -> Tensor:
    """Sum of float64 terms (..., D) over the last axis, (...), in an order that depends on D alone."""
    while terms.shape[-1] > 1:
        half = terms.shape[-1] // 2
        folded = terms[..., :half] + terms[..., half : 2 * half]
        if terms.shape[-1] % 2:
            folded[..., 0] += terms[..., -1]
        terms = folded
    return terms[..., 0]


def exact_squared(x: Tensor, i: Tensor, y: Tensor, j: Tensor) -> Tensor:
    """Squared distances float64 (n,) of rows i of x to rows j of y, from differences, equal for equal rows."""
    step = max(1, PAIR_ELEMENTS // x.shape[1])
    parts = []
    for first in range(0, len(i), step):
        part = slice(first, first + step)
        parts.append(summed((x[i[part]].double() - y[j[part]].double()).square_()))
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64, device=x.device)


def row_squares(rows: Tensor) -> Tensor:
    """Squared norms float64 (n,)."""
    step = max(1, PAIR_ELEMENTS // rows.shape[1])
    return torch.cat([part.double().square().sum(dim=1) for part in rows.split(step)])


@dataclass(frozen=True)
class Bounds:
    """Error bounds of the products of a set of queries with one chunk of gallery rows."""

    above: Tensor
    """(n,): |g|²/2 + row."""
    below: Tensor
    """(n,): |g|²/2 - row."""
    query: Tensor
    """float64 (B,): the query's part of the bound."""
    unit: float

    def cuts(self, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """(low, high) of F = threshold, float64 (B,): v below low is nearer for sure, above high farther."""
        slack = self.query + 4.0 * self.unit * threshold.abs()
        dtype = self.above.dtype
        return (threshold - slack).to(dtype), (threshold + slack).to(dtype)


def bounds(x_squares: Tensor, g_squares: Tensor, dim: int, dtype: torch.dtype, split: float = 0.0) -> Bounds:
    """Bounds of products summed in float32 (float64 where dtype is), given squared norms float64 (B,) and (n,).

    `split` is added to γ: what a product loses whose factors were split into halves.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    unit, tiny = (2.0**-53, 2.0**-1000) if wide == torch.float64 else (2.0**-24, 2.0**-120)
    share = product_error(dim, dtype) + split + 2.0 * unit
    # Products below the least normal number may be flushed to zero.
    flushed = dim * tiny * (1.0 + g_squares.amax().sqrt() + x_squares.amax().sqrt())
    w = (g_squares.mean() / x_squares.mean()).sqrt()
    w = torch.where((w > 1e-6) & (w < 1e6), w, 1.0)
    row = share * g_squares / (2.0 * w) + 3.0 * unit * g_squares + flushed
    half = 0.5 * g_squares
    return Bounds((half + row).to(wide), (half - row).to(wide), share * w * x_squares / 2.0, unit)
