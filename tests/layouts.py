"""Small data sets in the layouts in which they are published, for readers whose real files are not at hand."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import orjson
from PIL import Image, ImageDraw

LINES = [[[10, 200, 120], [10, 40, 220]], [[30, 90], [150, 60]]]
"""Two strokes, x and y of each."""
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 256 256"><g fill="none" stroke="black" stroke-width="2">'
    '<path d="M10 10 L200 40 120 220"/><path d="M30 150L90 60"/></g></svg>'
)


def photo(path: Path, number: int = 0, size: tuple[int, int] = (48, 48)) -> Path:
    """A picture of noise of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size).save(path)
    return path


def picture(path: Path) -> Path:
    """LINES as a raster drawing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", (256, 256), 255)
    for x, y in LINES:
        ImageDraw.Draw(image).line(list(zip(x, y, strict=True)), fill=0, width=3)
    image.save(path)
    return path


def svg(path: Path, text: str = SVG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def pen_rows() -> np.ndarray:
    """LINES as (N, 3) rows x, y, pen-up."""
    rows = [[x, y, k == len(xs) - 1] for xs, ys in LINES for k, (x, y) in enumerate(zip(xs, ys, strict=True))]
    return np.array(rows, np.float64)


def shoe_v2_published(root: Path) -> Path:
    """ShoeV2 as published: three photos, five drawings."""
    for number, (name, drawings) in enumerate({"2429245009": 2, "1031000079": 2, "1445100078": 1}.items()):
        photo(root / "ShoeV2_photo" / f"{name}.png", number)
        for k in range(drawings):
            svg(root / "ShoeV2_sketch" / f"{name}_{k + 1}.svg")
    text(root / "photo_train.txt", "2429245009.png", "1031000079.png")
    text(root / "photo_test.txt", "1445100078.png")
    return root


def chair_v2_sorted(root: Path) -> Path:
    """ChairV2 as the field's code expects it, with the stroke file; one drawing is a picture alone."""
    for number, (part, name) in enumerate([("train", "a_v1"), ("train", "b"), ("test", "c")]):
        photo(root / f"{part}B" / f"{name}.png", number)
    strokes = {"/train/a_v1_1": pen_rows(), "/train/a_v1_2": pen_rows(), "/test/c_ARTIST": pen_rows()}
    (root / "ChairV2_Coordinate").write_bytes(pickle.dumps(strokes))
    for part, name in (("train", "a_v1_1"), ("train", "b_1"), ("test", "c_ARTIST")):
        picture(root / f"{part}A" / f"{name}.png")
    return root


def sketchy_published(root: Path) -> Path:
    """Sketchy as published: two categories, an erroneous drawing, a test set."""
    plain = "tx_000000000000"
    for number, (category, name) in enumerate([("cat", "n01_1"), ("cat", "n01_2"), ("hat", "ext_1")]):
        photo(root / "256x256" / "photo" / plain / category / f"{name}.jpg", number)
        for k in (1, 2):
            picture(root / "256x256" / "sketch" / plain / category / f"{name}-{k}.png")
            svg(root / "sketches" / category / f"{name}-{k}.svg")
    text(root / "info" / "testset.txt", "cat/n01_2.jpg")
    text(root / "info" / "invalid-error.txt", "n01_1-2")
    text(root / "info" / "invalid-ambiguous.txt", "ext_1-1")
    text(root / "sketches" / "cat" / "invalid.txt", "n01_2-1")
    return root


def fscoco_published(root: Path) -> Path:
    """FS-COCO as published: two people, three scenes, one of them only as a picture."""
    for number, (person, name) in enumerate([("1", "000000000009"), ("1", "000000000025"), ("2", "000000000030")]):
        photo(root / "images" / person / f"{name}.jpg", number, (64, 48))
        picture(root / "raster_sketches" / person / f"{name}.jpg")
        if number < 2:
            path = root / "vector_sketches" / person / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, pen_rows())
        text(root / "text" / person / f"{name}.txt", "a scene")
    text(root / "val_normal.txt", "25")
    text(root / "val_unseen_user.txt", "30")
    return root


def tu_berlin_published(root: Path, count: int = 2) -> Path:
    """TU-Berlin as published: two categories of `count` drawings."""
    for category in ("airplane", "zebra"):
        for number in range(1, count + 1):
            svg(root / "svg" / category / f"{number}.svg")
    text(root / "svg" / "filelist.txt", *(f"{c}/{n}.svg" for c in ("airplane", "zebra") for n in range(1, count + 1)))
    return root


def folder(root: Path) -> Path:
    """One's own catalogue: two categories, drawings in every format, one photo without a drawing."""
    for number, name in enumerate(["shoes/a1", "shoes/a10", "shoes/b", "bags/x", "bags/lonely"]):
        photo(root / "photos" / f"{name}.jpg", number)
    svg(root / "sketches" / "shoes" / "a1.svg")
    picture(root / "sketches" / "shoes" / "a1_2.png")
    (root / "sketches" / "shoes" / "a10-1.json").write_bytes(orjson.dumps(LINES))
    lines = [orjson.dumps({"drawing": LINES, "key_id": str(k)}) for k in (1, 2)]
    (root / "sketches" / "shoes" / "b.ndjson").write_bytes(b"\n".join(lines))
    (root / "sketches" / "bags").mkdir()
    rows = pen_rows()
    np.savez(root / "sketches" / "bags" / "x#2.npz", points=rows[:, :2], stroke_offsets=np.array([0, 3, 5]))
    return root


def quickdraw_records(drawings: list, first: int = 1) -> bytes:
    """Drawings as binary records with ids from `first`."""
    result = b""
    for key, drawing in enumerate(drawings, first):
        result += struct.pack("<Q2sBIH", key, b"DE", 1, 1488400000, len(drawing))
        for x, y in drawing:
            result += struct.pack(f"<H{len(x)}B{len(y)}B", len(x), *x, *y)
    return result
