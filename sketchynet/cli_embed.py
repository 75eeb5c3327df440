"""The command ``sketchynet embed``: parses, calls, prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def add_embed_command(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds ``embed`` to the command line."""
    embed = command(commands, "embed", _embed, "embed a photo collection with a trained network, in resumable shards")
    embed.add_argument("network", metavar="RUN|CHECKPOINT", help="folder or URL of a finished run, or of a checkpoint")
    embed.add_argument("photos", metavar="PHOTOS", help="folder or URL with photos, or a .txt list of them")
    embed.add_argument("--out", required=True, metavar="DIR", help="folder or URL for the shards; again: goes on with it")
    embed.add_argument(
        "--use", choices=("student", "direct", "full"), default="student", help="network of the run (default student)"
    )
    embed.add_argument("--photo-size", type=int, metavar="N", help="side of the photos (default: as in training)")
    embed.add_argument("--shard-size", type=int, default=1024, metavar="N", help="photos in a shard (default 1024)")
    embed.add_argument("--workers", type=int, default=0, metavar="N", help="0: in this process; N: with Ray Data")
    embed.add_argument("--gpu", action="store_true", help="embed on CUDA, one GPU a worker")
    embed.add_argument("--skip-bad", action="store_true", help="leave out photos that cannot be read, counted and listed")


def _embed(options: argparse.Namespace) -> None:
    from sketchynet.bulk import embed_collection

    made = embed_collection(
        options.network,
        options.photos,
        options.out,
        network=options.use,
        photo_size=options.photo_size,
        shard_size=options.shard_size,
        workers=options.workers,
        gpu=options.gpu,
        skip_bad=options.skip_bad,
    )
    rate = f", {made['embedded'] / made['seconds']:,.0f} photos a second, start-up included" if made["embedded"] else ""
    print(f"{sum(made['rows']):,} embeddings of {made['dim']} numbers in {made['shards']:,} shards: {options.out}")
    print(f"embedded now: {made['embedded']:,}{rate}")
    for id, message in made["skipped"][:10]:
        print(f"skipped {id}: {message}")
    if len(made["skipped"]) > 10:
        print(f"… {len(made['skipped']):,} skipped in all, listed in manifest.json")
