"""Batch norm with ReLU6 on a CPU, in training forward and backward, and in evaluation: the fused operators beside torch's.

    python benchmarks/norm.py                # layers of MobileNetV2, a step, embeddings; rows to benchmarks/results/norm.jsonl
    python benchmarks/norm.py --compile      # torch.compile too (minutes of compiling)

Competitors take turns in this process; a ratio is that of one turn to ours. Times are the process's CPU time, with one
thread: `--threads 2` counts both.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from measuring import Clock, Work, setting, show, write_rows
from torch import Tensor

from sketchynet.models import Embedder
from sketchynet.models.fused_norm import Bounds, batch_norm_clamped
from sketchynet.models.norm import set_domain
from sketchynet.recipes import find_recipe
from sketchynet.stages.allocator import keep_freed_memory
from sketchynet.stages.networks import new_embedder

BATCH = 24
LAYERS = ((32, 128), (96, 128), (144, 64), (192, 32), (384, 16), (960, 8))
"""Channels and side of MobileNetV2's activated layers at 256×256."""


def fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return batch_norm_clamped(x, weight, bias, 1e-5, Bounds(0.0, 6.0))[0]


def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.hardtanh_(F.batch_norm(x, None, None, weight, bias, True, 0.0, 1e-5), 0.0, 6.0)


def layer(channels: int, side: int, function: Any) -> Work:
    """Forward and backward of one layer."""
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, channels, side, side)
    x, by = (torch.randn(shape, generator=generator).to(memory_format=torch.channels_last) for _ in range(2))
    leaves = [x.requires_grad_(), torch.ones(channels, requires_grad=True), torch.zeros(channels, requires_grad=True)]
    return lambda: torch.autograd.grad(function(*leaves), leaves, by)


@contextmanager
def unfused() -> Iterator[None]:
    with patch("sketchynet.models.norm.can_fuse", lambda x: False):
        yield


def student() -> Embedder:
    """The student of `qmul_v1`, without its weights."""
    settings = find_recipe("qmul_v1").student
    torch.manual_seed(0)
    return new_embedder(settings.network.model_copy(update={"weights": None}), settings.canvases, None)


def step(*, fuse: bool) -> Work:
    """A step of the student on one canvas of 256."""
    network = student().train().to(memory_format=torch.channels_last)
    set_domain(network, 1)
    images = torch.randn(BATCH, 3, 256, 256).to(memory_format=torch.channels_last)

    def work() -> None:
        network.zero_grad(set_to_none=True)
        network.backbone(images).square().mean().backward()

    def without() -> None:
        with unfused():
            work()

    return work if fuse else without


def embedding(layout: torch.memory_format, *, fuse: bool) -> Work:
    """Embeddings of a batch of canvases of 256."""
    network = student().eval().to(memory_format=layout)
    canvas = torch.randint(0, 256, (BATCH, 256, 256), dtype=torch.uint8)

    def work() -> None:
        with nullcontext() if fuse else unfused(), torch.no_grad():
            network.embed_sketches(canvas)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="turns of each competitor (default 9)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--compile", action="store_true", help="beside torch.compile as well")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "norm.jsonl", metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    clock = Clock(torch.device("cpu"), rounds=options.rounds)
    about = setting(clock.device)
    rows: list[dict[str, Any]] = []

    def compare(case: str, competitors: dict[str, Work]) -> None:
        print(case)
        for row in clock.compare(competitors):
            print(show(row), flush=True)
            rows.append({"case": case} | row | about)

    for channels, side in LAYERS:
        functions = {"fused": fused, "torch": eager}
        if options.compile:
            functions["torch.compile"] = torch.compile(eager)
        compare(
            f"norm and ReLU6, {BATCH} x {channels} x {side} x {side}",
            {name: layer(channels, side, function) for name, function in functions.items()},
        )
    compare(f"MobileNetV2, a step of {BATCH} images at 256", {"fused": step(fuse=True), "torch": step(fuse=False)})
    compare(
        f"MobileNetV2, embeddings of {BATCH} images at 256",
        {
            "fused": embedding(torch.channels_last, fuse=True),
            "torch, channels last": embedding(torch.channels_last, fuse=False),
            "torch, channels first": embedding(torch.contiguous_format, fuse=False),
        },
    )
    write_rows(options.out, rows)
    print(options.out)


if __name__ == "__main__":
    main()
