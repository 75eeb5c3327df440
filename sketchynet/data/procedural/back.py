"""Builds a chair's back: frames, hoops and panels on the curved sheet of infill.py."""

from __future__ import annotations

import math

import numpy as np

from sketchynet.data.procedural.infill import (
    STEPS,
    add_cutout,
    add_emblem,
    add_infill,
    add_weave,
    crest,
    sheet,
)
from sketchynet.data.procedural.parameters import EMBLEM_INFILLS, Chair
from sketchynet.data.procedural.scene import (
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


def add_back(scene: Scene, chair: Chair) -> None:
    {"frame": _frame, "hoop": _hoop, "panel": _panel}[chair.back](scene, chair)


def _frame(scene: Scene, chair: Chair) -> None:
    height = chair.crest_height / max(chair.back_height, 0.5)
    top = 1.0 + crest(chair, STEPS)
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
        return 1.0 - height + 0.6 * float(crest(chair, np.array(u)))

    add_infill(scene, chair, low, below_crest, 0.92)
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
    bottom = 1.0 - height + 0.6 * crest(chair, STEPS)
    rail = closed(
        [*zip(STEPS * wings, top, strict=True), *zip(STEPS[::-1] * wings, bottom[::-1], strict=True)]
    )
    scene.panel(sheet(chair, rail[:, 0], rail[:, 1], 0.02), (0, 0, -0.05), WOOD, OUTLINE, 0.15, double=0.8)
    rise = float(crest(chair, np.zeros(1))[0])
    add_emblem(
        scene, chair, 1.0 - 0.5 * height + 0.8 * rise, 0.5 * (height + 0.4 * rise) * chair.back_height, 0.024
    )


def _hoop(scene: Scene, chair: Chair) -> None:
    angle = np.linspace(math.pi, 0.0, 25)
    u = np.sign(np.cos(angle).round(12)) * np.abs(np.cos(angle).round(12)) ** 0.75
    v = np.abs(np.sin(angle).round(12)) ** (0.8 if chair.crest in ("straight", "dip") else 1.1)

    def top(at: float) -> float:
        return float(np.interp(at, u, v)) - 0.01

    add_infill(scene, chair, 0.0, top, 0.86)
    scene.bar(sheet(chair, u, v), 0.034, WOOD, OUTLINE, 0.0, double=0.25)


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
        add_emblem(scene, chair, lift + (1.0 - lift) * top * 0.86, 0.06, 0.054)
    n, group = chair.count, scene.new_group()
    if chair.infill == "weave":
        add_weave(scene, chair, place, 0.6, 0.2 * top, 0.8 * top, 1.0 - lift)
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
        add_cutout(scene, chair, chair.cutout, lift + 0.6 * (1.0 - lift), 0.09, 0.054)
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
