"""A light network for sketches beside the full network for photos, in the full network's space.

At query time a sketch is embedded and nothing else: photos were embedded when they were stored. So the photos may be
the full network's work, whatever it costs, and the light network spends all that it has on sketches (asymmetric
retrieval: Budnik & Avrithis, CVPR 2021).

Shapes: B batch, S canvas side, H and W photo height and width, Dt size of the full network's embedding, D of the one in use.
"""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from sketchynet.errors import InputError
from sketchynet.models.embedder import Embedder, Ensemble, embedder_from_config


class AsymmetricEmbedder(Embedder):
    """An `Embedder` of sketches whose photos are embedded by another network, which never changes.

    Both sides have unit length. Parameters and FLOPs count the sketches' side alone, which is what a query costs.

    Args:
        backbone: of the sketches' side, as the other `options` are.
        photos: the network that embeds photos, or its `config`.
        dim: size D of the embedding. Smaller than that of `photos`, its embeddings are multiplied by `reduction`.
    """

    reduction: Tensor | None
    """float32 (Dt, D), directions in the space of `photos`; None where D = Dt."""

    def __init__(
        self, backbone: str, *, photos: Embedder | Ensemble | dict[str, Any], dim: int, **options: Any
    ) -> None:
        stored = embedder_from_config(photos) if isinstance(photos, dict) else photos
        if not 0 < dim <= stored.dim:
            raise InputError(f"dim {dim} must lie in 1..{stored.dim}, the size of the photos' embedding")
        super().__init__(backbone, **options | {"normalize": True, "projection": dim})
        for name in ("normalize", "projection"):
            del self.config[name]
        self.config |= {"kind": "asymmetric", "photos": stored.config, "dim": dim}
        self.photos = stored.requires_grad_(False).eval()
        self.register_buffer("reduction", None if dim == stored.dim else torch.eye(stored.dim, dim))

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of the sketches' side; the photos' side is always evaluating."""
        super().train(mode)
        self.photos.eval()
        return self

    def embed_photos(self, photos: Tensor) -> Tensor:
        """Embed RGB photos, uint8 (B, H, W, 3), to (B, D), without gradient."""
        with torch.no_grad():
            return reduced(self.photos.embed_photos(photos), self.reduction)


def reduced(embedding: Tensor, reduction: Tensor | None) -> Tensor:
    """Embeddings of the full network, (B, Dt), as sketches are compared with them: (B, D), of unit length."""
    return F.normalize(embedding if reduction is None else embedding @ reduction, dim=1)
