from __future__ import annotations

import dataclasses

import numpy as np
from small import small_pairs, small_recipe

from sketchynet.stages.folds import make_folds


def test_holdout_is_never_seen_by_the_student() -> None:
    pairs, settings = small_pairs(), small_recipe("selector.holdout=0.25").selector
    folds = make_folds(pairs, settings, seed=0)
    assert not folds.cross_fitted
    assert len(folds.galleries[0]) == 6
    assert not set(folds.student) & set(folds.rewarded[0])
    assert set(pairs.sketch_photo[folds.rewarded[0]]) == set(folds.galleries[0])
    assert sorted([*folds.student, *folds.rewarded[0]]) == pairs.sketch_indices(0).tolist()


def test_cross_fitting_rewards_every_training_sketch_once() -> None:
    pairs, settings = small_pairs(), small_recipe("selector.folds=3").selector
    folds = make_folds(pairs, settings, seed=0)
    assert folds.cross_fitted and len(folds.fitted) == 3
    assert sorted(np.concatenate(folds.rewarded)) == pairs.sketch_indices(0).tolist()
    assert folds.student.tolist() == pairs.sketch_indices(0).tolist()
    for fitted, rewarded in zip(folds.fitted, folds.rewarded, strict=True):
        assert not set(pairs.sketch_photo[fitted]) & set(pairs.sketch_photo[rewarded])
    train = pairs.sketch_indices(0)
    for rows, rewarded in zip(folds.parts(train), folds.rewarded, strict=True):
        assert train[rows].tolist() == rewarded.tolist()


def test_repeated_pictures_stay_in_one_fold() -> None:
    pairs = small_pairs()
    content = pairs.content.copy()
    content[pairs.photo_indices(0)[:12]] = 7
    twins = dataclasses.replace(pairs, content=content)
    folds = make_folds(twins, small_recipe("selector.folds=2").selector, seed=1)
    homes = [bool(set(twins.photo_indices(0)[:12]) & set(g)) for g in folds.galleries]
    assert sum(homes) == 1
