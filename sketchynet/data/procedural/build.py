"""Builds a chair's geometry: legs, seat, back and arms, from far to near."""

from __future__ import annotations

import math

import numpy as np

from sketchynet.data.procedural.back import add_back
from sketchynet.data.procedural.legs import add_legs
from sketchynet.data.procedural.parameters import Chair
from sketchynet.data.procedural.scene import (
    ARM,
    CONTOUR,
    CUSHION,
    EDGE,
    FABRIC,
    INFILL,
    LINE,
    MARK,
    METAL,
    SEAT,
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
    add_legs(scene, chair, near)
    _seat(scene, chair)
    add_back(scene, chair)
    if chair.arms != "none":
        _arm(scene, chair, -near)
    _cushion(scene, chair)
    if chair.arms != "none":
        _arm(scene, chair, near)
    return scene


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
            z = chair.depth * (
                0.4 if chair.seat != "round" else 0.42 * math.sqrt(1 - (2 * x / chair.width) ** 2)
            )
            y = chair.seat_height + 0.002
            scene.bar(
                [(x * (1 - chair.taper), y, -z), (x * (1 + chair.taper), y, z)],
                0.009,
                LINE,
                INFILL,
                0.5,
                group=group,
            )


def _cushion(scene: Scene, chair: Chair) -> None:
    if chair.cushion == "none":
        return
    rise = 0.16 if chair.legs == "block" else 0.1 if chair.cushion != "pad" else 0.07
    share = 0.95 if chair.upholstered else 0.88
    top = chair.seat_height + rise
    contour = seat_contour(chair, top, share) + np.array([0.0, 0.0, 0.02])
    scene.panel(contour, (0.0, -rise, 0.0), FABRIC, CUSHION, 0.35, double=0.6, corners=chair.seat == "square")
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
        front_face = [
            (x, low, front + 0.08),
            (x, height, front + 0.05),
            (x + width, height, front + 0.05),
            (x + width, low, front + 0.08),
        ]
        scene.panel(closed(front_face), (0.0, 0.0, 0.0), FABRIC, EDGE, 0.12)
        return
    taper = 1.0 + chair.taper
    post = (0.25 if chair.seat == "round" else 0.6) * front
    if chair.arms == "post":
        scene.bar(
            [(x, base, post), (x * taper, height, 0.8 * front)], 0.026, material, ARM, 0.08, double=0.45
        )
        scene.bar(
            [(x, height, back - lean), (x * taper, height, front)],
            (0.03, 0.045, 0.05),
            material,
            ARM,
            0.03,
            double=0.3,
        )
    elif chair.arms == "loop":
        loop = [
            (x, base - 0.05, back),
            (x, height, back),
            (x * taper, height, front),
            (x * taper, base - 0.05, front),
        ]
        smooth = [
            a * (1 - t) + b * t
            for a, b in zip(map(np.asarray, loop), map(np.asarray, loop[1:]), strict=False)
            for t in (0.06, 0.5, 0.94)
        ]
        scene.bar(smooth, 0.026, material, ARM, 0.03, double=0.45)
    else:
        swoop = [
            (
                x * (1.0 + 0.25 * math.sin(math.pi * t)),
                base + chair.arm_height * (1.0 - t**4),
                back - lean + (front - back + lean) * t,
            )
            for t in np.linspace(0, 1, 16)
        ]
        scene.bar(swoop, 0.032, material, ARM, 0.03, double=0.3)
    if chair.rings and not chair.metal_legs and chair.seat != "round":
        for k in range(1, 1 + chair.rings):  # spindles under the arm
            z = back + (post - back) * k / (chair.rings + 1)
            scene.bar([(x, base, z), (x, height - 0.03, z)], 0.014, WOOD, INFILL, 0.55)
