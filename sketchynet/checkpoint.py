"""Checkpoint directories: tensors as safetensors, everything else as JSON, written whole or not at all.

A checkpoint is a directory with ``network.safetensors`` (weights), ``config.json`` (how to rebuild the
network), ``metrics.json``, and, while a stage is under way, ``state.safetensors`` with ``state.json`` (all
that an exact resume needs). No file is ever read through pickle.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sketchynet.errors import InputError

__all__ = [
    "latest_epoch",
    "pack",
    "read_checkpoint_json",
    "read_network",
    "read_state",
    "unpack",
    "write_checkpoint",
    "write_json",
]

_EPOCH = re.compile(r"epoch-(\d{5})")


def pack(tree: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """Splits a tree of dicts, lists and scalars with tensors in it into tensors and a JSON skeleton.

    In the skeleton a tensor is ``{"__tensor__": name}`` and a dict a list of key–value pairs, so that
    integer keys (as in an optimiser's state) survive.
    """
    tensors: dict[str, torch.Tensor] = {}

    def walk(node: Any) -> Any:
        if isinstance(node, torch.Tensor):
            name = f"t{len(tensors)}"
            tensors[name] = node.detach().cpu().contiguous()
            return {"__tensor__": name}
        if isinstance(node, Mapping):
            return {"__dict__": [[key, walk(value)] for key, value in node.items()]}
        if isinstance(node, list | tuple):
            return {"__list__": [walk(value) for value in node], "tuple": isinstance(node, tuple)}
        if node is None or isinstance(node, bool | int | float | str):
            return node
        raise TypeError(f"cannot put a {type(node).__name__} into a checkpoint")

    skeleton = walk(tree)
    return tensors, skeleton


def unpack(tensors: Mapping[str, torch.Tensor], skeleton: Any) -> Any:
    """The tree that :func:`pack` split."""
    if isinstance(skeleton, dict):
        if "__tensor__" in skeleton:
            return tensors[skeleton["__tensor__"]]
        if "__dict__" in skeleton:
            return {key: unpack(tensors, value) for key, value in skeleton["__dict__"]}
        values = [unpack(tensors, value) for value in skeleton["__list__"]]
        return tuple(values) if skeleton["tuple"] else values
    return skeleton


def write_json(path: Path, value: Any) -> None:
    """Writes JSON to a temporary name in the same folder and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _writing_failed(path, error) from error


def write_checkpoint(
    directory: Path,
    *,
    network: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    state: Any = None,
) -> None:
    """Writes a checkpoint directory under a temporary name and renames it into place.

    Raises:
        InputError: the disk is full or the place cannot be written; nothing is left behind.
    """
    temporary: Path | None = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        save_file({k: v.detach().cpu().contiguous() for k, v in network.items()}, temporary / "network.safetensors")
        _dump(temporary / "config.json", config)
        _dump(temporary / "metrics.json", metrics)
        if state is not None:
            tensors, skeleton = pack(state)
            save_file(tensors, temporary / "state.safetensors")
            _dump(temporary / "state.json", skeleton)
        for file in temporary.iterdir():
            _flush(file)
        if directory.exists():
            shutil.rmtree(directory)
        os.replace(temporary, directory)
        _flush(directory.parent)
    except (OSError, SafetensorError) as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise _writing_failed(directory, error) from error


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _writing_failed(path: Path, error: Exception) -> InputError:
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error) or "os error 28" in str(error)
    reason = "the disk is full" if full else str(error)
    return InputError(
        f"could not write {path}: {reason}; nothing of it was kept. Free some space or mend the folder, "
        "then continue with --resume"
    )


def remove_partial(folder: Path) -> None:
    """Removes what a killed writer left under temporary names."""
    for leftover in folder.glob(".*-*") if folder.is_dir() else ():
        if leftover.is_dir():
            shutil.rmtree(leftover)


def prune_epochs(folder: Path, *, keep: int) -> None:
    """Removes all but the newest ``keep`` epoch checkpoints of a stage."""
    for directory in _epochs(folder)[:-keep] if keep else _epochs(folder):
        shutil.rmtree(directory)


def epoch_directory(folder: Path, epoch: int) -> Path:
    """Where the checkpoint after ``epoch`` epochs lies."""
    return folder / f"epoch-{epoch:05d}"


def latest_epoch(folder: Path) -> Path | None:
    """The newest epoch checkpoint of a stage, as found on the storage."""
    found = _epochs(folder)
    return found[-1] if found else None


def _epochs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if _EPOCH.fullmatch(p.name) and p.is_dir())


def read_state(directory: Path) -> Any:
    """The training state of a checkpoint, as it was given to :func:`write_checkpoint`."""
    return unpack(_load(directory / "state.safetensors"), read_checkpoint_json(directory, "state"))


def read_network(directory: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint."""
    return _load(directory / "network.safetensors")


def read_checkpoint_json(directory: Path, name: str) -> Any:
    """``config``, ``metrics`` or ``state`` of a checkpoint."""
    path = directory / f"{name}.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{directory} is not a checkpoint: {path.name} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}); remove {directory} and resume from an earlier one") from None


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path.parent} is not a checkpoint: {path.name} is missing") from None
    except SafetensorError as error:
        raise InputError(
            f"{path} is damaged ({error}); remove {path.parent} and resume from an earlier checkpoint"
        ) from None


def load_into(module: torch.nn.Module, weights: Mapping[str, torch.Tensor], *, place: str) -> None:
    """Loads weights into a network of the same architecture.

    Raises:
        InputError: names or shapes differ; names the first ones.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - weights.keys())
    unexpected = sorted(weights.keys() - own.keys())
    shapes = [
        f"{k} is {tuple(weights[k].shape)} instead of {tuple(own[k].shape)}"
        for k in sorted(own.keys() & weights.keys())
        if own[k].shape != weights[k].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"{len(names)} {kind} (first: {names[0]})"
            for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
            if names
        ]
        raise InputError(
            f"{place} holds another architecture than {type(module).__name__}: tensors {', '.join(parts)}; "
            "give the recipe that the checkpoint was trained with"
        )
    module.load_state_dict(dict(weights))


