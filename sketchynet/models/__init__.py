"""Networks: backbones, embedders and the canvas selector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sketchynet.errors import InputError
from sketchynet.models.asymmetric import AsymmetricEmbedder
from sketchynet.models.backbones import BACKBONES, Backbone, build_backbone
from sketchynet.models.embedder import (
    CANVASES,
    Classifier,
    Embedder,
    Ensemble,
    embedder_from_config,
)
from sketchynet.models.grey import GreyStem, fold_grey_stem
from sketchynet.models.inputs import photo_input, sketch_input
from sketchynet.models.norm import NORMS, PrivateBatchNorm
from sketchynet.models.search_head import SearchHead
from sketchynet.models.selector import CanvasSelector, selector_input
from sketchynet.models.weights import load_backbone_weights

__all__ = [
    "BACKBONES",
    "CANVASES",
    "NORMS",
    "AsymmetricEmbedder",
    "Backbone",
    "CanvasSelector",
    "Classifier",
    "Embedder",
    "Ensemble",
    "GreyStem",
    "PrivateBatchNorm",
    "SearchHead",
    "build_backbone",
    "build_from_config",
    "fold_grey_stem",
    "load_backbone_weights",
    "photo_input",
    "selector_input",
    "sketch_input",
]


def build_from_config(config: Mapping[str, Any]) -> Embedder | Ensemble | CanvasSelector:
    """Build the network, with random weights, whose `config` attribute this is."""
    kind = config.get("kind")
    if kind not in ("asymmetric", "selector"):
        return embedder_from_config(config)
    options = {key: value for key, value in config.items() if key != "kind"}
    try:
        return AsymmetricEmbedder(**options) if kind == "asymmetric" else CanvasSelector(**options)
    except TypeError as error:
        raise InputError(f"{kind} configuration {dict(config)} does not fit this version: {error}") from error
