"""A gallery that may be larger than the device's memory, chunk by chunk where the queries lie.

Shapes: G gallery rows, D embedding size, B queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sketchynet.errors import InputError
from sketchynet.ops.checks import FLOATS, require_finite

Gallery = Tensor | NDArray[Any]
"""Embeddings (G, D): a tensor, or an array that may be a memory map (`numpy.load(path, mmap_mode="r")`)."""


class GalleryRows:
    """Rows of a gallery, brought to a device as they are asked for.

    A gallery on the host is copied to a CUDA device through pinned memory on a stream of its own, one chunk ahead of
    the one that is worked on, so that the copy hides behind the work.
    """

    def __init__(self, operator: str, queries: Tensor, gallery: Gallery) -> None:
        self._operator, self._gallery, self._device = operator, gallery, queries.device
        if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1] or queries.shape[1] == 0:
            raise InputError(
                f"{operator} needs queries (B, D) and gallery (G, D) of one embedding size; got "
                f"{tuple(queries.shape)} and {tuple(gallery.shape)}"
            )
        if len(gallery) == 0:
            raise InputError(f"{operator}: the gallery is empty; it must hold at least one photo")
        self.dtype = self._read(0, 0).dtype
        for name, dtype in (("queries", queries.dtype), ("gallery", self.dtype)):
            if dtype not in FLOATS:
                raise InputError(
                    f"{operator}: {name} are {dtype}; embeddings must be float16, bfloat16, float32 or float64"
                )
        if queries.dtype != self.dtype:
            raise InputError(
                f"{operator} needs one type of embeddings, found queries {queries.dtype} and gallery {self.dtype}: "
                "convert with .to(dtype)"
            )
        held = gallery.device if isinstance(gallery, Tensor) else torch.device("cpu")
        if held != self._device and held.type != "cpu":
            raise InputError(
                f"{operator}: queries lie on {self._device}, the gallery on {held}: move the queries there, or the "
                "gallery to the CPU, from where it streams to any device"
            )
        self.moves = held != self._device
        """Whether rows are copied to the device."""

    def __len__(self) -> int:
        return len(self._gallery)

    def _read(self, first: int, last: int) -> Tensor:
        part = self._gallery[first:last]
        if isinstance(part, Tensor):
            return part
        # A copy of these rows alone; torch does not take a read-only map.
        return torch.from_numpy(np.array(part))

    def take(self, rows: Tensor) -> Tensor:
        """Rows (n,) of the gallery, on the device."""
        if isinstance(self._gallery, Tensor):
            return self._gallery[rows.to(self._gallery.device)].to(self._device)
        return torch.from_numpy(np.array(self._gallery[rows.cpu().numpy()])).to(self._device)

    def chunks(self, size: int, start: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """Number of the first row, and up to `size` rows, in order; with `start` rows at first, growing eightfold."""
        ends = [0]
        while ends[-1] < len(self):
            ends.append(min(ends[-1] + min(size, (start or size) * 8 ** (len(ends) - 1)), len(self)))
        spans = list(pairwise(ends))
        if self.moves and self._device.type == "cuda":
            yield from self._ahead(spans)
            return
        for first, last in spans:
            yield first, self._read(first, last).to(self._device)

    def _ahead(self, spans: list[tuple[int, int]]) -> Iterator[tuple[int, Tensor]]:
        stream = torch.cuda.Stream(self._device)

        def send(first: int, last: int) -> tuple[int, Tensor, torch.cuda.Event]:
            host = self._read(first, last).pin_memory()
            with torch.cuda.stream(stream):
                rows = host.to(self._device, non_blocking=True)
            return first, rows, stream.record_event()

        following = send(*spans[0])
        for number in range(len(spans)):
            first, rows, ready = following
            if number + 1 < len(spans):
                following = send(*spans[number + 1])
            current = torch.cuda.current_stream(self._device)
            current.wait_event(ready)
            rows.record_stream(current)  # its memory returns to the copying stream when the work on it is done
            yield first, rows

    def check(self, first: int, rows: Tensor) -> None:
        """InputError where a row of a chunk is not finite."""
        require_finite(self._operator, "gallery", rows, first, len(self))


def check_targets(operator: str, target: Tensor, queries: int, device: torch.device) -> None:
    """InputError unless target is int64 (queries,) and lies on the device."""
    if target.shape != (queries,) or target.dtype != torch.int64:
        raise InputError(f"{operator}: target must be int64 ({queries},); got {target.dtype} {tuple(target.shape)}")
    if target.device != device:
        raise InputError(f"{operator}: target lies on {target.device}, queries on {device}: move it with .to(device)")


def check_target_rows(operator: str, target: Tensor, gallery: int) -> None:
    """InputError unless all are rows of the gallery. Waits for the device."""
    outside = (target < 0) | (target >= gallery)
    if bool(outside.any()):
        row = int(outside.nonzero()[0, 0])
        raise InputError(
            f"{operator}: target {int(target[row])} of query {row} is no row of a gallery of {gallery} photos"
        )
