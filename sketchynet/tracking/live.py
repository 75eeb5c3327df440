"""Live MLflow runs: the journal is sent by a thread of its own, so that no store ever holds up training.

Training writes a line to the journal and goes on. The thread sends what the store lacks; while a store is slow,
hangs or is away, rows wait in the journal, and when it is back they follow in their order. Every attempt begins where
the store says it stands, so nothing is sent twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sketchynet.errors import InputError
from sketchynet.tracking.jsonl import JournalTracker, Row, journal_file, read_journal, read_state, write_state
from sketchynet.tracking.mlflow_store import Imported, Projector, import_journal, open_client, resolve_uri

FLUSH_SECONDS = 10.0
"""Between deliveries of metrics; what a reader waits for (a stage, a picture) goes out at once."""
RETRY_SECONDS = (1.0, 60.0)
"""Before an attempt after a failed one: the first wait and the longest, doubled in between."""
END_SECONDS = 60.0
"""At the end of a run: how long one step of the delivery may take before the rest is left in the journal."""

_log = logging.getLogger(__name__)


class Delivery:
    """Sends rows in the background, in order, until it is closed."""

    def __init__(self, rows: list[Row], connect: Callable[[], Projector], sent: Callable[[Projector], None],
                 place: str) -> None:
        """rows: what the journal holds so far. connect: opens the store (and finds out where it stands) anew.
        sent: called in the thread after every attempt that reached the store. place: of the journal, for messages."""
        self._rows = rows
        self._connect, self._sent, self._place = connect, sent, place
        self._projector: Projector | None = None
        self._delivered = 0
        self._changed = threading.Condition()
        self._urgent, self._closing = True, False
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="mlflow-delivery", daemon=True)
        self._thread.start()

    def add(self, row: Row) -> None:
        """Queues a row that the journal holds already; returns at once."""
        with self._changed:
            self._rows.append(row)
            self._urgent |= row["kind"] != "metrics"
            if self._urgent:
                self._changed.notify()

    def close(self, patience: float = END_SECONDS) -> int:
        """Delivers what is left and returns how many rows the store did not take.

        Waits as long as rows arrive; not longer than ``patience`` seconds for any one of them, and not for a store
        that refuses.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        seen, since = self._delivered, time.monotonic()
        while self._thread.is_alive() and time.monotonic() - since < patience:
            self._thread.join(0.2)
            reached = self._delivered if self._projector is None else self._projector.rows
            if reached != seen:
                seen, since = reached, time.monotonic()
        return len(self._rows) - self._delivered

    def _run(self) -> None:
        wait = 0.0
        while True:
            with self._changed:
                # After a failure even what is urgent waits: a store that is away is not asked more often for it.
                self._changed.wait_for(lambda: self._closing or (self._urgent and not self._failures), timeout=wait)
                closing, self._urgent = self._closing, False
                rows = list(self._rows)
            try:
                self._deliver(rows)
            except Exception as error:  # noqa: BLE001 (whatever a store raises, training must not end for it)
                self._failed(error)
                wait = min(RETRY_SECONDS[0] * 2.0 ** (self._failures - 1), RETRY_SECONDS[1])
            else:
                if self._failures:
                    _log.warning("MLflow is back: all reports are delivered")
                self._failures = 0
                wait = FLUSH_SECONDS
            if closing:
                return

    def _deliver(self, rows: list[Row]) -> None:
        if self._projector is None:
            self._projector = self._connect()
        try:
            if self._projector.rows < len(rows):
                self._projector.project(rows)
            if self._failures:
                self._projector.remove_twins()
        finally:
            self._delivered = self._projector.rows
            self._sent(self._projector)

    def _failed(self, error: Exception) -> None:
        self._projector = None  # its client may be broken, and a request that timed out may yet have been taken
        self._failures += 1
        if self._failures == 1:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            _log.warning("MLflow did not take the reports (%s); they wait in %s and follow when it is back",
                         reason, self._place)


