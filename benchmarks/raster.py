"""The rasteriser against what else draws strokes from Python: time a sketch and error against exact coverage.

    python benchmarks/raster.py                              drawings that this script makes
    python benchmarks/raster.py --data DIR                   and ChairV2 and QuickDraw strokes from DIR
    python benchmarks/raster.py --data DIR --json FILE --plot FILE.png

DIR holds `chairv2_strokes/ChairV2_Coordinate` and `quickdraw/*.ndjson`. All take turns in one process, one thread each,
on the same points in memory, to uint8 coverage; calls from Python are included. Processor time counts, so that a busy
machine changes little; a ratio of two times of one turn is one sample. Errors are means and maxima over all pixels of
`--checked` drawings, in units of 1/255. Peers that are not installed are named and left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from raster_peers import INSTALL, PEERS, Peer

import sketchynet
from sketchynet import InputError, SketchBatch, raster, rasterize
from sketchynet.data.quickdraw import stream_drawings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))  # the references are the tests'

from drawings import chair_strokes, random_batch
from exact_coverage import exact_coverage

SIZES = (32, 64, 128, 256)
CHAIRS = 1000
"""So many of ChairV2's drawings are the set that is measured."""
OURS = "sketchynet"
COLUMNS = f"{'':26} {'µs a sketch':>12} {'ratio to ours, median (min–max)':>34} {'MAE':>8} {'max':>6}"


def quickdraw_strokes(data: Path, count: int) -> SketchBatch:
    """`count` drawings from as many categories as there are, in turn."""
    files = sorted((data / "quickdraw").glob("*.ndjson"))
    if not files:
        raise FileNotFoundError(
            f"{data / 'quickdraw'} holds no .ndjson files; leave out --data or name another folder"
        )
    categories = [next(iter(stream_drawings(file))).sketches for file in files]
    places = ((category, i) for i in range(max(map(len, categories))) for category in categories)
    return SketchBatch.from_sketches([c[i] for c, i in places if i < len(c)][:count])


def spread(batch: SketchBatch, count: int) -> SketchBatch:
    """`count` drawings from all over the batch."""
    return batch.select(np.unique(np.linspace(0, len(batch) - 1, count).round().astype(np.int64)))


def find_peers() -> tuple[dict[str, Peer], dict[str, str]]:
    """What can be imported, and the version of each; prints what cannot."""
    found: dict[str, Peer] = {}
    versions: dict[str, str] = {}
    for name, load in PEERS.items():
        try:
            found[name], versions[name] = load()
        except (ImportError, OSError) as error:
            print(f"missing: {name} ({str(error).splitlines()[0]}; {INSTALL[name]})")
    return found, versions


def ours(instructions: str, out: np.ndarray) -> Peer:
    def draw(batch: SketchBatch, size: int, width: float) -> np.ndarray:
        before = raster.use_instruction_set(instructions)
        try:
            return rasterize(
                batch, size, line_width=width, threads=1, out=out if len(out) == len(batch) else None
            )
        finally:
            raster.use_instruction_set(before)

    return draw


