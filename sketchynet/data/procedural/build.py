"""Builds a chair's geometry: legs, seat, back and arms, from far to near."""

from __future__ import annotations

import math

import numpy as np

from sketchynet.data.procedural.back import add_back
from sketchynet.data.procedural.parameters import FOUR_LEGS, Chair
from sketchynet.data.procedural.scene import (
    ARM,
    CONTOUR,
    CUSHION,
    EDGE,
    FABRIC,
    INFILL,
    LEG,
    LINE,
    MARK,
    METAL,
    OUTLINE,
    SEAT,
    STRETCHER,
    WOOD,
    Scene,
    closed,
    superellipse,
)

SEAT_POWER = {"square": 7.0, "round": 2.2, "bell": 4.0}


def seat_contour(chair: Chair, height: float, share: float = 1.0) -> np.ndarray:
    """(CONTOUR, 3) outline of the seat at `height`, shrunk to `share`."""
    across, along = superellipse(SEAT_POWER[chair.seat]).T
    x = 0.5 * chair.width * share * across * (1.0 + chair.taper * along)
    z = 0.5 * chair.depth * share * along
    if chair.seat == "bell":
        z = z + np.where(along > 0, 0.08 * (1.0 - across**2), 0.0)
    return np.stack([x, np.full(CONTOUR, height), z], axis=1)


def build(chair: Chair) -> Scene:
    scene = Scene()
    near = -1.0 if chair.azimuth > 0 else 1.0  # the side (sign of x) that the viewer sees
    scene.footprint = seat_contour(chair, 0.0)
    _legs(scene, chair, near)
    _seat(scene, chair)
    add_back(scene, chair)
    if chair.arms != "none":
        _arm(scene, chair, -near)
    _cushion(scene, chair)
    if chair.arms != "none":
        _arm(scene, chair, near)
    return scene


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


def _legs(scene: Scene, chair: Chair, near: float) -> None:
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
            for a, b in zip(loop, loop[1:], strict=False):
                scene.bar([a, b], radius, metal, LEG, 0.0, double=0.5)
    elif chair.legs == "cantilever":
        x, z = 0.46 * chair.width, 0.48 * chair.depth
        for a, b in (((-x, -z), (x, -z)), ((-near * x, -z), (-near * x, z)), ((near * x, -z), (near * x, z))):
            scene.bar([(a[0], 0.03, a[1]), (b[0], 0.03, b[1])], radius, metal, LEG, 0.0, double=0.5)
        for side in (-near, near):
            scene.bar([(side * x, 0.03, z), (side * x, top, z)], radius, metal, LEG, 0.0, double=0.5)
    elif chair.legs in ("star", "disc"):
        _pedestal(scene, chair, top, radius)
    else:  # cross: two scissors, as of a folding chair
        for side in (-near, near):
            x, z = side * 0.46 * chair.width, 0.48 * chair.depth
            scene.bar([(x, top, z), (x, 0, -z)], radius, metal, LEG, 0.0, double=0.3)
            scene.bar([(x, top, -z), (x, 0, z)], radius, metal, LEG, 0.0, double=0.3)
        _stretcher(scene, (-0.46 * chair.width, 0.12, 0.36 * chair.depth), (0.46 * chair.width, 0.12, 0.36 * chair.depth))


def _leg_path(chair: Chair, x: float, z: float, top: float) -> tuple[list[tuple[float, float, float]], object]:
    """Path from the seat to the floor and radius profile of one leg."""
    out_x, out_z = math.copysign(chair.splay, x), math.copysign(chair.splay, z)
    r = chair.leg_radius
    if chair.legs == "sabre":
        path = [(x + out_x * 1.6 * t * t, top * (1 - t), z + out_z * 1.9 * t * t) for t in np.linspace(0, 1, 9)]
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
    scene: Scene, chair: Chair, near: float, feet: list[tuple[float, float]], top: float, radius: float, metal: int
) -> None:
    def leg(place: int) -> None:
        path, profile = _leg_path(chair, *feet[place], top)
        thin = radius / chair.leg_radius
        scene.bar(path, np.asarray(profile) * thin, metal, LEG, 0.0, double=0.12)
        end = np.asarray(path[-1])
        if place and metal == WOOD:
            for ring in range(chair.rings):  # turned rings below the seat
                middle = np.asarray(at(place, 0.7 - 0.09 * ring))
                scene.bar([middle - (1.35 * radius, 0, 0), middle + (1.35 * radius, 0, 0)], 0.018, WOOD, MARK, 0.62)
        if chair.feet and place:
            scene.bar([end + (0, 0.07, 0), end], (0.8 * radius, 1.6 * radius, 1.2 * radius), METAL, MARK, 0.55, double=0.55)

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


