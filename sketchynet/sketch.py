"""Drawings in memory: `Sketch` and `SketchBatch`, validated, and the stroke-3 and stroke-5 formats.

Coordinates are float32 in the unit frame: x to the right, y down, the drawing inside [0, 1] x [0, 1] (strokes may
leave it; the rasteriser clips them). Stroke k of a sketch is `points[stroke_offsets[k]:stroke_offsets[k + 1]]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketchynet._arrays import (
    Bools,
    Floats,
    Ints,
    check_erasers,
    check_offsets,
    check_points,
    check_rows,
    check_widths,
)
from sketchynet.errors import InputError

FRAME_MARGIN = 0.04
"""Free space that `fit_to_frame` leaves on each side, as a fraction of the frame."""

DEFAULT_WIDTH = 1 / 128
"""Width of a stroke that names none, in unit-frame units: 2 pixels of a 256-pixel canvas."""


def fit_to_frame(points: ArrayLike, margin: float = FRAME_MARGIN) -> Floats:
    """Scales and shifts points into the unit frame: aspect ratio kept, centred, `margin` free on each side.

    Args:
        points: (N, 2) finite coordinates in any unit, y down, N >= 1.
        margin: fraction of the frame, 0 <= margin < 0.5.

    Returns:
        float32 (N, 2). The longer side of the bounding box becomes 1 - 2 * margin; where all points are equal they
        come to lie in the centre.

    Raises:
        InputError: points of another shape, none at all, or not finite; a margin out of range.
    """
    if not 0 <= margin < 0.5:
        raise InputError(f"margin is {margin}; it must be at least 0 and less than 0.5")
    array = check_rows(points, 2, "points")
    if len(array) == 0:
        raise InputError("there are no points to fit into the frame")
    low, high = array.min(axis=0), array.max(axis=0)
    extent = float((high - low).max())
    # A box too small for its reciprocal (below 1e-308) is a point.
    scale = (1 - 2 * margin) / extent if extent > np.finfo(np.float64).tiny else 0.0
    # Halves first: low + high may overflow where neither does.
    return ((array - (0.5 * low + 0.5 * high)) * scale + 0.5).astype(np.float32)


def fit_each_to_frame(
    x: NDArray[Any], y: NDArray[Any], offsets: Ints, margin: float = FRAME_MARGIN
) -> tuple[Floats, NDArray[np.float64]]:
    """`fit_to_frame` for many drawings at once, each into a frame of its own.

    Args:
        x, y: (N,) finite coordinates in any unit, y down, drawing after drawing.
        offsets: int64 (B + 1,), B >= 1: drawing b has the points [offsets[b], offsets[b + 1]), at least one.
        margin: as in `fit_to_frame`.

    Returns:
        float32 (N, 2), and float64 (B,): the factor from the drawing's own unit to the frame's (0 for equal points).
    """
    counts = np.diff(offsets)
    sides = []
    for values in (x, y):
        low = np.minimum.reduceat(values, offsets[:-1]).astype(np.float64)
        high = np.maximum.reduceat(values, offsets[:-1]).astype(np.float64)
        sides.append((values, high - low, 0.5 * low + 0.5 * high))
    extent = np.maximum(sides[0][1], sides[1][1])
    scale = np.divide(1 - 2 * margin, extent, out=np.zeros_like(extent), where=extent > np.finfo(np.float64).tiny)
    scales = np.repeat(scale, counts)
    points = np.empty((len(x), 2), np.float32)
    for axis, (values, _, middle) in enumerate(sides):
        points[:, axis] = (values - np.repeat(middle, counts)) * scales + 0.5
    return points, scale


@dataclass(frozen=True, eq=False)
class Sketch:
    """One drawing.

    Raises:
        InputError: on construction, naming the id: coordinates that are not finite, offsets that do not rise from 0
            to N, no stroke at all, attributes of another length, a width that is not positive.
    """

    points: Floats
    """float32 (N, 2): x, y in the unit frame, y down."""

    stroke_offsets: Ints
    """int64 (S + 1,): rises from 0 to N; every stroke has at least one point (one point is a dot)."""

    id: str = ""
    """Named in error messages."""

    widths: Floats | None = None
    """float32 (S,): width of each stroke in unit-frame units (`size` times as many pixels of a canvas)."""

    erasers: Bools | None = None
    """bool (S,): strokes that take away the ink of the strokes before them."""

    def __post_init__(self) -> None:
        where = f"sketch {self.id!r}" if self.id else "sketch"
        points = check_points(self.points, where)
        offsets = check_offsets(self.stroke_offsets, len(points), f"{where}: stroke_offsets", "point")
        if len(offsets) == 1:
            raise InputError(f"{where} is empty: a sketch needs at least one stroke; leave it out")
        strokes = len(offsets) - 1
        _set(self, points=points, stroke_offsets=offsets)
        _set(
            self,
            widths=check_widths(self.widths, strokes, where),
            erasers=check_erasers(self.erasers, strokes, where),
        )

    @classmethod
    def checked(
        cls, points: Floats, stroke_offsets: Ints, id: str, widths: Floats | None, erasers: Bools | None
    ) -> Sketch:
        """A sketch of arrays that were checked before, all together: checking again takes longer than reading."""
        sketch = object.__new__(cls)
        fields = sketch.__dict__  # one by one: a third faster than giving the instance another dictionary
        fields["points"] = points
        fields["stroke_offsets"] = stroke_offsets
        fields["id"] = id
        fields["widths"] = widths
        fields["erasers"] = erasers
        return sketch

    @property
    def num_points(self) -> int:
        return len(self.points)

    @property
    def num_strokes(self) -> int:
        return len(self.stroke_offsets) - 1

    def strokes(self) -> list[Floats]:
        """The strokes in drawing order, each a (points, 2) view of `points`."""
        return np.split(self.points, self.stroke_offsets[1:-1])

    @classmethod
    def from_strokes(cls, strokes: Sequence[ArrayLike], id: str = "", *, fit: bool = False) -> Sketch:
        """From a sequence of (points, 2) arrays; `fit=True` passes all points through `fit_to_frame`."""
        where = f"sketch {id!r}" if id else "sketch"
        arrays = [check_rows(stroke, 2, f"{where}, stroke {k}") for k, stroke in enumerate(strokes)]
        if not arrays:
            raise InputError(f"{where} is empty: a sketch needs at least one stroke; leave it out")
        points = np.concatenate(arrays)
        offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
        return cls(_in_frame(points, fit), offsets, id)

    def to_stroke3(self) -> Floats:
        """float32 (N, 3): dx, dy from the point before (the first from the origin), and 1 where the pen lifts."""
        deltas = np.diff(self.points, axis=0, prepend=np.zeros((1, 2), np.float32))
        lifted = np.zeros((self.num_points, 1), np.float32)
        lifted[self.stroke_offsets[1:] - 1] = 1
        return np.hstack([deltas, lifted])

    @classmethod
    def from_stroke3(cls, array: ArrayLike, id: str = "", *, fit: bool = True) -> Sketch:
        """From (N, 3) rows dx, dy, pen: the pen lifts after a row whose last column is 1.

        The last stroke needs no such row. `fit` puts the drawing, in whatever unit, into the unit frame.
        """
        where = f"sketch {id!r}" if id else "sketch"
        rows = check_rows(array, 3, f"{where}: stroke-3")
        if not np.isin(rows[:, 2], (0, 1)).all():
            raise InputError(f"{where}: the third column of stroke-3 must be 0 (down) or 1 (lifted)")
        return cls._from_deltas(rows[:, :2], rows[:, 2] == 1, id, fit)

    def to_stroke5(self, length: int | None = None) -> Floats:
        """float32 (N + 1, 5), or (length, 5): dx, dy and the one-hot pen state down, lifted after it, end.

        Offsets are relative as in stroke-3. The row after the last point, and all that pad to `length`, are
        0, 0, 0, 0, 1.

        Raises:
            InputError: `length` is less than N + 1.
        """
        rows = self.num_points + 1
        if length is not None and length < rows:
            raise InputError(
                f"sketch {self.id!r} needs {rows} rows of stroke-5, not {length}; simplify it first"
            )
        result = np.zeros((rows if length is None else length, 5), np.float32)
        stroke3 = self.to_stroke3()
        result[: rows - 1, :2] = stroke3[:, :2]
        result[: rows - 1, 2] = 1 - stroke3[:, 2]
        result[: rows - 1, 3] = stroke3[:, 2]
        result[rows - 1 :, 4] = 1
        return result

    @classmethod
    def from_stroke5(cls, array: ArrayLike, id: str = "", *, fit: bool = True) -> Sketch:
        """From (T, 5) rows as `to_stroke5` gives them; what follows the first end row is not read."""
        where = f"sketch {id!r}" if id else "sketch"
        rows = check_rows(array, 5, f"{where}: stroke-5")
        pen = rows[:, 2:]
        if not (np.isin(pen, (0, 1)).all() and (pen.sum(axis=1) == 1).all()):
            raise InputError(f"{where}: columns 3 to 5 of stroke-5 must hold one 1 and two 0 in every row")
        ends = np.flatnonzero(pen[:, 2])
        rows = rows[: ends[0]] if len(ends) else rows
        return cls._from_deltas(rows[:, :2], rows[:, 3] == 1, id, fit)

    @classmethod
    def _from_deltas(cls, deltas: NDArray[np.float64], lifted: Bools, id: str, fit: bool) -> Sketch:
        points = np.cumsum(deltas, axis=0)
        if len(points) == 0:
            raise InputError(f"sketch {id!r} is empty: a sketch needs at least one stroke; leave it out")
        lifted = lifted.copy()
        lifted[-1] = True
        offsets = np.concatenate([[0], np.flatnonzero(lifted) + 1])
        return cls(_in_frame(points, fit), offsets, id)


@dataclass(frozen=True, eq=False)
class SketchBatch:
    """B drawings in flat arrays; B may be 0.

    Raises:
        InputError: on construction, naming the id of the drawing at fault; see `Sketch`.
    """

    points: Floats
    """float32 (N, 2): all points, sketch after sketch."""

    stroke_offsets: Ints
    """int64 (S + 1,): rises from 0 to N; every stroke has at least one point."""

    sketch_offsets: Ints
    """int64 (B + 1,): rises from 0 to S; every sketch has at least one stroke."""

    ids: tuple[str, ...] | None = None
    """B names for error messages."""

    widths: Floats | None = None
    """float32 (S,): width of each stroke in unit-frame units."""

    erasers: Bools | None = None
    """bool (S,): strokes that take away the ink of the strokes before them in the same sketch."""

    def __post_init__(self) -> None:
        ids = None if self.ids is None else tuple(self.ids)
        # The offsets first: they tell which sketch a bad number lies in.
        array = check_points(self.points, "sketch batch", finite=False)
        strokes = check_offsets(self.stroke_offsets, len(array), "sketch batch: stroke_offsets", "point")
        sketches = check_offsets(
            self.sketch_offsets, len(strokes) - 1, "sketch batch: sketch_offsets", "stroke", ids
        )
        if ids is not None and len(ids) != len(sketches) - 1:
            raise InputError(f"sketch batch: {len(ids)} ids for {len(sketches) - 1} sketches")
        _set(self, points=array, stroke_offsets=strokes, sketch_offsets=sketches, ids=ids)

        finite = np.isfinite(array)
        if not finite.all():  # of all at once: row by row takes several times as long
            point = int(np.argmin(finite.all(axis=1)))
            b = int(np.searchsorted(self.point_offsets, point, side="right")) - 1
            raise InputError(
                f"{self.name(b)}: point {point - int(self.point_offsets[b])} is {array[point].tolist()};"
                " coordinates must be finite: mend or leave out this sketch"
            )
        count = len(strokes) - 1
        _set(self, widths=check_widths(self.widths, count, "sketch batch"))
        _set(self, erasers=check_erasers(self.erasers, count, "sketch batch"))

    @classmethod
    def from_sketches(cls, sketches: Sequence[Sketch]) -> SketchBatch:
        """Joins sketches. Attributes that only some have are filled with DEFAULT_WIDTH, no eraser, and "" as id."""
        return cls.concat([cls._of_one(sketch) for sketch in sketches])

    @classmethod
    def _of_one(cls, sketch: Sketch) -> SketchBatch:
        ids = (sketch.id,) if sketch.id else None
        ends = np.array([0, sketch.num_strokes])
        return cls(sketch.points, sketch.stroke_offsets, ends, ids, sketch.widths, sketch.erasers)

    @classmethod
    def concat(cls, batches: Sequence[SketchBatch]) -> SketchBatch:
        """Joins batches in order; missing attributes are filled as in `from_sketches`."""
        ids = widths = erasers = None
        if any(batch.ids is not None for batch in batches):
            ids = tuple(name for batch in batches for name in (batch.ids or ("",) * len(batch)))
        if any(batch.widths is not None for batch in batches):
            widths = np.concatenate(
                [
                    np.full(batch.num_strokes, DEFAULT_WIDTH, np.float32)
                    if batch.widths is None
                    else batch.widths
                    for batch in batches
                ]
            )
        if any(batch.erasers is not None for batch in batches):
            erasers = np.concatenate(
                [
                    np.zeros(batch.num_strokes, np.bool_) if batch.erasers is None else batch.erasers
                    for batch in batches
                ]
            )
        return cls(
            np.concatenate([np.empty((0, 2), np.float32), *(batch.points for batch in batches)]),
            _joined_offsets([batch.stroke_offsets for batch in batches]),
            _joined_offsets([batch.sketch_offsets for batch in batches]),
            ids,
            widths,
            erasers,
        )

    def __len__(self) -> int:
        return len(self.sketch_offsets) - 1

    def __iter__(self) -> Iterator[Sketch]:
        return (self[b] for b in range(len(self)))

    @property
    def num_strokes(self) -> int:
        """Strokes of all sketches together."""
        return len(self.stroke_offsets) - 1

    @property
    def point_offsets(self) -> Ints:
        """int64 (B + 1,): sketch b has the points [point_offsets[b], point_offsets[b + 1])."""
        return self.stroke_offsets[self.sketch_offsets]

    def name(self, index: int) -> str:
        """How messages call a sketch: by its id where it has one, else by its place in the batch."""
        has_id = self.ids is not None and self.ids[index] != ""
        return f"sketch {self.ids[index]!r}" if has_id and self.ids else f"sketch {index} of the batch"

    def __getitem__(self, index: int) -> Sketch:
        """Sketch `index` (negative from the end); its points are a view of the batch."""
        b = range(len(self))[index]
        first, last = self.sketch_offsets[b], self.sketch_offsets[b + 1]
        offsets = self.stroke_offsets[first : last + 1]
        return Sketch(
            self.points[offsets[0] : offsets[-1]],
            offsets - offsets[0],
            "" if self.ids is None else self.ids[b],
            None if self.widths is None else self.widths[first:last],
            None if self.erasers is None else self.erasers[first:last],
        )

    def select(self, indices: ArrayLike) -> SketchBatch:
        """The sketches at `indices` (M,), in that order, repeats allowed; bool (B,) masks work too."""
        chosen = np.asarray(indices)
        wanted = np.arange(len(self))[chosen if chosen.size else chosen.astype(np.int64)]
        strokes, sketch_offsets = _ranges(self.sketch_offsets, wanted)
        points, stroke_offsets = _ranges(self.stroke_offsets, strokes)
        return SketchBatch(
            self.points[points],
            stroke_offsets,
            sketch_offsets,
            None if self.ids is None else tuple(self.ids[b] for b in wanted),
            None if self.widths is None else self.widths[strokes],
            None if self.erasers is None else self.erasers[strokes],
        )


def _in_frame(points: NDArray[np.float64], fit: bool) -> Floats:
    if fit and len(points):
        return fit_to_frame(points)
    with np.errstate(over="ignore"):  # infinite in float32: the constructor tells it with the id
        return points.astype(np.float32)


def _ranges(offsets: Ints, parts: Ints) -> tuple[Ints, Ints]:
    """The indices [offsets[p], offsets[p + 1]) for every p of `parts`, joined, and the offsets of the joint parts."""
    counts = offsets[parts + 1] - offsets[parts]
    joined = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return np.arange(joined[-1]) + np.repeat(offsets[parts] - joined[:-1], counts), joined


def _joined_offsets(offsets: Sequence[Ints]) -> Ints:
    counts = [np.diff(part) for part in offsets]
    return np.cumsum(np.concatenate([[0], *counts]), dtype=np.int64)


def _set(instance: object, **fields: Any) -> None:
    """Sets fields of a frozen dataclass while it is being made."""
    for name, value in fields.items():
        object.__setattr__(instance, name, value)
