"""What else draws strokes from Python, each used as fast as its interface allows, on the same flat float32 points.

Every peer has the call `(batch, size, width) -> uint8 (B, size, size)`. Objects that can be reused for the next drawing
are; points become Python numbers in one go. `PEERS` maps names to functions that import the package when called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sketchynet import SketchBatch

Canvases = NDArray[np.uint8]
Peer = Callable[[SketchBatch, int, float], Canvases]


def _strokes(batch: SketchBatch, size: int) -> Iterator[list[list[list[float]]]]:
    """The strokes of each drawing as lists of [x, y] in pixels."""
    points = (batch.points * size).tolist()
    offsets = batch.stroke_offsets.tolist()
    for first, last in zip(
        batch.sketch_offsets[:-1].tolist(), batch.sketch_offsets[1:].tolist(), strict=True
    ):
        yield [points[offsets[s] : offsets[s + 1]] for s in range(first, last)]


def _cairo(cairo: Any, batch: SketchBatch, size: int, width: float) -> Canvases:
    """One surface for all drawings, one call of stroke() a drawing, so that strokes that overlap are united."""
    surface = cairo.ImageSurface(cairo.FORMAT_A8, size, size)
    pixels = np.frombuffer(surface.get_data(), np.uint8).reshape(size, surface.get_stride())
    context = cairo.Context(surface)
    context.set_line_width(width)
    context.set_line_cap(cairo.LINE_CAP_ROUND)
    context.set_line_join(cairo.LINE_JOIN_ROUND)
    context.set_antialias(cairo.ANTIALIAS_BEST)
    move_to, line_to = context.move_to, context.line_to
    out = np.empty((len(batch), size, size), np.uint8)
    for b, strokes in enumerate(_strokes(batch, size)):
        surface.mark_dirty()
        pixels[:] = 0
        for stroke in strokes:
            move_to(*stroke[0])
            if len(stroke) == 1:
                line_to(*stroke[0])  # a dot
            for x, y in stroke[1:]:
                line_to(x, y)
        context.stroke()
        surface.flush()
        out[b] = pixels[:, :size]
    return out


def cairocffi() -> tuple[Peer, str]:
    import cairocffi as cairo

    return lambda batch, size, width: _cairo(cairo, batch, size, width), cairo.version


def cairocffi_plain() -> tuple[Peer, str]:
    """The same as it is mostly written: a new surface and context for every drawing."""
    import cairocffi as cairo

    def draw(batch: SketchBatch, size: int, width: float) -> Canvases:
        singles = (batch.select(np.array([b])) for b in range(len(batch)))
        return np.concatenate([_cairo(cairo, single, size, width) for single in singles])

    return draw, cairo.version


def pycairo() -> tuple[Peer, str]:
    import cairo

    def draw(batch: SketchBatch, size: int, width: float) -> Canvases:
        return _cairo(cairo, batch, size, width)

    return draw, cairo.version


def skia() -> tuple[Peer, str]:
    import skia

    def draw(batch: SketchBatch, size: int, width: float) -> Canvases:
        out = np.zeros((len(batch), size, size), np.uint8)
        info = skia.ImageInfo.MakeA8(size, size)
        paint = skia.Paint(
            AntiAlias=True,
            Style=skia.Paint.kStroke_Style,
            StrokeWidth=width,
            StrokeCap=skia.Paint.kRound_Cap,
            StrokeJoin=skia.Paint.kRound_Join,
        )
        for pixels, strokes in zip(out, _strokes(batch, size), strict=True):
            path = skia.Path()
            for stroke in strokes:
                path.moveTo(*stroke[0])
                for x, y in stroke[1:] or stroke:
                    path.lineTo(x, y)
            skia.Surface.MakeRasterDirect(info, pixels).getCanvas().drawPath(path, paint)
        return out

    return draw, skia.__version__


def blend2d() -> tuple[Peer, str]:
    import blend2d

    def draw(batch: SketchBatch, size: int, width: float) -> Canvases:
        image = blend2d.BLImage(size, size, blend2d.BLFormat.A8)
        context = blend2d.BLContext(image)
        context.stroke_width = width
        context.set_stroke_caps(blend2d.BLStrokeCap.CAP_ROUND)
        context.stroke_join = blend2d.BLStrokeJoin.JOIN_ROUND
        context.set_stroke_style((255, 255, 255, 255))
        path = blend2d.BLPath()
        move_to, line_to = path.move_to, path.line_to
        out = np.empty((len(batch), size, size), np.uint8)
        for pixels, strokes in zip(out, _strokes(batch, size), strict=True):
            path.clear()
            context.clear_all()
            for stroke in strokes:
                move_to(*stroke[0])
                for x, y in stroke[1:] or stroke:
                    line_to(x, y)
            context.stroke_path(path)
            context.flush()
            pixels[:] = image.getDataAsNumPy().reshape(size, -1)[:, :size]
        return out

    return draw, str(blend2d.BL_VERSION)


def opencv() -> tuple[Peer, str]:
    import cv2

    cv2.setNumThreads(1)

    def draw(batch: SketchBatch, size: int, width: float) -> Canvases:
        out = np.zeros((len(batch), size, size), np.uint8)
        # Fixed-point numbers of 8 binary places; the centre of a pixel is a whole number.
        points = np.rint((batch.points * size - 0.5) * 256).astype(np.int32)
        strokes = np.split(points, batch.stroke_offsets[1:-1])
        bounds = batch.sketch_offsets.tolist()
        for pixels, first, last in zip(out, bounds[:-1], bounds[1:], strict=True):
            cv2.polylines(pixels, strokes[first:last], False, 255, max(1, round(width)), cv2.LINE_AA, 8)
        return out

    return draw, cv2.__version__


def pillow() -> tuple[Peer, str]:
    import PIL
    from PIL import Image, ImageDraw

    def draw(batch: SketchBatch, size: int, width: float) -> Canvases:
        out = np.empty((len(batch), size, size), np.uint8)
        for pixels, strokes in zip(out, _strokes(batch, size), strict=True):
            image = Image.new("L", (size, size))
            pen = ImageDraw.Draw(image)
            for stroke in strokes:
                pen.line([(x - 0.5, y - 0.5) for x, y in stroke], 255, max(1, round(width)), "curve")
            pixels[:] = np.asarray(image)
        return out

    return draw, PIL.__version__


PEERS: dict[str, Callable[[], tuple[Peer, str]]] = {
    "cairocffi": cairocffi,
    "cairocffi, new surfaces": cairocffi_plain,
    "pycairo": pycairo,
    "skia-python": skia,
    "blend2d-python": blend2d,
    "OpenCV LINE_AA": opencv,
    "Pillow": pillow,
}
INSTALL = {
    "cairocffi": "pip install cairocffi, and the system's libcairo2",
    "cairocffi, new surfaces": "pip install cairocffi, and the system's libcairo2",
    "pycairo": "pip install pycairo, with the system's libcairo2-dev and pkg-config",
    "skia-python": "pip install skia-python",
    "blend2d-python": "pip install blend2d-python",
    "OpenCV LINE_AA": "pip install opencv-python-headless",
    "Pillow": "pip install pillow",
}
