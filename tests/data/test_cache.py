"""Prepared sets: reused, whole or not there, and clear about what is wrong with a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sketchynet import InputError, Sketch
from sketchynet.data import cache, load_pairs, prepare
from sketchynet.data.images import read_drawing, read_photo, same_pictures
from sketchynet.data.listing import Listing, PhotoFile, SketchFile
from sketchynet.data.prepare import prepare_files


def read_strokes(file: SketchFile) -> Sketch:
    """A drawing of two strokes with attributes, in place of a slow vectoriser."""
    read_drawing(file.path)
    sketch = Sketch.from_strokes([[[0.1, 0.1], [0.5, 0.9]], [[0.3, 0.3]]], id=file.id)
    return Sketch(sketch.points, sketch.stroke_offsets, file.id, np.array([0.01, 0.02]), np.array([False, True]))


def read_nan(file: SketchFile) -> Sketch:
    return Sketch.from_strokes([[[0.1, float("nan")]]], id=file.id)


def make_files(folder: Path, count: int = 5) -> Listing:
    """Photos with noise of their own; photo 3 is photo 0 again, resaved; the last photo has no drawing."""
    photos, sketches = [], []
    for k in range(count):
        noise = np.random.default_rng(0 if k == 3 else k).integers(0, 255, (5, 5, 3), dtype=np.uint8)
        photo = folder / f"photo{k}.jpg"
        Image.fromarray(noise).resize((40, 40)).save(photo, quality=95 - k)
        photos.append(PhotoFile(f"p{k}", photo, "b" if k == 1 else "a", 2 if k == 3 else 0))
        if k < count - 1:
            drawing = folder / f"drawing{k}.png"
            image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
            ImageDraw.Draw(image).line([(5, 5), (30, 5 + k)], fill=(0, 0, 0, 255), width=2)
            image.save(drawing)
            sketches.append(SketchFile(f"p{k}", drawing, f"p{k}"))
    return Listing("tiny", tuple(photos), tuple(sketches), notes=("a note",), read_sketch=read_strokes)


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    (tmp_path / "files").mkdir()
    return make_files(tmp_path / "files")


@pytest.fixture
def prepared(tmp_path: Path) -> Callable:
    def run(listing: Listing, size: int = 32, **options):
        return prepare_files(listing, size, cache_dir=tmp_path / "cache", progress=False, **options)

    return run


def left_over(tmp_path: Path) -> list[str]:
    """What lies in the cache besides the blocks from which an interrupted preparation goes on."""
    names = sorted(os.listdir(tmp_path / "cache")) if (tmp_path / "cache").exists() else []
    return [name for name in names if name != ".tiny.blocks"]


def test_content_of_a_prepared_set(listing: Listing, prepared: Callable) -> None:
    pairs = prepared(listing)
    assert isinstance(pairs.photos, np.memmap) and pairs.photos.shape == (5, 32, 32, 3)
    assert np.array_equal(pairs.photos[1], read_photo(listing.photos[1].path, 32))
    assert pairs.category_names == ("a", "b") and pairs.categories.tolist() == [0, 1, 0, 0, 0]
    assert pairs.content.tolist() == [0, 1, 2, 0, 4]
    assert pairs.sketches.ids == ("p0", "p1", "p2", "p3") and pairs.sketch_photo.tolist() == [0, 1, 2, 3]
    first = pairs.sketches[0]
    assert first.num_strokes == 2 and first.widths is not None and first.erasers is not None
    assert first.erasers.tolist() == [False, True]
    assert pairs.notes == ("a note", "p0 and p3 are one picture in train and test")


def test_second_call_reads_the_cache(
    listing: Listing, prepared: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepared(listing)
    monkeypatch.setattr(prepare, "_build", lambda *_, **__: pytest.fail("prepared a second time"))
    second = prepared(listing)
    assert np.array_equal(first.photos, second.photos) and first.split_hash == second.split_hash
    assert np.array_equal(first.sketches.points, second.sketches.points)


def test_changed_file_or_size_is_prepared_anew(listing: Listing, prepared: Callable, tmp_path: Path) -> None:
    before = prepared(listing)
    Image.new("RGB", (40, 40), "red").save(listing.photos[0].path)
    after = prepared(listing)
    assert not np.array_equal(before.photos[0], after.photos[0])
    prepared(listing, size=16)
    assert len(left_over(tmp_path)) == 3


def test_processes_give_the_same(
    listing: Listing, prepared: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = prepared(listing)
    folder = next((tmp_path / "cache").iterdir())
    folder.rename(tmp_path / "alone")
    monkeypatch.setattr(prepare, "_IN_PROCESS", 1)
    # vectorized_drawing, not this file's reader: the other processes import it by name.
    parallel = prepared(Listing("tiny", listing.photos, listing.sketches), workers=2)
    assert np.array_equal(alone.photos, parallel.photos) and alone.photo_ids == parallel.photo_ids
    assert parallel.sketches.ids == alone.sketches.ids


def test_error_in_a_process_names_the_file(
    listing: Listing, prepared: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(prepare, "_IN_PROCESS", 1)
    listing.photos[2].path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="photo2.jpg: the image cannot be read"):
        prepared(listing, workers=2)
    assert left_over(tmp_path) == []


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def blank(path: Path) -> None:
    Image.new("RGB", (40, 40), "white").save(path)


@pytest.mark.parametrize(
    ("kind", "harm", "message"),
    [
        ("photos", truncate, r"photo1.jpg: the image cannot be read .*fetch it again"),
        ("photos", Path.unlink, r"photo1.jpg: cannot be read .*restore it"),
        ("sketches", truncate, r"drawing1.png: the image cannot be read"),
        ("sketches", Path.unlink, r"drawing1.png: cannot be read"),
        ("sketches", blank, r"drawing1.png: the drawing holds no ink"),
    ],
)
def test_bad_file_is_named_and_nothing_left(
    listing: Listing, prepared: Callable, tmp_path: Path, kind: str, harm: Callable, message: str
) -> None:
    harm(getattr(listing, kind)[1].path)
    with pytest.raises(InputError, match=message):
        prepared(listing)
    assert left_over(tmp_path) == []


def test_nan_in_a_drawing_names_the_sketch(listing: Listing, prepared: Callable, tmp_path: Path) -> None:
    bad = Listing("tiny", listing.photos, listing.sketches, read_sketch=read_nan)
    with pytest.raises(InputError, match="sketch 'p0'"):
        prepared(bad)
    assert left_over(tmp_path) == []


def test_sketch_of_unknown_photo(listing: Listing, prepared: Callable) -> None:
    orphan = SketchFile("x", listing.sketches[0].path, "nobody")
    with pytest.raises(InputError, match="sketch 'x' shows 'nobody'"):
        prepared(Listing("tiny", listing.photos, (*listing.sketches, orphan), read_sketch=read_strokes))


@pytest.mark.parametrize("allowed", [0, 2, 6, 9])
def test_full_disk_leaves_nothing(
    listing: Listing, prepared: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    """The disk is full after some writes, wherever that is."""
    writes = 0
    real = cache.write

    def fail(file, data) -> None:
        nonlocal writes
        writes += 1
        if writes > allowed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, data)

    monkeypatch.setattr(cache, "write", fail)
    with pytest.raises(InputError, match=r"cache/tiny-\w+: .*No space left on device.*SKETCHYNET_CACHE"):
        prepared(listing)
    assert left_over(tmp_path) == []
    monkeypatch.setattr(cache, "write", real)
    assert len(prepared(listing).photo_ids) == 5


def test_cache_under_a_file(listing: Listing, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        prepare_files(listing, 32, cache_dir=tmp_path / "file" / "cache", progress=False)


def test_damaged_cache_is_named(listing: Listing, prepared: Callable, tmp_path: Path) -> None:
    prepared(listing)
    truncate(next((tmp_path / "cache").iterdir()) / "photos.npy")
    with pytest.raises(InputError, match="is damaged .*delete this folder"):
        prepared(listing)


def test_other_process_was_first(
    listing: Listing, prepared: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set that appears while this process prepares it stays, and is used."""
    first = prepared(listing)
    folder = next((tmp_path / "cache").iterdir())
    real = Path.is_dir
    hidden = [folder]
    monkeypatch.setattr(Path, "is_dir", lambda path: path not in hidden[:1] and real(path))
    real_move = cache._move

    def move(temporary: Path, target: Path) -> None:
        hidden.clear()
        real_move(temporary, target)

    monkeypatch.setattr(cache, "_move", move)
    second = prepared(listing)
    assert np.array_equal(first.photos, second.photos) and left_over(tmp_path) == [folder.name]


