"""One table over several seeds of a recipe: every system, and what the claims say, pooled over the seeds.

    python benchmarks/seeds.py runs/quickdraw-0 runs/quickdraw-1 runs/quickdraw-2

Reads the runs' evaluation.json (the test split is not read again) and prints Markdown. A difference is between two
systems on the same queries: every query's difference is averaged over the seeds, and the queries are resampled
(paired bootstrap), so that a query counts once however many seeds there are.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sketchynet.errors import InputError
from sketchynet.retrieval import Interval, bootstrap_interval


def read_runs(folders: list[Path]) -> list[dict[str, Any]]:
    """The evaluations; InputError where they do not belong together."""
    runs = []
    for folder in folders:
        path = folder / "evaluation.json"
        try:
            runs.append(json.loads(path.read_text()))
        except (OSError, json.JSONDecodeError) as error:
            raise InputError(f"{path}: no finished evaluation ({error}); give folders of finished runs") from error
    for key in ("split_hash", "canvases", "queries_count"):
        found = {json.dumps(run[key]) for run in runs}
        if len(found) > 1:
            raise InputError(f"the runs differ in {key}: {', '.join(sorted(found))}; they are not seeds of one recipe")
    return runs


def hits(run: dict[str, Any], name: str) -> np.ndarray:
    """float64 (n,): probability that a system is right about each query."""
    queries = run["queries"]
    ranks = np.array([query["ranks"] for query in queries])
    right = (ranks == 1).astype(np.float64)
    if name == "full":
        return np.array([query["full_rank"] == 1 for query in queries], dtype=np.float64)
    if name.startswith("direct@"):
        canvas = run["canvases"].index(int(name[7:]))
        return np.array([query["direct_ranks"][canvas] == 1 for query in queries], dtype=np.float64)
    if name == "v2":
        return right[np.arange(len(right)), [query["choice"] for query in queries]]
    if name.startswith("v1@"):
        return right[:, run["canvases"].index(int(name[3:]))]
    if name == "shuffled":
        counts = np.array(run["canvas_counts"], dtype=np.float64)
        return right @ (counts / counts.sum())
    if name == "mixture":
        shares = run["systems"]["mixture"]["details"]["shares"]
        return right @ np.array([shares[str(size)] for size in run["canvases"]])
    raise InputError(f"no outcomes of single queries are kept for {name!r}")


def pooled(runs: list[dict[str, Any]], first: str, second: str) -> Interval:
    """Mean difference of two systems in Acc@1 over seeds and queries, with its 95 % interval."""
    per_query = np.mean([hits(run, first) - hits(run, second) for run in runs], axis=0)
    return bootstrap_interval(per_query, resamples=10_000)


def _place(name: str) -> tuple[int, int]:
    """Where a system stands in the table: networks as the pipeline makes them, canvases ascending."""
    network, _, canvas = name.partition("@")
    order = ("full", "direct", "v1", "v2", "shuffled", "mixture", "oracle")
    return order.index(network), int(canvas or 0)


def table(runs: list[dict[str, Any]], names: list[str]) -> str:
    """All of it as Markdown."""
    largest = runs[0]["canvases"][-1]
    shared = [name for name in runs[0]["systems"] if "[" not in name and all(name in run["systems"] for run in runs)]
    systems = sorted(shared, key=_place)
    lines = [f"| network | parameters | GFLOPs | {' | '.join(names)} | Acc@1, mean ± sd | Acc@5 |"]
    lines.append("|---" * (len(names) + 5) + "|")
    for name in systems:
        figures = [run["systems"][name]["all"] for run in runs]
        accuracy = 100 * np.array([f["acc1"] for f in figures])
        spread = f" ± {accuracy.std(ddof=1):.2f}" if len(runs) > 1 else ""
        cost = np.mean([f["gflops"] for f in figures])
        five = 100 * np.mean([f["acc5"] for f in figures])
        cells = [name, f"{figures[0]['parameters'] / 1e6:.2f} M", f"{cost:.4f}"]
        cells += [f"{value:.2f}" for value in accuracy]
        lines.append(f"| {' | '.join(cells)} | {accuracy.mean():.2f}{spread} | {five:.2f} |")
    lines += ["", f"| difference of Acc@1 | {' | '.join(names)} | pooled, points with 95 % interval |"]
    lines.append("|---" * (len(names) + 2) + "|")
    best = f"v1@{largest}"
    claims = [(best, f"direct@{largest}"), (best, "full"), ("v2", best), ("v2", "mixture"), ("v2", "shuffled")]
    claims = [claim for claim in claims if set(claim) <= set(systems)]
    for first, second in claims:
        each = [f"{100 * (hits(run, first) - hits(run, second)).mean():+.2f}" for run in runs]
        value = pooled(runs, first, second)
        interval = f"{100 * value.value:+.2f} [{100 * value.low:+.2f}, {100 * value.high:+.2f}]"
        lines.append(f"| {first} − {second} | {' | '.join(each)} | {interval} |")
    saved = [
        run["systems"][best]["all"]["gflops"] / run["systems"]["v2"]["all"]["gflops"] for run in runs
    ]
    lines += ["", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines.append(f"| FLOPs of v1@{largest} over those of v2 | {' | '.join(f'{s:.2f}×' for s in saved)} |")
    sizes = " / ".join(map(str, runs[0]["canvases"]))
    counts = [" / ".join(map(str, run["canvas_counts"])) for run in runs]
    lines.append(f"| queries at {sizes} | {' | '.join(counts)} |")
    head = f"{runs[0]['queries_count']:,} queries, {runs[0]['gallery_count']} to choose from, split {runs[0]['split_hash']}"
    return "\n".join([head, "", *lines])


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a finished run")
    options = parser.parse_args()
    try:
        print(table(read_runs(options.runs), [folder.name for folder in options.runs]))
    except InputError as error:
        print(f"seeds.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
