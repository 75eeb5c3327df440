"""Pickled numpy arrays, read without letting the pickle do anything.

Stroke files of the field are pickles: `ChairV2_Coordinate` is a dictionary of arrays, sketch-rnn's `.npz` hold
object arrays. A pickle is a program that may call any function, so two gates stand before it: every instruction
has to be one that arrays need, and every name has to be one of numpy's array constructors. Even those are not
called: stand-ins take their arguments, and the arrays are built from the plain bytes afterwards.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sketchynet.errors import InputError

MAX_BYTES = 2 << 30
"""A file, or a member of an archive once unpacked, that is larger is refused."""

# fmt: off
_OPCODES = frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT",
    "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "LIST", "APPEND", "APPENDS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET",
    "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
))
# fmt: on
_NUMBER = re.compile(r"[biuf][1248]")


class _Dtype:
    """Stands in for numpy.dtype."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name, self.order = name, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        if self.name in ("O", "O8", "object") or not _NUMBER.fullmatch(self.name):
            raise ValueError(f"values of type {self.name!r}, where numbers are expected")
        dtype = np.dtype(self.name)
        return dtype.newbyteorder(">") if self.order == ">" else dtype.newbyteorder("<")


class _Array:
    """Stands in for numpy.ndarray: keeps what the pickle says of it."""

    def __init__(self, *_: Any) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.dtype, self.fortran, self.data = _Dtype("f8"), False, b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def numpy(self) -> np.ndarray:
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        flat = np.frombuffer(data, self.dtype.numpy())
        # A copy: what comes out may be written to, and is in this machine's byte order.
        return np.array(
            flat.reshape(self.shape, order="F" if self.fortran else "C"), flat.dtype.newbyteorder("=")
        )

    def items(self) -> list[Any]:
        """The members of a one-dimensional object array."""
        if not isinstance(self.data, list) or self.shape != (len(self.data),):
            raise ValueError(f"an object array of shape {self.shape}, expected one dimension")
        return self.data


def _from_buffer(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.data, array.dtype, array.shape, array.fortran = bytes(data), dtype, shape, order == "F"
    return array


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}, expected latin1")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "numpy.ndarray",
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no array needs") from None


def read_array_dict(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a pickled dictionary of numpy arrays (a `*_Coordinate` stroke file), by key.

    Nothing in the file is executed. Raises InputError, naming the file, where it is missing, truncated, too large,
    or holds anything but text keys and arrays of numbers.
    """
    return _guarded(path, lambda: _dictionary(_plain(_content(path))))


def read_array_lists(path: Path) -> dict[str, list[np.ndarray]]:
    """The members of an `.npz` archive, each a list of arrays (sketch-rnn's object arrays), by name.

    A member that is a plain array of numbers gives the list of its rows. Nothing in the file is executed. Raises
    InputError, naming the file, where it is no such archive, truncated, too large, or holds anything else.
    """

    def members() -> dict[str, list[np.ndarray]]:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.file_size > MAX_BYTES:
                    raise ValueError(f"{member.filename} has {member.file_size:,} bytes when unpacked")
            return {
                name.removesuffix(".npy"): _members(archive.read(name))
                for name in archive.namelist()
                if name.endswith(".npy")
            }

    return _guarded(path, members)


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    try:
        with warnings.catch_warnings():
            # Python's decoder warns of an escape that it does not know, and guesses; such a file is damaged.
            warnings.filterwarnings("error", message=r"invalid (octal )?escape sequence")
            return read()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; restore it or correct the path") from None
    except RecursionError:
        fault = "nested too deeply"
    # A damaged pickle or archive fails in any of these ways, whatever byte is wrong.
    except (OSError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        fault = str(error) or type(error).__name__
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, NotImplementedError) as error:
        fault = str(error) or type(error).__name__
    except (MemoryError, RuntimeError, zlib.error, DeprecationWarning) as error:
        fault = str(error) or type(error).__name__
    raise InputError(
        f"{path}: not a file of numpy arrays alone ({fault}); nothing in it was executed. Fetch it again from its "
        "publisher, or leave it out"
    ) from None


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"it has {size:,} bytes, at most {MAX_BYTES:,} are read")
    return path.read_bytes()


def _plain(data: bytes) -> Any:
    """What the pickle holds, arrays as stand-ins."""
    for count, (opcode, argument, place) in enumerate(pickletools.genops(data)):
        if opcode.name not in _OPCODES:
            raise ValueError(f"instruction {opcode.name} at byte {place}, which no array needs")
        # The reader makes room for as many remembered objects as the highest number says.
        if opcode.name in ("PUT", "LONG_BINPUT") and int(str(argument)) > count:
            raise ValueError(f"object number {argument} at byte {place}, the instruction is only number {count}")
    return _Unpickler(io.BytesIO(data), encoding="latin1").load()


def _dictionary(value: Any) -> dict[str, np.ndarray]:
    if not isinstance(value, dict):
        raise TypeError(f"it holds {_kind(value)}, expected a dictionary of arrays")
    result = {}
    for key, array in value.items():
        if not isinstance(key, str) or not isinstance(array, _Array):
            raise TypeError(f"entry {key!r} is {_kind(array)}, expected text and an array")
        result[key] = array.numpy()
    return result


def _members(data: bytes) -> list[np.ndarray]:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read_header(file)
    if not dtype.hasobject:
        file.seek(0)
        return list(np.lib.format.read_array(file, allow_pickle=False))
    value = _plain(data[file.tell() :])
    if not isinstance(value, _Array):
        raise TypeError(f"it holds {_kind(value)}, expected an array of arrays")
    arrays = value.items()
    for number, array in enumerate(arrays):
        if not isinstance(array, _Array):
            raise TypeError(f"member {number} is {_kind(array)}, expected an array")
    return [array.numpy() for array in arrays]


def _kind(value: Any) -> str:
    return "an array" if isinstance(value, _Array) else type(value).__name__