def test_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SKETCHYNET_CACHE", str(tmp_path))
    assert cache.cache_folder() == tmp_path and cache.cache_folder(tmp_path / "x") == tmp_path / "x"
    monkeypatch.delenv("SKETCHYNET_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "sketchynet"


def test_photo_keeps_its_form_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (40, 20), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 20, 20))
    image.save(tmp_path / "wide.png")
    photo = read_photo(tmp_path / "wide.png", 20)
    assert photo.shape == (20, 20, 3)
    assert (photo[:5] == 255).all() and (photo[15:] == 255).all() and (photo[10, 2] == 255).all()
    assert photo[10, 17].tolist() == [255, 0, 0]


def test_same_pictures_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 255, (30, 16, 16, 3), dtype=np.uint8)
    photos[7] = photos[2]
    photos[9] = np.clip(photos[2].astype(int) + rng.integers(-2, 3, photos[2].shape), 0, 255)
    photos[20] = photos[11]
    photos[21] = np.clip(photos[11].astype(int) + 6, 0, 255)
    expected = np.arange(30)
    expected[[7, 9]] = 2
    expected[20] = 11
    assert same_pictures(photos).tolist() == expected.tolist()


PROCEDURAL = {"train": 4, "validation": 2, "test": 2, "sketches": 2}


