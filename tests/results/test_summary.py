"""Summaries of real runs: one tiny experiment through the command, then read, moved and damaged."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small import ALIKE, small_recipe
from summaries import make_summary, member, summary_values

from sketchynet.cli import main
from sketchynet.errors import InputError
from sketchynet.experiments import stage_keys
from sketchynet.results.pooling import pool, pooled_table
from sketchynet.results.summary import (
    add_membership,
    read_summaries,
    read_summary,
    stage_seconds,
    summarise_run,
    write_summary,
)
from sketchynet.stages.evaluate import Evaluation
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.systems import System


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One seed of two sets about the student (which share a configuration), and of one about the policy."""
    folder = tmp_path_factory.mktemp("experiments")
    paper = small_recipe("name=small", "student.gallery=own", "student.distillation.relations=[1, 1, 1]")
    (folder / "small.json").write_text(paper.model_dump_json())
    for words in (["rivals"], ["relations", "--only", "all relations"], ["policies", "--only", "both"]):
        assert main(["experiment", "run", *words, *_options(folder)]) == 0
    return folder


def _options(folder: Path) -> list[str]:
    options = {"--recipe": folder / "small.json", "--output": folder / "runs", "--cache": folder / "cache", "--track": "jsonl"}
    return [str(word) for pair in options.items() for word in pair]


def test_configurations_are_trained_once_and_share_stages(places: Path) -> None:
    runs = {path.name for path in (places / "runs").iterdir()}
    # "relations" of the rivals is "all relations" of the relations: the same run.
    assert runs == {"small-relations-s0", "small-feature-regression-s0", "small-row-softmax-s0", "small-both-s0"}
    summaries = {Path(s.place).parent.name: s for s in read_summaries((places / "runs").iterdir())}
    members = summaries["small-relations-s0"].values["experiments"]
    assert [(m["experiment"], m["variant"]) for m in members] == [("rivals", "relations"), ("relations", "all relations")]
    shared = summaries["small-row-softmax-s0"].values["run"]
    assert shared["borrowed"].keys() == {"teacher-0", "teacher-embeddings"} and "teacher-0" not in shared["seconds"]
    assert shared["seconds"]["student"] > 0 and "fold-0" not in shared["seconds"]
    first = places / "runs" / "small-relations-s0"
    again = places / "runs" / "small-row-softmax-s0"
    weights = "teacher-0/final/network.safetensors"
    assert (first / weights).samefile(again / weights)
    assert not (first / "selector").exists() and (places / "runs" / "small-both-s0" / "selector" / "final").exists()
    # The policy's set takes over the student as well, and trains the direct one, which nobody had.
    borrowed = summaries["small-both-s0"].values["run"]["borrowed"]
    assert borrowed.keys() == {"teacher-0", "teacher-embeddings", "student"}


def test_finished_configurations_are_skipped(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in places.rglob("*.safetensors")}
    assert main(["experiment", "run", "rivals", *_options(places)]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in places.rglob("*.safetensors")}
    printed = capsys.readouterr()
    assert printed.out.count("finished before") + printed.err.count("finished before") == 3
    assert "| feature regression | 1 |" in printed.out


def test_a_summary_holds_what_the_evaluation_found(places: Path) -> None:
    run = places / "runs" / "small-both-s0"
    summary, evaluation = read_summary(run / "summary.json"), json.loads((run / "evaluation.json").read_text())
    assert summary.recipe.selector.reads == "both" and summary.recipe.name == "small[selector.reads=both]"
    for name, figures in evaluation["systems"].items():
        for q in (1, 5, 10):
            assert summary.hits(name, q).mean() == pytest.approx(figures["all"][f"acc{q}"], abs=1e-12), name
    assert summary.values["systems"] == evaluation["systems"]
    assert summary.choices("v2").tolist() == [query["choice"] for query in evaluation["queries"]]
    assert summary.ranks["v1"].tolist() == [query["ranks"] for query in evaluation["queries"]]
    for name in ("strokes", "points", "ink"):
        assert summary.features()[name] == pytest.approx([query[name] for query in evaluation["queries"]], abs=2e-3)
    assert {"student", "direct", "teacher-0", "selector"} <= set(summary.values["validation"])
    assert len(summary.run_id) == 32 and summary.values["run"]["commits"] and (run / "summary.json").stat().st_size < 24_000