class MlflowTracker(JournalTracker):
    """The journal, and live MLflow runs made from it.

    A store that cannot be opened at the start of a new run raises, before any training is spent. One that fails
    later, or is away when a run goes on, costs no results and no time: reports stay in the journal, a warning says
    so, and sending is tried again until the end; the rest is sent by ``sketchynet track push``.
    """

    def __init__(self, run_directory: Path, experiment: str, uri: str | None) -> None:
        super().__init__(run_directory)
        self.experiment = experiment
        self.uri = resolve_uri(uri)
        self._delivery: Delivery | None = None

    def check(self) -> None:
        if not read_state(self.run_directory):
            open_client(self.uri)

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        self.check()
        super().start(name, params, tags)
        known = self.state.get("mlflow", {})
        if known.get("uri") != self.uri or known.get("experiment") != self.experiment:
            self._remember({}, 0)
        rows = read_journal(self.journal_path)
        self._delivery = Delivery(rows, self._connect, self._sent, str(self.journal_path))

    def end(self, status: str) -> None:
        super().end(status)
        if self._delivery is None:
            return
        missing = self._delivery.close()
        if missing:
            _log.warning("%d reports did not reach MLflow (%s); none is lost: send them with "
                         "`sketchynet track push %s`", missing, self.uri, self.run_directory)

    def _write(self, row: Row) -> Row:
        row = super()._write(row)
        if self._delivery is not None:
            self._delivery.add(row)
        return row

    def _connect(self) -> Projector:
        known = self.state["mlflow"]
        return Projector(self.uri, self.experiment, self.state["journal"], self.run_directory, known["runs"])

    def _sent(self, projector: Projector) -> None:
        known = self.state["mlflow"]
        if (known["runs"], known["rows"]) != (projector.runs, projector.rows):
            self._remember(projector.runs, projector.rows)

    def _remember(self, runs: Mapping[str, str], rows: int) -> None:
        self.state["mlflow"] = {"uri": self.uri, "experiment": self.experiment, "runs": dict(runs), "rows": rows}
        write_state(self.run_directory, self.state)


def delivery_status(run: Path) -> str:
    """How much of a run's journal its MLflow store holds, by what was noted when it was last reached."""
    journal = journal_file(run)
    rows = read_journal(journal)
    known = read_state(journal.parent).get("mlflow")
    if known is None:
        return f"{journal}: {len(rows)} reports, none sent to MLflow so far"
    sent = known.get("rows", 0)
    rest = "all of them" if sent >= len(rows) else f"{sent}; send the rest with `sketchynet track push {run}`"
    return f"{journal}: {len(rows)} reports, {known['uri']} (experiment {known['experiment']}) holds {rest}"


def push(run: Path, experiment: str | None = None, uri: str | None = None) -> Imported:
    """Sends what a run's journal holds and MLflow does not; to where the run was tracked, unless told otherwise.

    Raises InputError where the store cannot be reached or stops taking reports; the journal keeps all of them.
    """
    journal = journal_file(run)
    known = read_state(journal.parent).get("mlflow") or {}
    uri = resolve_uri(uri or known.get("uri"))
    experiment = experiment or known.get("experiment") or "sketchynet"
    read_journal(journal)  # its faults are not the store's
    try:
        imported = import_journal(journal, experiment, uri)
    except InputError:
        raise
    except Exception as error:  # a store may raise anything
        raise InputError(f"MLflow ({uri}) did not take all reports of {run}: {error}; they are kept, "
                         "push again when it is back") from error
    state = read_state(journal.parent)
    if state and (not known or (known.get("uri"), known.get("experiment")) == (uri, experiment)):
        state["mlflow"] = {"uri": uri, "experiment": experiment, "runs": imported.runs, "rows": imported.rows}
        write_state(journal.parent, state)
    return imported
