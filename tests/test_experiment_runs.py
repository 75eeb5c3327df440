"""How an experiment's runs share stages and wait for each other, and what becomes of a failed one."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import small_recipe

from sketchynet.distributed.processes import Ended
from sketchynet.errors import InputError
from sketchynet.experiments.run import _Job, _Series
from sketchynet.pipeline import Execution
from sketchynet.recipes.experiments import find_experiment
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.train import Places


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
