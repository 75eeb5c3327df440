"""Reader of one's own catalogue: a folder of photos and a folder of drawings of them.

::

    photos/ID.jpg                    or photos/CATEGORY/ID.jpg; any picture format that Pillow reads
    sketches/ID.svg                  or sketches/CATEGORY/ID.svg: a drawing of photo ID
    sketches/ID_2.png, ID-3.svg …    more drawings of it: ID, then one of _ - . # or a space, then anything
    splits.csv                       optional: lines `photo,split`, photo ID or CATEGORY/ID, split train, validation
                                     or test

A drawing is `.svg`, a picture (dark ink on white or transparent), `.ndjson` (one drawing a line), `.json` or `.npz`,
see `sketchynet.data.drawing_files`. Retrieval runs within a category; without sub-folders there is one. Photos
without a drawing stay in the gallery. Without `splits.csv` a fifth of the photos of every category is tested on,
chosen by seed; with it, photos that it does not name are trained on.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sketchynet.data.drawing_files import VECTORS, lines_of, read_drawing_file
from sketchynet.data.listing import (
    RASTER_NOTE,
    Listing,
    PhotoFile,
    SketchFile,
    photos_by_id,
    switch,
    without_repeats,
)
from sketchynet.data.scan import IMAGES, files_below
from sketchynet.data.skips import Skips
from sketchynet.data.splits import SPLIT_NAMES, TRAIN
from sketchynet.errors import InputError

SEPARATORS = "_-.# "
PARTS = ("photos", "sketches")
DRAWINGS = (*(suffix for suffix in VECTORS if suffix != ".npy"), *IMAGES)


def find_folder(root: Path) -> Path | None:
    """`root` or its sub-folder `folder`, if photos and drawings lie there."""
    return next((f for f in (root, root / "folder") if all((f / part).is_dir() for part in PARTS)), None)


def list_folder(root: Path, options: Mapping[str, Any], skips: Skips) -> Listing:
    """The photos and drawings of a folder. Option `fit_photos` (bool, false): crop product photos on white to the
    object and fit it into the frame as drawings are."""
    for part in PARTS:
        if not (root / part).is_dir():
            raise InputError(f"{root}: there is no folder {part}/ here; photos/ID.jpg goes with sketches/ID.svg")
    photos = photos_by_id(
        (
            PhotoFile(_id(path, root / "photos"), path, _category(path, root / "photos"), TRAIN)
            for path in files_below(root / "photos", root, IMAGES, skips)
        ),
        skips,
    )
    if not photos:
        raise InputError(f"{root / 'photos'}: no picture in it; expected ID{', ID'.join(IMAGES)}")
    for id, split in _splits(root / "splits.csv", photos, skips):
        photo = photos[id]
        photos[id] = PhotoFile(id, photo.path, photo.category, split)
    found = []
    for path in files_below(root / "sketches", root, DRAWINGS, skips):
        name = _id(path, root / "sketches")
        photo_id = _photo_of(name, photos)
        if photo_id is None:
            # Named by the longest ID that such a name can have, to be told when it is needed.
            photo_id = name
            photos[name] = PhotoFile(name, None, _category(path, root / "sketches"), TRAIN)
        if path.suffix.lower() == ".ndjson":
            parts = lines_of(path)
            found += [SketchFile(f"{name}#{part.split('@')[0]}", path, photo_id, part) for part in parts]
        else:
            found.append(SketchFile(name, path, photo_id))
    notes = (RASTER_NOTE,) if any(sketch.path.suffix.lower() in IMAGES for sketch in found) else ()
    return Listing(
        "folder",
        tuple(photos.values()),
        without_repeats(found, skips),
        fit_photos=switch(options, "fit_photos"),
        notes=notes,
        read_sketch=read_drawing_file,
    )


def _id(path: Path, below: Path) -> str:
    return path.relative_to(below).with_suffix("").as_posix()


def _category(path: Path, below: Path) -> str:
    parent = path.parent.relative_to(below).as_posix()
    return "all" if parent == "." else parent


def _photo_of(name: str, photos: Mapping[str, PhotoFile]) -> str | None:
    """The photo that a drawing of this name shows: its own name, or the longest that a separator ends."""
    if name in photos and photos[name].path is not None:
        return name
    start = name.rfind("/") + 1
    for end in range(len(name) - 1, start, -1):
        if name[end] in SEPARATORS and name[:end] in photos and photos[name[:end]].path is not None:
            return name[:end]
    return None


def _splits(table: Path, photos: Mapping[str, PhotoFile], skips: Skips) -> Iterator[tuple[str, int]]:
    if not table.is_file():
        return
    seen: dict[str, int] = {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"photo", "split"} <= set(reader.fieldnames or ()):
                raise InputError(f"{table}: the first line has to read photo,split")
            for row in reader:
                where = f"{table}, line {reader.line_num}"
                photo, split = (row["photo"] or "").strip(), (row["split"] or "").strip()
                if split not in SPLIT_NAMES:
                    skips.add(f"{where}: split {split!r} is none of {', '.join(SPLIT_NAMES)}")
                elif photo not in photos:
                    skips.add(f"{where}: there is no photo {photo!r} in photos/; restore it or remove the line")
                elif photo in seen:
                    skips.add(f"{where}: {photo!r} stands in line {seen[photo]} already; remove one")
                else:
                    seen[photo] = reader.line_num
                    yield photo, SPLIT_NAMES.index(split)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read ({error}); it has to be UTF-8 text with commas") from error
