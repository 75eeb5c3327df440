"""Reader of QMUL Shoe-V1 and Chair-V1 with their official train and test split.

Layout below the root (either this folder or its parent)::

    qmul_v1/pairs.csv                        category,split,id,photo,sketch
    qmul_v1/shoes/train/images/12.jpg        photo, 256×256 JPEG
    qmul_v1/shoes/train/sketches/12.png      line drawing of it, dark on white, 256×256 RGBA PNG
    qmul_v1_shoe_extra/sketches/012-2.jpg    optional: three more drawings of each shoe train photo,
                                             NNN-k.jpg, NNN the train id, 512×512 JPEG

`photo` and `sketch` in pairs.csv are paths from its own folder; an empty `sketch` makes the photo a gallery
distractor. Photo ids read "shoes/train/12"; the drawing in pairs.csv has its photo's id, an extra one
"shoes/train/12#2". The drawings are raster images: they become strokes by `sketchynet.vectorize`, so the order
of the strokes is that program's convention and not the order in which people drew.

Known leak of the official split, which is kept: chairs test 263 is the picture of chairs train 13.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sketchynet.data.images import InkShape, read_drawing
from sketchynet.data.listing import RASTER_NOTE, Listing, PhotoFile, SketchFile, switch
from sketchynet.data.scan import files_below
from sketchynet.data.skips import Skips
from sketchynet.data.splits import SPLIT_NAMES, TRAIN
from sketchynet.errors import InputError

COLUMNS = ("category", "split", "id", "photo", "sketch")
_EXTRA_NAME = re.compile(r"(\d+)-(\d+)\.jpg")


def find_qmul_v1(root: Path) -> Path | None:
    """`root` or its sub-folder `qmul_v1`, where pairs.csv with a column `split` lies."""
    for folder in (root / "qmul_v1", root):
        table = folder / "pairs.csv"
        if table.is_file():
            with table.open(encoding="utf-8", errors="replace") as file:
                if set(COLUMNS) <= set(file.readline().strip().split(",")):
                    return folder
    return None


def list_qmul_v1(root: Path, options: Mapping[str, Any], skips: Skips | None = None) -> Listing:
    """The files of QMUL-V1 below `root`.

    Options: `extra_sketches` (bool, false): add the extra shoe drawings, without those that are the drawing in
    pairs.csv again. `fit_photos` (bool, false): crop photos to the object and fit it into the frame as sketches
    are. `categories` (list of names, all): the categories to read.
    Raises InputError, naming file, line or option, for anything missing or wrong.
    """
    skips = Skips() if skips is None else skips
    table = _find_table(root)
    photos, sketches = _read_table(table, skips)
    photos, sketches = _choose_categories(photos, sketches, options.get("categories"), table)
    extra, fit = switch(options, "extra_sketches"), switch(options, "fit_photos")
    if extra:
        sketches = sketches + _extra_sketches(table.parent.parent / "qmul_v1_shoe_extra" / "sketches", photos)
    refine = drop_repeated_drawings if extra else None
    return Listing("qmul_v1", photos, sketches, fit_photos=fit, notes=(RASTER_NOTE,), refine=refine)


def find_shoe_extra(root: Path) -> Path | None:
    """`root` or its sub-folder, where only the extra shoe drawings lie."""
    for folder in (root, root / "qmul_v1_shoe_extra"):
        if (folder / "sketches").is_dir() and not (folder / "photos").is_dir():
            first = min((path.name for path in (folder / "sketches").iterdir()), default="")
            if _EXTRA_NAME.fullmatch(first):
                return folder
    return None


def list_shoe_extra(root: Path, options: Mapping[str, Any], skips: Skips) -> Listing:
    """The extra shoe drawings alone, with the photos of `qmul_v1/` where it lies beside them."""
    table = root.parent / "qmul_v1" / "pairs.csv"
    photos = _read_table(table, skips)[0] if table.is_file() else ()
    known = {photo.id: photo for photo in photos if photo.category == "shoes" and photo.split == TRAIN}
    found = []
    for path in files_below(root / "sketches", root, (".jpg",), skips):
        match = _EXTRA_NAME.fullmatch(path.name)
        if match is None:
            skips.add(f"{path}: not named NNN-k.jpg (NNN the train id of the shoe); rename or remove it")
            continue
        id = f"shoes/train/{int(match[1])}"
        known.setdefault(id, PhotoFile(id, None, "shoes", TRAIN))
        found.append(SketchFile(f"{id}#{int(match[2])}", path, id))
    return Listing("qmul_v1_shoe_extra", tuple(known.values()), tuple(found), notes=(RASTER_NOTE,))


def drop_repeated_drawings(listing: Listing, progress: bool) -> Listing:
    """Leaves out every extra drawing that is, up to size and smoothing, an earlier drawing of the same photo."""
    groups: dict[str, list[SketchFile]] = {}
    for sketch in listing.sketches:
        groups.setdefault(sketch.photo_id, []).append(sketch)
    repeated = set()
    again_official = 0
    several = [group for group in groups.values() if len(group) > 1]
    for group in tqdm(several, desc="comparing drawings", unit="photo", disable=not progress):
        kept: list[tuple[SketchFile, InkShape]] = []
        for sketch in group:
            shape = InkShape(read_drawing(sketch.path))
            same = next((other for other, known in kept if shape.same_drawing(known)), None)
            if same is None or "#" not in sketch.id:
                kept.append((sketch, shape))
                continue
            repeated.add(sketch.id)
            again_official += "#" not in same.id
    extra = sum("#" in sketch.id for sketch in listing.sketches)
    note = (
        f"of {extra} extra drawings {len(repeated)} left out: {again_official} are the drawing in pairs.csv again, "
        f"{len(repeated) - again_official} repeat another extra drawing"
    )
    remaining = tuple(sketch for sketch in listing.sketches if sketch.id not in repeated)
    return replace(listing, sketches=remaining, notes=(*listing.notes, note), refine=None)


def _find_table(root: Path) -> Path:
    candidates = (root / "qmul_v1" / "pairs.csv", root / "pairs.csv")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(
        f"{root}: no QMUL-V1 data here; looked for {candidates[0]} and {candidates[1]}. "
        "Pass --data DIR or set SKETCHYNET_DATA to the folder that holds qmul_v1/"
    )


def _read_table(table: Path, skips: Skips) -> tuple[tuple[PhotoFile, ...], tuple[SketchFile, ...]]:
    photos: dict[str, PhotoFile] = {}
    sketches = []
    try:
        with table.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{table}: no column {missing[0]!r}; the first line has to read {','.join(COLUMNS)}"
                )
            for row in reader:
                with skips.catch():
                    photo, sketch = _read_row(row, table, reader.line_num, photos)
                    photos[photo.id] = photo
                    if sketch is not None:
                        sketches.append(sketch)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read ({error}); it has to be UTF-8 text with commas") from error
    if not photos:
        raise InputError(f"{table}: lists no photo; expected lines of {','.join(COLUMNS)}")
    return tuple(photos.values()), tuple(sketches)


def _read_row(
    row: dict[str, str], table: Path, line: int, known: Mapping[str, PhotoFile]
) -> tuple[PhotoFile, SketchFile | None]:
    where = f"{table}, line {line}"
    empty = [column for column in COLUMNS[:4] if not row[column]]
    if empty or row["sketch"] is None:
        raise InputError(f"{where}: no {(empty or ['sketch'])[0]}; give all of {','.join(COLUMNS)}")
    if row["split"] not in SPLIT_NAMES:
        raise InputError(f"{where}: split {row['split']!r} is none of {', '.join(SPLIT_NAMES)}")
    id = f"{row['category']}/{row['split']}/{row['id']}"
    if id in known:
        raise InputError(f"{where}: {id} occurs a second time; give every photo one line")
    path = _existing(table.parent, row["photo"], where, "photo")
    photo = PhotoFile(id, path, row["category"], SPLIT_NAMES.index(row["split"]))
    if not row["sketch"]:
        return photo, None
    return photo, SketchFile(id, _existing(table.parent, row["sketch"], where, "sketch"), id)


def _existing(folder: Path, name: str, where: str, what: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise InputError(f"{where}: {what} {path} does not exist; restore the file or remove the line")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{where}: {what} {path.resolve()} lies outside of {folder}; put the file itself there")
    return path


def _choose_categories(
    photos: tuple[PhotoFile, ...], sketches: tuple[SketchFile, ...], wanted: Any, table: Path
) -> tuple[tuple[PhotoFile, ...], tuple[SketchFile, ...]]:
    if wanted is None:
        return photos, sketches
    known = sorted({photo.category for photo in photos})
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InputError(
            f"option categories={wanted!r}: {table} has {', '.join(known)}; name at least one of them"
        )
    chosen = tuple(photo for photo in photos if photo.category in names)
    ids = {photo.id for photo in chosen}
    return chosen, tuple(sketch for sketch in sketches if sketch.photo_id in ids)


def _extra_sketches(folder: Path, photos: tuple[PhotoFile, ...]) -> tuple[SketchFile, ...]:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: the extra shoe drawings are not here; put them here as NNN-k.jpg or leave out extra_sketches"
        )
    ids = {photo.id for photo in photos}
    sketches = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        match = _EXTRA_NAME.fullmatch(path.name)
        if match is None:
            raise InputError(
                f"{path}: not named NNN-k.jpg (NNN the train id of the shoe); rename or remove it"
            )
        photo_id = f"shoes/train/{int(match[1])}"
        if photo_id in ids:
            sketches.append(SketchFile(f"{photo_id}#{int(match[2])}", path, photo_id))
        elif any(photo.category == "shoes" for photo in photos):
            raise InputError(
                f"{path}: there is no photo {photo_id} in pairs.csv; rename or remove the drawing"
            )
    return tuple(sketches)
