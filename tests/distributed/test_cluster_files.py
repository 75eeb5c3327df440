"""Cluster files against Ray's own schema, and the job entry point against the command line's."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"


@pytest.mark.parametrize("path", sorted(CLUSTER.glob("*.yaml")), ids=lambda path: path.name)
def test_ray_accepts_the_cluster_file(path: Path) -> None:
    util = pytest.importorskip("ray.autoscaler._private.util", reason="the extra 'distributed' is missing")
    config = yaml.safe_load(path.read_text())
    util.validate_config(util.prepare_config(config))
    assert len(config["provider"]["worker_ips"]) == config["max_workers"]
    with pytest.raises(Exception, match="machine_types"):
        util.validate_config(util.prepare_config(config | {"machine_types": 1}))


def test_entry_point_hands_over_to_sketchynet_train(monkeypatch: pytest.MonkeyPatch) -> None:
    cli = pytest.importorskip("sketchynet.cli")
    calls: list[Any] = []
    monkeypatch.setattr(cli, "main", lambda arguments: calls.append(arguments) or 0)
    monkeypatch.setattr(sys, "argv", ["train.py", "demo", "--workers", "4"])
    monkeypatch.setenv("RAY_ADDRESS", "203.0.113.1:6379")
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(CLUSTER / "train.py"), run_name="__main__")
    assert caught.value.code == 0
    assert calls == [["train", "demo", "--workers", "4"]]
    assert os.environ["RAY_ADDRESS"] == "203.0.113.1:6379"  # the one that a submitted job is given stays
