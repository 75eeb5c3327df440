"""Finished networks as versions of an MLflow registered model, each with its card.

A version's files lie under the run's artifact ``model``, laid out as a run folder, so that what reads a run reads a
downloaded version too.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sketchynet.errors import InputError
from sketchynet.tracking.jsonl import journal_file, read_state
from sketchynet.tracking.live import push
from sketchynet.tracking.mlflow_store import open_client, resolve_uri

__all__ = ["Registered", "register_model"]

_ARTIFACT = "model"


class Registered(NamedTuple):
    """A version of a registered model."""

    name: str
    version: str
    new: bool
    """Whether this call made it; otherwise the run was registered under this name before."""
    uri: str
    """Of the store."""

    def __str__(self) -> str:
        done = "registered as" if self.new else "was registered before as"
        return (
            f"{done} version {self.version} of {self.name!r} in {self.uri}\n"
            f"fetch it: MLFLOW_TRACKING_URI={self.uri} mlflow artifacts download -u models:/{self.name}/{self.version} -d DIR"
        )


def register_model(
    run: Path, name: str, card: str, parts: Mapping[str, Path], *, tags: Mapping[str, str], uri: str | None = None
) -> Registered:
    """Registers files of a run as a new version of a model, with the card as its description and as README.md.

    What the store lacks of the run's journal is sent first. A run has one version under a name: asked again, it is told.

    Args:
        run: folder of a run that keeps a journal.
        parts: path within the version → file or folder.
        uri: of the store; by default where the run was tracked.

    Raises:
        InputError: the store cannot be reached or does not take it; names the store.
    """
    from mlflow.exceptions import MlflowException

    run_id = push(run, uri=uri).run_id
    uri = resolve_uri(uri or _tracked_uri(run))
    client = open_client(uri)
    try:
        for version in client.search_model_versions(f"name = '{name}'"):
            if version.run_id == run_id:
                return Registered(name, str(version.version), False, uri)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / _ARTIFACT
            root.mkdir()
            for place, source in parts.items():
                target = root / place
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
            (root / "README.md").write_text(card, encoding="utf-8")
            client.log_artifacts(run_id, str(root), _ARTIFACT)
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name, description="Sketch retrieval networks trained by SketchyNet.")
        location = f"{client.get_run(run_id).info.artifact_uri}/{_ARTIFACT}"
        made = client.create_model_version(name, location, run_id=run_id, description=card, tags=dict(tags))
    except (MlflowException, OSError) as error:
        raise InputError(f"MLflow ({uri}) did not take the model {name!r}: {error}; run the same command again") from error
    return Registered(name, str(made.version), True, uri)


def _tracked_uri(run: Path) -> str | None:
    known = read_state(journal_file(run).parent).get("mlflow") or {}
    return known.get("uri")
