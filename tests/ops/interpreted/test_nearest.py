from __future__ import annotations

import pytest
import torch

from sketchynet.errors import InputError
from sketchynet.ops import nearest
from sketchynet.ops.kernels import nearest as kernels


def _embeddings(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(6)
    gallery = torch.randn(260, 40, generator=generator)
    gallery[130:] = gallery[:130].clone()
    return torch.randn(19, 40, generator=generator).to(dtype), gallery.to(dtype)


def _naive(queries: torch.Tensor, gallery: torch.Tensor, k: int) -> torch.Tensor:
    distance = (queries.double()[:, None] - gallery.double()[None]).square().sum(dim=2)
    return distance.argsort(dim=1, stable=True)[:, :k]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_order_of_float64_with_duplicates(dtype: torch.dtype) -> None:
    queries, gallery = _embeddings(dtype)
    found = nearest(queries, gallery, 5, backend="triton")
    assert torch.equal(found.row, _naive(queries, gallery, 5))
    exact = (queries.double()[:, None] - gallery.double()[found.row]).norm(dim=2)
    torch.testing.assert_close(found.distance.double(), exact)


def test_lists_that_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, gallery = _embeddings(torch.float32)
    queries = queries[:5]
    monkeypatch.setattr(kernels, "CAPACITY", 12)
    monkeypatch.setattr(kernels, "START", 64)  # chunks of 64 and 196 rows
    assert torch.equal(nearest(queries, gallery, 7, backend="triton").row, _naive(queries, gallery, 7))


def test_more_than_the_kernels_hold() -> None:
    queries, gallery = _embeddings(torch.float32)
    with pytest.raises(InputError, match="'triton' finds up to 128 rows, k is 200"):
        nearest(queries, gallery, 200, backend="triton")
