"""Readers, on small files of every published layout: what they find, what they read, and what is wrong."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import layouts
import numpy as np
import pytest
from PIL import Image

from sketchynet import InputError, Sketch
from sketchynet.data.detection import detect, detect_all
from sketchynet.data.images import read_photo
from sketchynet.data.listing import Listing
from sketchynet.data.prepare import prepare_files
from sketchynet.data.skips import Skips
from sketchynet.data.sources import find_source, list_source, load_pairs
from sketchynet.data.splits import TEST, TRAIN
from sketchynet.data.tu_berlin import stream_tu_berlin

EXPECTED = Sketch.from_strokes([np.array(s, float).T for s in layouts.LINES], fit=True)

SETS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "shoev2": ("qmul_v2", layouts.shoe_v2_published),
    "chairv2": ("qmul_v2", layouts.chair_v2_sorted),
    "sketchy": ("sketchy", layouts.sketchy_published),
    "fscoco": ("fscoco", layouts.fscoco_published),
    "folder": ("folder", layouts.folder),
}


def read(root: Path, source: str, skips: Skips | None = None, **options: object) -> Listing:
    return list_source(source, find_source(source, root), options, Skips() if skips is None else skips)


def found(listing: Listing) -> dict[str, tuple[str, int]]:
    """Drawings: the photo and the split of each."""
    split = {photo.id: photo.split for photo in listing.photos}
    return {sketch.id: (sketch.photo_id, split[sketch.photo_id]) for sketch in listing.sketches}


@pytest.mark.parametrize("name", SETS)
def test_every_drawing_is_the_drawing_that_was_written(tmp_path: Path, name: str) -> None:
    source, write = SETS[name]
    listing = read(write(tmp_path), source)
    for sketch in listing.sketches:
        drawing = listing.read_sketch(sketch)
        assert drawing.id == sketch.id
        if sketch.path.suffix in (".png", ".jpg"):
            assert drawing.num_strokes >= 2  # vectorised: not the same points
        else:
            assert np.allclose(drawing.points, EXPECTED.points, atol=1e-6), sketch.path
            assert np.array_equal(drawing.stroke_offsets, EXPECTED.stroke_offsets)


def test_shoe_v2_as_published(tmp_path: Path) -> None:
    listing = read(layouts.shoe_v2_published(tmp_path), "qmul_v2")
    assert listing.name == "shoev2" and {photo.category for photo in listing.photos} == {"shoe"}
    assert found(listing) == {
        "1031000079_1": ("1031000079", TRAIN),
        "1031000079_2": ("1031000079", TRAIN),
        "1445100078_1": ("1445100078", TEST),
        "2429245009_1": ("2429245009", TRAIN),
        "2429245009_2": ("2429245009", TRAIN),
    }


def test_chair_v2_with_its_stroke_file(tmp_path: Path) -> None:
    listing = read(layouts.chair_v2_sorted(tmp_path), "qmul_v2")
    assert listing.name == "chairv2"
    assert found(listing) == {
        "a_v1_1": ("a_v1", TRAIN),
        "a_v1_2": ("a_v1", TRAIN),
        "b_1": ("b", TRAIN),
        "c_ARTIST": ("c", TEST),
    }
    # Strokes where they are there, pictures where not.
    assert [s.path.suffix for s in listing.sketches if s.id == "b_1"] == [".png"]
    assert sum(bool(s.part) for s in listing.sketches) == 3


def test_sketchy_as_published(tmp_path: Path) -> None:
    root = layouts.sketchy_published(tmp_path)
    listing = read(root, "sketchy")
    assert found(listing) == {
        "cat/n01_1-1": ("cat/n01_1", TRAIN),
        "cat/n01_2-2": ("cat/n01_2", TEST),
        "hat/ext_1-1": ("hat/ext_1", TRAIN),
        "hat/ext_1-2": ("hat/ext_1", TRAIN),
    }
    assert any("1 drawings left out, as info/invalid-error.txt lists them" in note for note in listing.notes)
    assert all(sketch.path.suffix == ".svg" for sketch in listing.sketches)
    assert "hat/ext_1-1" not in found(read(root, "sketchy", leave_out="error,ambiguous"))
    assert len(read(root, "sketchy", leave_out="").sketches) == 6
    with pytest.raises(InputError, match="leave_out='wrong' of sketchy: the lists are error, ambiguous"):
        read(root, "sketchy", leave_out="wrong")


def test_fscoco_as_published(tmp_path: Path) -> None:
    root = layouts.fscoco_published(tmp_path)
    normal, unseen = read(root, "fscoco"), read(root, "fscoco", split="unseen")
    assert {k: v[1] for k, v in found(normal).items()} == {
        "1/000000000009": TRAIN,
        "1/000000000025": TEST,
        "2/000000000030": TRAIN,
    }
    assert [photo.id for photo in unseen.photos if photo.split == TEST] == ["000000000030"]
    assert [sketch.path.suffix for sketch in normal.sketches] == [".npy", ".npy", ".jpg"]
    with pytest.raises(InputError, match="split='test' of fscoco"):
        read(root, "fscoco", split="test")


def test_folder_pairs_by_name(tmp_path: Path) -> None:
    listing = read(layouts.folder(tmp_path), "folder")
    assert {id: photo for id, (photo, _) in found(listing).items()} == {
        "bags/x#2": "bags/x",
        "shoes/a1": "shoes/a1",
        "shoes/a10-1": "shoes/a10",
        "shoes/a1_2": "shoes/a1",
        "shoes/b#1": "shoes/b",
        "shoes/b#2": "shoes/b",
    }
    assert {photo.category for photo in listing.photos} == {"bags", "shoes"} and len(listing.photos) == 5


def test_folder_with_splits_of_its_own(tmp_path: Path) -> None:
    root = layouts.folder(tmp_path)
    table = layouts.text(root / "splits.csv", "photo,split", "shoes/b,test", "bags/x,validation")
    split = {photo.id: photo.split for photo in read(root, "folder").photos}
    assert split == {"bags/lonely": 0, "bags/x": 1, "shoes/a1": 0, "shoes/a10": 0, "shoes/b": 2}
    for line, message in (
        ("shoes/nope,test", "there is no photo 'shoes/nope'"),
        ("shoes/b,train", "stands in line 2 already"),
        ("shoes/a1,tset", "split 'tset' is none of train"),
    ):
        layouts.text(table, "photo,split", "shoes/b,test", line)
        with pytest.raises(InputError, match=rf"splits\.csv, line 3: .*{message}"):
            read(root, "folder")
    layouts.text(table, "id,part")
    with pytest.raises(InputError, match="first line has to read photo,split"):
        read(root, "folder")


def test_tu_berlin_as_published(tmp_path: Path) -> None:
    root = layouts.tu_berlin_published(tmp_path)
    assert detect(root).source == "tu_berlin"
    (chunk,) = stream_tu_berlin(root / "svg", Skips())
    assert chunk.labels == ("airplane", "airplane", "zebra", "zebra")
    assert chunk.sketches.ids == ("airplane/1", "airplane/2", "zebra/1", "zebra/2")
    assert np.allclose(chunk.sketches[3].points, EXPECTED.points, atol=1e-6)
    (root / "svg/zebra/2.svg").write_text("<svg")
    with pytest.raises(InputError, match=r"zebra/2\.svg: broken XML"):
        list(stream_tu_berlin(root / "svg", Skips()))
    skips = Skips(allowed=True)
    (chunk,) = stream_tu_berlin(root / "svg", skips)
    assert len(chunk.sketches) == 3 and chunk.numbers.tolist() == [1, 2, 3] and skips.count == 1


def test_detection_goes_by_the_most_particular_layout(tmp_path: Path) -> None:
    for name, (_, write) in SETS.items():
        write(tmp_path / name)
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "sheep.bin").write_bytes(layouts.quickdraw_records([layouts.LINES]))
    assert {d.folder.name: d.source for d in detect_all(tmp_path)} == {
        **{name: source for name, (source, _) in SETS.items()},
        "quick": "quickdraw",
    }
    with pytest.raises(InputError, match="holds several data sets; name one"):
        detect(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no data set that is known"):
        detect(tmp_path / "empty")
    with pytest.raises(InputError, match="not there"):
        detect(tmp_path / "nowhere")


def prepared(root: Path, cache: Path, source: str = "folder", **options: object):
    return load_pairs(
        source, root=root, size=32, validation=0.2, seed=0, cache_dir=cache, progress=False, **options
    )


def test_a_folder_gets_a_test_and_a_validation_part(tmp_path: Path) -> None:
    for k in range(20):
        layouts.photo(tmp_path / "photos" / f"p{k}.png", k)
        layouts.svg(tmp_path / "sketches" / f"p{k}.svg")
    pairs = prepared(tmp_path, tmp_path / "cache")
    assert [len(pairs.photo_indices(split)) for split in range(3)] == [13, 3, 4]
    assert pairs.category_names == ("all",) and any("chosen here by seed 0" in note for note in pairs.notes)
    more = prepared(tmp_path, tmp_path / "cache", options={"test": 0.5})
    assert len(more.photo_indices(TEST)) == 10
    with pytest.raises(InputError, match=r"option test=1\.5 of folder"):
        prepared(tmp_path, tmp_path / "cache", options={"test": 1.5})


def harm_missing_photo(root: Path) -> None:
    (root / "photos/shoes/a1.jpg").unlink()


def harm_broken_photo(root: Path) -> None:
    path = root / "photos/shoes/a1.jpg"
    path.write_bytes(path.read_bytes()[:200])


def harm_image_bomb(root: Path) -> None:
    Image.new("1", (10_000, 9_500)).save(root / "photos/shoes/a1.jpg", format="PNG")


def harm_svg(root: Path) -> None:
    (root / "sketches/shoes/a1.svg").write_text('<!DOCTYPE x [<!ENTITY a "b">]><svg>&a;</svg>')


def harm_empty_svg(root: Path) -> None:
    (root / "sketches/shoes/a1.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')


def harm_line(root: Path) -> None:
    with (root / "sketches/shoes/b.ndjson").open("ab") as file:
        file.write(b'\n\n{"drawing": [[[1, 2], [3')


def harm_blank_picture(root: Path) -> None:
    Image.new("L", (64, 64), 255).save(root / "sketches/shoes/a1_2.png")


def harm_name(root: Path) -> None:
    os.rename(root / "sketches/shoes/a1_2.png", os.fsencode(root / "sketches/shoes") + b"/a1_\xff.png")


def harm_link(root: Path) -> None:
    outside = layouts.svg(root.parent / "outside.svg")
    (root / "sketches/shoes/a1_3.svg").symlink_to(outside)


def harm_dangling_link(root: Path) -> None:
    (root / "sketches/shoes/a1_3.svg").symlink_to(root / "sketches/shoes/gone.svg")


def harm_loop(root: Path) -> None:
    (root / "sketches/again").symlink_to(root / "sketches")


def harm_duplicate(root: Path) -> None:
    layouts.picture(root / "sketches/shoes/a1.png")


def harm_duplicate_photo(root: Path) -> None:
    layouts.photo(root / "photos/shoes/a1.png", 9)


def harm_empty_file(root: Path) -> None:
    (root / "sketches/shoes/a1_4.svg").touch()


def harm_npz(root: Path) -> None:
    path = root / "sketches/bags/x#2.npz"
    path.write_bytes(path.read_bytes()[:100])


def harm_pickled_npz(root: Path) -> None:
    np.savez(root / "sketches/bags/x#2.npz", points=np.array([print], object), stroke_offsets=np.array([0, 1]))


def harm_npz_offsets(root: Path) -> None:
    np.savez(root / "sketches/bags/x#2.npz", points=np.zeros((3, 2)), stroke_offsets=np.array([0, 5]))


HARMS = [
    (harm_missing_photo, "sketch 'shoes/a1' shows 'shoes/a1', which is not among the photos", 2),
    (harm_broken_photo, r"a1\.jpg: the image cannot be read", 2),
    (harm_image_bomb, r"a1\.jpg: the image has too many pixels", 2),
    (harm_svg, r"a1\.svg, line 1: declares the entity 'a'", 1),
    (harm_empty_svg, r"a1\.svg: the SVG has no strokes", 1),
    (harm_line, r"b\.ndjson, line 4: broken JSON", 0),
    (harm_blank_picture, r"a1_2\.png: the drawing holds no ink", 1),
    (harm_name, r"the name b'a1_\\xff\.png' is not UTF-8", 1),
    (harm_link, r"a1_3\.svg: links to .*outside\.svg, outside of", 0),
    (harm_dangling_link, r"a1_3\.svg: links to .*gone\.svg, which does not exist", 0),
    (harm_loop, r"again: a link to a folder", 0),
    (harm_duplicate, r"a1\.svg: drawing 'shoes/a1' is in .*a1\.png too", 0),
    (harm_duplicate_photo, r"a1\.png: photo 'shoes/a1' is in .*a1\.jpg too", 0),
    (harm_empty_file, r"a1_4\.svg: the file is empty", 0),
    (harm_npz, r"x#2\.npz: the arrays cannot be read", 1),
    (harm_pickled_npz, r"x#2\.npz: the arrays cannot be read .*allow_pickle", 1),
    (harm_npz_offsets, r"x#2\.npz: .*must run from 0 to 3", 1),
]


@pytest.mark.parametrize(("harm", "message", "lost"), HARMS, ids=lambda value: getattr(value, "__name__", None))
def test_bad_input_is_named_or_skipped_and_counted(
    tmp_path: Path, harm: Callable[[Path], None], message: str, lost: int
) -> None:
    root = layouts.folder(tmp_path / "data")
    harm(root)
    with pytest.raises(InputError, match=message):
        prepared(root, tmp_path / "cache")
    pairs = prepared(root, tmp_path / "cache", skip_bad=True)
    assert len(pairs.sketches) == 6 - lost
    skipped = [note for note in pairs.notes if note.startswith("skipped: ")]
    assert any(note.split(" skipped because of bad input")[0].isdecimal() for note in pairs.notes)
    # What goes with a bad photo is listed as well.
    assert len(skipped) >= max(1, lost) and any(Path(n).name or n for n in skipped)
    again = prepared(root, tmp_path / "cache", skip_bad=True)
    assert again.notes == pairs.notes  # from the cache, with the same list


def test_two_bad_photos_are_left_out_of_the_arrays(tmp_path: Path) -> None:
    root = layouts.folder(tmp_path / "data")
    for name in ("shoes/a1", "bags/lonely"):
        (root / "photos" / f"{name}.jpg").write_bytes(b"no picture")
    pairs = prepared(root, tmp_path / "cache", skip_bad=True)
    assert pairs.photo_ids == ("bags/x", "shoes/a10", "shoes/b") and pairs.photos.shape == (3, 32, 32, 3)
    for k, id in enumerate(pairs.photo_ids):
        assert np.array_equal(pairs.photos[k], read_photo(root / "photos" / f"{id}.jpg", 32))
    assert [pairs.photo_ids[p] for p in pairs.sketch_photo] == ["bags/x", "shoes/a10", "shoes/b", "shoes/b"]


def test_a_stroke_file_that_would_run_code(tmp_path: Path) -> None:
    root = layouts.chair_v2_sorted(tmp_path)

    class Harm:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    (root / "ChairV2_Coordinate").write_bytes(pickle.dumps({"/train/a_v1_1": Harm()}))
    with pytest.raises(InputError, match="names posix.system, which no array needs.*nothing in it was executed"):
        read(root, "qmul_v2")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((0, 3)), "has 0 points"),
        (np.zeros((3, 2)), r"is float64 \(3, 2\), expected numbers \(N, 3\)"),
        (np.full((2, 3), np.nan), "not finite"),
    ],
)
def test_bad_strokes_of_a_stroke_file(tmp_path: Path, rows: np.ndarray, message: str) -> None:
    root = layouts.chair_v2_sorted(tmp_path)
    strokes = {"/train/a_v1_1": layouts.pen_rows(), "/train/a_v1_2": rows, "/test/c_1": layouts.pen_rows()}
    (root / "ChairV2_Coordinate").write_bytes(pickle.dumps(strokes))
    with pytest.raises(InputError, match=rf"ChairV2_Coordinate: drawing 'a_v1_2' .*{message}"):
        prepared(root, tmp_path / "cache", "qmul_v2")
    pairs = prepared(root, tmp_path / "cache", "qmul_v2", skip_bad=True)
    assert "a_v1_2" not in (pairs.sketches.ids or ()) and len(pairs.sketches) >= 2


def test_photos_that_no_list_names(tmp_path: Path) -> None:
    root = layouts.shoe_v2_published(tmp_path)
    layouts.photo(root / "ShoeV2_photo" / "9.png")
    with pytest.raises(InputError, match=r"9\.png: neither in photo_train\.txt nor in photo_test\.txt"):
        read(root, "qmul_v2")
    layouts.text(root / "photo_test.txt", "1445100078.png", "2429245009.png", "9.png")
    with pytest.raises(InputError, match="photo '2429245009' is in photo_train.txt too"):
        read(root, "qmul_v2")
    (root / "photo_test.txt").unlink()
    with pytest.raises(InputError, match=r"photo_test\.txt: does not exist"):
        read(root, "qmul_v2")


def test_test_photos_that_are_not_there(tmp_path: Path) -> None:
    root = layouts.fscoco_published(tmp_path)
    layouts.text(root / "val_normal.txt", "25", "77", "x9")
    with pytest.raises(InputError, match=r"val_normal\.txt, line 3: 'x9' is no number"):
        read(root, "fscoco")
    skips = Skips(allowed=True)
    read(root, "fscoco", skips)
    assert any("line 2: photo 77 is not in images/" in message for message in skips.messages)


def test_skips_beyond_the_list_are_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sketchynet.data.skips.LISTED", 2)
    skips = Skips(allowed=True)
    for k in range(5):
        skips.add(f"fault {k}")
    assert skips.count == 5 and skips.messages == ["fault 0", "fault 1"]
    assert skips.notes()[0].startswith("5 skipped because of bad input")


def test_real_stroke_file_has_every_drawing(data_root: Path, tmp_path: Path) -> None:
    listing = read(data_root / "chairv2_strokes", "qmul_v2")
    splits = [split for _, split in found(listing).values()]
    assert (splits.count(TRAIN), splits.count(TEST)) == (952, 323)
    assert sum(photo.split == TRAIN for photo in listing.photos) == 300 and len(listing.photos) == 400
    with pytest.raises(InputError, match="which is not among the photos; restore"):
        prepare_files(listing, 32, cache_dir=tmp_path, progress=False)


@pytest.mark.parametrize(("name", "photos", "drawings"), [("sketchy_svg", 100, 100), ("sketchy_raster", 355, 2443)])
def test_real_sketchy_files(data_root: Path, name: str, photos: int, drawings: int) -> None:
    listing = read(data_root / name, "sketchy")
    assert len(listing.photos) == photos and len(listing.sketches) == drawings
    assert all(photo.path is not None for photo in listing.photos)
