from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small import ALIKE, small_pairs, small_recipe

from sketchynet import checkpoint
from sketchynet.config import AugmentationConfig, override
from sketchynet.models import Embedder
from sketchynet.recipes import find_recipe
from sketchynet.stages.copies import ONCE, PhotoCopies
from sketchynet.stages.embedding import embed_galleries, embed_images, embed_photos, embed_sketches
from sketchynet.stages.networks import read_embedder
from sketchynet.stages.ranks import validation_score
from sketchynet.stages.retrieval import Retrieval
from sketchynet.stages.rewards import Judge, RolloutWorker
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import LocalRuntime, RolloutRequest
from sketchynet.stages.task import VALIDATION
from sketchynet.stages.train import Places, train_networks


def _network() -> Embedder:
    torch.manual_seed(0)
    return Embedder("mobile_small", canvases=(16, 32)).eval()


def _square() -> torch.Tensor:
    """A white photo of 20 pixels with a black square of 8 in its middle."""
    photo = np.full((20, 20, 3), 255, np.uint8)
    photo[6:14, 6:14] = 0
    return torch.from_numpy(photo)[None]


def _box(photo: torch.Tensor) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is dark."""
    rows, columns = np.nonzero(photo[0, :, :, 0].numpy() < 128)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_copies_are_moved_to_the_left_right_top_and_bottom() -> None:
    copies = PhotoCopies(shift=0.1, border="white")
    moved = [_box(photo) for photo in copies.moved(_square())]
    assert moved == [(4, 6, 12, 14), (8, 6, 16, 14), (6, 4, 14, 12), (6, 8, 14, 16)]
    assert copies.count == 5 and ONCE.count == 1 and ONCE.moved(_square()) == []


def test_the_border_of_a_copy_is_white_or_replicated() -> None:
    dark = torch.zeros(1, 20, 20, 3, dtype=torch.uint8)
    assert int(PhotoCopies(shift=0.1, border="white").moved(dark)[1][0, 10, 0, 0]) == 255
    assert int(PhotoCopies(shift=0.1, border="replicate").moved(dark)[1][0, 10, 0, 0]) == 0


def test_a_copy_is_embedded_as_the_photo_that_it_is() -> None:
    network, pairs, rows, copies = _network(), small_pairs(), np.array([3, 0]), PhotoCopies(shift=0.1)
    found = embed_photos(network, pairs, rows, 32, copies)
    assert found.shape == (2, 5, network.dim)
    torch.testing.assert_close(found[:, 0], embed_photos(network, pairs, rows, 32), rtol=0, atol=1e-6)
    images = torch.from_numpy(np.asarray(pairs.photos[rows]))
    with torch.no_grad():
        for place, moved in enumerate(copies.moved(images), start=1):
            torch.testing.assert_close(found[:, place], network.embed_photos(moved), rtol=0, atol=1e-5)
    assert embed_images(network, images.numpy(), 32, copies).equal(found)
    assert embed_photos(network, pairs, rows[:0], 32, copies).shape == (0, 5, network.dim)
    galleries = embed_galleries(network, pairs, rows, (32, 16, 32), copies)
    assert list(galleries) == [16, 32] and galleries[32].equal(found)


def _naive_distances(network: Embedder, copies: PhotoCopies, canvas: int) -> tuple[torch.Tensor, list[int]]:
    """Of validation: float64 (n, g), and each sketch's photo among the g."""
    pairs = small_pairs()
    photos, sketches = pairs.photo_indices(VALIDATION), pairs.sketch_indices(VALIDATION)
    stored = embed_photos(network, pairs, photos, 32, copies).double().reshape(len(photos), -1, network.dim)
    queries = embed_sketches(network, pairs.sketches.select(sketches), canvas).double()
    distances = [(stored - query).norm(dim=2).sort(dim=1).values[:, :2].mean(dim=1) for query in queries]
    return torch.stack(distances), [photos.tolist().index(photo) for photo in pairs.sketch_photo[sketches]]


def _naive_ranks(network: Embedder, copies: PhotoCopies, canvas: int) -> list[int]:
    distances, truth = _naive_distances(network, copies, canvas)
    return [int((row <= row[true]).sum()) for row, true in zip(distances, truth, strict=True)]


def test_a_recipe_is_searched_and_rewarded_with_its_copies() -> None:
    recipe = small_recipe(*ALIKE, "search.copy_shift=0.1")
    copies, network, pairs = PhotoCopies.of(recipe), _network(), small_pairs()
    assert copies == PhotoCopies(0.1, recipe.augmentation.photo.border)
    expected = [_naive_ranks(network, copies, canvas) for canvas in (16, 32)]
    assert expected != [_naive_ranks(network, ONCE, canvas) for canvas in (16, 32)]
    answers = Retrieval(recipe, pairs).answers(network, VALIDATION, (16, 32), (32, 32))
    assert answers.ranks.T.tolist() == expected
    figures = validation_score(network, pairs, canvases=(16, 32), photo_sizes=(32, 32), copies=copies)
    assert figures["validation/acc1_32"] == pytest.approx(np.mean(np.array(expected[1]) == 1))

    photos, sketches = pairs.photo_indices(VALIDATION), pairs.sketch_indices(VALIDATION)
    gallery = embed_photos(network, pairs, photos, 32, copies)
    judge = Judge(network, sketches, photos, (gallery, gallery))
    worker = RolloutWorker(pairs, [judge], (16, 32), AugmentationConfig(), margin=0.3, seed=0)
    count = len(sketches)
    outcome = worker(RolloutRequest(sketches, np.zeros(count, int), np.ones(count, int)))
    assert outcome.ranks.tolist() == expected[1]
    distances, truth = _naive_distances(network, copies, 32)
    for row, true, triplet in zip(distances, truth, outcome.triplets, strict=True):
        others = torch.cat([row[:true], row[true + 1 :]])
        assert triplet == pytest.approx(max(0.0, 0.3 + float(row[true] - others.min())), abs=1e-5)


def test_every_stage_of_a_run_sees_the_copies(tmp_path: Path) -> None:
    recipe = small_recipe(
        *ALIKE, "search.head=true", "search.dimensions=8", "search.copy_shift=0.1", "student.direct=false", "selector.folds=2",
        "student.distillation.ranking_share=1", "student.optimization.epochs=1",
    )  # fmt: skip
    run = RunFolder(tmp_path / "run")
    places = Places(run, data=None, cache=tmp_path / "cache", weights=None)
    train_networks(["student", "fold-0", "fold-1"], LocalRuntime(), recipe=recipe, places=places)
    task = Retrieval(recipe, places.load(recipe, progress=False))
    worker = task.rollouts(run, task.folds())
    assert {gallery.shape[1] for judge in worker._judges for gallery in judge.galleries} == {5}
    network = read_embedder(run.search("student"))
    figures = checkpoint.read_checkpoint_json(run.search("student"), "metrics")
    ranks = task.answers(network, VALIDATION, (16, 32), (32, 32)).ranks
    assert [figures[f"validation/acc1_{canvas}"] for canvas in (16, 32)] == pytest.approx((ranks == 1).mean(axis=0).tolist())


def test_recognition_has_no_photos_to_copy() -> None:
    with pytest.raises(Exception, match=r"search\.copy_shift: recognition searches no photos"):
        override(find_recipe("quickdraw"), ["search.copy_shift=0.1"])
