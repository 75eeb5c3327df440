"""Distance operators: correctness, speed and memory, and pictures of them, in one command.

    python benchmarks/distance.py                       on the GPU if there is one, else on the CPU
    python benchmarks/distance.py --check-only          correctness alone
    python benchmarks/distance.py --small --device cpu  every step at tiny sizes, to try the script itself
    python benchmarks/distance.py --plot ROWS.jsonl     pictures of rows measured elsewhere

Needs torch, and on a GPU triton; neither Ray nor MLflow, nor an installed package (matplotlib for the pictures). Rivals
run in turn in one process and a ratio is their time over ours, turn by turn. Rows go to benchmarks/results/, by device.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import multiprocessing
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from measuring import FAILURES, Clock, Deadline, copy_rate, matmul_rate, read_rows, setting, show, write_rows

import match_rank  # isort: skip
import pairwise_distance  # isort: skip
import relational_huber  # isort: skip

from sketchynet.errors import InputError
from sketchynet.ops.backend import interpreting

OPERATORS = (relational_huber, pairwise_distance, match_rank)
MOST_BLOCKS = 5
"""No kernel has more sets of blocks to choose from."""
LARGE_AT_ONCE = 2
"""Processes that may rank in the large gallery side by side: a rival holds 18 GB there."""
RESULTS = Path(__file__).resolve().parent / "results"


def check_one(device: torch.device, operator: ModuleType, backend: str, name: str, small: bool) -> tuple[bool, str]:
    """Whether the operator is right in an arithmetic, and a line that says so."""
    start = time.monotonic()
    right = False
    if backend == "triton" and device.type == "cuda":
        pin_blocks(3)  # blocks that every shape takes: tuning is for what is timed
    try:
        operator.check(device, backend, name, small=small)
        verdict, right = "right", True
    except AssertionError as error:
        verdict = f"WRONG: {error}"
    except FAILURES as error:
        verdict = f"FAILED: {type(error).__name__}: {error}"
    finally:
        pin_blocks(None)
    return right, f"  {operator.NAME:<20} {backend:<8} {name:<6} {verdict}  ({time.monotonic() - start:.1f} s)"


def checks(device: torch.device) -> list[tuple[int, str, str]]:
    """Operators by number, backends and arithmetics to check."""
    backends = ["eager"] + (["triton"] if device.type == "cuda" or interpreting() else [])
    numbered = list(enumerate(OPERATORS))
    return [(number, backend, name) for backend in backends for number, operator in numbered for name in operator.CHECKED]


def check(device: torch.device, small: bool) -> bool:
    """Prints a line a check; False where one fails."""
    found = []
    for number, backend, name in checks(device):
        found.append(check_one(device, OPERATORS[number], backend, name, small))
        print(found[-1][1], flush=True)
    return all(right for right, _ in found)


def _share(large: Any) -> None:
    global _large
    _large = large


def _apart(kind: str, number: int, what: Any, device: torch.device, small: bool) -> tuple[bool, str]:
    """A check, or a case run once, in a process of its own."""
    operator = OPERATORS[number]
    if kind == "check":
        backend, name = what
        return check_one(device, operator, backend, name, small)
    if kind == "blocks":
        pin_blocks(what)
    # What fails here, blocks too big for the device for one, tells it when it is timed.
    with _large if operator is match_rank else contextlib.nullcontext(), contextlib.suppress(*FAILURES):
        for _, works in operator.cases(Clock(device, rounds=1), small=small):
            for name, work in works.items():
                if name.startswith("sketchynet") == (kind == "blocks"):
                    with contextlib.suppress(*FAILURES):
                        work()
    return True, ""


def check_and_compile(device: torch.device, small: bool) -> bool:
    """`check` while every kernel that will be timed, and every rival, is compiled: side by side, as compilers take most
    of the time. What they make lies in the caches of Triton and torch afterwards."""
    numbers = range(len(OPERATORS))
    tasks: list[tuple[str, int, Any]] = [("check", number, (backend, name)) for number, backend, name in checks(device)]
    tasks += [("rivals", number, None) for number in numbers]
    tasks += [("blocks", number, choice) for number in numbers for choice in range(MOST_BLOCKS)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(16, os.cpu_count() or 1), context, _share, (context.Semaphore(LARGE_AT_ONCE),)
    ) as pool:
        futures = [pool.submit(_apart, *task, device, small) for task in tasks]
        found = [future.result() for future in futures]
    for _, line in filter(lambda answer: answer[1], found):
        print(line)
    return all(right for right, _ in found)


def pin_blocks(number: int | None) -> None:
    """Takes each kernel's blocks of that number without tuning, or tunes again."""
    if importlib.util.find_spec("triton") is None:
        return
    from sketchynet.ops.kernels import (
        hard_negatives,
        match_rank,
        nearest,
        pairwise_distance,
        relational_huber,
    )

    for tuned in (
        hard_negatives.negatives_tuned,
        match_rank.count_tuned,
        nearest.candidates_tuned,
        pairwise_distance.distance_tuned,
        relational_huber.huber_tuned,
    ):
        tuned.pin(None if number is None else min(number, len(tuned.configs) - 1))


