"""Checks of the arrays that make up drawings: each returns the array in its canonical form or raises InputError."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketchynet.errors import InputError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def check_points(values: ArrayLike, where: str, *, finite: bool = True) -> Floats:
    with np.errstate(over="ignore"):  # what overflows float32 is infinite, and told below
        try:
            array = np.ascontiguousarray(values, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: points must be numbers of shape (N, 2): {error}") from error
    if array.ndim != 2 or array.shape[1] != 2:
        raise InputError(f"{where}: points have the shape {array.shape}; they must be (N, 2)")
    if finite and not np.isfinite(array).all():
        point = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise InputError(
            f"{where}: point {point} is {array[point].tolist()}; coordinates must be finite: mend or leave it out"
        )
    return array


def check_rows(values: ArrayLike, columns: int, where: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} must be numbers of shape (N, {columns}): {error}") from error
    if array.ndim != 2 or array.shape[1] != columns:
        raise InputError(f"{where} has the shape {array.shape}; it must be (N, {columns})")
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise InputError(f"{where}: row {row} is {array[row].tolist()}; all values must be finite")
    return array


def check_offsets(
    values: ArrayLike, total: int, where: str, unit: str, ids: tuple[str, ...] | None = None
) -> Ints:
    """int64 (parts + 1,), checked to rise from 0 to `total`."""
    array = np.asarray(values)
    if array.ndim != 1 or len(array) == 0 or array.dtype.kind not in "iu":
        raise InputError(
            f"{where} must be a 1-D array of integers; it is {array.dtype} of shape {array.shape}"
        )
    array = np.ascontiguousarray(array, dtype=np.int64)
    if array[0] != 0 or array[-1] != total:
        raise InputError(
            f"{where} must run from 0 to {total}, the number of {unit}s; it runs from {array[0]} to {array[-1]}"
        )
    short = np.flatnonzero(np.diff(array) <= 0)
    if len(short):
        part = int(short[0])
        name = f" ({ids[part]!r})" if ids is not None and part < len(ids) else ""
        raise InputError(
            f"{where} must rise: part {part}{name} goes from {array[part]} to {array[part + 1]}, but each needs at"
            f" least one {unit}; leave empty ones out"
        )
    return array


def check_widths(values: ArrayLike | None, strokes: int, where: str) -> Floats | None:
    if values is None:
        return None
    array = np.ascontiguousarray(values, dtype=np.float32)
    if array.shape != (strokes,):
        raise InputError(f"{where}: widths have the shape {array.shape}; there are {strokes} strokes")
    good = np.isfinite(array) & (array > 0)
    if not good.all():
        stroke = int(np.argmin(good))
        raise InputError(
            f"{where}: the width of stroke {stroke} is {array[stroke]}; it must be positive and finite"
        )
    return array


def check_erasers(values: ArrayLike | None, strokes: int, where: str) -> Bools | None:
    if values is None:
        return None
    array = np.ascontiguousarray(values)
    if array.shape != (strokes,) or array.dtype != np.bool_:
        raise InputError(f"{where}: erasers are {array.dtype} {array.shape}; they must be bool ({strokes},)")
    return array
