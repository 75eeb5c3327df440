"""Rasteriser against cairocffi: microseconds a sketch and error against exact coverage, in one process.

    python benchmarks/raster.py                          drawings that this script makes
    python benchmarks/raster.py --strokes FILE           QMUL-ChairV2's ChairV2_Coordinate
    python benchmarks/raster.py --json raster.json       the same figures for machines

Both sides get the same flat float32 points in memory and give uint8 coverage; the Python call is included. They run
in turn, one thread each, and the ratio of a turn is one sample: the machine's mood cancels out.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sketchynet
from sketchynet import InputError, SketchBatch, rasterize

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))  # the references are the tests'

from drawings import random_batch, read_chair_strokes
from exact_coverage import exact_coverage

SIZES = (32, 64, 128, 256)


def cairo_rasterize(batch: SketchBatch, size: int, width: float) -> NDArray[np.uint8]:
    """uint8 (B, size, size): cairo's best anti-aliasing, one surface reused for the whole batch."""
    import cairocffi

    surface = cairocffi.ImageSurface(cairocffi.FORMAT_A8, size, size)
    pixels = np.frombuffer(surface.get_data(), np.uint8).reshape(size, surface.get_stride())
    context = cairocffi.Context(surface)
    context.set_line_width(width)
    context.set_line_cap(cairocffi.LINE_CAP_ROUND)
    context.set_line_join(cairocffi.LINE_JOIN_ROUND)
    context.set_antialias(cairocffi.ANTIALIAS_BEST)
    out = np.empty((len(batch), size, size), np.uint8)
    points = (batch.points * size).tolist()
    offsets = batch.stroke_offsets.tolist()
    move_to, line_to = context.move_to, context.line_to
    for b, (first, last) in enumerate(zip(batch.sketch_offsets[:-1], batch.sketch_offsets[1:], strict=True)):
        surface.mark_dirty()
        pixels[:] = 0
        for stroke in range(first, last):
            begin, end = offsets[stroke], offsets[stroke + 1]
            move_to(*points[begin])
            line_to(*points[begin])  # a dot where the stroke has one point
            for point in points[begin + 1 : end]:
                line_to(*point)
        context.stroke()
        surface.flush()
        out[b] = pixels[:, :size]
    return out


def seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(batch: SketchBatch, size: int, turns: int, checked: int) -> dict[str, Any]:
    """One row of the table: quantiles over turns, and the error on the first `checked` drawings."""
    width = max(1.0, size / 128)
    ours, cairo = [], []
    for _ in range(turns + 1):
        ours.append(seconds(lambda: rasterize(batch, size, threads=1)) / len(batch) * 1e6)
        cairo.append(seconds(lambda: cairo_rasterize(batch, size, width)) / len(batch) * 1e6)
    ours, cairo = ours[1:], cairo[1:]  # the first turn warms up
    ratios = sorted(c / o for c, o in zip(cairo, ours, strict=True))

    part = batch.select(np.arange(checked))
    exact = np.stack([exact_coverage(sketch, size, width) for sketch in part])
    errors = {
        name: np.abs(canvases - exact)
        for name, canvases in (
            ("ours", rasterize(part, size)),
            ("cairocffi", cairo_rasterize(part, size, width)),
        )
    }
    return {
        "size": size,
        "ours_us": statistics.median(ours),
        "cairocffi_us": statistics.median(cairo),
        "ratio_min": ratios[0],
        "ratio_median": statistics.median(ratios),
        "ratio_max": ratios[-1],
        **{f"{name}_mae": float(error.mean()) for name, error in errors.items()},
        **{f"{name}_max": float(error.max()) for name, error in errors.items()},
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--strokes", type=Path, help="ChairV2_Coordinate of QMUL-ChairV2")
    parser.add_argument("--count", type=int, default=500, help="drawings timed (default 500)")
    parser.add_argument(
        "--checked", type=int, default=8, help="drawings compared with exact coverage (default 8)"
    )
    parser.add_argument("--turns", type=int, default=9, help="timed turns a size (default 9)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()

    if arguments.strokes:
        batch, name = read_chair_strokes(arguments.strokes, arguments.count), "ChairV2"
    else:
        batch, name = random_batch(arguments.count, seed=0, strokes=10, points=21), "random"
    setting = {
        "drawings": name,
        "count": len(batch),
        "points_per_drawing": len(batch.points) / len(batch),
        "strokes_per_drawing": batch.num_strokes / len(batch),
        "processor": processor(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "sketchynet": sketchynet.__version__,
        "threads": 1,
        "turns": arguments.turns,
        "checked": min(arguments.checked, len(batch)),
    }
    print("\n".join(f"{key}: {value}" for key, value in setting.items()))
    print(
        "\nsize | us a sketch, median: ours  cairocffi | ratio median (min-max) | MAE/max: ours     cairocffi"
    )
    rows = []
    for size in SIZES:
        row = measure(batch, size, arguments.turns, setting["checked"])
        rows.append(row)
        print(
            f"{size:4d} | {row['ours_us']:24.1f} {row['cairocffi_us']:10.1f} |"
            f" {row['ratio_median']:6.1f}x ({row['ratio_min']:.1f}-{row['ratio_max']:.1f}) |"
            f" {row['ours_mae']:.3f}/{row['ours_max']:.1f}  {row['cairocffi_mae']:.3f}/{row['cairocffi_max']:.1f}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"setting": setting, "rows": rows}, indent=2) + "\n", encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (InputError, FileNotFoundError) as error:
        print(f"raster.py: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(
            f"raster.py: {error} (cairocffi needs the system's libcairo: apt-get install libcairo2)",
            file=sys.stderr,
        )
        sys.exit(2)
