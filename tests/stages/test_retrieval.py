from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small import ALIKE, small_pairs, small_recipe

from sketchynet import checkpoint
from sketchynet.losses import triplet_loss
from sketchynet.models import Embedder
from sketchynet.ops import relational_huber
from sketchynet.stages.batches import BatchPlan
from sketchynet.stages.distillation import (
    LevelSupervision,
    distillation_objective,
    principal_coordinates,
    ranking_loss,
)
from sketchynet.stages.networks import read_embedder
from sketchynet.stages.ranks import validation_score
from sketchynet.stages.retrieval import PairExamples, Retrieval
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import LocalRuntime
from sketchynet.stages.student import Student, train_student
from sketchynet.stages.train import Places, planned_networks, train_networks


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_objective_is_the_papers_mixture_averaged_over_canvases(share: float) -> None:
    """λ·L_tri + (1−λ)·L_RKD, the teacher's relations looked up by sketch and photo."""
    pairs = small_pairs()
    recipe = small_recipe(
        "student.gallery=own",
        "student.distillation.relations=[1, 1, 1]",
        f"student.distillation.ranking_share={share}",
        "student.distillation.scale=2.0",
        "student.ranking.kind=triplet",
        "student.ranking.margin=0.4",
    )
    generator = torch.Generator().manual_seed(0)
    teacher = {
        "sketches": torch.randn(len(pairs.sketches), 5, generator=generator),
        "photos": torch.randn(len(pairs.photos), 5, generator=generator),
    }
    sketches = np.array([0, 5, 9])
    photos = pairs.sketch_photo[sketches]
    sketch = [torch.randn(3, 4, generator=generator) for _ in range(2)]
    photo = torch.randn(3, 4, generator=generator)
    loss, figures = distillation_objective(recipe, pairs, teacher)(sketch, photo, sketches, photos)
    content = torch.from_numpy(pairs.content[photos])
    ranking = sum(float(triplet_loss(s, photo, content, margin=0.4)) for s in sketch) / 2
    relational = 2.0 * sum(
        float(relational_huber(teacher["sketches"][sketches], teacher["photos"][photos], s, photo, content=content))
        for s in sketch
    ) / 2
    assert float(loss) == pytest.approx(share * ranking + (1 - share) * relational, rel=1e-5)
    assert figures["loss_ranking"] == pytest.approx(ranking, rel=1e-5)
    assert figures["loss_relational"] == pytest.approx(relational, rel=1e-5)


def test_every_canvas_learns_beside_the_photos_of_its_size() -> None:
    pairs = small_pairs()
    recipe = small_recipe("student.gallery=own", "student.canvases=[16, 24, 32]", "student.photo_sizes=[16, 32, 32]")
    sketches = np.array([0, 5, 9])
    photos = pairs.sketch_photo[sketches]
    generator = torch.Generator().manual_seed(0)
    small, large, *sketch = (torch.randn(3, 4, generator=generator) for _ in range(5))
    objective = distillation_objective(recipe, pairs, _teacher(5))
    settings = recipe.student
    examples = PairExamples(
        recipe, pairs, objective, settings.optimization, sketches=pairs.sketch_indices(0), seed=0,
        canvases=settings.canvases, photo_sizes=settings.gallery_sizes,
    )  # fmt: skip
    plan = BatchPlan(sketches, settings.canvases, settings.gallery_sizes)
    loss, figures = examples.loss([small, large, *sketch], plan, 0)
    each = [objective([s], p, sketches, photos) for s, p in zip(sketch, (small, large, large), strict=True)]
    assert float(loss) == pytest.approx(sum(float(value) for value, _ in each) / 3, rel=1e-5)
    for name, value in figures.items():
        assert value == pytest.approx(sum(parts[name] for _, parts in each) / 3, rel=1e-5)


