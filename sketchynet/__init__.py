"""SketchyNet: efficient sketch retrieval networks, trained by distillation and a canvas selector.

The package itself imports neither torch, ray nor mlflow; `sketchynet.models`, `sketchynet.stages` and so on do. Nor
does it load the C++ extension before something is drawn: `sketchynet.ops` runs on a GPU machine that has not built it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sketchynet.errors import InputError
from sketchynet.sketch import Sketch, SketchBatch
from sketchynet.version import __version__

if TYPE_CHECKING:
    from sketchynet.raster import rasterize, rasterize_grouped, rasterize_sizes, simplify

__all__ = [
    "InputError",
    "Sketch",
    "SketchBatch",
    "__version__",
    "rasterize",
    "rasterize_grouped",
    "rasterize_sizes",
    "simplify",
]


def __getattr__(name: str) -> Any:
    if name in ("rasterize", "rasterize_grouped", "rasterize_sizes", "simplify"):
        return getattr(importlib.import_module("sketchynet.raster"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
