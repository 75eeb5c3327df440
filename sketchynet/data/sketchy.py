"""Reader of the Sketchy database: photos of 125 categories and drawings of them, as SVG or PNG.

As published, unpacked side by side::

    256x256/photo/tx_000000000000/elephant/n02503517_10036.jpg       photo (tx_000000000000: as it is)
    256x256/sketch/tx_000000000000/elephant/n02503517_10036-8.png    drawing 8 of it
    sketches/elephant/n02503517_10036-8.svg                          the same as strokes, 640×480; white strokes erase
    info/testset.txt                                                 test photos, elephant/n02503517_10036.jpg a line
    info/invalid-error.txt, invalid-ambiguous.txt,                   drawings found wrong, n02503517_10036-8 a line
    info/invalid-context.txt, invalid-pose.txt

and in the short form `photos/CATEGORY/PHOTO.jpg` with `sketches/CATEGORY/PHOTO-K.svg` or `.png`. SVG files are
preferred. Drawings in the list of erroneous ones (also `sketches/CATEGORY/invalid.txt`, which comes with the SVG
files) are left out and counted, those in the other lists by option. Without `info/testset.txt` there
is no official split: a tenth of the photos of every category is tested on, chosen by seed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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
from sketchynet.data.scan import IMAGES, files_below, first_folder, names_in
from sketchynet.data.skips import Skips
from sketchynet.data.splits import TEST, TRAIN
from sketchynet.errors import InputError

_SKETCH_NAME = re.compile(r"(.+)-(\d+)")
_PHOTO_NAME = re.compile(r"n\d+_\d+|ext_\d+")
_PLAIN = "tx_000000000000"
_DRAWING_NAME = re.compile(rf"({_PHOTO_NAME.pattern})-\d+")
LISTS = ("error", "ambiguous", "context", "pose")
"""Why a drawing may stand in an `info/invalid-*.txt`."""


def find_sketchy(root: Path) -> Path | None:
    """The folder of the database, if `root` is or holds one."""
    for folder in (root, root / "sketchy", root / "Sketchy"):
        photos, sketches = _folders(folder)
        if photos is None or sketches is None:
            continue
        if _all_named(photos, _PHOTO_NAME) and _all_named(sketches, _DRAWING_NAME):
            return folder
    return None


def _all_named(parent: Path, pattern: re.Pattern[str]) -> bool:
    """Whether the first files of the first category, lists aside, are named so."""
    category = next((entry for entry in sorted(parent.iterdir()) if entry.is_dir()), None)
    names = [p.stem for p in sorted(category.iterdir())[:50] if p.suffix != ".txt"] if category else []
    return bool(names) and all(pattern.fullmatch(name) for name in names if not name.startswith("."))


def list_sketchy(root: Path, options: Mapping[str, Any], skips: Skips) -> Listing:
    """The photos and drawings below `root`.

    Options: `leave_out` (names of LISTS joined by commas, "error"): the lists of wrong drawings that are honoured.
    """
    wanted = [name.strip() for name in str(options.get("leave_out", "error")).split(",") if name.strip()]
    unknown = [name for name in wanted if name not in LISTS]
    if unknown:
        raise InputError(f"option leave_out={unknown[0]!r} of sketchy: the lists are {', '.join(LISTS)}")
    photo_folder, sketch_folder = _folders(root)
    if photo_folder is None or sketch_folder is None:
        raise InputError(f"{root}: no Sketchy database here; expected photos/ and sketches/, or 256x256/")
    tested = _test_photos(root, skips)
    photos = photos_by_id(
        (
            PhotoFile(id, path, path.parent.name, TEST if id in tested else TRAIN)
            for path in files_below(photo_folder, root, IMAGES, skips)
            for id in [f"{path.parent.name}/{path.stem}"]
        ),
        skips,
    )
    wrong = dict(_wrong_drawings(root, sketch_folder, wanted, skips))
    paths = files_below(sketch_folder, root, (".svg",), skips) or files_below(sketch_folder, root, IMAGES, skips)
    found, left_out = [], dict.fromkeys(wrong.values(), 0)
    for path in paths:
        category, match = path.parent.name, _SKETCH_NAME.fullmatch(path.stem)
        if match is None:
            skips.add(f"{path}: not named PHOTO-NUMBER; rename or remove it")
            continue
        reason = wrong.get(path.stem) or wrong.get(f"{category}/{path.stem}")
        if reason:
            left_out[reason] += 1
            continue
        photo_id = f"{category}/{match[1]}"
        if photo_id not in photos:
            photos[photo_id] = PhotoFile(photo_id, None, category, TEST if photo_id in tested else TRAIN)
        found.append(SketchFile(f"{category}/{path.stem}", path, photo_id))
    notes = [f"{count} drawings left out, as {reason} lists them" for reason, count in left_out.items() if count]
    if any(sketch.path.suffix.lower() in IMAGES for sketch in found):
        notes.append(RASTER_NOTE)
    return Listing(
        "sketchy",
        tuple(photos.values()),
        without_repeats(found, skips),
        notes=tuple(notes),
        read_sketch=read_drawing_file,
    )


def _folders(root: Path) -> tuple[Path | None, Path | None]:
    """Where photos and drawings lie, each with one folder a category."""
    photos = first_folder(root, "photos", f"256x256/photo/{_PLAIN}", f"photo/{_PLAIN}", f"rendered_256x256/256x256/photo/{_PLAIN}")
    sketches = first_folder(root, "sketches", f"256x256/sketch/{_PLAIN}", f"sketch/{_PLAIN}", f"rendered_256x256/256x256/sketch/{_PLAIN}")
    return photos, sketches


def _test_photos(root: Path, skips: Skips) -> set[str]:
    table = root / "info" / "testset.txt"
    if not table.is_file():
        return set()
    return {name.rpartition(".")[0] if "." in name else name for name in names_in(table, skips)}


def _wrong_drawings(root: Path, sketches: Path, wanted: list[str], skips: Skips) -> Iterator[tuple[str, str]]:
    """(drawing, list that calls it wrong); a drawing is named by stem, or by category and stem."""
    for reason in wanted:
        table = root / "info" / f"invalid-{reason}.txt"
        if table.is_file():
            for name in names_in(table, skips):
                yield name.removesuffix(".svg").removesuffix(".png"), f"info/{table.name}"
    if "error" in wanted:
        for table in sorted(sketches.glob("*/invalid.txt")):
            for name in names_in(table, skips):
                stem = name.removesuffix(".svg").removesuffix(".png")
                yield f"{table.parent.name}/{stem}", "sketches/*/invalid.txt"
