from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import ALIKE, small_pairs, small_recipe

from sketchynet import checkpoint
from sketchynet.cli import main
from sketchynet.config import Recipe, SearchConfig
from sketchynet.errors import InputError
from sketchynet.experiments.sharing import borrow_stages, needed_stages, stage_keys
from sketchynet.flops import count_parameters, embedder_flops
from sketchynet.raster import rasterize
from sketchynet.stages.batches import clean_photos
from sketchynet.stages.bulk import find_network
from sketchynet.stages.networks import read_embedder
from sketchynet.stages.retrieval import Retrieval
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import LocalRuntime
from sketchynet.stages.search_head import add_search_head, search_head, searched
from sketchynet.stages.task import TEST, TRAIN, VALIDATION
from sketchynet.stages.train import Places, is_trained, train_networks

_ALL = SearchConfig(head=True, whitening=1e-9, dimensions=None, neighbours=0)


def _pairs_of(count: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Photos (1, N, C) and sketches that differ from them, much in the first direction and little in the last."""
    generator = torch.Generator().manual_seed(0)
    photos = torch.randn(count, channels, generator=generator) + 2.0
    sketches = photos + torch.randn(count, channels, generator=generator) * torch.linspace(3.0, 0.1, channels)
    return sketches[None], photos[None]


def test_whitened_pairs_differ_alike_in_all_directions() -> None:
    sketches, photos = _pairs_of(500, 6)
    (layer,) = search_head(sketches, photos, [32], _ALL, parts=[6]).whitening
    differences = (layer(sketches) - layer(photos))[0].double()
    torch.testing.assert_close(differences.T @ differences / 500, torch.eye(6, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(layer(torch.cat([sketches, photos], dim=1)).mean(dim=1), torch.zeros(1, 6), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("count", "channels"), [(200, 6), (5, 12)])
def test_shrinkage_and_kept_directions_beside_numpy(count: int, channels: int) -> None:
    sketches, photos = _pairs_of(count, channels)
    head = search_head(sketches, photos, [32], _ALL.model_copy(update={"whitening": 0.5, "dimensions": 4}), parts=[channels])
    differences = (sketches - photos)[0].double().numpy()
    moment = differences.T @ differences / count
    values, vectors = np.linalg.eigh(moment + 0.5 * np.trace(moment) / channels * np.eye(channels))
    white = vectors / np.sqrt(values) @ vectors.T
    rows = torch.cat([sketches, photos], dim=1)[0].double().numpy()
    moved = (rows - rows.mean(axis=0)) @ white
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    kept = np.linalg.eigh(moved.T @ moved)[1][:, -4:]
    expected = (rows - rows.mean(axis=0)) @ white @ kept
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = head(torch.from_numpy(rows).float()).double().numpy()
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)  # directions have no sign of their own


@pytest.mark.parametrize("value", [1.0, math.nan])
@pytest.mark.parametrize("channels", [2, 8])
def test_a_collapsed_or_diverged_network_is_named(value: float, channels: int) -> None:
    embedded = torch.full((1, 4, channels), value)
    with pytest.raises(InputError, match="collapsed or diverged"):
        search_head(embedded, embedded, [32], _ALL, parts=[channels])


def test_a_photo_that_is_near_everything_is_held_back() -> None:
    settings = SearchConfig(head=True, whitening=None, dimensions=None, neighbours=2, sketches=2)
    common, first, second = torch.eye(3)
    drawings = F.normalize(torch.stack([common + 0.5 * first, common + 0.5 * second]), dim=1)
    photos = F.normalize(torch.stack([common + 0.05 * first, 0.45 * common + first]), dim=1)
    assert torch.cdist(drawings[:1], photos).argmin() == 0  # the common photo, not the one with what was drawn
    head = search_head(drawings[None], photos[None], [32], settings, parts=[3])
    assert torch.cdist(head.of_sketches(head(drawings[:1])), head.of_photos(head(photos), 32)).argmin() == 1


def _run(folder: Path, *changes: str) -> tuple[Recipe, RunFolder]:
    """A run whose student has random weights."""
    recipe = small_recipe(*ALIKE, "search.head=true", "search.dimensions=8", "search.neighbours=3", *changes)
    run = RunFolder(folder)
    torch.manual_seed(0)
    network = Retrieval(recipe, small_pairs()).new_network(recipe.student.network, (16, 32), None)
    for name in ("student", "teacher-0"):
        checkpoint.write_checkpoint(run.final(name), network=network.state_dict(), config=network.config, metrics={})
    return recipe, run


def _add(recipe: Recipe, run: RunFolder, name: str = "student", **options: bool) -> None:
    fitted, sizes = small_pairs().sketch_indices(TRAIN), recipe.student.gallery_sizes
    add_search_head(
        recipe, small_pairs(), LocalRuntime(), run, name,
        sketches=fitted, canvases=recipe.student.canvases, photo_sizes=sizes, **options,
    )  # fmt: skip


def test_the_bank_holds_the_training_sketches_at_the_canvases_of_each_gallery(tmp_path: Path) -> None:
    recipe, run = _run(tmp_path, "student.photo_sizes=[16, 32]")
    _add(recipe, run)
    network, pairs = read_embedder(searched(recipe, run, "student")), small_pairs()
    plain, fitted = read_embedder(run.final("student")), small_pairs().sketch_indices(TRAIN)
    assert network.search_head is not None and network.search_head.photo_sizes == (16, 32)
    for place, canvas in enumerate((16, 32)):
        with torch.no_grad():
            drawn = torch.from_numpy(rasterize(pairs.sketches.select(fitted), canvas))
            expected = network.search_head(plain.embed_sketches(drawn))
        torch.testing.assert_close(network.search_head.bank[place], expected, atol=1e-5, rtol=1e-4)
    assert network.embed_photos(clean_photos(pairs, np.array([0]), 16)).shape == (1, 9)


def test_canvases_that_share_photos_share_the_sketches_out(tmp_path: Path) -> None:
    recipe, run = _run(tmp_path, "search.sketches=12")
    _add(recipe, run)
    _add(recipe, run, "teacher-0", mirrored=True)
    student, member = (read_embedder(searched(recipe, run, name)).search_head for name in ("student", "teacher-0"))
    assert student is not None and member is not None
    assert student.bank.shape == (1, 12, 8) and member.bank.shape == (1, 24, 8)


def test_the_figures_on_validation_are_those_of_the_search(tmp_path: Path) -> None:
    recipe, run = _run(tmp_path)
    _add(recipe, run)
    figures = checkpoint.read_checkpoint_json(run.search("student"), "metrics")
    network, sizes = read_embedder(run.search("student")), recipe.student.gallery_sizes
    ranks = Retrieval(recipe, small_pairs()).answers(network, VALIDATION, (16, 32), sizes).ranks
    assert [figures[f"validation/acc1_{canvas}"] for canvas in (16, 32)] == pytest.approx((ranks == 1).mean(axis=0).tolist())


def test_few_training_sketches_are_all_near(tmp_path: Path) -> None:
    sketches, photos = _pairs_of(4, 6)
    settings = _ALL.model_copy(update={"neighbours": 10})
    assert search_head(sketches, photos, [32], settings, parts=sketches.shape[2:]).neighbours == 4


def test_a_head_is_made_once_and_never_borrowed(tmp_path: Path) -> None:
    recipe, run = _run(tmp_path / "first", "selector.train=false", "student.direct=false")
    assert not is_trained(recipe, run, "student")
    _add(recipe, run)
    assert is_trained(recipe, run, "student")
    written = (run.search("student") / "network.safetensors").stat().st_mtime_ns
    _add(recipe, run)
    assert (run.search("student") / "network.safetensors").stat().st_mtime_ns == written
    other, changed = RunFolder(tmp_path / "second"), recipe.model_copy(update={"search": SearchConfig()})
    keys = [stage_keys(r) for r in (recipe, changed)]
    assert keys[0]["student"] == keys[1]["student"] and keys[0]["selector"] != keys[1]["selector"]
    unmirrored = stage_keys(recipe.model_copy(update={"search": recipe.search.model_copy(update={"flip": False})}))
    assert unmirrored == keys[0]  # no policy looks at the full network
    borrow_stages(needed_stages(changed, teacher=True), other, [(run, recipe)])
    assert other.final("student").exists() and not other.search("student").exists()
    assert searched(changed, other, "student") == other.final("student") and is_trained(changed, other, "student")


def test_a_head_needs_photos_of_the_students_own() -> None:
    with pytest.raises(Exception, match=r"search\.head needs student\.gallery = own"):
        small_recipe("search.head=true")
    with pytest.raises(Exception, match="neighbours = 5 is more than the 4 sketches"):
        small_recipe(*ALIKE, "search.neighbours=5", "search.sketches=4")
    for levels in ("search.levels", "student.ranking.levels"):
        with pytest.raises(Exception, match=r"levels must ascend without repetition, found \[5, 3\]"):
            small_recipe(*ALIKE, f"{levels}=[5, 3]")
    with pytest.raises(Exception, match=r"student\.ranking\.levels must be \[\]"):
        small_recipe("student.ranking.levels=[3, 5]")
    with pytest.raises(Exception, match=r"optimization\.compile leaves out levels.* ranking\.levels \[3, 5\] to \[\]"):
        small_recipe("teacher.ranking.levels=[3, 5]", "teacher.optimization.compile=true")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (("search.head=true", "search.levels=[3, 99]"), "search.levels of teacher.network"),
        (("student.ranking.levels=[99]",), "student.ranking.levels of student.network"),
    ],
)
def test_levels_that_a_network_lacks_are_named_before_anything_is_trained(
    changes: tuple[str, ...], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = small_recipe(*ALIKE, *changes)
    (tmp_path / "small.json").write_text(recipe.model_dump_json())
    assert main(["train", str(tmp_path / "small.json"), "--output", str(tmp_path / "run"), "--track", "jsonl"]) != 0
    told = f"{key}: level 99 of backbone 'vgg_tiny' does not exist: its parts are numbered 0 to 27; or set {key.split()[0]}=[]"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run" / "teacher-0").exists()


def test_each_level_is_whitened_by_itself(tmp_path: Path) -> None:
    recipe, run = _run(tmp_path, "search.levels=[3, 5]", "search.fields=2", "student.photo_sizes=[32, 32]")
    _add(recipe, run)
    head, pairs = read_embedder(run.search("student")).search_head, small_pairs()
    assert head is not None and head.dim == 25
    plain, fitted = read_embedder(run.final("student")), pairs.sketch_indices(TRAIN)
    plain.add_levels((3, 5), 2)
    with torch.no_grad():
        photos = plain.embed_photos(clean_photos(pairs, pairs.sketch_photo[fitted], 32))
        sketches = torch.empty(len(fitted), plain.dim)
        for place, canvas in enumerate((16, 32)):
            drawn = torch.from_numpy(rasterize(pairs.sketches.select(fitted), canvas))
            at = torch.from_numpy(fitted % 2 == place)
            sketches[at] = plain.embed_sketches(drawn)[at]
    parts = zip(sketches.split(plain.parts, 1), photos.split(plain.parts, 1), head.whitening, strict=True)
    for number, (drawn, shown, layer) in enumerate(parts):
        alone = search_head(drawn[None], shown[None], [32], recipe.search, parts=drawn.shape[1:])
        expected = alone(drawn)
        found = F.normalize(layer(drawn), dim=1)
        torch.testing.assert_close(found @ found.T, expected @ expected.T, atol=1e-4, rtol=0, msg=f"part {number}")


def test_a_run_searches_through_the_heads_of_all_its_networks(tmp_path: Path) -> None:
    recipe = small_recipe(
        *ALIKE, "search.head=true", "search.dimensions=8", "search.neighbours=3", "selector.folds=2",
        "search.levels=[3, 5]", "search.fields=2", "teacher.flip=true", "search.flip=false",
    )  # fmt: skip
    (tmp_path / "small.json").write_text(recipe.model_dump_json())
    train = ["--output", str(tmp_path / "run"), "--track", "jsonl", "--threads", "1"]
    assert main(["train", str(tmp_path / "small.json"), *train]) == 0
    run = RunFolder(tmp_path / "run")
    for name in ("teacher-0", "direct", "student", "fold-0", "fold-1"):
        assert is_trained(recipe, run, name) and (run.search(name) / "network.safetensors").exists()
    plain, headed = (read_embedder(folder) for folder in (run.final("student"), run.search("student")))
    summary = json.loads(run.evaluation.read_text())
    figures = summary["systems"]["v1@32"]["all"]
    plain.add_levels((3, 5), 2)
    assert headed.dim == 25 and figures["parameters"] == count_parameters(plain) + 8 * sum(size + 1 for size in plain.parts)
    assert figures["gflops"] == pytest.approx(embedder_flops(headed, 32) / 1e9)
    ranks = Retrieval(recipe, small_pairs()).answers(headed, TEST, (16, 32), recipe.student.gallery_sizes).ranks
    assert [query["ranks"] for query in summary["queries"]] == ranks.tolist()
    member, full = read_embedder(run.search("teacher-0")), summary["systems"]["full"]["all"]
    assert full["gflops"] == pytest.approx(recipe.teacher.members * embedder_flops(member, recipe.teacher.canvas) / 1e9)
    assert member.search_head is not None and member.search_head.bank.shape[1] == len(small_pairs().sketch_indices(TRAIN))
    assert not getattr(find_network(run.root, "full").network, "flip", False)


def test_a_network_that_is_trained_again_gets_a_head_of_its_own(tmp_path: Path) -> None:
    recipe, run = _run(tmp_path, "student.direct=true", "selector.train=false")
    places = Places(run, data=None, cache=tmp_path / "cache", weights=None)
    other = read_embedder(run.final("student"))
    checkpoint.write_checkpoint(run.search("direct"), network=other.state_dict(), config=other.config, metrics={})
    train_networks(["direct"], LocalRuntime(), recipe=recipe, places=places)
    headed, trained = read_embedder(run.search("direct")), read_embedder(run.final("direct"))
    assert headed.search_head is not None
    found = headed.state_dict()
    assert all(torch.equal(found[key], value) for key, value in trained.state_dict().items())
