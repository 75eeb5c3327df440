"""`relational_huber`, forward and backward, against the same loss in eager torch, compiled, and through torch.cdist.

The rivals compute distances from a Gram matrix in the same arithmetic, which is the fastest way that torch offers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from measuring import Clock, Work, arithmetic
from pairwise_distance import cdist, gram
from torch import Tensor

from sketchynet.ops import relational_huber, relational_huber_eager

NAME = "relational_huber"


def by_hand(distance: Any, ts: Tensor, tp: Tensor, ss: Tensor, sp: Tensor) -> Tensor:
    """All pairs of different photos, with a mask; sp from the diagonal."""
    count = len(sp)
    mask = 1.0 - torch.eye(count, device=sp.device)
    with torch.no_grad():
        teacher_cross, teacher_among = distance(ts, tp), distance(tp, tp)
    cross, among = distance(ss, sp), distance(sp, sp)
    negatives = count * (count - 1)
    loss = F.huber_loss(cross.diagonal(), teacher_cross.diagonal())
    for ours, theirs in ((cross, teacher_cross), (among, teacher_among)):
        loss = loss + (F.huber_loss(ours, theirs, reduction="none") * mask).sum() / negatives
    return loss


def both_ways(operator: Any, ts: Tensor, tp: Tensor, ss: Tensor, sp: Tensor) -> Work:
    def work() -> None:
        operator(ts, tp, ss, sp).backward()
        ss.grad = sp.grad = None

    return work


def cases(clock: Clock, *, small: bool) -> Iterator[tuple[dict[str, Any], dict[str, Work]]]:
    cuda = clock.device.type == "cuda"
    rows, dt, ds = (64, 16, 24) if small else (4096, 512, 1280) if cuda else (1024, 512, 1280)
    for name in ("bf16", "tf32") if cuda else ("fp32",):
        with arithmetic(name) as dtype:
            ts, tp = (torch.randn(rows, dt, device=clock.device).to(dtype) for _ in range(2))
            ss, sp = (torch.randn(rows, ds, device=clock.device).to(dtype).requires_grad_() for _ in range(2))
            operators = {
                "sketchynet": relational_huber,
                "eager": lambda *e: by_hand(gram, *e),
                "torch.cdist": lambda *e: by_hand(cdist, *e),
            }
            if cuda:
                operators["torch.compile"] = torch.compile(lambda *e: by_hand(gram, *e))
            works = {key: both_ways(operator, ts, tp, ss, sp) for key, operator in operators.items()}
            pairs = float(rows * rows)
            # Products that the loss needs: sn and, by symmetry, half of pn forward; two for sn and one for pn back.
            flops = 2.0 * pairs * (1.5 * (dt + ds) + 3 * ds)
            yield {"B": rows, "Dt": dt, "Ds": ds, "arithmetic": name, "flops": flops}, works


CHECKED = {"fp32": 1e-4, "tf32": 2e-2, "bf16": 2e-2, "fp16": 5e-3}
"""Arithmetics, and the greatest error of each."""


def check(device: torch.device, backend: str, name: str, *, small: bool) -> None:
    """Against float64 with whole matrices; raises AssertionError."""
    rows, canvases = (40, 2) if small else (700, 3) if device.type == "cuda" else (200, 2)
    generator = torch.Generator().manual_seed(0)
    content = (torch.arange(rows) % (rows - 5)).to(device)
    different = content[:, None] != content[None, :]
    tolerance = CHECKED[name]
    for normalize in (False, True):
        with arithmetic(name) as dtype:
            shapes = [(rows, 40), (rows, 40), (canvases, rows, 72), (rows, 72)]
            ts, tp, ss, sp = (torch.randn(*s, generator=generator).to(device, dtype) for s in shapes)
            options: dict[str, Any] = {"weights": (1.0, 0.5, 2.0), "delta": 0.7, "normalize": normalize}
            ours = [t.clone().requires_grad_() for t in (ss, sp)]
            loss = relational_huber(ts, tp, *ours, content=content, backend=backend, **options)
            (3e4 * loss).backward()  # as a loss scale does: float16 would flush what one pair of so many does
            exact = [t.double().requires_grad_() for t in (ss, sp)]
            reference = relational_huber_eager(ts.double(), tp.double(), *exact, different, **options)
            (3e4 * reference).backward()
            error = float(((loss.double() - reference) / reference).detach().abs())
            assert error <= tolerance, f"{NAME} {name}: the loss is off by {error:.2e} of itself"
            for mine, theirs in zip(ours, exact, strict=True):
                error = float((mine.grad.double() - theirs.grad).norm() / theirs.grad.norm())
                assert error <= tolerance, f"{NAME} {name}: gradients are off by {error:.2e} of their norm"
