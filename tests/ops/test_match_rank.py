from __future__ import annotations

import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchynet.errors import InputError
from sketchynet.ops import match_rank


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
    # The package's own name `match_rank` is the function; the module behind it holds the chunk size.
    module = importlib.import_module("sketchynet.ops.match_rank")
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 100)
    assert torch.equal(match_rank(queries, gallery, target), ranks)


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
    with pytest.raises(InputError, match="not part of this build"):
        match_rank(x, x, torch.tensor([0, 1]), backend="triton")
