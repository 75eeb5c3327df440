"""The data commands on small sets of every layout, and on the real files whose counts are known."""

from __future__ import annotations

import os
from pathlib import Path

import layouts
import numpy as np
import pytest
from PIL import Image
from small import CHANGES

from sketchynet.cli import main
from sketchynet.data import load_pairs
from sketchynet.data.convert import convert
from sketchynet.data.detection import detect
from sketchynet.data.info import Histogram, describe
from sketchynet.data.skips import Skips
from sketchynet.data.sources import find_source, list_source


def run(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> str:
    assert main(["data", *map(str, arguments)]) == status
    output = capsys.readouterr()
    return output.out if status == 0 else output.err


def test_list_tells_every_layout(capsys: pytest.CaptureFixture[str]) -> None:
    printed = run(capsys, "list")
    for words in ("photos/ID.jpg", "trainA/", "ShoeV2_Coordinate", "val_unseen_user.txt", "tx_000000000000", "sheep.bin"):
        assert words in printed
    assert "options: fit_photos, test" in printed


def test_info_on_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = layouts.folder(tmp_path)
    (root / "photos/bags/x.jpg").unlink()
    printed = run(capsys, "info", root)
    assert "folder: a folder of photos and drawings" in printed
    assert "photos without a drawing: 1 (bags/lonely)" in printed
    assert "drawings whose photo is not there: 1 (bags/x#2)" in printed
    assert "strokes" in printed and "none published: 20% of each category tested on" in printed


def test_info_lists_faults_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = layouts.folder(tmp_path)
    for k in range(25):
        (root / f"sketches/shoes/a1-{k}x.svg").write_text("<svg")
    printed = run(capsys, "info", root)
    assert "25 faults" in printed and "a1-0x.svg: broken XML" in printed and "and 5 more" in printed


def test_info_counts_repeated_ids_of_drawings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sheep.bin").write_bytes(layouts.quickdraw_records([layouts.LINES] * 3))
    (tmp_path / "goat.bin").write_bytes(layouts.quickdraw_records([layouts.LINES], first=2)[:-1])
    (tmp_path / "cow.bin").write_bytes(layouts.quickdraw_records([layouts.LINES], first=2))
    printed = run(capsys, "info", tmp_path)
    assert "the id '2' of sheep, number 2 is that of cow, number 1 too" in printed
    assert "goat.bin, record 1 at byte 0: the file ends within it" in printed and "2 faults" in printed


def test_quantiles_of_a_histogram() -> None:
    values = np.random.default_rng(0).integers(0, 50, 1001)
    histogram = Histogram()
    histogram.add(values[:300])
    histogram.add(values[300:])
    ordered = np.sort(values)
    ranks = [max(1, int(np.ceil(q * 1001))) for q in (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)]
    assert histogram.quantiles() == [ordered[rank - 1] for rank in ranks] and Histogram().quantiles() == []


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("chairv2_strokes", {"train photos": 300, "test photos": 100, "train drawings": 952, "test drawings": 323}),
        ("sketchy_svg", {"photos": 100, "drawings": 100, "categories": 1}),
        ("sketchy_raster", {"photos": 355, "drawings": 2443, "categories": 4}),
        ("quickdraw", {"categories": 172, "drawings": 172 * 25}),
        ("sketchrnn", {"train drawings": 7400, "validation drawings": 300, "test drawings": 300}),
        (
            "qmul_v1",
            {
                "shoes train drawings": 304,
                "shoes test drawings": 115,
                "chairs train drawings": 200,
                "chairs test drawings": 97,
            },
        ),
        ("qmul_v1_shoe_extra", {"photos": 304, "drawings": 912}),
    ],
)
def test_info_counts_the_real_files(data_root: Path, name: str, counts: dict[str, int]) -> None:
    info = describe(detect(data_root / name), sample=3, progress=False)
    assert {key: info.counts[key] for key in counts} == counts and info.skips.count == 0
    missing = 1275 if name == "chairv2_strokes" else 0
    assert len(info.unpaired.get("drawings whose photo is not there", ())) == missing
    assert info.unpaired.get("photos without a drawing", []) == []


