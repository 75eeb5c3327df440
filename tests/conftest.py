"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where the tests run in several processes, a file stays in one, and so does all that starts a Ray cluster."""
    root = Path(__file__).parent
    for item in items:
        file = item.path.relative_to(root)
        group = "distributed" if file.parts[0] == "distributed" else file.as_posix()
        item.add_marker(pytest.mark.xdist_group(group))


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
