"""Builds a chair's back on a curved sheet with coordinates u in [-1, 1] across and v in [0, 1] upwards."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sketchynet.data.procedural.parameters import EMBLEM_INFILLS, Chair
from sketchynet.data.procedural.scene import (
    CONTOUR,
    FABRIC,
    HOLE,
    INFILL,
    LINE,
    MARK,
    METAL,
    OUTLINE,
    WOOD,
    Scene,
    closed,
    superellipse,
)

STEPS = np.linspace(-1.0, 1.0, 17)


def sheet(chair: Chair, u: object, v: object, off: float = 0.0) -> np.ndarray:
    """(n, 3) points of the back; `off` lifts them towards the sitter."""
    u, v = np.broadcast_arrays(np.asarray(u, dtype=np.float64), np.asarray(v, dtype=np.float64))
    x = 0.5 * chair.width * chair.back_width * (1.0 - chair.taper) * u * (1.0 + chair.flare * v)
    y = chair.seat_height + chair.back_height * v
    bow = 0.3 if chair.back == "panel" and chair.panel == "barrel" else chair.bow
    z = -0.46 * chair.depth - chair.rake * chair.back_height * v + bow * u**2 + off
    return np.stack([x, y, z], axis=-1)


def add_back(scene: Scene, chair: Chair) -> None:
    {"frame": _frame, "hoop": _hoop, "panel": _panel}[chair.back](scene, chair)


def _crest(chair: Chair, u: np.ndarray) -> np.ndarray:
    """How far the top rises above v = 1 at u."""
    if chair.crest == "arch":
        return 0.13 * (1.0 - u**2)
    if chair.crest == "dip":
        return -0.1 * (1.0 - u**2)
    if chair.crest == "yoke":
        return 0.07 * np.cos(1.5 * math.pi * u) + 0.02
    return np.zeros_like(u)


def _frame(scene: Scene, chair: Chair) -> None:
    height = chair.crest_height / max(chair.back_height, 0.5)
    top = 1.0 + _crest(chair, STEPS)
    wings = 1.06 if chair.crest == "yoke" else 1.0
    outline = [*zip(STEPS * wings, top, strict=True), (1.0, 0.0), (-1.0, 0.0)]
    edge = closed(outline)
    scene.panel(
        sheet(chair, edge[:, 0], edge[:, 1]), (0, 0, 0), WOOD, OUTLINE, 0.0, until=0.15, painted=False
    )
    low = chair.infill_low if chair.infill != "rails" else 0.12
    radius = max(0.03, 0.75 * chair.leg_radius)
    far, near = (1.0, -1.0) if chair.azimuth > 0 else (-1.0, 1.0)

    def below_crest(u: float) -> float:
        return 1.0 - height + 0.6 * float(_crest(chair, np.array(u)))

    _infill(scene, chair, low, below_crest, 0.92)
    if low > 0.0:
        scene.bar(sheet(chair, STEPS * 0.95, low), 0.028, WOOD, INFILL, 0.3, double=0.55)
    for u in (far, near):
        scene.bar(sheet(chair, u * 0.96, (-0.1, 0.35, 0.7, 1.0)), radius, WOOD, OUTLINE, 0.15, double=0.3)
        if chair.finials and chair.crest != "yoke":
            scene.bar(
                sheet(chair, u * 0.97, (1.0, 1.09)),
                (0.7 * radius, 1.5 * radius, 0.4 * radius),
                WOOD,
                MARK,
                0.4,
                double=0.4,
            )
    bottom = 1.0 - height + 0.6 * _crest(chair, STEPS)
    rail = closed(
        [*zip(STEPS * wings, top, strict=True), *zip(STEPS[::-1] * wings, bottom[::-1], strict=True)]
    )
    scene.panel(sheet(chair, rail[:, 0], rail[:, 1], 0.02), (0, 0, -0.05), WOOD, OUTLINE, 0.15, double=0.8)
    rise = float(_crest(chair, np.zeros(1))[0])
    _emblem(
        scene, chair, 1.0 - 0.5 * height + 0.8 * rise, 0.5 * (height + 0.4 * rise) * chair.back_height, 0.024
    )


def _hoop(scene: Scene, chair: Chair) -> None:
    angle = np.linspace(math.pi, 0.0, 25)
    u = np.sign(np.cos(angle).round(12)) * np.abs(np.cos(angle).round(12)) ** 0.75
    v = np.abs(np.sin(angle).round(12)) ** (0.8 if chair.crest in ("straight", "dip") else 1.1)

    def top(at: float) -> float:
        return float(np.interp(at, u, v)) - 0.01

    _infill(scene, chair, 0.0, top, 0.86)
    scene.bar(sheet(chair, u, v), 0.034, WOOD, OUTLINE, 0.0, double=0.25)


WEAVES = ((90.0,), (0.0,), (50.0,), (-50.0,), (90.0, 0.0), (50.0, -50.0))
"""Directions of a weave's lines, in degrees."""


