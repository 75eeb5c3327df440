"""Ray workers share the shards of a flat set; recognition trains on two of them."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sketchynet.data.flat import FlatSketches
from sketchynet.data.flat_writer import FlatWriter
from sketchynet.sketch import Sketch, SketchBatch


def _count(flat: FlatSketches, rank: int, world_size: int) -> tuple[int, int]:
    """Drawings and points that one reader meets."""
    batches = [batch for batch, _ in flat.shards(rank, world_size)]
    return sum(map(len, batches)), sum(len(batch.points) for batch in batches)


def test_ray_workers_read_their_shards_from_the_path_alone(ray_session: ModuleType, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    with FlatWriter(tmp_path / "set", name="test", source="s", shard=5) as writer:
        for first in range(0, 40, 5):
            drawings = [Sketch.from_strokes([generator.random((4, 2))], f"d{first + n}") for n in range(5)]
            writer.append(SketchBatch.from_sketches(drawings), ["cat"] * 5, first)
        flat = writer.finish()
    import sys

    ray_session.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        count = ray_session.remote(num_cpus=1)(_count)
        parts = ray_session.get([count.remote(flat, rank, 3) for rank in range(3)])
    finally:
        ray_session.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert [drawings for drawings, _ in parts] == [15, 15, 10]
    assert sum(points for _, points in parts) == 160


@pytest.mark.slow
def test_two_workers_and_two_actors_train_recognition(ray_session: ModuleType, tmp_path: Path) -> None:
    from stages.test_recognition import WORDS, recipe, write_words

    from sketchynet.cli import main

    write_words(tmp_path / "data" / "quickdraw", 16)
    file, run = tmp_path / "small.json", tmp_path / "run"
    file.write_text(recipe().model_dump_json())
    places = ["--data", str(tmp_path / "data"), "--cache", str(tmp_path / "cache"), "--track", "jsonl"]
    assert main(["train", str(file), "--output", str(run), "--workers", "2", *places]) == 0
    summary = json.loads((run / "evaluation.json").read_text())
    assert summary["task"] == "recognition" and summary["gallery_count"] == len(WORDS)
