"""Pictures: right files, right marks where they can be read back, clear errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sketchynet import plots
from sketchynet.errors import InputError

FRAME_GREEN = (0, 158, 115)


def points() -> list[dict[str, Any]]:
    fixed = [{"label": str(canvas), "gflops": cost, "accuracy": share, "low": share - 0.05, "high": share + 0.05,
              "group": "v1"} for canvas, cost, share in ((32, 0.01, 0.2), (64, 0.05, 0.27), (256, 0.8, 0.3))]
    return [*fixed, {"label": "V2", "gflops": 0.1, "accuracy": 0.3, "group": "v2"},
            {"label": "oracle", "gflops": 0.1, "accuracy": 0.4, "low": None, "high": None, "group": "oracle"},
            {"label": "other", "gflops": 3.0, "accuracy": 0.1, "group": "something else"}]


def colours(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return set(map(tuple, np.unique(pixels, axis=0).tolist()))


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def test_accuracy_flops_plot_shows_every_group(tmp_path: Path) -> None:
    path = plots.accuracy_flops_plot(points(), tmp_path / "new" / "plot.png", "title")
    assert {rgb(plots.BLUE), rgb(plots.VERMILLION), rgb(plots.GREEN), rgb(plots.SKY)} <= colours(path)
    assert [item.name for item in path.parent.iterdir()] == ["plot.png"]


def test_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    first = plots.accuracy_flops_plot(points(), tmp_path / "a.png", "title").read_bytes()
    assert first == plots.accuracy_flops_plot(points(), tmp_path / "b.png", "title").read_bytes()


@pytest.mark.parametrize("wrong", [{"gflops": 0.0}, {"gflops": float("inf")}, {"accuracy": float("nan")}])
def test_a_point_that_cannot_be_drawn_is_named(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="point '32'"):
        plots.accuracy_flops_plot([{**points()[0], **wrong}], tmp_path / "a.png", "title")
    assert not list(tmp_path.iterdir())


def test_one_point_and_zero_accuracy_are_fine(tmp_path: Path) -> None:
    point = {"label": "full", "gflops": 40.18, "accuracy": 0.0, "group": "full"}
    assert plots.accuracy_flops_plot([point], tmp_path / "a.png", "title").stat().st_size > 0


def test_canvas_histogram(tmp_path: Path) -> None:
    assert rgb(plots.BLUE) in colours(plots.canvas_histogram([32, 64], [3, 1], tmp_path / "a.png"))
    plots.canvas_histogram([32, 64], [0, 0], tmp_path / "empty.png")
    with pytest.raises(InputError, match="2 canvases but 1 counts"):
        plots.canvas_histogram([32, 64], [3], tmp_path / "b.png")


def test_retrieval_sheet_frames_the_true_photo(tmp_path: Path) -> None:
    grey = np.full((20, 30, 3), 128, np.uint8)
    sketch = np.zeros((8, 8), np.uint8)
    sketch[2:6, 3] = 255
    row = {"sketch": sketch, "photos": [grey, grey], "rank": 2, "correct": [False, True], "label": "a_1"}
    found = colours(plots.retrieval_sheet([row], tmp_path / "found.png"))
    assert FRAME_GREEN in found and (0, 0, 0) in found and (128, 128, 128) in found
    missed = {**row, "rank": 9, "correct": [False, False]}
    assert FRAME_GREEN not in colours(plots.retrieval_sheet([missed], tmp_path / "missed.png"))
    with pytest.raises(InputError, match="a_1: 2 photos but 1 marks"):
        plots.retrieval_sheet([{**row, "correct": [True]}], tmp_path / "a.png")
    with pytest.raises(InputError, match="at least one query"):
        plots.retrieval_sheet([], tmp_path / "a.png")


def test_sheet_by_canvas(tmp_path: Path) -> None:
    groups = {64: [np.zeros((64, 64), np.uint8)] * 3, 32: [np.full((32, 32), 255, np.uint8)], 128: []}
    path = plots.sheet_by_canvas(groups, tmp_path / "a.png", counts={32: 1, 64: 1200, 128: 0}, columns=2)
    assert (0, 0, 0) in colours(path)
    with pytest.raises(InputError, match="at least one sketch"):
        plots.sheet_by_canvas({32: []}, tmp_path / "b.png")


def test_training_curves_read_journal_rows(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"kind": "run_start"}]
    rows += [{"kind": "metrics", "stage": stage, "step": step, "values": {"loss": 1 / (step + 1), "odd": "nan"}}
             for stage in ("teacher-0", "student") for step in range(3)]
    rows.append({"kind": "metrics", "stage": "evaluate", "step": 0, "values": {"test/v2/acc1": 0.5}})
    assert {rgb(plots.BLUE), rgb(plots.VERMILLION)} <= colours(plots.training_curves(rows, tmp_path / "a.png"))
    with pytest.raises(InputError, match="at least two steps"):
        plots.training_curves(rows[:2], tmp_path / "b.png")


def test_recognition_sheet_shows_what_was_found(tmp_path: Path) -> None:
    sketch = np.zeros((32, 32), np.uint8)
    sketch[8:24, 15:17] = 255
    rows = [
        {"sketch": sketch, "truth": "line", "found": [("line", 0.6), ("rake", 0.2), ("knife", 0.1)]},
        {"sketch": sketch[::2, ::2], "truth": "The Eiffel Tower", "found": [("line", 0.6), ("knife", 0.3)]},
    ]
    path = plots.recognition_sheet(rows, tmp_path / "sheet.png", columns=2)
    assert {FRAME_GREEN, (213, 94, 0)} <= colours(path)  # one right, one wrong
    with pytest.raises(InputError, match="at least one sketch"):
        plots.recognition_sheet([], tmp_path / "none.png")
