"""Augmentation of vector sketches and of photos.

Every sample brings its own generator, so its result depends on nothing else: not on the batch it is in, not on
the number of workers. Whether a pair is flipped is decided outside, because sketch and photo flip together; the
flip comes first, then what is random on each side. Configurations whose fields are all zero change nothing (a
photo is still resized).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from PIL import Image

from sketchynet.errors import InputError
from sketchynet.sketch import SketchBatch

_WAVES = 3
"""Sine waves whose sum is the smooth displacement."""
_DOT_INK = 0.01
"""Ink of a one-point stroke, as a length in the unit frame."""
_GREY = np.array([0.299, 0.587, 0.114])
"""Luma of R, G, B (ITU-R BT.601)."""


@dataclass(frozen=True)
class AffineAugmentation:
    """Random affine map about the centre of the frame; every factor is drawn evenly within its range."""

    rotation: float = 0.0
    """Greatest rotation, degrees, either way."""
    scale: float = 0.0
    """Greatest relative change of size: the factor lies in [1 / (1 + scale), 1 + scale], evenly in its logarithm."""
    aspect: float = 0.0
    """Greatest relative change of width over height, drawn as `scale` is; the area stays."""
    shear: float = 0.0
    """Greatest horizontal shear: x changes by up to shear × (y - centre)."""
    translation: float = 0.0
    """Greatest shift in x and in y, in units of the frame (1 = the whole side)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                continue
            if not (math.isfinite(value) and value >= 0):
                raise InputError(
                    f"{type(self).__name__}.{field.name} is {value}; expected a number of at least 0"
                )
            if field.name in _SHARES and value > 1:
                raise InputError(f"{type(self).__name__}.{field.name} is {value}; expected at most 1")

    def moves(self) -> bool:
        """Whether any of the affine fields is above zero."""
        return any((self.rotation, self.scale, self.aspect, self.shear, self.translation))


_SHARES = frozenset(
    (
        "stroke_dropout",
        "max_dropped_ink",
        "brightness",
        "contrast",
        "saturation",
        "grayscale",
        "erasing",
        "erased_area",
    )
)


@dataclass(frozen=True)
class SketchAugmentation(AffineAugmentation):
    """Random changes of a vector sketch, in the order of the fields."""

    jitter: float = 0.0
    """Greatest smooth displacement of the points, in units of the frame: a sum of waves of one to three periods a
    frame, the same for all strokes at one place, so that strokes that meet still meet."""
    noise: float = 0.0
    """Standard deviation of each point's own displacement, in units of the frame."""
    stroke_dropout: float = 0.0
    """Chance of a stroke to be left out. One stroke always stays; erasers do."""
    max_dropped_ink: float = 0.3
    """Greatest share of a sketch's ink (stroke length) that dropout may take."""