def test_queries_are_told_apart_by_category(tmp_path: Path) -> None:
    """Two categories whose queries lie mixed, as shoes and chairs do."""
    rows = {"all": np.arange(5), "chairs": np.array([0, 3]), "shoes": np.array([1, 2, 4])}
    ranks = np.array([[1, 1], [2, 1], [1, 3], [4, 2], [9, 1]])
    fixed = [
        System(f"v1@{size}", "v1", 10, ranks[:, [k]], np.ones((5, 1)), np.ones(5), np.full(5, float(size)), "v1", np.full(5, k))
        for k, size in enumerate((16, 32))
    ]
    figures = {s.name: {scope: s.figures(r, resamples=20, seed=0) for scope, r in rows.items()} | {"details": {}} for s in fixed}
    found = {
        "queries": [{"sketch": f"s{n}"} for n in range(5)], "queries_count": 5, "split_hash": "abc", "gallery_count": 9,
        "leaks": [["a", "b"]], "canvases": [16, 32], "canvas_counts": None, "systems": figures, "differences": {},
    }
    features = {name: np.arange(5.0) + 0.25 * (name == "ink") for name in ("strokes", "points", "ink")}
    evaluation = Evaluation(np.arange(5), tuple(fixed), {"v1": ranks}, features, None, found)
    task = SimpleNamespace(recipe=small_recipe(), scopes=lambda sketches: rows)
    (tmp_path / "summary.json").write_text(json.dumps(summarise_run(task, evaluation, RunFolder(tmp_path))))  # type: ignore[arg-type]
    summary = read_summary(tmp_path / "summary.json")
    assert summary.scope("shoes").tolist() == [False, True, True, False, True]
    for system in ("v1@16", "v1@32"):
        for scope in rows:
            assert summary.hits(system)[summary.scope(scope)].mean() == pytest.approx(figures[system][scope]["acc1"])
    assert summary.features()["ink"].tolist() == [0.25, 1.25, 2.25, 3.25, 4.25]
    text = pooled_table(pool([summary]))
    assert "chairs Acc@1 | shoes Acc@1" in text and "repeats pictures across its parts: a = b" in text


def test_a_run_without_policy_ends_with_v1(places: Path) -> None:
    summary = read_summary(places / "runs" / "small-row-softmax-s0" / "summary.json")
    assert set(summary.values["systems"]) == {"full", "v1@16", "v1@32", "oracle"}
    assert summary.values["canvas_counts"] is None and summary.values["choices"] == {}
    pictures = {path.name for path in (places / "runs" / "small-row-softmax-s0" / "pictures").iterdir()}
    assert {"accuracy_flops.png", "retrieval.png", "failures.png"} <= pictures and "canvases.png" not in pictures


@pytest.mark.slow
def test_runs_side_by_side_are_the_same_and_share_stages(places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--recipe", str(places / "small.json"), "--cache", str(places / "cache"), "--threads", str(torch.get_num_threads())]
    words = ["experiment", "run", "rivals", "--only", "relations", "row softmax", *options, "--output", str(tmp_path / "runs")]
    assert main([*words, "--jobs", "2", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]) == 0
    assert capsys.readouterr().out.count("  finished: ") == 2
    summaries = {Path(s.place).parent.name: s for s in read_summaries((tmp_path / "runs").iterdir())}
    assert summaries.keys() == {"small-relations-s0", "small-row-softmax-s0"}
    for name, summary in summaries.items():
        alone = read_summary(places / "runs" / name / "summary.json")
        assert all(np.array_equal(summary.ranks[network], ranks) for network, ranks in alone.ranks.items())
        assert "teacher-0" in (tmp_path / "runs" / name / "console.txt").read_text() or "borrowed" in summary.values["run"]
    assert sum("teacher-0" in s.values["run"]["seconds"] for s in summaries.values()) == 1
    assert main(["compare", "--experiment", "rivals", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]) == 0
    assert capsys.readouterr().out.count("small[") == 2


def test_side_by_side_is_not_on_ray(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "run", "rivals", *_options(places), "--jobs", "2", "--workers", "1"]) == 2
    assert "--jobs 2 trains runs beside each other" in capsys.readouterr().err
    assert main(["experiment", "run", "rivals", *_options(places), "--jobs", "0"]) == 2
    assert "--jobs 0: give at least 1" in capsys.readouterr().err


def test_evaluating_again_keeps_id_experiments_and_figures(places: Path) -> None:
    run = places / "runs" / "small-row-softmax-s0"
    before = json.loads((run / "summary.json").read_text())
    assert main(["evaluate", str(run), "--cache", str(places / "cache")]) == 0
    after = json.loads((run / "summary.json").read_text())
    assert after["run"].pop("date") and before["run"].pop("date")
    assert after == before


