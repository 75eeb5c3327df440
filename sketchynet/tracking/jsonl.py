"""The journal: every report of a run, one JSON object a line, in the run directory.

The journal is the truth about a run; MLflow is a view of it that can be made during the run or afterwards
(`mlflow_store`). It needs nothing but the standard library.

Rows (all carry `time`, seconds since 1970, and `kind`):

    run_start    journal (unique id of the run), name, params, tags, resumed
    stage_start  stage, params
    metrics      stage ("" is the parent run), step, values {name: number}
    artifact     stage ("" is the parent run), path (relative to the run directory where it lies inside)
    stage_end    stage, status
    run_end      status
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from sketchynet.errors import InputError
from sketchynet.tracking.environment import environment

JOURNAL_NAME = "reports.jsonl"
STATE_NAME = "tracking.json"
STATUSES = ("FINISHED", "FAILED", "KILLED")

Row = dict[str, Any]


class Tracker(Protocol):
    """Where the reports of a pipeline go. Only the driver process holds one; workers report to the driver."""

    def check(self) -> None:
        """Raises InputError where a new run's reports could not go; writes nothing."""

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Open the parent run; a run directory that holds `tracking.json` continues its run."""

    def stage_start(self, stage: str, params: Mapping[str, Any]) -> None:
        """Open (or, after a resume, continue) the nested run of a stage such as "teacher-0" or "student"."""

    def metrics(self, stage: str, values: Mapping[str, float], step: int) -> None:
        """Numbers of one step of a stage; stage "" means the parent run.

        Names that begin with "test/" are shown on the parent run too, whichever stage measured them, so that
        `compare` reads one run a pipeline.
        """

    def artifact(self, path: Path, stage: str | None = None) -> None:
        """A file or directory that belongs to the stage, or to the parent run."""

    def stage_end(self, stage: str, status: str) -> None:
        """Close a stage with "FINISHED", "FAILED" or "KILLED"."""

    def end(self, status: str) -> None:
        """Close the parent run with "FINISHED", "FAILED" or "KILLED"."""


class NullTracker:
    """Keeps nothing (`--track none`)."""

    def check(self) -> None:
        pass

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        pass

    def stage_start(self, stage: str, params: Mapping[str, Any]) -> None:
        pass

    def metrics(self, stage: str, values: Mapping[str, float], step: int) -> None:
        pass

    def artifact(self, path: Path, stage: str | None = None) -> None:
        pass

    def stage_end(self, stage: str, status: str) -> None:
        pass

    def end(self, status: str) -> None:
        pass


class JournalTracker:
    """Writes the journal: a line reaches the operating system before the call returns."""

    def __init__(self, run_directory: Path) -> None:
        self.run_directory = Path(run_directory)
        self.journal_path = self.run_directory / JOURNAL_NAME
        self.state: dict[str, Any] = {}

    def check(self) -> None:
        pass

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        self.run_directory.mkdir(parents=True, exist_ok=True)
        self.state = read_state(self.run_directory)
        resumed = bool(self.state)
        if not resumed:
            self.state = {"journal": uuid.uuid4().hex}
            write_state(self.run_directory, self.state)
        mend_journal(self.journal_path)
        self._write({
            "kind": "run_start", "journal": self.state["journal"], "name": name, "params": plain(params),
            "tags": {**environment(), **{key: str(value) for key, value in tags.items()}}, "resumed": resumed,
        })

    def stage_start(self, stage: str, params: Mapping[str, Any]) -> None:
        self._write({"kind": "stage_start", "stage": stage, "params": plain(params)})

    def metrics(self, stage: str, values: Mapping[str, float], step: int) -> None:
        numbers = {name: encode_number(float(value)) for name, value in values.items()}
        self._write({"kind": "metrics", "stage": stage, "step": int(step), "values": numbers})

    def artifact(self, path: Path, stage: str | None = None) -> None:
        path = Path(path)
        if not path.exists():
            raise InputError(f"artifact {path} does not exist; write it before it is reported")
        path, root = path.resolve(), self.run_directory.resolve()
        shown = path.relative_to(root) if path.is_relative_to(root) else path
        self._write({"kind": "artifact", "stage": stage or "", "path": shown.as_posix()})

    def stage_end(self, stage: str, status: str) -> None:
        self._write({"kind": "stage_end", "stage": stage, "status": checked_status(status)})

    def end(self, status: str) -> None:
        self._write({"kind": "run_end", "status": checked_status(status)})

    def _write(self, row: Row) -> Row:
        """Append one row to the journal; returns the row as written, with its time."""
        if not self.state:
            raise RuntimeError("the tracker was not started: call start() before any report")
        row = {"time": round(time.time(), 3), **row}
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        # One write of one whole line in append mode: a killed process leaves at most one torn last line.
        try:
            with open(self.journal_path, "ab", buffering=0) as file:
                if file.write(line) != len(line):  # what a full disk does to a line's end
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            mend_journal(self.journal_path)
            raise InputError(f"cannot write the journal {self.journal_path}: {error.strerror}; free some space or mend "
                             "the folder, then continue with --resume") from error
        return row


def read_journal(path: Path) -> list[Row]:
    """Rows of a journal file, or of the journal in a run directory.

    A torn last line (the process died while it wrote) is left out. Raises InputError for a missing file and for
    a broken line elsewhere.
    """
    path = journal_file(path)
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise InputError(f"cannot read the journal {path}: {error.strerror}; "
                         f"give a run directory or its {JOURNAL_NAME}") from error
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("time"), (int, float)) or "kind" not in row:
            raise InputError(f"{path}, line {number}: not a row of a journal; remove the line or give another file")
        rows.append(row)
    return rows


def journal_file(path: Path) -> Path:
    """The journal meant by a path that names either a journal or its run directory."""
    path = Path(path)
    return path / JOURNAL_NAME if path.is_dir() else path


def mend_journal(path: Path) -> None:
    """Cut off a torn last line, so that the next row starts a line of its own."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        with open(path, "rb+") as file:
            file.truncate(whole)


def read_state(run_directory: Path) -> dict[str, Any]:
    """`tracking.json` of a run directory; empty where there is none."""
    path = run_directory / STATE_NAME
    if not path.exists():
        return {}
    try:
        state = json.loads(path.read_text())
    except ValueError:
        state = None
    if not isinstance(state, dict) or not isinstance(state.get("journal"), str):
        raise InputError(f"{path} is damaged: it names no journal; remove it to track this run as a new one")
    return state


def write_state(run_directory: Path, state: Mapping[str, Any]) -> None:
    """Replace `tracking.json` in one step: a reader sees the old or the new state, never half of one."""
    path = run_directory / STATE_NAME
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with open(partial, "w") as file:
            json.dump(state, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def encode_number(value: float) -> float | str:
    """JSON has no NaN and no infinity: these become "nan", "inf", "-inf", which float() reads back."""
    return value if math.isfinite(value) else str(value)


def plain(value: Any) -> Any:
    """A value as JSON can hold it: mappings, lists, numbers, text; anything else by its str()."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return encode_number(value)
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as one level of text: {"a": {"b": 1}} becomes {"a.b": "1"}."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def checked_status(status: str) -> str:
    if status not in STATUSES:
        raise InputError(f"run status {status!r} is unknown; use one of {', '.join(STATUSES)}")
    return status
