"""Rollouts of the canvas policy, spread over actors.

A rollout rasterises a sketch on a canvas, embeds it with the frozen student and ranks the gallery. The work is cut
into chunks of a fixed number of rows, whatever the number of actors, and every actor computes with one thread: the
result is the same to the bit for any number of actors, and whichever of them answers a chunk.

So a chunk may be given to a second actor when the first is slow, and the first answer counts: neither a slow actor nor
a dead one holds the batch.
"""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from sketchynet.distributed.session import connect
from sketchynet.errors import InputError
from sketchynet.stages.runtime import Rollout, RolloutRequest, RolloutResult

import ray  # isort: skip  (after session, which sets Ray's environment)
from ray.exceptions import RayActorError, RayTaskError  # isort: skip

__all__ = ["RolloutPool", "RolloutStatistics"]

_log = logging.getLogger(__name__)
_NOTICE_SECONDS = 60.0
_POLL_SECONDS = 0.5
_QUEUED = 2  # chunks an actor holds: the next one is already there when it finishes one
_SLOW = 4.0  # times the median chunk: the actor is slow, and an idle one takes over what it holds
_SLOW_SECONDS = 1.0  # at least; below, handing a chunk over would cost more than waiting


@dataclass(frozen=True)
class RolloutStatistics:
    """What a pool has done so far."""

    rollouts: int
    """Rows answered."""
    seconds: float
    """Wall-clock seconds spent inside calls."""
    actors: int
    restarts: int
    """Actors that died or stalled and were replaced."""
    reassigned: int
    """Chunks of slow actors that were given to another one as well."""


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
            worker = self._factory()
            if ray.get_gpu_ids() and hasattr(worker, "to"):
                worker = worker.to(torch.device("cuda"))
            self._worker = worker

    def run(self, request: RolloutRequest) -> RolloutResult:
        assert self._worker is not None
        return self._worker(request)


@dataclass(eq=False)
class _Slot:
    """A place of the pool and the actor in it."""

    actor: Any
    building: bool = True
    """Whether it has not said yet that it has its worker."""
    held: int = 0
    """Calls of it that are not answered yet."""
    heard: float = 0.0
    """Monotonic time of its last answer, or of the chunk that ended its idleness."""


@dataclass
class _Call:
    """The chunks of one request under way."""

    parts: list[RolloutRequest]

    def __post_init__(self) -> None:
        self.answers: list[RolloutResult | None] = [None] * len(self.parts)
        self.losses = [0] * len(self.parts)  # actors that died with the chunk
        self.copies = [0] * len(self.parts)  # actors that hold it
        self.waiting = deque(range(len(self.parts)))

    @property
    def missing(self) -> int:
        return self.answers.count(None)


