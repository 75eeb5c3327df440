"""Reader of TU-Berlin: 250 categories of 80 drawings, SVG or PNG, for recognition (there are no photos).

Layout as published::

    svg/airplane/1.svg … 80.svg, svg/filelist.txt        strokes, in the order in which they were drawn
    png/airplane/1.png … 80.png, png/filelist.txt        the same drawn, 1111×1111

The folder with the categories may also be given itself. SVG files are preferred.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sketchynet.data.drawing_files import read_drawing_file
from sketchynet.data.listing import SketchFile
from sketchynet.data.quickdraw import DrawingChunk
from sketchynet.data.scan import IMAGES, files_below
from sketchynet.data.skips import Skips
from sketchynet.errors import InputError
from sketchynet.sketch import SketchBatch

CHUNK = 256


def find_tu_berlin(root: Path) -> Path | None:
    """The folder with one sub-folder a category, if `root` is or holds one."""
    bases = (root, root / "tu_berlin", root / "TU-Berlin")
    for folder in (base / part for base in bases for part in ("svg", "sketches_svg", "png", "sketches_png", ".")):
        if folder.is_dir() and ((folder / "filelist.txt").is_file() or (folder / "airplane" / "1.svg").is_file()):
            return folder
    return None


def list_tu_berlin(root: Path, skips: Skips) -> list[SketchFile]:
    """Every drawing, as CATEGORY/NAME; `photo_id` is empty."""
    paths = files_below(root, root, (".svg",), skips) or files_below(root, root, IMAGES, skips)
    found = []
    for path in paths:
        if path.parent.parent != root:
            skips.add(f"{path}: not in a folder of its category; expected {root.name}/CATEGORY/{path.name}")
        else:
            found.append(SketchFile(f"{path.parent.name}/{path.stem}", path, ""))
    if not found:
        raise InputError(f"{root}: no drawings in folders of categories here (.svg or .png)")
    return found


def stream_tu_berlin(root: Path, skips: Skips) -> Iterator[DrawingChunk]:
    """The drawings in chunks of CHUNK, category after category; labels are the names of the folders."""
    files = list_tu_berlin(root, skips)
    for start in range(0, len(files), CHUNK):
        sketches, labels, numbers = [], [], []
        for number, file in enumerate(files[start : start + CHUNK], start + 1):
            with skips.catch():
                sketches.append(read_drawing_file(file))
                labels.append(file.path.parent.name)
                numbers.append(number)
        if sketches:
            batch = SketchBatch.from_sketches(sketches)
            yield DrawingChunk(batch, tuple(labels), np.array(numbers, np.int64), np.ones(len(batch), bool))
