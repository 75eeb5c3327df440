"""Batch norm with the activation behind it, fused: what a CPU spends most memory traffic on.

Unfused, torch passes over a layer's output some thirteen times a training step: statistics, norm, activation, and the
backward of each. Fused (`csrc/norm.cpp`), it is eight times, and the normed images are not kept. In evaluation four
passes become two.

Shapes: B images, C channels.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sketchynet import _core


class Bounds(NamedTuple):
    """What an activation clamps to; infinite where there is none."""

    low: float
    high: float


def bounds_of(activation: nn.Module | None) -> Bounds | None:
    """The bounds of an activation that only clamps (or of none at all); None for every other."""
    if activation is None:
        return Bounds(-math.inf, math.inf)
    if type(activation) is nn.ReLU:
        return Bounds(0.0, math.inf)
    return Bounds(0.0, 6.0) if type(activation) is nn.ReLU6 else None


def can_fuse(x: Tensor) -> bool:
    """Whether the fused norms take these images."""
    fitting = x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() > 0
    return fitting and x.is_contiguous(memory_format=torch.channels_last)


def batch_norm_clamped(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, bounds: Bounds
) -> tuple[Tensor, Tensor, Tensor]:
    """Training-mode batch norm, clamped: what torch's batch norm and ReLU or ReLU6 give, to float32 rounding.

    Args:
        x: float32 (B, C, H, W) on the CPU, channels last, with at least two values a channel.
        weight, bias: float32 (C,).

    Returns:
        the clamped images, and, without gradient, float32 (C,) mean and unbiased variance of the batch.
    """
    return _BatchNormClamped.apply(x, weight, bias, eps, bounds)


def frozen_norm_clamped(
    x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, eps: float, bounds: Bounds
) -> Tensor:
    """Evaluation-mode batch norm, clamped; without gradient.

    Args:
        x: float32 (B, C, H, W) on the CPU, channels last.
        mean, var, weight, bias: float32 (C,).

    Returns:
        float32 (B, C, H, W), channels last, in memory of its own.
    """
    y = torch.empty_like(x)
    with torch.no_grad():
        affine = (mean.numpy(), (weight * torch.rsqrt(var + eps)).numpy(), bias.detach().numpy())
    _core.norm_forward(_rows(x), *affine, *bounds, torch.get_num_threads(), _rows(y))
    return y


def _rows(x: Tensor) -> NDArray[np.float32]:
    """(B·H·W, C) in the same memory."""
    return x.detach().permute(0, 2, 3, 1).view(-1, x.shape[1]).numpy()


class _BatchNormClamped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, bounds: Bounds
    ) -> tuple[Tensor, Tensor, Tensor]:
        threads, rows = torch.get_num_threads(), _rows(x)
        mean, variance = np.empty(x.shape[1]), np.empty(x.shape[1])
        _core.norm_statistics(rows, threads, mean, variance)
        inverse = 1.0 / np.sqrt(variance + eps)
        y = torch.empty_like(x)
        affine = (
            mean.astype(np.float32),
            (weight.detach().numpy() * inverse).astype(np.float32),
            bias.detach().numpy().copy(),  # as it is now: the optimiser changes it in place
            *bounds,
        )
        _core.norm_forward(rows, *affine, threads, _rows(y))
        ctx.save_for_backward(x)
        ctx.affine, ctx.inverse, ctx.threads = affine, inverse, threads
        batch_mean = torch.from_numpy(affine[0].copy())
        batch_variance = torch.from_numpy((variance * (len(rows) / (len(rows) - 1))).astype(np.float32))
        ctx.mark_non_differentiable(batch_mean, batch_variance)
        return y, batch_mean, batch_variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        [x] = ctx.saved_tensors
        rows, dy = _rows(x), _rows(gradients[0].contiguous(memory_format=torch.channels_last))
        mean, scale, bias, low, high = ctx.affine
        plain, scaled = np.empty(len(scale)), np.empty(len(scale))
        _core.norm_gradient_sums(rows, dy, mean, scale, bias, low, high, ctx.threads, plain, scaled)
        slope = (-scale * ctx.inverse**2 * scaled / len(rows)).astype(np.float32)
        offset = (-scale * plain / len(rows)).astype(np.float32)
        dx = torch.empty_like(x)
        _core.norm_backward(rows, dy, mean, scale, bias, low, high, slope, offset, ctx.threads, _rows(dx))
        dweight = torch.from_numpy((scaled * ctx.inverse).astype(np.float32))
        return dx, dweight, torch.from_numpy(plain.astype(np.float32)), None, None
