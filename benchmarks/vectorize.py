"""Fidelity and speed of the vectoriser on real drawings.

    python benchmarks/vectorize.py --data DIR [--json FILE]

DIR holds qmul_v1/, sketchy_svg/ and sketchy_raster/. Two measurements:

Redrawing (QMUL, line drawings of 256×256). Ink is what Otsu's threshold calls ink in the drawing,
independent of the vectoriser's own rule. The strokes are drawn back into the image frame, round-capped, all
at one line width: ink area / skeleton length of that drawing. For both sets of pixels the mean Euclidean
distance to the other set is taken; "chamfer" is the mean of the two directions, "worst_ink" the distance of
the ink pixel farthest from anything redrawn. Because thick lines hide shifts, the chamfer distance is also
taken between centre lines: the skeleton of the ink against samples along the strokes. All in pixels of 256.
Time is processor time, reading the file included.

True strokes (Sketchy elephants). Strokes as recorded (SVG, 640×480) against the strokes found in the
published raster of the same drawing (227×227, cropped and rescaled per drawing: scale and shift of either
axis are fitted to the ink first). True points that a later eraser stroke covers, or that the crop cut off,
do not count. Precision: share of samples along found strokes within 2 px of a true one; recall: the
reverse. Stroke counts and lengths compare what is left of every recorded stroke; a stroke cut in two by an
eraser is two.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import scipy
import skimage
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.filters import threshold_otsu
from skimage.morphology import thin
from svgpathtools import parse_path

from sketchynet.vectorize import vectorize_pixels

QMUL = "qmul_v1/*/*/sketches/*.png"
TOLERANCE = 2.0  # pixels of 227
OVERSAMPLE = 8  # of the canvas that strokes are drawn back on


def grey_levels(path: Path) -> np.ndarray:
    """A drawing on white, float32 (H, W) in 0..255."""
    with Image.open(path) as picture:
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture.convert("RGBA"))
        return np.asarray(white.convert("L"), dtype=np.float32)


def samples(stroke: np.ndarray, step: float = 0.5) -> np.ndarray:
    """Points every `step` along a polyline (N, 2)."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(stroke, axis=0).T))])
    at = np.linspace(0.0, along[-1], max(1, int(np.ceil(along[-1] / step)) + 1))
    return np.stack([np.interp(at, along, stroke[:, 0]), np.interp(at, along, stroke[:, 1])], axis=1)


def redraw(strokes: list[np.ndarray], shape: tuple[int, int], width: float) -> np.ndarray:
    """Strokes in pixel coordinates as ink, bool (H, W): pixels that round-capped lines half cover."""
    canvas = Image.new("L", (shape[1] * OVERSAMPLE, shape[0] * OVERSAMPLE), 0)
    pen = ImageDraw.Draw(canvas)
    radius = 0.5 * width * OVERSAMPLE
    for stroke in strokes:
        points = [(x, y) for x, y in (stroke * OVERSAMPLE).tolist()]
        pen.line(points, fill=255, width=max(1, round(2 * radius)))
        for x, y in points:
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
    coverage = np.asarray(canvas, dtype=np.float32).reshape(shape[0], OVERSAMPLE, shape[1], OVERSAMPLE)
    return coverage.mean(axis=(1, 3)) >= 127.5


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distance of every pixel of one mask, bool (H, W), to the nearest of another, in pixels."""
    return ndimage.distance_transform_edt(~second)[first]


def measure_redrawing(path: Path) -> dict[str, float]:
    grey = grey_levels(path)
    ink = grey <= threshold_otsu(grey)
    skeleton = thin(ink)
    start = time.process_time()
    strokes = vectorize_pixels(path)
    seconds = time.process_time() - start
    width = ink.sum() / skeleton.sum()
    line = np.concatenate([samples(stroke) for stroke in strokes])
    centre = np.argwhere(skeleton)[:, ::-1] + 0.5
    forth, back = cKDTree(centre).query(line)[0], cKDTree(line).query(centre)[0]
    redrawn = redraw(strokes, ink.shape, width)
    missed, added = distances(ink, redrawn), distances(redrawn, ink)
    return {
        "chamfer": 0.5 * float(missed.mean() + added.mean()),
        "centre_line": 0.5 * float(forth.mean() + back.mean()),
        "worst_ink": float(missed.max()),
        "strokes": len(strokes),
        "points": sum(map(len, strokes)),
        "seconds": seconds,
    }


def true_strokes(path: Path) -> list[np.ndarray]:
    """What erasing left of the strokes of a Sketchy SVG, each float64 (N, 2) on the 640×480 canvas."""
    strokes: list[np.ndarray] = []
    for element in ElementTree.parse(path).iter():
        kind, stroke = element.tag.rpartition("}")[2], element.get("stroke")
        if kind == "path":
            curve = parse_path(element.get("d"))
            if len(curve) == 0:
                continue  # a lone "move to" draws nothing
            flat = [segment.point(t) for segment in curve for t in (0.0, 0.25, 0.5, 0.75)]
            points = np.array([[z.real, z.imag] for z in (*flat, curve[-1].end)])
        elif kind == "polyline":
            points = np.array(element.get("points", "").replace(",", " ").split(), dtype=float).reshape(-1, 2)
        else:
            continue
        if stroke == "#fff":
            eraser = cKDTree(samples(points))
            reach = 0.5 * float(element.get("stroke-width", "20"))
            strokes = [part for line in strokes for part in keep(line, eraser.query(line)[0] > reach)]
        else:
            strokes.append(samples(points, 1.0))
    return strokes


def keep(line: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
    """The runs of wanted points, bool (N,), of a polyline (N, 2)."""
    cuts = np.flatnonzero(np.diff(wanted.astype(int))) + 1
    return [part for part, want in zip(np.split(line, cuts), np.split(wanted, cuts), strict=True) if want[0]]


def fit_scale_and_shift(points: np.ndarray, ink: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale (2,) and shift (2,), by axis, that lay true points (N, 2) on the ink, bool (H, W).

    Trimmed iterated closest points from both bounding boxes; by axis because the rasters are stretched.
    """
    centre = np.argwhere(thin(ink))[:, ::-1] + 0.5
    tree = cKDTree(centre)
    scale = np.ptp(centre, axis=0) / np.ptp(points, axis=0)
    shift = centre.min(axis=0) - scale * points.min(axis=0)
    for _ in range(50):
        moved = points * scale + shift
        distance, nearest = tree.query(moved)
        near = distance <= max(1.5, np.quantile(distance, 0.9))
        source, goal = points[near], centre[nearest[near]]
        spread = source - source.mean(axis=0)
        scale = (spread * (goal - goal.mean(axis=0))).sum(axis=0) / (spread**2).sum(axis=0)
        shift = goal.mean(axis=0) - scale * source.mean(axis=0)
    return scale, shift