def _weave(
    scene: Scene,
    chair: Chair,
    place: Callable[[np.ndarray, np.ndarray], np.ndarray],
    half: float,
    low: float,
    high: float,
    share: float,
) -> None:
    """Fine parallel lines on |u| <= half, low <= v <= high; `share` is the part of the back that v spans.

    Their distance is a fiftieth to a thirtieth of the drawing: only large canvases tell the directions apart.
    """
    right = half * 0.5 * chair.width * chair.back_width
    top = 0.5 * (high - low) * chair.back_height * share
    directions = WEAVES[chair.count]
    group = scene.new_group()
    for degrees in directions:
        along = np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
        across = np.array([-along[1], along[0]])
        reach = abs(across[0]) * right + abs(across[1]) * top
        lines = max(3, round(2.0 * reach / (0.068 * (1.0 + 0.6 * (len(directions) - 1)))))
        for k in range(lines):
            foot = across * reach * (2.0 * (k + 0.5) / lines - 1.0)
            # Where the line through `foot` enters and leaves the rectangle.
            start, end = -9.0, 9.0
            for axis, bound in ((0, right), (1, top)):
                if abs(along[axis]) > 1e-6:
                    hits = sorted(((-bound - foot[axis]) / along[axis], (bound - foot[axis]) / along[axis]))
                    start, end = max(start, hits[0]), min(end, hits[1])
            if end - start < 0.06:
                continue
            points = foot + along * np.linspace(start, end, 6)[:, None]
            u, v = points[:, 0] / right * half, 0.5 * (low + high) + points[:, 1] / top * 0.5 * (high - low)
            scene.bar(place(u, v), 0.011, LINE, MARK, 0.5, group=group)


def _infill(scene: Scene, chair: Chair, low: float, top: Callable[[float], float], inner: float) -> None:
    """Fills an open back from v = low up to v = top(u), within |u| <= inner."""
    n, group = chair.count, scene.new_group()

    def high(u: float) -> float:
        return min(top(u) + 0.02, 1.2)

    def upright(u: float, radius: object, level: float, double: float, fan: float = 0.0) -> None:
        end = u * (1.0 + fan)
        path = sheet(chair, np.linspace(u, end, 5), low + (high(end) - low) * np.linspace(0, 1, 5))
        scene.bar(path, radius, WOOD, INFILL, level, double=double, group=group)

    if chair.infill == "slats":
        width = min(0.06, 0.24 * chair.width / (n + 1))
        for k in range(n):
            upright(inner * (2 * (k + 1) / (n + 1) - 1), width, 0.32, 0.6)
    elif chair.infill == "spindles":
        for k in range(n):
            upright(inner * 0.94 * (2 * (k + 0.5) / n - 1), (0.011, 0.017, 0.011), 0.34, 0.9, 0.06)
    elif chair.infill == "rails":
        for k in range(n):
            v = low + (1.0 - chair.crest_height - low) * (k + 0.4) / n
            rise = 0.5 * _crest(chair, STEPS)
            scene.bar(
                sheet(chair, STEPS * 0.95, v + rise),
                min(0.05, 0.2 / n),
                WOOD,
                INFILL,
                0.32,
                double=0.7,
                group=group,
            )
    elif chair.infill == "cross":
        for k in range(n):
            a = low + (high(0.0) - low) * k / n
            b = low + (high(0.0) - low) * (k + 1) / n
            for sign in (-1.0, 1.0):
                scene.bar(
                    sheet(chair, np.linspace(-inner, inner, 5), np.linspace(a, b, 5)[:: int(sign)]),
                    0.02,
                    WOOD,
                    INFILL,
                    0.32,
                    double=0.65,
                    group=group,
                )
    elif chair.infill == "weave":
        half = 0.75 if chair.back == "frame" else 0.5
        end = high(half) - 0.07
        rim = closed([(-half, low + 0.06), (half, low + 0.06), (half, end), (-half, end)])
        scene.panel(sheet(chair, rim[:, 0], rim[:, 1]), (0, 0, -0.02), FABRIC, INFILL, 0.3)

        def on_sheet(u: np.ndarray, v: np.ndarray) -> np.ndarray:
            return sheet(chair, u, v, 0.004)

        _weave(scene, chair, on_sheet, 0.93 * half, low + 0.08, end - 0.02, 1.0)
    elif chair.infill == "lattice":
        for k in range(n):
            upright(inner * (2 * (k + 1) / (n + 1) - 1), 0.009, 0.4, 2.0)
        rows = scene.new_group()
        for k in range(n):
            v = low + (high(0.0) - low) * (k + 0.7) / (n + 0.4)
            scene.bar(sheet(chair, STEPS * inner, v), 0.009, WOOD, INFILL, 0.42, group=rows)
    else:
        for k in range(n):
            for sign in (-1.0, 1.0):
                upright(sign * inner * (0.55 + 0.3 * k), 0.014, 0.4, 0.85)
        middle = high(0.0)
        heights = np.linspace(low, middle, 15)
        half = 0.3 + 0.1 * np.cos(2.0 * math.pi * np.linspace(0, 1, 15)) + 0.05 * np.linspace(0, 1, 15)
        rim = closed([*zip(-half, heights, strict=True), *zip(half[::-1], heights[::-1], strict=True)])
        scene.panel(sheet(chair, rim[:, 0], rim[:, 1]), (0, 0, -0.03), WOOD, INFILL, 0.25, double=0.85)
        _cutout(scene, chair, chair.cutout, 0.5 * (low + middle), 0.11)


