"""The flat form of a chair's geometry, and its projection.

A scene is a row of parts in painter's order, far to near. A part is a bar (a line with a radius: legs,
spindles, rails) or a panel (a closed contour pushed along a thickness: seats, backs, cushions). All bars have
BAR points and all panels CONTOUR points, so that a whole scene projects in a few array operations.

Shapes: B bars, P panels, L parts. Axes of the object: x to its left, y up, z to its front.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

BAR = 16
CONTOUR = 40
CORNERS = (5, 15, 25, 35)  # of a superellipse contour that starts at angle 0
VIEW_DISTANCE = 8.0

WOOD, FABRIC, METAL, LINE, HOLE = range(5)
"""Materials. LINE is a seam, drawn dark; HOLE shows the ground behind."""

# The order in which people draw.
OUTLINE, SEAT, LEG, ARM, EDGE, CUSHION, STRETCHER, INFILL, MARK = range(9)
NEVER = 2.0


@dataclass(frozen=True)
class Part:
    row: int
    """Row among the scene's bars or panels."""
    is_bar: bool
    material: int
    order: int
    level: float
    """Level of detail from which it is drawn."""
    double: float = NEVER
    """Level from which a bar is drawn by its two sides, and a panel with its thickness."""
    until: float = NEVER
    """Level from which finer parts replace it."""
    group: int = -1
    """Repeated details (the slats of a back) share a group, and hasty drawings show only some of them."""
    corners: bool = False
    """A panel with four corners, whose edges show in drawings and which people draw in several strokes."""
    painted: bool = True
    """False for outlines that exist in drawings only."""


