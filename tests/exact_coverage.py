"""Reference for the rasteriser: coverage of a union of capsules, converged, independent of the C++ code.

A square is inside the ink where its centre lies deeper than half its diagonal, outside where it lies farther away,
and is cut into four otherwise. Squares left at the last depth (1/64 of a pixel) count by the distance of their
centre from the outline, as if it were straight and parallel to a side: the error left is below 0.5 of 255 in every
pixel, and below 0.005 on average.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sketchynet import Sketch

Floats = NDArray[np.float64]

DEPTH = 6


def segments(sketch: Sketch, size: int) -> Floats:
    """(M, 4): x0, y0, x1, y1 of every segment in pixels; a dot is a segment of length zero."""
    rows = []
    for stroke in sketch.strokes():
        points = stroke.astype(np.float64) * size
        starts, ends = (points, points) if len(points) == 1 else (points[:-1], points[1:])
        rows.append(np.hstack([starts, ends]))
    return np.concatenate(rows)


def distance(points: Floats, pieces: Floats) -> Floats:
    """(N,): distance from each point (N, 2) to the nearest segment (M, 4)."""
    x, y = points[:, 0].copy(), points[:, 1].copy()
    nearest = np.full(len(points), np.inf)
    for x0, y0, x1, y1 in pieces:
        dx, dy = x1 - x0, y1 - y0
        length = dx * dx + dy * dy
        t = np.clip(((x - x0) * dx + (y - y0) * dy) / length, 0, 1) if length > 0 else 0.0
        np.minimum(nearest, (x - x0 - t * dx) ** 2 + (y - y0 - t * dy) ** 2, out=nearest)
    return np.sqrt(nearest)


def exact_coverage(sketch: Sketch, size: int, line_width: float) -> Floats:
    """float64 (size, size) in [0, 255]: the share of each pixel within line_width / 2 of the strokes."""
    pieces = segments(sketch, size)
    pixels = np.arange(size * size)
    centres = np.stack([pixels % size + 0.5, pixels // size + 0.5], axis=1)
    coverage = np.zeros(size * size)
    side = 1.0
    for depth in range(DEPTH + 1):
        depths = line_width / 2 - distance(centres, pieces)  # positive inside
        half_diagonal = side * np.sqrt(0.5)
        if depth == DEPTH:
            np.add.at(coverage, pixels, side**2 * np.clip(0.5 + depths / side, 0, 1))
            break
        inside = depths >= half_diagonal
        np.add.at(coverage, pixels[inside], side**2)
        cut = np.abs(depths) < half_diagonal
        quarters = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]) * (side / 4)
        centres = (centres[cut][:, None] + quarters).reshape(-1, 2)
        pixels = np.repeat(pixels[cut], 4)
        side /= 2
    return 255 * coverage.reshape(size, size)
