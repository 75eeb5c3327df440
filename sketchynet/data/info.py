"""What a data set holds, counted: parts, strokes and points, what has no partner, and what was published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sketchynet.data.detection import DRAWING_SOURCES, Detected
from sketchynet.data.listing import Listing, SketchFile
from sketchynet.data.quickdraw import PARTS
from sketchynet.data.scan import IMAGES
from sketchynet.data.skips import Skips
from sketchynet.data.sources import list_source, test_share
from sketchynet.data.splits import SPLIT_NAMES, TEST, TRAIN, VALIDATION, carve_validation, split_hash
from sketchynet.errors import InputError

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SAMPLE = {"raster": 200, "vector": 1000}
"""Drawings of a set of files that are read for the quantiles, unless told otherwise."""

PUBLISHED: dict[str, dict[str, int]] = {
    "qmul_v1": {
        "shoes train drawings": 304,
        "shoes test drawings": 115,
        "chairs train drawings": 200,
        "chairs test drawings": 97,
    },
    "qmul_v1_shoe_extra": {"photos": 304, "drawings": 912},
    "shoev2": {
        "train photos": 1800,
        "test photos": 200,
        "train drawings": 5982,
        "test drawings": 666,
    },
    "chairv2": {"train photos": 300, "test photos": 100, "train drawings": 952, "test drawings": 323},
    "sketchy": {"categories": 125, "photos": 12_500, "drawings": 75_471},
    "fscoco": {"photos": 10_000, "train drawings": 7000, "test drawings": 3000},
    "tu_berlin": {"categories": 250, "drawings": 20_000},
    "aaron_sheep": {"train drawings": 7400, "validation drawings": 300, "test drawings": 300},
    "quickdraw": {"categories": 345, "drawings": 50_426_266},
}
"""Counts as published. Of ShoeV2 papers often quote 6,051 and 679 drawings; 5,982 and 666 were released."""


@dataclass
class Histogram:
    """Counts of whole numbers; memory grows with the largest, not with how many there are."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, values: np.ndarray) -> None:
        """Counts values, int (N,), not negative."""
        found = np.bincount(values, minlength=len(self.counts))
        found[: len(self.counts)] += self.counts
        self.counts = found

    def quantiles(self) -> list[int]:
        """The values at QUANTILES; empty without values."""
        total = self.counts.sum()
        below = np.cumsum(self.counts)
        return [int(np.searchsorted(below, max(1, np.ceil(q * total)))) for q in QUANTILES] if total else []


@dataclass
class Info:
    """What `sketchynet data info` prints."""

    source: str
    title: str
    folder: Path
    counts: dict[str, int] = field(default_factory=dict)
    """"photos", "drawings", "categories", and per split and category, as in PUBLISHED."""
    parts: list[tuple[str, str, int, int]] = field(default_factory=list)
    """Rows (category, split, photos, drawings)."""
    strokes: Histogram = field(default_factory=Histogram)
    points: Histogram = field(default_factory=Histogram)
    drawings_read: int = 0
    unpaired: dict[str, list[str]] = field(default_factory=dict)
    """Lists of ids: photos without a drawing, drawings whose photo is not there."""
    split_hash: str = ""
    split_note: str = ""
    published: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    skips: Skips = field(default_factory=lambda: Skips(allowed=True))


def describe(
    found: Detected, *, options: Mapping[str, Any] | None = None, sample: int | None = None, progress: bool = True
) -> Info:
    """Counts a data set. Nothing that is wrong with it ends the count: faults are collected.

    sample: at most so many drawings are read for the quantiles of strokes and points, evenly spread; 0 reads all.
    A stream (QuickDraw, TU-Berlin) is always read as a whole.
    """
    info = Info(found.source, found.title, found.folder)
    if found.paired:
        _describe_pairs(info, options or {}, sample, progress)
    else:
        _describe_drawings(info, progress)
    return info


def _describe_pairs(info: Info, options: Mapping[str, Any], sample: int | None, progress: bool) -> None:
    listing = list_source(info.source, info.folder, options, info.skips)
    photos = {photo.id: photo for photo in listing.photos}
    split, note = _split(info.source, listing, options)
    split_of = dict(zip(photos, split, strict=True))
    info.split_hash, info.split_note = split_hash(list(photos), split), note
    rows: Counter[tuple[str, int]] = Counter((p.category, split_of[p.id]) for p in listing.photos)
    drawn: Counter[tuple[str, int]] = Counter(
        (photos[s.photo_id].category, split_of[s.photo_id]) for s in listing.sketches
    )
    for key in sorted(rows):
        info.parts.append((key[0], SPLIT_NAMES[key[1]], rows[key], drawn[key]))
    info.counts = _counts(info.parts)
    info.published = PUBLISHED.get(listing.name, {})
    with_drawing = {sketch.photo_id for sketch in listing.sketches}
    absent = {photo.id for photo in listing.photos if photo.path is None}
    info.unpaired = {
        "photos without a drawing": [id for id in photos if id not in with_drawing],
        "photos that are not there": sorted(absent),
        "drawings whose photo is not there": [s.id for s in listing.sketches if s.photo_id in absent],
    }
    info.notes = listing.notes
    _read_sample(info, listing, sample, progress)


