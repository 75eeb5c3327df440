"""Embedding a photo collection shard by shard: the work of one process, wherever it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sketchynet.config import StudentConfig, load_recipe
from sketchynet.data.collection import PhotoCollection, read_many
from sketchynet.data.embeddings import ShardFolder
from sketchynet.errors import InputError
from sketchynet.stages.copies import ONCE, PhotoCopies
from sketchynet.stages.embedding import EmbeddingNetwork, embed_images
from sketchynet.stages.networks import read_embedder, read_full_network
from sketchynet.stages.run_folder import RunFolder, existing_run
from sketchynet.stages.search_head import searched
from sketchynet.storage import is_local, storage_place


@dataclass(frozen=True)
class PhotoInput:
    """How a photo becomes the input of a network: as in the training that the network comes from."""

    decoded: int
    """Side to which photos are decoded (``data.photo_size``)."""
    size: int
    """Side that the network sees."""
    fit: bool
    """Whether product photos are cropped to the object and fitted into the frame."""
    copies: PhotoCopies = ONCE
    """In which each is stored, as consecutive rows."""


class Found(NamedTuple):
    """A trained network with what embedding needs to know of it."""

    network: EmbeddingNetwork
    photos: PhotoInput
    about: dict[str, Any]
    """For the record: where the network lies, and a hash of its weights."""


def find_network(where: str | Path, name: str = "student", *, photo_size: int | None = None) -> Found:
    """The network of a finished run, or of a checkpoint folder, in evaluation mode.

    Args:
        where: folder (or URL) of a run; or of one checkpoint, whose run is found above it, or else ``photo_size`` is needed.
        name: of a run: ``student``, ``direct`` or ``full``.
    """
    place = storage_place(str(where))
    if is_local(place):
        place = place.resolve()
    if (place / "network.safetensors").is_file():
        run = next((RunFolder(folder) for folder in list(place.parents)[:2] if RunFolder(folder).recipe.is_file()), None)
        folders, full = [place], False
    else:
        if not any((place / name).is_file() for name in ("recipe.json", "storage.json")):
            raise InputError(f"{where} is neither a run (no recipe.json) nor a checkpoint (no network.safetensors)")
        run = existing_run(str(place), None)
        recipe, full = load_recipe(run.recipe), name == "full"
        names = list(map(run.teacher, range(recipe.teacher.members))) if full else [name]
        folders = [searched(recipe, run, stage) for stage in names]
    missing = next((folder for folder in folders if not (folder / "network.safetensors").is_file()), None)
    if missing is not None:
        raise InputError(f"{where} has no finished network {missing.parent.name!r}; let `sketchynet train --resume` finish it")
    if run is None and photo_size is None:
        raise InputError(f"{where} lies in no run that tells its photo size; give --photo-size")
    flip, photos = False, None
    if run is not None:
        recipe = load_recipe(run.recipe)
        if recipe.recognition is not None:
            raise InputError(f"{run.root} is a run of recognition: its networks were never shown a photo")
        teacher = full or place.parent.name.startswith("teacher-")
        flip = full and recipe.searches_mirrored
        size = photo_size or (recipe.teacher.canvas if teacher else _photo_size(recipe.student, run))
        photos = PhotoInput(recipe.data.photo_size, size, bool(recipe.data.options.get("fit_photos", False)), PhotoCopies.of(recipe))
    elif photo_size is not None:
        photos = PhotoInput(photo_size, photo_size, False)
    assert photos is not None
    digest = hashlib.sha256(bytes([flip]))
    for folder in folders:
        digest.update((folder / "network.safetensors").read_bytes())
    network = read_full_network(folders, flip=flip) if full else read_embedder(folders[0])
    about = {"weights": digest.hexdigest()[:16], "dim": network.dim, "photo_size": photos.size,
             "decoded_size": photos.decoded, "fit_photos": photos.fit, "copies": asdict(photos.copies) | {"count": photos.copies.count}}
    return Found(network, photos, about)


def _photo_size(student: StudentConfig, run: RunFolder) -> int:
    sizes = dict(zip(student.canvases, student.gallery_sizes, strict=True))
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{size} for sketches at {canvas}" for canvas, size in sizes.items())
        raise InputError(
            f"{run.root} searches each canvas among photos of its own size ({listed}): embed the photos once for each, into a "
            "folder of its own, with --photo-size"
        )
    return student.gallery_sizes[0]


@dataclass(frozen=True)
class Shard:
    """What one shard came to."""

    number: int
    photos: int
    skipped: list[list[str]]
    """[id, message] of every photo that could not be read."""


@dataclass(frozen=True)
class EmbeddingJob:
    """Everything a process needs to make any shard; picklable."""

    network: EmbeddingNetwork
    photos: PhotoInput
    collection: PhotoCollection
    folder: ShardFolder
    shard_size: int
    skip_bad: bool

    @property
    def shards(self) -> int:
        """Shards of the whole collection."""
        return -(-len(self.collection.ids) // self.shard_size)

    def ids(self, number: int) -> tuple[str, ...]:
        """The photos of a shard."""
        return self.collection.ids[number * self.shard_size : (number + 1) * self.shard_size]

    def read(self, number: int) -> tuple[np.ndarray, list[str], list[list[str]]]:
        """Decoded photos of a shard, their ids, and the faults of the others."""
        return read_many(self.collection, self.ids(number), self.photos.decoded, fit=self.photos.fit)

    def write(self, number: int, photos: np.ndarray, ids: list[str], skipped: list[list[str]]) -> Shard:
        """Embeds a decoded shard and writes it; with a fault that may not be skipped nothing is written."""
        if self.skip_bad or not skipped:
            copies = self.photos.copies
            embeddings = embed_images(self.network, photos, self.photos.size, copies).flatten(0, -2).numpy()
            rows = [id for id in ids for _ in range(copies.count)]
            bad = ~np.isfinite(embeddings).all(axis=1)
            if bad.any():
                raise InputError(f"the embedding of {rows[int(bad.argmax())]} is not finite: the network has diverged")
            self.folder.write(number, embeddings, rows, skipped)
        return Shard(number, len(ids), skipped)


def embed_here(job: EmbeddingJob, numbers: list[int]) -> Iterator[Shard]:
    """Makes shards in this process, the next one decoded while one is embedded."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        upcoming = reader.submit(job.read, numbers[0]) if numbers else None
        for place, number in enumerate(numbers):
            assert upcoming is not None
            photos, ids, skipped = upcoming.result()
            if place + 1 < len(numbers):
                upcoming = reader.submit(job.read, numbers[place + 1])
            yield job.write(number, photos, ids, skipped)
