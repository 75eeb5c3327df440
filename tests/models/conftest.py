"""Where published weights are looked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """$SKETCHYNET_WEIGHTS, or the folder `weights` beside $SKETCHYNET_DATA."""
    if "SKETCHYNET_WEIGHTS" in os.environ:
        folder = Path(os.environ["SKETCHYNET_WEIGHTS"])
    elif "SKETCHYNET_DATA" in os.environ:
        folder = Path(os.environ["SKETCHYNET_DATA"]).resolve().parent / "weights"
    else:
        pytest.skip("neither SKETCHYNET_WEIGHTS nor SKETCHYNET_DATA is set")
    if not folder.is_dir():
        pytest.skip(f"no folder of published weights at {folder}")
    return folder
