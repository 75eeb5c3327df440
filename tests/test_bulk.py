"""Bulk embedding: equal to the evaluation's embeddings, in shards that go on after an interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import small_recipe

from sketchynet import checkpoint
from sketchynet.bulk import embed_collection
from sketchynet.cli import main
from sketchynet.data.collection import list_photos
from sketchynet.data.embeddings import EmbeddingSet, ShardFolder
from sketchynet.data.sources import load_pairs
from sketchynet.errors import InputError
from sketchynet.models import SearchHead
from sketchynet.ops import match_rank, nearest, nearest_photos
from sketchynet.stages.bulk import find_network
from sketchynet.stages.copies import PhotoCopies
from sketchynet.stages.embedding import embed_photos
from sketchynet.stages.networks import new_embedder, read_embedder

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M1 1 L8 5 L3 8"/></svg>'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a finished student, as training leaves it; its batch norms are not those of a fresh network."""
    recipe = small_recipe("data.photo_size=48")
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    network = new_embedder(recipe.student.network, recipe.student.canvases, None)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    checkpoint.write_json(folder / "recipe.json", recipe.model_dump(mode="json"))
    checkpoint.write_checkpoint(folder / "student" / "final", network=network.state_dict(), config=network.config, metrics={})
    return folder


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of three formats and several shapes, with a drawing of each."""
    folder = tmp_path_factory.mktemp("catalogue")
    generator = np.random.default_rng(0)
    for number in range(40):
        height, width = generator.integers(20, 90, 2)
        name = f"{'ab'[number % 2]}/{number:02d}"
        for part in ("photos", "sketches"):
            (folder / part / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((width, height))
        picture.save(folder / "photos" / f"{name}.{('jpg', 'png', 'webp')[number % 3]}")
        (folder / "sketches" / f"{name}.svg").write_text(SVG)
    (folder / "photos" / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def expected(run: Path, catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The embeddings as validation and evaluation make them, by id without suffix."""
    return _evaluated(run, catalogue, tmp_path_factory.mktemp("cache"))


def _evaluated(run: Path, catalogue: Path, cache: Path) -> dict[str, np.ndarray]:
    pairs = load_pairs("folder", root=catalogue, size=48, validation=0.1, seed=0, cache_dir=cache, progress=False)
    network, photos, _ = find_network(run)
    rows = embed_photos(network, pairs, np.arange(len(pairs.photos)), photos.size).numpy()
    return dict(zip(pairs.photo_ids, rows, strict=True))


def _check(folder: Path, expected: dict[str, np.ndarray], count: int) -> EmbeddingSet:
    found = EmbeddingSet(folder)
    ids = [str(Path(id).with_suffix("")) for id in found.ids()]
    assert len(found) == len(ids) == count and ids == sorted(ids)
    np.testing.assert_allclose(found[:], np.stack([expected[id] for id in ids]), rtol=1e-5, atol=1e-6)
    return found


def test_embeddings_are_those_of_the_evaluation(run: Path, catalogue: Path, expected, tmp_path: Path) -> None:
    made = embed_collection(run, str(catalogue / "photos"), str(tmp_path / "out"), shard_size=16)
    assert made["rows"] == [16, 16, 8] and made["embedded"] == 40
    found = _check(tmp_path / "out", expected, 40)
    assert found.shape == (40, found.dim) and found.id(17) == list(found.ids())[17]
    # As a gallery it is what the operators take: the same answers as from one tensor.
    whole = torch.from_numpy(np.array(found[:]))
    queries = whole[[3, 39, 20]] + 0.01
    assert nearest(queries, found, 5).row.equal(nearest(queries, whole, 5).row)  # type: ignore[arg-type]
    target = torch.tensor([7, 30, 2])
    assert match_rank(queries, found, target).equal(match_rank(queries, whole, target))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found[np.array([39, 0, 15, 16])], whole.numpy()[[39, 0, 15, 16]])
    assert found[40:50].shape == (0, found.dim)


