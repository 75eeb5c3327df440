"""Drawings from SVG files, by way of svgelements: paths, shapes, transforms, styles, curves flattened.

What has a stroke is drawn, in the order of the file; a file without any stroke is read by the outlines of its
filled shapes. Strokes in (nearly) white are erasers, as in the Sketchy database, unless the whole drawing is
white. `display: none` hides. Text and pictures inside the SVG are not drawings and are passed over.

An XML file may hide much in little: entities, `use` elements and nesting that grow without bound when they are
followed. A first pass over the file refuses these, and checks the data of paths, of which svgelements would
silently drop what follows a mistake.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
import svgelements

from sketchynet._arrays import Bools
from sketchynet.errors import InputError
from sketchynet.sketch import DEFAULT_WIDTH, FRAME_MARGIN, Sketch, fit_to_frame

FLATNESS = 1 / 1000
"""Largest distance between a curve and the line segments in its place, as a fraction of the drawing's longer side:
a quarter of a pixel on a 256-pixel canvas."""
MAX_BYTES = 16 << 20
MAX_ELEMENTS = 50_000
MAX_SEGMENTS = 50_000
MAX_DEPTH = 100
MAX_POINTS = 1_000_000
"""A file with more than any of these is refused; a drawing of the Sketchy database has about 25 elements and 1,100
segments of paths. svgelements takes some 20 µs and 1 KB for each segment."""
WHITE = 245
"""A stroke whose channels are all at least this erases."""

_ARITY = {"m": 2, "l": 2, "h": 1, "v": 1, "c": 6, "s": 4, "q": 4, "t": 2, "a": 7, "z": 0}
_COMMAND = re.compile(r"([MmLlHhVvCcSsQqTtAaZz])")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
# An arc's two flags may be written without anything between them and what follows.
_FLAGS = re.compile(r"((?:[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[\s,]*){3})([01])[\s,]*([01])")


@dataclass(frozen=True, eq=False)
class SvgDrawing:
    """S strokes in the units of the file's user space, y down, and how thick each is there."""

    strokes: list[np.ndarray]
    """S float64 (n, 2)."""
    widths: np.ndarray
    """float64 (S,): stroke width, 0 where the file names none."""
    erasers: Bools
    """bool (S,)."""


def read_svg(path: Path, id: str = "") -> Sketch:
    """The drawing in an SVG file, fitted into the unit frame.

    Ink gets the usual width. Where there are erasers, they keep theirs beside the drawing, and as much more as
    the ink is thicker here than in the file, so that what was erased is erased. Raises InputError, naming the file
    and where possible the line, for broken XML, entities, absurd sizes and a drawing without strokes.
    """
    return fitted(read_svg_strokes(path), id, path)


def fitted(drawing: SvgDrawing, id: str, path: Path) -> Sketch:
    """The drawing in the unit frame; its ink decides the frame, erasers may leave it."""
    ink = np.concatenate([s for s, eraser in zip(drawing.strokes, drawing.erasers, strict=True) if not eraser])
    low, high = ink.min(axis=0), ink.max(axis=0)
    extent = float((high - low).max())
    scale = (1 - 2 * FRAME_MARGIN) / extent if extent > 0 else 0.0
    if not drawing.erasers.any():
        return Sketch.from_strokes([*drawing.strokes], id=id, fit=True)
    points = np.concatenate(drawing.strokes)
    frame = (fit_to_frame(points) if scale == 0 else (points - (low + high) / 2) * scale + 0.5).astype(np.float32)
    offsets = np.cumsum([0, *map(len, drawing.strokes)], dtype=np.int64)
    native = drawing.widths * scale
    thicker = max(0.0, DEFAULT_WIDTH - float(np.median(native[~drawing.erasers])))
    widths = np.where(drawing.erasers, np.maximum(native + thicker, DEFAULT_WIDTH), DEFAULT_WIDTH)
    return Sketch(frame, offsets, id, widths.astype(np.float32), drawing.erasers)


def read_svg_strokes(path: Path) -> SvgDrawing:
    """The strokes of an SVG file, curves flattened (FLATNESS), in the units of the file; see `read_svg`."""
    data = _checked(path)
    try:
        elements = list(svgelements.SVG.parse(io.BytesIO(data)).elements())
        shapes = [e for e in elements if isinstance(e, svgelements.Shape)]
        shapes = [e for e in shapes if e.values.get("visibility") not in ("hidden", "collapse")]
        stroked = [shape for shape in shapes if _color(shape.stroke) is not None]
        chosen = stroked or [shape for shape in shapes if _color(shape.fill) is not None]
        found = [(shape, part) for shape in chosen for part in _subpaths(shape)]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InputError(f"{path}: the SVG cannot be read ({error}); save it again from a drawing program") from error
    if not found:
        raise InputError(f"{path}: the SVG has no strokes; redraw it or leave it out")
    widths = [float(shape.stroke_width or 0.0) if stroked else 0.0 for shape, _ in found]
    colors = [_color(shape.stroke) or _color(shape.fill) or (0, 0, 0) for shape, _ in found]
    strokes = _flatten([part for _, part in found], path)
    erasers = [min(color) >= WHITE for color in colors]
    white = np.array(erasers)
    return SvgDrawing(strokes, np.array(widths), np.zeros_like(white) if white.all() else white)


def _color(color: Any) -> tuple[int, int, int] | None:
    """Red, green, blue; None where nothing is painted."""
    if color is None or color.value is None or color.alpha == 0:
        return None
    return int(color.red), int(color.green), int(color.blue)


