from __future__ import annotations

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchynet.errors import InputError
from sketchynet.ops import match_rank, match_rank_eager


def _naive(queries: torch.Tensor, gallery: torch.Tensor, target: torch.Tensor) -> list[int]:
    ranks = []
    for query, true in zip(queries.double(), target.tolist(), strict=True):
        distances = [float((query - row).square().sum()) for row in gallery.double()]
        ranks.append(1 + sum(d <= distances[true] for i, d in enumerate(distances) if i != true))
    return ranks


def test_literal_ranks() -> None:
    gallery = torch.tensor([[0.0], [1.0], [2.0], [1.0]])
    queries = torch.tensor([[0.1], [1.1], [5.0]])
    assert match_rank(queries, gallery, torch.tensor([0, 1, 0])).tolist() == [1, 2, 4]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 99))
def test_against_loops_with_many_ties(b: int, g: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, gallery = (torch.randint(0, 3, (n, 2), generator=generator).float() for n in (b, g))
    target = torch.randint(0, g, (b,), generator=generator)
    assert match_rank(queries, gallery, target).tolist() == _naive(queries, gallery, target)


def test_collapsed_embeddings_score_last() -> None:
    assert match_rank(torch.ones(3, 8), torch.ones(10, 8), torch.arange(3)).tolist() == [10] * 3


def test_duplicates_tie_and_chunks_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    gallery = torch.randn(31, 67, generator=generator)
    gallery = torch.cat([gallery, gallery])
    queries, target = torch.randn(17, 67, generator=generator), torch.arange(17)
    ranks = match_rank(queries, gallery, target)
    assert (ranks >= 2).all() and (ranks % 2 == 0).all()
    assert torch.equal(match_rank_eager(queries, gallery, target), ranks)
    # The package's own name `match_rank` is the function; the module behind it holds the chunk size.
    module = importlib.import_module("sketchynet.ops.match_rank")
    monkeypatch.setattr(module, "chunk_rows", lambda queries: 7)
    assert torch.equal(match_rank(queries, gallery, target), ranks)
    assert torch.equal(match_rank(queries.double(), gallery.double(), target), ranks)


def test_no_queries() -> None:
    ranks = match_rank(torch.zeros(0, 3), torch.zeros(2, 3), torch.zeros(0, dtype=torch.int64))
    assert ranks.shape == (0,) and ranks.dtype == torch.int64


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_rows_are_named(value: float) -> None:
    good, bad = torch.zeros(4, 3), torch.zeros(4, 3)
    bad[2, 1] = value
    target = torch.arange(4)
    with pytest.raises(InputError, match="query row 2 of 4"):
        match_rank(bad, good, target)
    with pytest.raises(InputError, match="gallery row 2 of 4"):
        match_rank(good, bad, target)


def test_bad_input() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(InputError, match="target 5 of query 1"):
        match_rank(x, x, torch.tensor([0, 5]))
    with pytest.raises(InputError, match="int64"):
        match_rank(x, x, torch.tensor([0.0, 1.0]))
    with pytest.raises(InputError, match="match_rank needs"):
        match_rank(x, torch.zeros(2, 4), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="'triton' cannot run here"):
        match_rank(x, x, torch.tensor([0, 1]), backend="triton")
    with pytest.raises(InputError, match="gallery is empty"):
        match_rank(x, torch.zeros(0, 3), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="queries torch.float32 and gallery torch.float64: convert"):
        match_rank(x, x.double(), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="queries lie on cpu, the gallery on meta: move"):
        match_rank(x, x.to("meta"), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="target lies on meta"):
        match_rank(x, x, torch.tensor([0, 1], device="meta"))
    with pytest.raises(InputError, match="queries is torch.int64"):
        match_rank(x.long(), x.long(), torch.tensor([0, 1]))


def _float64_ranks(queries: torch.Tensor, gallery: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    ranks = []
    for query, true in zip(queries.double(), target.tolist(), strict=True):
        distance = (query - gallery.double()).square().sum(dim=1)
        ranks.append(int((distance <= distance[true]).sum()))
    return torch.tensor(ranks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-5])
def test_ranks_are_those_of_float64(dtype: torch.dtype, spread: float) -> None:
    """Also in clusters whose rows differ by less than a product's rounding, far from the origin."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(5, 96, generator=generator) + 2
    gallery = centres[torch.arange(2000) % 5] + spread * torch.randn(2000, 96, generator=generator)
    gallery[1500:] = gallery[:500].clone()
    queries = centres[torch.arange(40) % 5] + spread * torch.randn(40, 96, generator=generator)
    target = torch.randint(0, 2000, (40,), generator=generator)
    queries, gallery = queries.to(dtype), gallery.to(dtype)
    before = queries.clone(), gallery.clone()
    assert torch.equal(match_rank(queries, gallery, target), _float64_ranks(queries, gallery, target))
    assert torch.equal(queries, before[0]) and torch.equal(gallery, before[1])


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18, 1e30])
def test_products_that_flush_or_overflow_are_decided_exactly(scale: float) -> None:
    generator = torch.Generator().manual_seed(2)
    queries, gallery = torch.randn(9, 20, generator=generator), torch.randn(70, 20, generator=generator)
    target = torch.arange(9)
    found = match_rank(queries * scale, gallery * scale, target)
    assert torch.equal(found, _float64_ranks(queries * scale, gallery * scale, target))


def test_gallery_may_be_an_array_or_a_memory_map(tmp_path) -> None:
    queries, gallery, target = torch.randn(4, 8), torch.randn(30, 8), torch.arange(4)
    ranks = match_rank(queries, gallery, target)
    assert torch.equal(match_rank(queries, gallery.numpy(), target), ranks)
    np.save(tmp_path / "gallery.npy", gallery.numpy())
    assert torch.equal(match_rank(queries, np.load(tmp_path / "gallery.npy", mmap_mode="r"), target), ranks)


def test_rows_that_are_not_contiguous() -> None:
    queries, gallery, target = torch.randn(8, 4).T, torch.randn(8, 30).T, torch.arange(4)
    assert torch.equal(match_rank(queries, gallery, target), _float64_ranks(queries, gallery, target))


_PEAK = """
from pathlib import Path
import torch
from sketchynet.ops import match_rank

def resident(line):
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(text for text in status if text.startswith(line)).split()[1])

torch.manual_seed(0)
queries, gallery, target = torch.randn(1000, 512), torch.randn(20000, 512), torch.arange(1000)
match_rank(queries[:8], gallery[:300], target[:8])  # what libraries allocate once
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, from what is resident now
before = resident("VmRSS")
match_rank(queries, gallery, target)
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux's /proc")
def test_memory_is_bounded() -> None:
    """1,000 x 20,000 distances would take 80 MB (and 160 MB as float64)."""
    run = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert int(run.stdout) < 40 * 1024, run.stdout