def _cutout(
    scene: Scene, chair: Chair, shape: str, v: float, size: float, off: float = 0.004, level: float = 0.5
) -> None:
    """A hole in the middle of the back, of half-width `size`."""
    circle = superellipse(2.0)
    x, y = circle.T
    if shape == "heart":
        t = np.arange(CONTOUR) * (2.0 * math.pi / CONTOUR)
        x = np.sin(t) ** 3
        y = (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 15.0
    elif shape == "diamond":
        x, y = superellipse(1.0).T * np.array([[0.8], [1.3]])
    elif shape == "slot":
        x, y = superellipse(5.0).T * np.array([[1.3], [0.45]])
    elif shape == "keyhole":
        y = np.where(y < -0.5, -1.7, y + 0.2)
        x = np.where(y < -1.0, 1.1 * x, x)
    elif shape == "cross":
        a = 0.36
        plus = [
            (a, 1),
            (-a, 1),
            (-a, a),
            (-1, a),
            (-1, -a),
            (-a, -a),
            (-a, -1),
            (a, -1),
            (a, -a),
            (1, -a),
            (1, a),
            (a, a),
        ]
        x, y = closed(plus).T
    across = size / (0.5 * chair.width * chair.back_width)
    contour = sheet(chair, across * x, v + size * y / chair.back_height, off)
    scene.panel(contour, (0, 0, 0), HOLE, INFILL, level)


def _emblem(scene: Scene, chair: Chair, v: float, room: float, off: float) -> None:
    """The carving at the top of the back, at most `room` high to either side."""
    if chair.emblem != "none":
        _cutout(scene, chair, chair.emblem, v, min(0.055, 0.75 * room), off, 0.55)


def _panel_contour(chair: Chair) -> np.ndarray:
    """(CONTOUR, 2) outline of a solid back as (u, v), v from 0 to 1."""
    power = {"square": 8.0, "rounded": 4.0, "oval": 2.1, "barrel": 5.0}.get(chair.panel)
    if power is not None:
        return superellipse(power) * np.array([1.0, 0.5]) + np.array([0.0, 0.5])
    t = np.linspace(0.0, 1.0, 21)
    if chair.panel == "arch":
        half = np.where(t < 0.55, 1.0, np.sqrt(np.maximum(1.0 - ((t - 0.55) / 0.45) ** 2, 0.0)))
    elif chair.panel == "shield":
        half = 0.45 + 0.55 * np.sin(0.5 * math.pi * np.minimum(t / 0.75, 1.0))
    else:  # tulip: waisted, with a wide round top
        half = (0.72 + 0.32 * np.sin(math.pi * (t - 0.15))) * np.sqrt(
            np.maximum(1.0 - np.maximum(t - 0.75, 0.0) ** 2 * 14.0, 0.0)
        )
    rise = 0.06 * (1 - STEPS**2) if chair.panel == "shield" else np.zeros_like(STEPS)
    head = list(zip(half[-1] * STEPS, 1.0 + rise, strict=True)) if half[-1] > 0.05 else []
    return closed([*zip(-half, t, strict=True), *head, *zip(half[::-1], t[::-1], strict=True)])


def _panel(scene: Scene, chair: Chair) -> None:
    material = FABRIC if chair.upholstered else WOOD
    thickness = 0.15 if chair.upholstered else 0.04
    lift = chair.lift
    if lift:
        holders = (-0.55, 0.55) if chair.legs not in ("star", "disc") else (0.0,)
        for u in holders:
            scene.bar(
                sheet(chair, u, (-0.05, lift + 0.12), -0.02),
                0.03,
                METAL if chair.metal_legs else WOOD,
                OUTLINE,
                0.0,
                double=0.3,
            )
    rim = _panel_contour(chair)

    def place(u: object, v: object) -> np.ndarray:
        return sheet(chair, u, lift + (1.0 - lift) * np.asarray(v), 0.05)

    corners = chair.panel in ("square",)
    scene.panel(
        place(rim[:, 0], rim[:, 1]),
        (0, 0, -thickness),
        material,
        OUTLINE,
        0.0,
        double=0.1 if chair.upholstered else 0.7,
        corners=corners,
    )
    top = float(rim[:, 1].max())
    if chair.infill in EMBLEM_INFILLS:
        _emblem(scene, chair, lift + (1.0 - lift) * top * 0.86, 0.06, 0.054)
    n, group = chair.count, scene.new_group()
    if chair.infill == "weave":
        _weave(scene, chair, place, 0.6, 0.2 * top, 0.8 * top, 1.0 - lift)
    elif chair.infill == "buttons":
        for row in range(n):
            v = top * (row + 1) / (n + 1)
            columns = n - row % 2
            for k in range(columns):
                u = 0.62 * (2 * (k + 0.5) / columns - 1)
                scene.bar(place((u - 0.03, u + 0.03), v), 0.02, LINE, MARK, 0.5, group=group)
    elif chair.infill == "channels":
        for k in range(n):
            u = 0.9 * (2 * (k + 1) / (n + 1) - 1)
            low, high = _span(rim, u)
            scene.bar(place(u, np.linspace(low, high, 7)), 0.009, LINE, MARK, 0.45, group=group)
    elif chair.infill == "ribs":
        for k in range(n):
            v = (k + 1) / (n + 1)
            low, high = _span(rim[:, ::-1], v)
            scene.bar(place(np.linspace(low, high, 9), v), 0.009, LINE, MARK, 0.45, group=group)
    elif chair.infill == "inset":
        for k in range(n):
            ring = (rim - (0.0, 0.5)) * (0.84 - 0.16 * k) + (0.0, 0.5)
            ring = np.concatenate([ring, ring[:1]])
            scene.bar(place(ring[:, 0], ring[:, 1]), 0.009, LINE, MARK, 0.45)
    elif chair.infill == "cutout":
        _cutout(scene, chair, chair.cutout, lift + 0.6 * (1.0 - lift), 0.09, 0.054)
    elif chair.infill == "holes":
        for row in range(n):
            for k in range(n):
                u, v = 0.5 * (2 * (k + 0.5) / n - 1), 0.3 + 0.5 * (row + 0.5) / n
                dot = superellipse(2.0)
                contour = place(u + 0.3 / n * dot[:, 0], v + 0.15 / n * dot[:, 1])
                scene.panel(contour, (0, 0, 0), HOLE, MARK, 0.5, group=group)


def _span(rim: np.ndarray, at: float) -> tuple[float, float]:
    """Lowest and highest second coordinate of the closed contour where its first coordinate is `at`."""
    start, end = rim, np.roll(rim, -1, axis=0)
    crosses = (start[:, 0] - at) * (end[:, 0] - at) < 0
    if not crosses.any():
        return 0.0, 1.0
    share = (at - start[crosses, 0]) / (end[crosses, 0] - start[crosses, 0])
    hits = start[crosses, 1] + share * (end[crosses, 1] - start[crosses, 1])
    return float(hits.min()), float(hits.max())
