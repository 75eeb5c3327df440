"""Distances between all rows of two sets: Euclidean, squared Euclidean and cosine.

Shapes: B rows of x, G rows of y, D embedding size.

Distances come from the Gram matrix, |x|² + |y|² - 2xy, a matrix product. With γ = `product_error`, u half a unit in
the last place of 1 and n = |x|² + |y|², the computed product is off by at most γ|x||y| ≤ γn/2, and norms and sums by
a few u·n, so that d² is off by at most (γ + 4u)·n. Where d² < n / 64 that would be a large part of it: there
differences are taken before squares, which is right to (D + 2)u. So everywhere

    |d²(computed) - d²| ≤ 64 (γ + 4u) d²,

for float32 at D = 512 at most 2.3e-3 and in practice 1e-5 of d².
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sketchynet.errors import InputError
from sketchynet.ops.backend import choose_backend
from sketchynet.ops.checks import require_finite_on_cpu, require_same, widest

METRICS = ("euclidean", "squared", "cosine")
NEAR = 1.0 / 64.0
"""Pairs with d² below this share of |x|² + |y|² are computed from differences."""
SMALL = 1 << 22
"""Multiply-adds below which the whole matrix is computed from differences: exact, and as fast."""


def product_error(dim: int, dtype: torch.dtype) -> float:
    """γ: a product of two rows, summed in any order, is off by at most γ|x||y| (Higham, Accuracy and Stability, 3.1).

    Products of half-precision numbers are exact in float32. The 64 above D covers tensor cores, which truncate where
    they align a group of products instead of rounding.
    """
    unit = 2.0**-53 if dtype == torch.float64 else 2.0**-24
    return (dim + 64) * unit


def accumulating(x: Tensor) -> Tensor:
    """x in the type in which sums are taken: float64 stays, all else is float32."""
    return x if x.dtype == torch.float64 else x.float()


def _differences(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _pairs(mask: Tensor) -> list[tuple[Tensor, Tensor]]:
    rows, columns = mask.nonzero(as_tuple=True)
    return list(zip(rows.split(4096), columns.split(4096), strict=True))


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances of float32 or float64 x (B, D) and y (G, D)."""
    return distances_apart(x, y)[0]


def distances_apart(x: Tensor, y: Tensor) -> tuple[Tensor, bool]:
    """`distances`, and whether no pair is near: then a product gives gradients as well as it gave the distances."""
    if len(x) * len(y) * x.shape[1] <= SMALL:
        return _differences(x, y), False
    size = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)[None, :]
    squared = torch.addmm(size, x, y.T, alpha=-2.0)
    apart = squared >= size.mul_(NEAR)  # NaN is near: differences of overflown norms may still be finite
    if bool(apart.all()):
        return squared.sqrt_(), True
    near = ~apart
    count = int(near.sum())
    if count > near.numel() // 16:
        return _differences(x, y), False
    distance = squared.clamp_(min=0.0).sqrt_()
    if count:
        for i, j in _pairs(near):
            distance[i, j] = (x[i] - y[j]).square_().sum(dim=1).sqrt_()
    return distance, False


