"""Fills the back of a chair: slats, spindles, lattices, weaves, cut-outs and carvings.

A back is a curved sheet with coordinates u in [-1, 1] across and v in [0, 1] upwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sketchynet.data.procedural.parameters import Chair
from sketchynet.data.procedural.scene import (
    CONTOUR,
    FABRIC,
    HOLE,
    INFILL,
    LINE,
    MARK,
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


def crest(chair: Chair, u: np.ndarray) -> np.ndarray:
    """How far the top rises above v = 1 at u."""
    if chair.crest == "arch":
        return 0.13 * (1.0 - u**2)
    if chair.crest == "dip":
        return -0.1 * (1.0 - u**2)
    if chair.crest == "yoke":
        return 0.07 * np.cos(1.5 * math.pi * u) + 0.02
    return np.zeros_like(u)


WEAVES = ((90.0,), (0.0,), (50.0,), (-50.0,), (90.0, 0.0), (50.0, -50.0))
"""Directions of a weave's lines, in degrees."""


def add_weave(
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


def add_infill(scene: Scene, chair: Chair, low: float, top: Callable[[float], float], inner: float) -> None:
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
            rise = 0.5 * crest(chair, STEPS)
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

        add_weave(scene, chair, on_sheet, 0.93 * half, low + 0.08, end - 0.02, 1.0)
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
        waist = 0.3 + 0.1 * np.cos(2.0 * math.pi * np.linspace(0, 1, 15)) + 0.05 * np.linspace(0, 1, 15)
        rim = closed([*zip(-waist, heights, strict=True), *zip(waist[::-1], heights[::-1], strict=True)])
        scene.panel(sheet(chair, rim[:, 0], rim[:, 1]), (0, 0, -0.03), WOOD, INFILL, 0.25, double=0.85)
        add_cutout(scene, chair, chair.cutout, 0.5 * (low + middle), 0.11)


def add_cutout(
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


def add_emblem(scene: Scene, chair: Chair, v: float, room: float, off: float) -> None:
    """The carving at the top of the back, at most `room` high to either side."""
    if chair.emblem != "none":
        add_cutout(scene, chair, chair.emblem, v, min(0.055, 0.75 * room), off, 0.55)
