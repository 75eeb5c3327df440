"""Reader of QMUL ShoeV2 and ChairV2, in the two forms in which they go around.

As published, one folder a set::

    ShoeV2_photo/2429245009.png              photo
    ShoeV2_sketch/2429245009_1.svg           drawing 1 of it (also ShoeV2_sketch_svg, ShoeV2_sketch_png, .png)
    photo_train.txt, photo_test.txt          names of the photos of each part, with or without suffix

Sorted, as most code of the field expects it::

    trainA/2429245009_1.png  testA/…         drawings, pictures
    trainB/2429245009.png    testB/…         photos
    ShoeV2_Coordinate                        the strokes: a pickle of {"/train/2429245009_1": (N, 3) float}, rows
                                             x, y, 1 where the pen lifts, in a frame of 256

ChairV2 is the same with `Chair` for `Shoe`. Where strokes are there they are read, else the pictures become
strokes by vectorisation. A drawing without a stroke entry is read from its picture. The stroke file alone is
enough for `sketchynet data info`; to train, its photos have to be there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sketchynet.data.drawing_files import pen_strokes, read_drawing_file
from sketchynet.data.listing import (
    RASTER_NOTE,
    Listing,
    PhotoFile,
    SketchFile,
    photos_by_id,
    switch,
    without_repeats,
)
from sketchynet.data.restricted import read_array_dict
from sketchynet.data.scan import IMAGES, files_below, first_folder, names_in
from sketchynet.data.skips import Skips
from sketchynet.data.splits import SPLIT_NAMES, TEST, TRAIN
from sketchynet.errors import InputError
from sketchynet.sketch import Sketch

# Most drawings have a number, a few the name of whoever drew them.
_SKETCH_NAME = re.compile(r"(.+)_([^_/]+)")
_STROKE_KEY = re.compile(r"/?(train|test)/(.+_[^_/]+)")
_PARTS = {"train": TRAIN, "test": TEST}
_SETS = {"ShoeV2": "shoe", "ChairV2": "chair"}


def find_qmul_v2(root: Path) -> Path | None:
    """The folder of one of the two sets, if `root` is or holds one."""
    for folder in (root, *(root / name for name in (*_SETS, "chairv2_strokes", "shoev2", "chairv2"))):
        if _stroke_file(folder) or (folder / "trainB").is_dir() or (folder / "testB").is_dir():
            return folder
        if any(first_folder(folder, f"{name}_photo") for name in _SETS):
            return folder
    return None


def list_qmul_v2(root: Path, options: Mapping[str, Any], skips: Skips) -> Listing:
    """The files of ShoeV2 or ChairV2 in `root`. Option `fit_photos` (bool, false): see `qmul_v1`."""
    name = next((name for name in _SETS if _named(root, name)), "ShoeV2")
    stroke_file = _stroke_file(root)
    if (root / "trainB").is_dir() or (root / "testB").is_dir() or not first_folder(root, f"{name}_photo"):
        photos, sketches = _sorted_form(root, stroke_file, skips)
    else:
        photos, sketches = _published_form(root, name, skips)
    category = _SETS[name]
    known = photos_by_id((PhotoFile(i, path, category, split) for i, path, split in photos), skips)
    found = []
    for sketch, split in sketches:
        match = _SKETCH_NAME.fullmatch(sketch.id)
        if match is None:
            skips.add(f"{sketch.path}: {sketch.id!r} is not named PHOTO_DRAWING; rename or remove it")
            continue
        photo_id = match[1]
        photo = known.setdefault(photo_id, PhotoFile(photo_id, None, category, split))
        if photo.split != split:
            skips.add(
                f"{sketch.path}: drawing {sketch.id!r} is in {SPLIT_NAMES[split]}, its photo in "
                f"{SPLIT_NAMES[photo.split]}; move one of them"
            )
            continue
        found.append(SketchFile(sketch.id, sketch.path, photo_id, sketch.part))
    notes = () if not any(s.path.suffix.lower() in IMAGES for s in found) else (RASTER_NOTE,)
    return Listing(
        name.lower(),
        tuple(known.values()),
        without_repeats(found, skips),
        fit_photos=switch(options, "fit_photos"),
        notes=notes,
        read_sketch=read_qmul_v2,
    )


def read_qmul_v2(file: SketchFile) -> Sketch:
    """The strokes of a drawing, from the stroke file or from a file of its own."""
    if not file.part:
        return read_drawing_file(file)
    state = file.path.stat()
    return pen_strokes(_strokes(file.path, state.st_mtime_ns, state.st_size)[file.part], file)


@lru_cache(maxsize=2)
def _strokes(path: Path, _changed: int, _size: int) -> dict[str, np.ndarray]:
    return read_array_dict(path)


def _named(root: Path, name: str) -> bool:
    stroke_file = _stroke_file(root)
    stroked = stroke_file is not None and stroke_file.name.startswith(name)
    return stroked or (root / f"{name}_photo").is_dir() or name.lower() in root.resolve().name.lower()


def _stroke_file(root: Path) -> Path | None:
    return next((root / f"{name}_Coordinate" for name in _SETS if (root / f"{name}_Coordinate").is_file()), None)


Photos = list[tuple[str, Path | None, int]]
Sketches = list[tuple[SketchFile, int]]


def _sorted_form(root: Path, stroke_file: Path | None, skips: Skips) -> tuple[Photos, Sketches]:
    photos: Photos = []
    sketches: Sketches = []
    stroked: set[tuple[str, int]] = set()
    if stroke_file is not None:
        for key in _strokes(stroke_file, stroke_file.stat().st_mtime_ns, stroke_file.stat().st_size):
            match = _STROKE_KEY.fullmatch(key)
            if match is None:
                skips.add(f"{stroke_file}: the key {key!r} is none of /train/PHOTO_DRAWING, /test/PHOTO_DRAWING")
                continue
            split = _PARTS[match[1]]
            stroked.add((match[2], split))
            sketches.append((SketchFile(match[2], stroke_file, "", key), split))
    for part, split in _PARTS.items():
        if (root / f"{part}B").is_dir():
            photos += [(p.stem, p, split) for p in files_below(root / f"{part}B", root, IMAGES, skips)]
        if (root / f"{part}A").is_dir():
            for path in files_below(root / f"{part}A", root, (".svg", *IMAGES), skips):
                if (path.stem, split) not in stroked:
                    sketches.append((SketchFile(path.stem, path, ""), split))
    return photos, sketches


def _published_form(root: Path, name: str, skips: Skips) -> tuple[Photos, Sketches]:
    split_of: dict[str, int] = {}
    for part, split in _PARTS.items():
        table = root / f"photo_{part}.txt"
        if not table.is_file():
            raise InputError(f"{table}: does not exist; it lists the photos of the {part} part, one name a line")
        for line in names_in(table, skips):
            stem = Path(line).stem if Path(line).suffix.lower() in IMAGES else line
            if split_of.setdefault(stem, split) != split:
                skips.add(f"{table}: photo {stem!r} is in photo_train.txt too; remove one")
    photos: Photos = []
    for path in files_below(root / f"{name}_photo", root, IMAGES, skips):
        if path.stem in split_of:
            photos.append((path.stem, path, split_of[path.stem]))
        else:
            skips.add(f"{path}: neither in photo_train.txt nor in photo_test.txt; add it to one or remove it")
    there = {id for id, *_ in photos}
    photos += [(id, None, split) for id, split in split_of.items() if id not in there]
    folder = first_folder(root, f"{name}_sketch_svg", f"{name}_sketch", f"{name}_sketch_png")
    if folder is None:
        raise InputError(f"{root}: there is no {name}_sketch/ beside {name}_photo/; the drawings belong there")
    paths = files_below(folder, root, (".svg",), skips) or files_below(folder, root, IMAGES, skips)
    sketches: Sketches = []
    for path in paths:
        match = _SKETCH_NAME.fullmatch(path.stem)
        if match is not None and match[1] not in split_of:
            skips.add(f"{path}: its photo {match[1]!r} is in neither list; add it to one or remove the drawing")
            continue
        sketches.append((SketchFile(path.stem, path, ""), split_of[match[1]] if match else TRAIN))
    return photos, sketches