def test_a_gallery_for_each_canvas_is_asked_for_by_its_size(run: Path, tmp_path: Path) -> None:
    values = json.loads((run / "recipe.json").read_text())
    values["student"] |= {"gallery": "own", "photo_sizes": [24, 32]}
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"\(24 for sketches at 16, 32 for sketches at 32\).* with --photo-size"):
        find_network(tmp_path / "run")
    assert find_network(tmp_path / "run", photo_size=24).photos.size == 24
    values["student"]["photo_sizes"] = [24, 24]
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(values))
    assert find_network(tmp_path / "run").photos.size == 24


def test_photos_are_embedded_with_the_search_head(run: Path, catalogue: Path, tmp_path: Path) -> None:
    values = json.loads((run / "recipe.json").read_text())
    values["student"]["gallery"] = "own"
    values["search"]["head"] = True
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(values))
    network = read_embedder(run / "student" / "final")
    network.add_search_head(SearchHead([network.dim], dimensions=[5], photo_sizes=(32,), sketches=4, neighbours=2))
    checkpoint.write_checkpoint(tmp_path / "run" / "student" / "search", network=network.state_dict(), config=network.config, metrics={})
    made = embed_collection(tmp_path / "run", str(catalogue / "photos"), str(tmp_path / "out"))
    found = EmbeddingSet(tmp_path / "out")
    assert made["embedded"] == 40 and found.dim == 6 and (found[:][:, 5] == 1.0).all()  # near no sketch of an empty bank
    with pytest.raises(InputError, match="photos of 24 pixels.* of 32 pixels"):
        embed_collection(tmp_path / "run", str(catalogue / "photos"), str(tmp_path / "other"), photo_size=24)
    assert not list((tmp_path / "other").glob("*.npy"))


