"""What a stage needs from whatever runs it.

A stage trains one network. It is handed a :class:`Runtime` and knows nothing of processes, Ray or MLflow:
the same stage code runs in this process (:class:`LocalRuntime`) and on a cluster
(``sketchynet.distributed``).

Data-parallel training follows one rule: every worker embeds its share of the global batch, gathers the
embeddings of all workers, and computes the loss of the whole global batch. Gradients flow into a worker's
own rows only and are summed over the workers, which gives the gradient of the single-process loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch

__all__ = ["LocalRuntime", "Report", "RolloutRequest", "RolloutResult", "Runtime", "agreed", "spread"]

_SPREAD = 16384
"""Rows that :func:`spread` asks about before the answers are put together: what a worker holds of them stays small."""


@dataclass(frozen=True)
class Report:
    """One message of a stage to whoever keeps the records (picklable)."""

    stage: str
    """Name of the stage, e.g. ``"teacher-0"``."""
    kind: Literal["start", "progress", "metrics", "notice", "artifact", "end"]
    step: int = 0
    """Epochs done; metrics belong to the last of them."""
    metrics: dict[str, float] = field(default_factory=dict)
    payload: dict[str, Any] = field(default_factory=dict)
    """``start``: ``epochs`` and ``parameters``; ``progress``: ``share`` of the epoch under way;
    ``notice``: ``text`` for whoever watches; ``artifact``: ``path``; ``end``: ``status``."""


@dataclass(frozen=True)
class RolloutRequest:
    """Choices of the policy that want a reward; n of them.

    A choice is addressed by numbers alone, so that a request is small: the worker that answers holds the
    sketches, the frozen students and their galleries.
    """

    sketches: np.ndarray
    """int64 (n,): index of the sketch in the paired set."""
    views: np.ndarray
    """int64 (n,): number of the seeded augmentation of that sketch; 0 is the sketch as drawn."""
    canvases: np.ndarray
    """int64 (n,): index of the chosen canvas."""

    def __len__(self) -> int:
        return len(self.sketches)

    def part(self, rows: slice | np.ndarray) -> RolloutRequest:
        """The request for some of the rows."""
        return RolloutRequest(self.sketches[rows], self.views[rows], self.canvases[rows])


@dataclass(frozen=True)
class RolloutResult:
    """What choices of the policy led to: (n,) of a :class:`RolloutRequest`, row by row, or a table of any shape."""

    ranks: np.ndarray
    """int64: rank of the true photo, from 1; in a table 0 where it is not known."""
    triplets: np.ndarray
    """float32: triplet loss against the nearest other photo of the gallery."""
    clearness: np.ndarray
    """float64 in [0, 1]: how far the best answer is ahead of the second, whether it is true or not."""

    @classmethod
    def unknown(cls, *shape: int) -> RolloutResult:
        """A table to be filled."""
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.float32), np.zeros(shape, np.float64))

    @classmethod
    def join(cls, parts: Iterable[RolloutResult]) -> RolloutResult:
        """Results of consecutive parts, put together."""
        listed = list(parts)
        if not listed:
            return cls.unknown(0)
        return cls(*(np.concatenate(columns) for columns in zip(*(part.columns for part in listed), strict=True)))

    @property
    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ranks, triplet losses, clearness."""
        return self.ranks, self.triplets, self.clearness

    def at(self, place: Any) -> RolloutResult:
        """Those at some place, as NumPy indexes it."""
        return RolloutResult(*(column[place] for column in self.columns))

    def put(self, place: Any, found: RolloutResult) -> None:
        """Fills in what was found at some place."""
        for column, values in zip(self.columns, found.columns, strict=True):
            column[place] = values


Rollout = Callable[[RolloutRequest], RolloutResult]


class FrozenStudents(Protocol):
    """A rollout by frozen students that are held at hand: picklable, and at home on any device."""

    def __call__(self, request: RolloutRequest) -> RolloutResult:
        """Outcomes of the request's rows, in its order."""

    def to(self, device: torch.device) -> Self:
        """The same on a device."""


class Runtime(Protocol):
    """The services that a stage is handed."""

    rank: int
    world_size: int
    device: torch.device

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of all workers, (sum of n, ...), in rank order; gradient flows into this worker's rows only.

        The number of rows may differ between workers and may be zero.
        """

    def share(self, row: torch.Tensor) -> torch.Tensor:
        """The rows (n,) of all workers, (world size, n), in rank order, without gradient: one short message."""

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replaces every ``.grad`` by its sum over the workers (a missing one counts as zero)."""

    def average_buffers(self, module: torch.nn.Module) -> None:
        """Replaces floating-point buffers (running statistics) by their mean over the workers."""

    def barrier(self) -> None:
        """Waits until every worker is here."""

    def report(self, report: Report) -> None:
        """Hands a report to the keeper of the records; only rank 0's reports are kept."""


def agreed(runtime: Runtime, value: int) -> int:
    """Rank 0's value, on every worker: what one of them has found on the storage, all act upon."""
    return int(runtime.gather(torch.tensor([int(value)], device=runtime.device))[0])


def spread(
    runtime: Runtime, rows: np.ndarray, answer: Callable[[np.ndarray], tuple[torch.Tensor, ...]]
) -> Iterator[tuple[np.ndarray, tuple[torch.Tensor, ...]]]:
    """What a frozen network answers about many rows, every worker asked about its share.

    Args:
        rows: int64 (n,), the same on every worker.
        answer: for some of the rows, perhaps none, one tensor or several with a row for each.

    Yields:
        Some of the rows, in their order, and the answers to them on the CPU; the same on every worker.
    """
    for first in range(0, len(rows), _SPREAD):
        block = rows[first : first + _SPREAD]
        own = answer(np.array_split(block, runtime.world_size)[runtime.rank])
        yield block, tuple(runtime.gather(part.to(runtime.device)).cpu() for part in own)


class LocalRuntime:
    """Runs a stage alone in this process."""

    rank = 0
    world_size = 1

    def __init__(
        self, *, device: str | torch.device = "cpu", listener: Callable[[Report], None] | None = None
    ) -> None:
        self.device = torch.device(device)
        self._listener = listener

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        return rows

    def share(self, row: torch.Tensor) -> torch.Tensor:
        return row[None]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        return None

    def average_buffers(self, module: torch.nn.Module) -> None:
        return None

    def barrier(self) -> None:
        return None

    def report(self, report: Report) -> None:
        if self._listener is not None:
            self._listener(report)
