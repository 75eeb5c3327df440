"""Two workers train as one process does: the same losses, step by step, and the same weights."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from networks import Stop, student_stage
from safetensors.torch import load_file

from sketchynet.distributed.runtime import TorchRuntime
from sketchynet.stages.runtime import LocalRuntime, Report, Runtime
from sketchynet.stages.training import train_network

WORLD = 2
EPOCHS = {"frozen": 25, "accumulated": 3, "synchronised": 3}  # of two steps


def changes(case: str, *, alone: bool) -> list[str]:
    accumulate = 3 if case == "accumulated" and not alone else 1
    return [
        f"student.network.norm={'private' if case == 'synchronised' else 'frozen'}",
        f"student.optimization.epochs={EPOCHS[case]}",
        f"student.optimization.accumulate={accumulate}",
        "student.optimization.synchronize_norms=true",
    ]


def worker(rank: int, meeting: str, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORLD)
    for case in EPOCHS:
        stage, watched = student_stage(*changes(case, alone=False), dtype=torch.float64)
        train_network(stage, TorchRuntime(), Path(results) / case)
        torch.save(watched.losses, f"{results}/{case}-{rank}.pt")
    stage, watched = student_stage(*changes("accumulated", alone=True), dtype=torch.float64)
    with pytest.raises(Stop):
        watched.stop = 5  # in the third epoch
        train_network(stage, TorchRuntime(), Path(results) / "stopped")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parallel")
    mp.spawn(worker, args=(str(folder / "meeting"), str(folder)), nprocs=WORLD)
    return folder


@pytest.mark.parametrize("case", EPOCHS)
def test_steps_of_two_workers_are_those_of_one(case: str, results: Path, tmp_path: Path) -> None:
    stage, watched = student_stage(*changes(case, alone=True), dtype=torch.float64)
    train_network(stage, LocalRuntime(), tmp_path)
    losses = watched.losses
    assert len(losses) == 2 * EPOCHS[case] and min(losses[-2:]) < min(losses[:2])
    for rank in range(WORLD):
        found = torch.load(results / f"{case}-{rank}.pt", weights_only=True)
        assert found == pytest.approx(losses, rel=0, abs=1e-7)
    # Among the tensors are the running statistics of the norms.
    trained = load_file(results / case / "final" / "network.safetensors")
    for name, value in load_file(tmp_path / "final" / "network.safetensors").items():
        torch.testing.assert_close(trained[name], value, rtol=0, atol=1e-5)


def test_a_run_of_two_workers_goes_on_with_one(results: Path, tmp_path: Path) -> None:
    stage, whole = student_stage(*changes("accumulated", alone=True), dtype=torch.float64)
    train_network(stage, LocalRuntime(), tmp_path)
    stage, rest = student_stage(*changes("accumulated", alone=True), dtype=torch.float64)
    train_network(stage, LocalRuntime(), results / "stopped")
    assert rest.losses == pytest.approx(whole.losses[4:], rel=0, abs=1e-7)


def train_on_ray(runtime: Runtime, *, folder: Path, tests: str) -> None:
    sys.path.insert(0, tests)  # where this worker finds the small data set
    from networks import student_stage

    stage, watched = student_stage(*changes("frozen", alone=False), dtype=torch.float64)
    train_network(stage, runtime, folder)
    torch.save(watched.losses, folder / f"losses-{runtime.rank}.pt")


@pytest.mark.slow
def test_fifty_steps_through_ray_train_are_the_same_for_one_and_two_workers(
    ray_session: ModuleType, tmp_path: Path
) -> None:
    from sketchynet.distributed.training import run_training

    ray_session.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    tests = str(Path(__file__).parents[1])
    reports: dict[int, list[Report]] = {1: [], 2: []}
    for workers, received in reports.items():
        folder = tmp_path / str(workers)
        run_training(
            partial(train_on_ray, folder=folder, tests=tests), workers=workers, storage=folder, name=f"steps-{workers}",
            listener=received.append, max_failures=0,
        )
    alone = torch.load(tmp_path / "1" / "losses-0.pt", weights_only=True)
    assert len(alone) == 50 and min(alone[-2:]) < min(alone[:2])
    for rank in range(2):
        found = torch.load(tmp_path / "2" / f"losses-{rank}.pt", weights_only=True)
        assert found == pytest.approx(alone, rel=0, abs=1e-7)
    curves = [[r.metrics["loss"] for r in received if r.kind == "metrics"] for received in reports.values()]
    assert len(curves[0]) == 25 and curves[1] == pytest.approx(curves[0], rel=0, abs=1e-7)
