"""Rasterisation and simplification of sketches: the thin face of the C++ code in `csrc/`."""

from __future__ import annotations

import math
import os

import numpy as np
from numpy.typing import NDArray

from sketchynet import _core
from sketchynet.errors import InputError
from sketchynet.sketch import DEFAULT_WIDTH, SketchBatch

MIN_SIZE, MAX_SIZE = 8, 2048


def rasterize(
    batch: SketchBatch,
    size: int,
    *,
    line_width: float | None = None,
    threads: int | None = None,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Draws every sketch on a square canvas: ink coverage of the union of its round-capped, round-joined strokes.

    A pixel's value is the share of its square that is inked, counted on 16 lines of 64 samples and rounded to
    0..255. Ink that overlaps itself counts once; an eraser stroke takes away the ink of the strokes before it. What
    lies outside the unit frame is clipped. The result is the same for every number of threads, and without erasers
    for every order of strokes and points.

    Args:
        batch: B sketches in the unit frame, y down; pixel (row, column) covers [column, column + 1) / size in x.
        size: width and height of the canvases in pixels, 8 to 2048.
        line_width: pixels of this canvas, for all strokes. Without it a stroke has `size` times its own width
            (`batch.widths`), or size / 128 where the batch names none, and at least 1 pixel.
        threads: at most so many; without it as many as this process may use cores.
        out: uint8 (B, size, size), C-contiguous and writable, to be overwritten and returned.

    Returns:
        uint8 (B, size, size), 255 = fully inked.

    Raises:
        InputError: a size, line width or number of threads out of range; an `out` of another type, shape or layout.
    """
    if not isinstance(size, int | np.integer) or not MIN_SIZE <= size <= MAX_SIZE:
        raise InputError(f"size is {size!r}; it must be an integer from {MIN_SIZE} to {MAX_SIZE}")
    if line_width is not None and not (math.isfinite(line_width) and line_width > 0):
        raise InputError(f"line_width is {line_width}; it must be positive and finite (pixels), or None")
    if threads is None:
        threads = available_cores()
    elif threads < 1:
        raise InputError(f"threads is {threads}; it must be at least 1, or None for all cores")

    shape = (len(batch), int(size), int(size))
    if out is None:
        out = np.empty(shape, np.uint8)
    elif not isinstance(out, np.ndarray) or out.dtype != np.uint8 or out.shape != shape:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InputError(f"out is {found}; it must be uint8 {shape}")
    elif not (out.flags.c_contiguous and out.flags.writeable):
        raise InputError("out must be C-contiguous and writable; pass a fresh np.empty, or none")

    _core.rasterize(
        batch.points,
        batch.stroke_offsets,
        batch.sketch_offsets,
        _line_widths(batch, int(size), line_width),
        batch.erasers,
        int(size),
        int(threads),
        out,
    )
    return out


def simplify(batch: SketchBatch, tolerance: float) -> SketchBatch:
    """Simplifies every stroke by the method of Douglas and Peucker.

    Args:
        batch: B sketches.
        tolerance: largest distance of a dropped point from the segment that replaces it, in unit-frame units;
            finite and not negative. 0 drops only points that lie on such a segment.

    Returns:
        The same sketches and strokes, ids and attributes, with a part of the points: the ends of strokes stay.

    Raises:
        InputError: a tolerance that is negative or not finite.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"tolerance is {tolerance}; it must be finite and not negative (unit-frame units)")
    kept, stroke_offsets = _core.simplify(batch.points, batch.stroke_offsets, tolerance)
    return SketchBatch(
        batch.points[kept], stroke_offsets, batch.sketch_offsets, batch.ids, batch.widths, batch.erasers
    )


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _line_widths(batch: SketchBatch, size: int, line_width: float | None) -> NDArray[np.float64]:
    """float64 (S,): the width of every stroke in pixels."""
    if line_width is not None:
        return np.full(batch.num_strokes, float(line_width))
    if batch.widths is None:
        return np.full(batch.num_strokes, max(1.0, size * DEFAULT_WIDTH))
    return np.maximum(1.0, size * batch.widths.astype(np.float64))
