"""SketchyNet: efficient sketch retrieval networks, trained by distillation and a canvas selector.

The package itself imports neither torch, ray nor mlflow; `sketchynet.models`, `sketchynet.stages` and so on do.
"""

from __future__ import annotations

from sketchynet.errors import InputError
from sketchynet.raster import rasterize, rasterize_grouped, rasterize_sizes, simplify
from sketchynet.sketch import Sketch, SketchBatch
from sketchynet.version import __version__

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
