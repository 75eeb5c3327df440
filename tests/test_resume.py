"""A run that is killed in every stage ends with the weights of a run that is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small import small_recipe

from sketchynet.tracking import read_journal

STAGES = ("teacher-0", "direct", "student", "fold-0", "fold-1", "selector")


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "sketchynet.cli", "train", *map(str, arguments), "--track", "jsonl", "--threads", "1"]


def _kill_when(stage: Path, command: list[str]) -> None:
    """Starts the command and kills it as soon as ``stage`` has a checkpoint but is not finished."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(stage.glob("epoch-*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{stage.name} wrote no checkpoint"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (stage / "final").exists(), f"{stage.name} was finished before it could be killed"


def _check_equal(alone: Path, killed: Path) -> None:
    for stage in STAGES:
        expected, found = (load_file(run / stage / "final" / "network.safetensors") for run in (alone, killed))
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            assert tensor.equal(found[name]), f"{stage}: {name} differs"
    assert (alone / "table.txt").read_text() == (killed / "table.txt").read_text()


@pytest.mark.timeout(900)  # eleven starts of the command, which a busy machine may stretch
def test_killed_in_every_stage_and_resumed_is_bit_identical(tmp_path: Path) -> None:
    """Alone, and with its networks trained side by side."""
    recipe = tmp_path / "small.json"
    recipe.write_text(
        small_recipe(
            "selector.folds=2",
            "selector.picked_on=folds",
            "teacher.optimization.epochs=4",
            "teacher.optimization.averaging=0.9",
            "student.optimization.epochs=4",
            "selector.optimization.epochs=3",
        ).model_dump_json()
    )
    cache = ("--cache", tmp_path / "cache")
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    subprocess.run(_command(recipe, "--output", alone, *cache), check=True, capture_output=True, timeout=300)
    _kill_when(killed / STAGES[0], _command(recipe, "--output", killed, *cache))
    for stage in STAGES[1:]:
        _kill_when(killed / stage, _command("--resume", killed, *cache))
    subprocess.run(_command("--resume", killed, *cache), check=True, capture_output=True, timeout=300)
    _check_equal(alone, killed)

    beside, jobs = tmp_path / "beside", ("--jobs", 2)
    _kill_when(beside / "student", _command(recipe, "--output", beside, *cache, *jobs))
    subprocess.run(_command("--resume", beside, *cache, *jobs), check=True, capture_output=True, timeout=300)
    _check_equal(alone, beside)
    ended = {row["stage"] for row in read_journal(beside) if row["kind"] == "stage_end" and row["status"] == "FINISHED"}
    assert ended == {*STAGES, "evaluate"}
