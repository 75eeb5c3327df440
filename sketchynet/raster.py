"""Rasterisation and simplification of sketches: the thin face of the C++ code in `csrc/`."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketchynet import _core
from sketchynet.errors import InputError
from sketchynet.sketch import DEFAULT_WIDTH, SketchBatch

MIN_SIZE, MAX_SIZE = 8, 2048
_MOST_THREADS = 1024

INSTRUCTIONS_VARIABLE = "SKETCHYNET_SIMD"
"""Environment variable that names the instruction set to draw with, see `use_instruction_set`."""

LineWidth = float | ArrayLike | None


def rasterize(
    batch: SketchBatch,
    size: int,
    *,
    line_width: LineWidth = None,
    threads: int | None = None,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Draws every sketch on a square canvas: ink coverage of the union of its round-capped, round-joined strokes.

    A pixel's value is the share of its square that is inked, counted on 16 lines of 32 samples and rounded to
    0..255; ink added never makes a pixel lighter. Ink that overlaps itself counts once; an eraser stroke takes away the ink of the strokes before it. What
    lies outside the unit frame is clipped. The result is the same for every number of threads, batch and instruction
    set, and without erasers for every order of strokes and points.

    Args:
        batch: B sketches in the unit frame, y down; pixel (row, column) covers [column, column + 1) / size in x.
        size: width and height of the canvases in pixels, 8 to 2048.
        line_width: pixels of this canvas, for all strokes, or (S,) for each. Without it a stroke has `size` times its
            own width (`batch.widths`), or size / 128 where the batch names none, and at least 1 pixel.
        threads: at most so many; without it as many as this process may use cores.
        out: uint8 (B, size, size), C-contiguous and writable, to be overwritten and returned.

    Returns:
        uint8 (B, size, size), 255 = fully inked.

    Raises:
        InputError: a size, line width or number of threads out of range; an `out` of another type, shape or layout,
            or one that shares memory with the batch.
    """
    shape = (len(batch), _checked_size(size), int(size))
    if out is None:
        out = np.empty(shape, np.uint8)
    else:
        _check_out(out, shape, batch)
    count, size = shape[0], shape[1]
    _draw(
        batch,
        np.arange(count),
        np.full(count, size, np.int64),
        np.arange(0, count * size * size, size * size),
        line_width,
        threads,
        out.reshape(-1),
    )
    return out


def rasterize_sizes(
    batch: SketchBatch, sizes: Sequence[int], *, line_width: LineWidth = None, threads: int | None = None
) -> list[NDArray[np.uint8]]:
    """Draws every sketch at several sizes in one call.

    Args:
        batch, line_width, threads: as for `rasterize`; a `line_width` counts pixels of every canvas alike.
        sizes: K sizes, 8 to 2048 each.

    Returns:
        K arrays uint8 (B, size, size), the same as `rasterize` gives for each size.

    Raises:
        InputError: as `rasterize`.
    """
    each = np.array([_checked_size(size) for size in sizes], np.int64)
    return [
        canvases
        for _, canvases in _draw_groups(
            batch, [(int(size), np.arange(len(batch))) for size in each], line_width, threads
        )
    ]


