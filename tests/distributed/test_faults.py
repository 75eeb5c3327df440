"""Real runs on Ray through kills, a full disk and a damaged checkpoint: each ends as the run that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small import small_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

STAGES = ("teacher-0", "direct", "student", "selector")
LIMIT = 600.0  # seconds of a wait; runs take one to two minutes on two idle cores


@dataclass
class Run:
    """A ``sketchynet train`` process on a Ray instance of its own."""

    process: subprocess.Popen
    log: Path

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, what: str, found: Callable[[], object], *, pause: float = 0.005):
        """What ``found`` returns as soon as it is true."""
        deadline = time.monotonic() + LIMIT
        while not (value := found()):
            assert self.process.poll() is None, f"ended before {what}:\n{self.said()}"
            assert time.monotonic() < deadline, f"no {what} in {LIMIT:.0f} s:\n{self.said()}"
            time.sleep(pause)
        return value

    def actors(self, title: str) -> list[int]:
        """Ids of the Ray workers under this driver whose title holds ``title``."""
        import psutil

        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if title in " ".join(child.cmdline()):
                    found.append(child.pid)
            except psutil.NoSuchProcess:
                continue
        return found

    def end(self) -> str:
        """Waits for success; what was printed."""
        assert self.process.wait(LIMIT) == 0, self.said()
        return self.said()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    recipe = small_recipe(
        "teacher.optimization.epochs=20",
        "student.optimization.epochs=20",
        "selector.views=6",
        "selector.optimization.epochs=4",
    )
    (folder / "small.json").write_text(recipe.model_dump_json())
    (folder / "home").mkdir()
    return folder


@pytest.fixture
def start(base: Path):
    """Starts runs, and ends those that a test leaves behind."""
    runs: list[Run] = []

    def starter(name: str, *, resume: bool = False, storage: str | None = None) -> Run:
        where = ["--resume", base / name] if resume else [base / "small.json", "--output", base / name]
        where += [] if storage is None else ["--storage", storage]
        options = ["--cache", base / "cache", "--workers", 2, "--actors", 2, "--track", "jsonl"]
        command = [sys.executable, "-m", "sketchynet.cli", "train", *map(str, [*where, *options])]
        log = base / f"{name}-{len(runs)}.log"
        environment = os.environ | {"HOME": str(base / "home"), "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
        with log.open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        runs.append(Run(process, log))
        return runs[-1]

    yield starter
    for run in runs:
        if run.process.poll() is None:
            run.process.terminate()
            run.process.wait(60)


@pytest.fixture
def alone(base: Path, start) -> Path:
    """The run that is left alone; made once."""
    if not (base / "alone" / "table.txt").exists():
        start("alone").end()
    return base / "alone"


def wait_until_gone(processes: list[int]) -> None:
    import psutil

    assert processes
    deadline = time.monotonic() + 60
    while left := [process for process in processes if psutil.pid_exists(process)]:
        assert time.monotonic() < deadline, f"processes {left} outlive their driver by a minute"
        time.sleep(0.1)


def assert_same_run(found: Path, wanted: Path) -> None:
    for stage in STAGES:
        tensors, expected = (load_file(run / stage / "final" / "network.safetensors") for run in (found, wanted))
        assert tensors.keys() == expected.keys()
        for name, tensor in expected.items():
            assert tensor.equal(tensors[name]), f"{stage}: {name} differs"
    assert (found / "table.txt").read_text() == (wanted / "table.txt").read_text()


def test_a_training_worker_and_a_rollout_actor_are_killed(base: Path, alone: Path, start) -> None:
    """With the checkpoints at a URL, which workers and driver reach through fsspec."""
    place = base / "store" / "killed"
    run = start("killed", storage=f"local://{place}")
    run.wait_for("checkpoint of the student", lambda: list((place / "student").glob("epoch-*")))
    os.kill(run.actors("RayTrainWorker")[-1], signal.SIGKILL)
    os.kill(run.wait_for("rollout", lambda: run.actors("RolloutActor.run"))[0], signal.SIGKILL)
    said = run.end()
    assert "all workers start again from the last checkpoint (1 of 2 times)" in said
    assert "a rollout actor died; a new one takes its place" in said
    assert_same_run(place, alone)


def test_the_driver_is_killed_and_the_last_checkpoint_damaged(base: Path, alone: Path, start) -> None:
    run, place = start("driver"), base / "driver"
    run.wait_for("second checkpoint of the student", lambda: len(list((place / "student").glob("epoch-*"))) > 1)
    workers = run.actors("RayTrainWorker")
    for worker in workers:  # until they notice that the driver is gone they would train on, and be done
        os.kill(worker, signal.SIGSTOP)
    run.process.kill()
    run.process.wait(60)
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    wait_until_gone(workers)
    assert not (place / "student" / "final").exists()
    newest = max((place / "student").glob("epoch-*"))
    file = newest / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    said = start("driver", resume=True).end()
    assert f"{newest.name}/state.safetensors is damaged" in said and "going on from the checkpoint before it" in said
    assert "taking over" in said and "ended without a word" in said
    assert_same_run(place, alone)


SCENARIO = """
set -u
mount -t tmpfs -o size=$2 none $1
"$3" -m sketchynet.cli train small.json --output $1/run $4; first=$?
ls -A $1/run/teacher-0
mount -o remount,size=500m $1
"$3" -m sketchynet.cli train --resume $1/run $4 && cp -r $1/run full
echo first=$first
"""


def test_the_disk_is_full_at_a_checkpoint(base: Path, alone: Path) -> None:
    """A small tmpfs in a mount namespace of its own fills up; then it grows, and the run goes on."""
    enter = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no mount namespace")
    state = sum(f.stat().st_size for f in (alone / "teacher-0" / "final").iterdir())
    (base / "disk").mkdir()
    options = f"--cache {base}/cache --workers 2 --actors 2 --track jsonl"
    environment = os.environ | {"HOME": str(base / "home"), "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*enter, "sh", "-c", SCENARIO, "sh", base / "disk", str(9 * state), sys.executable, options],
        cwd=base, env=environment, capture_output=True, text=True, timeout=2 * LIMIT, check=False,
    )
    assert done.returncode == 0 and done.stdout.rstrip().endswith("first=2"), done.stdout + done.stderr
    assert "the disk is full; nothing of it was kept" in done.stderr
    left = [line for line in done.stdout.splitlines() if "epoch-" in line]
    assert left and not any(name.startswith(".") for name in left)
    assert_same_run(base / "full", alone)