def _subpaths(shape: Any) -> list[np.ndarray]:
    """The subpaths of a shape, each a chain of n >= 1 cubic Bézier curves (n, 4, 2); lines are straight ones."""
    result: list[list[Any]] = [[]]
    for segment in _without_arcs(svgelements.Path(shape)):
        if isinstance(segment, svgelements.Move):
            result.append([])
            continue
        start, end = segment.start, segment.end
        if start is None or end is None:
            continue  # a close without a path
        if isinstance(segment, svgelements.CubicBezier):
            first, second = segment.control1, segment.control2
        elif isinstance(segment, svgelements.QuadraticBezier):
            first, second = start + (segment.control - start) * (2 / 3), end + (segment.control - end) * (2 / 3)
        else:
            first, second = start + (end - start) * (1 / 3), end + (start - end) * (1 / 3)
        result[-1].append([(point.x, point.y) for point in (start, first, second, end)])
        if isinstance(segment, svgelements.Close):
            result.append([])
    return [np.array(part, dtype=np.float64) for part in result if part]


def _without_arcs(path: Any) -> Iterator[Any]:
    """The segments, arcs as cubic curves. (`Path.approximate_arcs_with_cubics` takes quadratic time.)"""
    for segment in path:
        if isinstance(segment, svgelements.Arc):
            yield from segment.as_cubic_curves()
        else:
            yield segment


def _flatten(parts: list[np.ndarray], path: Path) -> list[np.ndarray]:
    """The subpaths as chains of points (n, 2), no point farther than FLATNESS from the curve."""
    curves = np.concatenate(parts)
    if not np.isfinite(curves).all() or np.abs(curves).max() > 1e9:
        raise InputError(f"{path}: a coordinate is not finite or beyond ±1e9; mend or leave out the drawing")
    tolerance = FLATNESS * float((curves.max(axis=(0, 1)) - curves.min(axis=(0, 1))).max())
    # A curve with the second derivative B'' strays at most |B''| / 8 n² from n equal pieces.
    bend = 6 * np.linalg.norm(np.diff(curves, 2, axis=1), axis=2).max(axis=1)
    pieces = np.ones(len(curves), np.int64)
    if tolerance > 0:
        pieces = np.maximum(1, np.ceil(np.sqrt(bend / (8 * tolerance)))).astype(np.int64)
    if pieces.sum() + len(parts) > MAX_POINTS:
        raise InputError(f"{path}: more than {MAX_POINTS:,} points; simplify the drawing or leave it out")
    ends = np.cumsum(pieces)
    t = (np.arange(1, ends[-1] + 1) - np.repeat(ends - pieces, pieces)) / np.repeat(pieces, pieces)
    t, control = t[:, None], np.repeat(curves, pieces, axis=0)
    points = (
        (1 - t) ** 3 * control[:, 0]
        + 3 * (1 - t) ** 2 * t * control[:, 1]
        + 3 * (1 - t) * t**2 * control[:, 2]
        + t**3 * control[:, 3]
    )
    last = ends[np.cumsum([len(part) for part in parts]) - 1]
    return [
        np.concatenate([part[0, :1], chain])
        for part, chain in zip(parts, np.split(points, last[:-1]), strict=True)
    ]


def _checked(path: Path) -> bytes:
    """The content of the file after the first pass."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{path}: {size:,} bytes, at most {MAX_BYTES:,} are read; simplify or leave it out")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore it or leave it out") from error
    parser = expat.ParserCreate()
    count = depth = segments = 0

    def refuse(fault: str) -> None:
        raise InputError(f"{path}, line {parser.CurrentLineNumber}: {fault}")

    def entity(name: str, *_: Any) -> None:
        refuse(f"declares the entity {name!r}; save it again as a plain SVG, without entities")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count, depth, segments
        count, depth = count + 1, depth + 1
        if count > MAX_ELEMENTS:
            refuse(f"more than {MAX_ELEMENTS:,} elements; simplify the drawing or leave it out")
        if depth > MAX_DEPTH:
            refuse(f"elements nested more than {MAX_DEPTH} deep; save it again as a plain SVG")
        local = name.rpartition(":")[2]
        if local == "use":
            refuse("a `use` element; unlink the clones in a drawing program and save it again")
        found, fault = _geometry(local, attributes)
        segments += found
        if fault:
            refuse(f"the {fault} cannot be read; save it again from a drawing program")
        if segments > MAX_SEGMENTS:
            refuse(f"more than {MAX_SEGMENTS:,} segments of paths; simplify the drawing or leave it out")

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    parser.EntityDeclHandler, parser.StartElementHandler, parser.EndElementHandler = entity, start, end
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise InputError(f"{path}: broken XML ({error}); fetch it again or leave it out") from error
    return data


def _geometry(name: str, attributes: dict[str, str]) -> tuple[int, str]:
    """Segments that an element draws, and what is wrong with its geometry; empty where nothing is."""
    if name in ("polyline", "polygon"):
        rest, numbers = _NUMBER.subn(" ", attributes.get("points", ""))
        return numbers // 2, f"points of a {name}" if rest.strip(" \t\r\n,") or numbers % 2 else ""
    if name != "path":
        return 1, ""
    head, *parts = _COMMAND.split(attributes.get("d", ""))
    if head.strip() or (parts and parts[0] not in "Mm"):
        return 0, "data of a path (it does not begin with M)"
    segments = 0
    for command, values in zip(parts[::2], parts[1::2], strict=True):
        rest, numbers = _NUMBER.subn(" ", _FLAGS.sub(r"\1 \2 \3 ", values) if command in "Aa" else values)
        arity = _ARITY[command.lower()]
        wrong = numbers != 0 if arity == 0 else numbers == 0 or numbers % arity != 0
        if wrong or rest.strip(" \t\r\n,"):
            return segments, f"data of a path ({command}{values[:40]!s})"
        segments += numbers // arity if arity else 1
    return segments, ""
