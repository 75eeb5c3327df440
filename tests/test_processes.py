"""Runs side by side: real processes that finish, fail, die and are left behind."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from small import small_recipe

from sketchynet.errors import InputError
from sketchynet.experiments.processes import Ended, Processes
from sketchynet.experiments.run import _Job, _Series
from sketchynet.pipeline import Execution
from sketchynet.recipes.experiments import find_experiment
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.train import Places


def succeed(place: Path) -> None:
    print(f"with {torch.get_num_threads()} thread")
    place.write_text("done")


def refuse() -> None:
    raise InputError("no such weights: put them there")


def break_down() -> None:
    raise KeyError("a defect")


def be_killed() -> None:
    print("allocating", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(place: Path) -> None:
    place.write_text("begun")
    time.sleep(600)


def test_every_end_is_told(tmp_path: Path) -> None:
    works = {"good": partial(succeed, tmp_path / "result"), "refused": refuse, "broken": break_down, "killed": be_killed}
    ended: dict[str, Ended] = {}
    with Processes(threads=1) as processes:
        while works or len(processes):
            while works and len(processes) < 3:
                name = next(iter(works))
                processes.start(name, works.pop(name), tmp_path / f"{name}.txt")
            assert len(processes) == 3 or not works
            ended |= {end.name: end for end in processes.wait()}
    assert ended["good"].error is None and (tmp_path / "result").read_text() == "done"
    assert "with 1 thread" in (tmp_path / "good.txt").read_text()
    assert ended["refused"].error == "no such weights: put them there"
    assert ended["broken"].error == f"its process ended with status 1; its last words are in {tmp_path / 'broken.txt'}"
    assert "KeyError: 'a defect'" in (tmp_path / "broken.txt").read_text()
    assert ended["killed"].error == f"its process was ended by signal 9; its last words are in {tmp_path / 'killed.txt'}"
    assert "allocating" in (tmp_path / "killed.txt").read_text()


def test_none_is_left_behind(tmp_path: Path) -> None:
    with Processes(threads=1) as processes:
        assert processes.wait() == []
        processes.start("long", partial(sleep, tmp_path / "begun"), tmp_path / "long.txt")
        while not (tmp_path / "begun").exists():
            assert processes.wait() == []
        [process] = [running.process for running in processes._running.values()]
    assert process.exitcode == -signal.SIGTERM


def test_a_run_waits_for_a_stage_that_another_one_trains_for_both(tmp_path: Path) -> None:
    experiment = find_experiment("distillation", small_recipe())
    series = _Series(experiment, Execution(track="none"), tmp_path, (tmp_path,), None, None, None)
    direct, first, second = (_Job(variant, experiment.recipe(variant, 0)) for variant in experiment.variants[:3])
    other = _Job(second.variant, experiment.recipe(second.variant, 1))
    places = series._begin(first)
    assert places is not None
    running = [(first, places)]
    assert series._ready([second], running) is None
    assert series._ready([second, other, direct], running) is other  # another seed shares nothing
    assert series._ready([second, direct], running) is direct  # needs no full network
    (places.run.final("teacher-0")).mkdir(parents=True)
    assert series._ready([second], running) is None  # its embeddings are still to come
    places.run.teacher_embeddings.mkdir()
    assert series._ready([second], running) is second
    taken = series._begin(second)
    assert taken is not None and taken.run.teacher_embeddings.exists() and not taken.run.final("student").exists()


def test_a_run_that_cannot_be_recorded_is_named_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_to_record(*_: object) -> None:
        raise InputError("the store is locked")

    monkeypatch.setattr("sketchynet.experiments.run.import_journal", refuse_to_record)
    experiment = find_experiment("distillation", small_recipe())
    series = _Series(experiment, Execution(track="mlflow"), tmp_path, (tmp_path,), None, None, None)
    job = _Job(experiment.variants[0], experiment.recipe(experiment.variants[0], 0))
    series._ended(job, Places(RunFolder(tmp_path), None, None, None), Ended(job.name, None))
    assert series.finished == [tmp_path] and series.failures == ["trained directly, seed 0: the store is locked"]
