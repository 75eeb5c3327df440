"""MLflow as a view of the journal: journal rows in, runs out, live or afterwards.

`Projector` turns journal rows into a parent run with nested runs. How many rows a store already holds is kept in
the store itself (tag `sketchynet.rows` of the parent), so that a resumed run, a run whose server was away, and an
import all go on where the store stands, and nothing is logged twice.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sketchynet.errors import InputError
from sketchynet.tracking.jsonl import (
    JOURNAL_NAME,
    JournalTracker,
    Row,
    flatten,
    journal_file,
    read_journal,
    write_state,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DEFAULT_URI = "sqlite:///mlflow.db"
JOURNAL_TAG = "sketchynet.journal"
ROWS_TAG = "sketchynet.rows"
STAGE_TAG = "sketchynet.stage"
PARENT_TAG = "mlflow.parentRunId"
TEST_PREFIX = "test/"

# MLflow's limits for one call and one value.
METRICS_A_CALL = 1000
PARAMS_A_CALL = 100
KEY_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 8000

FLUSH_SECONDS = 30.0
RETRY_SECONDS = 300.0


def resolve_uri(uri: str | None) -> str:
    """The tracking store: `uri`, else MLFLOW_TRACKING_URI, else ./mlflow.db; SQLite paths made absolute."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    database = _sqlite_file(uri)
    return f"sqlite:///{database}" if database else uri


def open_client(uri: str | None) -> MlflowClient:
    """A client of the store. Raises InputError where MLflow is not installed or the store cannot be opened."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise InputError(f"MLflow cannot be imported ({error}); install mlflow, or use --track jsonl and import "
                         "the journal later with `sketchynet compare --import`") from error
    uri = resolve_uri(uri)
    database = _sqlite_file(uri)
    if database and not database.parent.is_dir():
        raise InputError(f"the folder of the MLflow store {uri} does not exist; create {database.parent}")
    try:
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    except MlflowException as error:
        raise InputError(f"MLflow cannot open the store {uri}: {error.message}; give another one with "
                         "--tracking-uri (such as sqlite:///mlflow.db), or use --track jsonl") from error
    return client


def experiment_id(client: MlflowClient, name: str) -> str:
    """Id of the experiment, created if needed (a local store keeps its artifacts in `mlruns` beside it)."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        database = _sqlite_file(client.tracking_uri)
        location = (database.parent / "mlruns").as_uri() if database else None
        return client.create_experiment(name, artifact_location=location)
    if experiment.lifecycle_stage != "active":
        raise InputError(f"the MLflow experiment {name!r} is deleted; restore it or use another name")
    return experiment.experiment_id


