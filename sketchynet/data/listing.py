"""What a source of files offers: which photos and drawings there are, before any of them is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sketchynet.data.images import read_drawing
from sketchynet.data.skips import Skips
from sketchynet.data.splits import TRAIN
from sketchynet.errors import InputError
from sketchynet.sketch import Sketch


@dataclass(frozen=True)
class PhotoFile:
    """One photo: unique id, file, category name, official split (0 train, 1 validation, 2 test)."""

    id: str
    path: Path | None
    """None where drawings show a photo that is not there."""
    category: str
    split: int


@dataclass(frozen=True)
class SketchFile:
    """One drawing: unique id, file, id of the photo that it shows, and which drawing of the file it is."""

    id: str
    path: Path
    photo_id: str
    part: str = ""
    """Key or line number, in files that hold many drawings."""


def vectorized_drawing(file: SketchFile) -> Sketch:
    """The strokes of a raster drawing; their order is the vectoriser's convention, not the artist's."""
    # Imported here: scikit-image takes a second, and a set that is prepared already never needs it.
    from sketchynet.vectorize import vectorize

    try:
        return vectorize(read_drawing(file.path), id=file.id)
    except InputError as error:
        if str(file.path) in str(error):
            raise
        raise InputError(f"{file.path}: {error}") from error


@dataclass(frozen=True)
class Listing:
    """The files of one source. A reader returns it; `sketchynet.data.prepare` turns it into arrays.

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
    read_sketch: Callable[[SketchFile], Sketch] = field(default=vectorized_drawing)
    """Module-level function; called in worker processes."""
    refine: Callable[[Listing, bool], Listing] | None = None
    """(listing, whether to show progress) -> listing without the files that their content rules out."""

    @property
    def has_test(self) -> bool:
        """Whether the source itself says what is tested on."""
        return any(photo.split > TRAIN for photo in self.photos)


RASTER_NOTE = (
    "strokes come from raster drawings by vectorisation: their order is a convention, not the artist's"
)


def switch(options: Mapping[str, Any], name: str) -> bool:
    """An option that is on or off, off by default. InputError where it is anything else."""
    value = options.get(name, False)
    if not isinstance(value, bool):
        raise InputError(f"option {name}={value!r}: expected true or false")
    return value


def without_repeats(sketches: Iterable[SketchFile], skips: Skips) -> tuple[SketchFile, ...]:
    """The drawings, each id once; repeats go to `skips`."""
    seen: dict[str, SketchFile] = {}
    for sketch in sketches:
        first = seen.setdefault(sketch.id, sketch)
        if first is not sketch:
            skips.add(f"{sketch.path}: drawing {sketch.id!r} is in {first.path} too; rename or remove one")
    return tuple(seen.values())


def photos_by_id(photos: Iterable[PhotoFile], skips: Skips) -> dict[str, PhotoFile]:
    """The photos by id; a second file for an id goes to `skips`."""
    seen: dict[str, PhotoFile] = {}
    for photo in photos:
        first = seen.setdefault(photo.id, photo)
        if first is not photo:
            skips.add(f"{photo.path}: photo {photo.id!r} is in {first.path} too; rename or remove one")
    return seen
