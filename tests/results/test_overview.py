"""Claims of several recipes side by side, and published systems beside a recipe's own."""

from __future__ import annotations

import numpy as np
import pytest
from summaries import make_summary

from sketchynet.errors import InputError
from sketchynet.results.overview import overview_table, published_table
from sketchynet.results.packing import pack
from sketchynet.results.pooling import Pool, pool


def _rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n\n")[0].split("\n")]


def _without_v2(name: str) -> Pool:
    run = make_summary(0, name=name)
    for system in [s for s in run.values["systems"] if s.startswith(("v2", "shuffled", "mixture", "rule", "exit", "oracle"))]:
        del run.values["systems"][system]
    return pool([run])


def test_a_recipe_has_a_column_and_what_few_can_speak_of_is_left_out() -> None:
    whole = pool([make_summary(seed) for seed in (0, 1)])
    head, _, *rows = _rows(overview_table([whole, _without_v2("b"), _without_v2("c")]))
    assert head == ["claim", "`tiny`, 3 queries, 2 seeds", "`b`, 3 queries, 1 seed", "`c`, 3 queries, 1 seed"]
    claimed = ["V1 is above the directly trained student", "V1 is above the directly trained student, in the mean over the canvases"]
    assert [row[0] for row in rows] == [*claimed, "V1 is not below the full network"]

    rows = _rows(overview_table([whole, _without_v2("b")]))[2:]
    policy = {row[0]: row[1:] for row in rows}["V2 costs at most 0.254 GFLOPs a query"]
    assert policy == ["**holds** 0.0500 GFLOPs", "–"]


def _qmul(seed: int) -> Pool:
    run = make_summary(seed, categories={"names": ["shoes", "chairs"], "of_query": pack(np.array([0, 0, 1]))})
    for figures in run.values["systems"].values():
        figures |= {"shoes": dict(figures["all"]), "chairs": dict(figures["all"])}
    return pool([run])


def test_published_systems_stand_above_our_own() -> None:
    rows = {row[0]: row[1:] for row in _rows(published_table(_qmul(0)))}
    assert rows["TC-Net, ACM MM 2019"] == ["DenseNet-169", "–", "63.48", "95.88"]
    # Seed 0 ranks the two shoes 1 and 1 at 32 pixels, the chair 2.
    assert rows["SketchyNetV1 at 32"][1:] == ["0.100", "100.00 [100.00, 100.00]", "0.00 [0.00, 0.00]"]
    assert rows["SketchyNetV2"][1] == "0.050" and rows["SketchyNetV2 at 50 % of the largest canvas"][1] == "0.070"
    assert list(rows)[-4] == "full network"


def test_other_data_are_not_put_beside_what_is_published() -> None:
    with pytest.raises(InputError, match="tiny was tested on left, right, what is published on shoes and chairs"):
        published_table(pool([make_summary(0)]))
