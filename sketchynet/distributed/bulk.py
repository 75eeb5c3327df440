"""Bulk embedding with Ray Data: shards stream through workers that hold the network once each.

With GPUs, photos are decoded by tasks on all CPUs of the cluster and travel to the workers through the object store;
Ray Data holds the readers back when the workers fall behind. Without, a worker reads its shards itself. Every shard
is written by the worker that made it: nothing but its number of photos and the skipped ones return.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import torch

from sketchynet.distributed.cluster import prepare_cluster
from sketchynet.errors import InputError
from sketchynet.stages.bulk import EmbeddingJob, Shard

import ray  # isort: skip  (after session, which sets Ray's environment)
import ray.data  # isort: skip
from ray.exceptions import RayTaskError  # isort: skip

__all__ = ["embed_on_ray"]


class _Reader:
    """Decodes shards."""

    def __init__(self, job: Any) -> None:
        self._job: EmbeddingJob = ray.get(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        photos, ids, skipped = self._job.read(int(row["item"]))
        # Text, because lists that are empty in one shard and full in another have no common type in Arrow.
        return {"item": row["item"], "photos": photos, "names": json.dumps([ids, skipped])}


class _Embedder:
    """Embeds and writes shards, decoded ones or those it decodes itself."""

    def __init__(self, job: Any, gpu: bool) -> None:
        torch.set_num_threads(1)  # the workers themselves fill the cores
        self._job: EmbeddingJob = ray.get(job)
        self._job.network.to("cuda" if gpu else "cpu")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = int(row["item"])
        photos, ids, skipped = (row["photos"], *json.loads(row["names"])) if "photos" in row else self._job.read(number)
        made = self._job.write(number, photos, ids, skipped)
        return {"number": made.number, "photos": made.photos, "skipped": json.dumps(made.skipped)}


def embed_on_ray(
    job: EmbeddingJob, numbers: list[int], *, workers: int, gpu: bool = False, apart: bool | None = None
) -> Iterator[Shard]:
    """Makes shards with ``workers`` processes and yields them as they are done, in any order.

    apart: whether photos are decoded apart from the workers; by default with GPUs. Raises InputError as the workers do.
    """
    prepare_cluster(workers, gpu=gpu)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the driver shows its own, in photos
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    held = ray.put(job)  # once, however many workers read it
    rows: Any = ray.data.from_items(numbers, override_num_blocks=max(1, len(numbers)))
    if gpu if apart is None else apart:
        spare = int(ray.cluster_resources().get("CPU", 1)) - (0 if gpu else workers)
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, spare))
        rows = rows.map(_Reader, fn_constructor_args=(held,), num_cpus=1, compute=pool)
    resources = {"num_gpus": 1, "num_cpus": 0} if gpu else {"num_cpus": 1}
    pool = ray.data.ActorPoolStrategy(size=workers)
    made = rows.map(_Embedder, fn_constructor_args=(held, gpu), compute=pool, **resources)
    try:
        for row in made.iter_rows():
            yield Shard(int(row["number"]), int(row["photos"]), json.loads(row["skipped"]))
    except RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from error
        raise