def rasterize_grouped(
    batch: SketchBatch, sizes: ArrayLike, *, line_width: LineWidth = None, threads: int | None = None
) -> dict[int, tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Draws every sketch at its own size (a selector's choices) in one call, grouped by size.

    Args:
        batch, line_width, threads: as for `rasterize`.
        sizes: (B,) integers, the size of each sketch, 8 to 2048.

    Returns:
        For every size that occurs, ascending: the sketches drawn at it, int64 (n,) ascending, and their canvases,
        uint8 (n, size, size).

    Raises:
        InputError: as `rasterize`; not one size a sketch.
    """
    each = np.asarray(sizes)
    if each.shape != (len(batch),) or (len(batch) and each.dtype.kind not in "iu"):
        raise InputError(
            f"sizes are {each.dtype} of shape {each.shape}; there must be one integer for each of {len(batch)} sketches"
        )
    groups = [
        (_checked_size(int(size)), np.flatnonzero(each == size).astype(np.int64)) for size in np.unique(each)
    ]
    drawn = _draw_groups(batch, groups, line_width, threads)
    return {size: (rows, canvases) for (size, rows), (_, canvases) in zip(groups, drawn, strict=True)}


def instruction_sets() -> tuple[str, ...]:
    """The instruction sets that this processor can draw with, the best first.

    They are avx512 (with VPOPCNTDQ), avx512bw (without), avx2, sse2 and portable.
    """
    return tuple(_core.instruction_sets())


def use_instruction_set(name: str = "auto") -> str:
    """Draws with one of `instruction_sets()` from now on, in this process; "auto" is the best.

    All give the same pixels. The environment variable SKETCHYNET_SIMD does the same at start.

    Returns:
        The one in use before.

    Raises:
        InputError: a name that is unknown, or that this processor cannot run.
    """
    before: str = _core.instruction_set()
    if not _core.use_instruction_set(name):
        raise InputError(
            f"instruction set {name!r} cannot be used here; choose one of {', '.join(instruction_sets())} or auto"
        )
    return before


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


def _checked_size(size: object) -> int:
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or not MIN_SIZE <= size <= MAX_SIZE:
        raise InputError(f"size is {size!r}; it must be an integer from {MIN_SIZE} to {MAX_SIZE}")
    return int(size)


def _check_out(out: object, shape: tuple[int, ...], batch: SketchBatch) -> None:
    if not isinstance(out, np.ndarray) or out.dtype != np.uint8 or out.shape != shape:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InputError(f"out is {found}; it must be uint8 {shape}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise InputError("out must be C-contiguous and writable; pass a fresh np.empty, or none")
    inputs = (batch.points, batch.stroke_offsets, batch.sketch_offsets, batch.widths, batch.erasers)
    if any(array is not None and np.may_share_memory(out, array) for array in inputs):
        raise InputError(
            "out shares memory with the batch that is to be drawn; pass a fresh np.empty, or none"
        )


def _draw_groups(
    batch: SketchBatch,
    groups: Sequence[tuple[int, NDArray[np.int64]]],
    line_width: LineWidth,
    threads: int | None,
) -> list[tuple[int, NDArray[np.uint8]]]:
    """For groups of a size and the sketches drawn at it: the size and uint8 (n, size, size), in one buffer."""
    counts = np.array([len(rows) for _, rows in groups], np.int64)
    areas = np.array([size * size for size, _ in groups], np.int64)
    firsts = np.concatenate([[0], np.cumsum(counts * areas)]).astype(np.int64)
    sketches = np.concatenate([rows for _, rows in groups]) if groups else np.zeros(0, np.int64)
    sizes = np.repeat(np.array([size for size, _ in groups], np.int64), counts)
    pixels = np.empty(firsts[-1], np.uint8)
    offsets = np.concatenate([[0], np.cumsum(sizes * sizes)[:-1]]) if len(sizes) else np.zeros(0, np.int64)
    _draw(batch, sketches, sizes, offsets.astype(np.int64), line_width, threads, pixels)
    return [
        (size, pixels[first:last].reshape(len(rows), size, size))
        for (size, rows), first, last in zip(groups, firsts[:-1], firsts[1:], strict=True)
    ]


def _draw(
    batch: SketchBatch,
    sketches: NDArray[np.int64],
    sizes: NDArray[np.int64],
    offsets: NDArray[np.int64],
    line_width: LineWidth,
    threads: int | None,
    pixels: NDArray[np.uint8],
) -> None:
    if threads is None:
        threads = available_cores()
    elif isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise InputError(
            f"threads is {threads!r}; it must be an integer of at least 1, or None for all cores"
        )
    stroke_widths = None
    width = DEFAULT_WIDTH
    if line_width is not None and np.ndim(line_width) == 0:
        width = _checked_width(line_width)
    elif line_width is not None:
        stroke_widths = _checked_widths(line_width, batch.num_strokes)
    elif batch.widths is not None:
        stroke_widths = batch.widths.astype(np.float64)
    _core.rasterize(
        batch.points,
        batch.stroke_offsets,
        batch.sketch_offsets,
        stroke_widths,
        batch.erasers,
        width,
        line_width is not None,
        sketches,
        sizes,
        offsets,
        min(int(threads), _MOST_THREADS),
        pixels,
    )


def _checked_width(value: object) -> float:
    good = isinstance(value, float | int | np.floating | np.integer | np.ndarray) and not isinstance(
        value, bool
    )
    width = float(value) if good else math.nan  # type: ignore[arg-type]  # a number, as was just found
    if not (math.isfinite(width) and width > 0):
        raise InputError(f"line_width is {value!r}; it must be positive and finite (pixels), or None")
    return width


def _checked_widths(values: ArrayLike, strokes: int) -> NDArray[np.float64]:
    try:
        widths = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"line_width must be a number or one a stroke: {error}") from error
    if widths.shape != (strokes,):
        raise InputError(f"line_width has the shape {widths.shape}; there are {strokes} strokes")
    good = np.isfinite(widths) & (widths > 0)
    if not good.all():
        stroke = int(np.argmin(good))
        raise InputError(
            f"line_width of stroke {stroke} is {widths[stroke]}; it must be positive and finite (pixels)"
        )
    return widths


if wanted := os.environ.get(INSTRUCTIONS_VARIABLE):
    try:
        use_instruction_set(wanted)
    except InputError as error:
        raise InputError(f"{INSTRUCTIONS_VARIABLE}: {error}") from error
