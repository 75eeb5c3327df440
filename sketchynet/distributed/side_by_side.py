"""Networks that do not need each other, trained side by side in processes of this machine.

One small network keeps neither a card nor the cores busy: parts of every step run in one thread. Two networks with a
thread each do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

from sketchynet.distributed.processes import Post, Processes
from sketchynet.errors import InputError
from sketchynet.stages.runtime import LocalRuntime, Report, Runtime

__all__ = ["train_side_by_side"]

Train = Callable[[Collection[str], Runtime], None]
"""Trains the networks of those names; picklable."""


def train_side_by_side(
    plan: Mapping[str, Collection[str]],
    train: Train,
    *,
    jobs: int,
    threads: int,
    listener: Callable[[Report], None],
    consoles: Path,
    device: str = "cpu",
) -> None:
    """Trains the networks of a plan, ``jobs`` at a time, each in a process of its own.

    Args:
        plan: name of a network → names of those that must be finished before.
        threads: CPU threads of each process.
        listener: is called in this thread with the reports of all of them.
        consoles: folder for what the processes print, which is little: reports go to the listener.

    Raises:
        InputError: one was not finished; says why. The others are ended at once, and go on where they were when asked
            again.
    """
    waiting, finished = dict(plan), set[str]()
    with Processes(threads=threads) as processes:
        while waiting or len(processes):
            ready = [name for name, needed in waiting.items() if finished.issuperset(needed)]
            for name in ready[: jobs - len(processes)]:
                del waiting[name]
                processes.start(name, partial(_train, train, name, device), consoles / f"{name}.txt", listener)
            for ended in processes.wait():
                if ended.died:
                    raise InputError(f"{ended.name} was not finished: {ended.error}. --resume goes on; with fewer --jobs if memory was short")
                if ended.error is not None:
                    raise InputError(ended.error)
                finished.add(ended.name)


def _train(train: Train, name: str, device: str, post: Post) -> None:
    train((name,), LocalRuntime(device=device, listener=post))
