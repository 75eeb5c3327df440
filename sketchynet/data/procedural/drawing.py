"""Draws a chair as a person would: a vector sketch with strokes in drawing order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from sketchynet.data.procedural.config import ProceduralConfig
from sketchynet.data.procedural.parameters import Chair
from sketchynet.data.procedural.scene import (
    BAR,
    CONTOUR,
    CORNERS,
    EDGE,
    INFILL,
    MARK,
    NEVER,
    STRETCHER,
    Part,
    Scene,
    View,
    project,
)
from sketchynet.sketch import Sketch, fit_to_frame

STEP = 0.012
"""Distance of neighbouring points, in the unit frame."""
MAP = 224
"""Side of the map of visible parts, in pixels."""


@dataclass(frozen=True, eq=False)
class Line:
    """One candidate stroke: where its points lie in the flat view, and when it is drawn."""

    where: np.ndarray
    owner: int
    """Paint number: whatever is painted with a higher number hides it."""
    order: int
    level: float
    until: float
    part: int
    variant: int = 0
    """0: always; 1 and 2: two ways of drawing the same thing, of which a drawing takes one."""
    closed: bool = False


@dataclass(frozen=True, eq=False)
class Plan:
    """All lines of a scene that any drawing may show."""

    lines: tuple[Line, ...]
    parts: tuple[Part, ...]
    groups: tuple[np.ndarray, ...]
    """Part numbers of each group of repeated details."""


def plan(scene: Scene) -> Plan:
    bars, panels = len(scene.paths), len(scene.contours)
    right, centre = bars * BAR, 2 * bars * BAR
    face = 3 * bars * BAR
    rear = face + panels * CONTOUR
    along, around = np.arange(BAR), np.arange(CONTOUR)
    lines: list[Line] = []
    for number, part in enumerate(scene.parts):
        body, front = 2 * number + 1, 2 * number + 2
        if part.is_bar:
            a = part.row * BAR + along
            b = right + a
            lines.append(Line(centre + a, body, part.order, part.level, min(part.double, part.until), number))
            if part.double < NEVER:
                outline = np.concatenate([a, b[::-1]])
                lines.append(Line(outline, body, part.order, part.double, part.until, number, 1))
                lines.append(Line(a, body, part.order, part.double, part.until, number, 2))
                lines.append(Line(b, body, part.order, part.double, part.until, number, 2))
        else:
            contour = face + part.row * CONTOUR + around
            lines.append(Line(contour, front, part.order, part.level, part.until, number, 0, True))
            if part.double < NEVER:
                behind = rear + part.row * CONTOUR + around
                lines.append(Line(behind, body, EDGE, part.double, part.until, number, 0, True))
                if part.corners:
                    for corner in CORNERS:
                        edge = np.array([contour[corner], behind[corner]])
                        lines.append(Line(edge, body, EDGE, part.double, part.until, number))
    groups = tuple(
        np.array([number for number, part in enumerate(scene.parts) if part.group == group], dtype=np.int64)
        for group in range(scene.groups)
    )
    return Plan(tuple(lines), tuple(scene.parts), groups)


def _visibility(parts: tuple[Part, ...], drawn: set[int], view: View) -> np.ndarray:
    """uint8 (MAP, MAP): the paint number of what is seen at each pixel, 0 for the ground.

    Only what the drawing shows hides anything; people let stretchers and marks run across what is behind.
    """
    image = Image.new("L", (MAP, MAP), 0)
    draw = ImageDraw.Draw(image)
    bars = (
        (np.concatenate([view.left, view.right[:, ::-1]], axis=1) * MAP).reshape(len(view.left), -1).tolist()
    )
    panels = np.stack(
        [view.rear, 0.67 * view.rear + 0.33 * view.face, 0.33 * view.rear + 0.67 * view.face, view.face]
    )
    solid = (panels * MAP).reshape(4, len(view.face), -1).tolist()
    thin = (np.abs(view.face - view.rear).max((1, 2)) * MAP < 0.5).tolist()
    for number, part in enumerate(parts):
        if not part.painted or number not in drawn or part.order in (STRETCHER, MARK):
            continue
        if part.is_bar:
            draw.polygon(bars[part.row], fill=min(255, 2 * number + 1))
            continue
        if not thin[part.row]:
            for layer in solid[:3]:
                draw.polygon(layer[part.row], fill=min(255, 2 * number + 1))
        draw.polygon(solid[3][part.row], fill=min(255, 2 * number + 2))
    return np.asarray(image)


def _chosen(lines: Plan, detail: float, missed: float, rng: np.random.Generator) -> list[Line]:
    """The lines of a drawing with this level of detail.

    The random choices do not depend on `detail`, so that more detail only adds.
    """
    miss = rng.random(len(lines.parts))
    joined = rng.random(len(lines.parts)) < 0.6
    shown = np.ones(len(lines.parts), dtype=bool)
    for group in lines.groups:
        jitter = rng.normal(0.0, 0.08)
        if len(group) > 2:  # a hasty hand draws fewer slats than there are
            share = min(1.0, 0.45 + 0.55 * max(0.0, detail + jitter - 0.3) / 0.35)
            kept = np.rint(np.linspace(0, len(group) - 1, max(2, round(share * len(group))))).astype(np.int64)
            shown[group] = False
            shown[group[kept]] = True
    chosen = []
    for line in lines.lines:
        part = lines.parts[line.part]
        if not line.level <= detail < line.until or not shown[line.part]:
            continue
        if part.level > 0.2 and miss[line.part] < missed:
            continue
        if line.variant and (line.variant == 1) != joined[line.part]:
            continue
        chosen.append(line)
    return chosen


def _cut(line: Line, rng: np.random.Generator, corners: bool, edges: bool) -> list[np.ndarray]:
    """A closed contour as a person draws it: round in one go from somewhere, or edge by edge."""
    if corners and edges:
        at = [*CORNERS, CORNERS[0] + CONTOUR]
        return [line.where[np.arange(a, b + 1) % CONTOUR] for a, b in pairwise(at)]
    start = int(rng.integers(CONTOUR))
    around = line.where[np.arange(start, start + CONTOUR + 1) % CONTOUR]
    if rng.random() < 0.35:
        half = int(rng.integers(12, 29))
        return [around[: half + 1], around[half:]]
    return [around]


def draw(
    chair: Chair,
    scene: Scene,
    lines: Plan,
    config: ProceduralConfig,
    detail: float,
    rng: np.random.Generator,
    name: str,
) -> Sketch:
    # Errors of viewpoint and proportion.
    turn = rng.normal(0.0, math.radians(config.viewpoint), 2)
    stretch = np.exp(rng.normal(0.0, 0.035 * config.distortion, 3))
    view = project(scene, chair.azimuth + turn[0], chair.elevation + 0.5 * turn[1], tuple(stretch.tolist()))
    parts = (view.left, view.right, view.centre, view.face, view.rear)
    flat = np.concatenate([points.reshape(-1, 2) for points in parts])
    hand = config.wobble * rng.uniform(0.6, 1.5) * (1.15 - 0.3 * detail)
    bend = rng.normal(0.0, 0.04 * config.distortion, (5, 2))
    edgewise = rng.random() < 0.5

    chosen = _chosen(lines, detail, config.missed, rng)
    visible = _visibility(lines.parts, {line.part for line in chosen}, view)
    pieces: list[np.ndarray] = []
    owners: list[int] = []
    orders: list[float] = []
    steady: list[float] = []
    late = rng.normal(0.0, 0.3, MARK + 1)  # which of the outlines comes first differs between people
    for line in chosen:
        if line.closed:
            cut = _cut(line, rng, lines.parts[line.part].corners, edgewise)
        else:
            cut = [line.where if rng.random() < 0.8 else line.where[::-1]]
        pieces += cut
        owners += [line.owner] * len(cut)
        orders += [line.order + late[line.order]] * len(cut)
        steady += [0.5 if line.order >= INFILL else 1.0] * len(cut)  # small things are drawn with more care
    sequence = np.argsort(orders, kind="stable")
    pieces = [pieces[k] for k in sequence]
    owner = np.array(owners)[sequence]

    points, stroke = _resample(flat[np.concatenate(pieces)], np.array([len(piece) for piece in pieces]))
    pixels = np.clip((points * MAP).astype(np.int64), 0, MAP - 1)
    seen = visible[pixels[:, 1], pixels[:, 0]] <= np.minimum(owner, 255)[stroke]
    first, last = _runs(seen, stroke, points)
    if len(first) == 0:  # everything hidden cannot happen with a seat in sight, but a drawing needs a stroke
        first, last = np.array([0]), np.array([np.searchsorted(stroke, 0, side="right") - 1])
    points = _warp(points, bend)
    return _by_hand(points, first, last, hand * np.array(steady)[sequence][stroke[first]], rng, name)


def _resample(points: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polylines laid end to end, `counts` points each, as points STEP apart and their stroke numbers."""
    stroke = np.repeat(np.arange(len(counts)), counts)
    inside = stroke[1:] == stroke[:-1]
    start, way = points[:-1][inside], (points[1:] - points[:-1])[inside]
    pieces = np.maximum(1, np.ceil(np.sqrt((way**2).sum(1)) / STEP)).astype(np.int64)
    segment = np.repeat(np.arange(len(start)), pieces)
    share = (np.arange(len(segment)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) / pieces[segment]
    dense = start[segment] + way[segment] * share[:, None]
    number = stroke[:-1][inside][segment]
    ends = np.searchsorted(number, np.arange(len(counts)), side="right")
    last = np.cumsum(counts) - 1
    return np.insert(dense, ends, points[last], axis=0), np.insert(number, ends, np.arange(len(counts)))


def _runs(seen: np.ndarray, stroke: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last point of each visible stretch; short gaps are drawn over, short stretches left out."""
    n = len(seen)
    change = np.ones(n + 1, dtype=bool)
    change[1:-1] = (seen[1:] != seen[:-1]) | (stroke[1:] != stroke[:-1])
    bounds = np.flatnonzero(change)
    first, last = bounds[:-1], bounds[1:] - 1
    # A hidden stretch of up to three points between two visible ones of the same stroke is drawn over.
    short = ~seen[first] & (last - first < 3) & (first > 0) & (last < n - 1)
    short &= (stroke[np.maximum(first - 1, 0)] == stroke[first]) & (
        stroke[np.minimum(last + 1, n - 1)] == stroke[last]
    )
    seen = seen | np.repeat(short, last - first + 1)
    change[1:-1] = (seen[1:] != seen[:-1]) | (stroke[1:] != stroke[:-1])
    bounds = np.flatnonzero(change)
    first, last = bounds[:-1], bounds[1:] - 1
    whole = np.zeros(n + 1, dtype=bool)
    whole[0] = whole[-1] = True
    whole[1:-1] = stroke[1:] != stroke[:-1]
    complete = whole[first] & whole[last + 1]
    keep = seen[first] & ((last - first >= 3) | complete)
    return first[keep], last[keep]


def _warp(points: np.ndarray, bend: np.ndarray) -> np.ndarray:
    """A smooth error of proportion over the whole drawing: shear, keystone and curvature."""
    x, y = points[:, 0] - 0.5, points[:, 1] - 0.5
    terms = np.stack([x, y, x * y, x * x, y * y], axis=1)
    return points + terms @ bend


def _by_hand(
    points: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    hand: np.ndarray,
    rng: np.random.Generator,
    name: str,
) -> Sketch:
    """Strokes points[first:last + 1], each with its own unsteadiness of the hand."""
    length = last - first + 1
    # Trim or overshoot the ends.
    slack = rng.normal(0.0, 0.007 * hand, (2, len(first)))
    room = np.minimum(length // 4, 2)
    first = first + np.minimum(np.maximum(np.rint(-slack[0] / STEP), 0).astype(np.int64), room)
    last = last - np.minimum(np.maximum(np.rint(-slack[1] / STEP), 0).astype(np.int64), room)
    length = last - first + 1
    offsets = np.concatenate([[0], np.cumsum(length)])
    stroke = np.repeat(np.arange(len(first)), length)
    index = np.arange(offsets[-1]) - offsets[stroke] + first[stroke]
    drawn = points[index]
    for end, inner, over in ((offsets[:-1], 2, slack[0]), (offsets[1:] - 1, -2, slack[1])):
        within = np.clip(end + inner, offsets[:-1], offsets[1:] - 1)
        way = drawn[end] - drawn[within]
        norm = np.maximum(np.sqrt((way**2).sum(1)), 1e-6)
        drawn[end] += way * (np.maximum(over, 0.0) / norm)[:, None]
    # Slow drift along a stroke, and a faint tremor.
    along = (np.arange(offsets[-1]) - offsets[stroke]) * STEP
    extent = np.maximum(length * STEP, 0.05)
    phase = rng.uniform(0.0, 2.0 * math.pi, (3, 2, len(first)))
    amplitude = rng.normal(0.0, 1.0, (3, 2, len(first))) * hand
    amplitude[0] *= 0.006 * np.sqrt(extent)
    amplitude[1] *= 0.0035 * np.sqrt(extent)
    amplitude[2] *= 0.0005
    pitch = 2.0 * math.pi * np.stack([0.7 / extent, 1.6 / extent, np.full_like(extent, 7.0)])
    for wave in range(3):
        turn = along * pitch[wave][stroke]
        for axis in range(2):
            drawn[:, axis] += amplitude[wave, axis][stroke] * np.sin(turn + phase[wave, axis][stroke])
    drawn += (rng.normal(0.0, 0.0028, (len(first), 2)) * hand[:, None])[stroke]
    # A grid of 2^-14 hides the last digits, in which the mathematics libraries of machines differ.
    return Sketch(fit_to_frame(np.rint(drawn * 16384.0) / 16384.0), offsets, name)
