from __future__ import annotations

import numpy as np
import pytest
import torch
from small import small_pairs, small_recipe

from sketchynet.losses import triplet_loss
from sketchynet.ops import relational_huber
from sketchynet.stages.retrieval import distillation_objective


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_objective_is_the_papers_mixture_averaged_over_canvases(share: float) -> None:
    """λ·L_tri + (1−λ)·L_RKD, the teacher's relations looked up by sketch and photo."""
    pairs = small_pairs()
    recipe = small_recipe(
        f"student.distillation.ranking_share={share}",
        "student.distillation.scale=2.0",
        "student.ranking.kind=triplet",
        "student.ranking.margin=0.4",
    )
    generator = torch.Generator().manual_seed(0)
    teacher = {
        "sketches": torch.randn(len(pairs.sketches), 5, generator=generator),
        "photos": torch.randn(len(pairs.photos), 5, generator=generator),
    }
    sketches = np.array([0, 5, 9])
    photos = pairs.sketch_photo[sketches]
    sketch = [torch.randn(3, 4, generator=generator) for _ in range(2)]
    photo = torch.randn(3, 4, generator=generator)
    loss, figures = distillation_objective(recipe, pairs, teacher)(sketch, photo, sketches, photos)
    content = torch.from_numpy(pairs.content[photos])
    ranking = sum(float(triplet_loss(s, photo, content, margin=0.4)) for s in sketch) / 2
    relational = 2.0 * sum(
        float(relational_huber(teacher["sketches"][sketches], teacher["photos"][photos], s, photo, content=content))
        for s in sketch
    ) / 2
    assert float(loss) == pytest.approx(share * ranking + (1 - share) * relational, rel=1e-5)
    assert figures["loss_ranking"] == pytest.approx(ranking, rel=1e-5)
    assert figures["loss_relational"] == pytest.approx(relational, rel=1e-5)
