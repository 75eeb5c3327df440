"""Pickles of arrays are read; whatever else a pickle may hold is refused, and nothing in it runs."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sketchynet import InputError
from sketchynet.data.restricted import read_array_dict, read_array_lists

ARRAYS = {
    "/train/a_1": np.arange(12, dtype=np.float64).reshape(4, 3),
    "/test/b_2": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
    "/test/c_1": np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "Coordinate"
    path.write_bytes(pickle.dumps(ARRAYS, protocol=protocol))
    found = read_array_dict(path)
    assert list(found) == list(ARRAYS)
    for key, array in ARRAYS.items():
        assert np.array_equal(found[key], array) and found[key].dtype == array.dtype.newbyteorder("=")
        assert found[key].flags.writeable


def test_names_of_older_numpy(tmp_path: Path) -> None:
    path = tmp_path / "Coordinate"
    path.write_bytes(pickle.dumps(ARRAYS, protocol=2).replace(b"numpy._core", b"numpy.core"))
    assert np.array_equal(read_array_dict(path)["/train/a_1"], ARRAYS["/train/a_1"])


class Runs:
    """Pickles to a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def touch(path: str) -> None:
    Path(path).touch()


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    import os
    import subprocess

    mark = tmp_path / "executed"
    for harm in (
        Runs(os.system, f"touch {mark}"),
        Runs(subprocess.check_call, ["touch", str(mark)]),
        Runs(eval, f"open({str(mark)!r}, 'w')"),
        Runs(touch, str(mark)),
        Runs(np.load, str(tmp_path)),
        Runs(getattr, np, "save"),
    ):
        try:
            data = pickle.dumps({"/train/a_1": ARRAYS["/train/a_1"], "x": harm}, protocol=protocol)
        except (pickle.PicklingError, TypeError):
            continue  # modules cannot be pickled as arguments
        path = tmp_path / "Coordinate"
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"Coordinate: not a file of numpy arrays alone .*nothing in it was exec"):
            read_array_dict(path)
    assert not mark.exists()


def test_a_malicious_archive_does_not_run(tmp_path: Path) -> None:
    import os

    mark = tmp_path / "executed"
    array = np.empty(1, object)
    array[0] = Runs(os.system, f"touch {mark}")
    np.savez(tmp_path / "sheep.npz", train=array)
    with pytest.raises(InputError, match=r"sheep\.npz: .*names posix\.system"):
        read_array_lists(tmp_path / "sheep.npz")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "pickle exhausted"),
        (b"no pickle", "at position 0"),
        (pickle.dumps([1, 2]), "it holds list"),
        (pickle.dumps({"a": 1}), "entry 'a' is int"),
        (pickle.dumps({3: ARRAYS["/test/c_1"]}), "entry 3"),
        (pickle.dumps({"a": np.array([None])}), "values of type 'O8'"),
        (pickle.dumps({"a": np.array(["text"])}), "values of type 'U4'"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "object number 2147483647"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"ab.", "bytes8"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "instruction NEWOBJ"),
        (b"(inumpy\nndarray\n.", "instruction INST"),
        (pickle.dumps(ARRAYS)[:-40], ""),
    ],
)
def test_other_contents_are_told(tmp_path: Path, data: bytes, fault: str) -> None:
    path = tmp_path / "Coordinate"
    path.write_bytes(data)
    with pytest.raises(InputError, match="Coordinate: not a file of numpy arrays alone") as caught:
        read_array_dict(path)
    assert fault in str(caught.value)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 5), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4))
@example(0, [(21, 92)])  # an escape that does not exist: a warning to Python's decoder
def test_damaged_pickles_give_arrays_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, protocol: int, changes: list
) -> None:
    data = bytearray(pickle.dumps(ARRAYS, protocol=protocol))
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.mktemp("pickle") / "Coordinate"
    path.write_bytes(data)
    try:
        assert all(isinstance(array, np.ndarray) for array in read_array_dict(path).values())
    except InputError as error:
        assert "Coordinate" in str(error)


def test_archives(tmp_path: Path) -> None:
    plain = tmp_path / "plain.npz"
    np.savez(plain, train=np.ones((2, 4, 3), np.float32))
    assert [rows.shape for rows in read_array_lists(plain)["train"]] == [(4, 3), (4, 3)]
    with pytest.raises(InputError, match="no such file"):
        read_array_lists(tmp_path / "nothing.npz")
    (tmp_path / "broken.npz").write_bytes(plain.read_bytes()[:-30])
    with pytest.raises(InputError, match="not a zip file"):
        read_array_lists(tmp_path / "broken.npz")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sketchynet.data.restricted.MAX_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(100_000))
        archive.writestr("train.npy", buffer.getvalue())
    with pytest.raises(InputError, match=r"bomb\.npz: .*800,128 bytes when unpacked"):
        read_array_lists(tmp_path / "bomb.npz")


def test_real_stroke_file(data_root: Path) -> None:
    arrays = read_array_dict(data_root / "chairv2_strokes" / "ChairV2_Coordinate")
    assert len(arrays) == 952 + 323
    for key, rows in arrays.items():
        assert key.startswith(("/train/", "/test/"))
        assert rows.ndim == 2 and rows.shape[1] == 3 and set(np.unique(rows[:, 2])) <= {0.0, 1.0}
