"""benchmarks/seeds.py on two hand-made evaluations."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sketchynet.errors import InputError

SEEDS = runpy.run_path(str(Path(__file__).resolve().parent.parent / "benchmarks" / "seeds.py"))
RANKS = ([[2, 1], [1, 1], [3, 2]], [[1, 1], [2, 1], [1, 2]])
CHOICES = ([1, 0, 0], [0, 1, 0])


def _run(seed: int) -> dict[str, Any]:
    figures = {"acc1": 0.5, "acc5": 1.0, "gflops": 0.1, "parameters": 2_000_000}
    systems = {name: {"all": figures, "details": {}} for name in ("full", "direct@32", "v1@16", "v1@32", "v2", "mixture")}
    systems["mixture"]["details"] = {"shares": {"16": 0.25, "32": 0.75}}
    queries = [
        {"ranks": ranks, "choice": choice, "full_rank": 1 + (n == seed), "direct_ranks": [2, 1 + n]}
        for n, (ranks, choice) in enumerate(zip(RANKS[seed], CHOICES[seed], strict=True))
    ]
    counts = np.bincount(CHOICES[seed], minlength=2).tolist()
    return {
        "split_hash": "abc", "queries_count": 3, "gallery_count": 4, "canvases": [16, 32], "canvas_counts": counts,
        "systems": systems, "queries": queries,
    }


def test_outcomes_of_every_system() -> None:
    hits, run = SEEDS["hits"], _run(0)
    assert hits(run, "full").tolist() == [0, 1, 1]
    assert hits(run, "direct@32").tolist() == [1, 0, 0]
    assert hits(run, "v1@16").tolist() == [0, 1, 0] and hits(run, "v1@32").tolist() == [1, 1, 0]
    assert hits(run, "v2").tolist() == [1, 1, 0]
    assert hits(run, "mixture").tolist() == [0.75, 1, 0]
    assert hits(run, "shuffled") == pytest.approx([1 / 3, 1, 0])


def test_differences_are_pooled_over_seeds_and_queries() -> None:
    runs = [_run(0), _run(1)]
    value = SEEDS["pooled"](runs, "v2", "v1@16")
    # Per query, mean over the seeds: (1 + 0)/2, (0 + 1)/2, 0.
    assert value.value == pytest.approx(1 / 3)
    assert value.low == 0.0 and value.high == 0.5


def test_the_table_and_what_it_refuses(tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = tmp_path / f"seed-{seed}"
        folder.mkdir()
        (folder / "evaluation.json").write_text(json.dumps(_run(seed)))
    folders = [tmp_path / "seed-0", tmp_path / "seed-1"]
    text = SEEDS["table"](SEEDS["read_runs"](folders), [folder.name for folder in folders])
    assert "| v2 | 2.00 M | 0.1000 | 50.00 | 50.00 | 50.00 ± 0.00 | 100.00 |" in text
    assert "| v2 − v1@32 | +0.00 | +33.33 | +16.67 [+0.00, +50.00] |" in text
    assert "| v1@32 − direct@32 | +33.33 | +33.33 | +33.33 [+0.00, +100.00] |" in text
    with pytest.raises(InputError, match=r"seed-2/evaluation\.json: no finished evaluation"):
        SEEDS["read_runs"]([*folders, tmp_path / "seed-2"])
    other = _run(1) | {"split_hash": "def"}
    (tmp_path / "seed-1" / "evaluation.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="differ in split_hash"):
        SEEDS["read_runs"](folders)
