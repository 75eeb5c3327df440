"""Checkpoints on a folder and on URLs, and the lock that keeps two runs apart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from networks import Stop, student_stage
from small import small_recipe

from sketchynet import checkpoint, cli, storage
from sketchynet.errors import InputError
from sketchynet.stages.runtime import LocalRuntime
from sketchynet.stages.training import train_network
from sketchynet.storage import is_local, remove_tree, run_lock, storage_place


@pytest.fixture(params=["folder", "local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder; a folder reached as a URL through fsspec; a store in memory."""
    if request.param == "folder":
        return tmp_path / "run"
    if request.param == "local":
        return storage_place(f"local://{tmp_path}/run")
    return storage_place(f"memory://{tmp_path.name}/run")


def write(directory: Path, value: float) -> None:
    network = {"w": torch.full((3,), value)}
    checkpoint.write_checkpoint(directory, network=network, config={}, metrics={}, state={"value": value})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_checkpoints_are_the_same_on_every_storage(place: Path) -> None:
    for epoch in (1, 2, 3):
        write(checkpoint.epoch_directory(place, epoch), epoch)
    write(checkpoint.epoch_directory(place, 3), 3.5)  # replaces
    checkpoint.prune_epochs(place, keep=2)
    assert names(place) == ["epoch-00002", "epoch-00003"]
    newest, damaged = checkpoint.newest_whole(place)
    assert newest is not None and newest.name == "epoch-00003" and not damaged
    assert checkpoint.read_state(newest) == {"value": 3.5}
    assert checkpoint.read_network(newest)["w"].tolist() == [3.5] * 3
    content = (newest / "state.json").read_bytes()
    (newest / "state.json").write_bytes(content.replace(b"3.5", b"3.6"))
    newest, damaged = checkpoint.newest_whole(place)
    assert newest is not None and newest.name == "epoch-00002"
    assert len(damaged) == 1 and "epoch-00003/state.json is damaged" in damaged[0]
    checkpoint.prune_epochs(place, keep=0)
    assert checkpoint.newest_whole(place) == (None, [])


