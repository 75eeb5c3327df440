"""A tracker that is slow, hangs, dies or was never there: training goes on, and every report arrives once, in order."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from sketchynet.cli import main
from sketchynet.errors import InputError
from sketchynet.tracking import delivery_status, live, make_tracker, push, read_journal
from sketchynet.tracking.live import Delivery

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:mlflow", "ignore::FutureWarning:mlflow", "ignore::ResourceWarning"
)


class Store:
    """Stands in for a projector: holds rows, and fails or waits when told to."""

    def __init__(self) -> None:
        self.held: list[int] = []
        self.away = False
        self.open: Callable[[], None] = lambda: None
        self.runs: dict[str, str] = {}

    @property
    def rows(self) -> int:
        return len(self.held)

    def project(self, rows: list[dict]) -> None:
        self.open()
        for row in rows[len(self.held) :]:
            if self.away:
                raise ConnectionError("the store is away")
            self.held.append(row["step"])

    def remove_twins(self) -> None:
        pass


def _connected(store: Store) -> Callable[[], Store]:
    def connect() -> Store:
        if store.away:
            raise ConnectionError("the store is away")
        return store

    return connect


def _row(step: int, kind: str = "metrics") -> dict:
    return {"kind": kind, "step": step}


def test_rows_wait_while_the_store_is_away_and_follow_in_order(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "RETRY_SECONDS", (0.02, 0.05))
    monkeypatch.setattr(live, "FLUSH_SECONDS", 0.01)
    store = Store()
    delivery = Delivery([_row(0, "run_start")], _connected(store), lambda projector: None, "PLACE")  # type: ignore[arg-type]
    _until(lambda: store.held == [0])
    store.away = True
    with caplog.at_level(logging.WARNING):
        for step in range(1, 40):
            delivery.add(_row(step, "stage_start" if step % 10 == 0 else "metrics"))
        _until(lambda: "they wait in PLACE" in caplog.text)
        assert store.held == [0]
        store.away = False
        _until(lambda: store.held == list(range(40)))
        assert delivery.close() == 0
    assert caplog.text.count("did not take the reports") == 1 and "MLflow is back" in caplog.text


def test_a_hanging_store_holds_up_neither_training_nor_its_end() -> None:
    store = Store()
    store.open = lambda: time.sleep(5)
    delivery = Delivery([_row(0, "run_start")], _connected(store), lambda projector: None, "PLACE")  # type: ignore[arg-type]
    began = time.monotonic()
    for step in range(1, 1000):
        delivery.add(_row(step))
    assert time.monotonic() - began < 1.0
    assert delivery.close(patience=0.5) == 1000
    assert time.monotonic() - began < 4.0


def test_a_port_nobody_listens_to_is_told_at_once(tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{_free_port()}"
    began = time.monotonic()
    with pytest.raises(InputError, match="MLflow cannot open the store http.*--track jsonl"):
        make_tracker("mlflow", tmp_path / "run", uri=uri).start("a", {}, {})
    assert not (tmp_path / "run").exists()
    journal = make_tracker("jsonl", tmp_path / "kept")
    journal.start("a", {}, {})
    with pytest.raises(InputError, match="MLflow cannot open the store http"):
        push(tmp_path / "kept", uri=uri)
    assert time.monotonic() - began < 30
    assert "1 reports, none sent" in delivery_status(tmp_path / "kept")


def test_a_run_goes_on_without_its_tracker(tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys) -> None:
    """As after a resume: what was tracked before must not end because the tracker is away now."""
    run, uri = tmp_path / "run", f"http://127.0.0.1:{_free_port()}"
    make_tracker("jsonl", run).start("a", {"seed": 1}, {})
    tracker = make_tracker("mlflow", run, uri=uri)
    with caplog.at_level(logging.WARNING):
        tracker.start("a", {"seed": 1}, {})
        tracker.metrics("student", {"loss": 1.0}, 1)
        tracker.end("FINISHED")
    assert f"sketchynet track push {run}" in caplog.text
    assert main(["track", "push", str(run), "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]) == 0
    assert main(["track", "push", str(run), "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]) == 0
    assert [line.split(" into ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "imported 4 new reports",
        "imported 0 new reports",
    ]


def test_training_with_a_tracker_that_is_not_there_begins_nothing(tmp_path: Path, capsys) -> None:
    began = time.monotonic()
    command = ["train", "demo", "--output", str(tmp_path / "run"), "--tracking-uri", f"http://127.0.0.1:{_free_port()}"]
    assert main(command) == 2 and time.monotonic() - began < 30
    assert "nobody listens there" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_full_disk_ends_the_run_with_a_whole_journal(tmp_path: Path) -> None:
    """The kernel refuses to write past a file size, within a line: what a full disk does."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from sketchynet.tracking import make_tracker\n"
        "run = Path(sys.argv[1]); tracker = make_tracker('jsonl', run); tracker.start('a', {}, {})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); limit = (run / 'reports.jsonl').stat().st_size + 150\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "for step in range(9): tracker.metrics('student', {'loss': 1.0}, step)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
    assert "InputError: cannot write the journal" in ended.stderr and "--resume" in ended.stderr
    content = (tmp_path / "reports.jsonl").read_bytes()
    assert content.endswith(b"\n") and [row["kind"] for row in read_journal(tmp_path)] == ["run_start", "metrics"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_that_is_stopped_killed_and_started_again_gets_every_report_once(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    port = _free_port()
    uri, run = f"http://127.0.0.1:{port}", tmp_path / "run"
    server = _server(tmp_path, port)
    tracker = make_tracker("mlflow", run, experiment="tests", uri=uri)
    tracker.start("run", {"seed": 1}, {"recipe": "tiny"})
    longest = 0.0
    step = 0

    def train(seconds: float) -> None:
        nonlocal longest, step
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            step += 1
            began = time.monotonic()
            tracker.metrics("student", {"loss": float(step)}, step)
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.02)

    try:
        tracker.stage_start("student", {"epochs": 3})
        train(3)
        server.stop()  # the requests of the next seconds are taken by the kernel, and answered after the time-out
        tracker.stage_start("late", {"epochs": 1})
        train(60)
        server.go_on()
        train(15)
        server.kill()
        train(10)
        server = _server(tmp_path, port)
        train(5)
        picture = run / "picture.png"
        picture.write_bytes(b"png")
        tracker.artifact(picture, "student")
        tracker.stage_end("student", "FINISHED")
        tracker.end("FINISHED")

        assert longest < 0.5
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("tests").experiment_id
        runs = client.search_runs([experiment])
        assert sorted(found.info.run_name for found in runs) == ["late", "run", "student"]
        assert next(found for found in runs if found.info.run_name == "run").info.status == "FINISHED"
        student = next(found for found in runs if found.info.run_name == "student").info.run_id
        history = client.get_metric_history(student, "loss")
        assert [metric.step for metric in history] == list(range(1, step + 1))
        assert [artifact.path for artifact in client.list_artifacts(student)] == ["picture.png"]
        assert push(run).new_rows == 0
        assert "holds all of them" in delivery_status(run)
    finally:
        server.kill()


class _Server:
    """An `mlflow server` in a process group of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "artifacts")]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
            )

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _server(folder: Path, port: int) -> _Server:
    server = _Server(folder, port)

    def answers() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
                return answer.status == 200
        except (URLError, OSError):
            return False

    try:
        _until(answers, 240)
    except BaseException:
        server.kill()
        raise
    return server


def _until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