@dataclass(frozen=True)
class PhotoAugmentation(AffineAugmentation):
    """Random changes of a photo. `scale` and `translation` zoom and crop."""

    brightness: float = 0.0
    """Greatest relative change of brightness."""
    contrast: float = 0.0
    """Greatest relative change of contrast, about the photo's mean grey."""
    saturation: float = 0.0
    """Greatest relative change of saturation."""
    grayscale: float = 0.0
    """Chance of a photo to lose its colour."""
    erasing: float = 0.0
    """Chance of a rectangle to be filled with the photo's mean colour."""
    erased_area: float = 0.2
    """Greatest share of the area that the rectangle takes."""
    border: Literal["replicate", "white"] = "replicate"
    """What a moved photo shows beyond its edge."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.border not in ("replicate", "white"):
            raise InputError(f"PhotoAugmentation.border is {self.border!r}; expected 'replicate' or 'white'")


def augment_sketches(
    batch: SketchBatch,
    config: SketchAugmentation,
    generators: Sequence[np.random.Generator],
    flips: np.ndarray,
) -> SketchBatch:
    """The B sketches, each changed by its own generator; ids, widths and erasers are kept.

    generators: B of them. flips: bool (B,), left–right. Points may leave the frame, the rasteriser clips them.
    """
    _check_counts(len(batch), generators, flips)
    points = batch.points.copy()
    bounds = batch.point_offsets
    kept = np.ones(batch.num_strokes, dtype=bool)
    for b, generator in enumerate(generators):
        # Sketch by sketch, not all points at once: a result must not depend on its neighbours even in the last bit.
        own = slice(bounds[b], bounds[b + 1])
        points[own] = _move_points(points[own], config, generator, bool(flips[b]))
        if config.stroke_dropout:
            strokes = slice(batch.sketch_offsets[b], batch.sketch_offsets[b + 1])
            offsets = batch.stroke_offsets[strokes.start : strokes.stop + 1]
            erasers = None if batch.erasers is None else batch.erasers[strokes]
            kept[strokes] = _kept_strokes(batch.points, offsets, erasers, config, generator)
    if kept.all():
        return SketchBatch(
            points, batch.stroke_offsets, batch.sketch_offsets, batch.ids, batch.widths, batch.erasers
        )
    lengths = np.diff(batch.stroke_offsets)
    return SketchBatch(
        points[np.repeat(kept, lengths)],
        np.concatenate([[0], np.cumsum(lengths[kept])]),
        np.concatenate([[0], np.cumsum(kept)])[batch.sketch_offsets],
        batch.ids,
        None if batch.widths is None else batch.widths[kept],
        None if batch.erasers is None else batch.erasers[kept],
    )


def augment_photos(
    photos: np.ndarray,
    config: PhotoAugmentation,
    generators: Sequence[np.random.Generator],
    flips: np.ndarray,
    size: int,
) -> np.ndarray:
    """uint8 (B, size, size, 3): the photos resized to `size`, each changed by its own generator.

    photos: uint8 (B, H, W, 3). generators: B of them. flips: bool (B,), left–right.
    """
    if photos.dtype != np.uint8 or photos.ndim != 4 or photos.shape[3] != 3:
        raise InputError(f"photos are {photos.dtype} {photos.shape}; expected uint8 (B, H, W, 3)")
    _check_counts(len(photos), generators, flips)
    result = np.empty((len(photos), size, size, 3), dtype=np.uint8)
    for b, generator in enumerate(generators):
        photo = photos[b]
        if photo.shape[:2] != (size, size):
            photo = np.asarray(Image.fromarray(photo).resize((size, size), Image.Resampling.LANCZOS))
        if flips[b]:
            photo = photo[:, ::-1]
        if config.moves():
            photo = move_photo(photo, *_affine(config, generator), config.border)
        photo = _recolour(photo, config, generator)
        result[b] = photo
        if config.erasing and generator.random() < config.erasing:
            _erase(result[b], config, generator)
    return result


def _affine(config: AffineAugmentation, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (2, 2) and shift (2,): centre + matrix @ (point - centre) + shift, in units of the frame."""
    turn, size, aspect, shear, *shift = generator.uniform(-1.0, 1.0, size=6)
    angle = math.radians(config.rotation * turn)
    zoom = (1.0 + config.scale) ** size
    stretch = (1.0 + config.aspect) ** (aspect / 2)
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = np.array([[cos, -sin], [sin, cos]])
    form = np.array([[zoom * stretch, zoom * stretch * config.shear * shear], [0.0, zoom / stretch]])
    return rotation @ form, config.translation * np.array(shift)


def _move_points(
    points: np.ndarray, config: SketchAugmentation, generator: np.random.Generator, flip: bool
) -> np.ndarray:
    """float32 (N, 2) from float32 (N, 2)."""
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    if flip:
        x = 1.0 - x
    if config.moves():
        (a, b), (c, d) = (matrix := _affine(config, generator))[0]
        x, y = x - 0.5, y - 0.5
        x, y = a * x + b * y + 0.5 + matrix[1][0], c * x + d * y + 0.5 + matrix[1][1]
    if config.jitter:
        dx, dy = _smooth_displacement(x, y, generator)
        x, y = x + config.jitter * dx, y + config.jitter * dy
    moved = np.stack([x, y], axis=1)
    if config.noise:
        moved += generator.normal(scale=config.noise, size=moved.shape)
    return moved.astype(np.float32)


