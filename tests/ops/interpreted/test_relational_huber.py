from __future__ import annotations

import pytest
import torch

from sketchynet.ops import relational_huber, relational_huber_eager
from sketchynet.ops.kernels import relational_huber as kernels

B, K = 45, 2


def _embeddings(dtype: torch.dtype, dt: int = 24, ds: int = 37) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(B, dt), (B, dt), (K, B, ds), (B, ds)]
    return [torch.randn(*shape, generator=generator).to(dtype) for shape in shapes]


CONTENT = torch.arange(B) % 40


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_value_and_gradients(dtype: torch.dtype, tolerance: float, normalize: bool) -> None:
    ts, tp, ss, sp = _embeddings(dtype)
    ss[0, 3] = sp[3]  # a sketch on its photo: distance zero
    ss[1, 4] = sp[9]  # and on another
    options = {"weights": (1.0, 0.5, 2.0), "delta": 0.6, "normalize": normalize}
    ours = [t.clone().requires_grad_() for t in (ss, sp)]
    loss = relational_huber(ts, tp, *ours, content=CONTENT, backend="triton", **options)
    exact = [t.double().requires_grad_() for t in (ss, sp)]
    different = CONTENT[:, None] != CONTENT[None, :]
    reference = relational_huber_eager(ts.double(), tp.double(), *exact, different, **options)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), reference, rtol=1e-5, atol=1e-6)
    (-2.5 * loss).backward()  # a factor from above
    (-2.5 * reference).backward()
    for mine, theirs in zip(ours, exact, strict=True):
        assert mine.grad.dtype == dtype
        assert (mine.grad.double() - theirs.grad).abs().max() <= tolerance * theirs.grad.abs().max()


@pytest.mark.parametrize("share", [3, 0.5])
@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_each_relation_in_one_panel_and_in_two(
    weights: tuple[float, float, float], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one panel a pair of photos is computed once and mirrored, in several twice."""
    monkeypatch.setattr(kernels, "PANEL_SHARE", share)
    generator = torch.Generator().manual_seed(4)
    ts, tp, ss, sp = (torch.randn(150, 16, generator=generator) for _ in range(4))
    ours = [t.clone().requires_grad_() for t in (ss, sp)]
    loss = relational_huber(ts, tp, *ours, weights=weights, normalize=True, backend="triton")
    exact = [t.double().requires_grad_() for t in (ss, sp)]
    different = ~torch.eye(150, dtype=torch.bool)
    reference = relational_huber_eager(
        ts.double(), tp.double(), *exact, different, weights=weights, normalize=True
    )
    torch.testing.assert_close(loss.double(), reference, rtol=1e-5, atol=1e-6)
    loss.backward()
    reference.backward()
    for mine, theirs in zip(ours, exact, strict=True):
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-3, atol=1e-5 * theirs.grad.abs().max())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # beside the batch, where a tile counts for nothing
def test_collapsed_student_has_finite_gradients() -> None:
    ts, tp, _, _ = _embeddings(torch.float32)
    ss, sp = torch.ones(B, 37, requires_grad=True), torch.ones(B, 37, requires_grad=True)
    loss = relational_huber(ts, tp, ss, sp, normalize=True, backend="triton")
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(ss.grad).all() and torch.isfinite(sp.grad).all()


def test_without_gradients_and_without_negatives() -> None:
    ts, tp, ss, sp = _embeddings(torch.float32)
    one = torch.zeros(B, dtype=torch.int64)
    loss = relational_huber(ts, tp, ss, sp, content=one, backend="triton")
    assert not loss.requires_grad
    torch.testing.assert_close(loss, relational_huber(ts, tp, ss, sp, content=one, backend="eager"))
