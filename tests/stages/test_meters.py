"""Meters: figures of an epoch that can be counted by hand, and a trace that a viewer opens."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sketchynet.stages.meters import MeteredRollout, MeteredRuntime
from sketchynet.stages.runtime import LocalRuntime, Report, RolloutRequest, RolloutResult


class SlowRuntime(LocalRuntime):
    """One whose workers keep each other waiting."""

    def barrier(self) -> None:
        time.sleep(0.2)


def _train(runtime: MeteredRuntime, steps: int) -> None:
    """A stage of one epoch, in the calls that training makes."""
    layer = torch.nn.Linear(4, 4)
    runtime.report(Report("student", "start", 0))
    for _ in range(steps):
        gathered = [runtime.gather(layer(torch.ones(6, 4))), runtime.gather(torch.ones(6, 4))]
        runtime.gather(torch.tensor([1]))  # something agreed upon is no image
        sum(part.sum() for part in gathered).backward()
        runtime.sum_gradients(layer.parameters())
        time.sleep(0.01)
    runtime.average_buffers(layer)
    runtime.barrier()
    runtime.report(Report("student", "metrics", 1, metrics={"loss": 0.5}))
    runtime.report(Report("student", "end", 1, payload={"status": "FINISHED"}))


def test_figures_of_an_epoch() -> None:
    reports: list[Report] = []
    began = time.perf_counter()
    _train(MeteredRuntime(SlowRuntime(listener=reports.append)), steps=10)
    seconds = time.perf_counter() - began
    assert [report.kind for report in reports] == ["start", "metrics", "end"]
    figures = reports[1].metrics
    assert figures["loss"] == 0.5
    # 10 steps of 12 rows in at most `seconds`, of which at least 0.3 were slept and at least 0.2 waited.
    assert 10 / seconds <= figures["steps_per_second"] <= 10 / 0.3
    assert figures["images_per_second"] == pytest.approx(12 * figures["steps_per_second"])
    assert 0.2 / seconds <= figures["communication_share"] < 1.0
    assert 0.0 <= figures["cpu_utilization"] < 1.0


def test_a_gpu_is_sampled_where_its_library_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = iter((40, 60))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "pynvml")
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: next(samples))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3_000_000_000)
    reports: list[Report] = []
    runtime = MeteredRuntime(LocalRuntime(listener=reports.append))
    runtime.device = torch.device("cuda")
    runtime.report(Report("student", "start", 0))
    runtime.sum_gradients([])
    runtime.report(Report("student", "progress", 0, metrics={"share": 0.5}))
    runtime.report(Report("student", "metrics", 1))
    figures = reports[-1].metrics
    assert figures["gpu_utilization"] == 0.5 and figures["gpu_memory_gb"] == 3.0
    assert "images_per_second" not in figures  # none were embedded


def test_trace_of_some_steps(tmp_path: Path) -> None:
    reports: list[Report] = []
    _train(MeteredRuntime(LocalRuntime(listener=reports.append), tmp_path / "profile"), steps=12)
    path = tmp_path / "profile" / "student-rank0.json.gz"
    assert [report.payload["path"] for report in reports if report.kind == "artifact"] == [str(path)]
    with gzip.open(path, "rt") as file:
        events = json.load(file)["traceEvents"]
    names = [event.get("name", "") for event in events]
    assert sum(name.startswith("ProfilerStep#") for name in names) >= 5 and "aten::addmm" in names


def test_a_stage_shorter_than_a_trace_leaves_none(tmp_path: Path) -> None:
    reports: list[Report] = []
    _train(MeteredRuntime(LocalRuntime(listener=reports.append), tmp_path / "profile"), steps=1)
    assert not any(report.kind == "artifact" for report in reports)


def test_rollouts_are_counted_and_timed() -> None:
    def answer(request: RolloutRequest) -> RolloutResult:
        time.sleep(0.1)
        return RolloutResult(np.ones(len(request), np.int64), np.zeros(len(request), np.float32), np.ones(len(request)))

    rollout = MeteredRollout(answer)
    heard: list[Report] = []
    listen = rollout.listener(heard.append)
    rows = np.arange(50)
    for _ in range(2):
        assert len(rollout(RolloutRequest(rows, rows, rows)).ranks) == 50
    time.sleep(0.2)
    listen(Report("selector", "metrics", 1, metrics={"reward": 1.0}))
    listen(Report("selector", "metrics", 2, metrics={"reward": 2.0}))
    first, second = (report.metrics for report in heard)
    assert 100 < first["rollouts_per_second"] <= 500 and 0.1 < first["rollout_busy_share"] < 0.9
    assert second == {"reward": 2.0}  # nothing was asked since
