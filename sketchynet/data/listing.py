"""What a source of files offers: which photos and drawings there are, before any of them is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sketchynet.data.images import read_drawing
from sketchynet.errors import InputError
from sketchynet.sketch import Sketch


@dataclass(frozen=True)
class PhotoFile:
    """One photo: unique id, file, category name, official split (0 train, 1 validation, 2 test)."""

    id: str
    path: Path
    category: str
    split: int


@dataclass(frozen=True)
class SketchFile:
    """One drawing: unique id, file, id of the photo that it shows."""

    id: str
    path: Path
    photo_id: str


def vectorized_drawing(path: Path, id: str) -> Sketch:
    """The strokes of a raster drawing; their order is the vectoriser's convention, not the artist's."""
    # Imported here: scikit-image takes a second, and a set that is prepared already never needs it.
    from sketchynet.vectorize import vectorize

    try:
        return vectorize(read_drawing(path), id=id)
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error


@dataclass(frozen=True)
class Listing:
    """The files of one source. A reader returns it; `sketchynet.data.cache` turns it into arrays.

    Readers only look at names, so that a prepared set is found again at once; what needs the pixels goes into
    `refine`, which runs once, when the set is prepared.
    """

    name: str
    photos: tuple[PhotoFile, ...]
    sketches: tuple[SketchFile, ...]
    fit_photos: bool = False
    """Crop product photos on white to their object and fit it into the frame, as sketches are."""
    notes: tuple[str, ...] = ()
    """What a reader of the results should know."""
    read_sketch: Callable[[Path, str], Sketch] = field(default=vectorized_drawing)
    """Module-level function (file, sketch id) -> Sketch; called in worker processes."""
    refine: Callable[[Listing, bool], Listing] | None = None
    """(listing, whether to show progress) -> listing without the files that their content rules out."""
