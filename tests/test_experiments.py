"""The sets made of the built-in recipes are valid, and vary what they say."""

from __future__ import annotations

import pytest

from sketchynet.recipes import find_recipe
from sketchynet.recipes.experiments import EXPERIMENTS, find_experiment


@pytest.mark.parametrize("base", ["qmul_v1", "qmul_v1_half", "qmul_v1_squeezenet", "qmul_v1_squeezenet_256", "qmul_v1_squeezenet_levels", "qmul_v1_stride16", "qmul_v1_search", "qmul_v1_levels", "qmul_v1_copies", "qmul_v1_nearly_all", "qmul_v1_deep", "qmul_v1_gpu", "sketchy_squeezenet", "sketchy_levels", "procedural"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_configurations_are_valid_and_differ(name: str, base: str) -> None:
    experiment = find_experiment(name, find_recipe(base))
    recipes = {variant.name: experiment.recipe(variant, 3) for variant in experiment.variants}
    assert experiment.reference in recipes and len(recipes) == len(experiment.variants) >= (1 if name == "base" else 2)
    assert all(recipe.seed == 3 and recipe.name.startswith(base) for recipe in recipes.values())
    settings = {recipe.model_dump_json(exclude={"name", "description"}) for recipe in recipes.values()}
    names = {recipe.name for recipe in recipes.values()}
    assert len(settings) == len(names) == len(recipes)
    assert [experiment.position(variant) for variant in experiment.variants] == list(range(len(recipes)))
    for variant in experiment.variants:
        if not variant.teacher:
            assert recipes[variant.name].student.distillation.ranking_share == 1.0
        if experiment.compare != "v2":
            assert not recipes[variant.name].selector.train


def test_a_configuration_that_changes_nothing_is_the_recipe_itself() -> None:
    base = find_recipe("procedural")
    [only] = find_experiment("base", base).variants
    policies = find_experiment("policies", base)
    recipe = find_experiment("base", base).recipe(only, 2)
    *others, same = policies.variants
    assert recipe.name == "procedural" and recipe == policies.recipe(same, 2)
    assert policies.recipe(others[1], 2).name == "procedural[selector.reads=statistics]"


def test_levels_are_tried_beside_a_head_without_them_and_left_out_of_other_backbones() -> None:
    base = find_recipe("qmul_v1_deep")
    read = {variant.name: find_experiment("search", base).recipe(variant, 0).search for variant in find_experiment("search", base).variants}
    assert {name: search.levels for name, search in read.items() if search.head} == {
        "whitened": (), "photos near everything held back": (), "both": (), "both, and levels": (10, 13),
    }  # fmt: skip
    for name in ("students", "teachers"):
        experiment = find_experiment(name, base)
        for variant in experiment.variants:
            recipe = experiment.recipe(variant, 0)
            assert not (recipe.search.levels or recipe.student.ranking.levels or recipe.teacher.ranking.levels)


def test_photos_of_the_canvas_own_size_stay_with_it() -> None:
    photos = find_experiment("photos", find_recipe("qmul_v1_squeezenet_256"))
    recipes = [photos.recipe(v, 0) for v in photos.variants]
    assert [r.student.gallery_sizes for r in recipes] == [(256,) * 4, (144, 192, 240, 256), (96, 128, 160, 256)]
    base = recipes[1].model_copy(update={"name": "matched"})
    canvases = find_experiment("canvases", base)
    assert [canvases.recipe(v, 0).student.gallery_sizes for v in canvases.variants[1:]] == [(144,), (192,), (240,), (256,)]
    resolution = find_experiment("resolution", base)
    assert {resolution.recipe(v, 0).student.photo_sizes for v in resolution.variants} == {None}
    galleries = find_experiment("galleries", base)
    assert galleries.recipe(galleries.variants[1], 0).student.photo_sizes is None


def test_one_canvas_alone_and_one_side_reduced() -> None:
    base = find_recipe("qmul_v2")
    canvases = find_experiment("canvases", base)
    assert [canvases.recipe(v, 0).student.canvases for v in canvases.variants] == [(32, 64, 128, 256), (32,), (64,), (128,), (256,)]
    resolution = find_experiment("resolution", base)
    sizes = [(r.student.canvases, r.student.photo_size) for r in (resolution.recipe(v, 0) for v in resolution.variants)]
    assert sizes == [((256,), 256), *(((s,), 256) for s in (32, 64, 128)), *(((256,), s) for s in (32, 64, 128))]