def test_an_upload_that_was_cut_off_is_no_checkpoint(place: Path) -> None:
    write(place / "final", 1)
    write(place / "epoch-00001", 1)
    if is_local(place):
        (place / ".epoch-00002-x").mkdir()
    else:
        (place / "epoch-00002").mkdir()
        (place / "epoch-00002" / "network.safetensors").write_bytes(b"half")
        assert not checkpoint.is_complete(place / "epoch-00002")
    newest, damaged = checkpoint.newest_whole(place)
    assert newest is not None and newest.name == "epoch-00001" and not damaged
    checkpoint.remove_partial(place)
    assert names(place) == ["epoch-00001", "final"]
    assert checkpoint.is_complete(place / "final")


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_an_upload_that_fails_leaves_nothing(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = storage_place(f"{kind}://{tmp_path}/run")
    write(place / "epoch-00001", 1)
    original, files = type(place.fs).put_file, []

    def failing(self, source: str, target: str, **options) -> None:
        files.append(target)
        if len(files) == 3:
            raise RuntimeError("access denied")  # stores have exceptions of their own
        original(self, source, target, **options)

    monkeypatch.setattr(type(place.fs), "put_file", failing)
    with pytest.raises(InputError, match="epoch-00002: RuntimeError: access denied; nothing of it was kept"):
        write(place / "epoch-00002", 2)
    assert names(place) == ["epoch-00001"]


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_stage_resumes_from_a_url_alone(tmp_path: Path, kind: str) -> None:
    """Bit for bit, with nothing left on this machine."""
    changes = ("student.optimization.epochs=3",)
    stage, full = student_stage(*changes)
    train_network(stage, LocalRuntime(), tmp_path / "alone")
    place = storage_place(f"{kind}://{tmp_path}/runs/killed")

    stage, watched = student_stage(*changes)

    watched.stop = 3
    with pytest.raises(Stop):
        train_network(stage, LocalRuntime(), place)
    assert names(place) == ["epoch-00001"]
    stage, watched = student_stage(*changes)
    train_network(stage, LocalRuntime(), place)
    assert watched.losses == full.losses[2:]
    assert names(place) == ["final"]
    expected = checkpoint.read_network(tmp_path / "alone" / "final")
    for name, value in checkpoint.read_network(place / "final").items():
        assert value.equal(expected[name])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s9://bucket/run", "Unsupported filesystem.*give a folder or a URL"),
        ("adl://store/run", "storage adl://store/run:.*pip install"),
    ],
)
def test_a_storage_that_cannot_be_reached_is_named(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        storage_place(url)


def test_file_urls_are_folders() -> None:
    assert storage_place("file:///srv/runs/a") == Path("/srv/runs/a")


def test_two_runs_on_one_place_are_refused_at_once(place: Path) -> None:
    with run_lock(place):
        began = time.monotonic()
        message = rf"is in use by another run: .* process {os.getpid()}.*or remove .*lock.json"
        with pytest.raises(InputError, match=message), run_lock(place):
            raise AssertionError("two runs held one place")
        assert time.monotonic() - began < 5
        assert (place / "lock.json").exists()
    assert not (place / "lock.json").exists()
    with run_lock(place):
        pass


def test_lock_of_a_process_that_is_gone_is_taken_over(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    entry = storage._entry() | {"process": gone.pid, "started": storage._start_of(gone.pid)}
    gone.wait()
    place.mkdir(parents=True, exist_ok=True)
    (place / "lock.json").write_text(json.dumps(entry))
    with run_lock(place):
        assert json.loads((place / "lock.json").read_text())["process"] == os.getpid()
    assert f"(process {gone.pid} on" in caplog.text


@pytest.mark.parametrize("age", [30.0, 90.0])
def test_lock_of_another_host_holds_as_long_as_it_is_renewed(place: Path, age: float) -> None:
    then = time.time() - age
    entry = storage._entry() | {"host": "elsewhere", "since": then, "seen": then}
    place.mkdir(parents=True, exist_ok=True)
    (place / "lock.json").write_text(json.dumps(entry))
    if is_local(place):
        os.utime(place / "lock.json", (then, then))
    if age > 60:
        with run_lock(place):
            pass
    else:
        with pytest.raises(InputError, match="on elsewhere, process"), run_lock(place):
            pass


def test_lock_is_renewed_and_its_loss_is_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage, "_BEAT_SECONDS", 0.02)
    with run_lock(place):
        first = storage._holder(place / "lock.json")
        deadline = time.monotonic() + 10
        while storage._holder(place / "lock.json")["seen"] <= first["seen"]:
            assert time.monotonic() < deadline, "the lock was not renewed"
            time.sleep(0.02)
        other = storage._entry()
        while "was taken away" not in caplog.text:  # again and again: a beat may write at the same moment
            (place / "lock.json").write_text(json.dumps(other))
            assert time.monotonic() < deadline, "the loss of the lock was not noticed"
            time.sleep(0.02)
        (place / "lock.json").write_text(json.dumps(other))
    assert json.loads((place / "lock.json").read_text())["token"] == other["token"]  # not ours to remove
    remove_tree(place)


def test_a_place_without_rights_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = "cannot be written .*check the address and your rights"
    with pytest.raises(InputError, match=message), run_lock(tmp_path / "file" / "run"):
        pass


def test_a_run_goes_on_from_its_storage_on_another_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of the driver is lost; recipe and checkpoints are found on the storage, figures return to it."""
    recipe, url = tmp_path / "small.json", f"local://{tmp_path}/store/run"
    recipe.write_text(small_recipe().model_dump_json())
    common = ["--cache", str(tmp_path / "cache"), "--track", "jsonl"]
    first = [str(recipe), "--storage", url, "--output", str(tmp_path / "lost")]
    assert cli.main(["train", *first, "--stage", "teacher", *common]) == 0
    assert names(tmp_path / "lost") == ["recipe.json", "reports.jsonl", "storage.json", "tracking.json"]
    assert cli.main(["train", *first, *common]) == 2
    assert f"{url} holds a run already: --resume {url}, or give another --storage" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "lost")
    assert cli.main(["train", "--resume", url, "--output", str(tmp_path / "new"), *common]) == 0
    store = tmp_path / "store" / "run"
    for name in ("evaluation.json", "table.txt", "summary.json", "pictures/training.png"):
        assert (store / name).read_bytes() == (tmp_path / "new" / name).read_bytes()
    assert not (tmp_path / "new" / "student").exists() and (store / "selector" / "final").exists()
    assert cli.main(["evaluate", str(tmp_path / "new"), "--cache", str(tmp_path / "cache")]) == 0  # by the pointer
    assert not (store / "lock.json").exists()


def test_a_storage_that_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = storage_place(f"memory://{tmp_path.name}/run")

    def refuse(self, path: str, **options) -> None:
        raise RuntimeError("403 Forbidden")

    monkeypatch.setattr(type(place.fs), "info", refuse)
    monkeypatch.setattr(type(place.fs), "exists", refuse)
    for option in ("--storage", "--resume"):
        arguments = [] if option == "--resume" else ["demo", "--output", str(tmp_path / "out")]
        with pytest.raises(InputError, match=f"{option} memory://.*403 Forbidden; check the address and your rights"):
            options = cli.parser().parse_args(["train", *arguments, option, str(place)])
            options.run(options)