def test_an_interrupted_one_goes_on_and_finished_shards_stay(run: Path, catalogue: Path, expected, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["embed", str(run / "student" / "final"), str(catalogue / "photos"), "--out", str(out), "--shard-size", "10"]
    assert main(command) == 0
    kept = (out / "shard-00001.npy").stat().st_mtime_ns
    # As a process leaves it that was killed after the array and before the ids, or within a write.
    (out / "manifest.json").unlink()
    (out / "shard-00002.json").unlink()
    (out / "shard-00003.json").unlink()
    (out / "shard-00003.npy").rename(out / ".shard-00003.npy.host.7")
    with pytest.raises(InputError, match="let `sketchynet embed` finish"):
        EmbeddingSet(out)
    assert main(command) == 0
    assert (out / "shard-00001.npy").stat().st_mtime_ns == kept
    _check(out, expected, 40)


def test_bad_photos_stop_it_or_are_listed(run: Path, catalogue: Path, expected, tmp_path: Path, capsys) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(catalogue / "photos", photos)
    good = sorted(path for path in photos.rglob("*") if path.suffix in (".jpg", ".png", ".webp"))
    torn, empty = good[3], good[25]
    torn.write_bytes(torn.read_bytes()[:200])
    empty.write_bytes(b"")
    command = ["embed", str(run), str(photos), "--out", str(tmp_path / "out"), "--shard-size", "16"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert str(torn) in error and "--skip-bad leaves such photos out" in error
    assert not (tmp_path / "out" / "shard-00000.npy").exists()
    assert main([*command[:-4], "--out", str(tmp_path / "skipping"), "--skip-bad"]) == 0
    printed = capsys.readouterr().out
    assert "38 embeddings" in printed and "skipped a/" in printed
    assert len(_check(tmp_path / "skipping", expected, 38).manifest["skipped"]) == 2


def test_urls_and_lists_are_collections_too(run: Path, catalogue: Path, expected, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(catalogue / "photos"), "/bucket/photos", recursive=True)
    try:
        embed_collection(run, "memory://bucket/photos", "memory://bucket/out", shard_size=16)
        memory.get("/bucket/out", str(tmp_path / "out"), recursive=True)
    finally:
        memory.rm("/bucket", recursive=True)
    _check(tmp_path / "out", expected, 40)
    names = tmp_path / "names.txt"
    chosen = sorted((catalogue / "photos" / "a").iterdir())[:5]
    names.write_text("\n".join(map(str, chosen)) + "\n")
    made = embed_collection(run, str(names), str(tmp_path / "listed"))
    assert made["rows"] == [5] and list(EmbeddingSet(tmp_path / "listed").ids()) == [str(path) for path in chosen]


def test_bad_input_is_named(run: Path, catalogue: Path, tmp_path: Path) -> None:
    photos, out = str(catalogue / "photos"), str(tmp_path / "out")
    for arguments, message in (
        ((tmp_path, photos, out), "neither a run"),
        ((run, str(tmp_path / "none"), out), "no such folder of photos"),
        ((run, "s4://bucket/photos", out), "s4"),
        ((run, str(catalogue / "sketches"), out), "no photo in it"),
        ((run, photos, str(catalogue)), "holds other files"),
    ):
        with pytest.raises(InputError, match=message):
            embed_collection(*arguments)
    with pytest.raises(InputError, match="no finished network 'direct'"):
        embed_collection(run, photos, out, network="direct")
    embed_collection(run, photos, out, shard_size=16)
    with pytest.raises(InputError, match="shard_size was 16, is now 8"):
        embed_collection(run, photos, out, shard_size=8)
    broken = Path(out) / "shard-00001.npy"
    broken.write_bytes(broken.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"shard-00001\.npy is damaged"):
        EmbeddingSet(out)[:]
    (Path(out) / "manifest.json").write_text(json.dumps({"format": 9, "rows": [], "dim": 1}))
    with pytest.raises(InputError, match="format 9"):
        EmbeddingSet(out)
    with pytest.raises(InputError, match="holds other files"):
        ShardFolder(str(catalogue)).begin({})


def test_real_photos(run: Path, data_root: Path, tmp_path: Path) -> None:
    """Thirty photos of Sketchy, through the reader of the set that is trained on and in bulk."""
    found = sorted((data_root / "sketchy_raster" / "photos").rglob("*.jpg"))[:30]
    for path in found:
        for part, target in (("photos", path.name), ("sketches", f"{path.stem}.svg")):
            place = tmp_path / "set" / part / path.parent.name / target
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place) if part == "photos" else place.write_text(SVG)
    embed_collection(run, str(tmp_path / "set" / "photos"), str(tmp_path / "out"), shard_size=12)
    _check(tmp_path / "out", _evaluated(run, tmp_path / "set", tmp_path / "cache"), 30)
    assert list_photos(str(tmp_path / "set" / "photos")).ids[0].endswith(found[0].name)


def test_a_gallery_with_copies_holds_a_row_for_each(run: Path, catalogue: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    values = json.loads((run / "recipe.json").read_text())
    values["search"] = {"copy_shift": 0.1}
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(values))
    made = embed_collection(tmp_path / "run", str(catalogue / "photos"), str(tmp_path / "out"), shard_size=16)
    assert made["rows"] == [80, 80, 40] and made["embedded"] == 40
    assert made["copies"] == {"shift": 0.1, "border": "replicate", "count": 5}
    found = EmbeddingSet(tmp_path / "out")
    ids = list(found.ids())
    assert len(ids) == 200 and ids[::5] == sorted(set(ids)) and ids[5:10] == [ids[5]] * 5
    pairs = load_pairs("folder", root=catalogue, size=48, validation=0.1, seed=0, cache_dir=tmp_path / "cache", progress=False)
    network, photos, _ = find_network(tmp_path / "run")
    wanted = [pairs.photo_ids.index(str(Path(id).with_suffix(""))) for id in ids[::5]]
    stored = embed_photos(network, pairs, np.array(wanted), photos.size, PhotoCopies(0.1, "replicate"))
    assert not torch.allclose(stored[:, 0], stored[:, 1], atol=1e-3)
    gallery = torch.from_numpy(np.array(found[:])).unflatten(0, (-1, found.copies))
    torch.testing.assert_close(gallery, stored, rtol=1e-5, atol=1e-6)
    row = int(nearest_photos(stored[7, 2:3], gallery, 1).row)
    assert found.id(row * found.copies) == ids[7 * 5]
    with pytest.raises(InputError, match="made otherwise: copies was"):
        embed_collection(run, str(catalogue / "photos"), str(tmp_path / "out"), shard_size=16)
