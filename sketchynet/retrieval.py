"""Metrics of retrieval and recognition: ranks, Acc@q, mean reciprocal rank and bootstrap intervals.

Shapes: Q queries, G gallery photos, C stored copies of each, D embedding size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sketchynet.errors import InputError
from sketchynet.ops import nearest_photos, photo_rank
from sketchynet.ops.checks import require_finite
from sketchynet.ops.gallery import check_target_rows, check_targets

_FEW = 64  # distinct values up to which counting them is faster than drawing queries


class Interval(NamedTuple):
    """An estimate and the bounds of its interval."""

    value: float
    low: float
    high: float


def category_ranks(
    queries: Tensor,
    query_category: Tensor,
    gallery: Tensor,
    gallery_category: Tensor,
    target: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Rank of each query's photo among the gallery photos of the query's category: int64 (Q,).

    queries (Q, D), gallery (G, D), or (G, C, D) of C copies each (`photo_distance`), categories int64 (Q,) and (G,),
    target int64 (Q,): the true photo in the whole gallery. Ties and NaN as in `match_rank`.
    """
    if query_category.shape != (len(queries),) or gallery_category.shape != (len(gallery),):
        raise InputError(
            f"every row needs a category: {len(queries)} queries and {len(gallery)} photos have "
            f"{tuple(query_category.shape)} and {tuple(gallery_category.shape)}"
        )
    check_targets("category_ranks", target, len(queries), queries.device)
    check_target_rows("category_ranks", target, len(gallery))
    astray = query_category != gallery_category[target]
    if bool(astray.any()):
        row = int(astray.nonzero()[0, 0])
        raise InputError(
            f"query {row} has category {int(query_category[row])}, its photo {int(target[row])} has "
            f"{int(gallery_category[target[row]])}: a sketch and its photo share a category"
        )
    # Here already: `match_rank` would number the rows of a category.
    require_finite("category_ranks", "query", queries)
    require_finite("category_ranks", "gallery", gallery.flatten(1))
    ranks = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    position = torch.empty(len(gallery), dtype=torch.int64, device=gallery.device)
    for category in query_category.unique():
        asked, held = query_category == category, (gallery_category == category).nonzero()[:, 0]
        position[held] = torch.arange(len(held), device=gallery.device)
        ranks[asked] = photo_rank(queries[asked], gallery[held], position[target[asked]], backend=backend)
    return ranks


def clearness(distance: Tensor) -> Tensor:
    """How clear the nearest photo of each query is: float64 (Q,), 1 - d1 / d2 of its two smallest distances (Q, G).

    0 where two photos lie equally near, 1 where there is no second one.
    """
    if distance.shape[1] < 2:
        return torch.ones(len(distance), dtype=torch.float64, device=distance.device)
    first, second = distance.double().topk(2, dim=1, largest=False).values.unbind(dim=1)
    return torch.where(second > 0, 1.0 - first / second, 0.0)


def category_clearness(
    queries: Tensor, query_category: Tensor, gallery: Tensor, gallery_category: Tensor
) -> Tensor:
    """:func:`clearness` among the photos of each query's category: float64 (Q,). Arguments as in :func:`category_ranks`."""
    clear = torch.ones(len(queries), dtype=torch.float64, device=queries.device)
    for category in query_category.unique():
        asked, held = query_category == category, gallery_category == category
        clear[asked] = clearness(nearest_photos(queries[asked], gallery[held], min(2, int(held.sum()))).distance)
    return clear


def label_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Rank of each drawing's own category by score, from 1: int64 (Q,); recognition in the terms of retrieval.

    scores (Q, C), higher is more likely; labels int64 (Q,). 1 + the number of other categories that score at
    least as much: ties count against us. Raises InputError for a score that is not finite.
    """
    bad = ~torch.isfinite(scores).all(dim=1)
    if bool(bad.any()):
        raise InputError(f"scores of query {int(bad.nonzero()[0, 0])} are not finite: the network has diverged")
    own = scores.gather(1, labels[:, None])
    return (scores >= own).sum(dim=1)


def label_clearness(scores: Tensor) -> Tensor:
    """How much more likely the likeliest category is than the next, by the softmax of scores (Q, C): float64 (Q,).

    1 where there is no other category.
    """
    likeliest = scores.double().softmax(dim=1).topk(min(2, scores.shape[1])).values
    return 2.0 * likeliest[:, 0] - likeliest.sum(dim=1)


def hits(ranks: Tensor, q: int) -> NDArray[np.float64]:
    """1.0 where the true photo is among the q nearest, else 0.0: float64 (Q,)."""
    if q < 1:
        raise InputError(f"Acc@{q}: q must be at least 1")
    return (ranks.cpu().numpy() <= q).astype(np.float64)


def reciprocal_ranks(ranks: Tensor) -> NDArray[np.float64]:
    """1 / rank: float64 (Q,)."""
    return 1.0 / ranks.cpu().numpy().astype(np.float64)


def accuracy(ranks: Tensor, q: int) -> float:
    """Acc@q, the share in [0, 1] of queries whose photo is among the q nearest."""
    return float(_nonempty(hits(ranks, q)).mean())


def mean_reciprocal_rank(ranks: Tensor) -> float:
    """Mean of 1 / rank, in (0, 1]."""
    return float(_nonempty(reciprocal_ranks(ranks)).mean())


def _nonempty(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if values.ndim != 1 or len(values) == 0:
        raise InputError(f"a metric needs at least one query; got shape {values.shape}")
    return values


def bootstrap_interval(
    values: NDArray[np.float64], *, seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Mean of per-query values (Q,), `hits` or `reciprocal_ranks`, with its percentile bootstrap interval.

    Queries are resampled with replacement; the same seed gives the same interval.
    """
    values = _nonempty(np.asarray(values, dtype=np.float64))
    generator = np.random.default_rng(seed)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= _FEW:
        # How often each value is drawn is multinomial: the distribution of drawing queries one by one, at a seventieth
        # of the time for the hits and misses of 1,600 queries.
        drawn = generator.multinomial(len(values), counts / len(values), size=resamples)
        means = drawn @ distinct / len(values)
    else:
        means = np.empty(resamples)
        for i in range(resamples):
            means[i] = values[generator.integers(0, len(values), len(values))].mean()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def paired_bootstrap(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    *,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Mean of first - second, two systems' values (Q,) on the same queries, with its bootstrap interval."""
    if np.shape(first) != np.shape(second):
        raise InputError(f"paired values need the same queries; got {np.shape(first)} and {np.shape(second)}")
    return bootstrap_interval(np.subtract(first, second), seed=seed, resamples=resamples, level=level)
