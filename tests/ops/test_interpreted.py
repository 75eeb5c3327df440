"""The kernels in Triton's interpreter, on CPU tensors: in a process of its own, where nothing is compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "interpreted"


@pytest.mark.skipif(sys.platform != "linux", reason="Triton comes for Linux alone")
def test_kernels_equal_their_references() -> None:
    settings = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER)]
    root = FOLDER.parents[2]
    run = subprocess.run(command, env=os.environ | settings, cwd=root, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert " passed" in run.stdout and "skipped" not in run.stdout
