"""Reader of FS-COCO: scenes drawn by 100 people, each drawing with its photo.

Layout as published, U the number of the person from 1 to 100::

    images/U/000000012345.jpg                photo
    vector_sketches/U/000000012345.npy       float (N, 3): x, y, and 1 where the pen lifts
    raster_sketches/U/000000012345.jpg       the same drawn; read only where the vectors are missing
    text/U/000000012345.txt                  caption; not used
    val_normal.txt, val_unseen_user.txt      numbers of the test photos, of every person or of people not trained on

The whole scene is one category: retrieval runs over all photos.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sketchynet.data.drawing_files import read_drawing_file
from sketchynet.data.listing import (
    RASTER_NOTE,
    Listing,
    PhotoFile,
    SketchFile,
    photos_by_id,
    without_repeats,
)
from sketchynet.data.scan import IMAGES, files_below, names_in
from sketchynet.data.skips import Skips
from sketchynet.data.splits import TEST, TRAIN
from sketchynet.errors import InputError

SPLITS = {"normal": "val_normal.txt", "unseen": "val_unseen_user.txt"}


def find_fscoco(root: Path) -> Path | None:
    """The folder of the set, if `root` is or holds it."""
    for folder in (root, root / "fscoco", root / "FS-COCO"):
        if (folder / "images").is_dir() and any(
            (folder / name).is_dir() for name in ("vector_sketches", "raster_sketches")
        ):
            return folder
    return None


def list_fscoco(root: Path, options: Mapping[str, Any], skips: Skips) -> Listing:
    """The photos and drawings below `root`. Option `split` ("normal" or "unseen", "normal"): which of the two
    split files says what is tested on."""
    chosen = options.get("split", "normal")
    if chosen not in SPLITS:
        raise InputError(f"option split={chosen!r} of fscoco: expected {' or '.join(SPLITS)}")
    table = root / SPLITS[chosen]
    if not table.is_file():
        raise InputError(f"{table}: does not exist; it lists the numbers of the test photos, one a line")
    tested: dict[str, int] = {}
    for name, line in names_in(table, skips).items():
        if name.isdecimal():
            tested[name.lstrip("0")] = line
        else:
            skips.add(f"{table}, line {line}: {name!r} is no number of a photo; correct or remove the line")
    photos = photos_by_id(
        (
            PhotoFile(path.stem, path, "scene", TEST if path.stem.lstrip("0") in tested else TRAIN)
            for path in files_below(root / "images", root, IMAGES, skips)
        ),
        skips,
    )
    for number in tested.keys() - {id.lstrip("0") for id in photos}:
        skips.add(f"{table}, line {tested[number]}: photo {number} is not in images/; restore it or remove the line")
    paths: dict[str, Path] = {}
    for folder, suffixes in (("raster_sketches", IMAGES), ("vector_sketches", (".npy",))):
        if (root / folder).is_dir():
            paths |= {f"{path.parent.name}/{path.stem}": path for path in files_below(root / folder, root, suffixes, skips)}
    found = []
    for id, path in paths.items():
        if path.stem not in photos:
            split = TEST if path.stem.lstrip("0") in tested else TRAIN
            photos[path.stem] = PhotoFile(path.stem, None, "scene", split)
        found.append(SketchFile(id, path, path.stem))
    notes = (RASTER_NOTE,) if any(sketch.path.suffix.lower() in IMAGES for sketch in found) else ()
    return Listing(
        "fscoco",
        tuple(photos.values()),
        without_repeats(found, skips),
        notes=notes,
        read_sketch=read_drawing_file,
    )