def test_procedural_set_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"size": 32, "validation": 0.2, "seed": 0, "options": PROCEDURAL, "cache_dir": tmp_path}
    first = load_pairs("procedural", **arguments)
    assert [len(first.photo_indices(s)) for s in range(3)] == [4, 2, 2] and len(first.sketches) == 16
    monkeypatch.setattr("sketchynet.data.procedural.procedural_pairs", None)
    second = load_pairs("procedural", **arguments)
    assert np.array_equal(first.photos, second.photos) and first.split_hash == second.split_hash


def test_procedural_validation_share(tmp_path: Path) -> None:
    options = {"train": 10, "test": 2, "sketches": 1}
    pairs = load_pairs("procedural", size=16, validation=0.2, seed=0, options=options, cache_dir=tmp_path)
    assert [len(pairs.photo_indices(s)) for s in range(3)] == [10, 2, 2]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("mnist", {}, "'mnist' is not known; use one of procedural, qmul_v1"),
        ("procedural", {"trian": 5}, "option 'trian' is unknown to procedural; it knows train"),
        ("procedural", {"train": 2.5}, "option train=2.5"),
        ("procedural", {"train": -1}, "option train=-1"),
        ("qmul_v1", {"extra": True}, "option 'extra' is unknown to qmul_v1"),
    ],
)
def test_bad_source_or_option(tmp_path: Path, source: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_pairs(
            source, root=tmp_path, size=32, validation=0.1, seed=0, options=options, cache_dir=tmp_path
        )


def test_missing_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SKETCHYNET_DATA", raising=False)
    with pytest.raises(InputError, match="--data DIR or set SKETCHYNET_DATA .*qmul_v1/"):
        load_pairs("qmul_v1", size=32, validation=0.1, seed=0)
    with pytest.raises(InputError, match="nowhere: there is no such folder"):
        load_pairs("qmul_v1", root=tmp_path / "nowhere", size=32, validation=0.1, seed=0)