def measure_truth(svg: Path, png: Path) -> dict[str, float]:
    grey = grey_levels(png)
    truth = true_strokes(svg)
    scale, shift = fit_scale_and_shift(np.concatenate(truth), grey <= threshold_otsu(grey))
    size = np.array(grey.shape[::-1])
    moved = [line * scale + shift for line in truth]
    truth = [part for line in moved for part in keep(line, np.all((line >= 0) & (line <= size), axis=1))]
    found = vectorize_pixels(png)
    true_points = np.concatenate([samples(line) for line in truth])
    found_points = np.concatenate([samples(line) for line in found])
    return {
        "precision": float((cKDTree(true_points).query(found_points)[0] <= TOLERANCE).mean()),
        "recall": float((cKDTree(found_points).query(true_points)[0] <= TOLERANCE).mean()),
        "true_strokes": len(truth),
        "found_strokes": len(found),
        "true_lengths": [length(line) for line in truth],
        "found_lengths": [length(line) for line in found],
    }


def length(line: np.ndarray) -> float:
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


def summarise_redrawing(rows: list[dict[str, float]]) -> dict[str, float]:
    column = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {
        "drawings": len(rows),
        "chamfer_mean": column["chamfer"].mean(),
        "chamfer_max": column["chamfer"].max(),
        "over_1px": int((column["chamfer"] > 1.0).sum()),
        "centre_line_mean": column["centre_line"].mean(),
        "centre_line_max": column["centre_line"].max(),
        "centre_line_over_1px": int((column["centre_line"] > 1.0).sum()),
        "worst_ink_p95": float(np.quantile(column["worst_ink"], 0.95)),
        "worst_ink_max": column["worst_ink"].max(),
        "strokes_median": float(np.median(column["strokes"])),
        "points_median": float(np.median(column["points"])),
        "cpu_ms_median": 1e3 * float(np.median(column["seconds"])),
        "cpu_ms_p95": 1e3 * float(np.quantile(column["seconds"], 0.95)),
        "cpu_ms_max": 1e3 * column["seconds"].max(),
    }


def summarise_truth(rows: list[dict]) -> dict[str, float]:
    precision, recall = (np.array([row[name] for row in rows]) for name in ("precision", "recall"))
    sides = ("true", "found")
    true_count, found_count = (np.array([row[f"{side}_strokes"] for row in rows]) for side in sides)
    true_length, found_length = (np.concatenate([row[f"{side}_lengths"] for row in rows]) for side in sides)
    return {
        "drawings": len(rows),
        "precision_mean": precision.mean(),
        "precision_min": precision.min(),
        "recall_mean": recall.mean(),
        "recall_min": recall.min(),
        "true_strokes_median": float(np.median(true_count)),
        "found_strokes_median": float(np.median(found_count)),
        "count_ratio_median": float(np.median(found_count / true_count)),
        "true_length_median": float(np.median(true_length)),
        "found_length_median": float(np.median(found_length)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with qmul_v1, sketchy_svg and so on")
    parser.add_argument("--json", type=Path, help="also write every drawing's figures here")
    arguments = parser.parse_args()
    drawings = sorted(arguments.data.glob(QMUL))
    pairs = [
        (svg, png)
        for svg in sorted(arguments.data.glob("sketchy_svg/sketches/*/*.svg"))
        if (png := arguments.data / "sketchy_raster/sketches" / svg.parent.name / f"{svg.stem}.png").is_file()
    ]
    if not drawings or not pairs:
        sys.exit(f"{arguments.data} lacks {QMUL}, or sketchy_svg/sketches/*/*.svg and their sketchy_raster")
    redrawing = {str(path.relative_to(arguments.data)): measure_redrawing(path) for path in drawings}
    truth = {svg.stem: measure_truth(svg, png) for svg, png in pairs}
    versions = {"numpy": np.__version__, "scipy": scipy.__version__, "scikit-image": skimage.__version__}
    result = {
        "machine": platform.machine(),
        "versions": versions,
        "redrawing": summarise_redrawing(list(redrawing.values())),
        "truth": summarise_truth(list(truth.values())),
    }
    for part in ("redrawing", "truth"):
        print(part)
        for name, value in result[part].items():
            print(f"  {name:22} {value:10.3f}" if isinstance(value, float) else f"  {name:22} {value:10}")
    if arguments.json:
        result["per_drawing"] = {**redrawing, **truth}
        arguments.json.write_text(json.dumps(result, indent=1, default=float))
    return 0


if __name__ == "__main__":
    sys.exit(main())
