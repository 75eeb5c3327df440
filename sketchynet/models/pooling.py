"""Pooling: features (B, C, H, W) to (B, C), or (B, 5 C) where the layout is kept."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sketchynet.errors import InputError

POOLINGS = ("avg", "max", "gem", "layout")


class AveragePool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class MaxPool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=(2, 3))


class GeneralisedMean(nn.Module):
    """Generalised mean (GeM) with a trained exponent p: average at p = 1, towards the maximum as p grows."""

    def __init__(self, exponent: float = 3.0, floor: float = 1e-6) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(exponent))
        self.floor = floor  # keeps the power and its gradient finite where a feature is zero

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=self.floor).pow(self.exponent).mean(dim=(2, 3)).pow(1.0 / self.exponent)


def fields(x: Tensor, side: int) -> Tensor:
    """What is where: the averages of side x side fields at unit length, (B, side² C)."""
    return F.normalize(F.adaptive_avg_pool2d(x, side).flatten(1), dim=1)


class LayoutPool(nn.Module):
    """What is there and where: the generalised mean beside the averages of the four quarters, (B, 5 C).

    Both parts have unit length, so that each counts half in a distance.
    """

    def __init__(self) -> None:
        super().__init__()
        self.whole = GeneralisedMean()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.normalize(self.whole(x), dim=1), fields(x, 2)], dim=1)


def build_pooling(name: str) -> nn.Module:
    if name == "avg":
        return AveragePool()
    if name == "max":
        return MaxPool()
    if name == "gem":
        return GeneralisedMean()
    if name == "layout":
        return LayoutPool()
    raise InputError(f"pooling {name!r} is unknown: choose one of {', '.join(POOLINGS)}")
