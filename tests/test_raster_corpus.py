"""Replays the fuzz corpus of the rasteriser; csrc/fuzz/raster.cpp states the format and what holds of any bytes."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from exact_coverage import exact_coverage

from sketchynet import Sketch, SketchBatch, raster, rasterize

MOST_POINTS, MOST_SKETCHES = 256, 4  # of csrc/fuzz/raster.cpp
CORPUS = sorted((Path(__file__).parent / "raster_corpus").iterdir())


def width_of(byte: int) -> float:
    return float(2.0 ** ((byte - 64) / 8))


def read(data: bytes) -> tuple[SketchBatch, int, np.ndarray]:
    """The drawings of a corpus file, the canvas size and the width of every stroke in pixels."""
    sketches: list[list[list[tuple[float, float]]]] = [[]]
    erasers: list[list[bool]] = [[]]
    widths: list[float] = []
    size = 8 + data[0] * data[0] // 256
    at = 3
    fresh = True
    points = 0
    while at < len(data) and points < MOST_POINTS and len(sketches) <= MOST_SKETCHES:
        flags = data[at]
        form = "<ff" if flags & 8 else "<hh"
        if at + 1 + struct.calcsize(form) > len(data):
            break
        x, y = struct.unpack_from(form, data, at + 1)
        at += 1 + struct.calcsize(form)
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        if not flags & 8:
            x, y = x / 16384, y / 16384
        points += 1
        if flags & 2 and sketches[-1]:
            sketches.append([])
            erasers.append([])
        if flags & 3 or fresh:
            sketches[-1].append([])
            erasers[-1].append(bool(flags & 4))
            widths.append(width_of(flags ^ data[1] if data[2] & 1 else data[1]))
            fresh = False
        sketches[-1][-1].append((x, y))
    drawn = []
    for strokes, erased in zip(sketches, erasers, strict=True):
        sketch = Sketch.from_strokes(strokes)
        drawn.append(Sketch(sketch.points, sketch.stroke_offsets, erasers=np.array(erased)))
    return SketchBatch.from_sketches(drawn), size, np.array(widths)


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_corpus_is_drawn_alike_by_all(file: Path) -> None:
    batch, size, widths = read(file.read_bytes())
    expected = rasterize(batch, size, line_width=widths, threads=1)
    assert np.array_equal(rasterize(batch, size, line_width=widths, threads=3), expected)
    before = raster.use_instruction_set()
    try:
        for name in raster.instruction_sets():
            raster.use_instruction_set(name)
            assert np.array_equal(rasterize(batch, size, line_width=widths), expected)
    finally:
        raster.use_instruction_set(before)


@pytest.mark.parametrize(
    "name", ["line", "dot", "circle-large", "nearly-level", "nearly-upright", "outside", "repeated-points"]
)
def test_corpus_is_drawn_right(name: str) -> None:
    batch, size, widths = read((Path(__file__).parent / "raster_corpus" / name).read_bytes())
    drawn = rasterize(batch, size, line_width=widths)
    for sketch, canvas in zip(batch, drawn, strict=True):
        assert np.abs(canvas - exact_coverage(sketch, size, float(widths[0]))).max() <= 20
