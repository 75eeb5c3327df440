from __future__ import annotations

import json
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchynet.data import flat_writer
from sketchynet.data.flat import FlatSketches
from sketchynet.data.flat_writer import FlatWriter
from sketchynet.errors import InputError
from sketchynet.sketch import Sketch, SketchBatch


def _drawing(number: int, *, erasers: bool = False) -> Sketch:
    generator = np.random.default_rng(number)
    counts = generator.integers(1, 6, generator.integers(1, 5))
    points = generator.random((counts.sum(), 2), np.float32)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    rubbed = generator.random(len(counts)) < 0.5 if erasers else None
    return Sketch(points, offsets, f"drawing-{number}", erasers=rubbed)


def _batch(first: int, count: int, **options: bool) -> SketchBatch:
    return SketchBatch.from_sketches([_drawing(first + n, **options) for n in range(count)])


def _write(folder: Path, chunks: list[int], shard: int) -> FlatSketches:
    """Chunks of so many drawings, numbered through; every third is a cat."""
    with FlatWriter(folder, name="test", source="s", shard=shard) as writer:
        done = 0
        for count in chunks:
            names = ["cat" if n % 3 == 0 else "dog" for n in range(done, done + count)]
            done += count
            writer.append(_batch(done - count, count), names, done)
        return writer.finish()


def _assert_equal(found: SketchBatch, numbers: list[int]) -> None:
    expected = SketchBatch.concat([SketchBatch.concat([]), *(_batch(n, 1) for n in numbers)])
    for field in ("points", "stroke_offsets", "sketch_offsets"):
        assert np.array_equal(getattr(found, field), getattr(expected, field)), field
    assert (found.ids or ()) == (expected.ids or ())


@settings(max_examples=25, deadline=None)
@given(
    chunks=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    shard=st.integers(1, 12),
    data=st.data(),
)
def test_what_is_written_is_read_by_number(tmp_path_factory, chunks: list[int], shard: int, data) -> None:
    found = _write(tmp_path_factory.mktemp("flat") / "set", chunks, shard)
    total = sum(chunks)
    assert len(found) == total and sum(counts["sketches"] for counts in found.counts) == total
    numbers = data.draw(st.lists(st.integers(0, total - 1), max_size=12))
    _assert_equal(found.select(numbers), numbers)
    for n in numbers:
        one, expected = found[n], _drawing(n)
        assert np.array_equal(one.points, expected.points) and one.id == expected.id == found.ids[n]
        assert np.array_equal(one.stroke_offsets, expected.stroke_offsets)
        assert found.categories[found.labels[n]] == ("cat" if n % 3 == 0 else "dog")
    assert list(found.ids) == [f"drawing-{n}" for n in range(total)]


def test_slices_masks_and_negative_numbers(tmp_path: Path) -> None:
    found = _write(tmp_path / "set", [5, 5], 4)
    _assert_equal(found.select(slice(2, 9, 3)), [2, 5, 8])
    _assert_equal(found.select(np.arange(10) % 4 == 1), [1, 5, 9])
    _assert_equal(found.select([-1, 0]), [9, 0])
    assert found[-2].id == "drawing-8" and found.ids[3:5] == ["drawing-3", "drawing-4"]
    with pytest.raises(InputError, match="no drawing 10; there are 10"):
        found.select([3, 10])
    with pytest.raises(IndexError):
        found[10]


def test_points_of_a_drawing_are_a_view_of_the_file(tmp_path: Path) -> None:
    found = _write(tmp_path / "set", [6], 100)
    points = found[3].points
    assert not points.flags.owndata and not points.flags.writeable


def test_attributes_that_some_drawings_have(tmp_path: Path) -> None:
    with FlatWriter(tmp_path / "set", name="test", source="s", shard=2) as writer:
        writer.append(_batch(0, 2), ["a", "b"], 1)
        writer.append(_batch(2, 2, erasers=True), ["a", "b"], 2)
        found = writer.finish()
    assert found[0].erasers is None
    assert np.array_equal(found[3].erasers, _drawing(3, erasers=True).erasers)
    joined = found.select([1, 2]).erasers
    assert joined is not None and not joined[: _drawing(1).num_strokes].any()