@pytest.mark.parametrize("kind", ["relations", "features"])
def test_levels_are_trained_by_the_ranking_loss_too(kind: str) -> None:
    pairs = small_pairs()
    recipe = small_recipe(
        *ALIKE, "student.ranking.levels=[3, 5]", "student.ranking.level_fields=2", "student.ranking.level_weight=0.25",
        "student.distillation.ranking_share=0.4", f"student.distillation.kind={kind}", "student.distillation.components=5",
    )  # fmt: skip
    settings, sketches = recipe.student, np.array([0, 5, 9])
    photos, teacher = pairs.sketch_photo[sketches], _teacher(5)
    levels = LevelSupervision.of(settings.ranking, "vgg_tiny", pairs, share=0.4)
    examples = PairExamples(
        recipe, pairs, distillation_objective(recipe, pairs, teacher), settings.optimization, sketches=pairs.sketch_indices(0),
        seed=0, canvases=settings.canvases, photo_sizes=settings.gallery_sizes, levels=levels,
    )  # fmt: skip
    torch.manual_seed(0)
    network = Embedder("vgg_tiny", canvases=settings.canvases, norm="frozen")
    if kind == "features":
        network.add_regressor(5)
    plan = BatchPlan(sketches, settings.canvases, settings.gallery_sizes)
    batch = examples.compose(plan, epoch=0, rows=np.arange(3))
    loss, figures = examples.loss(examples.outputs(network, batch, torch.device("cpu")), plan, 0)
    assert network.levels == () and "levels" not in network.config

    plain = PairExamples(
        recipe, pairs, distillation_objective(recipe, pairs, teacher), settings.optimization, sketches=pairs.sketch_indices(0),
        seed=0, canvases=settings.canvases, photo_sizes=settings.gallery_sizes,
    )  # fmt: skip
    expected = plain.loss(plain.outputs(network, batch, torch.device("cpu")), plan, 0)[0]
    with network.reading((3, 5), 2):
        shown = network.embed_photos(batch.images[0])[:, network.dim :]
        drawn = [network.embed_sketches(canvas)[:, network.dim :] for canvas in batch.canvases]
    assert levels is not None and sum(levels.sizes) == shown.shape[1]
    content = torch.from_numpy(pairs.content[photos])
    supervised = 0.0
    for place in (slice(0, levels.sizes[0]), slice(levels.sizes[0], None)):
        for rows in drawn:
            supervised += ranking_loss(settings.ranking, rows[:, place], shown[:, place], content).item() / len(drawn)
    assert figures["loss_levels"] == pytest.approx(supervised, rel=1e-4)
    assert loss.item() == pytest.approx(expected.item() + 0.4 * 0.25 * supervised, rel=1e-4)


def test_each_network_is_trained_on_the_levels_of_its_own_ranking(tmp_path: Path) -> None:
    recipe = small_recipe(
        *ALIKE, "teacher.ranking.levels=[3]", "student.ranking.levels=[3, 5]", "student.ranking.level_weight=0.5",
        "student.distillation.ranking_share=0.25", "student.distillation.start=weights",
    )  # fmt: skip
    task, run, rows = Retrieval(recipe, small_pairs()), RunFolder(tmp_path), small_pairs().sketch_indices(0)
    checkpoint.write_checkpoint(run.teacher_embeddings, network=_teacher(5), config={}, metrics={})
    cpu = torch.device("cpu")
    member = task.teacher_examples(rows, seed=0)
    direct, distilled = (task.student_examples(rows, run, distilled=d, seed=0, device=cpu) for d in (False, True))
    assert isinstance(direct, PairExamples) and isinstance(distilled, PairExamples)
    supervised = [examples.levels for examples in (member, direct, distilled)]
    assert [levels and (levels.numbers, levels.weight) for levels in supervised] == [
        ((3,), 0.5), ((3, 5), 0.5), ((3, 5), 0.125),
    ]  # fmt: skip
    assert LevelSupervision.of(recipe.student.ranking, "vgg_tiny", small_pairs(), share=0.0) is None


