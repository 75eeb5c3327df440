"""Ranks of a paired set's sketches among its photos, within their categories."""

from __future__ import annotations

import numpy as np
import torch

from sketchynet.data.pairs import PairedSet
from sketchynet.retrieval import category_ranks


def ranks_of(
    pairs: PairedSet, sketches: np.ndarray, queries: torch.Tensor, photos: np.ndarray, gallery: torch.Tensor
) -> torch.Tensor:
    """int64 (n,): rank of each sketch's photo among the gallery photos of its category, from 1.

    Args:
        sketches: int64 (n,), indices of the sketches whose embeddings are ``queries`` (n, D).
        photos: int64 (g,) ascending, indices of the photos whose embeddings are ``gallery`` (g, D).
    """
    wanted = pairs.sketch_photo[sketches]
    return category_ranks(
        queries,
        torch.from_numpy(pairs.categories[wanted]),
        gallery,
        torch.from_numpy(pairs.categories[photos]),
        torch.from_numpy(np.searchsorted(photos, wanted)),
    )