def measure(clock: Clock, small: bool, folder: Path) -> tuple[list[dict[str, Any]], Path]:
    """Rows of all operators, for as long as there is time, and their file, which holds them after every case."""
    size = 64 if small else None
    rates = {name: matmul_rate(clock, name, size) for name in ("fp32", "tf32", "bf16")}
    rates["copy"] = copy_rate(clock, 1 << 12 if small else None)
    print("ceilings: " + ", ".join(f"{n} {r / 1e12:.3g} TFLOP/s" for n, r in rates.items() if n != "copy"))
    print(f"          copy {rates['copy'] / 1e12:.3g} TB/s read and written")
    about = setting(clock.device)
    name = re.sub(r"[^a-z0-9]+", "-", about["device"].lower()).strip("-")
    found, path = list[dict[str, Any]](), folder / f"distance-{name}.jsonl"
    for operator in OPERATORS:
        for case, works in operator.cases(clock, small=small):
            print(f"\n{operator.NAME} {', '.join(f'{k} {v}' for k, v in case.items() if k not in ('flops', 'bytes'))}")
            try:
                rows = clock.compare(works, graphs=operator is not match_rank)  # ranks wait for the device
            except Deadline as reached:
                print(f"  {reached}: give more --minutes")
                return found, path
            # Float32 ranks on a GPU are three products in bfloat16; the rivals' one is in TF32.
            split = operator is match_rank and clock.device.type == "cuda" and case["arithmetic"] == "fp32"
            unit = "bf16" if split else case["arithmetic"]
            for row in rows:
                if "ms" in row and not (split and not row["competitor"].startswith("sketchynet")):
                    row["matmul_share"] = case["flops"] / (row["ms"] * 1e-3) / rates[unit]
                    if "bytes" in case:
                        row["bandwidth_share"] = case["bytes"] / (row["ms"] * 1e-3) / rates["copy"]
                print(show(row), flush=True)
                found.append({"operator": operator.NAME} | case | row | {"ceilings": rates} | about)
            write_rows(path, found)
    if clock.device.type == "cpu":
        peak = match_rank.cpu_peak_bytes(2000 if small else 200_000)
        print(f"\nmatch_rank on the CPU, 1,000 queries: {peak / 2**20:.0f} MB beside the embeddings")
        for row in found:
            if row["operator"] == match_rank.NAME and row["competitor"] == "sketchynet":
                row["peak_bytes"] = peak
        write_rows(path, found)
    return found, path


def plot(rows: list[dict[str, Any]], path: Path) -> bool:
    """Times of every case, side by side; False where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: copy the rows elsewhere and draw them there with --plot")
        return False
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if "ms" in row:
            sizes = ", ".join(f"{k} = {row[k]:,}" for k in ("B", "G", "D", "Dt", "Ds") if k in row)
            key = (row["operator"], f"{sizes}, {row['arithmetic']}" + (f", {row['kind']}" if "kind" in row else ""))
            cases.setdefault(key, []).append(row)
    figure, axes = plt.subplots(len(cases), 1, figsize=(8, 0.9 + 1.75 * len(cases)), squeeze=False, layout="constrained")
    for axis, ((operator, sizes), some) in zip(axes[:, 0], cases.items(), strict=True):
        names = [row["competitor"] for row in some]
        times = [row["ms"] for row in some]
        ours = [name.startswith("sketchynet") for name in names]
        spread = [[row["ms"] - row["ms_p20"] for row in some], [row["ms_p80"] - row["ms"] for row in some]]
        pale, dark = (["#8fb9c8" if own else "#cfd8dd" for own in ours], ["#1f6f8b" if own else "#7b8b94" for own in ours])
        alone = [row.get("device_ms") for row in some]
        bars = axis.barh(names, times, xerr=spread, color=pale, error_kw={"elinewidth": 0.8})
        axis.barh(names, [t or 0.0 for t in alone], height=0.4, color=dark)
        labels = [f"{t:.3g} ms" + (f", device {d:.3g}" if d else "") for t, d in zip(times, alone, strict=True)]
        axis.bar_label(bars, labels, padding=3, fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.22)
        axis.set_title(f"{operator}  ({sizes})", fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    about = "milliseconds, median (lines: 20 % to 80 %); dark: the device alone, its launches recorded and replayed"
    axes[-1, 0].set_xlabel(about, fontsize=8)
    figure.suptitle(f"{rows[0]['device']}, torch {rows[0]['torch']}", fontsize=10)
    figure.savefig(path, dpi=130)
    print(f"drawn: {path}")
    return True


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="cuda or cpu (default: cuda if there is one)")
    parser.add_argument("--check-only", action="store_true", help="correctness alone")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script itself")
    parser.add_argument("--rounds", type=int, default=11, help="timed turns (default 11)")
    parser.add_argument("--minutes", type=float, default=8.0, help="start no further case after so long (default 8)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the rows (default benchmarks/results)")
    parser.add_argument("--plot", type=Path, metavar="ROWS", help="draw these rows and do nothing else")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.plot:
        return 0 if plot(read_rows(arguments.plot), arguments.plot.with_suffix(".png")) else 1
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("torch sees no CUDA device here: leave out --device, or choose --device cpu")
    clock = Clock(device, rounds=arguments.rounds, until=time.monotonic() + 60 * arguments.minutes)
    print(", ".join(f"{k} {v}" for k, v in setting(device).items() if v is not None))
    print("correctness against float64:")
    start = time.monotonic()
    if device.type == "cuda" and not arguments.check_only:
        right = check_and_compile(device, arguments.small)
        print(f"  checked, and all kernels compiled, in {time.monotonic() - start:.0f} s")
    else:
        right = check(device, arguments.small)
    if arguments.check_only:
        return 0 if right else 1
    rows, path = measure(clock, arguments.small, arguments.out)
    print(f"\n{len(rows)} rows: {path}")
    if rows:
        plot(rows, path.with_suffix(".png"))
    failed = [row for row in rows if "failed" in row and row["competitor"].startswith("sketchynet")]
    return 0 if right and not failed else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (InputError, FileNotFoundError) as error:
        print(f"distance.py: {error}", file=sys.stderr)
        sys.exit(2)
