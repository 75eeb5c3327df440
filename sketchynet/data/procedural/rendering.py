"""Renders a chair as a shaded photo with Pillow and numpy."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sketchynet.data.procedural.parameters import Chair
from sketchynet.data.procedural.scene import FABRIC, HOLE, LINE, METAL, WOOD, Part, Scene, View, project

SUPERSAMPLING = 4


def _colour(base: np.ndarray, shade: float) -> tuple[int, int, int]:
    """`base` darkened (shade < 1) or lightened towards white (shade > 1)."""
    value = base * shade if shade <= 1.0 else base + (255.0 - base) * (shade - 1.0)
    red, green, blue = value.tolist()
    return min(255, max(0, int(red))), min(255, max(0, int(green))), min(255, max(0, int(blue)))


def _ground(rng: np.random.Generator, size: int, scenic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Background (size, size, 3) float and its mean colour."""
    rows = np.linspace(0.0, 1.0, size)[:, None, None]
    if not scenic:
        colour = 255.0 - rng.uniform(0.0, 10.0, 3) * rng.random()
        picture = colour - 8.0 * rng.random() * rows**2
    else:
        wall, floor = (
            205.0 + rng.uniform(-35, 35) + rng.uniform(-14, 14, 3),
            190.0 + rng.uniform(-40, 35) + rng.uniform(-18, 12, 3),
        )
        horizon = rng.uniform(0.55, 0.78)
        picture = np.where(rows < horizon, wall - 20.0 * (rows - 0.3), floor + 30.0 * (rows - 0.8))
    picture = (
        np.broadcast_to(picture, (size, size, 3))
        + rng.uniform(-7, 7) * np.linspace(-1, 1, size)[None, :, None]
    )
    return picture, picture.mean((0, 1))


