"""Processes beside this one: several small trainings fill a card, or the cores, that one does not."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from sketchynet.errors import InputError

_POLL = 2.0  # seconds after which whoever waits may look around again

Post = Callable[[Any], None]
"""Sends something (picklable) from a process to the one that started it."""


@dataclass(frozen=True)
class Ended:
    """A process that is over."""

    name: str
    error: str | None
    """What went wrong, for a person; None where nothing did."""
    died: bool = False
    """Whether the process was ended from outside, or by a defect."""


@dataclass
class _Running:
    process: BaseProcess
    inbox: Connection
    listener: Post | None
    console: Path
    answered: bool = False
    error: str | None = None

    def take(self) -> None:
        """Hands on what the process has sent so far."""
        while self.inbox.poll():
            try:
                last, content = self.inbox.recv()
            except (EOFError, OSError):  # nothing more, or half a message of a process that was killed
                return
            if last:
                self.answered, self.error = True, content
            elif self.listener is not None:
                self.listener(content)


class Processes:
    """Processes that run beside this one; a context manager that ends those it leaves behind.

    A process whose starter dies ends as well: it would write where a resumed run writes.

    What a process prints, its progress bars included, goes to a file: those of several at once would be unreadable.
    """

    def __init__(self, *, threads: int) -> None:
        """``threads`` is how many CPU threads torch has in each of them."""
        self._threads = threads
        self._running: dict[str, _Running] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self, name: str, work: Callable[[Post], object], console: Path, listener: Post | None = None) -> None:
        """Calls ``work`` (picklable) in a new process, with what it prints appended to ``console``.

        What ``work`` posts arrives at the ``listener``, in order, while :meth:`wait` is called.
        """
        context = multiprocessing.get_context("spawn")  # a fork would inherit CUDA and the threads' locks
        inbox, sender = context.Pipe(duplex=False)
        console.parent.mkdir(parents=True, exist_ok=True)
        process = context.Process(target=_work, args=(work, console, self._threads, sender), name=name)
        process.start()
        sender.close()
        self._running[name] = _Running(process, inbox, listener, console)

    def wait(self) -> list[Ended]:
        """The processes that have ended; returns after a short while, or a message, if none has yet."""
        if not self._running:
            return []
        wait([end for running in self._running.values() for end in (running.process.sentinel, running.inbox)], timeout=_POLL)
        over = [name for name, running in self._running.items() if not running.process.is_alive()]
        for running in self._running.values():
            running.take()
        return [self._ended(name) for name in over]

    def _ended(self, name: str) -> Ended:
        running = self._running.pop(name)
        running.process.join()
        running.inbox.close()
        if running.answered:
            return Ended(name, running.error)
        # It was killed, or died of a defect, whose traceback it has printed.
        status = running.process.exitcode
        how = f"was ended by signal {-status}" if status is not None and status < 0 else f"ended with status {status}"
        return Ended(name, f"its process {how}; its last words are in {running.console}", died=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in self._running.values():
            running.process.terminate()
        for running in self._running.values():
            running.process.join()


def _work(work: Callable[[Post], object], console: Path, threads: int, sender: Connection) -> None:
    threading.Thread(target=_end_with_starter, name="end-with-starter", daemon=True).start()
    torch.set_num_threads(threads)
    # For good: a defect's traceback is printed after this function has ended.
    sys.stdout = sys.stderr = console.open("a", encoding="utf-8", buffering=1)
    print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}")
    try:
        work(lambda content: sender.send((False, content)))
    except InputError as error:
        sender.send((True, str(error)))
    except KeyboardInterrupt:
        sender.send((True, "interrupted"))
    else:
        sender.send((True, None))


def _end_with_starter() -> None:
    starter = multiprocessing.parent_process()
    assert starter is not None, "this process was started by another one"
    starter.join()
    os._exit(1)