def test_a_folded_first_layer_changes_the_cost_alone(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = places / "runs" / "small-both-s0"
    before = read_summary(run / "summary.json")
    command = ["evaluate", str(run), "--cache", str(places / "cache")]
    assert main([*command, "--set", "seed=3"]) == 2 and "only fields of evaluation" in capsys.readouterr().err
    assert main([*command, "--set", "evaluation.grey_stem=true"]) == 0
    assert "GFLOPs with the first layer folded to one channel: " in capsys.readouterr().out
    after = read_summary(run / "summary.json")
    for network, ranks in before.ranks.items():
        assert after.ranks[network].tolist() == ranks.tolist()
    for name, figures in after.values["systems"].items():
        assert figures["all"]["gflops"] == before.figures(name)["gflops"]
        grey = figures["details"].get("gflops_grey")
        assert grey is None if name in ("full", "exit") else 0 < grey < figures["all"]["gflops"], name
    largest = after.values["systems"]["v1@32"]
    # The first layer of vgg_tiny: 8 channels at 32 x 32, whose batch norm stands in for a bias.
    assert largest["all"]["gflops"] - largest["details"]["gflops_grey"] == pytest.approx(2e-9 * 8 * 32 * 32 * (18 - 1))


def test_what_a_stage_depends_on() -> None:
    base = stage_keys(small_recipe("selector.folds=2"))
    assert set(base) == {"teacher-0", "teacher-embeddings", "direct", "student", "fold-0", "fold-1", "selector"}

    def changed(*changes: str) -> set[str]:
        keys = stage_keys(small_recipe("selector.folds=2", *changes))
        return {name for name in base if keys.get(name) != base[name]}

    assert changed("seed=1") == set(base) and changed("evaluation.bootstrap=60") == set()
    assert changed("teacher.optimization.epochs=3") == set(base) - {"direct"}
    assert changed("teacher.members=2") == set(base) - {"direct", "teacher-0"}
    assert changed("student.distillation.ranking_share=0.3") == {"student", "fold-0", "fold-1", "selector"}
    assert changed("student.gallery=own") == {"student", "fold-0", "fold-1", "selector"}
    assert changed("selector.fold_epochs=1") == {"fold-0", "fold-1", "selector"}
    assert changed("selector.hidden=9") == {"selector"} and changed("student.direct=false") == set()
    several = stage_keys(small_recipe("teacher.members=3"))
    assert len({several[f"teacher-{member}"] for member in range(3)}) == 3  # each has its own seed
    alike = [small_recipe("selector.folds=1", *ALIKE, f"student.distillation.start={start}") for start in ("weights", "member")]
    weights, member = map(stage_keys, alike)
    assert {name for name in weights if weights[name] != member[name]} == {"student", "selector"}
    alone = stage_keys(small_recipe("student.gallery=own", "student.distillation.ranking_share=1"))
    assert alone["student"] == alone["direct"]  # a student that is not distilled is the directly trained one


def test_time_between_an_interruption_and_a_resume_is_not_counted() -> None:
    def row(time: float, kind: str, stage: str = "") -> dict[str, object]:
        return {"time": time, "kind": kind, "stage": stage}

    rows = [
        row(0, "run_start"), row(1, "stage_start", "a"), row(5, "metrics", "a"),
        row(100, "run_start"), row(101, "stage_start", "a"), row(104, "stage_end", "a"),
        row(110, "stage_start", "b"), row(112, "metrics", "b"), row(112.5, "run_end"),
    ]
    assert stage_seconds(rows) == {"a": 7.0, "b": 2.5}


def test_exported_summaries_of_one_run_are_united(tmp_path: Path) -> None:
    first = write_summary(make_summary(0, experiments=(member("a"),)), tmp_path)
    again = write_summary(make_summary(0, experiments=(member("b", 1),)), tmp_path)
    assert first == again and [m["variant"] for m in read_summary(again).values["experiments"]] == ["b", "a"]
    assert len(read_summaries([tmp_path, first])) == 1


def test_membership_reaches_a_finished_summary(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(summary_values(0)))
    for variant in ("a", "b", "a"):
        add_membership(RunFolder(tmp_path), member(variant))
    assert [m["variant"] for m in read_summary(tmp_path / "summary.json").values["experiments"]] == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"a\.json: not a summary of a run"),
        ("[]", r"a\.json: not a summary of format 1 \(found list\)"),
        ('{"format": 9}', r"format 1 \(found 9\); evaluate the run again"),
        ('{"format": 1, "run": {}}', r"lacks recipe, experiments"),
    ],
)
def test_a_damaged_summary_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_summaries([tmp_path])


@pytest.mark.parametrize("name", ["experiments.json", "borrowed.json"])
def test_damaged_notes_of_a_run_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[{")
    evaluation = Evaluation(np.arange(0), (), {}, {}, None, {"queries": [], "canvas_counts": None} | dict.fromkeys(
        ["queries_count", "split_hash", "gallery_count", "leaks", "canvases", "systems", "differences"], 0
    ))
    task = SimpleNamespace(recipe=small_recipe(), scopes=lambda sketches: {"all": sketches})
    with pytest.raises(InputError, match=rf"{name} is damaged .*; remove it and run the command again"):
        summarise_run(task, evaluation, RunFolder(tmp_path))  # type: ignore[arg-type]


def test_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(InputError, match=r"is not evaluated; `sketchynet train --resume"):
        read_summaries([tmp_path])


def test_failed_configurations_do_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.json").write_text(small_recipe("name=small", "student.gallery=own").model_dump_json())
    words = ["experiment", "run", "students", *_options(tmp_path), "--only", "MobileNetV2", "SqueezeNet 1.1", "--weights", str(tmp_path)]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "2 of 2 runs failed" in error and "mobilenet_v2_imagenet.safetensors' not found" in error


def test_nothing_here_needs_mlflow_or_ray() -> None:
    import subprocess
    import sys

    code = "import sys; sys.modules.update(mlflow=None, ray=None); import sketchynet.experiments, sketchynet.results, sketchynet.cli"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


