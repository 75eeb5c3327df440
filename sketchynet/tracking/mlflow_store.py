"""MLflow as a view of the journal: journal rows in, runs out, live or afterwards.

`Projector` turns journal rows into a parent run with nested runs. How many rows a store already holds is kept in
the store itself (tag `sketchynet.rows` of the parent), so that a resumed run, a run whose server was away, and an
import all go on where the store stands, and nothing is logged twice.
"""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sketchynet.errors import InputError
from sketchynet.tracking.jsonl import (
    JOURNAL_NAME,
    Row,
    flatten,
    journal_file,
    read_journal,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.exceptions import MlflowException

DEFAULT_URI = "sqlite:///mlflow.db"
JOURNAL_TAG = "sketchynet.journal"
ROWS_TAG = "sketchynet.rows"
STAGE_TAG = "sketchynet.stage"
PARENT_TAG = "mlflow.parentRunId"
TEST_PREFIX = "test/"

_log = logging.getLogger(__name__)

# MLflow's limits for one call and one value.
METRICS_A_CALL = 1000
PARAMS_A_CALL = 100
KEY_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 8000

HTTP_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds; MLflow's own 120, seven times over, is a hang of minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # whoever sends tries again, from where the store stands by then
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Set where the environment does not say otherwise."""


def resolve_uri(uri: str | None) -> str:
    """The tracking store: `uri`, else MLFLOW_TRACKING_URI, else ./mlflow.db; SQLite paths made absolute."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    database = _sqlite_file(uri)
    return f"sqlite:///{database}" if database else uri


def open_client(uri: str | None) -> MlflowClient:
    """A client of the store. Raises InputError where MLflow is not installed or the store cannot be opened; within
    seconds where a server does not answer."""
    for name, value in HTTP_SETTINGS.items():
        os.environ.setdefault(name, value)
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
        raise InputError(f"MLflow cannot open the store {uri}: {_reason(error)}; give another one with "
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
            _log.warning("artifact %s is gone and was not brought into MLflow", path)
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
        found = self._tagged(JOURNAL_TAG, self.journal)
        return max(found, key=lambda run: int(run.data.tags.get(ROWS_TAG, "0")), default=None)

    def _find_stages(self, parent: str) -> dict[str, str]:
        fullest_last = sorted(self._tagged(PARENT_TAG, parent), key=lambda run: len(run.data.metrics) + len(run.data.params))
        return {run.data.tags[STAGE_TAG]: run.info.run_id for run in fullest_last if STAGE_TAG in run.data.tags}

    def _tagged(self, tag: str, value: str) -> list[Run]:
        return list(self.client.search_runs([self.experiment], f"tags.`{tag}` = '{value}'", max_results=1000))

    def remove_twins(self) -> None:
        """Delete runs that a server opened for a request which had timed out here, and was sent again.

        Metrics and tags that arrive twice are one in the store; opened runs are two.
        """
        if "" not in self.runs:
            return
        found = self._tagged(JOURNAL_TAG, self.journal)
        for parent in {self.runs[""], *(run.info.run_id for run in found)}:
            found += [run for run in self._tagged(PARENT_TAG, parent) if STAGE_TAG in run.data.tags]
        for run_id in {run.info.run_id for run in found} - set(self.runs.values()):
            self.client.delete_run(run_id)


class Imported(NamedTuple):
    """What an import did."""

    run_id: str
    """Of the parent."""
    new_rows: int
    """Of the journal, new to the store."""
    rows: int
    """Of the journal, all of which the store holds."""
    runs: dict[str, str]
    """Stage ("" is the parent) to run id."""

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
    projector.remove_twins()
    return Imported(projector.runs[""], new, projector.rows, dict(projector.runs))


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


def _reason(error: MlflowException) -> str:
    """What MLflow says, without the layers of an HTTP client around it."""
    message = str(error.message)
    if "Connection refused" in message:
        return "nobody listens there (connection refused)"
    if "timed out" in message or "timeout" in message:
        return f"no answer within {os.environ['MLFLOW_HTTP_REQUEST_TIMEOUT']} seconds"
    return message


def _sqlite_file(uri: str) -> Path | None:
    match = re.fullmatch(r"sqlite:///(.+)", uri)
    return Path(match[1]).absolute() if match and match[1] != ":memory:" else None


def _key(name: str) -> str:
    """A name that MLflow takes: letters, digits and `_-./: ` only, at most 250 characters."""
    return re.sub(r"[^\w\-./: ]", "_", name, flags=re.ASCII)[:KEY_LENGTH]


def _clip(value: Any, length: int) -> str:
    text = str(value)
    return text if len(text) <= length else text[: length - 1] + "…"
