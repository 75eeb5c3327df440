from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small import small_pairs, small_recipe

from sketchynet import checkpoint
from sketchynet.config import Recipe
from sketchynet.losses import gallery_contrastive
from sketchynet.models import AsymmetricEmbedder, Embedder
from sketchynet.ops import relational_huber
from sketchynet.stages.batches import BatchPlan, clean_photos, flipped
from sketchynet.stages.retrieval import Retrieval
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import LocalRuntime
from sketchynet.stages.stored_gallery import GalleryExamples
from sketchynet.stages.task import TRAIN

SKETCHES = np.array([0, 5, 9, 12])


def _run(tmp_path: Path, *changes: str) -> tuple[Recipe, RunFolder, Embedder]:
    """A run whose full network has random weights."""
    recipe = small_recipe("student.gallery=full", *changes)
    folder, task = RunFolder(tmp_path), Retrieval(recipe, small_pairs())
    torch.manual_seed(0)
    full = task.new_network(recipe.teacher.network, (32,), None)
    checkpoint.write_checkpoint(folder.final("teacher-0"), network=full.state_dict(), config=full.config, metrics={})
    task.store_teacher(LocalRuntime(), folder)
    return recipe, folder, full.eval()


def _outputs(size: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.functional.normalize(torch.randn(4, size, generator=generator), dim=1) for _ in range(2)]


@pytest.mark.parametrize("flip", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["contrastive", "triplet"])
def test_loss_is_a_loop_over_all_training_photos(tmp_path: Path, flip: float, kind: str) -> None:
    recipe, folder, full = _run(
        tmp_path, f"augmentation.flip={flip}", f"student.ranking.kind={kind}", "student.distillation.ranking_share=0.25",
        "student.distillation.scale=3", "student.ranking.margin=0.4", "student.distillation.relations=[0.5, 2, 1]",
    )
    pairs = small_pairs()
    fitted = pairs.sketch_indices(TRAIN)[:30]
    examples = GalleryExamples(recipe, pairs, folder, sketches=fitted, seed=7, device=torch.device("cpu"))
    outputs = _outputs(full.dim)
    loss, figures = examples.loss(outputs, BatchPlan(SKETCHES, (16, 32)), epoch=3)
    flips = flipped(SKETCHES, recipe.augmentation, seed=7, view=3)
    assert set(flips) == ({False, True} if flip else {False})

    photos = np.unique(pairs.sketch_photo[fitted])
    clean = clean_photos(pairs, photos, 32)
    with torch.no_grad():
        sides = [full.embed_photos(clean).double(), full.embed_photos(clean.flip(2)).double()]
    tables = checkpoint.read_network(folder.teacher_embeddings)
    ranking = relational = 0.0
    for rows in outputs:
        for sketch, number, flip_it in zip(rows, SKETCHES, flips, strict=True):
            gallery = sides[int(flip_it)]
            own = int(np.searchsorted(photos, pairs.sketch_photo[number]))
            distance = (sketch.double() - gallery).norm(dim=1)
            if kind == "contrastive":
                logits = gallery @ sketch.double() / recipe.student.ranking.temperature
                ranking -= float(logits.log_softmax(dim=0)[own])
            else:
                others = np.delete(np.arange(len(photos)), own)
                ranking += float((0.4 + distance[own] - distance[others]).clamp(min=0).mean())
    for flip_it in {bool(f) for f in flips}:
        rows = np.flatnonzero(flips == flip_it)
        places = np.searchsorted(photos, pairs.sketch_photo[SKETCHES[rows]])
        photo = sides[int(flip_it)][places].float()
        known = tables["sketches"][SKETCHES[rows]]
        for sketch in outputs:
            content = torch.from_numpy(pairs.content[photos[places]])
            value = relational_huber(known, photo, sketch[rows], photo, content=content, weights=(0.5, 2.0, 1.0))
            relational += 3 * float(value) * len(rows) / 4 / 2
    ranking /= 8
    assert figures["loss_ranking"] == pytest.approx(ranking, rel=1e-4)
    assert figures["loss_relational"] == pytest.approx(relational, rel=1e-4)
    assert float(loss) == pytest.approx(0.25 * ranking + 0.75 * relational, rel=1e-4)


def test_the_student_searches_the_full_networks_gallery(tmp_path: Path) -> None:
    recipe, folder, full = _run(tmp_path)
    student = Retrieval(recipe, small_pairs()).new_student(folder, None, distilled=True)
    direct = Retrieval(recipe, small_pairs()).new_student(folder, None, distilled=False)
    assert isinstance(student, AsymmetricEmbedder) and not isinstance(direct, AsymmetricEmbedder)
    photos = clean_photos(small_pairs(), np.arange(5), 32)
    torch.testing.assert_close(student.eval().embed_photos(photos), full.embed_photos(photos))


def test_a_wide_space_is_reduced_to_what_its_embeddings_span(tmp_path: Path) -> None:
    """Fewer directions than embeddings: distances hardly change where the spectrum falls; the student's size does."""
    recipe, folder, full = _run(tmp_path, "student.dimensions=20")
    student = Retrieval(recipe, small_pairs()).new_student(folder, None, distilled=True).eval()
    assert isinstance(student, AsymmetricEmbedder) and student.dim == 20 < full.dim
    photos = clean_photos(small_pairs(), np.arange(20), 32)
    with torch.no_grad():
        before, after = full.embed_photos(photos), student.embed_photos(photos)
    torch.testing.assert_close(after.norm(dim=1), torch.ones(20))
    torch.testing.assert_close(after @ after.T, before @ before.T, atol=0.01, rtol=0)
    assert student.reduction is not None
    torch.testing.assert_close(student.reduction.T @ student.reduction, torch.eye(20), atol=1e-5, rtol=0)


def test_photos_of_the_same_picture_are_no_negatives() -> None:
    sketch, gallery = torch.eye(3)[None, :2].expand(2, 2, 3), torch.eye(3)
    target = torch.tensor([0, 1])
    negative = torch.tensor([[False, False, True], [True, False, True]])
    found = gallery_contrastive(sketch, gallery, target, negative, temperature=0.5)
    first, second = np.log(1 + np.exp(-2)), np.log(1 + 2 * np.exp(-2))
    assert float(found) == pytest.approx((first + second) / 2, rel=1e-6)
