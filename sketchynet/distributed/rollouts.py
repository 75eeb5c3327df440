"""Rollouts of the canvas policy, spread over actors.

A rollout rasterises a sketch on the chosen canvas, embeds it with the frozen student and ranks the gallery.
The work is cut into chunks of a fixed number of rows, whatever the number of actors, and every actor computes
with one thread: the result is the same to the bit for any number of actors.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch

from sketchynet.distributed.session import connect
from sketchynet.errors import InputError
from sketchynet.stages.runtime import Rollout, RolloutRequest, RolloutResult

import ray  # isort: skip  (after session, which sets Ray's environment)
from ray.exceptions import RayActorError, RayTaskError  # isort: skip

__all__ = ["RolloutPool", "RolloutStatistics"]

_log = logging.getLogger(__name__)
_NOTICE_SECONDS = 60.0
_QUEUED = 2  # chunks an actor holds: the next one is already there when it finishes one


@dataclass(frozen=True)
class RolloutStatistics:
    """What a pool has done so far."""

    rollouts: int
    """Rows answered."""
    seconds: float
    """Wall-clock seconds spent inside calls."""
    actors: int
    restarts: int
    """Actors that died and were replaced."""


@ray.remote(num_cpus=1, max_restarts=0)
class RolloutActor:
    """Builds the worker once and answers chunks with it."""

    def __init__(self, factory: Callable[[], Rollout]) -> None:
        torch.set_num_threads(1)
        self._factory = factory
        self._worker: Rollout | None = None

    def build(self) -> None:
        """Builds the worker; here, not in ``__init__``, so that its exception arrives as itself."""
        if self._worker is None:
            self._worker = self._factory()

    def run(self, request: RolloutRequest) -> RolloutResult:
        self.build()
        assert self._worker is not None
        return self._worker(request)


class RolloutPool:
    """Answers requests with ``actors`` processes; a context manager that ends them.

    ``worker_factory`` is pickled once into Ray's object store and called once in every actor. What it holds
    (student weights, gallery embeddings) is therefore stored once a machine, however many actors read it;
    numpy arrays in it arrive read-only.

    An actor that dies is replaced and its chunks are answered again, at most ``retries`` times each; after
    that RuntimeError. An exception in the worker is raised here as itself.
    """

    def __init__(
        self,
        worker_factory: Callable[[], Rollout],
        actors: int,
        chunk: int = 64,
        *,
        retries: int = 3,
        gpus_per_actor: float = 0.0,
    ) -> None:
        if actors < 1 or chunk < 1:
            raise InputError(f"a rollout pool needs actors >= 1 and chunk >= 1, not {actors} and {chunk}")
        connect(actors)
        self._chunk = chunk
        self._retries = retries
        self._gpus = gpus_per_actor
        self._factory = ray.put(worker_factory)
        self._rollouts = 0
        self._seconds = 0.0
        self._restarts = 0
        self._actors: list[Any] = [self._start() for _ in range(actors)]
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def __call__(self, request: RolloutRequest) -> RolloutResult:
        """Answers all rows of ``request``, in order."""
        if not self._actors:
            raise RuntimeError("the rollout pool is closed")
        began = time.perf_counter()
        parts = [request.part(slice(at, at + self._chunk)) for at in range(0, len(request), self._chunk)]
        result = RolloutResult.join(self._answer(parts))
        self._rollouts += len(request)
        self._seconds += time.perf_counter() - began
        return result

    @property
    def statistics(self) -> RolloutStatistics:
        return RolloutStatistics(self._rollouts, self._seconds, len(self._actors), self._restarts)

    def close(self) -> None:
        """Ends the actors; calling it again does nothing."""
        actors, self._actors = self._actors, []
        for actor in actors:
            ray.kill(actor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _build(self) -> None:
        """Waits until every actor has built its worker; says so while the cluster has no room for them."""
        built = [actor.build.remote() for actor in self._actors]
        while True:
            ready, missing = ray.wait(built, num_returns=len(built), timeout=_NOTICE_SECONDS)
            _get(ready)
            if not missing:
                return
            free = ray.available_resources().get("CPU", 0)
            _log.warning("%d rollout actors wait for a free CPU each (%g are free)", len(missing), free)

    def _start(self) -> Any:
        return RolloutActor.options(num_gpus=self._gpus).remote(self._factory)  # type: ignore[attr-defined]

    def _answer(self, parts: list[RolloutRequest]) -> list[RolloutResult]:
        """Results of the parts, in their order."""
        answers: list[RolloutResult | None] = [None] * len(parts)
        losses = [0] * len(parts)
        waiting = deque(range(len(parts)))
        running: dict[Any, tuple[int, int, Any]] = {}  # reference -> part, slot, actor

        def fill(slot: int, room: int) -> None:
            for _ in range(min(room, len(waiting))):
                index, actor = waiting.popleft(), self._actors[slot]
                running[actor.run.remote(parts[index])] = (index, slot, actor)

        for _ in range(_QUEUED):  # one chunk each before anyone gets a second one
            for slot in range(len(self._actors)):
                fill(slot, 1)
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            index, slot, actor = running.pop(done)
            try:
                answers[index] = _get(done)
                fill(slot, 1)
            except RayActorError as error:
                losses[index] += 1
                if losses[index] > self._retries:
                    raise RuntimeError(
                        f"a rollout actor died {losses[index]} times on the same {len(parts[index])} rows "
                        f"(out of memory?): {error}"
                    ) from error
                waiting.appendleft(index)
                if self._actors[slot] is actor:
                    self._replace(slot)
                    fill(slot, _QUEUED)
                else:  # another chunk of the same dead actor; its successor has room for this one
                    fill(slot, 1)
        return [answer for answer in answers if answer is not None]

    def _replace(self, slot: int) -> None:
        _log.warning("rollout actor %d died; a new one takes its place", slot)
        self._actors[slot] = self._start()
        self._restarts += 1


def _get(references: Any) -> Any:
    """``ray.get`` that raises a worker's exception as the worker raised it."""
    try:
        return ray.get(references)
    except RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from error
        raise
