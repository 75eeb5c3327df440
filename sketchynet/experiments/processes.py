"""Runs in processes of their own, side by side: several small trainings fill a card, or the cores, that one does not."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from sketchynet.errors import InputError

CONSOLE_NAME = "console.txt"
_POLL = 2.0  # seconds after which finished stages are looked for again


@dataclass(frozen=True)
class Ended:
    """A process that is over."""

    name: str
    error: str | None
    """What went wrong, for a person; None where nothing did."""


@dataclass(frozen=True)
class _Running:
    process: BaseProcess
    answer: Connection
    console: Path


class Processes:
    """Processes that run beside this one; a context manager that ends those it leaves behind.

    What a process prints, its progress bars included, goes to a file: those of several at once would be unreadable.
    """

    def __init__(self, *, threads: int) -> None:
        """``threads`` is how many CPU threads torch has in each of them."""
        self._threads = threads
        self._running: dict[str, _Running] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self, name: str, work: Callable[[], object], console: Path) -> None:
        """Calls ``work`` (picklable) in a new process, with what it prints appended to ``console``."""
        context = multiprocessing.get_context("spawn")  # a fork would inherit CUDA and the threads' locks
        answer, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(work, console, self._threads, sender), name=name)
        process.start()
        sender.close()
        self._running[name] = _Running(process, answer, console)

    def wait(self) -> list[Ended]:
        """The processes that have ended, after a short while if none has yet."""
        if not self._running:
            return []
        wait([running.process.sentinel for running in self._running.values()], timeout=_POLL)
        over = [name for name, running in self._running.items() if not running.process.is_alive()]
        return [self._ended(name) for name in over]

    def _ended(self, name: str) -> Ended:
        running = self._running.pop(name)
        running.process.join()
        with running.answer:
            try:
                return Ended(name, running.answer.recv())
            except EOFError:  # it was killed, or died of a defect, whose traceback it has printed
                status = running.process.exitcode
        how = f"was ended by signal {-status}" if status is not None and status < 0 else f"ended with status {status}"
        return Ended(name, f"its process {how}; its last words are in {running.console}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in self._running.values():
            running.process.terminate()
        for running in self._running.values():
            running.process.join()


def _work(work: Callable[[], object], console: Path, threads: int, sender: Connection) -> None:
    torch.set_num_threads(threads)
    # For good: a defect's traceback is printed after this function has ended.
    sys.stdout = sys.stderr = console.open("a", encoding="utf-8", buffering=1)
    print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}")
    try:
        work()
    except InputError as error:
        sender.send(str(error))
    except KeyboardInterrupt:
        sender.send("interrupted")
    else:
        sender.send(None)