class RolloutPool:
    """Answers requests with ``actors`` processes; a context manager that ends them.

    ``worker_factory`` is put once into Ray's object store and called once in every actor. The arrays and tensors in it
    (student weights, gallery embeddings) lie once in the memory of a machine, however many actors read them; they
    are read-only.

    An actor that dies is replaced and its chunks are answered again, at most ``retries`` times each; after
    that RuntimeError, as after so many deaths before an actor had its worker. A chunk that a slow actor holds is given to an idle one too. An actor that has not answered for
    ``stalled_after`` seconds is taken for dead. An exception in the worker is raised here as itself.
    """

    def __init__(
        self,
        worker_factory: Callable[[], Rollout],
        actors: int,
        chunk: int = 64,
        *,
        retries: int = 3,
        gpus_per_actor: float = 0.0,
        stalled_after: float = 300.0,
    ) -> None:
        if actors < 1 or chunk < 1:
            raise InputError(f"a rollout pool needs actors >= 1 and chunk >= 1, not {actors} and {chunk}")
        connect(actors)
        self._chunk = chunk
        self._retries = retries
        self._gpus = gpus_per_actor
        self._stalled_after = stalled_after
        with _shared_tensors():
            self._factory = ray.put(worker_factory)
        self._rollouts = self._restarts = self._reassigned = self._unbuilt = 0
        self._seconds = 0.0
        self._durations: deque[float] = deque(maxlen=64)
        self._running: dict[Any, tuple[_Slot, _Call | None, int]] = {}
        self._slots: list[_Slot] = []
        try:
            self._slots = [self._start() for _ in range(actors)]
            self._wait_for_builds()
        except BaseException:
            self.close()
            raise

    def __call__(self, request: RolloutRequest) -> RolloutResult:
        """Answers all rows of ``request``, in order."""
        if not self._slots:
            raise RuntimeError("the rollout pool is closed")
        began = time.perf_counter()
        call = _Call([request.part(slice(at, at + self._chunk)) for at in range(0, len(request), self._chunk)])
        while call.missing:
            self._hand_out(call)
            self._hand_over(call)
            self._take(call)
            self._replace_stalled()
        self._rollouts += len(request)
        self._seconds += time.perf_counter() - began
        return RolloutResult.join([answer for answer in call.answers if answer is not None])

    @property
    def statistics(self) -> RolloutStatistics:
        return RolloutStatistics(
            self._rollouts, self._seconds, len(self._slots), self._restarts, self._reassigned
        )

    def close(self) -> None:
        """Ends the actors; calling it again does nothing."""
        slots, self._slots = self._slots, []
        self._running.clear()
        for slot in slots:
            ray.kill(slot.actor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> _Slot:
        """A new actor; it gets no chunk until it has its worker."""
        actor = RolloutActor.options(num_gpus=self._gpus).remote(self._factory)  # type: ignore[attr-defined]
        slot = _Slot(actor)
        self._running[actor.build.remote()] = slot, None, 0
        return slot

    def _wait_for_builds(self) -> None:
        """Waits until every actor has built its worker; says so while the cluster has no room for them."""
        said = time.monotonic()
        while any(slot.building for slot in self._slots):
            self._take(None)
            if time.monotonic() - said > _NOTICE_SECONDS:
                said = time.monotonic()
                missing = sum(slot.building for slot in self._slots)
                free = ray.available_resources()
                share = f" and {self._gpus:g} of a GPU" if self._gpus else ""
                _log.warning(
                    "%d rollout actors wait for a free CPU%s each (%g CPUs and %g GPUs are free)",
                    missing, share, free.get("CPU", 0), free.get("GPU", 0),
                )

    def _hand_out(self, call: _Call) -> None:
        """Gives waiting chunks to actors with room: one each before anyone gets a second one."""
        ready = [slot for slot in self._slots if not slot.building]
        while call.waiting and ready:
            slot = min(ready, key=lambda slot: slot.held)
            if slot.held >= _QUEUED:
                return
            self._give(slot, call, call.waiting.popleft())

    def _hand_over(self, call: _Call) -> None:
        """Gives chunks that slow actors hold to idle ones as well."""
        idle = [slot for slot in self._slots if not slot.building and not slot.held]
        if call.waiting or not idle or len(self._durations) < 3:
            return
        limit = max(_SLOW_SECONDS, _SLOW * statistics.median(self._durations))
        now = time.monotonic()
        for slot, of, index in list(self._running.values()):
            late = of is call and call.answers[index] is None and call.copies[index] == 1
            if late and now - slot.heard > limit and idle:
                self._reassigned += 1
                self._give(idle.pop(), call, index)

    def _give(self, slot: _Slot, call: _Call, index: int) -> None:
        if not slot.held:
            slot.heard = time.monotonic()
        slot.held += 1
        call.copies[index] += 1
        self._running[slot.actor.run.remote(call.parts[index])] = slot, call, index

    def _take(self, call: _Call | None) -> None:
        """Takes what has arrived, also of earlier calls, whose slow copies nobody waits for any more."""
        done, _ = ray.wait(list(self._running), num_returns=1, timeout=_POLL_SECONDS)
        for reference in done:
            slot, of, index = self._running.pop(reference)
            if of is not None:
                slot.held -= 1
                of.copies[index] -= 1
            try:
                answer = _get(reference)
            except RayActorError as error:
                self._lost(slot, of, index, error, wanted=of is call)
                continue
            except Exception:
                if of is None or of is call:
                    raise
                continue  # the call that asked has ended, by the same exception or by another actor's answer
            now = time.monotonic()
            if of is None:
                slot.building = False
            else:
                self._durations.append(now - slot.heard)
                if of.answers[index] is None:
                    of.answers[index] = answer
            slot.heard = now

    def _lost(self, slot: _Slot, of: _Call | None, index: int, error: RayActorError, *, wanted: bool) -> None:
        """Replaces a dead actor; the chunk it held waits again, unless another actor has it too."""
        if slot in self._slots:
            _log.warning("a rollout actor died; a new one takes its place")
            self._replace(slot)
        if of is None:
            self._unbuilt += 1
            if self._unbuilt > self._retries:
                raise RuntimeError(
                    f"{self._unbuilt} rollout actors died while they were built (out of memory?): {error}"
                ) from error
            return
        of.losses[index] += 1
        if not wanted or of.answers[index] is not None:
            return
        if of.losses[index] > self._retries:
            raise RuntimeError(
                f"a rollout actor died {of.losses[index]} times on the same {len(of.parts[index])} rows "
                f"(out of memory?): {error}"
            ) from error
        if not of.copies[index]:
            of.waiting.appendleft(index)

    def _replace_stalled(self) -> None:
        now = time.monotonic()
        for slot in list(self._slots):
            if slot.held and not slot.building and now - slot.heard > self._stalled_after:
                _log.warning("a rollout actor has not answered for %.0f s; a new one takes its place", now - slot.heard)
                ray.kill(slot.actor)
                self._replace(slot)

    def _replace(self, slot: _Slot) -> None:
        self._slots[self._slots.index(slot)] = self._start()
        self._restarts += 1


@contextmanager
def _shared_tensors() -> Iterator[None]:
    """Within it, what is put into the object store keeps its tensors there as arrays, which readers map.

    Ray maps arrays of numpy, but copies tensors into every process.
    """
    kinds = (torch.Tensor, torch.nn.Parameter)
    for kind in kinds:
        ray.util.register_serializer(kind, serializer=_to_array, deserializer=_from_array)
    try:
        yield
    finally:
        for kind in kinds:
            ray.util.deregister_serializer(kind)


def _to_array(tensor: torch.Tensor) -> tuple[np.ndarray, torch.dtype, tuple[int, ...], bool]:
    """Bytes, type and shape of a tensor, and whether it is a parameter."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return flat, tensor.dtype, tuple(tensor.shape), isinstance(tensor, torch.nn.Parameter)


def _from_array(given: tuple[np.ndarray, torch.dtype, tuple[int, ...], bool]) -> torch.Tensor:
    """The tensor, over the same memory; whoever writes to it would end the process."""
    flat, dtype, shape, parameter = given
    if not flat.size:
        tensor = torch.empty(shape, dtype=dtype)
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable")
            tensor = torch.from_numpy(flat).view(dtype).reshape(shape)
    return torch.nn.Parameter(tensor, requires_grad=False) if parameter else tensor


def _get(reference: Any) -> Any:
    """``ray.get`` that raises a worker's exception as the worker raised it."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from error
        raise
