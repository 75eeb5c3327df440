from __future__ import annotations

import numpy as np
import pytest
import torch

from sketchynet.errors import InputError
from sketchynet.ops import match_rank
from sketchynet.ops.kernels import match_rank as kernels

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def naive_ranks(queries: torch.Tensor, gallery: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """By squared differences in float64."""
    gallery = gallery.double()
    ranks = []
    for query, true in zip(queries.double(), target.tolist(), strict=True):
        distance = (query - gallery).square().sum(dim=1)
        ranks.append(int((distance <= distance[true]).sum()))
    return torch.tensor(ranks)


def embeddings(kind: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    if kind == "clustered":  # near neighbours a few rounding errors apart, far from the origin
        centres = torch.randn(6, 70, generator=generator) + 3
        gallery = centres[torch.arange(300) % 6] + 1e-2 * torch.randn(300, 70, generator=generator)
        queries = centres[torch.arange(33) % 6] + 1e-2 * torch.randn(33, 70, generator=generator)
    else:
        gallery = torch.randn(300, 70, generator=generator)
        queries = torch.randn(33, 70, generator=generator)
    gallery[200:] = gallery[:100].clone()  # duplicates tie
    return queries.to(dtype), gallery.to(dtype), torch.randint(0, 300, (33,), generator=generator)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["random", "clustered"])
def test_ranks_are_those_of_float64(kind: str, dtype: torch.dtype) -> None:
    queries, gallery, target = embeddings(kind, dtype)
    found = match_rank(queries, gallery, target, backend="triton")
    assert torch.equal(found, naive_ranks(queries, gallery, target))


def test_chunks_and_more_marks_than_are_set_out(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, gallery, target = embeddings("clustered", torch.float16)
    monkeypatch.setattr(kernels, "MARKED", 1)
    monkeypatch.setattr(kernels, "chunk_rows", lambda *_: 64)
    queries, gallery, target = queries[:6], gallery[:150].clone(), target[:6] % 150
    gallery[100:108] = gallery[target[0]]
    found = match_rank(queries, gallery, target, backend="triton")
    assert torch.equal(found, naive_ranks(queries, gallery, target))


def test_collapsed_embeddings_score_last() -> None:
    ranks = match_rank(torch.ones(3, 8), torch.ones(10, 8), torch.arange(3), backend="triton")
    assert ranks.tolist() == [10] * 3


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy says what overflows
@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_products_that_flush_or_overflow_are_decided_exactly(scale: float) -> None:
    queries, gallery, target = embeddings("random", torch.float32)
    queries, gallery, target = queries[:4] * scale, gallery[:60] * scale, target[:4] % 60
    found = match_rank(queries, gallery, target, backend="triton")
    assert torch.equal(found, naive_ranks(queries, gallery, target))


def test_gallery_from_a_memory_map(tmp_path) -> None:
    queries, gallery, target = embeddings("random", torch.float32)
    np.save(tmp_path / "gallery.npy", gallery.numpy())
    held = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    found = match_rank(queries, held, target, backend="triton")
    assert torch.equal(found, naive_ranks(queries, gallery, target))


def test_rows_that_are_not_contiguous() -> None:
    queries, gallery, target = embeddings("random", torch.float32)
    wide = torch.stack([gallery, -gallery], dim=2).flatten(1)
    found = match_rank(queries, wide[:, ::2], target, backend="triton")
    assert torch.equal(found, naive_ranks(queries, gallery, target))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_check_behind_the_kernels_names_the_row(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, gallery, target = embeddings("random", torch.bfloat16)
    gallery[23, 5] = value
    monkeypatch.setattr(kernels, "chunk_rows", lambda *_: 20)
    with pytest.raises(InputError, match="gallery row 23 of 40 is not finite"):
        match_rank(queries[:3], gallery[:40], target[:3] % 20, backend="triton")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_check_of_queries_names_the_row() -> None:
    queries, gallery, target = embeddings("random", torch.float32)
    queries[3, 1] = float("nan")
    with pytest.raises(InputError, match="query row 3 of 5 is not finite"):
        match_rank(queries[:5], gallery[:40], target[:5] % 20, backend="triton")


def _summed_in_order(x: np.ndarray, y: np.ndarray) -> float:
    """float32 sum of the products, one after the other, each sum truncated as tensor cores do."""
    total = np.float32(0.0)
    for product in x.astype(np.float64) * y.astype(np.float64):
        exact = np.float64(total) + product
        total = np.float32(exact)
        if abs(np.float64(total)) > abs(exact):
            total = np.nextafter(total, np.float32(0.0))
    return float(total)


@pytest.mark.parametrize("kind", ["random", "aligned", "rising", "falling"])
def test_the_bound_covers_sums_in_order(kind: str) -> None:
    """Query's and row's part of the bound against what products are off by, with truncated sums of single products."""
    generator = torch.Generator().manual_seed(6)
    x, y = (torch.randn(8, 512, generator=generator) for _ in range(2))
    if kind != "random":
        x, y = x.abs(), y.abs()
    if kind in ("rising", "falling"):  # where the elements that are in few sums are large, and where they are small
        ramp = torch.linspace(-3, 3, 512).exp()
        x, y = x * (ramp if kind == "rising" else ramp.flip(0)), y * (ramp if kind == "rising" else ramp.flip(0))
    x, y = x.bfloat16(), y.bfloat16()
    bad = torch.full((), 1 << 60)
    parts = [[float(kernels.measured(row[None], bad, share=0.0)[3]) for row in rows] for rows in (x, y)]
    for i in range(8):
        a, b = x[i].float().numpy(), y[i].float().numpy()
        off = abs(_summed_in_order(a, b) - float(a.astype(np.float64) @ b.astype(np.float64)))
        # Each part holds half a unit more for every norm than the sums ask.
        assert off <= parts[0][i] + parts[1][i]


def test_products_are_summed_in_the_steps_that_the_bound_counts() -> None:
    assert all(blocks["BK"] <= 64 and blocks["BN"] <= kernels.SLACK_ROWS for blocks in kernels.count_tuned.choices)


def test_a_target_outside_of_the_gallery_is_named_in_the_end() -> None:
    queries, gallery, target = embeddings("random", torch.float32)
    for wrong in (-1, 300):
        target[4] = wrong
        with pytest.raises(InputError, match=f"target {wrong} of query 4 is no row of a gallery of 300 photos"):
            match_rank(queries, gallery, target, backend="triton")
