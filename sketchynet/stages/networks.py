"""Networks of a pipeline: made from a recipe, read back from checkpoints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from sketchynet import checkpoint
from sketchynet.config import NetworkConfig
from sketchynet.errors import InputError
from sketchynet.models import AsymmetricEmbedder, build_from_config
from sketchynet.models.embedder import Classifier, Embedder, Ensemble
from sketchynet.models.selector import CanvasSelector
from sketchynet.models.weights import load_backbone_weights

WEIGHTS_VARIABLE = "SKETCHYNET_WEIGHTS"
_Network = TypeVar("_Network", bound=nn.Module)
_Embedder = TypeVar("_Embedder", bound=Embedder)


def new_embedder(config: NetworkConfig, canvases: tuple[int, ...], weights_folder: Path | None) -> Embedder:
    """An embedder as the recipe describes it, with its backbone weights if it names any."""
    return _with_weights(Embedder(config.backbone, canvases=canvases, **_options(config)), config, weights_folder)


def new_asymmetric(
    config: NetworkConfig,
    canvases: tuple[int, ...],
    weights_folder: Path | None,
    *,
    photos: Embedder | Ensemble,
    reduction: torch.Tensor | None,
) -> AsymmetricEmbedder:
    """An embedder of sketches as the recipe describes it, beside a network that embeds the photos.

    Args:
        reduction: float32 (Dt, D), see `AsymmetricEmbedder`; None keeps the photos' embedding as it is.
    """
    dim = photos.dim if reduction is None else reduction.shape[1]
    network = AsymmetricEmbedder(config.backbone, canvases=canvases, photos=photos, dim=dim, **_options(config))
    if network.reduction is not None and reduction is not None:
        network.reduction.copy_(reduction)
    return _with_weights(network, config, weights_folder)


def new_classifier(
    config: NetworkConfig,
    canvases: tuple[int, ...],
    weights_folder: Path | None,
    *,
    classes: int,
    dropout: float,
) -> Classifier:
    """A classifier as the recipe describes it, with its backbone weights if it names any."""
    network = Classifier(
        config.backbone, canvases=canvases, classes=classes, dropout=dropout, **_options(config)
    )
    return _with_weights(network, config, weights_folder)


def _options(config: NetworkConfig) -> dict[str, Any]:
    return config.model_dump(include={"norm", "pooling", "normalize", "projection"})


def _with_weights(network: _Embedder, config: NetworkConfig, folder: Path | None) -> _Embedder:
    if config.weights is not None:
        load_backbone_weights(network, find_weights(config.weights, folder))
    return network


def find_weights(name: str, folder: Path | None) -> Path:
    """The file of that name in ``folder``, else in ``$SKETCHYNET_WEIGHTS``.

    Raises:
        InputError: there is no such file; says where it was looked for.
    """
    places = [Path(name)] if Path(name).is_absolute() else []
    if folder is not None:
        places.append(folder / name)
    elif WEIGHTS_VARIABLE in os.environ:
        places.append(Path(os.environ[WEIGHTS_VARIABLE]) / name)
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(str(p) for p in places) or "nowhere, since no folder was given"
    raise InputError(
        f"backbone weights {name!r} not found (looked at: {looked}); pass --weights DIR or set {WEIGHTS_VARIABLE}, "
        "or train from scratch with --set teacher.network.weights=null --set student.network.weights=null"
    )


def read_embedder(directory: Path) -> Embedder:
    """The trained embedder of a checkpoint, in evaluation mode."""
    return _read(directory, Embedder)


def read_selector(directory: Path) -> CanvasSelector:
    """The trained canvas selector of a checkpoint, in evaluation mode."""
    return _read(directory, CanvasSelector)


def read_full_network(members: list[Path], *, flip: bool) -> Ensemble | Embedder:
    """The full network: its one member, or its members joined."""
    networks = [read_embedder(directory) for directory in members]
    if len(networks) == 1 and not flip:
        return networks[0]
    return Ensemble(networks, flip=flip).eval()


def _read(directory: Path, kind: type[_Network]) -> _Network:
    config = checkpoint.read_checkpoint_json(directory, "config")
    network = build_from_config(config)
    if not isinstance(network, kind):
        raise InputError(
            f"{directory} holds a {type(network).__name__}, expected a {kind.__name__}; give the folder of that stage"
        )
    checkpoint.load_into(network, checkpoint.read_network(directory), place=str(directory))
    return network.eval()
