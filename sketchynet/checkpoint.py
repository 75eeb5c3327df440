"""Checkpoint directories: tensors as safetensors, everything else as JSON, written whole or not at all.

A checkpoint is a directory with ``network.safetensors`` (weights), ``config.json`` (how to rebuild the
network), ``metrics.json``, and, while a stage is under way, ``state.safetensors`` with ``state.json`` (all
that an exact resume needs). ``manifest.json`` holds length and hash of each, so that a damaged file is noticed. No
file is ever read through pickle.

Directories are paths of this machine or, with the same methods, of any file system that fsspec knows (see
:mod:`sketchynet.storage`). Here a directory is renamed into place; where renaming copies, as on object stores, the
manifest is written last, and a directory without one is no checkpoint.
"""

from __future__ import annotations

import errno
import hashlib
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
from safetensors.torch import load, load_file, save_file

from sketchynet.errors import InputError
from sketchynet.storage import is_local, remove_tree, upload

__all__ = [
    "is_complete",
    "newest_whole",
    "pack",
    "read_checkpoint_json",
    "read_network",
    "read_state",
    "unpack",
    "write_checkpoint",
    "write_json",
]

_EPOCH = re.compile(r"epoch-\d{5}(-step-\d{6})?")
_MANIFEST = "manifest.json"


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
    """Writes JSON to a temporary name in the same folder and renames it; elsewhere in one piece."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}") if is_local(path) else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if temporary is None:
            path.write_text(text)
        else:
            temporary.write_text(text)
            os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
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
    """Writes a checkpoint directory under a temporary name and renames it into place; elsewhere, uploads it.

    Raises:
        InputError: the disk is full or the place cannot be written; nothing is left behind.
    """
    local = is_local(directory)
    temporary: Path | None = None
    try:
        if local:
            directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent if local else None))
        save_file({k: v.detach().cpu().contiguous() for k, v in network.items()}, temporary / "network.safetensors")
        _dump(temporary / "config.json", config)
        _dump(temporary / "metrics.json", metrics)
        if state is not None:
            tensors, skeleton = pack(state)
            save_file(tensors, temporary / "state.safetensors")
            _dump(temporary / "state.json", skeleton)
        _dump(temporary / _MANIFEST, {file.name: _fingerprint(file) for file in sorted(temporary.iterdir())})
        if local:
            for file in temporary.iterdir():
                _flush(file)
            temporary.chmod(0o755)  # mkdtemp makes it private; storage may be shared
            if directory.exists():
                shutil.rmtree(directory)
            os.replace(temporary, directory)
            _flush(directory.parent)
        else:
            remove(directory)
            upload(temporary, directory, last=_MANIFEST)
            shutil.rmtree(temporary)
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


def _fingerprint(path: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _writing_failed(path: Path, error: Exception) -> InputError:
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error) or "os error 28" in str(error)
    reason = "the disk is full" if full else str(error)
    return InputError(
        f"could not write {path}: {reason}; nothing of it was kept. Free some space or mend the folder, "
        "then continue with --resume"
    )


def is_complete(directory: Path) -> bool:
    """Whether a checkpoint lies there whole."""
    return directory.exists() if is_local(directory) else (directory / _MANIFEST).exists()


def remove_partial(folder: Path) -> None:
    """Removes what a killed writer left behind: temporary names, and uploads without their manifest."""
    if not folder.is_dir():
        return
    for leftover in list(folder.iterdir()):
        partial = leftover.name.startswith(".") if is_local(folder) else not is_complete(leftover)
        if partial and leftover.is_dir():
            remove_tree(leftover)


def prune_epochs(folder: Path, *, keep: int) -> None:
    """Removes all but the newest ``keep`` epoch checkpoints of a stage."""
    for directory in _epochs(folder)[:-keep] if keep else _epochs(folder):
        remove(directory)


def remove(directory: Path) -> None:
    """Removes a checkpoint; half removed it is none any more."""
    if not is_local(directory):
        (directory / _MANIFEST).unlink(missing_ok=True)
    if directory.exists():
        remove_tree(directory)


def epoch_directory(folder: Path, epoch: int, step: int = 0) -> Path:
    """Where the checkpoint after ``epoch`` epochs, and ``step`` steps of the next, lies."""
    return folder / (f"epoch-{epoch:05d}" + (f"-step-{step:06d}" if step else ""))


def newest_whole(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest undamaged epoch checkpoint of a stage, as found on the storage; what is wrong with newer ones.

    Raises:
        InputError: there are checkpoints, and all are damaged.
    """
    damaged: list[str] = []
    for directory in reversed(_epochs(folder)):
        try:
            verify(directory)
        except InputError as error:
            damaged.append(str(error))
            continue
        return directory, damaged
    if damaged:
        raise InputError(
            f"{folder}: every checkpoint is damaged ({'; '.join(damaged)}). Remove {folder}; --resume then trains this "
            "stage from its start"
        )
    return None, []


def verify(directory: Path) -> None:
    """Compares the files of a checkpoint with its manifest.

    Raises:
        InputError: a file is missing, cut or changed; names it.
    """
    if not (directory / _MANIFEST).exists():
        raise InputError(f"{directory} is damaged: {_MANIFEST} is missing")
    for name, wanted in read_checkpoint_json(directory, "manifest").items():
        path = directory / name
        try:
            found = _fingerprint(path)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error})") from None
        if found["bytes"] != wanted["bytes"]:
            raise InputError(f"{path} is damaged: {found['bytes']} bytes instead of {wanted['bytes']}")
        if found != wanted:
            raise InputError(f"{path} is damaged: its content is not what was written (SHA-256)")


def _epochs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _EPOCH.fullmatch(path.name) and is_complete(path)]
    return sorted(found, key=lambda path: path.name)


def read_state(directory: Path) -> Any:
    """The training state of a checkpoint, as it was given to :func:`write_checkpoint`."""
    return unpack(_load(directory / "state.safetensors"), read_checkpoint_json(directory, "state"))


def read_network(directory: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint."""
    return _load(directory / "network.safetensors")


def read_checkpoint_json(directory: Path, name: str) -> Any:
    """``config``, ``metrics``, ``state`` or ``manifest`` of a checkpoint."""
    path = directory / f"{name}.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{directory} is not a checkpoint: {path.name} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}); remove {directory} and resume from an earlier one") from None


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path) if is_local(path) else load(path.read_bytes())
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