@pytest.mark.parametrize("paired", [True, False])
def test_show_draws_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str], paired: bool) -> None:
    root = layouts.folder(tmp_path / "set") if paired else layouts.tu_berlin_published(tmp_path / "set")
    sheet = tmp_path / "sheet.png"
    assert "sheet.png: 3 of" in run(capsys, "show", root, "--output", sheet, "--count", 3)
    image = np.asarray(Image.open(sheet))
    assert (image < 100).any() and [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert "cannot be written" in run(capsys, "show", root, "--output", tmp_path / "no" / "s.png", status=2)


def test_show_of_a_set_without_its_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = layouts.chair_v2_sorted(tmp_path)
    for path in root.glob("*B/*.png"):
        path.unlink()
    assert "pairs.png: 4 of QMUL" in run(capsys, "show", root, "--output", tmp_path / "pairs.png")


@pytest.mark.parametrize(
    ("source", "write"),
    [
        ("qmul_v2", layouts.shoe_v2_published),
        ("qmul_v2", layouts.chair_v2_sorted),
        ("sketchy", layouts.sketchy_published),
        ("fscoco", layouts.fscoco_published),
        ("folder", layouts.folder),
    ],
)
def test_a_converted_set_is_the_same_set(tmp_path: Path, source: str, write) -> None:
    root = write(tmp_path / "set")
    counted = convert(detect(root), tmp_path / "out", progress=False)
    found = detect(tmp_path / "out")
    assert found.source == "folder"
    before = list_source(source, find_source(source, root), {}, Skips())
    after = list_source("folder", tmp_path / "out", {}, Skips())
    assert counted == {"photos": len(before.photos), "drawings": len(before.sketches)}
    assert len(after.photos) == len(before.photos) and after.has_test == before.has_test
    assert {p.category for p in after.photos} == {p.category for p in before.photos}
    split = {True: [], False: []}
    for listing in (before, after):
        of = {photo.id: photo for photo in listing.photos}
        for sketch in listing.sketches:
            drawing, photo = listing.read_sketch(sketch), of[sketch.photo_id]
            assert photo.path is not None
            split[listing is before].append((photo.path.read_bytes(), photo.split, drawing.points.tobytes()))
    assert sorted(split[True]) == sorted(split[False])


def test_convert_writes_lines_for_drawings_without_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = layouts.tu_berlin_published(tmp_path / "set")
    assert "4 drawings, 2 categories" in run(capsys, "convert", root, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["airplane.ndjson", "zebra.ndjson"]
    info = describe(detect(tmp_path / "out"), progress=False)
    assert info.counts["airplane all drawings"] == 2 and info.strokes.quantiles()[0] == 2
    assert "is there already" in run(capsys, "convert", root, tmp_path / "out", status=2)


def test_convert_leaves_nothing_where_it_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = layouts.folder(tmp_path / "set")
    (root / "photos/shoes/a1.jpg").unlink()
    error = run(capsys, "convert", root, tmp_path / "out", status=2)
    assert "the photo 'shoes/a1' of sketch 'shoes/a1' is not there" in error
    assert os.listdir(tmp_path) == ["set"]
    printed = run(capsys, "convert", root, tmp_path / "out", "--skip-bad")
    assert "4 photos, 4 drawings" in printed and "2 skipped because of bad input" in printed


def test_prepare_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = layouts.folder(tmp_path / "set")
    (root / "sketches/shoes/a1.svg").write_text("<svg")
    arguments = ("prepare", root, "--size", 16, "--cache", tmp_path / "cache", "--workers", 1)
    assert "a1.svg: broken XML" in run(capsys, *arguments, status=2)
    printed = run(capsys, *arguments, "--skip-bad")
    assert "skipped: " in printed and "1 skipped because of bad input" in printed
    photos = [int(line.split()[1]) for line in printed.splitlines() if " photos" in line and "sketches" in line]
    assert len(photos) == 3 and sum(photos) == 5 and photos[2] > 0


def test_prepare_drawings_without_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A broken line is skipped, and told again when the cache is read."""
    root = layouts.tu_berlin_published(tmp_path / "set", 6)
    assert "2 categories, 12 drawings" in run(capsys, "prepare", root, "--cache", tmp_path / "cache")
    run(capsys, "convert", root, tmp_path / "out")
    with (tmp_path / "out" / "zebra.ndjson").open("ab") as file:
        file.write(b"{broken\n")
    arguments = ("prepare", tmp_path / "out", "--cache", tmp_path / "cache", "--option", "test=0.5")
    assert "zebra.ndjson, line 7: broken JSON" in run(capsys, *arguments, status=2)
    for _ in range(2):
        printed = run(capsys, *arguments, "--skip-bad")
        assert "2 categories, 12 drawings" in printed and "1 skipped because of bad input" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "/nowhere"], "/nowhere: not there; give the folder of a data set"),
        (["info", "SET", "--option", "fit"], "--option fit: expected KEY=VALUE"),
        (["info", "SET", "--option", "fit=1"], "option 'fit' is unknown to folder; it knows fit_photos, test"),
        (["show", "SET", "--count", "0"], "show at least 1"),
        (["prepare", "SET", "--size", "4"], "photo size 4: expected at least 8 pixels"),
        (["prepare", "nowhere"], "nowhere: not there"),
    ],
)
def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    root = str(layouts.folder(tmp_path / "set"))
    assert message in run(capsys, *[root if a == "SET" else a for a in arguments], status=2)


def test_a_folder_trains_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From published files over `convert` to a table, with networks of test size."""
    root = tmp_path / "set"
    for k in range(30):
        layouts.photo(root / "photos" / "cat" / f"n01_{k}.jpg", k)
        for drawing in (1, 2):
            x = np.random.default_rng([k, drawing]).integers(0, 256, (3, 2, 6)).tolist()
            paths = "".join(f'<path d="M{" ".join(f"{a} {b}" for a, b in zip(*s, strict=True))}"/>' for s in x)
            layouts.svg(root / "sketches" / "cat" / f"n01_{k}-{drawing}.svg", layouts.SVG.split("<path")[0] + paths + "</g></svg>")
    assert detect(root).source == "sketchy"
    run(capsys, "convert", root, tmp_path / "own")
    small = ["--set", 'data.options={"test": 0.3}', "--set", "data.source=folder"]
    for change in CHANGES[1:]:
        small += ["--set", change]
    places = ["--data", str(tmp_path / "own"), "--cache", str(tmp_path / "cache")]
    assert main(["train", "demo", *small, *places, "--track", "none", "--output", str(tmp_path / "run")]) == 0
    assert "SketchyNetV2" in capsys.readouterr().out


def test_the_recipe_for_folders_reads_them(tmp_path: Path) -> None:
    from sketchynet.recipes import RECIPES, find_recipe

    assert {"folder", "qmul_v2", "sketchy", "fscoco"} <= set(RECIPES)
    data = find_recipe("folder").data
    pairs = load_pairs(
        data.source,
        root=layouts.folder(tmp_path / "folder").parent,
        size=data.photo_size,
        validation=data.validation,
        seed=data.seed,
        options=data.options,
        cache_dir=tmp_path / "cache",
        progress=False,
    )
    assert pairs.photos.shape[1:3] == (128, 128)
