"""The validation score that every choice of a pipeline rests on."""

from __future__ import annotations

import numpy as np
import torch

from sketchynet.data.pairs import PairedSet
from sketchynet.retrieval import accuracy, mean_reciprocal_rank
from sketchynet.stages.embedding import EmbeddingNetwork, embed_photos, embed_sketches
from sketchynet.stages.ranking import ranks_of

VALIDATION = 1


def validation_score(
    network: EmbeddingNetwork,
    pairs: PairedSet,
    *,
    canvases: tuple[int, ...],
    photo_size: int,
) -> dict[str, float]:
    """Figures on the validation split; ``validation/score`` decides which weights are kept.

    The score is the mean of Acc@1 and MRR over canvases and categories: Acc@1 is what is claimed, MRR moves
    where Acc@1 on a small split does not.
    """
    photos, sketches = pairs.photo_indices(VALIDATION), pairs.sketch_indices(VALIDATION)
    gallery = embed_photos(network, pairs, photos, photo_size)
    figures: dict[str, float] = {}
    scores = []
    for canvas in canvases:
        queries = embed_sketches(network, pairs.sketches.select(sketches), canvas)
        ranks = ranks_of(pairs, sketches, queries, photos, gallery)
        categories = pairs.categories[pairs.sketch_photo[sketches]]
        by_category = [ranks[torch.from_numpy(categories == c)] for c in np.unique(categories)]
        acc = float(np.mean([accuracy(r, 1) for r in by_category]))
        mrr = float(np.mean([mean_reciprocal_rank(r) for r in by_category]))
        figures |= {f"validation/acc1_{canvas}": acc, f"validation/mrr_{canvas}": mrr}
        scores.append((acc + mrr) / 2)
    return figures | {"validation/score": float(np.mean(scores))}
