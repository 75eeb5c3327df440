"""Which implementation of an operator runs."""

from __future__ import annotations

import functools
import importlib.util
import os

import torch
from torch import Tensor

from sketchynet.errors import InputError

BACKENDS = ("auto", "eager", "triton")
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Types of the embeddings that the Triton kernels take."""


@functools.cache
def interpreting() -> bool:
    """Whether Triton's interpreter runs the kernels, on CPU tensors (TRITON_INTERPRET=1; for tests)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _what_is_missing() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (it comes with CUDA builds of torch)"
    if importlib.util.find_spec("triton.tools.tensor_descriptor") is None:
        return "this version of triton has no tensor descriptors: the kernels need 3.4 or newer (torch 2.8)"
    return None


@functools.cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _why_not_triton(tensors: tuple[Tensor, ...]) -> str | None:
    """What keeps the kernels from taking these tensors, with the way out; None where nothing does."""
    missing = _what_is_missing()
    if missing is not None:
        return missing
    for tensor in tensors:
        if tensor.dtype not in KERNEL_DTYPES:
            return f"the kernels take float32, bfloat16 and float16, not {tensor.dtype}: convert the embeddings"
        if tensor.device.type == "cuda":
            if _capability(tensor.device) < (8, 0):
                name = torch.cuda.get_device_name(tensor.device)
                return f"{name} is older than compute capability 8.0, whose tensor cores the kernels use"
        elif not (interpreting() and tensor.device.type == "cpu"):
            return f"the embeddings lie on {tensor.device}: move them to a CUDA device"
    return None


def choose_backend(backend: str, *tensors: Tensor) -> str:
    """Resolve `backend` to the implementation that runs on `tensors`, "eager" or "triton".

    "auto" takes the kernels on a CUDA device that has them and the eager operator elsewhere; an explicit choice
    that is not available raises InputError.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r} is unknown: choose one of {', '.join(BACKENDS)}")
    if backend == "eager":
        return "eager"
    if backend == "auto" and not any(t.is_cuda for t in tensors):
        return "eager"
    reason = _why_not_triton(tensors)
    if reason is None:
        return "triton"
    if backend == "triton":
        raise InputError(f"backend 'triton' cannot run here: {reason}; or choose backend='auto' or 'eager'")
    return "eager"
