from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchynet.errors import InputError
from sketchynet.ops import pairwise_distance


def _naive(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    rows = [[sum((float(a) - float(b)) ** 2 for a, b in zip(p, q, strict=True)) ** 0.5 for q in y] for p in x]
    return torch.tensor(rows, dtype=torch.float64)


def test_literal_values() -> None:
    x, y = torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    assert pairwise_distance(x, y).tolist() == [[5.0], [4.0]]
    assert pairwise_distance(x, y, squared=True).tolist() == [[25.0], [16.0]]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
def test_against_loops(b: int, g: int, d: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(b, d, generator=generator), torch.randn(g, d, generator=generator)
    torch.testing.assert_close(pairwise_distance(x, y).double(), _naive(x, y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-5])
def test_near_equal_large_embeddings_do_not_cancel(gap: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 512, generator=generator) * 100
    y = x + torch.randn(40, 512, generator=generator) * gap
    exact = (x.double() - y.double()).norm(dim=1)
    ours = pairwise_distance(x, y).diagonal().double()
    torch.testing.assert_close(ours, exact, rtol=512 * torch.finfo(torch.float32).eps, atol=0)


def test_leading_axes() -> None:
    x, y = torch.randn(3, 2, 4, 6), torch.randn(5, 6)
    together = pairwise_distance(x, y)
    assert together.shape == (3, 2, 4, 5)
    assert torch.equal(together[1, 1], pairwise_distance(x[1, 1], y))


@pytest.mark.parametrize("squared", [False, True])
def test_gradients(squared: bool) -> None:
    x, y = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 5))
    assert torch.autograd.gradcheck(lambda a, b: pairwise_distance(a, b, squared=squared), (x, y))


def test_gradient_at_distance_zero_is_zero() -> None:
    x = torch.ones(2, 4, requires_grad=True)
    distance = pairwise_distance(x, torch.ones(3, 4))
    assert not distance.any()
    distance.sum().backward()
    assert torch.equal(x.grad, torch.zeros(2, 4))


def test_half_precision_gives_float32() -> None:
    x = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)
    assert pairwise_distance(x, x + 1).dtype == torch.float32


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4)),
        (torch.zeros(3), torch.zeros(2, 3)),
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.float64)),
    ],
)
def test_shapes_that_do_not_fit(x: torch.Tensor, y: torch.Tensor) -> None:
    with pytest.raises(InputError, match="distances need"):
        pairwise_distance(x, y)


def test_backends() -> None:
    x = torch.randn(2, 3)
    assert torch.equal(pairwise_distance(x, x, backend="auto"), pairwise_distance(x, x, backend="eager"))
    with pytest.raises(InputError, match="triton.*not part of this build"):
        pairwise_distance(x, x, backend="triton")
    with pytest.raises(InputError, match="'cuda' is unknown"):
        pairwise_distance(x, x, backend="cuda")
