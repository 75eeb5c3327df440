"""Distance operators: each a public function with its eager reference beside it, its kernels in `kernels/`.

Those of `copies` build on the others.
"""

from __future__ import annotations

from sketchynet.ops.copies import nearest_photos, photo_distance, photo_rank
from sketchynet.ops.hard_negatives import hard_negatives, hard_negatives_eager, negative_distance
from sketchynet.ops.match_rank import match_rank, match_rank_eager
from sketchynet.ops.nearest import Nearest, nearest, nearest_eager
from sketchynet.ops.pairwise_distance import pairwise_distance, pairwise_distance_eager, row_distance
from sketchynet.ops.relational_huber import relational_huber, relational_huber_eager

__all__ = [
    "Nearest",
    "hard_negatives",
    "hard_negatives_eager",
    "match_rank",
    "match_rank_eager",
    "nearest",
    "nearest_eager",
    "nearest_photos",
    "negative_distance",
    "pairwise_distance",
    "pairwise_distance_eager",
    "photo_distance",
    "photo_rank",
    "relational_huber",
    "relational_huber_eager",
    "row_distance",
]
