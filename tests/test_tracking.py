"""The journal, MLflow runs made from it, and the comparison of runs."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from summaries import summary_values

from sketchynet.errors import InputError
from sketchynet.results.summary import export_experiment, read_summaries
from sketchynet.tracking import compare, environment, import_journal, make_tracker, read_journal
from sketchynet.tracking.compare import RunSummary, plot_points, seed_rows, table_rows
from sketchynet.tracking.environment import git_commit
from sketchynet.tracking.jsonl import encode_number, flatten, plain
from sketchynet.tracking.mlflow_store import _clip, _key, resolve_uri

RECIPE = {"name": "tiny", "seed": 7, "student": {"backbone": "mobile_small", "canvases": (32, 64)}}


def summary(name: str = "a", recipe: str = "tiny", seed: str = "0", status: str = "FINISHED",
            **metrics: float) -> RunSummary:
    named = {f"test/{key.replace('__', '/')}": value for key, value in metrics.items()}
    return RunSummary(f"{name:0<32}", name, recipe, seed, "2026-01-01 00:00", status, {}, {}, named)


def test_journal_holds_every_report_in_order(tmp_path: Path) -> None:
    tracker = make_tracker("jsonl", tmp_path / "run")
    tracker.start("first", RECIPE, {"data_hash": "abc"})
    picture = tmp_path / "run" / "plots" / "a.png"
    picture.parent.mkdir()
    picture.write_bytes(b"png")
    tracker.stage_start("student", {"epochs": 2})
    tracker.metrics("student", {"loss": 0.5, "bad": math.nan, "huge": math.inf}, 1)
    tracker.artifact(picture, "student")
    tracker.stage_end("student", "FINISHED")
    tracker.end("FINISHED")
    rows = read_journal(tmp_path / "run")
    assert [row["kind"] for row in rows] == ["run_start", "stage_start", "metrics", "artifact", "stage_end", "run_end"]
    assert rows[0]["params"]["student"] == {"backbone": "mobile_small", "canvases": [32, 64]}
    assert rows[0]["tags"]["data_hash"] == "abc" and "git_commit" in rows[0]["tags"]
    assert rows[2]["values"] == {"loss": 0.5, "bad": "nan", "huge": "inf"} and rows[2]["step"] == 1
    assert rows[3] == {**rows[3], "stage": "student", "path": "plots/a.png"}


def test_resume_continues_the_journal_after_a_torn_line(tmp_path: Path) -> None:
    tracker = make_tracker("jsonl", tmp_path)
    tracker.start("first", {}, {})
    tracker.metrics("student", {"loss": 1.0}, 1)
    journal = tmp_path / "reports.jsonl"
    with journal.open("ab") as file:
        file.write(b'{"time": 1, "kind": "metr')
    assert len(read_journal(journal)) == 2
    again = make_tracker("jsonl", tmp_path)
    again.start("first", {}, {})
    again.end("FINISHED")
    rows = read_journal(journal)
    assert [row["kind"] for row in rows] == ["run_start", "metrics", "run_start", "run_end"]
    assert rows[0]["journal"] == rows[2]["journal"] and (rows[0]["resumed"], rows[2]["resumed"]) == (False, True)
    assert {path.name for path in tmp_path.iterdir()} == {"reports.jsonl", "tracking.json"}


def test_the_journal_needs_neither_mlflow_nor_ray(tmp_path: Path) -> None:
    code = ("import sys; sys.modules.update(mlflow=None, ray=None); from pathlib import Path; "
            "from sketchynet.tracking import make_tracker; t = make_tracker('jsonl', Path(sys.argv[1])); "
            "t.start('a', {}, {}); t.end('FINISHED')")
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    assert len(read_journal(tmp_path)) == 2


def test_no_tracker_writes_nothing(tmp_path: Path) -> None:
    tracker = make_tracker("none", tmp_path / "run")
    tracker.start("a", {}, {})
    tracker.metrics("s", {"loss": 1.0}, 0)
    tracker.end("FINISHED")
    assert not (tmp_path / "run").exists()


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'csv'.*mlflow, jsonl or none"):
        make_tracker("csv", tmp_path)
    tracker = make_tracker("jsonl", tmp_path)
    with pytest.raises(RuntimeError, match="start"):
        tracker.end("FINISHED")
    tracker.start("a", {}, {})
    with pytest.raises(InputError, match="'DONE'"):
        tracker.end("DONE")
    with pytest.raises(InputError, match=r"gone\.png"):
        tracker.artifact(tmp_path / "gone.png")
    (tmp_path / "tracking.json").write_text("{}")
    with pytest.raises(InputError, match=r"tracking\.json is damaged"):
        make_tracker("jsonl", tmp_path).start("a", {}, {})
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"time": 1, "kind": "run_end", "status": "FINISHED"}\nnonsense\n')
    with pytest.raises(InputError, match="broken.jsonl, line 2"):
        read_journal(broken)
    with pytest.raises(InputError, match="cannot read the journal"):
        read_journal(tmp_path / "missing.jsonl")


@given(st.floats())
def test_numbers_survive_the_journal(value: float) -> None:
    back = float(json.loads(json.dumps(encode_number(value), allow_nan=False)))
    assert back == value or (math.isnan(back) and math.isnan(value))


def test_small_conversions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert flatten({"a": {"b": 1, "c": {"d": None}}, "e": [1, 2]}) == {"a.b": "1", "a.c.d": "None", "e": "[1, 2]"}
    assert plain({1: Path("x"), "y": (1, 2.5)}) == {"1": "x", "y": [1, 2.5]}
    assert _key("v1@64/acc[1]é") == "v1_64/acc_1__" and len(_key("k" * 300)) == 250
    assert _clip("x" * 20, 8) == "xxxxxxx…" and _clip("short", 8) == "short"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert resolve_uri(None) == "http://127.0.0.1:5000" and resolve_uri("sqlite:////s/m.db") == "sqlite:////s/m.db"


def test_environment_names_commit_and_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = environment()
    assert set(found) == {"git_commit", "python", "torch", "numpy", "platform", "cpu_count", "gpu"}
    assert all(isinstance(value, str) and value for value in found.values())

    monkeypatch.setenv("SKETCHYNET_COMMIT", "copied")
    assert environment()["git_commit"] == found["git_commit"]  # a checkout knows better
    with monkeypatch.context() as away:
        # The package's name for the module is that of its function.
        away.setattr(sys.modules["sketchynet.tracking.environment"], "git_commit", lambda folder: "unknown")
        assert environment()["git_commit"] == "copied"

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)
        return done.stdout.decode().strip()

    assert git_commit(tmp_path) == "unknown"
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    assert git_commit(tmp_path) == "unknown"  # nothing here is tracked
    git("add", "a")
    git("commit", "-q", "-m", "a")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "a").write_text("2")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD") + "-dirty"


def test_table_and_points_of_runs() -> None:
    first = summary("a", seed="0", v2__acc1=0.5, v2__gflops=0.1, v2__mean_canvas=61.25, full__acc1=0.6,
                    full__gflops=80.0, v1_64__acc1=0.4, v2__acc1_low=0.4, v2__acc1_high=0.6)
    second = summary("b", seed="1", v2__acc1=0.6, v2__gflops=0.3)
    rows = table_rows([first, second])
    head = ("a", "tiny", "0", "2026-01-01 00:00", "FINISHED")
    assert rows[0] == (*head, "full", "60.00", "80", "–")
    assert rows[1] == ("", "", "", "", "", "v2", "50.00", "0.1", "61.25")
    assert rows[2][5:] == ("v2", "60.00", "0.3", "–")
    assert seed_rows([first, second]) == [("tiny", "v2", "2", "55.00 ± 7.07", "0.2")]
    assert seed_rows([first, summary("b", status="FAILED", v2__acc1=0.6)]) == []
    points = {point["group"]: point for point in plot_points([first])}
    assert (points["v2"]["low"], points["v2"]["high"], points["full"]["low"]) == (0.4, 0.6, 0.6)
    [joint] = plot_points([second, summary("c", v2__acc1=0.2, v2__gflops=0.1)])
    assert (joint["accuracy"], joint["gflops"], joint["low"], joint["high"]) == pytest.approx((0.4, 0.2, 0.2, 0.6))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow", "ignore::FutureWarning:mlflow",
                            "ignore::ResourceWarning")
def test_mlflow_runs_resume_outage_import_and_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One store for the whole story, because opening one takes seconds."""
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri, run = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "run"
    tracker = make_tracker("mlflow", run, experiment="tests", uri=uri)
    tracker.start("first", {**RECIPE, "long": "x" * 9000}, {"recipe": "tiny", "seed": "7", "data_hash": "abc"})
    tracker.stage_start("student", {"epochs": 3})
    for step in (1, 2):
        tracker.metrics("student", {"loss": 1.0 / step, "broken": math.nan}, step)
    # The process dies here, its thread with it: no run is closed. A new one repeats step 2 and goes on.
    assert tracker._delivery.close() == 0
    tracker = make_tracker("mlflow", run, experiment="tests", uri=uri)
    tracker.start("first", {**RECIPE, "workers": 4, "seed": 8}, {"recipe": "tiny", "seed": "7"})
    tracker.stage_start("student", {"epochs": 3})
    tracker.metrics("student", {"loss": 0.5, "broken": math.nan}, 2)
    tracker.metrics("student", {"loss": 0.25}, 3)
    weights = run / "stages" / "student"
    weights.mkdir(parents=True)
    (weights / "model.json").write_text("{}")
    tracker.artifact(weights, "student")
    tracker.stage_end("student", "FINISHED")
    (run / "summary.json").write_text(json.dumps(summary_values(0)))
    tracker.artifact(run / "summary.json")
    tracker.stage_start("evaluate", {})
    tracker.metrics("evaluate", {"test/v2/acc1": 0.5, "test/v2/gflops": 0.1, "test/v2/mean_canvas": 61.0}, 0)
    tracker.stage_end("evaluate", "FINISHED")
    tracker.end("FINISHED")

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tests")
    assert experiment.artifact_location == (tmp_path / "mlruns").as_uri()
    runs = {found.info.run_name: found for found in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"first", "student", "evaluate"}
    parent, student = runs["first"], runs["student"]
    assert {found.info.status for found in runs.values()} == {"FINISHED"}
    assert student.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.params["student.backbone"] == "mobile_small" and parent.data.params["workers"] == "4"
    assert parent.data.params["seed"] == "7" and parent.data.tags["resumed.seed"] == "8"
    assert len(parent.data.params["long"]) == 6000
    assert parent.data.tags["data_hash"] == "abc" and parent.data.tags["torch"]
    history = client.get_metric_history(student.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert parent.data.metrics["test/v2/acc1"] == 0.5
    names = [item.path for item in client.list_artifacts(student.info.run_id, "stages/student")]
    assert names == ["stages/student/model.json"]
    state = json.loads((run / "tracking.json").read_text())
    assert state["mlflow"]["runs"]["student"] == student.info.run_id

    # The journal of a tracked run adds nothing; one kept without MLflow comes in once.
    assert import_journal(run, "tests", uri)[:2] == (parent.info.run_id, 0)
    other = make_tracker("jsonl", tmp_path / "other")
    other.start("second", RECIPE, {"recipe": "tiny", "seed": "1"})
    other.metrics("evaluate", {"test/v2/acc1": 0.7, "test/v2/gflops": 0.2}, 0)
    assert import_journal(tmp_path / "other", "tests", uri).new_rows == 2
    other.end("FINISHED")
    assert import_journal(tmp_path / "other" / "reports.jsonl", "tests", uri).new_rows == 1
    assert import_journal(tmp_path / "other", "tests", uri).new_rows == 0
    assert len(client.search_runs([experiment.experiment_id])) == 5

    table = compare("tests", uri, tmp_path / "pictures")
    assert (tmp_path / "pictures" / "accuracy_flops.png").read_bytes()[:4] == b"\x89PNG"
    assert "60.00 ± 14.14" in table
    told = export_experiment("tests", uri, tmp_path / "export")
    assert told.startswith(f"exported: 1 finished run to {tmp_path / 'export'}; without a summary: second (")
    [exported] = read_summaries([tmp_path / "export"])
    assert exported.values == summary_values(0) and exported.place.endswith("tiny-s0-tiny0000.json")
    with pytest.raises(InputError, match="no experiment 'absent'.*tests"):
        compare("absent", uri, tmp_path)
    with pytest.raises(InputError, match=r"does not exist; create .*nowhere"):
        make_tracker("mlflow", tmp_path / "x", uri=f"sqlite:///{tmp_path}/nowhere/m.db").start("a", {}, {})
    with pytest.raises(InputError, match="cannot open the store"):
        make_tracker("mlflow", tmp_path / "x", uri=f"file://{tmp_path}/files").start("a", {}, {})
