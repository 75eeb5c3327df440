"""The search head of a trained network, computed from the training pairs that it was fitted on.

Shapes: N training sketches, each beside its photo, P photo sizes, C size of what a network gives, in parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from sketchynet import checkpoint
from sketchynet.config import Recipe, SearchConfig
from sketchynet.data.pairs import PairedSet
from sketchynet.errors import InputError
from sketchynet.models import Embedder, SearchHead
from sketchynet.models.backbones import level_sizes
from sketchynet.raster import rasterize
from sketchynet.stages.batches import clean_photos
from sketchynet.stages.copies import PhotoCopies
from sketchynet.stages.distillation import principal_directions
from sketchynet.stages.embedding import in_chunks
from sketchynet.stages.networks import read_embedder
from sketchynet.stages.ranks import validation_score
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import Report, Runtime, agreed, spread

_DRAWN = 4207


def searched(recipe: Recipe, folder: RunFolder, name: str) -> Path:
    """The checkpoint of a network as it is searched with: the trained one, or that with its search head."""
    return folder.search(name) if recipe.search.head else folder.final(name)


def check_levels(recipe: Recipe) -> None:
    """Raises InputError, naming the setting, where a network lacks levels that it is to be trained on or searched by."""
    for name, stage in (("teacher", recipe.teacher), ("student", recipe.student)):
        asked = {f"{name}.ranking.levels": stage.ranking.levels}
        if recipe.search.head:
            asked["search.levels"] = recipe.search.levels
        for key, levels in asked.items():
            try:
                level_sizes(stage.network.backbone, levels, recipe.search.fields)
            except InputError as error:
                raise InputError(f"{key} of {name}.network: {error}; or set {key}=[]") from None


def add_search_head(
    recipe: Recipe,
    pairs: PairedSet,
    runtime: Runtime,
    folder: RunFolder,
    name: str,
    *,
    sketches: np.ndarray,
    canvases: Sequence[int],
    photo_sizes: Sequence[int],
    mirrored: bool = False,
) -> None:
    """Writes a finished network once more, with its search head, to ``folder.search(name)``; skipped where it lies there.

    Args:
        sketches: int64, those that the network was fitted on.
        canvases: at which it is searched with; of several that share a photo size, each takes its part of the sketches.
        photo_sizes: the size of the photos for each canvas.
        mirrored: whether it is asked about mirror images too.
    """
    target = folder.search(name)
    if agreed(runtime, checkpoint.is_complete(target)):
        return
    network = read_embedder(folder.final(name)).to(runtime.device)
    settings = recipe.search
    if settings.levels:
        network.add_levels(settings.levels, settings.fields)
    rows = sketches
    if len(rows) > settings.sketches:
        generator = np.random.default_rng([recipe.seed, _DRAWN])
        rows = np.sort(generator.choice(rows, settings.sketches, replace=False))
    runtime.report(Report(name, "notice", payload={"text": f"{name}: search head from {len(rows)} training sketches"}))
    sizes = sorted(set(photo_sizes))
    sides = (False, True) if mirrored else (False,)
    shown: list[list[torch.Tensor]] = [[], []]
    for size in sizes:
        own = [canvas for canvas, other in zip(canvases, photo_sizes, strict=True) if other == size]
        for table, embed in zip(shown, (_sketches(network, pairs, own), _photos(network, pairs, size)), strict=True):
            table.append(torch.cat([_embedded(runtime, rows, embed, side) for side in sides]))
    if runtime.rank == 0:
        try:
            head = search_head(torch.stack(shown[0]), torch.stack(shown[1]), sizes, settings, parts=network.parts)
        except InputError as error:
            raise InputError(f"{name}, the search head: {error}") from None
        network.add_search_head(head)
        network.to(runtime.device)
        metrics = validation_score(
            network, pairs, canvases=tuple(canvases), photo_sizes=tuple(photo_sizes), copies=PhotoCopies.of(recipe)
        )
        checkpoint.remove_partial(folder.stage(name))
        checkpoint.write_checkpoint(target, network=network.state_dict(), config=network.config, metrics=metrics)
    runtime.barrier()


_Embed = Callable[[np.ndarray, bool], torch.Tensor]
"""Sketch numbers, and whether mirrored: float32 (n, C)."""


def _embedded(runtime: Runtime, rows: np.ndarray, embed: _Embed, mirrored: bool) -> torch.Tensor:
    return torch.cat([found for _, (found,) in spread(runtime, rows, lambda own: (embed(own, mirrored),))])


def _sketches(network: Embedder, pairs: PairedSet, canvases: list[int]) -> _Embed:
    """Each sketch at one of some canvases: which one depends on its number alone, however the work is divided."""

    def embed(rows: np.ndarray, mirrored: bool) -> torch.Tensor:
        result: torch.Tensor | None = None
        for place, canvas in enumerate(canvases):
            mine = np.flatnonzero(rows % len(canvases) == place)

            def chunk(part: np.ndarray, device: torch.device, mine=mine, canvas=canvas) -> tuple[torch.Tensor]:
                drawn = torch.from_numpy(rasterize(pairs.sketches.select(rows[mine[part]]), canvas))
                return (network.embed_sketches((drawn.flip(2) if mirrored else drawn).to(device)),)

            found = in_chunks(network, len(mine), chunk)[0]
            result = found.new_zeros(len(rows), found.shape[1]) if result is None else result
            result[torch.from_numpy(mine)] = found
        assert result is not None
        return result

    return embed


def _photos(network: Embedder, pairs: PairedSet, size: int) -> _Embed:
    """The photo of each sketch."""

    def embed(rows: np.ndarray, mirrored: bool) -> torch.Tensor:
        photos, place = np.unique(pairs.sketch_photo[rows], return_inverse=True)

        def chunk(part: np.ndarray, device: torch.device) -> tuple[torch.Tensor]:
            images = clean_photos(pairs, photos[part], size)
            return (network.embed_photos((images.flip(2) if mirrored else images).to(device)),)

        return in_chunks(network, len(photos), chunk)[0][torch.from_numpy(place)]

    return embed


def search_head(
    sketches: torch.Tensor,
    photos: torch.Tensor,
    photo_sizes: Sequence[int],
    settings: SearchConfig,
    *,
    parts: Sequence[int],
) -> SearchHead:
    """The head for pairs embedded at every photo size; a part's whitening is one for all sizes.

    Args:
        sketches: float32 (P, N, C), training sketches.
        photos: float32 (P, N, C), the photo of each.
        parts: sizes of the parts of the embedding, C together.
    """
    split = zip(sketches.split(list(parts), dim=2), photos.split(list(parts), dim=2), strict=True)
    layers = [_whitening(*(side.flatten(0, 1).double() for side in sides), settings=settings) for sides in split]
    head = SearchHead(
        parts,
        dimensions=[weight.shape[1] for weight, _ in layers],
        photo_sizes=photo_sizes,
        sketches=sketches.shape[1],
        neighbours=min(settings.neighbours, sketches.shape[1]),
    )
    with torch.no_grad():
        for layer, (weight, mean) in zip(head.whitening, layers, strict=True):
            assert isinstance(layer, torch.nn.Linear)
            layer.weight.copy_(weight.T)
            layer.bias.copy_(-(mean @ weight))
        if head.neighbours:
            head.bank.copy_(head(sketches.flatten(0, 1)).reshape(head.bank.shape))
    return head


def _whitening(
    sketches: torch.Tensor, photos: torch.Tensor, *, settings: SearchConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (size, kept) and mean (size,) that whiten a part of the embedding, float64.

    The weight is the symmetric root of the inverse of the mean second moment of (sketch − photo), shrunk, about the mean
    of all. Behind it the principal directions of the rows at unit length are kept.

    Args:
        sketches: float64 (n, size).
        photos: float64 (n, size), the photo of each.
    """
    size, rows = sketches.shape[1], torch.cat([sketches, photos])
    mean = torch.zeros(size, dtype=torch.float64)
    values, vectors, shrinkage = mean[:0], mean.new_zeros(size, 0), 1.0
    if settings.whitening is not None:
        mean = rows.mean(dim=0)
        differences = sketches - photos
        variance = float(differences.square().mean())
        if not 0 < variance < math.inf:
            raise InputError(
                f"sketches and their photos differ by {variance} in the mean square, which cannot be whitened: the network has "
                "collapsed or diverged; train it again with a lower learning rate, or set search.head=false"
            )
        values, vectors = _second_moment(differences)
        shrinkage = settings.whitening * variance
    # The root is a multiple of the identity but for the directions in which pairs differ, which may be far fewer than all.
    least = shrinkage**-0.5
    beyond = (values + shrinkage).rsqrt() - least

    def whitened(x: torch.Tensor) -> torch.Tensor:
        return least * x + (x @ vectors * beyond) @ vectors.T

    if settings.dimensions is None or settings.dimensions >= size:
        return whitened(torch.eye(size, dtype=torch.float64)), mean
    return whitened(principal_directions(F.normalize(whitened(rows - mean), dim=1), settings.dimensions).T).T, mean


def _second_moment(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues (r,) and eigenvectors (size, r) of the mean second moment of rows (n, size); those of value 0 may be left out.

    By the smaller of two matrices: a level of 512 channels in 4 x 4 fields has 8,192 numbers, and far fewer pairs to learn from.
    """
    if len(rows) >= rows.shape[1]:
        return torch.linalg.eigh(rows.T @ rows / len(rows))
    values, vectors = torch.linalg.eigh(rows @ rows.T / len(rows))
    found = values > 1e-12 * values.max()
    return values[found], F.normalize(rows.T @ vectors[:, found], dim=0)
