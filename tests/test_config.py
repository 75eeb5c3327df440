from __future__ import annotations

import json

import pytest

from sketchynet.config import load_recipe, override, parse_recipe
from sketchynet.errors import InputError
from sketchynet.recipes import RECIPES, find_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_json(name: str, tmp_path) -> None:
    recipe = find_recipe(name)
    path = tmp_path / "recipe.json"
    path.write_text(recipe.model_dump_json())
    assert load_recipe(path) == recipe
    assert recipe.name == name and recipe.description


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("student.optimization.epoch=3", "no field 'epoch' in student.optimization; did you mean 'epochs'"),
        ("student.optimization.epochs=many", "student.optimization.epochs: .*integer.*found 'many'"),
        ("student.canvases=[64, 32]", "canvases must ascend"),
        ("student.canvases_per_step=9", "more than the 4 canvases"),
        ("teacher.train_sizes=[64]", "canvas 128 is not among train_sizes"),
        ("seed", "expected key=value"),
        ("augmentation.sketch.rotatoin=3", "did you mean 'rotation'"),
        ("selector.holdout=1.5", "selector.holdout: .*less than 1.*found 1.5"),
        ("student.photo_size=96", "student.photo_size 96 must be teacher.canvas 128"),
        ("student.photo_sizes=[48, 64]", r"photo_sizes \[48, 64\] must be one for each of the canvases"),
        ("student.photo_sizes=[48, 64, 96, 128]", "student.photo_sizes must be null"),
        ("student.network.projection=8", "student.network.projection 8 must be null"),
        ("student.distillation.ranking_share=1", "for a student without them set student.gallery=own"),
        ("student.distillation.kind=softmax", "needs student.distillation.kind = relations"),
        ("student.distillation.start=member", "must be of the kind of teacher.network .*start from weights instead"),
        ('student.ranking={"kind": "triplet", "mining": "semi-hard"}', "choose mining all or hard"),
    ],
)
def test_wrong_assignments_are_named(assignment: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        override(find_recipe("procedural"), [assignment])


def test_assignments_reach_nested_fields() -> None:
    recipe = override(find_recipe("demo"), ["seed=7", "augmentation.sketch.rotation=3", "data.options.train=12"])
    assert (recipe.seed, recipe.augmentation.sketch.rotation, recipe.data.options["train"]) == (7, 3.0, 12)


def test_unknown_keys_and_broken_files(tmp_path) -> None:
    values = json.loads(find_recipe("demo").model_dump_json())
    values["data"]["sede"] = 1
    with pytest.raises(InputError, match="data.sede: unknown key; did you mean 'seed'"):
        parse_recipe(values, place="here")
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(InputError, match="broken.json is not a JSON recipe"):
        load_recipe(path)
    with pytest.raises(InputError, match="no recipe 'demmo'; did you mean 'demo'"):
        find_recipe("demmo")
