"""Which training photos the students are fitted on, and which give the selector its rewards.

On its own training sketches a student ranks nearly everything first at every canvas, and a policy would
learn nothing from it: rewards come from sketches that the rewarding student was not fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sketchynet.config import SelectorConfig
from sketchynet.data.labelled import LabelledSet
from sketchynet.data.pairs import PairedSet

TRAIN = 0


@dataclass(frozen=True)
class Folds:
    """A partition of the training photos; pictures that repeat stay together."""

    student: np.ndarray
    """int64: sketches that the student (and the directly trained one) is fitted on."""
    fitted: tuple[np.ndarray, ...]
    """For each rewarding student, the int64 sketches it is fitted on."""
    rewarded: tuple[np.ndarray, ...]
    """For each rewarding student, the int64 sketches that it gives rewards for."""
    galleries: tuple[np.ndarray, ...]
    """For each rewarding student, the int64 photos it searches; none in recognition."""
    cross_fitted: bool
    """Whether the rewarding students are trained apart; otherwise the student itself is the only one."""

    @property
    def judges(self) -> tuple[str, ...]:
        """Names of the stages that train the rewarding students."""
        return tuple(map(fold_name, range(len(self.rewarded)))) if self.cross_fitted else ("student",)

    def parts(self, sketches: np.ndarray) -> tuple[np.ndarray, ...]:
        """int64: where the sketches that each rewarding student rewards stand among ``sketches``, ascending."""
        return tuple(np.flatnonzero(np.isin(sketches, rewarded)) for rewarded in self.rewarded)


def fold_name(fold: int) -> str:
    """Name of the stage that trains the rewarding student of a fold."""
    return f"fold-{fold}"


def drawing_folds(data: LabelledSet, settings: SelectorConfig, *, seed: int) -> Folds:
    """As :func:`make_folds`, for drawings with categories: every fold holds the same share of each category."""
    train = data.sketch_indices(TRAIN)
    generator = np.random.default_rng([seed, 9001])
    part = np.zeros(len(train), dtype=np.int64)
    for label in np.unique(data.labels[train]):
        members = generator.permutation(np.flatnonzero(data.labels[train] == label))
        part[members] = _parts(len(members), settings)
    numbers = range(settings.folds) if settings.folds else (0,)
    cross = settings.folds > 0
    return Folds(
        student=train if cross else train[part != 0],
        fitted=tuple(train[part != n] for n in numbers),
        rewarded=tuple(train[part == n] for n in numbers),
        galleries=(),
        cross_fitted=cross,
    )


def _parts(count: int, settings: SelectorConfig) -> np.ndarray:
    """int64 (count,): part of each of so many shuffled members (part 0 is held out where there are no folds)."""
    if settings.folds:
        return np.arange(count) % settings.folds
    return (np.arange(count) >= round(settings.holdout * count)).astype(np.int64)


def make_folds(pairs: PairedSet, settings: SelectorConfig, *, seed: int) -> Folds:
    """Cross-fitting folds, or one held-out share where ``settings.folds`` is 0."""
    train = pairs.photo_indices(TRAIN)
    sketches = pairs.sketch_indices(TRAIN)
    part = _partition(pairs, train, settings, seed)
    of_sketch = part[pairs.sketch_photo[sketches]]
    numbers = range(settings.folds) if settings.folds else (0,)
    cross = settings.folds > 0
    return Folds(
        student=sketches if cross else sketches[of_sketch != 0],
        fitted=tuple(sketches[of_sketch != n] for n in numbers),
        rewarded=tuple(sketches[of_sketch == n] for n in numbers),
        galleries=tuple(train[part[train] == n] for n in numbers),
        cross_fitted=cross,
    )


def _partition(pairs: PairedSet, train: np.ndarray, settings: SelectorConfig, seed: int) -> np.ndarray:
    """int64 (P,): part of every training photo (part 0 is held out where there are no folds), -1 elsewhere."""
    generator = np.random.default_rng([seed, 9001])
    part = np.full(len(pairs.photos), -1, dtype=np.int64)
    for category in np.unique(pairs.categories[train]):
        members = train[pairs.categories[train] == category]
        contents = generator.permutation(np.unique(pairs.content[members]))
        of_content = _parts(len(contents), settings)
        lookup = dict(zip(contents.tolist(), of_content.tolist(), strict=True))
        part[members] = [lookup[c] for c in pairs.content[members].tolist()]
    return part
