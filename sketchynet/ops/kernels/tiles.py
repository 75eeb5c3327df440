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
def wide(number):
    """An integer argument as int64; Triton makes arguments of 1 constants, which have no type to change."""
    return tl.zeros((), dtype=tl.int64) + number


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


def cdiv(number: int, by: int) -> int:
    """number / by, rounded up. (Triton's own takes several microseconds a call.)"""
    return -(-number // by)


def power_of_two(number: int) -> int:
    """The least power of two that is not below number ≥ 1."""
    return 1 << (number - 1).bit_length()


DESCRIPTORS_SINCE = (9, 0)
"""Compute capability from which on a GPU copies tiles by tensor descriptors."""


@functools.cache
def device_properties(device: torch.device) -> Any:
    """As torch's, which takes several microseconds a call."""
    return torch.cuda.get_device_properties(device)


@functools.cache
def _since(device: torch.device, capability: tuple[int, int]) -> bool:
    if interpreting():
        return capability <= (9, 0)
    found = device_properties(device)
    return (found.major, found.minor) >= capability


def described(device: torch.device) -> bool:
    """Whether kernels take their rows by tensor descriptors, else by pointers."""
    return _since(device, DESCRIPTORS_SINCE)


def rows_in_place(tensor: Tensor) -> Tensor:
    """The tensor itself where kernels can step through its rows, else a copy in which rows begin at 16 bytes."""
    contiguous = tensor.stride(-1) == 1 or tensor.shape[-1] == 1
    steps = [tensor.data_ptr(), *(stride * tensor.itemsize for stride in tensor.stride()[:-1])]
    if contiguous and all(step % 16 == 0 for step in steps):
        return tensor
    width, line = tensor.shape[-1], 16 // tensor.itemsize
    copy = tensor.new_empty((*tensor.shape[:-1], cdiv(width, line) * line))[..., :width]
    return copy.copy_(tensor)


def operand(rows: Tensor) -> Tensor | TensorDescriptor:
    """Rows (n, D) in place, as `dot_tile` takes them; the blocks of a descriptor are set at the launch."""
    if not described(rows.device):
        return rows
    # Its own checks take longer than to launch a kernel, and `rows_in_place` has seen to what they ask.
    found = TensorDescriptor.__new__(TensorDescriptor)
    vars(found).update(
        base=rows, shape=list(rows.shape), strides=[rows.stride(0), 1], block_shape=[16, 16], padding="zero"
    )
    return found


def float32_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in float32, by the library's product: half precision is summed in float32 where the device can."""
    if a.dtype == torch.float32 or not (a.is_cuda and hasattr(torch.ops.aten.mm, "dtype")):
        return a.float() @ b.float()
    return torch.mm(a, b, out_dtype=torch.float32)


@triton.jit
def as_tf32(x):
    """float32 rounded to the 11 bits that TF32 products read: sums of such numbers agree with their products."""
    rounded = ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return tl.where(x == x, rounded, x)  # noqa: PLR0124  the bits of a GPU's NaN, all ones, would round to zero


def precision_of(dtype: torch.dtype) -> str:
    """How products of float32 are taken: as the user told torch; half precision is exact in any case."""
    exact = dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return "tf32x3" if exact else "tf32"


def config(warps: int, stages: int, **blocks: int) -> triton.Config:
    return triton.Config(blocks, num_warps=warps, num_stages=stages)


def size_class(rows: int, columns: int) -> int:
    """Sizes that share tuned blocks: one class for each power of two of the matrix's elements."""
    return (rows * columns).bit_length()


_compiled: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}
"""Kernels by all that Triton compiles them for, with the values of their constants."""


