"""The operators inside torch: registration, `torch.compile`, autocast and data-parallel gradients."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from sketchynet.ops import hard_negatives, pairwise_distance, relational_huber


def _pairs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 4), (6, 4), (2, 6, 5), (6, 5)]
    return [torch.randn(*shape, generator=generator) for shape in shapes]


@pytest.mark.filterwarnings("ignore")  # of torch's own, while it traces
def test_registration_is_sound() -> None:
    ts, tp, ss, sp = _pairs()
    x, y = sp.clone().requires_grad_(), ss[0].clone().requires_grad_()
    torch.library.opcheck(torch.ops.sketchynet.pairwise_distance, (x, y, False, False))
    torch.library.opcheck(torch.ops.sketchynet.pairwise_distance, (x, y, True, False))
    content = torch.arange(6)
    inputs = (ts, tp, ss.requires_grad_(), sp.requires_grad_(), content, [1.0, 1.0, 1.0], 1.0, True)
    torch.library.opcheck(torch.ops.sketchynet.relational_huber, (*inputs, True, False))
    torch.library.opcheck(torch.ops.sketchynet.hard_negatives, (sp.detach(), tp.detach()[:, :4].new_ones(6, 5), content, "hard", False))


def _objective(ts, tp, ss, sp):
    content = torch.arange(len(sp))
    loss = relational_huber(ts, tp, ss, sp, normalize=True)
    picked = hard_negatives(ss, sp, content)
    return loss + pairwise_distance(ss, sp).mean() + pairwise_distance(ss, sp, metric="cosine").mean() + picked.sum()


@pytest.mark.filterwarnings("ignore")
def test_compiles_as_one_graph() -> None:
    results = []
    for objective in (_objective, torch.compile(_objective, backend="aot_eager", fullgraph=True)):
        ts, tp, ss, sp = _pairs()
        ss.requires_grad_(), sp.requires_grad_()
        loss = objective(ts, tp, ss, sp)
        loss.backward()
        results.append((loss.detach(), ss.grad, sp.grad))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled)


def test_autocast_changes_no_distance() -> None:
    """Networks under autocast give bfloat16; distances of it are sums in float32, and mixed types meet in the wider."""
    ts, tp, ss, sp = _pairs()
    half = ss.bfloat16()
    expected = pairwise_distance(half.float(), sp), relational_huber(ts, tp, half.float(), sp)
    large = torch.randn(200, 300)
    plain = pairwise_distance(large, large + 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pairwise_distance(half, sp), expected[0])
        assert torch.equal(relational_huber(ts, tp, half, sp), expected[1])
        assert torch.equal(pairwise_distance(large, large + 1), plain)  # through the Gram matrix


def _worker(rank: int, meeting: str) -> None:
    """One of two processes. It ends without the interpreter's clearing up: there, twice on a busy machine, a
    thread that was not joined aborted a process that had finished (gloo's, it seems; never reproduced).
    """
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = DistributedDataParallel(torch.nn.Linear(3, 5))
    torch.manual_seed(rank)
    sketch, photo, teacher = torch.randn(4, 3), torch.randn(4, 3), torch.randn(4, 6)
    embeddings = network(torch.cat([sketch, photo]))
    relational_huber(teacher, teacher + 1, embeddings[:4], embeddings[4:]).backward()
    mine = network.module.weight.grad.clone()
    total = mine.clone()
    dist.all_reduce(total)
    assert mine.abs().sum() > 0
    torch.testing.assert_close(total / 2, mine)
    dist.barrier()  # neither leaves while the other waits for it
    dist.destroy_process_group()
    os._exit(0)


def test_gradients_are_averaged_over_workers(tmp_path: Path) -> None:
    mp.spawn(_worker, args=(str(tmp_path / "meeting"),), nprocs=2)
