"""What a run ran on: the facts without which a number cannot be repeated."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

COMMIT_VARIABLE = "SKETCHYNET_COMMIT"
"""Names the commit of code that was copied to a machine without its history."""


def environment() -> dict[str, str]:
    """Versions and hardware of this process, as text for tags.

    Keys: git_commit (with "-dirty" where tracked files are changed; outside a checkout what $SKETCHYNET_COMMIT says,
    else "unknown"), python, torch, numpy, platform, cpu_count, gpu ("none" where torch finds none).
    """
    commit = git_commit(Path(__file__).resolve().parent)
    return {
        "git_commit": os.environ.get(COMMIT_VARIABLE, commit) if commit == "unknown" else commit,
        "python": platform.python_version(),
        "torch": _version("torch"),
        "numpy": _version("numpy"),
        "platform": platform.platform(),
        "cpu_count": str(os.cpu_count()),
        "gpu": _gpu_name(),
    }


def git_commit(folder: Path) -> str:
    """Commit of the checkout that tracks `folder`: 40 hex digits, "-dirty" appended for uncommitted changes."""
    # An installed package may lie inside somebody else's checkout; its commit would say nothing about this code.
    if not _git(folder, "ls-files", "."):
        return "unknown"
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return "unknown"
    return commit + ("-dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(["git", "--no-optional-locks", "-C", str(folder), *arguments],
                                capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
