"""Reading image files, and telling which of them show the same picture."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from sketchynet.errors import InputError
from sketchynet.sketch import FRAME_MARGIN

NEAR_EQUAL = 3.0
"""Root-mean-square difference (of 255, 64×64 thumbnails) up to which two photos are one picture. A saved-again
JPEG differs by about 1; the closest two different photos of QMUL-V1 by more than 7."""
SAME_DRAWING = 1.8
"""Mean distance (pixels of a 128×128 frame fitted to the ink) up to which two drawings are one. The same drawing
in another size, line width and smoothing differs by at most 1.5; other drawings of the same shoe by 2 and more."""
_INK_BELOW = 200
_OBJECT_BELOW = 240
"""A pixel with a channel darker than this belongs to the object of a product photo, not to its white ground."""


def read_photo(path: Path, size: int, *, fit: bool = False, file: IO[bytes] | None = None) -> np.ndarray:
    """uint8 (size, size, 3), RGB: the photo, turned upright, on white where it is transparent.

    The aspect ratio is kept; what is left of the square is white. With `fit`, a product photo on white is
    cropped to the object and fitted into the frame as sketches are (FRAME_MARGIN), so that both show the object
    in one size. With `file`, its content is read from there. Raises InputError, naming the file, where it is missing
    or cannot be decoded.
    """
    image = _open(path, "RGB", file)
    box = _object_box(image) if fit else None
    if box is not None:
        image = image.crop(box)
    if box is not None or image.size != (size, size):
        scale = size * (1.0 if box is None else 1.0 - 2.0 * FRAME_MARGIN) / max(image.size)
        width, height = (max(1, round(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
        if image.size != (size, size):
            square = Image.new("RGB", (size, size), "white")
            square.paste(image, ((size - width) // 2, (size - height) // 2))
            image = square
    return np.asarray(image)


def _object_box(image: Image.Image) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of what is not (nearly) white; None for a blank photo."""
    y, x = np.nonzero(np.asarray(image).min(axis=2) < _OBJECT_BELOW)
    return (int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1) if len(x) else None


def read_drawing(path: Path) -> np.ndarray:
    """uint8 (H, W): the drawing in grey, dark ink on white. Raises InputError where it is blank or unreadable."""
    drawing = np.asarray(_open(path, "L"))
    if drawing.min() == drawing.max():
        raise InputError(
            f"{path}: the drawing holds no ink (every pixel is {drawing.min()}); redraw or remove it"
        )
    return drawing


def same_pictures(photos: np.ndarray) -> np.ndarray:
    """int64 (P,): a number for each photo, equal where two photos are equal or nearly so (NEAR_EQUAL).

    photos uint8 (P, H, W, 3). The number is the index of the first photo with that picture.
    """
    small = np.stack([_thumbnail(photo, 16) for photo in photos])
    flat = small.reshape(len(photos), -1)
    squares = (flat * flat).sum(axis=1)
    number = np.arange(len(photos))
    for start in range(0, len(photos), 512):
        rows = slice(start, start + 512)
        gaps = squares[rows, None] + squares[None, :] - 2.0 * (flat[rows] @ flat.T)
        # Averaging shrinks differences: what is equal at 64×64 is nearer still at 16×16. One unit for rounding.
        near = np.argwhere(gaps <= (NEAR_EQUAL + 1.0) ** 2 * flat.shape[1])
        for first, second in near + (start, 0):
            if (
                first < second
                and number[first] != number[second]
                and _near_equal(photos[first], photos[second])
            ):
                low, high = sorted((number[first], number[second]))
                number[number == high] = low
    return number.astype(np.int64)


class InkShape:
    """A drawing's ink in a 128×128 frame that is fitted to it, for comparison with other drawings."""

    def __init__(self, drawing: np.ndarray) -> None:
        """drawing: uint8 (H, W), dark on white, with ink."""
        y, x = np.nonzero(drawing < max(_INK_BELOW, int(drawing.min()) + 1))
        self.ink = np.zeros((128, 128), dtype=bool)
        self.ink[_fit(y), _fit(x)] = True
        self.distance = ndimage.distance_transform_edt(~self.ink)

    def difference(self, other: InkShape) -> float:
        """Mean symmetric distance between the two inks, in pixels of the frame."""
        return float(other.distance[self.ink].mean() + self.distance[other.ink].mean()) / 2

    def same_drawing(self, other: InkShape) -> bool:
        """Whether both are one drawing, whatever its size, place, line width and smoothing."""
        return self.difference(other) <= SAME_DRAWING


def _open(path: Path, mode: str, content: IO[bytes] | None = None) -> Image.Image:
    """The decoded picture in `mode` (RGB or L), turned upright, transparent parts white."""
    try:
        with warnings.catch_warnings():
            # Pillow only warns of a picture up to twice its limit; it would be decoded all the same.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(content or path) as file:
                image = ImageOps.exif_transpose(file)
                if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                    image = image.convert("RGBA")
                    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
                return image.convert(mode)
    except FileNotFoundError as error:
        raise InputError(f"{path}: the image does not exist; restore it or remove its entry") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"{path}: the image has too many pixels ({error}); scale it down to at most "
            f"{Image.MAX_IMAGE_PIXELS or 0:,} pixels or remove its entry"
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, IndexError, OverflowError) as error:
        # Pillow tells a broken file by any of these, depending on the format.
        fault = "no picture format that is known" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(
            f"{path}: the image cannot be read ({fault}); it may be truncated: fetch it again or remove its entry"
        ) from error


def _thumbnail(photo: np.ndarray, size: int) -> np.ndarray:
    """float32 (size, size, 3) by area averaging; a smaller photo keeps its own size."""
    if max(photo.shape[:2]) > size:
        photo = np.asarray(Image.fromarray(photo).resize((size, size), Image.Resampling.BOX))
    return photo.astype(np.float32)


def _near_equal(first: np.ndarray, second: np.ndarray) -> bool:
    gap = _thumbnail(first, 64) - _thumbnail(second, 64)
    return float(np.sqrt(np.mean(gap * gap))) <= NEAR_EQUAL


def _fit(values: np.ndarray) -> np.ndarray:
    span = max(1, int(values.max() - values.min()))
    return np.rint((values - values.min()) * (127 / span)).astype(np.int64)
