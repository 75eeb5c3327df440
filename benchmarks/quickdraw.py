"""QuickDraw into the flat form: drawings a second, peak memory, and a random drawing against parsing its line.

    python benchmarks/quickdraw.py --data DIR                        10⁴, 10⁵ and 10⁶ drawings
    python benchmarks/quickdraw.py --data DIR --counts 10000 50000   fewer
    python benchmarks/quickdraw.py --data DIR --json FILE            the same figures for machines

DIR holds QuickDraw's .ndjson files, or a folder `quickdraw` of them; their lines are repeated as often as needed.
Every conversion runs in a process of its own, on one core: its processor time (all threads) is what counts, so that
a busy machine changes little, and the peak of its resident memory is the system's own figure. Fetching and parsing
take turns in one process, over random drawings of the largest set.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

import sketchynet
from sketchynet import InputError, Sketch
from sketchynet.data.detection import find_quickdraw, quickdraw_files
from sketchynet.data.flat import FlatSketches
from sketchynet.data.labelled_sources import Stream, flatten
from sketchynet.data.quickdraw import parse_lines, stream_drawings
from sketchynet.data.skips import Skips
from sketchynet.sketch import fit_to_frame

BATCH = 256


def repeat_lines(files: list[Path], count: int, target: Path) -> None:
    """Writes `count` lines, those of the files in turn, again and again."""
    lines = [line for path in files for line in path.read_bytes().splitlines()]
    with target.open("wb") as file:
        file.writelines(line + b"\n" for line in islice(cycle(lines), count))


def convert(source: Path, target: Path) -> dict[str, float]:
    """Seconds of this process's work and its memory; run in a process of its own."""
    before = _peak()
    start, began = time.process_time(), time.perf_counter()
    stream = Stream(source, partial(stream_drawings, source), (source,))
    flatten([stream], target, name="quickdraw", progress=False)
    return {
        "cpu_seconds": time.process_time() - start,
        "seconds": time.perf_counter() - began,
        "peak_mb": _peak(),
        "imports_mb": before,
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def convert_apart(source: Path, target: Path) -> dict[str, float]:
    """`convert` in a fresh process on one core."""
    found = subprocess.run(
        [sys.executable, __file__, "--convert", str(source), str(target)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout)


def drawing_of(line: bytes) -> Sketch:
    """The shortest way from a line to a drawing in the frame."""
    record = orjson.loads(line)
    strokes = record["drawing"]
    offsets = np.zeros(len(strokes) + 1, np.int64)
    np.cumsum([len(stroke[0]) for stroke in strokes], out=offsets[1:])
    x, y = bytes(chain.from_iterable(s[0] for s in strokes)), bytes(chain.from_iterable(s[1] for s in strokes))
    raw = np.stack([np.frombuffer(x, np.uint8), np.frombuffer(y, np.uint8)], axis=1)
    return Sketch(fit_to_frame(raw), offsets, record["key_id"])


def _microseconds(call: Callable[[], Any], drawings: int) -> float:
    start = time.thread_time()
    call()
    return (time.thread_time() - start) / drawings * 1e6


def fetching(flat: FlatSketches, source: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds a random drawing, quantiles over rounds: from the flat form, and from its line."""
    generator = np.random.default_rng(0)
    # Where the lines begin: a line-based reader would have to know that too; finding them is not counted.
    with source.open("rb") as file:
        starts = np.cumsum([0, *(len(line) for line in file)])[:-1]
    for batch, _ in flat.shards():  # the pages come into memory before anything is timed, as the lines do
        batch.points.sum()
    times: dict[str, list[float]] = {}
    with source.open("rb") as file:
        for _ in range(rounds + 1):
            wanted = generator.integers(0, len(flat), BATCH)
            lines = []
            for n in wanted:
                file.seek(starts[n])
                lines.append(file.readline().rstrip())

            calls: dict[str, Callable[[], Any]] = {
                "fetched, 256 at once": lambda wanted=wanted: flat.select(wanted),
                "fetched, one at a time": lambda wanted=wanted: [flat[int(n)] for n in wanted],
                "line parsed, 256 at once": lambda lines=lines: parse_lines(lines, source, Skips()),
                "line parsed, one at a time": lambda lines=lines: [drawing_of(line) for line in lines],
                "orjson.loads alone": lambda lines=lines: [orjson.loads(line) for line in lines],
                "json.loads alone": lambda lines=lines: [json.loads(line) for line in lines],
            }
            for name, call in calls.items():
                times.setdefault(name, []).append(_microseconds(call, BATCH))
    found = {name: _quantiles(values[1:]) for name, values in times.items()}  # the first round warms up
    for how in ("one at a time", "256 at once"):
        turns = zip(times[f"line parsed, {how}"][1:], times[f"fetched, {how}"][1:], strict=True)
        found[f"ratio, {how}"] = _quantiles([parsed / fetched for parsed, fetched in turns])
    return found


def _quantiles(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"q25": low, "median": middle, "q75": high}


def measure(files: list[Path], counts: list[int], rounds: int, work: Path) -> dict[str, Any]:
    """All figures; the files of the largest set stay until the fetching is measured."""
    conversions = []
    for count in sorted(counts):
        source, target = work / f"{count}.ndjson", work / f"{count}.flat"
        repeat_lines(files, count, source)
        found = convert_apart(source, target)
        size = sum(path.stat().st_size for path in target.rglob("*.npy"))
        conversions.append(
            {
                "drawings": count,
                "drawings_per_second": count / found["cpu_seconds"],
                "bytes_a_line": source.stat().st_size / count,
                "bytes_a_drawing": size / count,
                **found,
            }
        )
        if count < max(counts):
            source.unlink()
    return {"conversion": conversions, "fetching": fetching(FlatSketches(target), source, rounds)}


def show(found: dict[str, Any]) -> None:
    """Prints both tables."""
    print(f"{'drawings':>10}{'a second of one core':>22}{'peak MB':>10}{'(imports':>10}{')  bytes: line':>16}{'flat':>6}")
    for row in found["conversion"]:
        print(
            f"{row['drawings']:>10,}{row['drawings_per_second']:>22,.0f}{row['peak_mb']:>10.0f}"
            f"{row['imports_mb']:>10.0f}{row['bytes_a_line']:>16.0f}{row['bytes_a_drawing']:>6.0f}"
        )
    print(f"\n{'a random drawing':<30}{'median':>10}{'quartiles':>16}")
    for name, row in found["fetching"].items():
        unit = "×" if name.startswith("ratio") else " µs"
        print(f"{name:<30}{row['median']:>8.2f}{unit:<3}{row['q25']:>9.2f}–{row['q75']:.2f}")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="DIR", help="QuickDraw's .ndjson files (or $SKETCHYNET_DATA)")
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], metavar="N")
    parser.add_argument("--rounds", type=int, default=40, help="turns of fetching and parsing (default 40)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder for 1 GB of files (default: a temporary one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    parser.add_argument("--convert", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.convert:
        print(json.dumps(convert(*options.convert)))
        return 0
    try:
        data = options.data or Path(os.environ.get("SKETCHYNET_DATA", ""))
        folder = find_quickdraw(data)
        if folder is None:
            raise InputError(f"{data}: no QuickDraw files here; pass --data DIR or set SKETCHYNET_DATA")
        files = [path for path in quickdraw_files(folder, Skips()) if path.suffix == ".ndjson"]
        with tempfile.TemporaryDirectory(dir=options.work) as work:
            found = measure(files, options.counts, options.rounds, Path(work))
    except (InputError, OSError) as error:
        print(f"quickdraw.py: {error}", file=sys.stderr)
        return 2
    show(found)
    found["environment"] = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "orjson": orjson.__version__,
        "sketchynet": sketchynet.__version__,
        "processor": _processor(),
    }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    sys.exit(main())
