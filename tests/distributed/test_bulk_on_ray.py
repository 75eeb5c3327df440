"""Bulk embedding with Ray Data makes the same shards as one process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sketchynet.data.collection import list_photos
from sketchynet.data.embeddings import ShardFolder
from sketchynet.models import Embedder
from sketchynet.stages.bulk import EmbeddingJob, PhotoInput, embed_here


def _job(photos: Path, out: Path, *, skip_bad: bool) -> EmbeddingJob:
    torch.manual_seed(0)
    network = Embedder("mobile_small", canvases=(32,)).eval()
    job = EmbeddingJob(network, PhotoInput(40, 32, False), list_photos(str(photos)), ShardFolder(str(out)), 7, skip_bad)
    job.folder.begin({})
    return job


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_shards_are_the_same_to_the_bit(ray_session, tmp_path: Path) -> None:
    from sketchynet.distributed.bulk import embed_on_ray

    photos = tmp_path / "photos"
    photos.mkdir()
    generator = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(generator.integers(0, 256, (30, 50, 3), dtype=np.uint8)).save(photos / f"{number:02d}.png")
    (photos / "03.png").write_bytes(b"torn")
    torch.set_num_threads(1)
    alone = _job(photos, tmp_path / "alone", skip_bad=True)
    made = {shard.number: shard for shard in embed_here(alone, list(range(alone.shards)))}
    for apart in (False, True):
        spread = _job(photos, tmp_path / f"spread-{apart}", skip_bad=True)
        shards = list(embed_on_ray(spread, list(range(spread.shards)), workers=1, apart=apart))
        assert {shard.number: shard for shard in shards} == made
        for number in range(alone.shards):
            name = f"shard-{number:05d}"
            assert (tmp_path / "alone" / f"{name}.npy").read_bytes() == (tmp_path / f"spread-{apart}" / f"{name}.npy").read_bytes()
            assert alone.folder.entries(number) == spread.folder.entries(number)
    strict = _job(photos, tmp_path / "strict", skip_bad=False)
    [bad] = [shard for shard in embed_on_ray(strict, [0, 1], workers=1) if shard.skipped]
    assert bad.skipped[0][0] == "03.png" and strict.folder.done() == {1}
