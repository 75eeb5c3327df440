"""QuickDraw files: every format gives the drawings, whatever the block size; every fault is told with its place."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sketchynet import InputError, Sketch
from sketchynet.data.quickdraw import DrawingChunk, category_of, stream_drawings
from sketchynet.data.skips import Skips
from sketchynet.sketch import fit_each_to_frame, fit_to_frame

SQUARE = [[[0, 255, 255], [0, 0, 255]], [[10], [20]]]
LINE = [[[5, 6], [7, 9]]]


def line(drawing: Any, key: str = "1", **more: Any) -> bytes:
    return json.dumps({"word": "sheep", "key_id": key, "recognized": True, "drawing": drawing, **more}).encode()


def record(drawing: list, key: int = 1, recognized: int = 1) -> bytes:
    result = struct.pack("<Q2sBIH", key, b"DE", recognized, 1488400000, len(drawing))
    for x, y in drawing:
        result += struct.pack(f"<H{len(x)}B{len(y)}B", len(x), *x, *y)
    return result


def read(path: Path, skips: Skips | None = None, **options: int) -> list[tuple[str, str, int, Sketch]]:
    return [
        (sketch.id, label, int(number), sketch)
        for chunk in stream_drawings(path, skips, **options)
        for sketch, label, number in zip(chunk.sketches, chunk.labels, chunk.numbers, strict=True)
    ]


def naive(drawing: list, id: str = "") -> Sketch:
    return Sketch.from_strokes([np.array([s[0], s[1]], float).T for s in drawing if s[0]], id=id, fit=True)


def same(sketch: Sketch, drawing: list) -> bool:
    expected = naive(drawing)
    return np.array_equal(sketch.points, expected.points) and np.array_equal(
        sketch.stroke_offsets, expected.stroke_offsets
    )


strokes = st.integers(1, 5).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 255), min_size=n, max_size=n)] * 2).map(list)
)
drawings = st.lists(st.lists(strokes, min_size=1, max_size=4), min_size=1, max_size=6)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawings, st.integers(1, 200))
def test_simplified_lines_and_binary_records_are_the_naive_readings(
    tmp_path_factory: pytest.TempPathFactory, many: list, block: int
) -> None:
    folder = tmp_path_factory.mktemp("quickdraw")
    (folder / "sheep.ndjson").write_bytes(b"\n".join(line(d, str(k)) for k, d in enumerate(many)))
    (folder / "sheep.bin").write_bytes(b"".join(record(d, k) for k, d in enumerate(many)))
    for name in ("sheep.ndjson", "sheep.bin"):
        found = read(folder / name, block=block)
        assert [(id, label, number) for id, label, number, _ in found] == [
            (str(k), "sheep", k + 1) for k in range(len(many))
        ]
        assert all(same(sketch, drawing) for (*_, sketch), drawing in zip(found, many, strict=True))


def test_raw_drawings_have_fractions_and_times(tmp_path: Path) -> None:
    drawing = [[[100.25, 300.5, 700.0], [-3.5, 40.0, 1e3], [0, 17, 40]], [[5], [6], [90]]]
    (tmp_path / "full_raw_cat.ndjson").write_bytes(line(drawing, "77", recognized=False) + b"\n\n" + line(LINE))
    chunk = next(stream_drawings(tmp_path / "full_raw_cat.ndjson"))
    assert same(chunk.sketches[0], drawing) and same(chunk.sketches[1], LINE)
    assert chunk.recognized.tolist() == [False, True] and chunk.numbers.tolist() == [1, 3]


def test_sketch_rnn_archive(tmp_path: Path) -> None:
    parts = {
        "train": [np.array([[3, 4, 0], [5, -6, 1], [1, 1, 0]], np.int16), np.array([[0, 2, 1]], np.int16)],
        "valid": [np.array([[0.5, 0.25, 0], [1, 1, 1]], np.float32)],
        "test": [],
    }
    save_npz(tmp_path / "sketchrnn_sheep.full.npz", parts)
    chunks = list(stream_drawings(tmp_path / "sketchrnn_sheep.full.npz"))
    assert [(chunk.part, chunk.labels) for chunk in chunks] == [
        ("train", ("sheep", "sheep")),
        ("valid", ("sheep",)),
    ]
    for chunk in chunks:
        for sketch, rows in zip(chunk.sketches, parts[chunk.part], strict=True):
            expected = Sketch.from_stroke3(rows)
            assert np.allclose(sketch.points, expected.points, atol=1e-6)
            assert np.array_equal(sketch.stroke_offsets, expected.stroke_offsets)
    assert chunks[0].sketches.ids == ("sketchrnn_sheep.full.npz:train:1", "sketchrnn_sheep.full.npz:train:2")


def save_npz(path: Path, parts: dict[str, list[np.ndarray]]) -> None:
    arrays = {}
    for name, members in parts.items():
        arrays[name] = np.empty(len(members), object)
        arrays[name][:] = members
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b'{"word": "sheep", "drawing": [[[1, 2], [3', "broken JSON"),
        (b'{"word": "sh\xffep", "drawing": [[[1], [3]]]}', "broken JSON"),
        (b"[]", "a drawing is a list of strokes"),
        (b"{}", "a drawing is a list of strokes"),
        (line([]), "no strokes"),
        (line([[[], []]]), "no strokes"),
        (line([[[1, 2], [3]]]), "a drawing is a list of strokes"),
        (line([[[1, 2], [3, 4], [5]]]), "a drawing is a list of strokes"),
        (line([[[1, 2], [3, 4], [5, 6], [7, 8]]]), "a drawing is a list of strokes"),
        (line([["12", "34"]]), "a drawing is a list of strokes"),
        (line([[[1, "2"], [3, 4]]]), "a coordinate is no number"),
        (line([[[1, None], [3, 4]]]), "a coordinate is no number"),
        (line([[[1, [2]], [3, 4]]]), "a coordinate is no number"),
        (line([[[1, 2], [3, 1e300]]]), "beyond"),
        (line(LINE, key_id=12), "have to be text"),
    ],
)
@pytest.mark.parametrize("block", [64, 1 << 21])
def test_a_bad_line_is_named_or_skipped_alone(tmp_path: Path, bad: bytes, message: str, block: int) -> None:
    path = tmp_path / "sheep.ndjson"
    path.write_bytes(b"\n".join([line(SQUARE, "1"), bad, line([[[0.5, 3], [1, 2]]], "3"), b"", line(LINE, "5")]))
    with pytest.raises(InputError, match=rf"sheep\.ndjson, line 2: .*{message}"):
        read(path, block=block)
    skips = Skips(allowed=True)
    found = read(path, skips, block=block)
    assert [(id, number) for id, _, number, _ in found] == [("1", 1), ("3", 3), ("5", 5)]
    assert skips.count == 1 and "line 2" in skips.messages[0]
    assert same(found[0][3], SQUARE) and same(found[2][3], LINE)


def test_broken_line_one_million(tmp_path: Path) -> None:
    path = tmp_path / "sheep.ndjson"
    with path.open("wb") as file:
        file.write(b"\n" * 999_998 + line(LINE) + b"\n" + b'{"drawing": [[[1,2],' + b"\n" + line(LINE))
    with pytest.raises(InputError, match=r"sheep\.ndjson, line 1000000: broken JSON"):
        read(path)


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sketchynet.data.quickdraw.MAX_RECORD_BYTES", 1000)
    path = tmp_path / "sheep.ndjson"
    path.write_bytes(line(LINE) + b"\n" + b"[" * 5000)
    with pytest.raises(InputError, match="line 2: longer than 1,000 bytes"):
        read(path, block=100)
    skips = Skips(allowed=True)
    assert len(read(path, skips, block=100)) == 1 and skips.count == 1


def test_every_truncation_of_a_binary_file_is_told(tmp_path: Path) -> None:
    whole = record(SQUARE, 1) + record(LINE, 2)
    path = tmp_path / "sheep.bin"
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        complete = int(length >= len(record(SQUARE)))
        if length == len(record(SQUARE)):
            assert len(read(path)) == 1
            continue
        with pytest.raises(InputError, match=rf"sheep\.bin, record {complete + 1} at byte \d+: the file ends within"):
            read(path, block=16)
        skips = Skips(allowed=True)
        assert len(read(path, skips, block=16)) == complete and skips.count == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [(record(LINE, 9, recognized=7), "7 where 0 or 1"), (record([]), "no stroke"), (record([[[], []]]), "without a")],
)
def test_a_damaged_record_ends_the_binary_file(tmp_path: Path, bad: bytes, message: str) -> None:
    path = tmp_path / "sheep.bin"
    path.write_bytes(record(SQUARE) + bad + record(LINE))
    with pytest.raises(InputError, match=rf"record 2 at byte 29: .*{message}.*nothing after"):
        read(path)


def test_bad_arrays_of_an_archive(tmp_path: Path) -> None:
    good = np.array([[1, 2, 0], [3, 3, 1]], np.float32)
    bad = [good[:, :2], good[:0], good * [1, 1, 2], good * [np.nan, 1, 1], good * [1e12, 1, 1]]
    save_npz(tmp_path / "sheep.npz", {"train": [good, *bad, good]})
    with pytest.raises(InputError, match=r"sheep\.npz, train drawing 2: it has the shape \(2, 2\)"):
        read(tmp_path / "sheep.npz")
    skips = Skips(allowed=True)
    assert [number for _, _, number, _ in read(tmp_path / "sheep.npz", skips)] == [1, 7] and skips.count == 5


def test_too_many_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sketchynet.data.quickdraw.MAX_POINTS", 3)
    (tmp_path / "sheep.ndjson").write_bytes(line(SQUARE))
    with pytest.raises(InputError, match="line 1: the drawing has 4 points, more than 3"):
        read(tmp_path / "sheep.ndjson")


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("sheep.ndjson", "sheep"),
        ("full_binary_alarm clock.bin", "alarm clock"),
        ("full_simplified_t-shirt.ndjson", "t-shirt"),
        ("sketchrnn_sheep.full.npz", "sheep"),
    ],
)
def test_category_of_a_file(name: str, category: str) -> None:
    assert category_of(Path(name)) == category


def test_other_files_and_missing_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a QuickDraw file"):
        stream_drawings(tmp_path / "sheep.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "sheep.ndjson")


def test_fitting_each_is_fitting_one_by_one() -> None:
    generator = np.random.default_rng(0)
    counts = np.array([1, 4, 2, 9])
    points = generator.normal(0, 300, (counts.sum(), 2))
    points[5:7] = 3.0
    offsets = np.concatenate([[0], np.cumsum(counts)])
    fitted, scale = fit_each_to_frame(points[:, 0], points[:, 1], offsets)
    for b in range(len(counts)):
        part = slice(offsets[b], offsets[b + 1])
        assert np.array_equal(fitted[part], fit_to_frame(points[part]))
    assert scale[0] == scale[2] == 0 and scale[1] > 0


def test_real_simplified_files(data_root: Path) -> None:
    files = sorted((data_root / "quickdraw").glob("*.ndjson"))
    assert len(files) == 172
    for file in files:
        (chunk,) = stream_drawings(file)
        assert isinstance(chunk, DrawingChunk) and len(chunk.sketches) == 25
        assert set(chunk.labels) == {file.stem}
    last = orjson.loads(files[-1].read_bytes().splitlines()[-1])
    assert same(chunk.sketches[24], last["drawing"])


def test_real_sketch_rnn_archive(data_root: Path) -> None:
    counts: dict[str, int] = {}
    for chunk in stream_drawings(data_root / "sketchrnn" / "aaron_sheep.npz"):
        counts[chunk.part] = counts.get(chunk.part, 0) + len(chunk.sketches)
    assert counts == {"train": 7400, "valid": 300, "test": 300}
