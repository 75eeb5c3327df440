"""Checks of embeddings that the operators share: each passes silently or raises InputError."""

from __future__ import annotations

import torch
from torch import Tensor

from sketchynet.errors import InputError, NotFiniteError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def require_floats(operator: str, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise InputError(
                f"{operator}: {name} is {tensor.dtype}; embeddings must be float16, bfloat16, float32 or float64"
            )


def require_same(operator: str, **tensors: Tensor) -> None:
    """Floating point, of one type, on one device."""
    require_floats(operator, **tensors)
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    if len(set(dtypes.values())) > 1:
        found = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise InputError(f"{operator} needs one type of embeddings, found {found}: convert with .to(dtype)")
    devices = {name: tensor.device for name, tensor in tensors.items()}
    if len(set(devices.values())) > 1:
        found = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise InputError(f"{operator} needs embeddings on one device, found {found}: move them with .to(device)")


def require_finite(operator: str, name: str, rows: Tensor, first: int = 0, total: int | None = None) -> None:
    """Every element of rows (n, D) finite, else NotFiniteError; `first` is the number of row 0 among the `total` rows of `name`."""
    # A sum is finite where every element is, short of an overflow, and costs no second matrix.
    suspects = (~torch.isfinite(rows.sum(dim=1, dtype=torch.float32))).nonzero()[:, 0]
    bad = suspects[~torch.isfinite(rows[suspects]).all(dim=1)] if len(suspects) else suspects
    if len(bad):
        row = first + int(bad[0])
        raise NotFiniteError(
            f"{operator}: {name} row {row} of {len(rows) if total is None else total} is not finite ({len(bad)} such "
            "rows found): the network that made it has diverged"
        )


def require_finite_on_cpu(operator: str, **tensors: Tensor) -> None:
    """`require_finite` for the operators inside a loss, tensors (..., D), where the check costs no waiting.

    On a GPU the host would wait for the device in every step, and a compiled graph would break: there what is not
    finite goes through to the loss, which the training loop checks.
    """
    for name, tensor in tensors.items():
        if tensor.device.type == "cpu" and not torch.compiler.is_compiling():
            require_finite(operator, name, tensor.detach().reshape(-1, tensor.shape[-1]))


def widest(*tensors: Tensor) -> list[Tensor]:
    """Under autocast, whose networks give half precision beside float32, all in the widest type of them."""
    device = tensors[0].device.type
    if len({t.dtype for t in tensors}) == 1 or device == "meta" or not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [t.to(dtype) for t in tensors]
