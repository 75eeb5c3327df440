"""Paired sketches and photos, labelled drawings: sources, splits, the prepared cache and the flat form."""

from __future__ import annotations

from sketchynet.data.labelled import LabelledSet
from sketchynet.data.labelled_sources import load_labelled
from sketchynet.data.pairs import PairedSet
from sketchynet.data.sources import load_pairs
from sketchynet.data.splits import SPLIT_NAMES, TEST, TRAIN, VALIDATION

__all__ = ["SPLIT_NAMES", "TEST", "TRAIN", "VALIDATION", "LabelledSet", "PairedSet", "load_labelled", "load_pairs"]
