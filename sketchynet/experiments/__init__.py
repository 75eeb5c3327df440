"""Experiments: named sets of recipes, trained seed after seed or side by side, with equal stages shared."""

from __future__ import annotations

from sketchynet.experiments.run import run_experiment
from sketchynet.experiments.sharing import stage_keys

__all__ = ["run_experiment", "stage_keys"]
