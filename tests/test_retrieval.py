from __future__ import annotations

import numpy as np
import pytest
import torch

from sketchynet.errors import InputError
from sketchynet.retrieval import (
    accuracy,
    bootstrap_interval,
    category_clearness,
    category_ranks,
    hits,
    label_ranks,
    mean_reciprocal_rank,
    paired_bootstrap,
    reciprocal_ranks,
)

RANKS = torch.tensor([1, 3, 1, 12])


def test_metrics() -> None:
    assert accuracy(RANKS, 1) == 0.5 and accuracy(RANKS, 5) == 0.75 and accuracy(RANKS, 12) == 1.0
    assert mean_reciprocal_rank(RANKS) == pytest.approx((1 + 1 / 3 + 1 + 1 / 12) / 4)
    assert hits(RANKS, 3).tolist() == [1.0, 1.0, 1.0, 0.0]
    with pytest.raises(InputError, match="at least one query"):
        accuracy(RANKS[:0], 1)
    with pytest.raises(InputError, match="Acc@0"):
        accuracy(RANKS, 0)


def test_ranks_stay_within_the_category() -> None:
    gallery = torch.tensor([[0.0], [0.1], [1.0], [0.2], [5.0]])
    categories = torch.tensor([0, 1, 0, 1, 0])
    queries, target = torch.tensor([[0.14], [1.2], [0.0]]), torch.tensor([2, 2, 3])
    ranks = category_ranks(queries, categories[target], gallery, categories, target)
    # Query 0 lies nearest to photos of the other category, which do not count.
    assert ranks.tolist() == [2, 1, 2]


def test_categories_and_rows_are_checked() -> None:
    gallery, categories = torch.zeros(3, 2), torch.tensor([0, 0, 1])
    queries, target = torch.zeros(2, 2), torch.tensor([0, 2])
    with pytest.raises(InputError, match="query 1 has category 0.*photo 2 has 1"):
        category_ranks(queries, torch.tensor([0, 0]), gallery, categories, target)
    with pytest.raises(InputError, match="target 7 of query 1"):
        category_ranks(queries, torch.tensor([0, 1]), gallery, categories, torch.tensor([0, 7]))
    with pytest.raises(InputError, match="needs a category"):
        category_ranks(queries, torch.tensor([0]), gallery, categories, target)
    queries[1, 0] = float("nan")
    with pytest.raises(InputError, match="query row 1"):
        category_ranks(queries, torch.tensor([0, 1]), gallery, categories, target)


def test_bootstrap_matches_the_normal_interval() -> None:
    values = (np.random.default_rng(0).random(400) < 0.3).astype(np.float64)
    value, low, high = bootstrap_interval(values, seed=1)
    half = 1.96 * np.sqrt(value * (1 - value) / 400)
    assert value == values.mean() and low < value < high
    assert low == pytest.approx(value - half, abs=0.01) and high == pytest.approx(value + half, abs=0.01)
    assert bootstrap_interval(values, seed=1) == (value, low, high)
    assert bootstrap_interval(values, seed=2) != (value, low, high)


def test_constant_values_have_no_spread() -> None:
    assert bootstrap_interval(np.ones(5)) == (1.0, 1.0, 1.0)
    with pytest.raises(InputError):
        bootstrap_interval(np.zeros(0))


def test_pairing_narrows_the_interval() -> None:
    generator = np.random.default_rng(0)
    first = reciprocal_ranks(torch.from_numpy(generator.integers(1, 50, 300)))
    difference = paired_bootstrap(first + 0.02, first)
    assert difference.value == pytest.approx(0.02) and difference.low > 0
    alone = bootstrap_interval(first)
    assert difference.high - difference.low < alone.high - alone.low
    with pytest.raises(InputError, match="same queries"):
        paired_bootstrap(first, first[:-1])


def test_label_ranks_count_ties_against_us() -> None:
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.4, 0.4, 0.2], [0.0, 0.0, 0.0], [0.5, 0.3, 0.2]])
    assert label_ranks(scores, torch.tensor([1, 0, 2, 2])).tolist() == [1, 2, 3, 3]
    scores[2, 1] = float("nan")
    with pytest.raises(InputError, match="query 2"):
        label_ranks(scores, torch.tensor([1, 0, 2, 2]))


def test_clearness_of_the_nearest_photo_of_the_category() -> None:
    gallery = torch.tensor([[1.0, 0.0], [4.0, 0.0], [0.1, 0.0], [0.0, 2.0], [0.0, 2.0]])
    category = torch.tensor([0, 0, 1, 2, 2])
    queries = torch.tensor([[0.0, 0.0], [5.0, 5.0], [0.0, 2.0]])
    found = category_clearness(queries, torch.tensor([0, 1, 2]), gallery, category)
    # A quarter of the way to the second; alone in its category; two photos in the same place.
    torch.testing.assert_close(found, torch.tensor([0.75, 1.0, 0.0], dtype=torch.float64))
