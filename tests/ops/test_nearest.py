from __future__ import annotations

import importlib

import pytest
import torch

from sketchynet.errors import InputError
from sketchynet.ops import nearest, nearest_eager


def _naive(queries: torch.Tensor, gallery: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    squared = (queries.double()[:, None] - gallery.double()[None]).square().sum(dim=2)
    order = squared.argsort(dim=1, stable=True)[:, :k]
    return squared.gather(1, order).sqrt(), order


def test_literal() -> None:
    gallery = torch.tensor([[0.0], [3.0], [1.0], [3.0]])
    found = nearest(torch.tensor([[2.9], [0.4]]), gallery, 3)
    assert found.row.tolist() == [[1, 3, 2], [0, 2, 1]]
    torch.testing.assert_close(found.distance, torch.tensor([[0.1, 0.1, 1.9], [0.4, 0.6, 2.6]]))


@pytest.mark.parametrize("k", [1, 7, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("spread", [1.0, 1e-5])
def test_order_is_that_of_float64(spread: float, dtype: torch.dtype, k: int, monkeypatch) -> None:
    # The package's own name `nearest` is the function; the module behind it holds the size of chunks.
    monkeypatch.setattr(importlib.import_module("sketchynet.ops.nearest"), "chunk_rows", lambda queries: 90)
    generator = torch.Generator().manual_seed(0)
    gallery = 2 + spread * torch.randn(400, 33, generator=generator)
    gallery[300:] = gallery[:100].clone()
    queries = (2 + spread * torch.randn(11, 33, generator=generator)).to(dtype)
    gallery = gallery.to(dtype)
    found, (distance, index) = nearest(queries, gallery, k), _naive(queries, gallery, k)
    assert torch.equal(found.row, index)
    torch.testing.assert_close(found.distance.double(), distance)
    assert torch.equal(nearest_eager(queries, gallery, k).row, index)


def test_collapsed_embeddings_come_in_order() -> None:
    assert nearest(torch.ones(2, 4), torch.ones(50, 4), 3).row.tolist() == [[0, 1, 2]] * 2


def test_no_queries() -> None:
    assert nearest(torch.zeros(0, 4), torch.ones(5, 4), 3).row.shape == (0, 3)


def test_bad_input() -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(InputError, match="k = 4 must be between 1 and the 3 photos"):
        nearest(x, x, 4)
    with pytest.raises(InputError, match="gallery is empty"):
        nearest(x, x[:0], 1)
    with pytest.raises(InputError, match="'triton' cannot run here"):
        nearest(x, x, 1, backend="triton")
    bad = x.clone()
    bad[1, 0] = float("nan")
    with pytest.raises(InputError, match="nearest: gallery row 1 of 3 is not finite"):
        nearest(x, bad, 1)
    with pytest.raises(InputError, match="nearest: query row 1 of 3 is not finite"):
        nearest(bad, x, 1)
