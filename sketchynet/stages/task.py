"""What is asked of the networks: retrieval of photos, or recognition of categories.

Both train a full network, distil it into a student over several canvases and learn a policy that picks the
canvas; they differ in the data, in the losses, and in how a rank comes about. That difference is a
:class:`Task`; the stages know nothing else of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from sketchynet.config import NetworkConfig, Recipe
from sketchynet.data.labelled import Drawings, LabelledSet
from sketchynet.data.pairs import PairedSet
from sketchynet.models import Embedder, Ensemble
from sketchynet.stages.folds import Folds
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import FrozenStudents, Runtime
from sketchynet.stages.training import Examples

TRAIN, VALIDATION, TEST = range(3)


class Answers(NamedTuple):
    """What a network answered to queries at every canvas."""

    ranks: np.ndarray
    """int64 (n, K): rank of the truth, from 1."""
    clearness: np.ndarray
    """float64 (n, K) in [0, 1]: how far the best answer is ahead of the second, whether it is true or not."""


class Task(Protocol):
    """A task with its recipe and its data."""

    @property
    def recipe(self) -> Recipe:
        """The recipe."""

    @property
    def sketches(self) -> Drawings:
        """All drawings of the data; everywhere else a drawing is its number here."""

    def indices(self, split: int) -> np.ndarray:
        """int64: the drawings of a split, ascending."""

    def folds(self) -> Folds:
        """Which drawings the students are fitted on, and which give the policy its rewards."""

    def new_network(self, config: NetworkConfig, canvases: tuple[int, ...], weights: Path | None) -> Embedder:
        """A network for this task as the recipe describes it, with its backbone weights if it names any."""

    def new_student(self, folder: RunFolder, weights: Path | None, *, distilled: bool) -> Embedder:
        """A student as the recipe describes it; a ``distilled`` one with all that its training needs."""

    def teacher_examples(self, sketches: np.ndarray, *, seed: int) -> Examples:
        """What a member of the full network learns from."""

    def student_examples(
        self, sketches: np.ndarray, folder: RunFolder, *, distilled: bool, seed: int, device: torch.device
    ) -> Examples:
        """What a student learns from; ``distilled``: besides the labels, from what the full network said.

        ``device`` is where the full network is asked, if it is asked again.
        """

    def store_teacher(self, runtime: Runtime, folder: RunFolder) -> None:
        """Asks the full network about every training drawing, once, for distillation."""

    def answers(
        self, network: Embedder | Ensemble, split: int, canvases: Sequence[int], photo_sizes: Sequence[int]
    ) -> Answers:
        """Ranks of what each drawing of a split shows, and how clear the answers are, at every canvas.

        Photos, where there are any, have the size that goes with the canvas.
        """

    def rollouts(self, folder: RunFolder, folds: Folds) -> FrozenStudents:
        """A picklable worker that answers the policy's choices by the frozen students."""

    def scopes(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Numbers of those of ``rows`` that figures are given for: ``all``, and where it makes sense parts."""

    def facts(self, split: int) -> dict[str, Any]:
        """What the evaluation says of the data: hash of the split, size of the gallery, leaks."""

    def answer(self, row: int) -> dict[str, Any]:
        """What the record of a query names as the truth."""


def task_of(recipe: Recipe, data: PairedSet | LabelledSet) -> Task:
    """The recipe's task over its data."""
    # Imported here: both build on the stages that are handed a task.
    from sketchynet.stages.recognition import Recognition
    from sketchynet.stages.retrieval import Retrieval

    if isinstance(data, LabelledSet):
        return Recognition(recipe, data)
    return Retrieval(recipe, data)
