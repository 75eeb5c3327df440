"""The hard negative of each sketch in a batch: batch-hard and semi-hard selection, fused with the distances.

Shapes: B pairs of a sketch and its photo, K canvases, D embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sketchynet.errors import InputError
from sketchynet.ops.backend import choose_backend
from sketchynet.ops.checks import require_finite, require_same, widest
from sketchynet.ops.pairwise_distance import accumulating, distances, pairwise_distance_eager, row_distance

MINING = ("hard", "semi-hard")
CHUNK_ELEMENTS = 1 << 22
"""Distances held at once."""


def _pick(distance: Tensor, own: Tensor, negative: Tensor, mining: str) -> Tensor:
    """int64 (n,): column picked in each row of distances (n, B); -1 where a row has no negative."""
    far = distance.masked_fill(~negative, float("inf"))
    picked = far.argmin(dim=1)
    if mining == "semi-hard":
        farther = negative & (distance > own[:, None])
        beyond = distance.masked_fill(~farther, float("inf")).argmin(dim=1)
        farthest = distance.masked_fill(~negative, float("-inf")).argmax(dim=1)
        picked = torch.where(farther.any(dim=1), beyond, farthest)
    return torch.where(negative.any(dim=1), picked, -1)


def hard_negatives_eager(sketch: Tensor, photo: Tensor, content: Tensor, *, mining: str = "hard") -> Tensor:
    """Reference of `hard_negatives`, with the whole matrix of distances."""
    distance = pairwise_distance_eager(sketch.detach(), photo.detach())
    rows = distance.reshape(-1, len(photo))
    own = distance.diagonal(dim1=-2, dim2=-1).reshape(-1)
    negative = (content[:, None] != content[None, :]).repeat(len(rows) // max(1, len(photo)), 1)
    return _pick(rows, own, negative, mining).reshape(distance.shape[:-1])


@torch.library.custom_op("sketchynet::hard_negatives", mutates_args=())
def _hard_negatives(sketch: Tensor, photo: Tensor, content: Tensor, mining: str, triton: bool) -> Tensor:
    """int64 (K·B,) of sketch (K·B, D), photo (B, D), content (B,)."""
    if sketch.numel() == 0:
        return content.new_empty(len(sketch), dtype=torch.int64)
    count = len(photo)
    require_finite("hard_negatives", "photo", photo)
    require_finite("hard_negatives", "sketch", sketch)
    with torch.autocast(photo.device.type, enabled=False):
        if triton:
            from sketchynet.ops.kernels.hard_negatives import hard_negatives_triton

            return hard_negatives_triton(sketch, photo, content, mining)
        x, y = accumulating(sketch), accumulating(photo)
        parts = []
        for rows in torch.arange(len(x), device=x.device).split(max(1, CHUNK_ELEMENTS // count)):
            distance = distances(x[rows], y)
            own = distance.gather(1, (rows % count)[:, None])[:, 0]
            parts.append(_pick(distance, own, content[rows % count, None] != content[None, :], mining))
        return torch.cat(parts)


@_hard_negatives.register_fake
def _(sketch: Tensor, photo: Tensor, content: Tensor, mining: str, triton: bool) -> Tensor:
    return content.new_empty(sketch.shape[0], dtype=torch.int64)


def hard_negatives(
    sketch: Tensor, photo: Tensor, content: Tensor, *, mining: str = "hard", backend: str = "auto"
) -> Tensor:
    """Row of each sketch's negative photo: int64 (B,) or (K, B); -1 where all photos show the sketch's own.

    "hard" (batch-hard) takes the nearest negative; "semi-hard" the nearest of those farther than the sketch's own
    photo, or where none is farther the farthest negative, which the sketch is least wrong about. Ties go to the lower
    row. Distances within rounding of each other may be picked for each other. No matrix is stored; no gradient flows.

    Args:
        sketch: (B, D), or (K, B, D) for K canvases.
        photo: (B, D), row i the photo of sketch i.
        content: int64 (B,); a photo of equal content is never a negative.
        mining: "hard" or "semi-hard".
        backend: "auto", "eager" or "triton".

    Raises:
        InputError: shapes, types or devices that do not fit, a row that is not finite, with its number; a backend that
            cannot run here.
    """
    if mining not in MINING:
        raise InputError(f"mining {mining!r} is unknown: choose one of {', '.join(MINING)}")
    if sketch.ndim not in (2, 3) or photo.ndim != 2 or sketch.shape[-2:] != photo.shape or photo.shape[1] == 0:
        raise InputError(
            "hard_negatives needs sketches (B, D) or (K, B, D) and their photos (B, D); got "
            f"{tuple(sketch.shape)} and {tuple(photo.shape)}"
        )
    if content.shape != (len(photo),) or content.device != photo.device:
        raise InputError(
            f"content must number the {len(photo)} photos of the batch on {photo.device}; got "
            f"{tuple(content.shape)} on {content.device}"
        )
    sketch, photo = widest(sketch.detach(), photo.detach())
    require_same("hard_negatives", sketch=sketch, photo=photo)
    chosen = choose_backend(backend, sketch, photo) == "triton"
    rows = sketch.reshape(-1, sketch.shape[-1])
    return torch.ops.sketchynet.hard_negatives(rows, photo, content, mining, chosen).reshape(sketch.shape[:-1])


def negative_distance(sketch: Tensor, photo: Tensor, negative: Tensor) -> Tensor:
    """Distance of each sketch (..., B, D) to the photo picked for it (..., B), differentiable; any where it is -1."""
    return row_distance(sketch, photo[negative.clamp(min=0)])
