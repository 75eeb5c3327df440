"""Runs side by side: real processes that finish, fail, die and are left behind."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import torch

from sketchynet.errors import InputError
from sketchynet.experiments.processes import Ended, Processes


def succeed(place: Path) -> None:
    print(f"with {torch.get_num_threads()} thread")
    place.write_text("done")


def refuse() -> None:
    raise InputError("no such weights: put them there")


def break_down() -> None:
    raise KeyError("a defect")


def be_killed() -> None:
    print("allocating", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(place: Path) -> None:
    place.write_text("begun")
    time.sleep(600)


def test_every_end_is_told(tmp_path: Path) -> None:
    works = {"good": partial(succeed, tmp_path / "result"), "refused": refuse, "broken": break_down, "killed": be_killed}
    ended: dict[str, Ended] = {}
    most = 0
    with Processes(3, threads=1) as processes:
        while works or len(processes):
            while works and not processes.full:
                name = next(iter(works))
                processes.start(name, works.pop(name), tmp_path / f"{name}.txt")
            most = max(most, len(processes))
            ended |= {end.name: end for end in processes.wait()}
    assert most == 3
    assert ended["good"].error is None and (tmp_path / "result").read_text() == "done"
    assert "with 1 thread" in (tmp_path / "good.txt").read_text()
    assert ended["refused"].error == "no such weights: put them there"
    assert ended["broken"].error == f"its process ended with status 1; its last words are in {tmp_path / 'broken.txt'}"
    assert "KeyError: 'a defect'" in (tmp_path / "broken.txt").read_text()
    assert ended["killed"].error == f"its process was ended by signal 9; its last words are in {tmp_path / 'killed.txt'}"
    assert "allocating" in (tmp_path / "killed.txt").read_text()


def test_none_is_left_behind(tmp_path: Path) -> None:
    with Processes(2, threads=1) as processes:
        assert processes.wait() == []
        processes.start("long", partial(sleep, tmp_path / "begun"), tmp_path / "long.txt")
        while not (tmp_path / "begun").exists():
            assert processes.wait() == []
        [process] = [running.process for running in processes._running.values()]
    assert process.exitcode == -signal.SIGTERM
