"""Paired sketches and photos: sources, splits and the prepared cache."""

from __future__ import annotations

from sketchynet.data.pairs import PairedSet
from sketchynet.data.sources import load_pairs
from sketchynet.data.splits import SPLIT_NAMES, TEST, TRAIN, VALIDATION

__all__ = ["SPLIT_NAMES", "TEST", "TRAIN", "VALIDATION", "PairedSet", "load_pairs"]
