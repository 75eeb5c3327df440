"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with real data. Without it a test skips, or fails where SKETCHYNET_REQUIRE_DATA=1."""
    value = os.environ.get("SKETCHYNET_DATA")
    if value and Path(value).is_dir():
        return Path(value)
    reason = (
        f"SKETCHYNET_DATA={value} is not a folder"
        if value
        else "set SKETCHYNET_DATA to the folder with real data"
    )
    if os.environ.get("SKETCHYNET_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
