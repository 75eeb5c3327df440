from __future__ import annotations

import json
import os
from pathlib import Path

import layouts
import numpy as np
import pytest

from sketchynet.data import TEST, TRAIN, VALIDATION, LabelledSet, labelled_sources, load_labelled
from sketchynet.data.flat import FlatSketches
from sketchynet.data.labelled import split_drawings
from sketchynet.data.labelled_sources import streams_of
from sketchynet.data.skips import Skips
from sketchynet.errors import InputError
from sketchynet.sketch import Sketch, SketchBatch

WORDS = ("cat", "dog")


def flatten(files: list[Path], target: Path, **options) -> FlatSketches:
    """The flat form of the QuickDraw files of a folder."""
    skips = options.setdefault("skips", Skips())
    streams = streams_of("quickdraw", files[0].parent, skips)
    return labelled_sources.flatten(streams, target, name="quickdraw", progress=False, **options)


def write_quickdraw(folder: Path, drawings: int, words: tuple[str, ...] = WORDS) -> list[Path]:
    """One ndjson file a word; drawing n is a bent line whose second stroke starts at n."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, word in enumerate(words):
        lines = []
        for n in range(drawings):
            strokes = [[[0, 128, 255], [0, 40 * number, 255]], [[n % 200, 20], [30, 50]]]
            record = {"word": word, "key_id": str(1000 * number + n), "recognized": n % 4 != 1, "drawing": strokes}
            lines.append(json.dumps(record))
        path = folder / f"{word}.ndjson"
        path.write_text("\n".join(lines) + "\n")
        files.append(path)
    return files


def test_splits_are_within_each_category_and_follow_the_ids(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2], [25, 25, 10])
    ids = [f"d{n}" for n in range(60)]
    split = split_drawings(labels, ids, test=0.28, validation=0.17, seed=0)
    for label, counts in ((0, (15, 3, 7)), (1, (15, 3, 7)), (2, (6, 1, 3))):
        assert tuple(np.bincount(split[labels == label])) == counts
    order = np.random.default_rng(0).permutation(60)
    again = split_drawings(labels[order], [ids[i] for i in order], test=0.28, validation=0.17, seed=0)
    assert np.array_equal(again, split[order])
    assert not np.array_equal(split, split_drawings(labels, ids, test=0.28, validation=0.17, seed=1))


def test_too_few_drawings_and_bad_shares_are_named() -> None:
    with pytest.raises(InputError, match="category number 1 has 2 drawings"):
        split_drawings(np.array([0, 0, 0, 1, 1]), list("abcde"), test=0.3, validation=0.3, seed=0)
    with pytest.raises(InputError, match=r"test=1\.0"):
        split_drawings(np.zeros(9, int), list("abcdefghi"), test=1.0, validation=0.3, seed=0)


def _batch(ids: list[str]) -> SketchBatch:
    return SketchBatch.from_sketches([Sketch.from_strokes([[[0.1, 0.2], [0.3, 0.4]]], id=name) for name in ids])


def test_a_set_checks_its_parts() -> None:
    sketches = _batch(["a", "b", "c"])
    good = LabelledSet("test", sketches, np.array([0, 1, 0]), WORDS, np.array([0, 1, 2]))
    assert good.sketch_indices(VALIDATION).tolist() == [1] and len(good.split_hash) == 16
    with pytest.raises(InputError, match=r"drawing 'b': labels is 2, expected 0 to 1"):
        LabelledSet("test", sketches, np.array([0, 2, 0]), WORDS, np.array([0, 1, 2]))
    with pytest.raises(InputError, match="split is"):
        LabelledSet("test", sketches, np.array([0, 1, 0]), WORDS, np.array([0, 1]))
    with pytest.raises(InputError, match=r"drawing 'a' occurs twice"):
        LabelledSet("test", _batch(["a", "b", "a"]), np.array([0, 1, 0]), WORDS, np.array([0, 1, 2]))


def test_split_hash_tells_splits_and_ignores_the_order() -> None:
    labels, split = np.array([0, 1, 0]), np.array([0, 1, 2])
    first = LabelledSet("test", _batch(["a", "b", "c"]), labels, WORDS, split)
    same = LabelledSet("test", _batch(["c", "b", "a"]), labels, WORDS, split[::-1])
    other = LabelledSet("test", _batch(["a", "b", "c"]), labels, WORDS, split[::-1])
    assert first.split_hash == same.split_hash != other.split_hash


def test_load_converts_once_and_maps_afterwards(tmp_path: Path) -> None:
    write_quickdraw(tmp_path / "data" / "quickdraw", 20)

    def load(**options) -> LabelledSet:
        return load_labelled(
            "quickdraw", root=tmp_path / "data", validation=0.2, seed=0, options=options, cache_dir=tmp_path / "cache",
            progress=False,
        )

    first = load()
    assert first.category_names == WORDS and len(first.sketches) == 40
    assert [len(first.sketch_indices(s)) for s in (TRAIN, VALIDATION, TEST)] == [22, 6, 12]
    kept = sorted((tmp_path / "cache").iterdir())
    again = load()
    assert sorted((tmp_path / "cache").iterdir()) == kept and again.split_hash == first.split_hash
    assert np.array_equal(again.split, first.split)
    (damaged,) = (path for path in kept if path.suffix == ".npy")
    damaged.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"split-.*is damaged .* delete this file"):
        load()
    for path in (damaged, damaged.with_suffix(".json")):
        path.unlink()
    assert isinstance(again.sketches, FlatSketches)
    assert len(load(recognized=True).sketches) == 30
    limited = load(limit=5)
    assert len(limited.sketches) == 10 and list(limited.sketches.ids)[:5] == ["0", "1", "2", "3", "4"]
    with pytest.raises(InputError, match="option 'tset' is unknown to quickdraw"):
        load(tset=0.3)


def test_unknown_sources_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'qmul_v1' has no categories to recognise"):
        load_labelled("qmul_v1", root=tmp_path, validation=0.2, seed=0)
    with pytest.raises(InputError, match="no QuickDraw .* here"):
        load_labelled("quickdraw", root=tmp_path, validation=0.2, seed=0, cache_dir=tmp_path)


def test_a_conversion_that_failed_goes_on_where_it_was(tmp_path: Path) -> None:
    files = write_quickdraw(tmp_path / "quickdraw", 30, ("bat", "cat", "dog"))
    alone = flatten(files, tmp_path / "alone", shard=7)
    broken = files[1].read_text().splitlines()
    whole = files[1].stat()
    files[1].write_text("\n".join([*broken[:20], "{" + " " * (len(broken[20]) - 1), *broken[21:]]) + "\n")
    os.utime(files[1], ns=(whole.st_atime_ns, whole.st_mtime_ns))
    with pytest.raises(InputError, match=r"cat\.ndjson, line 21"):
        flatten(files, tmp_path / "found", shard=7)
    assert not (tmp_path / "found").exists() and (tmp_path / "found.partial" / "shard-00000").is_dir()
    files[1].write_text("\n".join(broken) + "\n")
    os.utime(files[1], ns=(whole.st_atime_ns, whole.st_mtime_ns))
    found = flatten(files, tmp_path / "found", shard=7)
    assert list(found.ids) == list(alone.ids) and found.labels.tolist() == alone.labels.tolist()
    assert np.array_equal(found.select(slice(None)).points, alone.select(slice(None)).points)


def test_a_conversion_killed_before_its_last_step_reads_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_quickdraw(tmp_path / "quickdraw", 10)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        flatten(files, tmp_path / "set", shard=7)
    monkeypatch.undo()
    assert len(flatten(files, tmp_path / "set", shard=7)) == 20


def test_bad_lines_are_skipped_where_asked(tmp_path: Path) -> None:
    files = write_quickdraw(tmp_path, 5)
    files[0].write_text(files[0].read_text() + "{broken\n")
    skips = Skips(allowed=True)
    assert len(flatten(files, tmp_path / "set", skips=skips)) == 10
    assert skips.count == 1 and "cat.ndjson, line 6" in skips.messages[0]


def test_real_drawings_survive_the_flat_form(data_root: Path, tmp_path: Path) -> None:
    files = sorted((data_root / "quickdraw").glob("*.ndjson"))
    assert len(files) == 172
    found = flatten(files, tmp_path / "set", shard=1000)
    assert len(found) == 4300 and len(found.categories) == 172 and found.num_shards == 5
    line = json.loads(files[7].read_text().splitlines()[3])
    drawing = found[7 * 25 + 3]
    assert drawing.id == line["key_id"] and found.categories[found.labels[7 * 25 + 3]] == line["word"]
    raw = np.concatenate([np.array(stroke).T for stroke in line["drawing"]]).astype(float)
    low, high = raw.min(axis=0), raw.max(axis=0)
    fitted = (raw - (low + high) / 2) * (0.92 / (high - low).max()) + 0.5
    assert np.abs(drawing.points - fitted).max() < 1e-6
    assert [len(s) for s in drawing.strokes()] == [len(s[0]) for s in line["drawing"]]


def test_what_is_skipped_is_noted_and_a_full_disk_is_no_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_quickdraw(tmp_path / "quickdraw", 20)
    files[1].write_text(files[1].read_text() + "{broken\n")
    (tmp_path / "quickdraw" / "elk.bin").write_bytes(b"\0" * 9)

    def load(**options) -> LabelledSet:
        return load_labelled(
            "quickdraw", root=tmp_path, validation=0.2, seed=0, cache_dir=tmp_path / "cache", progress=False, **options
        )

    with pytest.raises(InputError, match=r"dog\.ndjson, line 21: broken JSON"):
        load()
    for _ in range(2):  # converted, then read from the cache
        found = load(skip_bad=True)
        assert len(found.sketches) == 40 and found.category_names == WORDS
        assert found.notes[0] == "2 skipped because of bad input"
        assert "dog.ndjson, line 21" in found.notes[1] and "elk.bin, record 1" in found.notes[2]

    def full(file, data) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(labelled_sources.flat_writer, "write", full)
    with pytest.raises(InputError, match="No space left on device"):
        flatten(files, tmp_path / "set", skips=Skips(allowed=True))


def test_tu_berlin_is_recognised_too(tmp_path: Path) -> None:
    for category in ("airplane", "zebra"):
        for number in range(1, 7):
            layouts.svg(tmp_path / "tu_berlin" / "svg" / category / f"{number}.svg")
    found = load_labelled(
        "tu_berlin", root=tmp_path, validation=0.3, seed=0, cache_dir=tmp_path / "cache", progress=False
    )
    assert len(found.sketches) == 6 * len(found.category_names)
    assert [len(found.sketch_indices(s)) // len(found.category_names) for s in (TRAIN, VALIDATION, TEST)] == [3, 1, 2]


def test_the_command_writes_the_flat_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sketchynet.cli import main

    write_quickdraw(tmp_path / "quickdraw", 20)
    command = ["data", "flatten", str(tmp_path / "quickdraw"), str(tmp_path / "set"), "--limit", "7"]
    assert main(command) == 0
    assert "set: 14 drawings, 2 categories, 1 shard" in capsys.readouterr().out
    assert len(FlatSketches(tmp_path / "set")) == 14
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
