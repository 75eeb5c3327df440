"""Reading a line drawing and deciding which of its pixels are ink."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold, threshold_otsu

from sketchynet.errors import InputError

ImageLike = np.ndarray | str | os.PathLike[str]

MIN_CONTRAST = 0.08
"""Darkness, relative to the paper, below which nothing counts as ink."""

GROUND_BLOCKS = 8
"""The paper's brightness is estimated on a grid of this many blocks a side."""


@dataclass(frozen=True, eq=False)
class Ink:
    """The ink of one drawing.

    darkness: float32 (H, W), 0 = paper, 1 = black.  mask: bool (H, W), at least one pixel set.
    distance: float32 (H, W), distance of an ink pixel to the nearest paper pixel centre, 0 on paper.
    """

    darkness: np.ndarray
    mask: np.ndarray
    distance: np.ndarray


def describe(image: ImageLike, id: str) -> str:
    """Name a drawing for an error message: its id where there is one, otherwise its file."""
    if id:
        return f"drawing {id!r}"
    return "drawing (array)" if isinstance(image, np.ndarray) else f"drawing {os.fspath(image)}"


def read_grey(image: ImageLike, *, id: str = "") -> np.ndarray:
    """Brightness of a drawing on white paper, float32 (H, W) in [0, 1].

    image: a path, or uint8 (H, W), (H, W, 1), (H, W, 2) grey + alpha, (H, W, 3) or (H, W, 4).
    Transparent pixels show the white paper beneath.  Raises InputError for an unreadable file (naming it)
    and for an array of another dtype or shape.
    """
    if not isinstance(image, np.ndarray):
        image = _read_file(Path(image))
    if image.dtype != np.uint8:
        raise InputError(f"{describe(image, id)}: pixels are {image.dtype}, expected uint8 in 0..255")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4) or 0 in image.shape:
        raise InputError(
            f"{describe(image, id)}: shape {image.shape}, expected a non-empty (H, W) or (H, W, 1 to 4)"
        )
    values = image.astype(np.float32) / 255.0
    channels = values.shape[2]
    if channels >= 3:
        grey = values[:, :, :3] @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    else:
        grey = values[:, :, 0]
    if channels in (2, 4):
        alpha = values[:, :, -1]
        grey = grey * alpha + (1.0 - alpha)
    return grey


def _read_file(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"drawing {path}: no such file")
    try:
        with Image.open(path) as picture:
            if picture.mode.startswith("I;16"):  # Pillow would clip these instead of scaling them
                return (np.asarray(picture) >> 8).astype(np.uint8)
            return np.asarray(picture.convert("RGBA"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow reports a broken PNG chunk as SyntaxError and a truncated file as OSError.
        raise InputError(
            f"drawing {path}: no readable image ({error}); replace or remove the file"
        ) from error


def find_ink(grey: np.ndarray, *, place: str) -> Ink:
    """Separate ink from paper; grey is float32 (H, W) in [0, 1], place names the drawing in errors.

    Darkness is taken relative to the local paper brightness (a scan need not be lit evenly), and the
    threshold is Otsu's with hysteresis: faint parts of a line stay if they hang on a clear one.
    Raises InputError where nothing is drawn, or where most of the image is dark.
    """
    darkness = np.clip(1.0 - grey / _ground(grey), 0.0, 1.0).astype(np.float32)
    marked = darkness[darkness > MIN_CONTRAST]
    if marked.size == 0:
        raise InputError(f"{place}: no ink found (the image is blank); remove it from the set")
    level = float(np.quantile(marked, 0.95))
    paper = darkness[darkness <= MIN_CONTRAST]
    floor = max(MIN_CONTRAST, 6.0 * float(np.median(paper)) if paper.size else 0.0)
    high = max(floor, min(_otsu(darkness), 0.5 * level))
    low = max(floor, 0.7 * high)
    mask = apply_hysteresis_threshold(darkness, low, high)
    coverage = float(mask.mean())
    if coverage == 0.0:
        raise InputError(f"{place}: no ink found above the noise of the paper; remove it from the set")
    if coverage > 0.5:
        raise InputError(
            f"{place}: {coverage:.0%} of the image is dark, expected dark lines on light or transparent "
            "ground; invert the image"
        )
    # The frame is padded so that ink at the image border also has paper beside it.
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1].astype(np.float32)
    return Ink(darkness, mask, distance)


def _ground(grey: np.ndarray) -> np.ndarray:
    """Brightness of the paper, (H, W): a smooth surface through the bright end of each block."""
    overall = max(float(np.quantile(grey, 0.9)), 1.0 / 255.0)
    if float(grey.min()) == float(grey.max()):
        return np.full_like(grey, max(overall, 0.5))
    height, width = grey.shape
    rows = np.array_split(np.arange(height), min(GROUND_BLOCKS, height))
    columns = np.array_split(np.arange(width), min(GROUND_BLOCKS, width))
    blocks = [[grey[r[0] : r[-1] + 1, c[0] : c[-1] + 1] for c in columns] for r in rows]
    grid = np.array([[np.quantile(block, 0.9) for block in row] for row in blocks])
    # A block that is filled with ink is no paper: light falls off by less than that.
    grid = np.clip(grid, 0.6 * overall, None).astype(np.float32)
    y = np.interp(np.arange(height), [r.mean() for r in rows], np.arange(len(rows)))
    x = np.interp(np.arange(width), [c.mean() for c in columns], np.arange(len(columns)))
    return ndimage.map_coordinates(grid, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest")


def _otsu(darkness: np.ndarray) -> float:
    return float(threshold_otsu(darkness)) if darkness.min() < darkness.max() else 0.5


def line_width(ink: Ink, skeleton: np.ndarray) -> float:
    """Typical width of the lines in pixels, from the distance transform on the skeleton, bool (H, W)."""
    reach = ink.distance[skeleton]
    # Blobs and crossings are no lines: what lies above twice the median does not widen the estimate.  The
    # distance to the next paper *centre* exceeds half the width by a quarter pixel on average.
    return max(1.0, 2.0 * float(np.minimum(reach, 2.0 * np.median(reach)).mean()) - 0.5)
