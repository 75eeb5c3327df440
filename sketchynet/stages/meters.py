"""Meters around a runtime or a rollout: how fast, how busy, how long waited; and a trace where one is asked for.

Nothing of a stage changes for it: what is measured passes through here anyway. The figures join those that the stage
reports, once an epoch:

    images_per_second        sketches at every canvas and photos embedded by all workers
    steps_per_second         optimiser steps
    communication_share      part of the time in which rank 0 waited for, or exchanged data with, other workers
    cpu_utilization          CPU time of rank 0 by wall-clock time and threads
    gpu_memory_gb            peak of rank 0, on CUDA
    gpu_utilization          part of the time in which rank 0's GPU ran kernels, sampled about once a second; on CUDA,
                             where nvidia-ml-py is installed
    rollouts_per_second      outcomes answered, by the time in which any were under way
    rollout_busy_share       part of the time in which outcomes were under way

Training adds what it waited for drawn batches (``input_wait_share``), the policy what it waited for outcomes.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sketchynet.stages.runtime import Report, Rollout, RolloutRequest, RolloutResult, Runtime

SKIPPED_STEPS, TRACED_STEPS = 3, 5
"""Of a stage: the first steps allocate and compile; a few after them show what all do."""


class StepTrace:
    """Traces some steps of a stage with torch's profiler and writes them where ``chrome://tracing`` and Perfetto read."""

    def __init__(self, path: Path, device: torch.device) -> None:
        from torch.profiler import ProfilerActivity, profile, schedule

        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
        self.path = path
        self.written = False
        self._profile = profile(
            activities=activities,
            schedule=schedule(wait=SKIPPED_STEPS - 1, warmup=1, active=TRACED_STEPS, repeat=1),
            on_trace_ready=self._write,
        )
        self._profile.start()
        self._open = True

    def step(self) -> None:
        """Says that a step has ended."""
        if self._open and not self.written:
            self._profile.step()
        if self.written:
            self.close()

    def close(self) -> None:
        """Ends the trace; one that had begun is written."""
        if self._open:
            self._open = False
            self._profile.stop()

    def _write(self, profile: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        profile.export_chrome_trace(str(self.path))
        self.written = True


class MeteredRuntime:
    """A runtime whose reports of metrics say how the time was spent; everything else passes through."""

    def __init__(self, runtime: Runtime, traces: Path | None = None) -> None:
        """traces: folder for one trace a stage and worker; None traces nothing."""
        self._runtime = runtime
        self._traces = traces
        self._trace: StepTrace | None = None
        self.rank, self.world_size, self.device = runtime.rank, runtime.world_size, runtime.device
        self._reset()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        with self._communicating():
            gathered = self._runtime.gather(rows)
        if gathered.is_floating_point():
            self._images += len(gathered)
        return gathered

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        with self._communicating():
            self._runtime.sum_gradients(parameters)
        self._steps += 1
        if self._trace is not None:
            self._trace.step()

    def average_buffers(self, module: torch.nn.Module) -> None:
        with self._communicating():
            self._runtime.average_buffers(module)

    def barrier(self) -> None:
        with self._communicating():
            self._runtime.barrier()

    def report(self, report: Report) -> None:
        if report.kind == "start":
            self._reset()
            if self._traces is not None:
                self._trace = StepTrace(self._traces / f"{report.stage}-rank{self.rank}.json.gz", self.device)
        elif report.kind == "progress":
            self._sample_gpu()
        elif report.kind == "metrics" and self._steps:
            self._sample_gpu()
            report = Report(report.stage, "metrics", report.step, report.metrics | self._figures(), report.payload)
            self._reset()
        elif report.kind == "end" and self._trace is not None:
            self._trace.close()
            if self._trace.written:
                self._runtime.report(Report(report.stage, "artifact", report.step, payload={"path": str(self._trace.path)}))
            self._trace = None
        self._runtime.report(report)

    @contextmanager
    def _communicating(self):
        began = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - began

    def _reset(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()
        self._waited, self._images, self._steps = 0.0, 0, 0
        self._gpu: list[int] = []

    def _sample_gpu(self) -> None:
        """What the driver says of the last second or less."""
        if self.device.type == "cuda" and importlib.util.find_spec("pynvml") is not None:
            self._gpu.append(torch.cuda.utilization(self.device))

    def _figures(self) -> dict[str, float]:
        seconds = time.perf_counter() - self._began
        images = {"images_per_second": self._images / seconds} if self._images else {}  # a policy embeds none
        figures = images | {
            "steps_per_second": self._steps / seconds,
            "communication_share": self._waited / seconds,
            "cpu_utilization": (time.process_time() - self._cpu) / seconds / torch.get_num_threads(),
        }
        if self.device.type == "cuda":
            figures["gpu_memory_gb"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        if self._gpu:
            figures["gpu_utilization"] = sum(self._gpu) / len(self._gpu) / 100
        return figures


class MeteredRollout:
    """A rollout that counts its rows and the time that they take; called in one thread, reported in another."""

    def __init__(self, rollout: Rollout) -> None:
        self._rollout = rollout
        self._rows, self._busy, self._began = 0, 0.0, time.perf_counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rollout, name)

    def __call__(self, request: RolloutRequest) -> RolloutResult:
        began = time.perf_counter()
        try:
            return self._rollout(request)
        finally:
            self._busy += time.perf_counter() - began
            self._rows += len(request)

    def listener(self, listener: Callable[[Report], None]) -> Callable[[Report], None]:
        """The listener, told with every report of metrics what was answered since the last one."""

        def listen(report: Report) -> None:
            if report.kind == "metrics" and self._rows:
                now = time.perf_counter()
                figures = {
                    "rollouts_per_second": self._rows / max(self._busy, 1e-9),
                    "rollout_busy_share": self._busy / (now - self._began),
                }
                report = Report(report.stage, "metrics", report.step, report.metrics | figures, report.payload)
                self._rows, self._busy, self._began = 0, 0.0, now
            listener(report)

        return listen
