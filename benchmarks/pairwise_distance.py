"""`pairwise_distance`, forward and backward, against torch.cdist, the Gram matrix in eager torch, and it compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from measuring import Clock, Work, arithmetic
from torch import Tensor

from sketchynet.ops import pairwise_distance

NAME = "pairwise_distance"


def gram(x: Tensor, y: Tensor) -> Tensor:
    """What one writes by hand: right to rounding far from zero, wrong near it."""
    size = x.float().square().sum(dim=1)[:, None] + y.float().square().sum(dim=1)[None, :]
    return (size - 2.0 * (x @ y.T).float()).clamp(min=1e-12).sqrt()


def cdist(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x.float(), y.float())


def both_ways(operator: Any, x: Tensor, y: Tensor, upstream: Tensor) -> Work:
    def work() -> None:
        operator(x, y).backward(upstream)
        x.grad = y.grad = None

    return work


def cases(clock: Clock, *, small: bool) -> Iterator[tuple[dict[str, Any], dict[str, Work]]]:
    cuda = clock.device.type == "cuda"
    rows, dim = (96, 64) if small else (4096, 512) if cuda else (2048, 512)
    for name in ("tf32", "fp32", "bf16") if cuda else ("fp32",):
        with arithmetic(name) as dtype:
            x, y = (torch.randn(rows, dim, device=clock.device).to(dtype).requires_grad_() for _ in range(2))
            upstream = torch.randn(rows, rows, device=clock.device)
            operators = {"sketchynet": pairwise_distance, "torch.cdist": cdist, "eager": gram}
            if cuda:
                operators["torch.compile"] = torch.compile(gram)
            works = {key: both_ways(operator, x, y, upstream) for key, operator in operators.items()}
            # A product forward and two backward.
            figures = {"B": rows, "G": rows, "D": dim, "arithmetic": name, "flops": 6.0 * rows * rows * dim}
            # The distances are written and read, their gradient read twice, weights written and read twice.
            yield figures | {"bytes": 4.0 * rows * rows * 7}, works


CHECKED = {"fp32": 1e-4, "tf32": 2e-2, "bf16": 2e-2, "fp16": 5e-3}
"""Arithmetics, and the greatest error of each."""


def check(device: torch.device, backend: str, name: str, *, small: bool) -> None:
    """Against float64, near-equal rows and gradients included; raises AssertionError."""
    rows, dim = (40, 40) if small else (400, 200) if device.type == "cuda" else (300, 120)
    generator = torch.Generator().manual_seed(0)
    tolerance = CHECKED[name]
    with arithmetic(name) as dtype:
        x, y = (torch.randn(rows, dim, generator=generator) for _ in range(2))
        y[: rows // 4] = x[: rows // 4] + 1e-3 * torch.randn(rows // 4, dim, generator=generator)
        y[5] = x[9]
        x, y = (t.to(device, dtype).requires_grad_() for t in (x, y))
        upstream = torch.randn(rows, rows, generator=generator).to(device)
        found = pairwise_distance(x, y, backend=backend)
        found.backward(upstream)
        a, b = (t.detach().double().requires_grad_() for t in (x, y))
        squared = (a[:, None] - b[None]).square().sum(dim=2)
        apart = squared > 0
        exact = torch.where(apart, squared.masked_fill(~apart, 1.0).sqrt(), 0.0)
        exact.backward(upstream.double())
        error = ((found.double() - exact).abs() / exact.clamp(min=1e-30)).max().detach()
        assert error <= tolerance, f"{NAME} {name}: distances are off by {float(error):.2e} of their size"
        between = float(found[9, 5].detach())
        assert between == 0, f"{NAME} {name}: equal rows are {between} apart"
        for ours, theirs in ((x, a), (y, b)):
            error = (ours.grad.double() - theirs.grad).norm() / theirs.grad.norm()
            assert error <= tolerance, f"{NAME} {name}: gradients are off by {float(error):.2e} of their norm"