def _split(source: str, listing: Listing, options: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    split = np.array([photo.split for photo in listing.photos], np.int8)
    share = test_share(source, options)
    if listing.has_test or share is None:
        return split, "as published" if listing.has_test else "no test part"
    names = sorted({photo.category for photo in listing.photos})
    categories = np.array([names.index(photo.category) for photo in listing.photos])
    ids = [photo.id for photo in listing.photos]
    carved = carve_validation(split, categories, np.arange(len(ids)), ids, fraction=share, seed=0, part=TEST)
    return carved, f"none published: {share:.0%} of each category tested on, by seed 0 (equal photos will be kept together)"


def _counts(parts: Sequence[tuple[str, str, int, int]]) -> dict[str, int]:
    counts: Counter[str] = Counter(categories=len({category for category, *_ in parts}))
    for category, split, photos, drawings in parts:
        for name in ("", f"{split} ", f"{category} {split} "):
            counts[f"{name}photos"] += photos
            counts[f"{name}drawings"] += drawings
    return dict(counts)


def _read_sample(info: Info, listing: Listing, sample: int | None, progress: bool) -> None:
    sketches: Sequence[SketchFile] = listing.sketches
    if sample is None:
        raster = any(sketch.path.suffix.lower() in IMAGES for sketch in sketches)
        sample = SAMPLE["raster" if raster else "vector"]
    if 0 < sample < len(sketches):
        sketches = [sketches[k] for k in np.linspace(0, len(sketches) - 1, sample).astype(int)]
    strokes, points = [], []
    for sketch in tqdm(sketches, desc="reading drawings", unit="drawing", disable=not progress, leave=False):
        with info.skips.catch():
            drawing = listing.read_sketch(sketch)
            strokes.append(drawing.num_strokes)
            points.append(drawing.num_points)
    info.strokes.add(np.array(strokes, np.int64))
    info.points.add(np.array(points, np.int64))
    info.drawings_read = len(strokes)


def _describe_drawings(info: Info, progress: bool) -> None:
    categories: Counter[tuple[str, str]] = Counter()
    hashes = []
    with tqdm(desc="reading drawings", unit="drawing", disable=not progress, leave=False) as bar:
        for chunk in DRAWING_SOURCES[info.source].stream(info.folder, info.skips):
            sketches = chunk.sketches
            part = SPLIT_NAMES[PARTS[chunk.part]] if chunk.part else "all"
            categories.update((label, part) for label in chunk.labels)
            info.strokes.add(np.diff(sketches.sketch_offsets))
            info.points.add(np.diff(sketches.point_offsets))
            info.drawings_read += len(sketches)
            # 8 bytes a drawing, where the ids themselves would take a hundred.
            hashes.append(np.array([hash(id) for id in sketches.ids or ()], np.int64))
            bar.update(len(sketches))
    if not categories:
        fault = f": {info.skips.messages[0]}" if info.skips.messages else ""
        raise InputError(f"{info.folder}: no drawing could be read{fault}")
    _tell_repeats(info, np.concatenate(hashes))
    order = ("all", *(SPLIT_NAMES[k] for k in (TRAIN, VALIDATION, TEST)))
    info.parts = [
        (label, part, 0, count)
        for (label, part), count in sorted(categories.items(), key=lambda row: (row[0][0], order.index(row[0][1])))
    ]
    info.counts = _counts(info.parts)
    # A sketch-rnn archive has parts; its set is named by its only file.
    name = info.parts[0][0] if info.parts[0][1] != "all" else info.source
    info.published = PUBLISHED.get(name, {})


def _tell_repeats(info: Info, hashes: np.ndarray) -> None:
    """Ids that occur more than once go to the faults; only then the drawings are read a second time, for the names."""
    values, counts = np.unique(hashes, return_counts=True)
    repeated = set(values[counts > 1].tolist())
    if not repeated:
        return
    seen: dict[str, str] = {}
    for chunk in DRAWING_SOURCES[info.source].stream(info.folder, Skips(allowed=True)):
        for id, label, number in zip(chunk.sketches.ids or (), chunk.labels, chunk.numbers, strict=True):
            if hash(id) in repeated:
                place = f"{label}, number {number}"
                if id in seen:
                    info.skips.add(f"{info.folder}: the id {id!r} of {place} is that of {seen[id]} too; remove one")
                seen.setdefault(id, place)