@dataclass(eq=False)
class Scene:
    """Built part by part, in painter's order."""

    paths: list[np.ndarray] = field(default_factory=list)
    radii: list[np.ndarray] = field(default_factory=list)
    contours: list[np.ndarray] = field(default_factory=list)
    thicknesses: list[tuple[float, float, float]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    footprint: np.ndarray = field(default_factory=lambda: np.zeros((CONTOUR, 3)))
    """(CONTOUR, 3) what shades the floor."""
    groups: int = 0

    def bar(
        self, path: object, radius: object, material: int, order: int, level: float, **options: object
    ) -> None:
        """Adds a bar along `path` (n, 3), resampled evenly; several radii are spread evenly along it."""
        points = np.asarray(path, dtype=np.float64)
        lengths = np.concatenate([[0.0], np.cumsum(np.sqrt(((points[1:] - points[:-1]) ** 2).sum(1)))])
        at = np.linspace(0.0, lengths[-1], BAR)
        self.paths.append(np.stack([np.interp(at, lengths, points[:, axis]) for axis in range(3)], axis=1))
        profile = np.atleast_1d(np.asarray(radius, dtype=np.float64))
        self.radii.append(np.interp(np.linspace(0, 1, BAR), np.linspace(0, 1, len(profile)), profile))
        self.parts.append(Part(len(self.paths) - 1, True, material, order, level, **options))  # type: ignore[arg-type]  # passed through

    def panel(
        self,
        contour: np.ndarray,
        thickness: tuple[float, float, float],
        material: int,
        order: int,
        level: float,
        **options: object,
    ) -> None:
        """Adds a panel with the front contour (CONTOUR, 3); its rear is the front moved by `thickness`."""
        self.contours.append(contour)
        self.thicknesses.append(thickness)
        self.parts.append(Part(len(self.contours) - 1, False, material, order, level, **options))  # type: ignore[arg-type]  # passed through

    def new_group(self) -> int:
        self.groups += 1
        return self.groups - 1


def superellipse(power: float) -> np.ndarray:
    """(CONTOUR, 2) points of |x|^power + |y|^power = 1: 2 is a circle, 8 nearly a square."""
    angle = np.arange(CONTOUR) * (2.0 * math.pi / CONTOUR)
    cosine, sine = np.cos(angle).round(12), np.sin(angle).round(12)  # a root would blow up 1e-17
    exponent = 2.0 / power
    return np.stack(
        [np.sign(cosine) * np.abs(cosine) ** exponent, np.sign(sine) * np.abs(sine) ** exponent], axis=1
    )


def closed(points: object) -> np.ndarray:
    """(CONTOUR, n) points evenly spaced along the closed polygon `points` (m, n)."""
    polygon = np.asarray(points, dtype=np.float64)
    polygon = np.concatenate([polygon, polygon[:1]])
    lengths = np.concatenate([[0.0], np.cumsum(np.sqrt(((polygon[1:] - polygon[:-1]) ** 2).sum(1)))])
    at = np.arange(CONTOUR) * (lengths[-1] / CONTOUR)
    return np.stack([np.interp(at, lengths, polygon[:, axis]) for axis in range(polygon.shape[1])], axis=1)


@dataclass(frozen=True, eq=False)
class View:
    """A projected scene in a square frame of side 1, y down; the chair is centred and fills the frame."""

    left: np.ndarray
    """(B, BAR, 2) one side of each bar."""
    right: np.ndarray
    centre: np.ndarray
    face: np.ndarray
    """(P, CONTOUR, 2) front contour of each panel."""
    rear: np.ndarray
    ground: np.ndarray
    """(CONTOUR, 2) the seat's shadow on the floor."""


def project(
    scene: Scene, azimuth: float, elevation: float, stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> View:
    """Projects with a weak perspective, after stretching the object along its axes."""
    paths, radii = np.stack(scene.paths), np.stack(scene.radii)
    contours = np.stack(scene.contours)
    rears = contours + np.array(scene.thicknesses)[:, None, :]
    shade = scene.footprint * np.array([1.1, 0.0, 1.1]) + np.array([0.14, 0.0, -0.12])
    bars, panels = len(paths), len(contours)
    points = np.concatenate([paths.reshape(-1, 3), contours.reshape(-1, 3), rears.reshape(-1, 3), shade])
    points = points * np.array(stretch)

    ca, sa, ce, se = math.cos(azimuth), math.sin(azimuth), math.cos(elevation), math.sin(elevation)
    across = points[:, 0] * ca + points[:, 2] * sa
    toward = points[:, 2] * ca - points[:, 0] * sa
    scale = VIEW_DISTANCE / (VIEW_DISTANCE - (toward * ce + points[:, 1] * se))
    flat = np.stack([across * scale, (toward * se - points[:, 1] * ce) * scale], axis=1)

    n = bars * BAR
    centre = flat[:n].reshape(bars, BAR, 2)
    tangent = np.empty_like(centre)
    tangent[:, 1:-1] = centre[:, 2:] - centre[:, :-2]
    tangent[:, 0] = centre[:, 1] - centre[:, 0]
    tangent[:, -1] = centre[:, -1] - centre[:, -2]
    # A bar seen end on has no tangent; any direction will do for it.
    tangent /= np.maximum(np.sqrt((tangent**2).sum(2, keepdims=True)), 1e-9)
    across_bar = np.stack([tangent[..., 1], -tangent[..., 0]], axis=2)
    across_bar *= radii[..., None] * scale[:n].reshape(bars, BAR, 1)
    left, right = centre - across_bar, centre + across_bar
    solid = flat[n : n + 2 * panels * CONTOUR]

    shown = np.concatenate([left.reshape(-1, 2), right.reshape(-1, 2), solid])
    low, high = shown.min(0), shown.max(0)
    side = (high - low).max()
    shift = 0.5 - (low + high) / (2.0 * side)

    def fit(array: np.ndarray) -> np.ndarray:
        return array / side + shift

    face, rear = fit(solid).reshape(2, panels, CONTOUR, 2)
    return View(fit(left), fit(right), fit(centre), face, rear, fit(flat[n + 2 * panels * CONTOUR :]))
