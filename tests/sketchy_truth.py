"""How well an SVG of the Sketchy database, as read here, agrees with the PNG of the same drawing.

The PNGs at hand were cropped and rescaled, differently for each drawing and for width and height: scale and shift
of both axes are fitted first, by the bounding boxes of the ink and then by the distance of the strokes to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage, optimize

from sketchynet import Sketch, SketchBatch, rasterize
from sketchynet.data.svg import SvgDrawing, read_svg_strokes


@dataclass(frozen=True)
class Agreement:
    iou: float
    """Intersection over union of the two inks, each dilated by one pixel."""
    strict_iou: float
    """The same without dilation."""
    shift: tuple[int, int]
    """Whole pixels (x, y) by which the rendering would have to move to overlap the PNG's ink most."""
    scale: tuple[float, float]
    """Fitted pixels of the PNG per unit of the SVG."""


def agreement(svg: Path, png: Path, *, erasers: bool = True) -> Agreement:
    drawing = read_svg_strokes(svg)
    ink = np.asarray(Image.open(png).convert("L")) < 128
    scale, shift = _fit(drawing, ink)
    drawn = _render(drawing, scale, shift, ink, erasers)
    again = ndimage.binary_dilation(drawn), ndimage.binary_dilation(ink)
    overlaps = {
        (x, y): int((np.roll(drawn, (y, x), (0, 1)) & ink).sum()) for x in range(-3, 4) for y in range(-3, 4)
    }
    best = max(overlaps, key=lambda at: (overlaps[at], -abs(at[0]) - abs(at[1])))
    return Agreement(_iou(*again), _iou(drawn, ink), best, (float(scale[0]), float(scale[1])))


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def _fit(drawing: SvgDrawing, ink: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points = np.concatenate([s for s, e in zip(drawing.strokes, drawing.erasers, strict=True) if not e])
    y, x = np.nonzero(ink)
    low, high = np.array([x.min(), y.min()]), np.array([x.max(), y.max()]) + 1
    extent = points.max(axis=0) - points.min(axis=0)
    # The ink is wider than the strokes by about 3 pixels.
    scale = (high - low - 3) / extent
    shift = (low + high) / 2 - scale * (points.max(axis=0) + points.min(axis=0)) / 2
    distance = np.minimum(ndimage.distance_transform_edt(~ink), 6.0)

    def cost(values: np.ndarray) -> float:
        place = (points[::4] * values[:2] + values[2:] - 0.5)[:, ::-1].T
        return float(ndimage.map_coordinates(distance, place, order=1, mode="nearest").mean())

    start = np.concatenate([scale, shift])
    simplex = start + np.vstack([np.zeros(4), np.diag([0.02 * scale[0], 0.02 * scale[1], 2.0, 2.0])])
    found = optimize.minimize(
        cost, start, method="Nelder-Mead", options={"initial_simplex": simplex, "maxiter": 200, "xatol": 1e-3}
    )
    return found.x[:2], found.x[2:]


def _render(
    drawing: SvgDrawing, scale: np.ndarray, shift: np.ndarray, ink: np.ndarray, erasers: bool
) -> np.ndarray:
    """bool, of the PNG's size: the strokes in the width that the PNG's ink has."""
    size = ink.shape[0]
    strokes = [(stroke * scale + shift) / size for stroke in drawing.strokes]
    offsets = np.cumsum([0, *map(len, strokes)])
    factor = float(np.sqrt(scale.prod()))
    drawn = []
    for width in np.arange(1.0, 4.1, 0.25):  # the one that gives as much ink as there is
        widths = np.where(drawing.erasers, np.maximum(drawing.widths * factor, 1), width) / size
        sketch = Sketch(np.concatenate(strokes), offsets, "", widths, drawing.erasers if erasers else None)
        drawn.append(rasterize(SketchBatch.from_sketches([sketch]), size)[0] >= 128)
    return min(drawn, key=lambda image: abs(int(image.sum()) - int(ink.sum())))
