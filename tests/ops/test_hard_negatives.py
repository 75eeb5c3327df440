from __future__ import annotations

import importlib
import math

import pytest
import torch

from sketchynet.errors import InputError
from sketchynet.ops import hard_negatives, hard_negatives_eager, negative_distance


def _naive(sketch: list, photo: list, content: list[int], mining: str) -> list[int]:
    picked = []
    for i, drawn in enumerate(sketch):
        negatives = {j: math.dist(drawn, p) for j, p in enumerate(photo) if content[j] != content[i]}
        farther = {j: d for j, d in negatives.items() if d > math.dist(drawn, photo[i])}
        if not negatives:
            picked.append(-1)
        elif mining == "hard":
            picked.append(min(negatives, key=negatives.__getitem__))
        elif farther:
            picked.append(min(farther, key=farther.__getitem__))
        else:
            picked.append(max(negatives, key=negatives.__getitem__))
    return picked


@pytest.mark.parametrize("operator", [hard_negatives, hard_negatives_eager])
@pytest.mark.parametrize("mining", ["hard", "semi-hard"])
def test_against_loops(mining: str, operator) -> None:
    generator = torch.Generator().manual_seed(0)
    photo = torch.randn(23, 3, generator=generator, dtype=torch.float64)
    sketch = photo + 0.7 * torch.randn(2, 23, 3, generator=generator, dtype=torch.float64)
    sketch[0, 4] = -50 * photo[4]  # farther from its photo than from any other
    content = (torch.arange(23) % 17).tolist()
    found = operator(sketch, photo, torch.tensor(content), mining=mining)
    assert found.tolist() == [_naive(s, photo.tolist(), content, mining) for s in sketch.tolist()]


def test_chunks_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    sketch, photo, content = torch.randn(30, 8), torch.randn(30, 8), torch.arange(30)
    whole = hard_negatives(sketch, photo, content)
    monkeypatch.setattr(importlib.import_module("sketchynet.ops.hard_negatives"), "CHUNK_ELEMENTS", 64)
    assert torch.equal(hard_negatives(sketch, photo, content), whole)


def test_never_the_own_picture() -> None:
    photo = torch.zeros(4, 2)
    content = torch.tensor([0, 0, 1, 0])
    for mining in ("hard", "semi-hard"):
        found = hard_negatives(photo, photo, content, mining=mining)
        assert found.tolist() == [2, 2, 0, 2]
    assert hard_negatives(photo, photo, torch.zeros(4, dtype=torch.int64)).tolist() == [-1] * 4


def test_distance_to_the_picked_photo() -> None:
    sketch = torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
    photo = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    distance = negative_distance(sketch, photo, torch.tensor([0, 1]))
    assert distance.tolist() == [5.0, 0.0]
    distance.sum().backward()
    assert torch.isfinite(sketch.grad).all()


def test_bad_input() -> None:
    x, content = torch.zeros(3, 2), torch.arange(3)
    with pytest.raises(InputError, match="mining 'soft' is unknown"):
        hard_negatives(x, x, content, mining="soft")
    with pytest.raises(InputError, match="hard_negatives needs sketches"):
        hard_negatives(x[:2], x, content)
    with pytest.raises(InputError, match="content must number the 3 photos"):
        hard_negatives(x, x, content[:2])
    with pytest.raises(InputError, match="sketch torch.float64, photo torch.float32"):
        hard_negatives(x.double(), x, content)
    bad = x.clone()
    bad[2, 1] = float("inf")
    with pytest.raises(InputError, match="photo row 2 of 3 is not finite"):
        hard_negatives(x, bad, content)
    with pytest.raises(InputError, match="'triton' cannot run here"):
        hard_negatives(x, x, content, backend="triton")
