"""Ranks of photos among those of their category, and the score of a network on the validation split."""

from __future__ import annotations

import numpy as np
import torch

from sketchynet.data.pairs import PairedSet
from sketchynet.retrieval import accuracy, category_ranks, mean_reciprocal_rank
from sketchynet.stages.copies import ONCE, PhotoCopies
from sketchynet.stages.embedding import EmbeddingNetwork, embed_galleries, embed_sketches
from sketchynet.stages.task import VALIDATION


def ranks_of(
    pairs: PairedSet, sketches: np.ndarray, queries: torch.Tensor, photos: np.ndarray, gallery: torch.Tensor
) -> torch.Tensor:
    """int64 (n,): rank of each sketch's photo among the gallery photos of its category, from 1.

    Args:
        sketches: int64 (n,), indices of the sketches whose embeddings are ``queries`` (n, D).
        photos: int64 (g,) ascending, indices of the photos whose embeddings are ``gallery`` (g, D) or (g, C, D).
    """
    wanted = pairs.sketch_photo[sketches]
    return category_ranks(
        queries,
        torch.from_numpy(pairs.categories[wanted]),
        gallery,
        torch.from_numpy(pairs.categories[photos]),
        torch.from_numpy(np.searchsorted(photos, wanted)),
    )


def validation_score(
    network: EmbeddingNetwork,
    pairs: PairedSet,
    *,
    canvases: tuple[int, ...],
    photo_sizes: tuple[int, ...],
    copies: PhotoCopies = ONCE,
) -> dict[str, float]:
    """Figures on the validation split, with a photo size for each canvas; ``validation/score`` decides which weights are kept.

    The score is the mean of Acc@1 and MRR over canvases and categories: Acc@1 is what is claimed, MRR moves
    where Acc@1 on a small split does not.
    """
    photos, sketches = pairs.photo_indices(VALIDATION), pairs.sketch_indices(VALIDATION)
    galleries = embed_galleries(network, pairs, photos, photo_sizes, copies)
    figures: dict[str, float] = {}
    scores = []
    for canvas, photo_size in zip(canvases, photo_sizes, strict=True):
        queries = embed_sketches(network, pairs.sketches.select(sketches), canvas)
        ranks = ranks_of(pairs, sketches, queries, photos, galleries[photo_size])
        categories = pairs.categories[pairs.sketch_photo[sketches]]
        by_category = [ranks[torch.from_numpy(categories == c)] for c in np.unique(categories)]
        acc = float(np.mean([accuracy(r, 1) for r in by_category]))
        mrr = float(np.mean([mean_reciprocal_rank(r) for r in by_category]))
        figures |= {f"validation/acc1_{canvas}": acc, f"validation/mrr_{canvas}": mrr}
        scores.append((acc + mrr) / 2)
    return figures | {"validation/score": float(np.mean(scores))}
