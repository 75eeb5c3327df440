from __future__ import annotations

import pytest
import torch

from sketchynet.ops import pairwise_distance

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def _naive(x: torch.Tensor, y: torch.Tensor, metric: str = "euclidean") -> torch.Tensor:
    """float64 (B, G): differences of the rows as they are."""
    x, y = x.double(), y.double()
    if metric == "cosine":
        return torch.stack([1 - torch.nn.functional.cosine_similarity(row[None], y) for row in x])
    squared = torch.stack([(row - y).square().sum(dim=1) for row in x])
    return squared if metric == "squared" else squared.sqrt()


@pytest.mark.parametrize("metric", ["euclidean", "squared", "cosine"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_odd_shapes(dtype: torch.dtype, metric: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(131, 67, generator=generator).to(dtype)
    y = torch.randn(5, 67, generator=generator).to(dtype)
    found = pairwise_distance(x, y, metric=metric, backend="triton")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), _naive(x, y, metric), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-5])
def test_near_equal_embeddings_do_not_cancel(gap: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 64, generator=generator) * 100
    y = x[torch.randperm(40, generator=generator)] + torch.randn(40, 64, generator=generator) * gap
    y[7] = x[3]
    found, exact = pairwise_distance(x, y, backend="triton").double(), _naive(x, y)
    # The bound that the module states: 64 (γ + 4u) of d², half of it of d.
    bound = 32 * (64 + 64 + 4) * 2.0**-24
    assert found[3, 7] == 0
    torch.testing.assert_close(found, exact, rtol=bound, atol=0)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("metric", ["euclidean", "squared"])
def test_gradients_with_an_upstream_factor(dtype: torch.dtype, tolerance: float, metric: str) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(33, 20, generator=generator).to(dtype)
    y = torch.randn(140, 20, generator=generator).to(dtype)
    y[5] = x[4]  # distance zero
    upstream = torch.randn(33, 140, generator=generator)
    ours = [t.clone().requires_grad_() for t in (x, y)]
    pairwise_distance(*ours, metric=metric, backend="triton").backward(upstream)
    exact = [t.double().requires_grad_() for t in (x, y)]
    difference = (exact[0][:, None] - exact[1][None]).square().sum(dim=2)
    apart = difference > 0
    distance = torch.where(apart, difference.masked_fill(~apart, 1.0).sqrt(), 0.0)
    (difference if metric == "squared" else distance).backward(upstream.double())
    for mine, theirs in zip(ours, exact, strict=True):
        assert mine.grad.dtype == dtype and torch.isfinite(mine.grad).all()
        scale = theirs.grad.abs().max()
        assert (mine.grad.double() - theirs.grad).abs().max() <= tolerance * scale


def test_slices_leading_axes_and_empty_batches() -> None:
    x = torch.randn(3, 2, 70, 64)[..., ::2]  # not contiguous
    y = torch.randn(34, 40).T[:, :32].contiguous().T.contiguous().T[:40]
    found = pairwise_distance(x, y, backend="triton")
    torch.testing.assert_close(found, pairwise_distance(x, y, backend="eager"), rtol=1e-5, atol=1e-5)
    assert pairwise_distance(torch.zeros(0, 5), torch.zeros(4, 5), backend="triton").shape == (0, 4)
