"""What the kernels share: the product of two sets of rows, and how a kernel is launched and tuned.

Shapes: BM rows of a and BN rows of b in a tile, BK elements of the embedding in a step, D embedding size.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sketchynet.ops.backend import interpreting


@triton.jit
def dot_tile(
    a, b,  # pointers; rows of D contiguous elements
    rows_a, rows_b,  # int64 (BM,), (BN,): rows to multiply, all within the tensors
    stride_a, stride_b,
    D,
    total,  # float32 (BM, BN)
    BK: tl.constexpr,
    EVEN: tl.constexpr,  # D is a multiple of BK: nothing to mask
    PRECISION: tl.constexpr,
):  # fmt: skip
    """total with the products of rows of a and rows of b added, on the tensor cores."""
    k = tl.arange(0, BK)
    a_tile = a + rows_a[:, None] * stride_a + k[None, :]
    b_tile = b + rows_b[None, :] * stride_b + k[:, None]
    for start in range(0, D, BK):
        if EVEN:
            left, right = tl.load(a_tile), tl.load(b_tile)
        else:
            left = tl.load(a_tile, mask=k[None, :] < D - start, other=0.0)
            right = tl.load(b_tile, mask=k[:, None] < D - start, other=0.0)
        total = tl.dot(left, right, total, input_precision=PRECISION)
        a_tile += BK
        b_tile += BK
    return total


def rows_in_place(tensor: Tensor) -> Tensor:
    """The tensor itself where its last axis is contiguous, else a contiguous copy: kernels step rows by a stride."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def precision_of(dtype: torch.dtype) -> str:
    """How products of float32 are taken: as the user told torch; half precision is exact in any case."""
    exact = dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return "tf32x3" if exact else "tf32"


def config(warps: int, stages: int, **blocks: int) -> triton.Config:
    return triton.Config(blocks, num_warps=warps, num_stages=stages)


def size_class(rows: int, columns: int) -> int:
    """Sizes that share tuned blocks: one class for each power of two of the matrix's elements."""
    return (rows * columns).bit_length()


class Tuned:
    """A kernel with the block sizes it may take: the fastest for a key is found once and cached.

    Triton's autotuner keeps the winner on disk (`cache_results`). The interpreter has no clock worth reading: it
    takes the first blocks, the biggest, since its cost goes by the number of programs.
    """

    def __init__(
        self,
        kernel: Any,
        configs: Sequence[triton.Config],
        key: Sequence[str],
        *,
        reset: Sequence[str] = (),
    ) -> None:
        self.kernel, self.configs = kernel, tuple(configs)
        self.pinned: dict[str, Any] | None = None
        """Block sizes, num_warps and num_stages to take without tuning, for tests and measurements."""
        self._key, self._reset = list(key), list(reset)
        self._tuned: Any = None

    def pin(self, number: int | None) -> None:
        """Takes the blocks of that number without tuning; None tunes again."""
        if number is None:
            self.pinned = None
        else:
            chosen = self.configs[number]
            self.pinned = chosen.kwargs | {"num_warps": chosen.num_warps, "num_stages": chosen.num_stages}

    @property
    def choices(self) -> list[dict[str, Any]]:
        """Every set of block sizes that may run."""
        return [self.pinned] if self.pinned is not None else [c.kwargs for c in self.configs]

    def launch(self, grid: Callable[[dict[str, Any]], tuple[int, ...]], *arguments: Any, **meta: Any) -> None:
        if self.pinned is not None or interpreting():
            self.kernel[grid](*arguments, **meta, **self.choices[0])
            return
        if self._tuned is None:
            # Arguments in `reset` are zeroed before every trial and before the run that counts.
            settings: dict[str, Any] = {"key": self._key, "reset_to_zero": self._reset or None}
            if "cache_results" in inspect.signature(triton.autotune).parameters:  # since Triton 3.4
                settings["cache_results"] = True
            self._tuned = triton.autotune(list(self.configs), **settings)(self.kernel)
        self._tuned[grid](*arguments, **meta)

    @property
    def best(self) -> str:
        """The block sizes taken last, as text."""
        return str(getattr(self._tuned, "best_config", self.pinned))
