from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sketchynet import plots
from sketchynet.results import forest
from sketchynet.retrieval import Interval


def test_long_names_leave_room_for_the_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    @contextmanager
    def watched(*arguments: Any) -> Iterator[Any]:
        with plots.picture(*arguments) as figure:
            drawn.append(figure)
            yield figure

    monkeypatch.setattr(forest, "picture", watched)
    name = "EfficientNet-Lite0 (timm; its state_dict as tf_efficientnet_lite0.safetensors in --weights)"
    rows = [("short", Interval(0.1, 0.05, 0.15)), (name, Interval(-0.02, -0.1, 0.05))]
    path = forest.forest_plot(rows, tmp_path / "forest.png", title="experiment-of-some-name", reference=name)
    assert path.is_file()
    (axes,) = drawn[0].axes
    whole = drawn[0].bbox
    assert axes.get_window_extent().width > 0.5 * whole.width
    for text in (axes.title, axes.xaxis.label, *axes.get_yticklabels()):
        box = text.get_window_extent()
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1, text