def _kind(argument: Any) -> Any:
    """What of an argument Triton compiles a kernel for."""
    kind = type(argument)
    if kind is int:
        # 1 is a constant of the kernel, multiples of 16 are known as such, and large numbers take 64 bits.
        return argument == 1, argument % 16 == 0, argument.bit_length() > 31
    if kind is TensorDescriptor:
        return argument.base.dtype, *argument.block_shape
    if isinstance(argument, Tensor):
        return argument.dtype, argument.data_ptr() % 16 == 0
    return kind


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **meta: Any) -> None:
    """kernel[grid](*arguments, **meta), with all constants in meta.

    Triton takes 50 to 150 µs of Python for it, several times the operators' small kernels. So a kernel that was
    launched with arguments of the same kinds before is launched as it was compiled then. The first argument is a
    tensor or a descriptor of one.
    """
    key: tuple[Any, ...] = ()
    if not interpreting():
        first = arguments[0].base if isinstance(arguments[0], TensorDescriptor) else arguments[0]
        key = (id(kernel), first.device, *map(_kind, arguments), *meta.items())
        if key in _compiled:
            compiled, constants = _compiled[key]
            compiled[(*grid, 1, 1)](*arguments, *constants)
            return
    compiled = kernel[grid](*arguments, **meta)
    if compiled is not None:
        _compiled[key] = compiled, tuple(meta[name] for name in kernel.arg_names[len(arguments) :])


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
        self._place = {name: place for place, name in enumerate(kernel.arg_names)}

    def pin(self, number: int | None) -> None:
        """Takes the blocks of that number without tuning; None tunes again."""
        self.pinned = None if number is None else self.configs[number]

    @property
    def choices(self) -> list[dict[str, Any]]:
        """Every set of block sizes that may run."""
        return [self.pinned.kwargs] if self.pinned is not None else [c.kwargs for c in self.configs]

    def launch(
        self, grid: Callable[[dict[str, Any]], tuple[int, ...]], *arguments: Any, **meta: Any
    ) -> dict[str, Any]:
        """Runs the kernel; the blocks that it took."""
        chosen = self.pinned
        if chosen is None:
            chosen = self.configs[0] if interpreting() else self._fastest(grid, arguments, meta)
        self._run(chosen, grid, arguments, meta)
        return chosen.kwargs

    def _run(self, chosen: triton.Config, grid: Any, arguments: Any, meta: Any) -> None:
        for name, blocks in self.operands.items():
            operand = arguments[self._place[name]]
            if isinstance(operand, TensorDescriptor):
                operand.block_shape = [chosen.kwargs[block] for block in blocks]
        options = {} if interpreting() else {"num_warps": chosen.num_warps, "num_stages": chosen.num_stages}
        launch(self.kernel, grid(chosen.kwargs), *arguments, **meta, **chosen.kwargs, **options)

    def _fastest(self, grid: Any, arguments: Any, meta: Any) -> triton.Config:
        operands = [arguments[self._place[name]] for name in self.operands]
        held = [t.base if isinstance(t, TensorDescriptor) else t for t in operands]
        sizes = [meta[name] if name in meta else arguments[self._place[name]] for name in self._key]
        key = (held[0].device, *(t.dtype for t in held), *sizes)
        if key in self.best:
            return self.best[key]
        device = device_properties(held[0].device).name
        stated = [self.kernel.cache_key, triton.__version__, device, *key[1:], *self.configs]
        store = get_cache_manager(hashlib.sha256(repr([str(part) for part in stated]).encode()).hexdigest())
        found = store.get_file("blocks.json")
        if found is None:
            times = [self._time(choice, grid, arguments, meta) for choice in self.configs]
            store.put(json.dumps(times), "blocks.json", binary=False)
        else:
            times = json.loads(Path(found).read_text())
        self.best[key] = self.configs[min(range(len(times)), key=times.__getitem__)]
        self._clear(arguments)
        return self.best[key]

    def _clear(self, arguments: Any) -> None:
        for name in self._reset:
            arguments[self._place[name]].zero_()

    def _time(self, choice: triton.Config, grid: Any, arguments: Any, meta: Any) -> float:
        """Milliseconds; infinite where the device has not the memory that the blocks need."""

        def trial() -> None:
            self._clear(arguments)
            self._run(choice, grid, arguments, meta)

        try:
            return float(triton.testing.do_bench(trial, warmup=10, rep=30, return_mode="median"))
        except OutOfResources:
            return float("inf")
