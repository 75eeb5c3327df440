from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sketchynet.errors import InputError
from sketchynet.results.packing import pack, unpack


@given(arrays(np.int64, array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=9), elements=st.integers(0, 2**32 - 1)))
def test_whole_numbers_survive(values: np.ndarray) -> None:
    found = unpack(pack(values), place="here")
    assert found.dtype == np.int64 and np.array_equal(found, values)


def test_the_narrowest_type_is_taken() -> None:
    assert [pack(np.array([largest]))["type"] for largest in (255, 256, 65535, 65536)] == ["u1", "u2", "u2", "u4"]


@pytest.mark.parametrize("values", [[-1], [1.5], [2**32], [float("nan")]])
def test_what_cannot_be_packed_is_refused(values: list[float]) -> None:
    with pytest.raises(InputError, match="whole numbers"):
        pack(np.array(values))


GOOD = pack(np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    "packed",
    [
        None,
        {**GOOD, "type": "f8"},
        {**GOOD, "shape": [2, 4]},
        {**GOOD, "shape": [2, 2]},
        {**GOOD, "shape": [-2, -3]},
        {**GOOD, "shape": [2**40]},
        {**GOOD, "data": "!!"},
        {**GOOD, "data": base64.b64encode(b"nonsense").decode()},
        {**GOOD, "data": base64.b64encode(zlib.compress(bytes(10**6))).decode()},
        {"type": "u1"},
    ],
)
def test_a_damaged_array_is_named(packed: object) -> None:
    with pytest.raises(InputError, match=r"a\.json: ranks\.v1: not a packed array"):
        unpack(packed, place="a.json: ranks.v1")