def test_levels_reach_the_networks_that_are_trained(tmp_path: Path) -> None:
    first = []
    for number, change in enumerate(("[]", "[3, 5]")):
        recipe = small_recipe(*ALIKE, f"student.ranking.levels={change}", "student.optimization.epochs=1", "student.distillation.ranking_share=1")
        run = RunFolder(tmp_path / str(number))
        fitted = small_pairs().sketch_indices(0)
        train_student(Student("direct", fitted, distilled=False), Retrieval(recipe, small_pairs()), LocalRuntime(), run, weights=None)
        network = read_embedder(run.final("direct"))
        assert network.levels == () and "levels" not in network.config
        first.append(next(network.parameters()).detach())
    assert not torch.equal(*first)


def test_a_gallery_for_each_canvas_is_what_is_validated_and_evaluated() -> None:
    pairs = small_pairs()
    recipe = small_recipe("student.gallery=own", "student.photo_sizes=[16, 32]")
    torch.manual_seed(0)
    network = Embedder("vgg_tiny", canvases=(16, 32)).eval()
    task = Retrieval(recipe, pairs)
    both = task.answers(network, 1, (16, 32), recipe.student.gallery_sizes)
    for column, (canvas, size) in enumerate(((16, 16), (32, 32))):
        alone = task.answers(network, 1, (canvas,), (size,))
        np.testing.assert_array_equal(both.ranks[:, column], alone.ranks[:, 0])
        np.testing.assert_array_equal(both.clearness[:, column], alone.clearness[:, 0])
        figures = validation_score(network, pairs, canvases=(16, 32), photo_sizes=(16, 32))
        assert figures[f"validation/acc1_{canvas}"] == pytest.approx(float((alone.ranks == 1).mean()))
    assert (both.clearness[:, 0] != task.answers(network, 1, (16,), (32,)).clearness[:, 0]).any()


def _teacher(size: int) -> dict[str, torch.Tensor]:
    pairs, generator = small_pairs(), torch.Generator().manual_seed(0)
    tables = {"sketches": len(pairs.sketches), "photos": len(pairs.photos)}
    return {name: torch.randn(count, size, generator=generator) for name, count in tables.items()}


def test_row_softmax_takes_the_place_of_the_relations() -> None:
    pairs, teacher = small_pairs(), _teacher(5)
    recipe = small_recipe(
        "student.gallery=own", "student.distillation.kind=softmax", "student.distillation.ranking_share=0.25", "student.distillation.temperature=0.5",
        "student.distillation.scale=3.0",
    )
    sketches = np.array([0, 5, 9])
    photos = pairs.sketch_photo[sketches]
    sketch, photo = [torch.randn(3, 4) for _ in range(2)], torch.randn(3, 4)
    loss, figures = distillation_objective(recipe, pairs, teacher)(sketch, photo, sketches, photos)
    naive = 0.0
    for rows in sketch:
        wanted = torch.softmax(-torch.cdist(teacher["sketches"][sketches], teacher["photos"][photos]) / 0.5, dim=1)
        found = torch.softmax(-torch.cdist(rows, photo) / 0.5, dim=1)
        naive += 3.0 * float((wanted * (wanted.log() - found.log())).sum(dim=1).mean()) / 2
    assert figures["loss_softmax"] == pytest.approx(naive, rel=1e-4)
    assert float(loss) == pytest.approx(0.25 * figures["loss_ranking"] + 0.75 * naive, rel=1e-4)


