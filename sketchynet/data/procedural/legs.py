"""Builds a chair's legs, stretchers and apron, from far to near."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from sketchynet.data.procedural.parameters import FOUR_LEGS, Chair
from sketchynet.data.procedural.scene import (
    CONTOUR,
    EDGE,
    LEG,
    MARK,
    METAL,
    STRETCHER,
    WOOD,
    Scene,
    closed,
    superellipse,
)


def add_legs(scene: Scene, chair: Chair, near: float) -> None:
    top = chair.seat_height - 0.6 * chair.seat_thickness
    metal = METAL if chair.metal_legs or chair.legs in ("sled", "cantilever", "star", "disc") else WOOD
    radius = 0.026 if metal == METAL and chair.legs not in ("star", "disc") else chair.leg_radius
    feet = _feet(chair, near)
    if chair.legs in FOUR_LEGS:
        _four_legs(scene, chair, near, feet, top, radius, metal)
    elif chair.legs == "block":
        for x, z in feet:
            scene.bar([(x, top, z), (x, 0, z)], (0.07, 0.05), WOOD, LEG, 0.0, double=0.15)
    elif chair.legs == "sled":
        for side in (-near, near):
            x, z = side * 0.46 * chair.width, 0.5 * chair.depth
            loop = [(x, top, -0.7 * z), (x, 0.03, -0.95 * z), (x, 0.03, 0.95 * z), (x, top, 0.7 * z)]
            for a, b in pairwise(loop):
                scene.bar([a, b], radius, metal, LEG, 0.0, double=0.5)
    elif chair.legs == "cantilever":
        x, z = 0.46 * chair.width, 0.48 * chair.depth
        scene.bar([(-x, 0.03, -z), (x, 0.03, -z)], radius, metal, LEG, 0.0, double=0.5)
        for side in (-near, near):
            scene.bar([(side * x, 0.03, -z), (side * x, 0.03, z)], radius, metal, LEG, 0.0, double=0.5)
        for side in (-near, near):
            scene.bar([(side * x, 0.03, z), (side * x, top, z)], radius, metal, LEG, 0.0, double=0.5)
    elif chair.legs in ("star", "disc"):
        _pedestal(scene, chair, top, radius)
    else:  # cross: two scissors, as of a folding chair
        for side in (-near, near):
            x, z = side * 0.46 * chair.width, 0.48 * chair.depth
            scene.bar([(x, top, z), (x, 0, -z)], radius, metal, LEG, 0.0, double=0.3)
            scene.bar([(x, top, -z), (x, 0, z)], radius, metal, LEG, 0.0, double=0.3)
        _stretcher(
            scene,
            (-0.46 * chair.width, 0.12, 0.36 * chair.depth),
            (0.46 * chair.width, 0.12, 0.36 * chair.depth),
        )


def _feet(chair: Chair, near: float) -> list[tuple[float, float]]:
    """The four places of the legs under the seat as (x, z), far to near."""
    inset = 0.72 if chair.seat == "round" else 0.9
    x, z = 0.5 * chair.width * inset, 0.5 * chair.depth * inset
    return [
        (-near * x * (1 - chair.taper), -z),
        (near * x * (1 - chair.taper), -z),
        (-near * x * (1 + chair.taper), z),
        (near * x * (1 + chair.taper), z),
    ]


def _leg_path(
    chair: Chair, x: float, z: float, top: float
) -> tuple[list[tuple[float, float, float]], object]:
    """Path from the seat to the floor and radius profile of one leg."""
    out_x, out_z = math.copysign(chair.splay, x), math.copysign(chair.splay, z)
    r = chair.leg_radius
    if chair.legs == "sabre":
        path = [
            (x + out_x * 1.6 * t * t, top * (1 - t), z + out_z * 1.9 * t * t) for t in np.linspace(0, 1, 9)
        ]
        return path, (1.1 * r, 0.6 * r)
    if chair.legs == "cabriole":
        bulge = [math.sin(2 * math.pi * t) * 0.07 for t in np.linspace(0, 1, 13)]
        steps = np.linspace(0, 1, 13)
        path = [
            (x + math.copysign(b, x), top * (1 - t), z + math.copysign(b, z))
            for b, t in zip(bulge, steps, strict=True)
        ]
        return path, (1.2 * r, 1.7 * r, 1.2 * r, 0.8 * r, 0.6 * r, 0.6 * r, 1.3 * r)
    path = [(x, top, z), (x + out_x, 0.0, z + out_z)]
    if chair.legs == "turned":
        return path, (0.8 * r, 1.1 * r, 0.6 * r, 1.3 * r, 1.4 * r, 1.0 * r, 0.5 * r)
    return path, (1.1 * r, 0.75 * r if chair.legs == "splayed" else r)


def _four_legs(
    scene: Scene,
    chair: Chair,
    near: float,
    feet: list[tuple[float, float]],
    top: float,
    radius: float,
    metal: int,
) -> None:
    def leg(place: int) -> None:
        path, profile = _leg_path(chair, *feet[place], top)
        thin = radius / chair.leg_radius
        scene.bar(path, np.asarray(profile) * thin, metal, LEG, 0.0, double=0.12)
        end = np.asarray(path[-1])
        if place and metal == WOOD:
            for ring in range(chair.rings):  # turned rings below the seat
                middle = np.asarray(at(place, 0.7 - 0.09 * ring))
                scene.bar(
                    [middle - (1.35 * radius, 0, 0), middle + (1.35 * radius, 0, 0)], 0.018, WOOD, MARK, 0.62
                )
        if chair.feet and place:
            scene.bar(
                [end + (0, 0.07, 0), end],
                (0.8 * radius, 1.6 * radius, 1.2 * radius),
                METAL,
                MARK,
                0.55,
                double=0.55,
            )

    def at(place: int, height: float) -> tuple[float, float, float]:
        path, _ = _leg_path(chair, *feet[place], top)
        points = np.asarray(path)
        return tuple(float(np.interp(height * top, points[::-1, 1], points[::-1, axis])) for axis in range(3))  # type: ignore[return-value]  # three of them

    h = chair.stretcher_height
    kind = chair.stretchers
    leg(0)
    if kind in ("box",):
        _stretcher(scene, at(0, h), at(1, h))
    if kind in ("box", "sides", "h", "ladder"):
        _stretcher(scene, at(0, h), at(2, h))
    leg(1)
    if kind == "h":
        a, b = np.asarray(at(0, h)), np.asarray(at(2, h))
        c, d = np.asarray(at(1, h)), np.asarray(at(3, h))
        _stretcher(scene, 0.5 * (a + b), 0.5 * (c + d))
    if kind == "x":
        _stretcher(scene, at(0, h), at(3, h))
        _stretcher(scene, at(1, h), at(2, h))
    leg(2)
    if kind in ("box", "sides", "h", "ladder"):
        _stretcher(scene, at(1, h), at(3, h))
    if kind in ("front", "ladder", "box"):
        _stretcher(scene, at(2, h + 0.08), at(3, h + 0.08))
    if kind == "ladder":
        _stretcher(scene, at(2, h + 0.24), at(3, h + 0.24))
        _stretcher(scene, at(1, h + 0.16), at(3, h + 0.16))
    leg(3)
    _apron(scene, chair, near, feet, top)


def _stretcher(scene: Scene, start: object, end: object) -> None:
    scene.bar([start, end], 0.018, WOOD, STRETCHER, 0.38, double=0.72)


def _pedestal(scene: Scene, chair: Chair, top: float, radius: float) -> None:
    if chair.legs == "disc":
        disc = superellipse(2.0) * 0.34 * chair.width
        contour = np.stack([disc[:, 0], np.full(CONTOUR, 0.05), disc[:, 1]], axis=1)
        scene.panel(contour, (0.0, -0.05, 0.0), METAL, LEG, 0.0, double=0.4)
        scene.bar([(0, 0.06, 0), (0, top, 0)], (1.6 * radius, radius, radius), METAL, LEG, 0.0, double=0.12)
        return
    arms = 4 + chair.rings % 2
    angles = sorted((2.0 * math.pi * k / arms + 0.4 for k in range(arms)), key=math.cos)
    for place, angle in enumerate(angles):
        x, z = 0.48 * chair.width * math.sin(angle), 0.48 * chair.width * math.cos(angle)
        if place == arms // 2:
            scene.bar([(0, 0.14, 0), (0, top, 0)], (1.2 * radius, 0.8 * radius), METAL, LEG, 0.0, double=0.12)
        scene.bar([(0, 0.16, 0), (x, 0.07, z)], (radius, 0.6 * radius), METAL, LEG, 0.0, double=0.3)
        if chair.feet:  # castors
            scene.bar([(x, 0.08, z), (x, 0.0, z)], 0.035, METAL, MARK, 0.3, double=0.5)


def _apron(scene: Scene, chair: Chair, near: float, feet: list[tuple[float, float]], top: float) -> None:
    if chair.apron == "none" or chair.seat == "round":
        return
    u = np.linspace(0.0, 1.0, 25)
    drop = {
        "plain": np.full(25, 0.1),
        "arched": 0.14 - 0.09 * np.sin(math.pi * u),
        "scalloped": 0.07 + 0.06 * np.abs(np.sin(3 * math.pi * u)),
    }[chair.apron]
    for first, second in ((1, 3), (2, 3)):
        (xa, za), (xb, zb) = feet[first], feet[second]
        lower = np.stack([xa + (xb - xa) * u, top - drop, za + (zb - za) * u], axis=1)
        upper = np.array([(xb, top + 0.02, zb), (xa, top + 0.02, za)])
        scene.panel(closed(np.concatenate([lower, upper])), (0.0, 0.0, 0.0), WOOD, EDGE, 0.5)