def test_a_writer_that_was_cut_off_goes_on_after_the_last_complete_shard(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    with pytest.raises(RuntimeError), FlatWriter(folder, name="test", source="s", shard=4) as writer:
        writer.append(_batch(0, 5), ["cat"] * 5, "five")
        writer.append(_batch(5, 2), ["dog"] * 2, "seven")
        raise RuntimeError
    assert not folder.exists()
    with pytest.raises(InputError, match=r"set\.partial is unfinished: convert again"):
        FlatSketches(folder)
    with FlatWriter(folder, name="test", source="s", shard=4) as writer:
        assert writer.position == "five" and len(writer) == 5
        writer.append(_batch(5, 3), ["dog"] * 3, "eight")
        found = writer.finish()
    _assert_equal(found.select(slice(None)), list(range(8)))
    assert found.categories == ("cat", "dog") and found.labels.tolist() == [0] * 5 + [1] * 3
    assert not folder.with_name("set.partial").exists()


def test_shards_of_another_source_are_thrown_away(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    with FlatWriter(folder, name="test", source="before", shard=1) as writer:
        writer.append(_batch(0, 1), ["cat"], 1)
    with FlatWriter(folder, name="test", source="after", shard=1) as writer:
        assert writer.position is None and len(writer) == 0


def test_a_full_disk_keeps_the_complete_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "set"
    write = flat_writer.write

    def full(file, data) -> None:
        if "labels" in file.name:
            raise OSError(28, "No space left on device")
        write(file, data)

    with FlatWriter(folder, name="test", source="s", shard=2) as writer:
        writer.append(_batch(0, 2), ["cat"] * 2, 2)
        monkeypatch.setattr(flat_writer, "write", full)
        with pytest.raises(InputError, match=r"No space left on device.*goes on from there"):
            writer.append(_batch(2, 2), ["cat"] * 2, 4)
    monkeypatch.undo()
    assert sorted(p.name for p in folder.with_name("set.partial").iterdir()) == ["about.json", "shard-00000"]
    with FlatWriter(folder, name="test", source="s", shard=2) as writer:
        assert writer.position == 2


def _count(found: FlatSketches, rank: int) -> tuple[int, float]:
    parts = list(found.shards(rank, 2))
    return sum(len(batch) for batch, _ in parts), float(sum(batch.points.sum() for batch, _ in parts))


def test_processes_share_the_shards(tmp_path: Path) -> None:
    found = _write(tmp_path / "set", [7, 7, 7], 4)
    assert len(pickle.dumps(found)) < 300  # its path: what workers are sent
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        counts, sums = zip(*pool.map(_count, [found] * 2, range(2)), strict=True)
    assert sum(counts) == 21 and min(counts) > 0
    assert sum(sums) == pytest.approx(float(found.select(slice(None)).points.sum()), rel=1e-5)


@pytest.mark.parametrize("name", ["points", "labels", "ids", "stroke_offsets"])
def test_a_truncated_array_is_named(tmp_path: Path, name: str) -> None:
    folder = _write(tmp_path / "set", [3, 3], 3).folder
    path = folder / "shard-00001" / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:-4])
    found = FlatSketches(folder)
    assert found[2].id == "drawing-2"
    with pytest.raises(InputError, match=r"set: the drawings in flat form are damaged \(shard-00001"):
        found.select([4])


def test_offsets_that_lie_are_an_error_and_no_crash(tmp_path: Path) -> None:
    folder = _write(tmp_path / "set", [3], 3).folder
    path = folder / "shard-00000" / "stroke_offsets.npy"
    offsets = np.load(path)
    np.save(path, offsets[::-1].copy())
    with pytest.raises(InputError):
        FlatSketches(folder)[0]
    with pytest.raises(InputError):
        FlatSketches(folder).select([0, 2])


def test_another_version_and_broken_headers(tmp_path: Path) -> None:
    folder = _write(tmp_path / "set", [1], 1).folder
    header = json.loads((folder / "header.json").read_text())
    (folder / "header.json").write_text(json.dumps({**header, "format": 99}))
    with pytest.raises(InputError, match="format 99, this version reads 1"):
        FlatSketches(folder)
    (folder / "header.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        FlatSketches(folder)
    with pytest.raises(InputError, match="no header.json"):
        FlatSketches(tmp_path)


def test_bad_chunks_are_refused(tmp_path: Path) -> None:
    with FlatWriter(tmp_path / "set", name="test", source="s") as writer:
        with pytest.raises(InputError, match="2 drawings has 1 categories"):
            writer.append(_batch(0, 2), ["cat"], 1)
        with pytest.raises(InputError, match="no drawing to write"):
            writer.finish()
    folder = _write(tmp_path / "there", [1], 1).folder
    with pytest.raises(InputError, match="exists already"):
        FlatWriter(folder, name="test", source="s")
