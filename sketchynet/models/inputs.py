"""The one way from pixels to network input, shared by training, evaluation and export.

Shapes: B batch, S canvas side, H and W photo height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sketchynet.errors import InputError

# Channel statistics of ImageNet, on which the published backbones were trained.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def _normalise(image: Tensor) -> Tensor:
    mean = image.new_tensor(IMAGE_MEAN).view(1, 3, 1, 1)
    std = image.new_tensor(IMAGE_STD).view(1, 3, 1, 1)
    return (image - mean) / std


def _check_canvas(canvas: Tensor) -> None:
    if canvas.ndim != 3 or canvas.dtype != torch.uint8:
        raise InputError(
            f"a sketch canvas is a uint8 tensor (B, S, S); got {canvas.dtype} {tuple(canvas.shape)}: "
            "pass the output of sketchynet.rasterize as it is"
        )


def sketch_input(canvas: Tensor) -> Tensor:
    """Turn ink coverage, uint8 (B, S, S) with 255 = ink, into normalised float32 (B, 3, S, S).

    Ink becomes black on white paper, as in the photos' colour space.
    """
    return _normalise(grey_input(canvas).expand(-1, 3, -1, -1))


def grey_input(canvas: Tensor) -> Tensor:
    """Turn ink coverage, uint8 (B, S, S) with 255 = ink, into grey float32 (B, 1, S, S): 0 ink, 1 paper."""
    _check_canvas(canvas)
    return 1.0 - canvas.to(torch.float32).unsqueeze(1) / 255.0


def photo_input(photos: Tensor) -> Tensor:
    """Turn RGB photos, uint8 (B, H, W, 3), into normalised float32 (B, 3, H, W)."""
    if photos.ndim != 4 or photos.shape[-1] != 3 or photos.dtype != torch.uint8:
        raise InputError(
            f"photos are a uint8 tensor (B, H, W, 3); got {photos.dtype} {tuple(photos.shape)}: "
            "put the colour channels last and leave the values at 0..255"
        )
    return _normalise(photos.permute(0, 3, 1, 2).to(torch.float32) / 255.0)
