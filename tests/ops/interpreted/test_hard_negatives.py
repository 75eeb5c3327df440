from __future__ import annotations

import pytest
import torch

from sketchynet.ops import hard_negatives, hard_negatives_eager


@pytest.mark.parametrize("mining", ["hard", "semi-hard"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_same_rows_as_the_reference(dtype: torch.dtype, mining: str) -> None:
    generator = torch.Generator().manual_seed(7)
    photo = torch.randn(147, 35, generator=generator)
    sketch = torch.randn(2, 147, 35, generator=generator)
    sketch[:, ::3] = photo[::3] + 0.2 * sketch[:, ::3]  # some near their photo,
    sketch[:, 1::7] = -9 * photo[1::7]  # some farther from it than from any other
    sketch, photo = sketch.to(dtype), photo.to(dtype)
    content = torch.arange(147) % 120
    found = hard_negatives(sketch, photo, content, mining=mining, backend="triton")
    assert torch.equal(found, hard_negatives_eager(sketch.double(), photo.double(), content, mining=mining))


def test_none_where_all_photos_show_the_same() -> None:
    sketch, content = torch.randn(9, 4), torch.zeros(9, dtype=torch.int64)
    assert hard_negatives(sketch, sketch, content, backend="triton").tolist() == [-1] * 9
