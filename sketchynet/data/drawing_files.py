"""One drawing from one file, whatever its format; the readers of the data sets share this.

======== =====================================================================================================
.svg     see `sketchynet.data.svg`
pictures dark ink on white or transparent, turned into strokes by `sketchynet.vectorize`
.ndjson  QuickDraw lines, one drawing each
.json    one QuickDraw object, or its "drawing" alone: a list of strokes [[x, …], [y, …]]
.npz     points float (N, 2), y down, and stroke_offsets int (S + 1,); optional widths (S,) and erasers (S,). With
         fitted = 1 the points are in the unit frame already; so `sketchynet data convert` writes them
.npy     float (N, 3): x, y, and 1 where the pen lifts (FS-COCO)
======== =====================================================================================================
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from sketchynet.data.listing import SketchFile, vectorized_drawing
from sketchynet.data.quickdraw import parse_lines
from sketchynet.data.scan import IMAGES
from sketchynet.data.skips import Skips
from sketchynet.data.svg import read_svg
from sketchynet.errors import InputError
from sketchynet.sketch import FRAME_MARGIN, Sketch

VECTORS = (".svg", ".ndjson", ".json", ".npz", ".npy")
MAX_BYTES = 1 << 26
"""A larger file is refused (`.svg` has a limit of its own, an `.ndjson` is read line by line)."""
MAX_POINTS = 1_000_000


def read_drawing_file(file: SketchFile) -> Sketch:
    """The drawing in a file, fitted into the unit frame. Raises InputError naming the file, and the line in it."""
    suffix = file.path.suffix.lower()
    if suffix in IMAGES:
        return vectorized_drawing(file)
    if suffix == ".svg":
        return read_svg(file.path, file.id)
    if suffix == ".ndjson":
        return _from_line(file)
    data = _bytes(file.path)
    if suffix == ".json":
        return _from_json(data, file)
    if suffix in (".npz", ".npy"):
        return _from_arrays(file)
    raise InputError(f"{file.path}: no drawing; expected one of {', '.join((*VECTORS, *IMAGES))}")


def pen_strokes(rows: np.ndarray, file: SketchFile) -> Sketch:
    """A drawing from (N, 3) rows x, y, pen: the pen lifts after a row whose third value is not 0."""
    where = f"{file.path}: drawing {file.id!r}"
    if rows.ndim != 2 or rows.shape[1] != 3 or rows.dtype.kind not in "iuf":
        raise InputError(f"{where} is {rows.dtype} {rows.shape}, expected numbers (N, 3); leave it out")
    if not 0 < len(rows) <= MAX_POINTS:
        raise InputError(f"{where} has {len(rows):,} points, expected 1 to {MAX_POINTS:,}; leave it out")
    if not np.isfinite(rows).all():
        raise InputError(f"{where} holds numbers that are not finite; mend or leave it out")
    ends = np.flatnonzero(rows[:, 2] != 0) + 1
    ends = ends[ends < len(rows)]
    return Sketch.from_strokes(np.split(rows[:, :2], ends), id=file.id, fit=True)


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{path}: {size:,} bytes, at most {MAX_BYTES:,} are read; leave it out")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore it or leave it out") from error


def lines_of(path: Path) -> list[str]:
    """The `part` of every drawing of an `.ndjson` file: number of the line and where it starts, "3@812"."""
    parts, start = [], 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.isspace():
                parts.append(f"{number}@{start}")
            start += len(line)
    return parts


def _from_line(file: SketchFile) -> Sketch:
    number, start = (int(value) for value in (file.part or "1@0").split("@"))
    try:
        with file.path.open("rb") as lines:
            lines.seek(start)
            line = lines.readline(MAX_BYTES)
    except OSError as error:
        raise InputError(f"{file.path}: cannot be read ({error.strerror}); restore it") from error
    return _only(parse_lines([line], file.path, Skips(), first=number), file)


def _from_json(data: bytes, file: SketchFile) -> Sketch:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{file.path}: broken JSON ({error}); mend it or leave it out") from error
    if isinstance(value, list):
        value = {"drawing": value}
    return _only(parse_lines([orjson.dumps(value)], file.path, Skips()), file)


def _only(chunk: Any, file: SketchFile) -> Sketch:
    if chunk is None:
        raise InputError(f"{file.path}: holds no drawing; leave it out")
    sketch = chunk.sketches[0]
    return Sketch(sketch.points, sketch.stroke_offsets, file.id)


def _from_arrays(file: SketchFile) -> Sketch:
    path = file.path
    try:
        if path.suffix.lower() == ".npy":
            return pen_strokes(np.load(path, allow_pickle=False), file)
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > MAX_BYTES:
                raise InputError(f"{path}: {unpacked:,} bytes when unpacked, at most {MAX_BYTES:,} are read")
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except InputError:
        raise
    # NotImplementedError is zipfile's word for a compression that it does not know.
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError, NotImplementedError) as error:
        raise InputError(f"{path}: the arrays cannot be read ({error}); fetch it again or leave it out") from error
    missing = [name for name in ("points", "stroke_offsets") if name not in arrays]
    if missing:
        raise InputError(f"{path}: no array {missing[0]!r} in it; see `sketchynet data list` for the layout")
    try:
        sketch = Sketch(
            arrays["points"], arrays["stroke_offsets"], file.id, arrays.get("widths"), arrays.get("erasers")
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if "fitted" in arrays:
        return sketch
    fitted = Sketch.from_strokes(sketch.strokes(), id=file.id, fit=True)
    widths = sketch.widths
    if widths is not None:
        extent = float((sketch.points.max(axis=0) - sketch.points.min(axis=0)).max())
        widths = (widths * ((1 - 2 * FRAME_MARGIN) / extent)).astype(np.float32) if extent > 0 else None
    return Sketch(fitted.points, fitted.stroke_offsets, file.id, widths, sketch.erasers)


def write_drawing(path: Path, sketch: Sketch) -> None:
    """Writes a drawing as `.npz`, every number and attribute as it is."""
    arrays = {"points": sketch.points, "stroke_offsets": sketch.stroke_offsets, "fitted": np.array(1, np.int8)}
    if sketch.widths is not None:
        arrays["widths"] = sketch.widths
    if sketch.erasers is not None:
        arrays["erasers"] = sketch.erasers
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
