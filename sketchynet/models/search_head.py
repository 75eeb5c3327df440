"""The last step of an embedding that is searched: whitening layers, and how much a photo lies near everything.

Both are computed from training pairs in closed form, after the training. A query pays for the whitening alone.

Shapes: B batch, C size of what a network gives, in parts, D of the whitened embedding, N training sketches, P photo sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sketchynet.errors import InputError


class SearchHead(nn.Module):
    """Turns embeddings (B, C) into those that are compared by Euclidean distance, (B, D + 1).

    Each part of the embedding is whitened (Mikolajczyk & Matas, ICCV 2007: directions in which a sketch and its photo
    differ count less) and scaled to the same length; together, at unit length, they are the first D numbers. The last is 0
    for a sketch and √(1 + r) for a photo, where r is the mean cosine of its nearest training sketches, so that

        d² = 2 − 2 cos(sketch, photo) + 1 + r(photo)

    and a photo that lies near every sketch is not everyone's answer (cross-domain similarity local scaling: Conneau et
    al., ICLR 2018). Without neighbours r is −1, and the last number 0 on both sides.

    Args:
        channels: sizes of the parts, C together.
        dimensions: what is kept of each part, at most its size; D together.
        photo_sizes: sides of photos in pixels that have a bank of training sketches each.
        sketches: N, rows of each bank.
        neighbours: training sketches whose cosine is averaged, at most N; 0 for none.
    """

    bank: Tensor
    """float32 (P, N, D): whitened training sketches, as they are searched among photos of each size."""

    def __init__(
        self,
        channels: Sequence[int],
        *,
        dimensions: Sequence[int],
        photo_sizes: Sequence[int],
        sketches: int,
        neighbours: int,
    ) -> None:
        super().__init__()
        for kept, size in zip(dimensions, channels, strict=True):
            if not 0 < kept <= size:
                raise InputError(f"dimensions {kept} must lie in 1..{size}, the size of that part of the embedding")
        if not 0 <= neighbours <= sketches:
            raise InputError(f"neighbours {neighbours} must lie in 0..{sketches}, the training sketches in the bank")
        self.config: dict[str, Any] = {
            "dimensions": list(dimensions),
            "photo_sizes": list(photo_sizes),
            "sketches": sketches,
            "neighbours": neighbours,
        }
        self.photo_sizes, self.neighbours = tuple(photo_sizes), neighbours
        self.channels, self.dim = tuple(channels), sum(dimensions) + 1
        layers = [nn.Linear(size, kept) for size, kept in zip(channels, dimensions, strict=True)]
        self.whitening = nn.ModuleList(layers).requires_grad_(False)
        self.register_buffer("bank", torch.zeros(len(self.photo_sizes), sketches if neighbours else 0, sum(dimensions)))

    def forward(self, embedding: Tensor) -> Tensor:
        """The whitened embedding at unit length, (B, D)."""
        parts = embedding.split(self.channels, dim=1)
        whitened = [F.normalize(layer(part), dim=1) for layer, part in zip(self.whitening, parts, strict=True)]
        return torch.cat(whitened, dim=1) / math.sqrt(len(whitened))

    def of_sketches(self, whitened: Tensor) -> Tensor:
        """Sketches as they are compared, (B, D + 1)."""
        return F.pad(whitened, (0, 1))

    def of_photos(self, whitened: Tensor, size: int) -> Tensor:
        """Photos of a side in pixels as they are compared, (B, D + 1).

        Raises:
            InputError: there is no bank for that size.
        """
        if not self.neighbours:
            return F.pad(whitened, (0, 1))
        if size not in self.photo_sizes:
            known = ", ".join(map(str, self.photo_sizes))
            raise InputError(
                f"photos of {size} pixels: the search head knows how near training sketches come to photos of {known} "
                "pixels; embed photos at one of these sizes"
            )
        cosines = whitened @ self.bank[self.photo_sizes.index(size)].T
        near = cosines.topk(self.neighbours, dim=1).values.mean(dim=1, keepdim=True)
        return torch.cat([whitened, (1.0 + near).clamp(min=0.0).sqrt()], dim=1)