def render(chair: Chair, scene: Scene, rng: np.random.Generator, size: int, scenic: bool) -> np.ndarray:
    """uint8 (size, size, 3)."""
    view = project(scene, chair.azimuth, chair.elevation)
    scale = rng.uniform(0.8, 0.9)
    offset = 0.5 - 0.5 * scale + rng.uniform(-0.03, 0.03, 2)
    ground, mean = _ground(rng, size, scenic)

    shadow = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(shadow)
    draw.polygon(((view.ground * scale + offset) * size).ravel().tolist(), fill=int(rng.integers(45, 100)))
    shade = np.asarray(shadow.filter(ImageFilter.GaussianBlur(size * 0.03)), dtype=np.float32)[..., None]
    # Rounded before pasting, so that the same bytes come out wherever the last digits differ.
    ground = np.clip(np.rint(ground * (1.0 - shade / 255.0)), 0, 255).astype(np.uint8)

    fine = size * SUPERSAMPLING
    picture = Image.fromarray(ground).resize((fine, fine), Image.Resampling.NEAREST)
    cloth = Image.new("L", (fine // 2, fine // 2), 0)
    _paint(
        ImageDraw.Draw(picture),
        ImageDraw.Draw(cloth),
        chair,
        scene.parts,
        view,
        fine * scale,
        offset * fine,
        mean,
        rng,
    )
    small = np.asarray(picture.reduce(SUPERSAMPLING), dtype=np.float32)
    mask = np.asarray(cloth.reduce(SUPERSAMPLING // 2), dtype=np.float32)[..., None] / 255.0
    texture = _texture(rng, size, 0 if chair.infill == "weave" else chair.pattern)[..., None]
    light = 1.0 + rng.uniform(-0.05, 0.05) + rng.normal(0.0, 0.012, 3)
    noisy = small * (1.0 + mask * texture) * light + rng.normal(0.0, 1.2, (size, size, 1))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, size: int, pattern: int) -> np.ndarray:
    """(size, size) relative brightness of cloth: plain, coarse weave, stripes or checks."""
    weave = rng.normal(0.0, 0.035, (size, size))
    x = np.arange(size) * (128.0 / size)
    period, turn = rng.uniform(4.0, 9.0), rng.uniform(-0.5, 0.5)
    if pattern == 1:
        weave *= 1.6
    if pattern == 2:
        weave += 0.09 * (((x[None, :] + turn * x[:, None]) / period % 1.0) < 0.45)
    if pattern == 3:
        weave -= 0.06 * ((x[None, :] / period % 1.0) < 0.4) + 0.06 * ((x[:, None] / period % 1.0) < 0.4)
    return weave


def _paint(
    draw: ImageDraw.ImageDraw,
    cloth: ImageDraw.ImageDraw,
    chair: Chair,
    parts: list[Part],
    view: View,
    scale: float,
    offset: np.ndarray,
    ground: np.ndarray,
    rng: np.random.Generator,
) -> None:
    wood, fabric = np.array(chair.wood, dtype=np.float64), np.array(chair.fabric, dtype=np.float64)
    on_cloth = chair.upholstered or chair.infill == "weave" and chair.back != "panel"
    seam = fabric if on_cloth else wood
    # A seam on dark cloth is light, or nobody could see it.
    seam = seam * 0.5 if seam.sum() > 210 else seam + 90.0
    bright = sum(chair.wood) > 240
    base = {
        WOOD: wood,
        FABRIC: fabric,
        METAL: np.array([120.0, 123.0, 128.0]) if bright else wood * 0.8,
        LINE: seam,
        HOLE: 0.9 * ground,
    }
    left, right, centre = (points * scale + offset for points in (view.left, view.right, view.centre))
    face, rear = view.face * scale + offset, view.rear * scale + offset
    tones = 1.0 + rng.normal(0.0, 0.025, len(parts))
    for part, tone in zip(parts, tones, strict=True):
        if not part.painted:
            continue
        colour = base[part.material] * tone
        if part.is_bar:
            a, b, middle = left[part.row], right[part.row], centre[part.row]
            if (a - middle).sum() > 0:  # the light falls from the upper left
                a, b = b, a
            _polygon(draw, a, b, _colour(colour, 0.86))
            if part.material != LINE:
                _polygon(draw, 0.4 * a + 0.6 * b, b, _colour(colour, 0.62))
                _polygon(
                    draw,
                    0.85 * a + 0.15 * b,
                    0.55 * a + 0.45 * b,
                    _colour(colour, 1.25 if part.material == METAL else 1.08),
                )
            if part.material != LINE:
                cloth.polygon((0.5 * np.concatenate([a, b[::-1]])).ravel().tolist(), fill=0)
            continue
        front, back = face[part.row], rear[part.row]
        solid = bool(np.abs(front - back).max() > 0.5)
        if solid:
            _sides(draw, front, back, colour)
            cloth.polygon((back * 0.5).ravel().tolist(), fill=160 if part.material == FABRIC else 0)
        shade = 0.97 if part.order else 0.88
        draw.polygon(front.ravel().tolist(), fill=_colour(colour, shade))
        cloth.polygon((front * 0.5).ravel().tolist(), fill=255 if part.material == FABRIC else 0)
        if part.material in (FABRIC, WOOD) and solid:
            middle = front.mean(0) + (back - front).mean(0) * 0.1
            steps = 5 if part.material == FABRIC else 2
            for step in range(1, steps + 1):  # the face lightens towards its middle
                inner = middle + (front - middle) * (1.0 - 0.13 * step)
                draw.polygon(inner.ravel().tolist(), fill=_colour(colour, shade + 0.025 * step))
        if part.material == WOOD and solid:
            _grain(draw, front, colour, shade, rng)


def _polygon(draw: ImageDraw.ImageDraw, a: np.ndarray, b: np.ndarray, fill: tuple[int, int, int]) -> None:
    draw.polygon(np.concatenate([a, b[::-1]]).ravel().tolist(), fill=fill)


def _sides(draw: ImageDraw.ImageDraw, front: np.ndarray, back: np.ndarray, colour: np.ndarray) -> None:
    """The narrow sides of a panel, each edge shaded by its direction."""
    draw.polygon(back.ravel().tolist(), fill=_colour(colour, 0.6))
    after, back_after = np.roll(front, -1, axis=0), np.roll(back, -1, axis=0)
    edge = after - front
    slope = np.abs(edge[:, 0]) / np.maximum(np.abs(edge).sum(1), 1e-9)
    quads = np.concatenate([front, after, back_after, back], axis=1).tolist()
    fills = np.clip((0.55 + 0.2 * slope.round(2))[:, None] * colour, 0, 255).astype(np.int64).tolist()
    for quad, fill in zip(quads, fills, strict=True):
        draw.polygon(quad, fill=tuple(fill))


def _grain(
    draw: ImageDraw.ImageDraw, front: np.ndarray, colour: np.ndarray, shade: float, rng: np.random.Generator
) -> None:
    """A few darker streaks from edge to edge."""
    n = len(front)
    width = max(1, int(np.ptp(front[:, 0]) / 120))
    for at in rng.integers(2, n // 2 - 1, 6).tolist():
        a, b = front[at], front[-at]
        ends = np.concatenate([a + (b - a) * 0.1, a + (b - a) * 0.9])
        draw.line(ends.tolist(), fill=_colour(colour, shade - 0.07), width=width)