def _seat(scene: Scene, chair: Chair) -> None:
    material = FABRIC if chair.upholstered else WOOD
    contour = seat_contour(chair, chair.seat_height)
    scene.panel(
        contour, (0.0, -chair.seat_thickness, 0.0), material, SEAT, 0.0,
        double=0.1 if chair.seat_thickness > 0.11 else 0.25, corners=chair.seat == "square",
    )  # fmt: skip
    if chair.grooves and not chair.upholstered and chair.cushion == "none":
        group = scene.new_group()
        for k in range(chair.grooves):  # a slatted seat
            x = chair.width * 0.84 * ((k + 1) / (chair.grooves + 1) - 0.5)
            z = chair.depth * (0.4 if chair.seat != "round" else 0.42 * math.sqrt(1 - (2 * x / chair.width) ** 2))
            y = chair.seat_height + 0.002
            scene.bar(
                [(x * (1 - chair.taper), y, -z), (x * (1 + chair.taper), y, z)], 0.009, LINE, INFILL, 0.5, group=group
            )


def _cushion(scene: Scene, chair: Chair) -> None:
    if chair.cushion == "none":
        return
    rise = 0.16 if chair.legs == "block" else 0.1 if chair.cushion != "pad" else 0.07
    share = 0.95 if chair.upholstered else 0.88
    top = chair.seat_height + rise
    contour = seat_contour(chair, top, share) + np.array([0.0, 0.0, 0.02])
    scene.panel(
        contour, (0.0, -rise, 0.0), FABRIC, CUSHION, 0.35, double=0.6, corners=chair.seat == "square"
    )
    if chair.cushion == "piped":
        piping = seat_contour(chair, top + 0.002, share * 0.86) + np.array([0.0, 0.0, 0.02])
        scene.bar(np.concatenate([piping, piping[:1]]), 0.008, LINE, MARK, 0.65)
    if chair.cushion == "buttoned":
        for x in (-0.22, 0.22):
            for z in (-0.2, 0.22):
                at = np.array([x * chair.width, top, z * chair.depth])
                scene.bar([at + (-0.02, 0, 0), at + (0.02, 0, 0)], 0.02, LINE, MARK, 0.6)


def _arm(scene: Scene, chair: Chair, side: float) -> None:
    x = side * (0.5 if chair.arms == "slab" else 0.43 if chair.seat == "round" else 0.47) * chair.width
    base, height = chair.seat_height, chair.seat_height + chair.arm_height
    back, front = -0.46 * chair.depth, 0.42 * chair.depth
    lean = chair.rake * chair.arm_height
    material = METAL if chair.metal_legs else WOOD
    if chair.arms == "slab":
        low = 0.1 if chair.legs == "block" else base - chair.seat_thickness
        width = 0.16 * side
        rim = [(low, back), (height, back - lean), (height, front + 0.05), (low, front + 0.08)]
        rounded = closed(rim) * 0.5 + 0.25 * (np.roll(closed(rim), 1, 0) + np.roll(closed(rim), -1, 0))
        contour = np.stack([np.full(CONTOUR, x), rounded[:, 0], rounded[:, 1]], axis=1)
        # The face is the side that the viewer sees: the outside of the near arm, the inside of the far one.
        near = -1.0 if chair.azimuth > 0 else 1.0
        if side == near:
            contour[:, 0] += width
            scene.panel(contour, (-width, 0.0, 0.0), FABRIC, ARM, 0.0, double=0.12)
        else:
            scene.panel(contour, (width, 0.0, 0.0), FABRIC, ARM, 0.0, double=0.12)
        front_face = [(x, low, front + 0.08), (x, height, front + 0.05), (x + width, height, front + 0.05), (x + width, low, front + 0.08)]
        scene.panel(closed(front_face), (0.0, 0.0, 0.0), FABRIC, EDGE, 0.12)
        return
    taper = 1.0 + chair.taper
    post = (0.25 if chair.seat == "round" else 0.6) * front
    if chair.arms == "post":
        scene.bar([(x, base, post), (x * taper, height, 0.8 * front)], 0.026, material, ARM, 0.08, double=0.45)
        scene.bar([(x, height, back - lean), (x * taper, height, front)], (0.03, 0.045, 0.05), material, ARM, 0.03, double=0.3)
    elif chair.arms == "loop":
        loop = [(x, base - 0.05, back), (x, height, back), (x * taper, height, front), (x * taper, base - 0.05, front)]
        smooth = [a * (1 - t) + b * t for a, b in zip(map(np.asarray, loop), map(np.asarray, loop[1:]), strict=False) for t in (0.06, 0.5, 0.94)]
        scene.bar(smooth, 0.026, material, ARM, 0.03, double=0.45)
    else:
        swoop = [
            (x * (1.0 + 0.25 * math.sin(math.pi * t)), base + chair.arm_height * (1.0 - t**4), back - lean + (front - back + lean) * t)
            for t in np.linspace(0, 1, 16)
        ]
        scene.bar(swoop, 0.032, material, ARM, 0.03, double=0.3)
    if chair.rings and not chair.metal_legs and chair.seat != "round":
        for k in range(1, 1 + chair.rings):  # spindles under the arm
            z = back + (post - back) * k / (chair.rings + 1)
            scene.bar([(x, base, z), (x, height - 0.03, z)], 0.014, WOOD, INFILL, 0.55)


__all__ = ["OUTLINE", "build", "seat_contour"]
