"""What the distance benchmarks share: clocks, ceilings of the device, rows of results."""

from __future__ import annotations

import contextlib
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # an uninstalled checkout measures itself: a bare GPU machine installs nothing

Work = Callable[[], Any]


FAILURES: tuple[type[Exception], ...] = (RuntimeError, ValueError, TypeError, ImportError)
"""What a case may end in on a device or with versions that lack something; it is told, and the next one runs."""
with contextlib.suppress(ImportError):
    from triton.errors import TritonError

    FAILURES = (*FAILURES, TritonError)


class Deadline(Exception):
    """There is no time left for this case."""


class Clock:
    """Times competitors in turn, so that the mood of the machine falls on all of them."""

    def __init__(self, device: torch.device, *, rounds: int, until: float | None = None) -> None:
        self.device, self.rounds, self._until = device, rounds, until

    def left(self) -> float:
        return float("inf") if self._until is None else self._until - time.monotonic()

    def milliseconds(self, work: Work) -> float:
        """Device time between two events on a GPU, the process's CPU time elsewhere."""
        if self.device.type != "cuda":
            start = time.process_time()
            work()
            return (time.process_time() - start) * 1e3
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def peak_bytes(self, work: Work) -> int | None:
        """What the work allocates beside what is held already; None where nothing counts it."""
        if self.device.type != "cuda":
            return None
        gc.collect()
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - held

    def graph(self, work: Work) -> Work | None:
        """Replays the work's launches alone, without the host that asks for them; None where it cannot be recorded."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(3):
                    work()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                work()
            graph.replay()
            torch.cuda.synchronize()
        except FAILURES:
            torch.cuda.synchronize()
            return None
        return graph.replay

    def compare(self, competitors: dict[str, Work], *, graphs: bool = False) -> list[dict[str, Any]]:
        """One row a competitor: quantiles of its time, its ratio to the first one, turn by turn, and its memory.

        With `graphs`, on a GPU, also the time and ratio of the device alone. A competitor that cannot run here, or
        does not fit in the device's memory, has a row that says so.
        """
        samples: dict[str, list[float]] = {}
        rows: dict[str, dict[str, Any]] = {}
        for name, work in competitors.items():
            if self.left() < 0:
                raise Deadline(f"no time left before {name}")
            try:
                work()  # compiles, tunes, fills caches
                rows[name] = {"competitor": name, "peak_bytes": self.peak_bytes(work)}
                samples[name] = []
            except FAILURES as error:
                rows[name] = {"competitor": name, "failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        for _ in range(self.rounds):
            for name, times in samples.items():
                times.append(self.milliseconds(competitors[name]))
        first = next(iter(competitors))
        for name, times in samples.items():
            ratios = sorted(t / own for t, own in zip(times, samples.get(first, times), strict=True))
            low, middle, high = quantiles(times)
            rows[name] |= {
                "ms": middle,
                "ms_p20": low,
                "ms_p80": high,
                "ratio": statistics.median(ratios),
                "ratio_min": ratios[0],
                "ratio_max": ratios[-1],
            }
        if graphs and self.device.type == "cuda":
            replays = {name: self.graph(competitors[name]) for name in samples}
            known = {name: replay for name, replay in replays.items() if replay is not None}
            alone: dict[str, list[float]] = {name: [] for name in known}
            for _ in range(self.rounds):
                for name, replay in known.items():
                    alone[name].append(self.milliseconds(replay))
            for name, times in alone.items():
                rows[name]["device_ms"] = statistics.median(times)
                if first in alone:
                    pairs = zip(times, alone[first], strict=True)
                    rows[name]["device_ratio"] = statistics.median(t / own for t, own in pairs)
        return list(rows.values())


def quantiles(values: list[float]) -> tuple[float, float, float]:
    """20 %, median, 80 %."""
    ordered = sorted(values)
    return ordered[len(ordered) // 5], statistics.median(ordered), ordered[-1 - len(ordered) // 5]


@contextlib.contextmanager
def arithmetic(name: str) -> Iterator[torch.dtype]:
    """The type of embeddings under an arithmetic's name, with torch told to multiply in it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    try:
        yield {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name, torch.float32)
    finally:
        torch.set_float32_matmul_precision(before)


def matmul_rate(clock: Clock, name: str, size: int | None = None) -> float:
    """Floating-point operations a second of torch's own square product in an arithmetic."""
    size = size or (8192 if clock.device.type == "cuda" else 1024)
    with arithmetic(name) as dtype:
        a, b = (torch.randn(size, size, device=clock.device).to(dtype) for _ in range(2))
        torch.mm(a, b)
        times = [clock.milliseconds(lambda: torch.mm(a, b)) for _ in range(10)]
    return 2.0 * size**3 / (statistics.median(times) * 1e-3)


def copy_rate(clock: Clock, elements: int | None = None) -> float:
    """Bytes a second, read and written, of a copy on the device."""
    elements = elements or (1 << 29 if clock.device.type == "cuda" else 1 << 25)
    source = torch.randn(elements, device=clock.device)
    target = torch.empty_like(source)
    target.copy_(source)
    times = [clock.milliseconds(lambda: target.copy_(source)) for _ in range(10)]
    return 2.0 * source.nbytes / (statistics.median(times) * 1e-3)


def setting(device: torch.device) -> dict[str, Any]:
    """Hardware and versions, for every row."""
    try:
        import triton

        compiler = triton.__version__
    except ImportError:
        compiler = None
    from sketchynet.version import __version__

    if device.type == "cuda":
        name, threads = torch.cuda.get_device_name(device), None
    else:
        name, threads = processor(), torch.get_num_threads()
    return {
        "device": name,
        "threads": threads,
        "torch": torch.__version__,
        "triton": compiler,
        "python": platform.python_version(),
        "sketchynet": __version__,
        "commit": commit(),
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def commit() -> str | None:
    try:
        command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """JSON lines, in place of what the file held."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    partial.replace(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def show(row: dict[str, Any]) -> str:
    """A row for people."""
    head = f"  {row['competitor']:<28}"
    if "failed" in row:
        return f"{head} {row['failed'][:90]}"
    text = f"{head} {row['ms']:10.3f} ms   {row['ratio']:6.2f}x ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})"
    if row.get("device_ms") is not None:
        text += f"   device {row['device_ms']:7.3f} ms {row.get('device_ratio', float('nan')):5.2f}x"
    if row.get("peak_bytes") is not None:
        text += f"   {row['peak_bytes'] / 2**20:8.0f} MB"
    if row.get("matmul_share") is not None:
        text += f"   {row['matmul_share']:5.0%} of the matmul rate"
    if row.get("bandwidth_share") is not None:
        text += f"   {row['bandwidth_share']:5.0%} of the copy rate"
    return text