def seconds(call: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    start = clock()
    call()
    return clock() - start


def measure(
    batch: SketchBatch, size: int, peers: dict[str, Peer], turns: int, checked: int
) -> list[dict[str, Any]]:
    """One row a rasteriser: quantiles over the turns, errors on `checked` drawings from all over the batch."""
    width = max(1.0, size / 128)
    best, *others = raster.instruction_sets()
    out = np.empty((len(batch), size, size), np.uint8)
    drawers = {OURS: ours(best, out), **{f"{OURS}, {name}": ours(name, out) for name in others}, **peers}
    times: dict[str, list[float]] = {name: [] for name in drawers}
    for turn in range(turns + 1):
        for name, draw in drawers.items():
            # A short call is repeated: processor clocks tick coarsely.
            repeats = 1 if turn == 0 else max(1, round(0.02 / max(times[name][0], 1e-4)))
            taken = seconds(lambda: [draw(batch, size, width) for _ in range(repeats)])  # noqa: B023  # called at once
            times[name].append(taken / repeats)
    part = spread(batch, checked)
    exact = np.stack([exact_coverage(sketch, size, width) for sketch in part])
    rows = []
    for name, draw in drawers.items():
        own = times[name][1:]  # the first turn warms up
        ratios = sorted(a / b for a, b in zip(own, times[OURS][1:], strict=True))
        error = np.abs(draw(part, size, width) - exact)
        rows.append(
            {
                "name": name,
                "size": size,
                "us": statistics.median(own) / len(batch) * 1e6,
                "us_min": min(own) / len(batch) * 1e6,
                "us_max": max(own) / len(batch) * 1e6,
                "ratio": statistics.median(ratios),
                "ratio_min": ratios[0],
                "ratio_max": ratios[-1],
                "mae": float(error.mean()),
                "max": float(error.max()),
            }
        )
    return rows


def measure_threads(batch: SketchBatch, size: int, turns: int) -> dict[str, float]:
    """How much sooner two threads are done than one, by the clock on the wall."""
    out = np.empty((len(batch), size, size), np.uint8)
    repeats = max(1, 100_000 // size**2)

    def draw(threads: int) -> list[np.ndarray]:
        return [rasterize(batch, size, threads=threads, out=out) for _ in range(repeats)]

    draw(2)
    ratios = sorted(
        seconds(lambda: draw(1), time.perf_counter) / seconds(lambda: draw(2), time.perf_counter)
        for _ in range(turns)
    )
    return {"size": size, "ratio": statistics.median(ratios), "ratio_min": ratios[0], "ratio_max": ratios[-1]}


def plot(sets: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """Error against time, a panel a canvas size and set of drawings."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, panels = plt.subplots(
        len(sets), len(SIZES), figsize=(4 * len(SIZES), 3.6 * len(sets)), squeeze=False
    )
    names = list(dict.fromkeys(row["name"] for rows in sets.values() for row in rows))
    for line, (title, rows) in zip(panels, sets.items(), strict=True):
        for panel, size in zip(line, SIZES, strict=True):
            for row in (row for row in rows if row["size"] == size):
                number = names.index(row["name"])
                mark = "*" if row["name"].startswith(OURS) else "o"
                panel.loglog(
                    row["us"],
                    row["mae"],
                    mark,
                    color=f"C{number % 10}",
                    ms=11 if mark == "*" else 7,
                    label=row["name"],
                )
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.set_title(f"{title}, {size}×{size}", fontsize=10)
            panel.set_xlabel("µs a sketch, one thread")
            panel.set_ylabel("mean error, 1/255")
            panel.margins(0.25)
            panel.grid(alpha=0.3, which="both")
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=min(6, len(labels)), frameon=False)
    figure.savefig(file, dpi=80)


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
    parser.add_argument("--data", type=Path, help="folder with chairv2_strokes/ and quickdraw/")
    parser.add_argument("--count", type=int, default=300, help="drawings timed of each set (default 300)")
    parser.add_argument(
        "--checked", type=int, default=12, help="drawings compared with exact coverage (default 12)"
    )
    parser.add_argument("--turns", type=int, default=7, help="timed turns a size (default 7)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw error against speed into this picture")
    arguments = parser.parse_args()

    peers, versions = find_peers()
    sets = {"generated": random_batch(arguments.count, seed=0, strokes=10, points=21)}
    if arguments.data:
        sets = {
            "ChairV2": spread(chair_strokes(arguments.data, CHAIRS), arguments.count),
            "QuickDraw": quickdraw_strokes(arguments.data, arguments.count),
            **sets,
        }
    setting = {
        "processor": processor(),
        "instruction_sets": list(raster.instruction_sets()),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "sketchynet": sketchynet.__version__,
        "peers": versions,
        "turns": arguments.turns,
        "checked": arguments.checked,
    }
    print("\n".join(f"{key}: {value}" for key, value in setting.items()))
    results: dict[str, Any] = {"setting": setting, "sets": {}, "rows": {}, "two_threads": {}}
    for title, batch in sets.items():
        results["sets"][title] = {
            "drawings": len(batch),
            "points": len(batch.points) / len(batch),
            "strokes": batch.num_strokes / len(batch),
        }
        print(f"\n{title}: {results['sets'][title]}")
        results["rows"][title] = []
        for size in SIZES:
            rows = measure(batch, size, peers, arguments.turns, min(arguments.checked, len(batch)))
            results["rows"][title] += rows
            print(f"\n{f'{size}×{size}':26}{COLUMNS[26:]}")
            for row in rows:
                ratio = f"{row['ratio']:.2f} ({row['ratio_min']:.2f}–{row['ratio_max']:.2f})"
                print(
                    f"{row['name']:26} {row['us']:12.1f} {ratio:>34} {row['mae']:8.3f} {row['max']:6.1f}",
                    flush=True,
                )
        results["two_threads"][title] = [measure_threads(batch, size, arguments.turns) for size in SIZES]
        print(
            "\ntwo threads against one: "
            + ", ".join(f"{r['size']}: {r['ratio']:.2f}" for r in results["two_threads"][title])
        )
        if arguments.json:  # after every set: what was measured is not lost with what follows
            arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        plot(results["rows"], arguments.plot)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (InputError, FileNotFoundError) as error:
        print(f"raster.py: {error}", file=sys.stderr)
        sys.exit(2)