def distance_gradients(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    distance: Tensor,
    *,
    squared: bool = False,
    apart: bool = False,
    of_x: bool = True,
    of_y: bool = True,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and y, as asked for, given that of the distances (B, G) or of their squares.

    `apart`: no pair is near, as `distances_apart` found, so that none is looked for. A pair pulls x along w(x - y),
    w = grad / d, or 2 grad for squares; it does nothing at d = 0. The sum over pairs is a row sum of w and a product
    w·y; near pairs, whose x and y would cancel there, are added from differences.
    """
    if squared:
        weight = 2.0 * grad
    else:
        weight = grad / distance if apart else torch.where(distance > 0, grad / distance, 0.0)
    near, count = torch.zeros((), dtype=torch.bool), 0 if apart else distance.numel()
    if count * x.shape[1] > SMALL:
        size = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)[None, :]
        near = (distance.square() < NEAR * size) & (distance > 0)
        count = int(near.sum())
    if count > distance.numel() // 16:
        ones = torch.ones_like(distance)  # the pull of a pair is that of its weight at distance 1
        return (
            torch.ops.aten._cdist_backward(weight.contiguous(), x, y, 2.0, ones) if of_x else None,
            torch.ops.aten._cdist_backward(weight.T.contiguous(), y, x, 2.0, ones.T.contiguous()) if of_y else None,
        )
    far = weight.masked_fill(near, 0.0) if count else weight
    grad_x = far.sum(dim=1, keepdim=True) * x - far @ y if of_x else None
    grad_y = far.sum(dim=0)[:, None] * y - far.T @ x if of_y else None
    for i, j in _pairs(near) if count else ():
        pull = weight[i, j, None] * (x[i] - y[j])
        if grad_x is not None:
            grad_x.index_add_(0, i, pull)
        if grad_y is not None:
            grad_y.index_add_(0, j, -pull)
    return grad_x, grad_y


def _distances_apart(x: Tensor, y: Tensor, squared: bool, triton: bool) -> tuple[Tensor, Tensor, bool]:
    """Distances float32 (float64 of float64) of x (B, D) and y (G, D); of the kernels, also the rows' squared norms
    (B + G,), else empty; and whether it is known that no pair is near."""
    none = x.new_empty(0, dtype=torch.float32)
    if len(x) == 0 or len(y) == 0:
        return x.new_empty((len(x), len(y)), dtype=accumulating(x[:0]).dtype), none, True
    with torch.autocast(x.device.type, enabled=False):
        if triton:
            from sketchynet.ops.kernels.pairwise_distance import pairwise_distance_triton

            return *pairwise_distance_triton(x, y, squared), False
        distance, apart = distances_apart(accumulating(x), accumulating(y))
        return distance.square_() if squared else distance, none, apart


def _distances(x: Tensor, y: Tensor, squared: bool, triton: bool) -> tuple[Tensor, Tensor]:
    return _distances_apart(x, y, squared, triton)[:2]


def _gradients(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    distance: Tensor,
    norms: Tensor,
    squared: bool,
    triton: bool,
    apart: bool = False,
) -> tuple[Tensor, Tensor]:
    if distance.numel() == 0:
        return torch.zeros_like(x), torch.zeros_like(y)
    with torch.autocast(x.device.type, enabled=False):
        if triton:
            from sketchynet.ops.kernels.pairwise_distance import pairwise_gradients_triton

            return pairwise_gradients_triton(grad, x, y, distance, norms, squared)
        length = distance.sqrt() if squared and not apart else distance
        grad_x, grad_y = distance_gradients(
            grad, accumulating(x), accumulating(y), length, squared=squared, apart=apart
        )
    assert grad_x is not None and grad_y is not None
    return grad_x.to(x.dtype), grad_y.to(y.dtype)


class _Distances(torch.autograd.Function):
    """The operator outside of compiled graphs, where it takes a third of the custom operator's time to call."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, squared: bool, triton: bool) -> Tensor:
        ctx.squared, ctx.triton = squared, triton
        distance, norms, ctx.apart = _distances_apart(x, y, squared, triton)
        ctx.save_for_backward(x, y, distance, norms)
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, distance, norms = ctx.saved_tensors
        return *_gradients(grad, x, y, distance, norms, ctx.squared, ctx.triton, ctx.apart), None, None


_operator = torch.library.custom_op("sketchynet::pairwise_distance", _distances, mutates_args=())
_backward_operator = torch.library.custom_op("sketchynet::pairwise_distance_backward", _gradients, mutates_args=())


@_operator.register_fake
def _(x: Tensor, y: Tensor, squared: bool, triton: bool) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    norms = x.shape[0] + y.shape[0] if triton else 0
    return x.new_empty((x.shape[0], y.shape[0]), dtype=dtype), x.new_empty(norms, dtype=torch.float32)


@_backward_operator.register_fake
def _(
    grad: Tensor, x: Tensor, y: Tensor, distance: Tensor, norms: Tensor, squared: bool, triton: bool, apart: bool = False
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(y)


def _setup(ctx, inputs, output) -> None:
    x, y, ctx.squared, ctx.triton = inputs
    ctx.save_for_backward(x, y, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # no zeros for what is not differentiable


def _backward(ctx, grad: Tensor | None, _):
    if grad is None:
        return None, None, None, None
    return *_backward_operator(grad, *ctx.saved_tensors, ctx.squared, ctx.triton), None, None


_operator.register_autograd(_backward, setup_context=_setup)


def _matrix(x: Tensor, y: Tensor, squared: bool, triton: bool) -> Tensor:
    if torch.compiler.is_compiling():
        return _operator(x, y, squared, triton)[0]
    return _Distances.apply(x, y, squared, triton)


def pairwise_distance_eager(x: Tensor, y: Tensor, *, metric: str = "euclidean") -> Tensor:
    """Reference of `pairwise_distance`: differences are taken before squares, pair by pair, in float32 or float64."""
    rows, y = accumulating(x).reshape(-1, x.shape[-1]), accumulating(y)
    if metric == "cosine":
        products = F.normalize(rows, dim=1) @ F.normalize(y, dim=1).T
        return (1.0 - products).reshape(*x.shape[:-1], len(y))
    distance = _differences(rows, y).reshape(*x.shape[:-1], len(y))
    return distance.square() if metric == "squared" else distance


def pairwise_distance(x: Tensor, y: Tensor, *, metric: str = "euclidean", backend: str = "auto") -> Tensor:
    """Distances between the rows of x (..., B, D) and of y (G, D): (..., B, G), float32 (float64 of float64).

    Sums are taken in float32 for half-precision and float32 embeddings. On a CUDA device the products of float32
    embeddings follow `torch.get_float32_matmul_precision()`: with "highest" they are right to float32's rounding,
    otherwise TF32, whose γ is 2⁻¹⁰. The error is bounded as the module says, near-equal embeddings
    included. The gradient of a Euclidean distance of zero is zero. Memory beside the result: one matrix of its size.

    Args:
        metric: "euclidean"; "squared", its square; or "cosine", 1 - cos, in [0, 2], where a row of zeros has the
            cosine 0 with every row.
        backend: "auto", "eager" or "triton".

    Raises:
        InputError: shapes, types or devices that do not fit; a backend that cannot run here; on the CPU a row that is
            not finite, with its number (on a GPU its distances are not finite either).
    """
    if metric not in METRICS:
        raise InputError(f"metric {metric!r} is unknown: choose one of {', '.join(METRICS)}")
    if x.ndim < 2 or y.ndim != 2 or x.shape[-1] != y.shape[-1]:
        raise InputError(
            f"distances need x (..., B, D) and y (G, D) of one embedding size; got {tuple(x.shape)} and "
            f"{tuple(y.shape)}"
        )
    if x.shape[-1] == 0:
        raise InputError(f"embeddings have no elements: x is {tuple(x.shape)}")
    x, y = widest(x, y)
    require_same("pairwise_distance", x=x, y=y)
    require_finite_on_cpu("pairwise_distance", x=x, y=y)
    rows = x.reshape(-1, x.shape[-1])
    chosen = choose_backend(backend, x, y) == "triton"
    if metric != "cosine":
        distance = _matrix(rows, y, metric == "squared", chosen)
        return distance.reshape(*x.shape[:-1], len(y))
    # Of unit rows 1 - cos is half the squared distance, which does not cancel where they nearly agree.
    units = [F.normalize(accumulating(t), dim=1) for t in (rows, y)]
    half = 0.5 * _matrix(units[0], units[1], True, chosen)
    zero = [0.5 * (~t.any(dim=1)).to(half.dtype) for t in (rows, y)]
    return (half + zero[0][:, None] + zero[1][None, :]).reshape(*x.shape[:-1], len(y))


def row_distance(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distance of row i of x (..., D) to row i of y: (...), broadcasting; its gradient at zero is zero."""
    squared = (accumulating(x) - accumulating(y)).square().sum(dim=-1)
    apart = squared > 0
    return torch.where(apart, squared.masked_fill(~apart, 1.0).sqrt(), 0.0)
