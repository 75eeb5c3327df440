"""A pipeline small enough for tests: procedural chairs, two canvases, two epochs."""

from __future__ import annotations

from functools import lru_cache

from sketchynet.config import Recipe, override
from sketchynet.data import PairedSet
from sketchynet.data.procedural import procedural_pairs
from sketchynet.recipes import find_recipe

CHANGES = (
    'data.options={"train": 24, "validation": 8, "test": 10, "sketches": 2}',
    "data.photo_size=32",
    "teacher.canvas=32",
    "teacher.train_sizes=[32]",
    "teacher.optimization.epochs=2",
    "teacher.optimization.batch_size=12",
    "student.canvases=[16, 32]",
    "student.canvases_per_step=null",
    "student.photo_size=32",
    "student.optimization.epochs=2",
    "student.optimization.batch_size=12",
    "selector.hidden=8",
    "selector.views=2",
    "selector.max_points=24",
    "selector.cost_weights=[0.1, 0.4]",
    "selector.optimization.epochs=2",
    "selector.optimization.validate_every=1",
    "evaluation.bootstrap=50",
    "evaluation.sheet_rows=2",
)

ALIKE = ("student.gallery=own", *(f"{network}.network.backbone=vgg_tiny" for network in ("teacher", "student")))
"""Changes to :func:`small_recipe` for a student of the full network's kind."""


def small_recipe(*changes: str) -> Recipe:
    """The demo recipe at test size, its student in the full network's gallery, with further ``key=value`` changes."""
    return override(find_recipe("demo"), [*CHANGES, "student.gallery=full", *changes])


@lru_cache(maxsize=1)
def small_pairs() -> PairedSet:
    """The set of :func:`small_recipe`, drawn in this process."""
    return procedural_pairs(24, 8, 10, 2, 32, 0)
