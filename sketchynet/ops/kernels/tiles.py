"""What the kernels share: the product of two sets of rows, and how a kernel is launched and tuned.

Shapes: BM rows of a and BN rows of b in a tile, BK elements of the embedding in a step, D embedding size.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.cache import get_cache_manager
from triton.runtime.errors import OutOfResources
from triton.tools.tensor_descriptor import TensorDescriptor

from sketchynet.ops.backend import interpreting


@triton.jit
def dot_tile(
    a, b,  # tensor descriptors where DESCRIBED, else pointers; rows of D elements
    first_a, first_b,  # of the BM and BN rows to multiply
    rows_a, rows_b,  # rows there are: those past the end come out as any numbers
    stride_a, stride_b,
    column_a, column_b,  # first element of the embedding
    D,
    total,  # float32 (BM, BN)
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    EVEN: tl.constexpr,  # D is a multiple of BK: nothing to mask
    DESCRIBED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """total with the products of rows of a and rows of b added, on the tensor cores."""
    if DESCRIBED:  # the copy engine brings tiles to shared memory, and zeros for what lies outside of the tensor
        for start in range(0, D, BK):
            left, right = a.load([first_a, column_a + start]), b.load([first_b, column_b + start])
            total = tl.dot(left, right.T, total, input_precision=PRECISION)
    else:
        k = tl.arange(0, BK)
        # Rows past the end are those of the start: read in vain.
        i, j = (first_a + tl.arange(0, BM)) % rows_a, (first_b + tl.arange(0, BN)) % rows_b
        a_tile = a + i.to(tl.int64)[:, None] * stride_a + column_a + k[None, :]
        b_tile = b + j.to(tl.int64)[None, :] * stride_b + column_b + k[:, None]
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


DESCRIPTORS_SINCE = (9, 0)
"""Compute capability from which on a GPU copies tiles by tensor descriptors."""


@functools.cache
def device_properties(device: torch.device) -> Any:
    """As torch's, which takes several microseconds a call."""
    return torch.cuda.get_device_properties(device)


def described(device: torch.device) -> bool:
    """Whether kernels take their rows by tensor descriptors, else by pointers."""
    if interpreting():
        return DESCRIPTORS_SINCE <= (9, 0)
    found = device_properties(device)
    return (found.major, found.minor) >= DESCRIPTORS_SINCE


def rows_in_place(tensor: Tensor) -> Tensor:
    """The tensor itself where kernels can step through its rows, else a copy in which rows begin at 16 bytes."""
    contiguous = tensor.stride(-1) == 1 or tensor.shape[-1] == 1
    steps = [tensor.data_ptr(), *(stride * tensor.itemsize for stride in tensor.stride()[:-1])]
    if contiguous and all(step % 16 == 0 for step in steps):
        return tensor
    width, line = tensor.shape[-1], 16 // tensor.itemsize
    copy = tensor.new_empty((*tensor.shape[:-1], triton.cdiv(width, line) * line))[..., :width]
    return copy.copy_(tensor)


def operand(rows: Tensor) -> Tensor | TensorDescriptor:
    """Rows (n, D) in place, as `dot_tile` takes them; the blocks of a descriptor are set at the launch."""
    if not described(rows.device):
        return rows
    return TensorDescriptor(rows, list(rows.shape), [rows.stride(0), 1], [16, 16])


def float32_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in float32, by the library's product: half precision is summed in float32 where the device can."""
    if a.dtype == torch.float32 or not (a.is_cuda and hasattr(torch.ops.aten.mm, "dtype")):
        return a.float() @ b.float()
    return torch.mm(a, b, out_dtype=torch.float32)


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
    """A kernel with the block sizes it may take: the fastest for a key is found once and kept, on disk too.

    The interpreter has no clock worth reading: it takes the first blocks, the biggest, since its cost goes by the
    number of programs.
    """

    def __init__(
        self,
        kernel: Any,
        configs: Sequence[triton.Config],
        key: Sequence[str],
        *,
        operands: Mapping[str, tuple[str, str]],
        reset: Sequence[str] = (),
    ) -> None:
        """operands: arguments made by `operand`, with the names of their blocks; reset: arguments to start from zero."""
        self.kernel, self.configs = kernel, tuple(configs)
        self.pinned: triton.Config | None = None
        """Taken without tuning, for tests and measurements."""
        self.best: dict[tuple[Any, ...], triton.Config] = {}
        """The fastest for every key met."""
        self.operands = dict(operands)
        self._key, self._reset = tuple(key), tuple(reset)

    def pin(self, number: int | None) -> None:
        """Takes the blocks of that number without tuning; None tunes again."""
        self.pinned = None if number is None else self.configs[number]

    @property
    def choices(self) -> list[dict[str, Any]]:
        """Every set of block sizes that may run."""
        return [self.pinned.kwargs] if self.pinned is not None else [c.kwargs for c in self.configs]

    def launch(self, grid: Callable[[dict[str, Any]], tuple[int, ...]], *arguments: Any, **meta: Any) -> None:
        named = dict(zip(self.kernel.arg_names, arguments, strict=False)) | meta
        chosen = self.pinned
        if chosen is None:
            chosen = self.configs[0] if interpreting() else self._fastest(grid, arguments, meta, named)
        self._run(chosen, grid, arguments, meta, named)

    def _run(self, chosen: triton.Config, grid: Any, arguments: Any, meta: Any, named: dict[str, Any]) -> None:
        for name, blocks in self.operands.items():
            if isinstance(named[name], TensorDescriptor):
                named[name].block_shape = [chosen.kwargs[block] for block in blocks]
        options = {} if interpreting() else {"num_warps": chosen.num_warps, "num_stages": chosen.num_stages}
        self.kernel[grid](*arguments, **meta, **chosen.kwargs, **options)

    def _fastest(self, grid: Any, arguments: Any, meta: Any, named: dict[str, Any]) -> triton.Config:
        held = [t.base if isinstance(t, TensorDescriptor) else t for t in (named[o] for o in self.operands)]
        device = device_properties(held[0].device).name
        key = (device, *(t.dtype for t in held), *(named[name] for name in self._key))
        if key in self.best:
            return self.best[key]
        stated = [self.kernel.cache_key, triton.__version__, *key, *self.configs]
        store = get_cache_manager(hashlib.sha256(repr([str(part) for part in stated]).encode()).hexdigest())
        found = store.get_file("blocks.json")
        if found is None:
            times = [self._time(choice, grid, arguments, meta, named) for choice in self.configs]
            store.put(json.dumps(times), "blocks.json", binary=False)
        else:
            times = json.loads(Path(found).read_text())
        self.best[key] = self.configs[min(range(len(times)), key=times.__getitem__)]
        for name in self._reset:
            named[name].zero_()
        return self.best[key]

    def _time(self, choice: triton.Config, grid: Any, arguments: Any, meta: Any, named: dict[str, Any]) -> float:
        """Milliseconds; infinite where the device has not the memory that the blocks need."""

        def trial() -> None:
            for name in self._reset:
                named[name].zero_()
            self._run(choice, grid, arguments, meta, named)

        try:
            return float(triton.testing.do_bench(trial, warmup=10, rep=30, return_mode="median"))
        except OutOfResources:
            return float("inf")
