"""Integer arrays as short text in a JSON file: little-endian, zlib, base64."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

import numpy as np

from sketchynet.errors import InputError

_TYPES = ("u1", "u2", "u4")
_MOST = 1 << 28
"""Bytes that a packed array may unfold to: a damaged or hostile file must not fill the memory."""


def pack(values: np.ndarray) -> dict[str, Any]:
    """An array of non-negative integers below 2³², in the narrowest type that holds it.

    Raises:
        InputError: a value is negative, fractional or too large.
    """
    values = np.asarray(values)
    if values.size and (values.min() < 0 or values.max() > np.iinfo(np.uint32).max or (values % 1 != 0).any()):
        raise InputError(f"only whole numbers from 0 to {np.iinfo(np.uint32).max} can be packed; found {values.min()} "
                         f"to {values.max()}")
    largest = int(values.max()) if values.size else 0
    kind = next(t for t in _TYPES if largest <= np.iinfo(t).max)
    data = zlib.compress(np.ascontiguousarray(values, dtype=f"<{kind}").tobytes(), 9)
    return {"type": kind, "shape": list(values.shape), "data": base64.b64encode(data).decode("ascii")}


def unpack(packed: Any, *, place: str) -> np.ndarray:
    """The int64 array that :func:`pack` was given.

    Raises:
        InputError: it is not such a packed array; names ``place``.
    """
    try:
        kind, shape = packed["type"], tuple(int(n) for n in packed["shape"])
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
        if kind not in _TYPES or min(shape, default=0) < 0 or size > _MOST:
            raise ValueError(f"type {kind!r}, shape {list(shape)}")
        unfold = zlib.decompressobj()
        data = unfold.decompress(base64.b64decode(packed["data"], validate=True), size + 1)
        if len(data) != size:
            raise ValueError(f"shape {list(shape)} needs {size} bytes, found {'more' if len(data) > size else len(data)}")
    except (KeyError, TypeError, ValueError, binascii.Error, zlib.error) as error:
        raise InputError(f"{place}: not a packed array ({error}); export the run again") from None
    return np.frombuffer(data, dtype=f"<{kind}").reshape(shape).astype(np.int64)
