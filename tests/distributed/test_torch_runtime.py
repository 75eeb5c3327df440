"""TorchRuntime in two plain processes against one process on the whole batch."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small import small_pairs, small_recipe
from torch import nn
from torch.nn import functional as F

from sketchynet import checkpoint
from sketchynet.distributed.runtime import TorchRuntime
from sketchynet.stages.retrieval import Retrieval
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import LocalRuntime, Report, Runtime, spread
from sketchynet.stages.task import TRAIN

WORLD = 2
SHARES = ([3, 4], [0, 7], [7, 0])  # rows of rank 0 and rank 1


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(7, 5, generator=generator), torch.randn(7, 5, generator=generator)


def make_model() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))
    model.register_module("unused", nn.Linear(2, 2))
    model.register_buffer("running", torch.zeros(2))
    return model


def triplet(sketch: torch.Tensor, photo: torch.Tensor) -> torch.Tensor:
    """Triplet loss over all ordered pairs: every row depends on every other."""
    distance = torch.cdist(sketch, photo)
    return F.relu(1.0 + distance.diagonal()[:, None] - distance).mean()


def loss_gradients(runtime: Runtime | None, model: nn.Module, rows: slice) -> list[torch.Tensor]:
    sketches, photos = make_batch()
    model.zero_grad()
    trained = [p for module in list(model)[:3] for p in module.parameters()]
    if runtime is None:
        triplet(embed(model, sketches), embed(model, photos)).backward()
    else:
        own = embed(model, sketches[rows]), embed(model, photos[rows])
        loss = triplet(runtime.gather(own[0]), runtime.gather(own[1]))
        loss.backward()
        runtime.sum_gradients(model.parameters())
        assert all(p.grad is None for p in model.get_submodule("unused").parameters())
    return [p.grad.clone() for p in trained if p.grad is not None]


def embed(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    for module in list(model)[:3]:
        rows = module(rows)
    return rows


def answers(runtime: Runtime) -> list[torch.Tensor]:
    """What :func:`spread` puts together of five rows, a block of four and one of a single row; then of none."""
    asked: list[int] = []

    def square(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(len(rows))
        own = torch.from_numpy(rows).float()
        return own**2, own[:, None].half()

    with mock.patch("sketchynet.stages.runtime._SPREAD", 4):
        blocks = list(spread(runtime, np.array([3, 1, 4, 1, 5]), square))
        assert list(spread(runtime, np.zeros(0, np.int64), square)) == []
    return [
        torch.cat([torch.from_numpy(rows) for rows, _ in blocks]),
        *(torch.cat([parts[i] for _, parts in blocks]) for i in range(2)),
        torch.tensor(asked),
    ]


def store_embeddings(runtime: Runtime, root: Path) -> dict[str, torch.Tensor]:
    """A full network of random weights, and what it says of the training pairs."""
    task, folder = Retrieval(small_recipe(), small_pairs()), RunFolder(root)
    if runtime.rank == 0:
        torch.manual_seed(0)
        full = task.new_network(task.recipe.teacher.network, (32,), None)
        checkpoint.write_checkpoint(
            folder.final("teacher-0"), network=full.state_dict(), config=full.config, metrics={}
        )
    runtime.barrier()
    task.store_teacher(runtime, folder)
    return checkpoint.read_network(folder.teacher_embeddings)


def worker(rank: int, meeting: str, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORLD)
    reports: list[Report] = []
    runtime = TorchRuntime(listener=reports.append)
    found: dict[str, object] = {}
    model = make_model()
    for shares in SHARES:
        start = sum(shares[:rank])
        rows = slice(start, start + shares[rank])
        found[f"gradients {shares}"] = loss_gradients(runtime, model, rows)
        found[f"labels {shares}"] = runtime.gather(torch.arange(7)[rows])
    found["empty"] = runtime.gather(torch.zeros(0, 3))

    weight = nn.Parameter(torch.zeros(2))  # a gradient on rank 1 only: rank 0 counts as zero
    weight.grad = torch.tensor([1.0, 2.0]) if rank == 1 else None
    runtime.sum_gradients([weight])
    found["missing"] = weight.grad

    found["answers"] = answers(runtime)
    store_embeddings(runtime, Path(results) / "run")
    model.get_buffer("running").fill_(float(rank + 1))
    runtime.average_buffers(model)
    found["running"] = model.get_buffer("running")
    runtime.barrier()
    runtime.report(Report("teacher", "metrics", step=rank))
    found["reports"] = len(reports)
    torch.save(found, f"{results}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runtime")


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict]:
    mp.spawn(worker, args=(str(folder / "meeting"), str(folder)), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("shares", SHARES)
def test_gradient_is_that_of_one_process(found: list[dict], shares: list[int]) -> None:
    expected = loss_gradients(None, make_model(), slice(None))
    assert len(expected) == 4
    for of_worker in found:
        for mine, theirs in zip(of_worker[f"gradients {shares}"], expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shares", SHARES)
def test_rows_arrive_in_rank_order(found: list[dict], shares: list[int]) -> None:
    for of_worker in found:
        assert of_worker[f"labels {shares}"].tolist() == [0, 1, 2, 3, 4, 5, 6]
        assert of_worker["empty"].shape == (0, 3)


def test_every_worker_is_asked_about_its_share(found: list[dict]) -> None:
    for of_worker, asked in zip(found, ([2, 1], [2, 0]), strict=True):
        rows, squares, halves, counts = of_worker["answers"]
        assert rows.tolist() == [3, 1, 4, 1, 5]
        assert squares.tolist() == [9.0, 1.0, 16.0, 1.0, 25.0]
        assert halves.dtype == torch.float16 and halves.tolist() == [[3.0], [1.0], [4.0], [1.0], [5.0]]
        assert counts.tolist() == asked


def test_full_network_asked_by_two_workers_says_what_it_says_to_one(folder: Path, found: list[dict], tmp_path: Path) -> None:
    alone = store_embeddings(LocalRuntime(), tmp_path)
    together = checkpoint.read_network(RunFolder(folder / "run").teacher_embeddings)
    train = small_pairs().sketch_indices(TRAIN)
    assert alone["sketches"][train].isfinite().all() and alone["sketches"].isnan().any()
    for name in ("sketches", "photos"):
        torch.testing.assert_close(together[name], alone[name], equal_nan=True, rtol=0, atol=1e-6)


def test_missing_gradient_counts_as_zero(found: list[dict]) -> None:
    assert [of_worker["missing"].tolist() for of_worker in found] == [[1.0, 2.0]] * 2


def test_buffers_are_averaged(found: list[dict]) -> None:
    assert [of_worker["running"].tolist() for of_worker in found] == [[1.5, 1.5]] * 2


def test_only_rank_zero_reports(found: list[dict]) -> None:
    assert [of_worker["reports"] for of_worker in found] == [1, 0]


def test_needs_a_process_group() -> None:
    with pytest.raises(RuntimeError, match="init_process_group"):
        TorchRuntime()
