"""GPUs without a copy engine take rows by pointers: each kernel that multiplies, once so."""

from __future__ import annotations

import pytest
import torch

from sketchynet.ops import hard_negatives, match_rank, nearest, pairwise_distance, relational_huber
from sketchynet.ops.kernels import tiles


@pytest.fixture(autouse=True)
def pointers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "DESCRIPTORS_SINCE", (99, 0))


@pytest.mark.parametrize("dim", [64, 37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_product(dtype: torch.dtype, dim: int) -> None:
    generator = torch.Generator().manual_seed(8)
    assert isinstance(tiles.operand(torch.zeros(4, 64)), torch.Tensor)
    x, y = (torch.randn(n, dim, generator=generator).to(dtype) for n in (30, 150))
    target, content = torch.arange(30), torch.arange(30) % 25
    for find in (
        lambda backend: pairwise_distance(x, y, backend=backend),
        lambda backend: match_rank(x, y, target, backend=backend),
        lambda backend: nearest(x, y, 3, backend=backend).row,
        lambda backend: hard_negatives(x, y[:30], content, backend=backend),
        lambda backend: relational_huber(x, y[:30], x, y[30:60], content=content, backend=backend),
    ):
        torch.testing.assert_close(find("triton"), find("eager"), rtol=1e-5, atol=1e-5)
