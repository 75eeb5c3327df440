"""`match_rank` and `nearest` against chunks of torch.cdist and of a plain matrix product, eager and compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from measuring import Clock, Work, arithmetic
from torch import Tensor

from sketchynet.ops import match_rank, nearest

NAME = "match_rank"
CHUNK = {"cpu": 1 << 24, "cuda": 1 << 30}
"""Distances that the rivals hold at once: 64 MB of float32 on the CPU; 4 GB on a GPU, so that they fill it."""


def _by_distance(distance: Tensor, target: Tensor) -> Tensor:
    return (distance <= distance.gather(1, target[:, None])).sum(dim=1)


def by_cdist(queries: Tensor, gallery: Tensor, target: Tensor) -> Tensor:
    rows = max(1, CHUNK[gallery.device.type] // len(gallery))
    parts = range(0, len(queries), rows)
    wide = gallery.float()
    return torch.cat(
        [_by_distance(torch.cdist(queries[i : i + rows].float(), wide), target[i : i + rows]) for i in parts]
    )


def _half_distance(queries: Tensor, gallery: Tensor, half: Tensor, target: Tensor) -> Tensor:
    return _by_distance(half - (queries @ gallery.T).float(), target)


def by_product(queries: Tensor, gallery: Tensor, target: Tensor, step: Any = _half_distance) -> Tensor:
    """Ranks by a matrix product, comparisons inside its rounding left as they fall."""
    half = 0.5 * torch.linalg.vector_norm(gallery, dim=1, dtype=torch.float32).square()
    rows = max(1, CHUNK[gallery.device.type] // len(gallery))
    parts = range(0, len(queries), rows)
    return torch.cat([step(queries[i : i + rows], gallery, half, target[i : i + rows]) for i in parts])


def product_alone(queries: Tensor, gallery: Tensor) -> None:
    """The matrix product that no method can do without."""
    rows = max(1, CHUNK[gallery.device.type] // len(gallery))
    for i in range(0, len(queries), rows):
        torch.mm(queries[i : i + rows], gallery.T)


def embeddings(kind: str, queries: int, gallery: int, dim: int, device: torch.device, dtype: torch.dtype):
    """Random rows, or clusters of near neighbours around common centres; each query's target is random."""
    generator = torch.Generator(device).manual_seed(1)

    def normal(rows: int) -> Tensor:
        return torch.randn(rows, dim, device=device, generator=generator, dtype=torch.float32)

    q, g = normal(queries), normal(gallery)
    if kind == "clustered":
        centres = normal(1000)
        q = centres[torch.arange(queries, device=device) % 1000] + 0.05 * q
        g = centres[torch.arange(gallery, device=device) % 1000] + 0.05 * g
    return q.to(dtype), g.to(dtype), torch.randint(0, gallery, (queries,), device=device, generator=generator)


def cases(clock: Clock, *, small: bool) -> Iterator[tuple[dict[str, Any], dict[str, Work]]]:
    cuda = clock.device.type == "cuda"
    queries, rows, dim = (20, 900, 32) if small else (4096, 1_000_000, 512) if cuda else (1000, 200_000, 512)
    step = torch.compile(_half_distance) if cuda else None
    for name, kind in (("bf16", "random"), ("bf16", "clustered"), ("fp32", "random")) if cuda else (("fp32", "random"),):
        with arithmetic("tf32" if cuda and name == "fp32" else name):
            dtype = torch.bfloat16 if name == "bf16" else torch.float32
            q, g, target = embeddings(kind, queries, rows, dim, clock.device, dtype)
            works: dict[str, Work] = {
                "sketchynet": lambda q=q, g=g, t=target: match_rank(q, g, t),
                "matrix product and compare": lambda q=q, g=g, t=target: by_product(q, g, t),
                "torch.cdist and compare": lambda q=q, g=g, t=target: by_cdist(q, g, t),
                "matrix product alone": lambda q=q, g=g: product_alone(q, g),
            }
            if step is not None:
                works["torch.compile"] = lambda q=q, g=g, t=target: by_product(q, g, t, step)
            if cuda and kind == "random":
                works["sketchynet.nearest, k=10"] = lambda q=q, g=g: nearest(q, g, 10)
            figures = {"B": queries, "G": rows, "D": dim, "arithmetic": name, "kind": kind}
            # A float32 product is three of bfloat16.
            yield figures | {"flops": 2.0 * queries * rows * dim * (3 if name == "fp32" and cuda else 1)}, works


def float64_ranks(queries: Tensor, gallery: Tensor, target: Tensor) -> Tensor:
    """By squared differences in float64, one query at a time.

    The gallery is cut into parts of one size, so that every row's sum has the same order: equal rows are equally far.
    """
    parts = gallery.chunk(next(n for n in range(1, len(gallery) + 1) if len(gallery) // n <= 1 << 17 and len(gallery) % n == 0))
    ranks = []
    for query, true in zip(queries.double(), target.tolist(), strict=True):
        squared = torch.cat([(query - part.double()).square().sum(dim=1) for part in parts])
        ranks.append((squared <= squared[true]).sum())
    return torch.stack(ranks)


CHECKED = ("fp32", "bf16", "fp16")


def check(device: torch.device, backend: str, name: str, *, small: bool) -> None:
    """Ranks against float64, on random and clustered embeddings with duplicates; raises AssertionError."""
    queries, rows, dim = (16, 300, 24) if small else (512, 300_000, 512) if device.type == "cuda" else (48, 6000, 512)
    for kind in ("random", "clustered"):
        with arithmetic(name) as dtype:
            q, g, target = embeddings(kind, queries, rows, dim, device, dtype)
            g[rows // 2 : rows // 2 + 50] = g[:50].clone()
            target[0], target[1] = 7, rows // 2 + 9
            found = match_rank(q, g, target, backend=backend)
            some = torch.arange(0, queries, max(1, queries // 24), device=device)
            exact = float64_ranks(q[some], g, target[some])
            wrong = (found[some] != exact).nonzero()[:, 0].tolist()
            assert not wrong, f"{NAME} {name} {kind}: ranks {found[some][wrong]} are not float64's {exact[wrong]}"
            near = nearest(q[some], g, 5, backend=backend)
            for query, row in zip(q[some].double(), near.row, strict=True):
                squared = torch.cat([(query - part.double()).square().sum(dim=1) for part in g.split(1 << 17)])
                order = squared.sort(stable=True).indices[:5]
                assert torch.equal(row, order), f"nearest {name} {kind}: rows {row} are not float64's {order}"


_PEAK = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import torch
from match_rank import embeddings, match_rank

def resident(line):
    found = next(text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith(line))
    return int(found.split()[1]) * 1024

q, g, target = embeddings("random", 1000, int(sys.argv[3]), 512, torch.device("cpu"), torch.float32)
match_rank(q[:8], g[:300], target[:8] % 300)
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: making the embeddings took more
before = resident("VmRSS")
match_rank(q, g, target)
print(resident("VmHWM") - before)
"""


def cpu_peak_bytes(gallery: int) -> int:
    """Greatest growth of the resident memory of a process of its own (Linux) while it ranks 1,000 queries."""
    here = Path(__file__).resolve().parent
    command = [sys.executable, "-c", _PEAK, str(here), str(here.parent), str(gallery)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout)
