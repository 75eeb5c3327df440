"""Ranks on the CPU: matrix products by torch, comparisons and exact differences in C++ (`csrc/rank.cpp`).

Shapes: B queries, n gallery rows of a chunk, D embedding size.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sketchynet import _core
from sketchynet.ops.bounds import bounds


def _array(rows: Tensor) -> NDArray[np.float32]:
    return rows.numpy()


def _squares(rows: Tensor, threads: int) -> Tensor:
    found = np.empty(len(rows))
    _core.row_squares(_array(rows), threads, found)
    return torch.from_numpy(found)


class NativeCounter:
    """Counts, chunk by chunk, the rows that lie at most as far from each query as its true one."""

    def __init__(self, queries: Tensor, true_rows: Tensor) -> None:
        """queries and true_rows float32, float16 or bfloat16 (B, D) on the CPU."""
        self._queries = queries.float().contiguous()
        self._threads = torch.get_num_threads()
        self._true = np.empty(len(queries))
        _core.row_distances(_array(self._queries), _array(true_rows.float().contiguous()), self._true)
        self._squares = _squares(self._queries, self._threads)
        self._threshold = (torch.from_numpy(self._true) - self._squares) / 2.0
        self._products = torch.empty(0)
        self._counts = np.zeros(len(queries), dtype=np.int64)

    @property
    def counts(self) -> Tensor:
        """int64 (B,)."""
        return torch.from_numpy(self._counts)

    def add(self, chunk: Tensor) -> bool:
        """Counts the rows of a chunk (n, D); False, and nothing counted, where one of them is not finite."""
        chunk = chunk.float().contiguous()
        squares = _squares(chunk, self._threads)
        if not bool(torch.isfinite(squares).all()):  # float64 holds the square of every finite float32
            return False
        bound = bounds(self._squares, squares, chunk.shape[1], torch.float32)
        low, high = bound.cuts(self._threshold)
        size = len(self._queries) * len(chunk)
        if self._products.numel() < size:
            self._products = torch.empty(size)
        products = self._products[:size].view(len(self._queries), len(chunk))
        torch.mm(self._queries, chunk.T, out=products)
        _core.count_nearer(
            _array(products),
            _array(self._queries),
            _array(chunk),
            _array(bound.above),
            _array(bound.below),
            _array(low),
            _array(high),
            self._true,
            self._threads,
            self._counts,
        )
        return True
