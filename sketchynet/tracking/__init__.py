"""Tracking: turns the reports of a pipeline into a journal and MLflow runs. Only the driver owns the run."""

from __future__ import annotations

from pathlib import Path

from sketchynet.errors import InputError
from sketchynet.tracking.compare import compare, parent_artifacts
from sketchynet.tracking.environment import environment
from sketchynet.tracking.jsonl import JournalTracker, NullTracker, Tracker, read_journal
from sketchynet.tracking.live import MlflowTracker, delivery_status, push
from sketchynet.tracking.mlflow_store import Imported, import_journal
from sketchynet.tracking.registry import Registered, register_model

__all__ = [
    "Imported", "JournalTracker", "MlflowTracker", "NullTracker", "Registered", "Tracker", "compare", "delivery_status",
    "environment", "import_journal", "make_tracker", "parent_artifacts", "push", "read_journal", "register_model",
]


def make_tracker(kind: str, run_directory: Path, *, experiment: str = "sketchynet",
                 uri: str | None = None) -> Tracker:
    """The tracker that `--track` names.

    kind: "mlflow" (store at `uri`, else MLFLOW_TRACKING_URI, else ./mlflow.db with artifacts in ./mlruns), "jsonl"
    (the journal alone, needs no MLflow) or "none". All but "none" keep the journal `reports.jsonl` in
    `run_directory`.
    """
    if kind == "mlflow":
        return MlflowTracker(Path(run_directory), experiment, uri)
    if kind == "jsonl":
        return JournalTracker(Path(run_directory))
    if kind == "none":
        return NullTracker()
    raise InputError(f"--track {kind!r} is unknown; use mlflow, jsonl or none")
