"""Backbone weights from published files, never through an unrestricted pickle."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sketchynet.errors import InputError
from sketchynet.models.backbones import TIMM_PREFIX, build_backbone
from sketchynet.models.embedder import Embedder
from sketchynet.models.norm import fold_norms, is_plain_state

# A key that gives a family away, most telling first.
_FAMILIES = (
    ("features.18.0.weight", "MobileNetV2"),
    ("features.3.squeeze.weight", "SqueezeNet"),
    ("features.28.weight", "VGG-16"),
    ("features.1.conv.0.0.weight", "a MobileNet of another depth"),
    ("layer1.0.conv1.weight", "a ResNet"),
    ("gru.weight_ih_l0", "a canvas selector"),
    ("members.0.backbone.features.0.weight", "an ensemble"),
    ("members.0.backbone.features.0.0.weight", "an ensemble"),
)
_SHOWN = 3  # keys named of each kind of mismatch


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file or of a torch file (weights only)."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights file {path} does not exist: give the path of a .safetensors or torch file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is not a whole safetensors file ({error}): fetch it again") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} is not a torch file of tensors alone ({reason}): save its state_dict as .safetensors"
        ) from error
    if isinstance(state, Mapping):
        for wrapper in ("state_dict", "model"):
            state = state[wrapper] if isinstance(state.get(wrapper), Mapping) else state
        tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise InputError(f"{path} holds no named tensors: save a network's state_dict")


def describe_state(state: Mapping[str, Tensor]) -> str:
    """What network a state dict seems to come from, for error messages."""
    for key, family in _FAMILIES:
        if key in state:
            return family
    first = next(iter(state), None)
    return f"an unknown network of {len(state)} tensors, the first named {first!r}"


def _mismatches(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    # A plain batch norm's statistics may load into private ones, whose shape has one axis more.
    shapes = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape and given[key].shape != own[key].shape[1:]
    ]
    groups = {
        "missing": [key for key in own if key not in given and not key.endswith("num_batches_tracked")],
        "unexpected": [key for key in given if key not in own],
        "of another shape": shapes,
    }
    report = []
    for label, keys in groups.items():
        if keys:
            more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            report.append(f"{label}: {', '.join(keys[:_SHOWN])}{more}")
    return report


def load_backbone_weights(embedder: Embedder, path: str | Path) -> None:
    """Load backbone weights into `embedder`; nothing changes when they do not fit.

    Takes torchvision's files (`features.*`, `classifier.*` dropped), for timm's networks timm's own (likewise), and the
    backbone of an embedder saved by this package (`backbone.*`); a backbone that is cut at a stride takes its part of
    the whole one's file. Plain batch-norm statistics go to every domain of private norms; a folded
    embedder folds them first.
    """
    state = read_state(path)
    family = describe_state(state)
    if any(key.startswith("backbone.") for key in state):
        state = {key.removeprefix("backbone."): v for key, v in state.items() if key.startswith("backbone.")}
        family = describe_state(state)
    state = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    part = embedder.config["backbone"]
    if part.startswith("timm:"):
        if not any(key.startswith(TIMM_PREFIX) for key in state):
            state = {TIMM_PREFIX + key: value for key, value in state.items()}
    elif "/" in part:  # the file is of the whole backbone
        whole = build_backbone(part.partition("/")[0])
        beyond = whole.state_dict().keys() - build_backbone(part).state_dict().keys()
        state = {key: value for key, value in state.items() if key not in beyond}

    target = embedder.backbone
    fold = embedder.norm == "folded" and is_plain_state(state)
    if fold:
        target = Embedder(embedder.config["backbone"], norm="frozen").backbone
    report = _mismatches(target.state_dict(), state)
    if report:
        raise InputError(
            f"{path} does not fit backbone {embedder.config['backbone']!r}: it seems to hold {family}; "
            f"{'; '.join(report)}. Choose the file or the backbone that belongs to the other"
        )
    target.load_state_dict(state, strict=False)
    if fold:
        embedder.backbone.load_state_dict(fold_norms(target).state_dict())
