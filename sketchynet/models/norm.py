"""Batch norms for one network that serves several kinds of image.

Sketches at different canvases and photos have different statistics. Running averages shared between them
fit none: such a network trains well and evaluates at chance. Four treatments (`NORMS`):

private  affine shared, running statistics kept for each domain (as in resolution-switchable networks);
         domain 0 is the photo, domain 1 + k the k-th canvas
frozen   statistics and affine fixed as in evaluation; gradients pass through
folded   frozen, and multiplied into the convolution before it: the convolution and its new bias train.
         Needs pretrained weights: a folded network has no normalisation left to start from random ones
shared   plain batch norm

Shapes: B batch, C channels, N domains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sketchynet.errors import InputError
from sketchynet.models.fused_norm import Bounds, batch_norm_clamped, bounds_of, can_fuse, frozen_norm_clamped

NORMS = ("private", "frozen", "folded", "shared")


class PrivateBatchNorm(nn.Module):
    """Batch norm over (B, C, H, W) with one affine and private running statistics for each of N domains.

    Buffers: `running_mean` and `running_var` (N, C), `num_batches_tracked` (N,). A plain batch norm's entries
    (C,) load into every domain. The first updates of a domain are plain averages, since the start values 0
    and 1 would stay visible for long, later ones exponential. `after` is the activation behind it, which belongs to
    the norm so that both are one pass where that can be.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    share: Callable[[Tensor], Tensor] | None
    """In data-parallel training: a worker's row (n,) to those of all W workers, (W, n)."""

    def __init__(
        self, num_features: int, num_domains: int, *, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.num_domains = num_domains
        self.eps = eps
        self.momentum = momentum
        self.domain = 0
        self.after: nn.Module | None = None
        self.share = None
        self._counts: list[int] | None = None  # num_batches_tracked, known without waiting for the device
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_domains, num_features))
        self.register_buffer("running_var", torch.ones(num_domains, num_features))
        self.register_buffer("num_batches_tracked", torch.zeros(num_domains, dtype=torch.int64))

    def _update_factor(self) -> float:
        """Count one more batch of the current domain; the weight of its statistics."""
        if self._counts is None:
            self._counts = self.num_batches_tracked.tolist()
        self._counts[self.domain] += 1
        self.num_batches_tracked[self.domain].add_(1)
        return max(self.momentum, 1.0 / self._counts[self.domain])

    def forward(self, x: Tensor) -> Tensor:
        bounds = None if torch.compiler.is_compiling() or not can_fuse(x) else bounds_of(self.after)
        if bounds is not None and self.training and self.share is None:
            return self._fused(x, bounds)
        if bounds is not None and not self.training and not torch.is_grad_enabled():
            mean, var = self.running_mean[self.domain], self.running_var[self.domain]
            return frozen_norm_clamped(x, mean, var, self.weight, self.bias, self.eps, bounds)
        normed = self._normed(x)
        return normed if self.after is None else self.after(normed)

    def _fused(self, x: Tensor, bounds: Bounds) -> Tensor:
        if x.numel() < 2 * self.num_features:
            raise ValueError(f"one value a channel has no variance: images {tuple(x.shape)}")
        y, mean, var = batch_norm_clamped(x, self.weight, self.bias, self.eps, bounds)
        factor = self._update_factor()
        with torch.no_grad():
            self.running_mean[self.domain].lerp_(mean, factor)
            self.running_var[self.domain].lerp_(var, factor)
        return y

    def _normed(self, x: Tensor) -> Tensor:
        if self.training and self.share is not None:
            return self._synchronised(x)
        if self.training and torch.compiler.is_compiling():
            return self._compiled(x)
        factor = self._update_factor() if self.training else 0.0
        mean, var = self.running_mean[self.domain], self.running_var[self.domain]
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, factor, self.eps)

    def _synchronised(self, x: Tensor) -> Tensor:
        """The same step with the statistics of all workers' images, as if one process saw them all."""
        assert self.share is not None
        normed, mean, var, total = _SynchronisedNorm.apply(x, self.weight, self.bias, self.eps, self.share)
        factor = self._update_factor()
        with torch.no_grad():
            self.running_mean[self.domain].lerp_(mean, factor)
            self.running_var[self.domain].lerp_(var * (total / (total - 1)), factor)
        return normed

    def _compiled(self, x: Tensor) -> Tensor:
        """The same step for torch.compile: the weight of a batch's statistics is a tensor.

        As a number it would be part of the compiled code, and every one of the first batches a compilation.
        """
        self._counts = None
        tracked = self.num_batches_tracked[self.domain].add_(1)
        with torch.no_grad():
            factor = (1.0 / tracked).clamp(min=self.momentum)
            var, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
            count = x.numel() // x.shape[1]
            self.running_mean[self.domain].lerp_(mean, factor)
            self.running_var[self.domain].lerp_(var * (count / (count - 1)), factor)
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            value, own = state_dict.get(prefix + name), getattr(self, name)
            if value is not None and value.shape == own.shape[1:]:
                state_dict[prefix + name] = value.expand(own.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._counts = None

    def extra_repr(self) -> str:
        return f"{self.num_features}, num_domains={self.num_domains}, momentum={self.momentum}"


class _SynchronisedNorm(torch.autograd.Function):
    """Batch norm whose statistics, and their part of the gradient, are those of all workers' images.

    Every worker's loss is that of the global batch, reached through its own rows, so what the statistics contribute
    is the sum over the workers; the gradients of weight and bias are left to be summed with all others.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, share: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        precise = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        mean, var = torch.batch_norm_update_stats(precise, None, None, 0.0)  # twenty times var_mean's speed on a CPU
        rows = share(torch.cat([mean, var, mean.new_tensor([x.numel() // x.shape[1]])]))
        counts, means, variances = rows[:, -1:], rows[:, : len(mean)], rows[:, len(mean) : -1]
        total = counts.sum()
        mean = (counts * means).sum(dim=0) / total
        var = (counts * (variances + (means - mean).square())).sum(dim=0) / total
        ctx.save_for_backward(x, weight, mean, var, total)
        ctx.eps, ctx.share = eps, share
        ctx.mark_non_differentiable(mean, var, total)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, var, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, total = ctx.saved_tensors
        gradient = gradients[0]
        _, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, var, None, None, False, ctx.eps, [False, True, True]
        )
        scaled, plain = ctx.share(torch.cat([dweight, dbias])).sum(dim=0).chunk(2)
        inverse = torch.rsqrt(var + ctx.eps)
        scale = weight * inverse
        slope = -scale * inverse * scaled / total
        offset = -scale * plain / total - slope * mean
        dx = torch.addcmul(offset[:, None, None], x, slope[:, None, None])
        dx = dx.addcmul_(gradient, scale[:, None, None]).to(x.dtype)
        return dx, dweight, dbias, None, None


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch norm that behaves as in evaluation in both modes; its affine takes no gradient."""

    def __init__(self, num_features: int, *, eps: float = 1e-5) -> None:
        super().__init__(num_features, eps=eps)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)


