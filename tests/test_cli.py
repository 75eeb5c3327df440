"""The real commands at tiny size."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small import small_recipe

from sketchynet.cli import main


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.json"
    path.write_text(small_recipe().model_dump_json())
    return path


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that ran to its end in this process, tracked in a journal."""
    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "small.json"
    recipe.write_text(small_recipe().model_dump_json())
    run = folder / "run"
    assert main(["train", str(recipe), "--output", str(run), "--track", "jsonl", "--cache", str(folder / "cache")]) == 0
    return run


def test_pipeline_leaves_the_whole_story(finished_run: Path) -> None:
    summary = json.loads((finished_run / "evaluation.json").read_text())
    assert {"full", "direct@16", "direct@32", "v1@16", "v1@32", "v2", "mixture", "shuffled", "oracle"} <= set(
        summary["systems"]
    )
    assert summary["queries_count"] == 20 and sum(summary["canvas_counts"]) == 20
    v2, largest = (summary["systems"][name]["all"] for name in ("v2", "v1@32"))
    assert v2["parameters"] > largest["parameters"]
    pictures = {"accuracy_flops.png", "canvases.png", "retrieval.png", "by_canvas.png", "training.png", "failures.png"}
    assert pictures == {p.name for p in (finished_run / "pictures").iterdir()}
    kinds = [json.loads(line)["kind"] for line in (finished_run / "reports.jsonl").read_text().splitlines()]
    assert kinds[0] == "run_start" and kinds[-1] == "run_end" and "artifact" in kinds
    assert "SketchyNetV2" in (finished_run / "table.txt").read_text()


def test_resume_of_a_finished_run_trains_nothing(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = finished_run / "student" / "final" / "network.safetensors"
    before = (weights.stat().st_mtime_ns, (finished_run / "table.txt").read_text())
    cache = str(finished_run.parent / "cache")
    assert main(["train", "--resume", str(finished_run), "--track", "jsonl", "--cache", cache]) == 0
    assert before == (weights.stat().st_mtime_ns, (finished_run / "table.txt").read_text())
    assert "SketchyNetV2" in capsys.readouterr().out


def test_a_queued_job_goes_on_with_its_own_run_alone(
    finished_run: Path, recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = finished_run / "student" / "final" / "network.safetensors"
    before = weights.stat().st_mtime_ns
    command = ["train", str(recipe_file), "--output", str(finished_run), "--track", "none"]
    command += ["--cache", str(finished_run.parent / "cache")]
    assert main(command) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert main([*command, "--or-resume", "--set", "seed=1"]) == 2
    assert "a run of another recipe" in capsys.readouterr().err
    assert main([*command, "--or-resume"]) == 0
    assert weights.stat().st_mtime_ns == before and "SketchyNetV2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "give a RECIPE"),
        (["train", "demmo"], "did you mean 'demo'"),
        (["train", "demo", "--set", "student.optimization.epoch=1"], "did you mean 'epochs'"),
        (["train", "qmul_v1", "--track", "none", "--data", "/nowhere"], "/nowhere: there is no such folder"),
        (["train", "--resume", "/nowhere"], "there is no run (no /nowhere/recipe.json)"),
        (["train", "demo", "--stage", "student", "--track", "none", "--output", "OUT"], "run --stage teacher first"),
        (["train", "demo", "--jobs", "2", "--workers", "2"], "--workers 2 each of them on Ray: give one"),
        (["train", "demo", "--jobs", "0"], "--jobs 0: give at least 1"),
    ],
)
def test_bad_input_is_one_message_and_status_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe_file: Path
) -> None:
    given = [str(tmp_path / "out") if a == "OUT" else a for a in arguments]
    if "--stage" in given:
        given[1] = str(recipe_file)
    if given[0] == "train" and "--output" not in given and "--resume" not in given:
        given += ["--output", str(tmp_path / "out")]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("sketchynet: ") and "Traceback" not in error


def test_a_checkpoint_that_cannot_be_written_is_named(
    finished_run: Path, recipe_file: Path, tmp_path: Path
) -> None:
    """The kernel refuses to write past a file size: what a full disk does, for real."""
    run = tmp_path / "run"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))

    command = [sys.executable, "-m", "sketchynet.cli", "train", str(recipe_file), "--output", str(run)]
    command += ["--track", "none", "--cache", str(finished_run.parent / "cache")]
    ended = subprocess.run(
        command, preexec_fn=limit, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 2, ended.stderr
    assert "could not write" in ended.stderr and "--resume" in ended.stderr and "Traceback" not in ended.stderr
    assert not [p for p in run.rglob("*") if p.name.startswith(".")]
    assert not list(run.rglob("network.safetensors"))


def test_another_architectures_checkpoint_is_refused(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    broken = tmp_path / "run"
    shutil.copytree(finished_run, broken)
    shutil.copy(broken / "teacher-0/final/network.safetensors", broken / "student/final/network.safetensors")
    assert main(["evaluate", str(broken), "--cache", str(finished_run.parent / "cache")]) == 2
    assert "holds another architecture than AsymmetricEmbedder" in capsys.readouterr().err


def test_flops_prints_the_papers_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flops"]) == 0
    printed = capsys.readouterr().out
    for figure in ("40.18 G", "0.833 G", "14,714,688", "2,223,872", "52,356", "2,276,228"):
        assert figure in printed


def test_recipes_are_listed_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    assert "qmul_v1" in capsys.readouterr().out
    assert main(["recipes", "demo"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "demo"
