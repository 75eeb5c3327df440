from __future__ import annotations

import numpy as np
import pytest
import torch
from small import small_pairs, small_recipe

from sketchynet.models import Embedder
from sketchynet.stages.embedding import embed_images, embed_photos, embed_sketches, watched
from sketchynet.stages.retrieval import Retrieval


@pytest.fixture(scope="module")
def network() -> Embedder:
    torch.manual_seed(0)
    recipe = small_recipe()
    return Retrieval(recipe, small_pairs()).new_network(recipe.student.network, (16, 32), None)


def test_rows_are_those_of_one_at_a_time_and_the_watcher_is_told_of_each(network: Embedder) -> None:
    pairs, rows = small_pairs(), np.array([3, 0, 7, 3])
    told: list[int] = []
    with watched(told.append):
        together = embed_sketches(network, pairs.sketches, 16), embed_photos(network, pairs, rows, 32)
    assert sum(told) == len(pairs.sketches) + 4 and max(told) <= 32 < len(pairs.sketches)
    alone = [embed_sketches(network, pairs.sketches.select(np.array([i])), 16) for i in range(len(pairs.sketches))]
    torch.testing.assert_close(together[0], torch.cat(alone), rtol=0, atol=1e-6)
    torch.testing.assert_close(together[1], embed_images(network, np.asarray(pairs.photos[rows]), 32), rtol=0, atol=1e-6)
    assert sum(told) == len(pairs.sketches) + 4  # nobody watches any more
    assert network.training and network.backbone.features[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_of_no_rows_there_are_no_embeddings_of_the_right_length(network: Embedder) -> None:
    pairs, none = small_pairs(), np.zeros(0, np.int64)
    assert embed_sketches(network, pairs.sketches.select(none), 16).shape == (0, network.dim)
    assert embed_photos(network, pairs, none, 32).shape == (0, network.dim)
    assert embed_images(network, np.zeros((0, 32, 32, 3), np.uint8), 32).shape == (0, network.dim)