class Projector:
    """Brings the rows of one journal into one MLflow store.

    `runs` maps a stage to its run id ("" is the parent); `rows` counts the journal rows that the store holds.
    """

    def __init__(self, uri: str | None, experiment: str, journal: str, run_directory: Path,
                 known: Mapping[str, str] | None = None) -> None:
        self.client = open_client(uri)
        self.experiment = experiment_id(self.client, experiment)
        self.journal = journal
        self.run_directory = run_directory
        self.runs: dict[str, str] = {}
        self.rows = 0
        parent = self._find_parent((known or {}).get(""))
        if parent is not None:
            self.rows = int(parent.data.tags.get(ROWS_TAG, "0"))
            self.runs = {"": parent.info.run_id, **self._find_stages(parent.info.run_id)}
        self._logged: set[tuple[str, str, int, str]] = set()
        self._remembered = 0
        self._waiting: dict[str, list[Any]] = defaultdict(list)

    def project(self, rows: Sequence[Row]) -> int:
        """Log the rows of the whole journal that the store does not hold yet; returns how many were new."""
        before = self.rows
        for row in rows[self._remembered: self.rows]:
            self._remember(row)
        for index, row in enumerate(rows[self.rows:], start=self.rows):
            if row["kind"] != "metrics":
                self._send_metrics(index)
            self._project_row(row)
            if row["kind"] != "metrics":
                self._store_position(index + 1)
        self._send_metrics(len(rows))
        self._remembered = self.rows
        return self.rows - before

    def _project_row(self, row: Row) -> None:
        kind, milliseconds = row["kind"], int(row["time"] * 1000)
        if kind == "run_start":
            self._open_parent(row, milliseconds)
        elif kind == "stage_start":
            self._log_params(self._stage_run(row["stage"], milliseconds), row["params"])
        elif kind == "metrics":
            self._collect_metrics(row, milliseconds)
        elif kind == "artifact":
            self._log_artifact(self._stage_run(row["stage"], milliseconds), row["path"])
        elif kind == "stage_end":
            self.client.set_terminated(self._stage_run(row["stage"], milliseconds), row["status"], milliseconds)
        elif kind == "run_end":
            self.client.set_terminated(self.runs[""], row["status"], milliseconds)
        else:
            raise InputError(f"journal row of unknown kind {kind!r}; it was written by a newer version")

    def _open_parent(self, row: Row, milliseconds: int) -> None:
        tags = {_key(key): _clip(value, TAG_LENGTH) for key, value in row["tags"].items()}
        if "git_commit" in tags:
            tags["mlflow.source.git.commit"] = tags["git_commit"].removesuffix("-dirty")
        if "" not in self.runs:
            run = self.client.create_run(self.experiment, start_time=milliseconds, run_name=row["name"],
                                         tags={JOURNAL_TAG: self.journal, ROWS_TAG: "0"})
            self.runs[""] = run.info.run_id
        else:
            self.client.update_run(self.runs[""], status="RUNNING")
        self._log_params(self.runs[""], row["params"], tags)
        self.client.log_dict(self.runs[""], row["params"], "recipe.json")

    def _stage_run(self, stage: str, milliseconds: int) -> str:
        """Run id of a stage; a stage that ended before and reports again is running again."""
        if stage not in self.runs:
            tags = {PARENT_TAG: self.runs[""], STAGE_TAG: stage}
            run = self.client.create_run(self.experiment, start_time=milliseconds, run_name=stage, tags=tags)
            self.runs[stage] = run.info.run_id
        return self.runs[stage]

    def _log_params(self, run_id: str, params: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> None:
        """Log flattened params and tags. MLflow's params are final: a value changed by a resume becomes a tag."""
        from mlflow.entities import Param, RunTag

        held = self.client.get_run(run_id)
        all_tags = dict(tags or {})
        unset: dict[str, str] = {}
        for key, value in flatten(params).items():
            key, value = _key(key), _clip(value, PARAM_LENGTH)
            if key not in held.data.params:
                unset[key] = value
            elif held.data.params[key] != value:
                all_tags[_key(f"resumed.{key}")] = _clip(value, TAG_LENGTH)
        if held.info.status != "RUNNING":
            self.client.update_run(run_id, status="RUNNING")
        new = [Param(key, value) for key, value in unset.items()]
        for first in range(0, len(new), PARAMS_A_CALL):
            self.client.log_batch(run_id, params=new[first:first + PARAMS_A_CALL])
        pairs = [RunTag(key, value) for key, value in all_tags.items()]
        for first in range(0, len(pairs), PARAMS_A_CALL):
            self.client.log_batch(run_id, tags=pairs[first:first + PARAMS_A_CALL])

    def _collect_metrics(self, row: Row, milliseconds: int) -> None:
        from mlflow.entities import Metric

        for stage, name, step, value in self._remember(row):
            metric = Metric(_key(name), value, milliseconds, step)
            self._waiting[self._stage_run(stage, milliseconds)].append(metric)

    def _remember(self, row: Row) -> list[tuple[str, str, int, float]]:
        """Numbers of a row that were not seen before: a resumed stage repeats the steps after its checkpoint."""
        if row["kind"] != "metrics":
            return []
        fresh = []
        for name, raw in row["values"].items():
            for stage in dict.fromkeys([row["stage"], "" if name.startswith(TEST_PREFIX) else row["stage"]]):
                key = (stage, name, int(row["step"]), str(raw))
                if key not in self._logged:
                    self._logged.add(key)
                    fresh.append((*key[:3], float(raw)))
        return fresh

    def _send_metrics(self, position: int) -> None:
        """Send the collected metrics in batches, then store how far the store has come."""
        if not self._waiting:
            return
        for run_id, metrics in self._waiting.items():
            for first in range(0, len(metrics), METRICS_A_CALL):
                self.client.log_batch(run_id, metrics=metrics[first:first + METRICS_A_CALL])
        self._waiting.clear()
        self._store_position(position)

    def _store_position(self, position: int) -> None:
        self.client.set_tag(self.runs[""], ROWS_TAG, str(position))
        self.rows = position

    def _log_artifact(self, run_id: str, shown: str) -> None:
        path = self.run_directory / shown
        if not path.exists():
            warnings.warn(f"artifact {path} is gone and was not brought into MLflow", stacklevel=2)
            return
        inside = Path(shown).parent.as_posix() if not Path(shown).is_absolute() else "."
        folder = None if inside == "." else inside
        if path.is_dir():
            self.client.log_artifacts(run_id, str(path), "/".join(part for part in (folder, path.name) if part))
        else:
            self.client.log_artifact(run_id, str(path), folder)

    def _find_parent(self, known: str | None) -> Run | None:
        from mlflow.exceptions import MlflowException

        if known:
            try:
                run = self.client.get_run(known)
            except MlflowException:
                run = None  # the id belongs to another store: look for the journal's tag instead
            if run is not None and run.info.lifecycle_stage == "active" \
                    and run.info.experiment_id == self.experiment:
                return run
        found = self.client.search_runs([self.experiment], f"tags.`{JOURNAL_TAG}` = '{self.journal}'",
                                        max_results=1)
        return found[0] if found else None

    def _find_stages(self, parent: str) -> dict[str, str]:
        runs = self.client.search_runs([self.experiment], f"tags.`{PARENT_TAG}` = '{parent}'", max_results=1000)
        return {run.data.tags[STAGE_TAG]: run.info.run_id for run in runs if STAGE_TAG in run.data.tags}


class MlflowTracker(JournalTracker):
    """The journal, and live MLflow runs made from it.

    A store that cannot be opened at the start raises, before any training is spent. One that fails later
    costs no results: they stay in the journal, a warning says so, and sending is tried again.
    """

    def __init__(self, run_directory: Path, experiment: str, uri: str | None) -> None:
        super().__init__(run_directory)
        self.experiment = experiment
        self.uri = resolve_uri(uri)
        self._projector: Projector | None = None
        self._rows: list[Row] = []
        self._next_flush = 0.0
        self._failed = False

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        open_client(self.uri)  # before anything is written
        super().start(name, params, tags)
        known = self.state.get("mlflow", {})
        same = known.get("uri") == self.uri and known.get("experiment") == self.experiment
        self._projector = Projector(self.uri, self.experiment, self.state["journal"], self.run_directory,
                                    known.get("runs") if same else None)
        self._rows = read_journal(self.journal_path)
        self._flush(self._projector)

    def end(self, status: str) -> None:
        self._next_flush = 0.0
        super().end(status)
        projector = self._projector
        if projector is not None and projector.rows < len(self._rows):
            warnings.warn(
                f"{len(self._rows) - projector.rows} reports did not reach MLflow ({self.uri}); none is lost: bring "
                f"them in with `sketchynet compare --import {self.journal_path}`", stacklevel=2)

    def _write(self, row: Row) -> Row:
        row = super()._write(row)
        if self._projector is not None:
            self._rows.append(row)
            # A server that is away must not hold up every stage: it is tried again after a while, and at the end.
            boundary = row["kind"] != "metrics" and not self._failed
            if boundary or time.monotonic() >= self._next_flush:
                self._flush(self._projector)
        return row

    def _flush(self, projector: Projector) -> None:
        """Send what the journal holds and the store does not."""
        before = dict(projector.runs)
        try:
            projector.project(self._rows)
        except Exception as error:  # noqa: BLE001 (whatever a store raises, training must not end for it)
            self._failed = True
            self._next_flush = time.monotonic() + RETRY_SECONDS
            warnings.warn(f"MLflow ({self.uri}) did not take the reports: {error}; they are safe in "
                          f"{self.journal_path}, and sending is tried again", stacklevel=2)
        else:
            self._failed = False
            self._next_flush = time.monotonic() + FLUSH_SECONDS
        if projector.runs != before or "mlflow" not in self.state:
            self.state["mlflow"] = {"uri": self.uri, "experiment": self.experiment, "runs": projector.runs}
            write_state(self.run_directory, self.state)


class Imported(NamedTuple):
    """What an import did: the parent run, and how many journal rows were new to the store."""

    run_id: str
    new_rows: int

    def __str__(self) -> str:
        return f"imported {self.new_rows} new reports into run {self.run_id}"


def import_journal(path: Path, experiment: str = "sketchynet", uri: str | None = None) -> Imported:
    """Bring a journal (`reports.jsonl` or its run directory) into MLflow.

    Importing again adds only rows that were written since; a journal that is wholly there adds nothing.
    """
    path = journal_file(path)
    rows = read_journal(path)
    if not rows or rows[0]["kind"] != "run_start":
        raise InputError(f"{path} does not begin with a run_start row; give the {JOURNAL_NAME} of a run directory")
    projector = Projector(uri, experiment, rows[0]["journal"], path.resolve().parent)
    new = projector.project(rows)
    return Imported(projector.runs[""], new)


def parent_runs(experiment: str, uri: str | None) -> list[Run]:
    """The pipelines of an experiment, oldest first. Raises InputError for an unknown experiment."""
    client = open_client(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        names = ", ".join(item.name for item in client.search_experiments()) or "none"
        raise InputError(f"no experiment {experiment!r} in {client.tracking_uri}; there are: {names}")
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"], page_token=token)
        runs.extend(page)
        token = page.token
        if not token:
            return [run for run in runs if PARENT_TAG not in run.data.tags]


def _sqlite_file(uri: str) -> Path | None:
    match = re.fullmatch(r"sqlite:///(.+)", uri)
    return Path(match[1]).absolute() if match and match[1] != ":memory:" else None


def _key(name: str) -> str:
    """A name that MLflow takes: letters, digits and `_-./: ` only, at most 250 characters."""
    return re.sub(r"[^\w\-./: ]", "_", name, flags=re.ASCII)[:KEY_LENGTH]


def _clip(value: Any, length: int) -> str:
    text = str(value)
    return text if len(text) <= length else text[: length - 1] + "…"
