"""A trained network over a photo collection: the gallery of a large search, in shards that survive interruptions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sketchynet.data.collection import list_photos
from sketchynet.data.embeddings import ShardFolder
from sketchynet.errors import InputError
from sketchynet.stages.bulk import EmbeddingJob, Shard, embed_here, find_network


def embed_collection(
    place: str | Path,
    photos: str,
    output: str,
    *,
    network: str = "student",
    photo_size: int | None = None,
    shard_size: int = 1024,
    workers: int = 0,
    gpu: bool = False,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Embeds all photos of a place into shards and returns the manifest; shards that are there stay.

    Args:
        place: folder or URL of a run or a checkpoint. photos, output: paths or URLs that fsspec reads and writes.
        network: of a run: ``student``, ``direct`` or ``full``. workers: 0 for this process, else on Ray.

    Raises:
        InputError: names the photo that cannot be read (with ``skip_bad`` it is left out and listed), the network that
            is not finished, or the place that cannot be written; finished shards are kept.
    """
    if shard_size < 1 or workers < 0:
        raise InputError(f"--shard-size {shard_size} and --workers {workers}: at least 1 and at least 0 are needed")
    found = find_network(place, network, photo_size=photo_size)
    collection = list_photos(photos)
    folder = ShardFolder(output)
    about = found.about | {"photos": collection.root, "count": len(collection.ids), "ids_hash": collection.fingerprint,
                           "shard_size": shard_size, "skip_bad": skip_bad}
    folder.begin(about)
    job = EmbeddingJob(found.network, found.photos, collection, folder, shard_size, skip_bad)
    done = folder.done()
    todo = [number for number in range(job.shards) if number not in done]
    finished = sum(len(job.ids(number)) for number in done if number < job.shards)
    began, embedded = time.monotonic(), 0
    with tqdm(total=len(collection.ids), initial=finished, desc="embedding", unit="photo", dynamic_ncols=True) as bar:
        for shard in _made(job, todo, workers, gpu):
            if shard.skipped and not skip_bad:
                message = shard.skipped[0][1]
                more = f" ({len(shard.skipped)} such in its shard)" if len(shard.skipped) > 1 else ""
                raise InputError(f"{message}{more}; --skip-bad leaves such photos out and lists them")
            embedded += shard.photos
            bar.update(len(job.ids(shard.number)))
    manifest = folder.finish(about, job.shards)
    return manifest | {"embedded": embedded, "seconds": time.monotonic() - began, "shards": job.shards}


def _made(job: EmbeddingJob, numbers: list[int], workers: int, gpu: bool) -> Iterator[Shard]:
    if not numbers:
        return iter(())
    if workers == 0:
        if gpu:
            import torch

            if not torch.cuda.is_available():
                raise InputError("--gpu was given, but torch finds no CUDA device; leave it out or install a CUDA torch")
            job.network.to("cuda")
        return embed_here(job, numbers)
    from sketchynet.distributed.bulk import embed_on_ray  # Ray is needed only where workers are asked for

    return embed_on_ray(job, numbers, workers=workers, gpu=gpu)
