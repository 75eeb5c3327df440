from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchynet.errors import InputError
from sketchynet.ops import pairwise_distance, pairwise_distance_eager, row_distance


def _naive(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    rows = [[sum((float(a) - float(b)) ** 2 for a, b in zip(p, q, strict=True)) ** 0.5 for q in y] for p in x]
    return torch.tensor(rows, dtype=torch.float64)


def test_literal_values() -> None:
    x, y = torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    assert pairwise_distance(x, y).tolist() == [[5.0], [4.0]]
    assert pairwise_distance(x, y, metric="squared").tolist() == [[25.0], [16.0]]


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


@pytest.mark.parametrize("metric", ["euclidean", "squared", "cosine"])
@pytest.mark.parametrize("operator", [pairwise_distance, pairwise_distance_eager])
def test_gradients(operator, metric: str) -> None:
    x, y = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 5))
    assert torch.autograd.gradcheck(lambda a, b: operator(a, b, metric=metric), (x, y))


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
    ],
)
def test_shapes_that_do_not_fit(x: torch.Tensor, y: torch.Tensor) -> None:
    with pytest.raises(InputError, match="distances need"):
        pairwise_distance(x, y)


def test_backends() -> None:
    x = torch.randn(2, 3)
    assert torch.equal(pairwise_distance(x, x, backend="auto"), pairwise_distance(x, x, backend="eager"))
    with pytest.raises(InputError, match="'triton' cannot run here.*cpu: move them to a CUDA device"):
        pairwise_distance(x, x, backend="triton")
    with pytest.raises(InputError, match="'cuda' is unknown"):
        pairwise_distance(x, x, backend="cuda")
    with pytest.raises(InputError, match="metric 'manhattan' is unknown"):
        pairwise_distance(x, x, metric="manhattan")
    with pytest.raises(InputError, match="x torch.float32, y torch.float64: convert"):
        pairwise_distance(x, x.double())
    with pytest.raises(InputError, match="x is torch.int64; embeddings must be float16"):
        pairwise_distance(x.long(), x.long())
    with pytest.raises(InputError, match="x on cpu, y on meta: move them"):
        pairwise_distance(x, x.to("meta"))
    with pytest.raises(InputError, match="no elements"):
        pairwise_distance(x[:, :0], x[:, :0])


def _matrices(gap: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Large enough for the Gram matrix, with some pairs `gap` apart and one equal."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(160, 256, generator=generator) * 30 + 5
    y = torch.randn(130, 256, generator=generator) * 30 + 5
    y[:40] = x[:40] + gap * torch.randn(40, 256, generator=generator)
    y[3] = x[7]
    return x, y


@pytest.mark.parametrize("gap", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("metric", ["euclidean", "squared"])
def test_the_gram_matrix_keeps_the_stated_bound(gap: float, metric: str) -> None:
    x, y = _matrices(gap)
    exact = (x.double()[:, None] - y.double()[None]).square().sum(dim=2)
    found = pairwise_distance(x, y, metric=metric).double()
    squared = found if metric == "squared" else found.square()
    bound = 64 * (256 + 64 + 4) * 2.0**-24 + 4 * 2.0**-24
    assert found[7, 3] == 0
    assert ((squared - exact).abs() <= bound * exact).all()


@pytest.mark.parametrize("gap", [1.0, 1e-4])
@pytest.mark.parametrize("metric", ["euclidean", "squared"])
def test_gradients_through_the_gram_matrix(gap: float, metric: str) -> None:
    x, y = _matrices(gap)
    upstream = torch.randn(160, 130, generator=torch.Generator().manual_seed(3))
    ours = [t.clone().requires_grad_() for t in (x, y)]
    pairwise_distance(*ours, metric=metric).backward(upstream)
    exact = [t.double().requires_grad_() for t in (x, y)]
    pairwise_distance_eager(*exact, metric=metric).backward(upstream.double())
    for mine, theirs in zip(ours, exact, strict=True):
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-3, atol=1e-4 * float(theirs.grad.abs().max()))


def test_many_near_pairs_fall_back_to_differences() -> None:
    generator = torch.Generator().manual_seed(4)
    x = 100 + torch.randn(150, 256, generator=generator)
    exact = (x.double()[:, None] - x.double()[None]).norm(dim=2)
    found = pairwise_distance(x, x)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=0)
    y = x.clone().requires_grad_()
    pairwise_distance(y, x).sum().backward()
    z = x.double().requires_grad_()
    pairwise_distance_eager(z, x.double()).sum().backward()
    torch.testing.assert_close(y.grad.double(), z.grad, rtol=1e-4, atol=1e-4)


def test_cosine() -> None:
    x = torch.tensor([[2.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    y = torch.tensor([[0.0, 3.0], [5.0, 0.0], [0.0, 0.0]])
    expected = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1 - 0.5**0.5, 1 - 0.5**0.5, 1.0]])
    torch.testing.assert_close(pairwise_distance(x, y, metric="cosine"), expected)
    torch.testing.assert_close(pairwise_distance_eager(x, y, metric="cosine"), expected)


def test_row_distance() -> None:
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    y = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(row_distance, (x, y))
    same = torch.ones(2, 3, requires_grad=True)
    row_distance(same, torch.ones(2, 3)).sum().backward()
    assert torch.equal(same.grad, torch.zeros(2, 3))


def test_empty_batches() -> None:
    x = torch.zeros(0, 3, requires_grad=True)
    distance = pairwise_distance(x, torch.ones(2, 3))
    assert distance.shape == (0, 2)
    distance.sum().backward()
    assert x.grad.shape == (0, 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_is_named(value: float) -> None:
    x, y = torch.rand(2, 3, 4), torch.rand(5, 4)
    broken = y.clone()
    broken[3, 1] = value
    with pytest.raises(InputError, match="pairwise_distance: y row 3 of 5 is not finite"):
        pairwise_distance(x, broken)
    x[1, 1, 0] = value
    with pytest.raises(FloatingPointError, match="pairwise_distance: x row 4 of 6 is not finite"):
        pairwise_distance(x, y)