class FoldedNorm(nn.Identity):
    """Stands where a batch norm was folded away, so that the layers after it keep their names.

    `num_features` lets the parameter count stay that of the network as published: folding turns the norm's
    weight and bias (2 C) into one convolution bias (C).
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def fold_pair(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return one convolution equal to `norm(conv(x))` in evaluation mode; keeps the memory format."""
    if norm.running_mean is None or norm.running_var is None:
        raise InputError("a batch norm without running statistics cannot be folded: choose norm='shared'")
    with torch.no_grad():
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        bias = norm.bias - norm.running_mean * scale
        if conv.bias is not None:
            bias = bias + conv.bias * scale
        conv.weight.mul_(scale.view(-1, 1, 1, 1))
    conv.bias = nn.Parameter(bias.detach().clone())
    return conv


def fold_norms(network: nn.Module) -> nn.Module:
    """Fold every batch norm into the convolution before it, in place."""
    for parent in list(network.modules()):
        if not isinstance(parent, nn.Sequential):
            continue
        for i in range(len(parent) - 1):
            conv, norm = parent[i], parent[i + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                fold_pair(conv, norm)
                parent[i + 1] = FoldedNorm(norm.num_features)
    left = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    if left:
        raise InputError(f"batch norm {left[0]} follows no convolution to fold into: choose norm='frozen'")
    return network


def convert_norms(network: nn.Module, norm: str, num_domains: int) -> nn.Module:
    """Give a network built with plain batch norms the treatment `norm`, in place; load weights after."""
    if norm not in NORMS:
        raise InputError(f"norm {norm!r} is unknown: choose one of {', '.join(NORMS)}")
    if norm == "shared":
        return network
    for path, parent in list(network.named_modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.BatchNorm2d):
                continue
            # timm's batch norm that holds the activation behind it, and what may be dropped before.
            held = dict(child.named_children())
            activated = {"drop", "act"} <= held.keys()
            if type(child) is not nn.BatchNorm2d and not (activated and norm == "private"):
                others = "norm='private' or 'shared'" if activated else "norm='shared'"
                raise InputError(f"norm {norm!r} knows no {type(child).__name__} ({path}.{name}): choose {others}")
            new: nn.Module
            if norm == "private":
                new = PrivateBatchNorm(child.num_features, num_domains, eps=child.eps)
                if activated:
                    new.after = nn.Sequential(held["drop"], held["act"])
            else:
                new = FrozenBatchNorm(child.num_features, eps=child.eps)
            new.load_state_dict(child.state_dict())
            setattr(parent, name, new)
    if norm == "private":
        _take_activations(network)
    return fold_norms(network) if norm == "folded" else network


def _take_activations(network: nn.Module) -> None:
    """Hand every activation that follows a private norm in a sequence to the norm; what follows keeps its name."""
    for parent in network.modules():
        if isinstance(parent, nn.Sequential):
            for i in range(len(parent) - 1):
                normed, activation = parent[i], parent[i + 1]
                if isinstance(normed, PrivateBatchNorm) and normed.after is None and isinstance(activation, nn.ReLU | nn.ReLU6):
                    normed.after, parent[i + 1] = activation, nn.Identity()


def set_domain(network: nn.Module, domain: int) -> None:
    """Let every private norm of `network` use the statistics of `domain`."""
    for module in network.modules():
        if isinstance(module, PrivateBatchNorm):
            module.domain = domain


def synchronise_norms(network: nn.Module, share: Callable[[Tensor], Tensor]) -> None:
    """Let every private norm of `network` take its statistics from all workers (`PrivateBatchNorm.share`)."""
    for module in network.modules():
        if isinstance(module, PrivateBatchNorm):
            module.share = share


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Gives every buffer its value back afterwards, so that a batch may pass twice and be counted once."""
    saved = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)
        for module in network.modules():
            if isinstance(module, PrivateBatchNorm):
                module._counts = None


def is_plain_state(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict still holds batch norms, that is, was not saved from a folded network."""
    return any(key.endswith("running_mean") for key in state)
