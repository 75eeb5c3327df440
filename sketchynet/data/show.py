"""A contact sheet of a data set: photos beside the drawings of them, as the system sees both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sketchynet.data.detection import DRAWING_SOURCES, Detected
from sketchynet.data.images import read_photo
from sketchynet.data.skips import Skips
from sketchynet.data.sources import list_source
from sketchynet.errors import InputError
from sketchynet.raster import rasterize
from sketchynet.sketch import Sketch, SketchBatch

TILE = 192
"""Side of a photo and of a drawing, pixels."""
_CAPTION, _GAP = 20, 12
_GREY = (232, 232, 232)


@dataclass(frozen=True)
class _Cell:
    caption: str
    photo: np.ndarray | None
    """uint8 (TILE, TILE, 3); None where there is none."""
    drawing: Sketch


def contact_sheet(
    found: Detected,
    output: Path,
    *,
    count: int = 20,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    skips: Skips | None = None,
) -> int:
    """Draws `count` pairs chosen by `seed` on one PNG; returns how many it holds.

    A photo that is not there is a grey tile; a set without photos shows drawings and their categories. Raises
    InputError for what is wrong with the files that it shows, unless `skips` takes it.
    """
    if count < 1:
        raise InputError(f"{count} pairs: show at least 1")
    skips = Skips() if skips is None else skips
    cells = _pairs(found, count, seed, options or {}, skips) if found.paired else _drawings(found, count, seed, skips)
    if not cells:
        raise InputError(f"{found.folder}: nothing to show; every chosen drawing was skipped")
    _save(_sheet(cells, 2 if found.paired else 1), output)
    return len(cells)


def _pairs(found: Detected, count: int, seed: int, options: Mapping[str, Any], skips: Skips) -> list[_Cell]:
    # Whether everything is in its place is what `info` tells; here only what is shown has to be right.
    listing = list_source(found.source, found.folder, options, Skips(allowed=True))
    photos = {photo.id: photo for photo in listing.photos}
    cells: list[_Cell] = []
    order = np.random.default_rng(seed).permutation(len(listing.sketches))
    for k in order:
        if len(cells) == count:
            break
        sketch = listing.sketches[k]
        photo = photos[sketch.photo_id]
        with skips.catch():
            pixels = None if photo.path is None else read_photo(photo.path, TILE, fit=listing.fit_photos)
            cells.append(_Cell(sketch.id, pixels, listing.read_sketch(sketch)))
    return sorted(cells, key=lambda cell: cell.caption)


def _drawings(found: Detected, count: int, seed: int, skips: Skips) -> list[_Cell]:
    """A uniform sample of a stream: each drawing gets a random number, the smallest are kept."""
    generator = np.random.default_rng(seed)
    kept: list[tuple[float, _Cell]] = []
    for chunk in DRAWING_SOURCES[found.source].stream(found.folder, skips):
        draws = generator.random(len(chunk.labels))
        for b in np.argsort(draws)[:count]:
            if len(kept) < count or draws[b] < kept[-1][0]:
                cell = _Cell(f"{chunk.labels[b]}  {chunk.numbers[b]}", None, chunk.sketches[int(b)])
                kept = sorted([*kept, (float(draws[b]), cell)], key=lambda row: row[0])[:count]
    return sorted((cell for _, cell in kept), key=lambda cell: cell.caption)


def _sheet(cells: Sequence[_Cell], tiles: int) -> Image.Image:
    ink = rasterize(SketchBatch.from_sketches([cell.drawing for cell in cells]), TILE)
    columns = min(len(cells), 4 if tiles == 2 else 8)
    rows = -(-len(cells) // columns)
    width, height = tiles * TILE + _GAP, TILE + _CAPTION + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for k, cell in enumerate(cells):
        x, y = _GAP + k % columns * width, _GAP + k // columns * height
        if tiles == 2 and cell.photo is None:
            draw.rectangle((x, y, x + TILE, y + TILE), fill=_GREY)
            draw.text((x + 8, y + TILE // 2 - 8), "the photo is not there", fill="black", font=font)
        elif cell.photo is not None:
            sheet.paste(Image.fromarray(cell.photo), (x, y))
        sheet.paste(Image.fromarray(255 - ink[k]).convert("RGB"), (x + (tiles - 1) * TILE, y))
        draw.rectangle((x, y, x + tiles * TILE - 1, y + TILE - 1), outline=_GREY)
        draw.text((x, y + TILE + 2), _shortened(cell.caption, tiles * TILE, font), fill="black", font=font)
    return sheet


def _shortened(text: str, width: int, font: Any) -> str:
    while font.getlength(text) > width:
        text = "…" + text[2:]
    return text


def _save(sheet: Image.Image, output: Path) -> None:
    temporary = output.with_name(f".{output.name}.tmp")
    try:
        sheet.save(temporary, format="PNG")
        temporary.replace(output)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror}); name another place with --output") from error
    finally:
        temporary.unlink(missing_ok=True)