def test_features_are_regressed_from_the_columns_behind_the_embedding() -> None:
    pairs, teacher = small_pairs(), _teacher(5)
    recipe = small_recipe(
        "student.gallery=own", "student.distillation.kind=features", "student.distillation.components=5", "student.distillation.ranking_share=0.5"
    )
    objective = distillation_objective(recipe, pairs, teacher)
    known = principal_coordinates(teacher, 5)
    sketches = np.array([0, 5, 9])
    photos = pairs.sketch_photo[sketches]
    embedded, photo = torch.randn(3, 4), torch.randn(3, 4)

    def outputs(factor: float) -> tuple[list[torch.Tensor], torch.Tensor]:
        rows = torch.cat([embedded, factor * known["sketches"][sketches]], dim=1)
        return [rows, rows], torch.cat([photo, factor * known["photos"][photos]], dim=1)

    for factor, expected in ((1.0, 0.0), (0.0, 1.0), (0.5, 0.25)):
        sketch, pictured = outputs(factor)
        _, figures = objective(sketch, pictured, sketches, photos)
        distilled = figures["loss_features"] / recipe.student.distillation.scale
        assert distilled == pytest.approx(expected, abs=1e-6)
    alone = small_recipe("student.gallery=own", "student.distillation.ranking_share=1")
    ranking, _ = distillation_objective(alone, pairs, teacher)([embedded, embedded], photo, sketches, photos)
    assert figures["loss_ranking"] == pytest.approx(float(ranking), rel=1e-6)  # the columns do not rank


@pytest.mark.parametrize("size", [3, 40])
def test_principal_coordinates_keep_distances_and_what_is_unknown(size: int) -> None:
    teacher = _teacher(size)
    teacher["sketches"][::7] = float("nan")
    found = principal_coordinates(teacher, 64)
    assert found["sketches"].shape == (len(teacher["sketches"]), 64) and found["sketches"].isnan().any(dim=1).sum() > 3
    kept = ~teacher["sketches"].isnan().any(dim=1)
    assert torch.equal(kept, ~found["sketches"].isnan().any(dim=1))
    before = torch.cdist(teacher["sketches"][kept], teacher["photos"])
    torch.testing.assert_close(torch.cdist(found["sketches"][kept], found["photos"]), before, rtol=1e-4, atol=1e-4)
    # The first component carries most: fewer columns are the first of many.
    few = principal_coordinates(teacher, 2)["photos"]
    torch.testing.assert_close(few, found["photos"][:, :2])
    spread = torch.cat([found["sketches"][kept], found["photos"]]).var(dim=0)
    assert (spread[:3].diff() <= 1e-6).all()


def test_a_regressor_is_trained_but_no_part_of_the_network() -> None:
    from sketchynet.flops import count_parameters, embedder_flops
    from sketchynet.models import build_from_config

    plain, helped = (Embedder("vgg_tiny", canvases=(16, 32)) for _ in range(2))
    helped.add_regressor(7)
    assert count_parameters(helped) == count_parameters(plain) and embedder_flops(helped, 32) == embedder_flops(plain, 32)
    twin = build_from_config(helped.config)
    assert isinstance(twin, Embedder) and twin.regressor is not None and twin.regressor.weight.shape == (7, helped.dim)
    twin.load_state_dict(helped.state_dict())
    canvas = torch.randint(0, 256, (2, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(twin.eval().embed_sketches(canvas), helped.eval().embed_sketches(canvas))


def test_a_student_starts_from_the_first_member(tmp_path: Path) -> None:
    still = ("student.optimization.learning_rate=1e-12", "student.optimization.weight_decay=0", "selector.train=false")
    recipe = small_recipe(*ALIKE, *still, "student.distillation.start=member")
    run = RunFolder(tmp_path / "run")
    places = Places(run, data=None, cache=tmp_path / "cache", weights=None)
    train_networks(planned_networks(recipe, ("teacher", "student")), LocalRuntime(), recipe=recipe, places=places)
    member, student, direct = (dict(read_embedder(run.final(n)).named_parameters()) for n in ("teacher-0", "student", "direct"))
    for name, value in member.items():
        torch.testing.assert_close(student[name], value, rtol=0, atol=1e-6)
    assert max((direct[name] - value).abs().max() for name, value in member.items()) > 0.01
