"""Real processes that finish, fail, die, and are left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sketchynet.distributed.processes import Ended, Post, Processes
from sketchynet.errors import InputError


def succeed(place: Path, post: Post) -> None:
    print(f"with {torch.get_num_threads()} thread")
    place.write_text("done")


def refuse(post: Post) -> None:
    raise InputError("no such weights: put them there")


def break_down(post: Post) -> None:
    raise KeyError("a defect")


def be_killed(post: Post) -> None:
    print("allocating", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(place: Path, post: Post) -> None:
    place.write_text(str(os.getpid()))
    time.sleep(600)


def count(post: Post) -> None:
    for number in range(2000):  # more than a pipe holds
        post({"number": number, "text": "x" * 100})


def post_and_be_killed(post: Post) -> None:
    post("last words")
    be_killed(post)


def start_and_be_killed(place: Path) -> None:
    with Processes(threads=1) as processes:
        processes.start("orphan", partial(sleep, place), place.with_name("orphan.txt"))
        while not place.exists():
            processes.wait()
        os.kill(os.getpid(), signal.SIGKILL)


def test_every_end_is_told(tmp_path: Path) -> None:
    works = {"good": partial(succeed, tmp_path / "result"), "refused": refuse, "broken": break_down, "killed": be_killed}
    ended: dict[str, Ended] = {}
    with Processes(threads=1) as processes:
        while works or len(processes):
            while works and len(processes) < 3:
                name = next(iter(works))
                processes.start(name, works.pop(name), tmp_path / f"{name}.txt")
            assert len(processes) == 3 or not works
            ended |= {end.name: end for end in processes.wait()}
    assert {name for name, end in ended.items() if end.died} == {"broken", "killed"}
    assert ended["good"].error is None and (tmp_path / "result").read_text() == "done"
    assert "with 1 thread" in (tmp_path / "good.txt").read_text()
    assert ended["refused"].error == "no such weights: put them there"
    assert ended["broken"].error == f"its process ended with status 1; its last words are in {tmp_path / 'broken.txt'}"
    assert "KeyError: 'a defect'" in (tmp_path / "broken.txt").read_text()
    assert ended["killed"].error == f"its process was ended by signal 9; its last words are in {tmp_path / 'killed.txt'}"
    assert "allocating" in (tmp_path / "killed.txt").read_text()


def test_none_is_left_behind(tmp_path: Path) -> None:
    with Processes(threads=1) as processes:
        assert processes.wait() == []
        processes.start("long", partial(sleep, tmp_path / "begun"), tmp_path / "long.txt")
        while not (tmp_path / "begun").exists():
            assert processes.wait() == []
        [process] = [running.process for running in processes._running.values()]
    assert process.exitcode == -signal.SIGTERM


def ended_with_messages(work: Callable[[Post], object], console: Path) -> tuple[Ended, list[Any]]:
    messages: list[Any] = []
    with Processes(threads=1) as processes:
        processes.start("one", work, console, messages.append)
        while not (ended := processes.wait()):
            pass
    return ended[0], messages


def test_what_is_posted_arrives_in_order(tmp_path: Path) -> None:
    ended, messages = ended_with_messages(count, tmp_path / "folder" / "console.txt")
    assert ended == Ended("one", None)
    assert [message["number"] for message in messages] == list(range(2000))


def test_what_was_posted_before_a_death_arrives(tmp_path: Path) -> None:
    ended, messages = ended_with_messages(post_and_be_killed, tmp_path / "console.txt")
    assert ended.died and "signal 9" in (ended.error or "")
    assert messages == ["last words"]


def test_a_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    starter = multiprocessing.get_context("spawn").Process(target=start_and_be_killed, args=(tmp_path / "begun",))
    starter.start()
    starter.join(60)
    assert starter.exitcode == -signal.SIGKILL
    orphan, deadline = int((tmp_path / "begun").read_text()), time.monotonic() + 30
    while is_running(orphan):
        assert time.monotonic() < deadline, "the orphan goes on"
        time.sleep(0.05)


def is_running(process: int) -> bool:
    """Whether a process is there and no zombie, which an orphan in a container may stay for good."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
