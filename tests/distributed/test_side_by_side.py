"""Networks trained side by side: in an order that their needs allow, and all ended when one fails."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import pytest
import torch
from small import small_recipe

from sketchynet.distributed.side_by_side import train_side_by_side
from sketchynet.errors import InputError
from sketchynet.stages.runtime import Report, Runtime
from sketchynet.stages.train import planned_networks


def note(folder: Path, names: Collection[str], runtime: Runtime) -> None:
    [name] = names
    began = time.time()
    time.sleep(0.2)
    figures = {"began": began, "ended": time.time(), "process": os.getpid(), "threads": torch.get_num_threads()}
    runtime.report(Report(name, "metrics", metrics=figures))
    (folder / name).touch()


def fail_beside(folder: Path, how: Callable[[], None], names: Collection[str], runtime: Runtime) -> None:
    [name] = names
    if name == "long":
        (folder / "begun").touch()
        time.sleep(600)
    while not (folder / "begun").exists():
        time.sleep(0.01)
    how()


def refuse() -> None:
    raise InputError("failing: the loss is nan in epoch 3")


def die() -> None:
    os._exit(3)


def test_each_waits_for_what_it_needs_and_never_for_more(tmp_path: Path) -> None:
    reports: dict[str, dict[str, float]] = {}
    plan: dict[str, Collection[str]] = {"teacher-0": (), "embeddings": ("teacher-0",), "direct": (), "student": ("embeddings",)}
    train_side_by_side(
        plan, partial(note, tmp_path), jobs=2, threads=1, consoles=tmp_path / "consoles",
        listener=lambda report: reports.update({report.stage: report.metrics}),
    )
    assert reports.keys() == plan.keys() == {path.name for path in tmp_path.iterdir()} - {"consoles"}
    assert len({figures["process"] for figures in reports.values()} | {os.getpid()}) == len(plan) + 1
    assert {figures["threads"] for figures in reports.values()} == {1}
    for name, needed in plan.items():
        assert all(reports[name]["began"] >= reports[other]["ended"] for other in needed)
    for figures in reports.values():
        beside = [other for other in reports.values() if other["began"] <= figures["began"] < other["ended"]]
        assert len(beside) <= 2


@pytest.mark.parametrize(
    "how, message",
    [
        (refuse, "^failing: the loss is nan in epoch 3$"),
        (die, "^failing was not finished: its process ended with status 3; .*failing.txt. --resume goes on"),
    ],
)
def test_one_failure_ends_the_others(tmp_path: Path, how: Callable[[], None], message: str) -> None:
    plan: dict[str, Collection[str]] = {"long": (), "failing": (), "never": ("long",)}
    with pytest.raises(InputError, match=message):
        train_side_by_side(
            plan, partial(fail_beside, tmp_path, how), jobs=2, threads=1, consoles=tmp_path, listener=lambda report: None
        )
    assert not (tmp_path / "never.txt").exists()


def test_what_a_run_trains_in_its_order() -> None:
    recipe = small_recipe("teacher.members=2", "selector.folds=2")
    full = {"teacher-0": set(), "teacher-1": set(), "teacher-embeddings": {"teacher-0", "teacher-1"}}
    taught = {"teacher-embeddings"}
    students = {"direct": set(), "student": taught, "fold-0": taught, "fold-1": taught}
    plan = planned_networks(recipe, ("teacher", "student"))
    assert plan == full | students and list(plan) == [*full, *students]
    assert planned_networks(recipe, ("teacher",)) == full
    assert planned_networks(recipe, ("student", "selector")) == dict.fromkeys(students, frozenset())
    alone = small_recipe("teacher.members=2", "selector.train=false", "student.direct=false", "student.gallery=own", "student.distillation.ranking_share=1")
    assert planned_networks(alone, ("teacher", "student")) == full | {"student": frozenset()}
