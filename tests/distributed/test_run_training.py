"""Training over two Ray workers: same result as one process, through the death of a worker."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from sketchynet.errors import InputError
from sketchynet.stages.runtime import LocalRuntime, Report, Runtime

STEPS = 6


def toy_stage(runtime: Runtime, storage: Path, on_step: Callable[[Runtime, int], None]) -> None:
    """Trains a small network and goes on from ``storage/state.pt`` where there is one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    first, state = 0, storage / "state.pt"
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    for step in range(first, STEPS):
        on_step(runtime, step)
        batch = torch.randn(7, 6, generator=torch.Generator().manual_seed(step))
        embedded = runtime.gather(model(batch[runtime.rank :: runtime.world_size]))
        loss = torch.cdist(embedded, embedded).add(1e-3).log().mean().square() + embedded.square().mean()
        optimizer.zero_grad()
        loss.backward()
        runtime.sum_gradients(model.parameters())
        optimizer.step()
        if runtime.rank == 0:
            saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(saved, storage / "state.new")
            os.replace(storage / "state.new", state)
        runtime.report(Report("toy", "metrics", step=step, metrics={"loss": loss.item()}))
    runtime.barrier()


def result(storage: Path) -> dict[str, torch.Tensor]:
    return torch.load(storage / "state.pt", weights_only=True)["model"]


def test_two_workers_equal_one_process_though_one_is_killed(
    ray_session: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from sketchynet.distributed.training import run_training

    ray_session.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    alone.mkdir()
    spread.mkdir()

    def kill_once(runtime: Runtime, step: int) -> None:
        if step == 3 and runtime.rank == 1 and not (spread / "killed").exists():
            (spread / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    expected: list[Report] = []
    toy_stage(LocalRuntime(listener=expected.append), alone, lambda runtime, step: None)
    reports: list[Report] = []
    run_training(
        lambda runtime: toy_stage(runtime, spread, kill_once),
        workers=2,
        storage=spread,
        name="killed",
        listener=reports.append,
        max_failures=1,
    )
    assert (spread / "killed").exists()
    assert "all workers start again from the last checkpoint (1 of 1 times)" in caplog.text
    assert [report.step for report in reports] == list(range(STEPS))
    for report, wanted in zip(reports, expected, strict=True):
        assert report.metrics["loss"] == pytest.approx(wanted.metrics["loss"], abs=1e-5)
    wanted_weights = result(alone)
    for name, weights in result(spread).items():
        torch.testing.assert_close(weights, wanted_weights[name], rtol=0, atol=1e-5)


def test_input_error_of_a_worker_reaches_the_driver(ray_session: ModuleType, tmp_path: Path) -> None:
    from sketchynet.distributed.training import run_training

    message = "margin is -1: it must be positive"

    def job(runtime: Runtime) -> None:
        (tmp_path / f"attempt-{len(list(tmp_path.glob('attempt-*')))}").touch()
        raise InputError(message)

    with pytest.raises(InputError) as caught:
        run_training(
            job, workers=1, storage=tmp_path, name="refused", listener=lambda report: None, max_failures=3
        )
    assert str(caught.value) == message
    assert len(list(tmp_path.glob("attempt-*"))) == 1  # bad input is not tried again


@pytest.mark.slow
def test_error_of_the_listener_ends_the_run(ray_session: ModuleType, tmp_path: Path) -> None:
    from sketchynet.distributed.training import run_training

    def job(runtime: Runtime) -> None:
        for step in range(3000):
            runtime.report(Report("toy", "metrics", step=step))
            time.sleep(0.02)

    def listener(report: Report) -> None:
        if report.step == 2:
            raise OSError("disk full")

    with pytest.raises(OSError, match="^disk full$"):
        run_training(job, workers=1, storage=tmp_path, name="deaf", listener=listener, max_failures=3)