def _smooth_displacement(
    x: np.ndarray, y: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Displacements (N,) in x and y, each within [-1, 1]: means of waves over the plane."""
    direction = generator.uniform(0.0, 2 * np.pi, size=(2, _WAVES, 1))
    wave_number = 2 * np.pi * generator.uniform(1.0, 3.0, size=(2, _WAVES, 1))
    phase = generator.uniform(0.0, 2 * np.pi, size=(2, _WAVES, 1))
    waves = np.sin(wave_number * (np.cos(direction) * x + np.sin(direction) * y) + phase)
    dx, dy = waves.mean(axis=1)
    return dx, dy


def _kept_strokes(
    points: np.ndarray,
    offsets: np.ndarray,
    erasers: np.ndarray | None,
    config: SketchAugmentation,
    generator: np.random.Generator,
) -> np.ndarray:
    """bool (S,): the strokes of one sketch that stay. offsets int64 (S + 1,) into points."""
    count = len(offsets) - 1
    order = generator.permutation(count)
    wanted = generator.random(count) < config.stroke_dropout
    own = points[offsets[0] : offsets[-1]].astype(np.float64)
    steps = np.append(np.hypot(*np.diff(own, axis=0).T), 0.0)
    starts = offsets[:-1] - offsets[0]
    steps[offsets[1:] - 1 - offsets[0]] = 0.0  # the way from one stroke to the next is not drawn
    ink = np.maximum(np.add.reduceat(steps, starts), _DOT_INK)
    pens = np.ones(count, dtype=bool) if erasers is None else ~erasers
    allowed = config.max_dropped_ink * ink[pens].sum()
    left = int(pens.sum())
    kept = np.ones(count, dtype=bool)
    for stroke in order:
        if wanted[stroke] and pens[stroke] and ink[stroke] <= allowed and left > 1:
            kept[stroke] = False
            allowed -= ink[stroke]
            left -= 1
    return kept


def move_photo(photo: np.ndarray, matrix: np.ndarray, shift: np.ndarray, border: str) -> np.ndarray:
    """uint8 (size, size, 3): a square photo under an affine map, bilinear.

    A point, in units of the frame, goes to centre + matrix (2, 2) @ (point - centre) + shift (2,); `border` as in
    :class:`PhotoAugmentation`.
    """
    size = photo.shape[0]
    inverse = np.linalg.inv(matrix)
    # Pillow asks where an output pixel comes from, in pixels.
    origin = size / 2 - inverse @ (np.full(2, size / 2) + shift * size)
    pad = 0
    if border == "replicate":
        corners = np.array([[0, 0], [0, size], [size, 0], [size, size]]) @ inverse.T + origin
        pad = max(0, math.ceil(max(-corners.min(), corners.max() - size))) + 1
        photo = np.pad(photo, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    image = Image.fromarray(np.ascontiguousarray(photo))
    (a, b), (c, d) = inverse.tolist()
    coefficients = (a, b, float(origin[0]) + pad, c, d, float(origin[1]) + pad)
    moved = image.transform(
        (size, size),
        Image.Transform.AFFINE,
        coefficients,
        Image.Resampling.BILINEAR,
        fillcolor=(255, 255, 255),
    )
    return np.asarray(moved)


def _recolour(photo: np.ndarray, config: PhotoAugmentation, generator: np.random.Generator) -> np.ndarray:
    """One matrix for brightness, contrast, saturation and loss of colour."""
    if not any((config.brightness, config.contrast, config.saturation, config.grayscale)):
        return photo
    bright, contrast, saturation = generator.uniform(-1.0, 1.0, size=3)
    grey = generator.random() < config.grayscale
    brightness = 1.0 + config.brightness * bright
    gain = 1.0 + config.contrast * contrast
    colour = 0.0 if grey else 1.0 + config.saturation * saturation
    middle = float(_mean_colour(photo) @ _GREY)
    mix = brightness * gain * (colour * np.eye(3) + (1.0 - colour) * _GREY)
    offset = brightness * (1.0 - gain) * middle
    matrix = tuple(value for row in mix.tolist() for value in (*row, offset))
    return np.asarray(Image.fromarray(np.ascontiguousarray(photo)).convert("RGB", matrix))


def _erase(photo: np.ndarray, config: PhotoAugmentation, generator: np.random.Generator) -> None:
    """Fills a rectangle of uint8 (size, size, 3) in place."""
    size = photo.shape[0]
    share = config.erased_area * generator.uniform(0.1, 1.0)
    form = math.exp(generator.uniform(-1.0, 1.0) * math.log(2.0))
    height = min(size, max(1, int(size * math.sqrt(share * form))))
    width = min(size, max(1, int(size * math.sqrt(share / form))))
    top, left = generator.integers(0, (size - height + 1, size - width + 1))
    photo[top : top + height, left : left + width] = _mean_colour(photo)


def _mean_colour(photo: np.ndarray) -> np.ndarray:
    """Mean R, G, B of every 17th pixel: 17 divides no usual width, so the sample covers all columns."""
    return photo.reshape(-1, 3)[::17].mean(axis=0)


def _check_counts(count: int, generators: Sequence[np.random.Generator], flips: np.ndarray) -> None:
    if len(generators) != count or np.shape(flips) != (count,):
        raise InputError(
            f"{count} samples, {len(generators)} generators and flips of shape {np.shape(flips)}; "
            "expected one generator and one flip a sample"
        )
