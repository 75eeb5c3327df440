"""Named recipes: whole pipelines as validated configuration. They know no stage code."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from sketchynet.config import Recipe, load_recipe
from sketchynet.errors import InputError
from sketchynet.recipes import catalogue, procedural, qmul_v1, quickdraw

RECIPES: dict[str, Callable[[], Recipe]] = {
    "demo": procedural.demo,
    "procedural": procedural.procedural,
    "qmul_v1": qmul_v1.qmul_v1,
    "qmul_v1_half": qmul_v1.qmul_v1_half,
    "qmul_v1_squeezenet": qmul_v1.qmul_v1_squeezenet,
    "qmul_v1_squeezenet_256": qmul_v1.qmul_v1_squeezenet_256,
    "qmul_v1_squeezenet_levels": qmul_v1.qmul_v1_squeezenet_levels,
    "qmul_v1_stride16": qmul_v1.qmul_v1_stride16,
    "qmul_v1_search": qmul_v1.qmul_v1_search,
    "qmul_v1_levels": qmul_v1.qmul_v1_levels,
    "qmul_v1_copies": qmul_v1.qmul_v1_copies,
    "qmul_v1_nearly_all": qmul_v1.qmul_v1_nearly_all,
    "qmul_v1_deep": qmul_v1.qmul_v1_deep,
    "qmul_v1_gpu": qmul_v1.qmul_v1_gpu,
    "qmul_v2": catalogue.qmul_v2,
    "sketchy": catalogue.sketchy,
    "sketchy_squeezenet": catalogue.sketchy_squeezenet,
    "sketchy_levels": catalogue.sketchy_levels,
    "fscoco": catalogue.fscoco,
    "folder": catalogue.folder,
    "quickdraw": quickdraw.quickdraw,
    "tu_berlin": quickdraw.tu_berlin,
}


def find_recipe(name: str) -> Recipe:
    """A built-in recipe by its name, or one from a JSON file.

    Raises:
        InputError: there is neither.
    """
    if name in RECIPES:
        return RECIPES[name]()
    if name.endswith(".json") or "/" in name:
        return load_recipe(Path(name))
    near = difflib.get_close_matches(name, RECIPES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"built-in recipes: {', '.join(RECIPES)}"
    raise InputError(f"no recipe {name!r}; {hint} (or give the path of a JSON recipe)")
