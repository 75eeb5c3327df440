"""Data-parallel training: several stages in a row inside one Ray Train run.

A Ray Train run spends half a minute before its first step, so a job is a function that runs all stages that
train on the same workers. Ray starts the workers, joins them in a process group and starts them again when
one dies; everything else is :class:`TorchRuntime`'s and the stages' own.

Reports travel through one small actor, the mailbox: rank 0 posts, the driver takes. The driver's main thread
calls the listener, so that whoever keeps the records (MLflow, progress bars) lives in one ordinary thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sketchynet.distributed.interfaces import RoutedTorchConfig
from sketchynet.distributed.runtime import TorchRuntime
from sketchynet.distributed.session import connect, cores
from sketchynet.errors import InputError
from sketchynet.stages.runtime import Report, Runtime
from sketchynet.storage import is_local

import ray  # isort: skip  (after session, which sets Ray's environment)
import ray.train  # isort: skip
from ray.exceptions import RayActorError  # isort: skip
from ray.train.torch import TorchTrainer, get_device  # isort: skip

__all__ = ["run_training"]

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.2
_FIRST_LINE = 200  # characters of an error shown in a notice; the whole of it is raised or in Ray's logs


class RunEndedError(RuntimeError):
    """Raised in a worker whose driver no longer listens."""


@ray.remote(num_cpus=0)
class Mailbox:
    """Holds reports and notices until the driver takes them, and the reason why a run must end."""

    def __init__(self) -> None:
        self._posted: list[Report | str] = []
        self._refusal: str | None = None
        self._ended = False

    def post(self, message: Report | str) -> bool:
        """Keeps a message; False when the run has ended and nobody will read it."""
        if not self._ended:
            self._posted.append(message)
        return not self._ended

    def take(self) -> list[Report | str]:
        """All messages since the last call, in the order of their arrival."""
        posted, self._posted = self._posted, []
        return posted

    def refuse(self, message: str) -> None:
        """Ends the run for bad input; the first reason counts."""
        if not self._ended:
            self._refusal = message
        self._ended = True

    def end(self) -> None:
        """Ends the run from the driver."""
        self._ended = True

    def ended(self) -> bool:
        return self._ended

    def refusal(self) -> str | None:
        """Message of the InputError that ended the run."""
        return self._refusal


class _FailureWatch(ray.train.UserCallback):
    """Decides in Ray's controller whether a failed worker group may start again.

    A run that was ended on purpose must not: the exception raised here is one that Ray does not retry.
    """

    def __init__(self, mailbox: Any, max_failures: int) -> None:
        self._mailbox = mailbox
        self._max_failures = max_failures
        self._failures = 0

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        if ray.get(self._mailbox.ended.remote()):
            raise RunEndedError("the run was ended")
        self._failures += 1
        if self._failures <= self._max_failures:
            # A dead worker is the cause; that its peers lost the connection is the consequence.
            rank, error = min(
                worker_exceptions.items(), key=lambda item: (not isinstance(item[1], RayActorError), item[0])
            )
            cause = "died" if isinstance(error, RayActorError) else f"failed ({_last_line(error)})"
            notice = (
                f"worker {rank} {cause}; all workers start again from the last checkpoint "
                f"({self._failures} of {self._max_failures} times)"
            )
            ray.get(self._mailbox.post.remote(notice))


def run_training(
    job: Callable[[Runtime], None],
    *,
    workers: int,
    storage: Path,
    name: str,
    listener: Callable[[Report], None],
    threads_per_worker: int | None = None,
    gpu: bool = False,
    max_failures: int = 0,
) -> None:
    """Runs ``job(runtime)`` in every one of ``workers`` processes and returns when all have finished.

    ``job`` runs in its own copy in every worker (cloudpickle) and, when a worker dies, is called again on a
    new group of workers, at most ``max_failures`` times: it finds out by itself, from the checkpoints that
    its rank 0 wrote, where to go on. ``storage`` is a folder that all machines share, or a URL; Ray keeps its own
    notes on the run in ``storage/ray/name``. ``listener`` is called in this thread with rank 0's reports, in
    order, while training runs. A worker uses ``threads_per_worker`` CPU threads (default: the cores of its
    machine divided by the workers there) and, with ``gpu``, one GPU.

    Raises InputError with the same message when a worker raised one, the listener's exception when it raised
    one, and ``ray.train.TrainingFailedError`` when workers failed too often.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}: distributed training needs at least 1")
    connect(workers, gpu=gpu)
    mailbox = Mailbox.remote()  # type: ignore[attr-defined]  # added by ray.remote
    trainer = TorchTrainer(
        _worker_function(job, mailbox, threads_per_worker, gpu),
        torch_config=RoutedTorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=ray.train.RunConfig(
            name=name,
            **_storage_of_ray(storage),
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
            callbacks=[_FailureWatch(mailbox, max_failures)],  # type: ignore[list-item]  # hint is of Ray Tune
        ),
    )
    fit = _Fit(trainer)
    try:
        fit.start()
        while fit.is_alive():
            fit.join(_POLL_SECONDS)
            _deliver(mailbox, listener)
        _deliver(mailbox, listener)
        refusal = ray.get(mailbox.refusal.remote())
        if refusal is not None:
            raise InputError(refusal)
        if fit.error is not None:
            raise fit.error
    finally:
        # After an exception of the listener (or Ctrl-C) the workers stop at their next report.
        ray.get(mailbox.end.remote())
        fit.join()
        ray.kill(mailbox)


def _storage_of_ray(storage: Path) -> dict[str, Any]:
    """Ray's settings for a place: it wants an absolute path, and pyarrow's kind of file system."""
    if is_local(storage):
        return {"storage_path": str(storage.resolve() / "ray")}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    remote: Any = storage / "ray"
    return {"storage_path": remote.path, "storage_filesystem": PyFileSystem(FSSpecHandler(remote.fs))}


class _Fit(threading.Thread):
    """``trainer.fit()`` beside the main thread, where Ray would also replace the handler of Ctrl-C."""

    def __init__(self, trainer: TorchTrainer) -> None:
        super().__init__(name="ray-train-fit", daemon=True)
        self._trainer = trainer
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._trainer.fit()
        except Exception as error:  # noqa: BLE001 (raised again in the main thread, by run_training)
            self.error = error


def _worker_function(
    job: Callable[[Runtime], None], mailbox: Any, threads: int | None, gpu: bool
) -> Callable[[], None]:
    """What a worker runs."""

    def post(report: Report) -> None:
        # Waiting for the answer keeps reports in order and a report that returned cannot be lost.
        if not ray.get(mailbox.post.remote(report)):
            raise RunEndedError("the driver ended the run")

    def work() -> None:
        local = ray.train.get_context().get_local_world_size()
        torch.set_num_threads(threads or max(1, cores() // local))
        try:
            job(TorchRuntime(device=get_device() if gpu else "cpu", listener=post))
        except InputError as error:
            ray.get(mailbox.refuse.remote(str(error)))
            raise

    return work


def _deliver(mailbox: Any, listener: Callable[[Report], None]) -> None:
    """Takes what has arrived: reports to the listener, notices to the log."""
    for message in ray.get(mailbox.take.remote()):
        if isinstance(message, Report):
            listener(message)
        else:
            _log.warning(message)


def _last_line(error: Exception) -> str:
    """Name and message of an error whose text is a whole traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:_FIRST_LINE]
