"""The distance benchmark as it is run, at tiny sizes on the CPU."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_every_case_is_checked_timed_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, BENCHMARKS / "distance.py", "--small", "--device", "cpu", "--rounds", "1", "--out", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count(" right ") == 11 and "WRONG" not in run.stdout
    (path,) = tmp_path.glob("distance-*.jsonl")
    assert path.with_suffix(".png").stat().st_size > 10_000
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    rows = importlib.import_module("measuring").read_rows(path)
    assert {row["operator"] for row in rows} == {"relational_huber", "pairwise_distance", "match_rank"}
    for row in rows:
        assert row["ms"] > 0 and row["ratio_min"] <= row["ratio"] <= row["ratio_max"], row


def test_checks_and_compiles_side_by_side(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    distance = importlib.import_module("distance")
    assert distance.check_and_compile(torch.device("cpu"), small=True)
    assert capsys.readouterr().out.count(" right ") == 11


def test_a_wrong_operator_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    distance = importlib.import_module("distance")
    monkeypatch.setattr(distance.pairwise_distance, "pairwise_distance", lambda x, y, backend: torch.cdist(x, y) + 0.1)
    number = distance.OPERATORS.index(distance.pairwise_distance)
    right, line = distance.check_one(torch.device("cpu"), distance.OPERATORS[number], "eager", "fp32", small=True)
    assert not right and "WRONG: pairwise_distance fp32: distances are off by" in line
