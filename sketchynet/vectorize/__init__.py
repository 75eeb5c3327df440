"""Raster line drawing → strokes, so that a scanned or PNG sketch works wherever a vector sketch does.

Ink is separated from paper, thinned to a skeleton (scikit-image), the skeleton read as a graph and traced
*through* its junctions into long smooth strokes: at a junction, branches that continue each other's direction
are one pen movement.

The drawing order is a convention, not an observation: an image does not tell in which order its lines were
drawn.  Strokes come longest first, so that every prefix is the coarse shape and details and dots follow, as
people tend to draw; an open stroke starts at its end nearer to the top left (smaller x + y), a closed one at
its top and runs clockwise.  A selector that reads strokes in their order (SketchyNetV2) sees this convention
and nothing of how the person drew.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage
from skimage.morphology import thin

from sketchynet.errors import InputError
from sketchynet.sketch import Sketch
from sketchynet.vectorize.graph import contract, prune_spurs, skeleton_graph
from sketchynet.vectorize.ink import ImageLike, Ink, describe, find_ink, line_width, read_grey
from sketchynet.vectorize.strokes import drawing_order, pair_branches, smooth, trace

__all__ = ["vectorize", "vectorize_pixels"]

MAX_TURN = math.radians(50.0)
"""Largest turn at a junction, in radians, that counts as one pen movement going on."""

SMOOTHING_LIMIT = 0.7
"""Pixels that smoothing may move a point."""

MAX_SIDE = 1024
"""Larger images (scans, photographs of paper) are reduced by a whole factor to at most this side."""


def vectorize(
    image: ImageLike, *, id: str = "", fit: bool = True, spacing: float = 2.0, smoothing: float = 2.0
) -> Sketch:
    """Strokes of a raster line drawing as a Sketch; see the module's text for their order.

    image: path, or uint8 (H, W), (H, W, 1..4); dark lines on light or transparent ground.
    id: name of the drawing, for the sketch and for error messages (a path names itself).
    fit: True fits the strokes to the unit frame like every other source (sketch.fit_to_frame); False keeps
        the image's frame, its longer side spanning [0, 1], so that rasterize() at that size redraws it.
    spacing, smoothing: see vectorize_pixels.

    Raises InputError for a blank or mostly dark image, an unreadable file, or a wrong dtype or shape.
    """
    grey = read_grey(image, id=id)
    strokes = _strokes(grey, place=describe(image, id), spacing=spacing, smoothing=smoothing)
    scale = 1.0 / max(grey.shape)
    return Sketch.from_strokes([(stroke * scale).astype(np.float32) for stroke in strokes], id=id, fit=fit)


def vectorize_pixels(
    image: ImageLike, *, id: str = "", spacing: float = 2.0, smoothing: float = 2.0
) -> list[np.ndarray]:
    """Strokes of a raster line drawing, each float64 (N, 2) in pixel coordinates (x, y), y down.

    The centre of the pixel in row r, column c lies at (c + 0.5, r + 0.5).  Dots are strokes of one point; a
    closed stroke repeats its first point at the end.  spacing: distance of the points along a stroke;
    smoothing: sigma of the Gaussian that removes the pixel stairs, which moves no point by more than 0.7;
    both in pixels.  Errors as in vectorize.
    """
    return _strokes(read_grey(image, id=id), place=describe(image, id), spacing=spacing, smoothing=smoothing)


def _strokes(grey: np.ndarray, *, place: str, spacing: float, smoothing: float) -> list[np.ndarray]:
    if not spacing > 0 or not smoothing > 0:
        raise InputError(f"spacing is {spacing}, smoothing is {smoothing}, expected lengths above 0 pixels")
    reduction = -(-max(grey.shape) // MAX_SIDE)
    ink = find_ink(_reduce(grey, reduction), place=place)
    # Guo and Hall's thinning: Zhang and Suen's (skeletonize) deletes diagonal lines two pixels wide.
    skeleton = thin(ink.mask)
    width = line_width(ink, skeleton)
    dots, compact = _dots(ink, width)
    skeleton &= ~compact
    strokes = [dot[None] for dot in dots]
    if skeleton.any():
        graph = skeleton_graph(skeleton, ink.distance, ink.darkness)
        strokes += [dot[None] for dot in graph.dots]
        prune_spurs(graph, slack=1.0)
        contract(graph, reach=1.0 + width)
        pairing = pair_branches(graph, lookahead=max(5.0, 2.5 * width), max_turn=MAX_TURN)
        strokes += [
            smooth(points, closed=closed, sigma=smoothing, limit=SMOOTHING_LIMIT, spacing=spacing)
            for points, closed in trace(graph, pairing)
        ]
    return drawing_order([stroke * reduction for stroke in strokes])


def _reduce(grey: np.ndarray, factor: int) -> np.ndarray:
    """Mean over blocks of factor × factor pixels; the image's last row and column fill incomplete blocks."""
    if factor == 1:
        return grey
    height, width = grey.shape
    padded = np.pad(grey, ((0, -height % factor), (0, -width % factor)), mode="edge")
    return padded.reshape(padded.shape[0] // factor, factor, -1, factor).mean(axis=(1, 3))


def _dots(ink: Ink, width: float) -> tuple[list[np.ndarray], np.ndarray]:
    """Blobs hardly larger than the pen: their centres, each float64 (2,), and their pixels, bool (H, W)."""
    labels, _ = ndimage.label(ink.mask, structure=np.ones((3, 3)))
    compact = np.zeros_like(ink.mask)
    dots = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if max(s.stop - s.start for s in box) <= 1.5 * width + 1.0:
            pixels = labels[box] == number
            compact[box] |= pixels
            rows, columns = np.nonzero(pixels)
            dots.append(np.array([columns.mean() + box[1].start + 0.5, rows.mean() + box[0].start + 0.5]))
    return dots, compact
