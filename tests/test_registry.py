"""A finished run as a version of an MLflow registered model, by the command itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small import small_recipe
from summaries import summary_values

from sketchynet import checkpoint
from sketchynet.cli import main
from sketchynet.config import parse_recipe
from sketchynet.models import CanvasSelector, Embedder, SearchHead
from sketchynet.results.card import model_card
from sketchynet.results.summary import SUMMARY_NAME, Summary
from sketchynet.stages.bulk import find_network
from sketchynet.stages.networks import read_embedder
from sketchynet.stages.run_folder import RunFolder
from sketchynet.tracking import make_tracker


def finished_run(root: Path) -> RunFolder:
    """What a run leaves that is registered: recipe, journal, summary, student and policy."""
    run = RunFolder(root)
    values = summary_values(0)
    root.mkdir()
    checkpoint.write_json(run.recipe, values["recipe"])
    checkpoint.write_json(root / SUMMARY_NAME, values)
    torch.manual_seed(0)
    for name, network in (("student", Embedder("vgg_tiny", canvases=(16, 32))), ("selector", CanvasSelector(2, 4, "ink"))):
        checkpoint.write_checkpoint(run.final(name), network=network.state_dict(), config=network.config, metrics={})
    tracker = make_tracker("jsonl", root)
    tracker.start("tiny", values["recipe"], {})
    tracker.end("FINISHED")
    return run


def test_a_run_becomes_one_version_with_its_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow", reason="the extra 'tracking' is not installed")
    from mlflow import MlflowClient

    run = finished_run(tmp_path / "run")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = ["track", "register", str(run.root), "--tracking-uri", uri]
    assert main(command) == 0
    assert f"registered as version 1 of 'tiny' in {uri}" in capsys.readouterr().out
    client = MlflowClient(tracking_uri=uri)
    [version] = client.search_model_versions("name = 'tiny'")
    assert version.tags == {"recipe": "tiny", "seed": "0", "run": summary_values(0)["run"]["id"]}
    assert version.description == model_card(Summary(summary_values(0), "here"))
    # What is fetched is laid out as a run: its networks are read as those of a run.
    fetched = Path(client.download_artifacts(version.run_id, "model", str(tmp_path)))
    assert (fetched / "README.md").read_text() == version.description
    assert parse_recipe(json.loads((fetched / "recipe.json").read_text()), place="fetched") == small_recipe("name=tiny")
    theirs, ours = (read_embedder(RunFolder(folder).final("student")) for folder in (fetched, run.root))
    sketches = torch.zeros(1, 16, 16, dtype=torch.uint8)
    assert torch.equal(theirs.eval().embed_sketches(sketches), ours.eval().embed_sketches(sketches))
    # Once a name; under another one it is another model.
    assert main(command) == 0 and "was registered before as version 1" in capsys.readouterr().out
    assert main([*command, "--name", "shoes"]) == 0 and "version 1 of 'shoes'" in capsys.readouterr().out
    assert len(client.search_model_versions()) == 2


def test_what_is_registered_is_searched_through_its_head(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="the extra 'tracking' is not installed")
    from mlflow import MlflowClient

    run = finished_run(tmp_path / "run")
    for path in (run.recipe, run.root / SUMMARY_NAME):
        values = json.loads(path.read_text())
        recipe = values.get("recipe", values)
        recipe["search"]["head"], recipe["student"]["gallery"] = True, "own"
        checkpoint.write_json(path, values)
    network = read_embedder(run.final("student"))
    network.add_search_head(SearchHead([network.dim], dimensions=[5], photo_sizes=(32,), sketches=4, neighbours=2))
    checkpoint.write_checkpoint(run.search("student"), network=network.state_dict(), config=network.config, metrics={})
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert main(["track", "register", str(run.root), "--tracking-uri", uri]) == 0
    client = MlflowClient(tracking_uri=uri)
    [version] = client.search_model_versions("name = 'tiny'")
    assert "`student/search`" in version.description
    fetched = Path(client.download_artifacts(version.run_id, "model", str(tmp_path)))
    assert find_network(fetched).network.dim == 6


def test_what_cannot_be_registered_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow", reason="the extra 'tracking' is not installed")
    uri = ["--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    run = finished_run(tmp_path / "run")
    (run.root / "reports.jsonl").unlink()
    assert main(["track", "register", str(run.root), *uri]) == 2
    assert "reports.jsonl" in capsys.readouterr().err
    (run.root / SUMMARY_NAME).unlink()
    assert main(["track", "register", str(run.root), *uri]) == 2
    assert SUMMARY_NAME in capsys.readouterr().err
    assert main(["track", "register", str(tmp_path / "none"), *uri]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_the_card_says_what_the_summary_says() -> None:
    values = summary_values(0, recipe=("selector.reads=ink", "teacher.members=2"))
    card = model_card(Summary(values, "here"))
    assert card.startswith("# SketchyNet: tiny, seed 0\n\nFor retrieval of photos by sketches: one ")
    assert "distilled from 2 " in card and "a map of how much ink lies where picks the canvas" in card
    assert "| SketchyNetV1 at 32 | 2.00 M | 0.1000 |" in card and "3 test queries, 4 to choose from" in card
    assert "commit aaaaaaa, 2 CPU cores" in card and "beside the full network for photos of 32" in card
    direct = summary_values(0, recipe=("student.gallery=own", "student.distillation.ranking_share=1"))
    assert "trained without a teacher" in model_card(Summary(direct, "here"))
    moved = summary_values(0, recipe=("student.gallery=own", "search.copy_shift=0.05"))
    assert "for photos of 32, each stored 5 times, distilled" in model_card(Summary(moved, "here"))
