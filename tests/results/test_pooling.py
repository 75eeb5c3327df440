"""Seeds pooled: outcomes of every system, differences over seeds and queries, and what does not belong together."""

from __future__ import annotations

import pytest
from summaries import make_summary, member

from sketchynet.errors import InputError
from sketchynet.results.beside import beside_table
from sketchynet.results.claims import experiment_section
from sketchynet.results.pooling import paired_difference, percent, plot_points, pool, pooled_table, unrounded
from sketchynet.results.queries import _sufficing, misses_table, sufficing_table
from sketchynet.results.summary import DEALT
from sketchynet.results.verdicts import GOALS, RULES, above, claims_table, not_below
from sketchynet.retrieval import Interval


def test_outcomes_of_every_system() -> None:
    run = make_summary(0)
    assert run.hits("full").tolist() == [0, 1, 1]
    assert run.hits("direct@32").tolist() == [1, 0, 0]
    assert run.hits("v1@16").tolist() == [0, 1, 0] and run.hits("v1@32").tolist() == [1, 1, 0]
    assert run.hits("v1@16", q=2).tolist() == [1, 1, 0]
    assert run.hits("v2").tolist() == [1, 1, 0] and run.hits("v2[0.1]").tolist() == [0, 1, 0]
    assert run.hits("rule").tolist() == [1, 1, 0] and run.hits("oracle").tolist() == [1, 1, 0]
    assert run.hits("mixture").tolist() == [0.75, 1, 0]
    assert run.hits("shuffled") == pytest.approx([1 / 3, 1, 0])
    # One of the two left sketches at 32: each of them gets it half of the time, the right one never.
    assert run.hits(DEALT).tolist() == [0.5, 1, 0]
    with pytest.raises(InputError, match=r"tiny-0\.json: no system 'v3'.*full, direct@16"):
        run.hits("v3")


def test_differences_are_pooled_over_seeds_and_queries() -> None:
    pooled = pool([make_summary(1), make_summary(0)])
    assert pooled.seeds == (0, 1)
    value = pooled.difference("v2", "v1@16")
    # Per query, mean over the seeds: (1 + 0)/2, (0 + 1)/2, 0.
    assert value.value == pytest.approx(1 / 3)
    assert value.low == 0.0 and value.high == 0.5
    assert pooled.difference("v2", "v1@16", "right") == (0.0, 0.0, 0.0)


def test_the_table_tells_systems_differences_canvases_and_runs() -> None:
    text = pooled_table(pool([make_summary(0), make_summary(1)]))
    assert "| SketchyNetV2 | 2.00 M | 0.0500 | 50.00 | 50.00 | 50.00 ± 0.00 |" in text
    assert "| SketchyNetV2 − SketchyNetV1 at 32 | +0.00 | +33.33 | +16.67 [+0.00, +50.00] |" in text
    assert "| SketchyNetV1 at 32 − trained directly at 32 | +33.33 | +33.33 | +33.33 [+0.00, +100.00] |" in text
    assert "| SketchyNetV2 − its choices shuffled within each category | +16.67 | +16.67 | +16.67 [" in text
    assert "| FLOPs of SketchyNetV1 at 32 over those of V2 | 2.00× | 2.00× |" in text
    assert "| queries at 16 / 32 | 2 / 1 | 2 / 1 |" in text and "ink at 2.5: 16, 32" in text
    assert "seed 1 `tiny1000` (aaaaaaa, 2 CPU cores, 2 min)" in text


def test_runs_without_a_policy_have_no_canvases() -> None:
    values = make_summary(0).values
    systems = {name: figures for name, figures in values["systems"].items() if name in ("v1@16", "v1@32", "oracle")}
    pooled = pool([make_summary(0, systems=systems, canvas_counts=None, choices={})])
    text = pooled_table(pooled)
    assert "queries at" not in text and "SketchyNetV2" not in text and "oracle" in text
    assert "V2's choice" not in sufficing_table(pooled)
    head, _, first, second = misses_table(pooled).split("\n")
    assert head.startswith("| rank by SketchyNetV1 at 32 |") and head.endswith("| first by some canvas |")
    assert first.startswith("| 1 | 66.7 % |") and second.startswith("| 2 | 33.3 % |")


def test_one_category_has_no_shuffle_of_its_own() -> None:
    values = make_summary(0).values
    pooled = pool([make_summary(0, categories={**values["categories"], "names": []})])
    assert DEALT not in pooled.comparable and "within each category" not in claims_table(pooled)


def test_what_does_not_belong_together_is_named() -> None:
    one = make_summary(0)
    with pytest.raises(InputError, match="no finished run"):
        pool([])
    with pytest.raises(InputError, match=r"both seed 0 of tiny; keep one"):
        pool([one, make_summary(0)])
    with pytest.raises(InputError, match=r"tiny-0\.json and results/tiny-1\.json.*differ in student\.ranking\.margin"):
        pool([one, make_summary(1, recipe=("student.ranking.margin=0.4",))])
    data = {**make_summary(1).values["data"], "split_hash": "xyz"}
    with pytest.raises(InputError, match=r"differ in data\.split_hash"):
        pool([one, make_summary(1, data=data)])


def test_the_canvas_that_suffices_against_the_strokes() -> None:
    pooled = pool([make_summary(0)])
    assert _sufficing(pooled.runs[0]).tolist() == [1, 0, -1]
    text = sufficing_table(pooled)
    assert "| cheapest canvas with rank 1 | 16 px | 33.3 % | 2.0 | 20.0 | 2.0 |" in text
    assert "| cheapest canvas with rank 1 | none finds it | 33.3 % | 9.0 | 90.0 | 1.5 |" in text
    # Of the two queries that some canvas finds, the one with more of everything needs the larger.
    assert "| cheapest canvas with rank 1 | ρ with the canvas |  | +1.00 | +1.00 | +1.00 |" in text
    assert "| V2's choice | 16 px | 66.7 % | 5.5 | 55.0 | 1.8 |" in text


def test_queries_by_rank_tell_what_was_drawn_and_who_finds_it() -> None:
    ranks = [[1, 12], [12, 1], [4, 7]]  # V2 takes 32, 16 and 16
    head, _, *rows = misses_table(pool([make_summary(0, ranks=ranks)])).split("\n")
    assert head == (
        "| rank by V2 | share | strokes, mean | points, mean | ink, mean sides of the frame | first by full network "
        "| first by SketchyNetV1 at 32 | first by some canvas |"
    )
    assert rows == [
        "| 3–5 | 33.3 % | 9.0 | 90.0 | 1.5 | 100 % | 0 % | 0 % |",
        "| 11 or more | 66.7 % | 3.0 | 30.0 | 2.5 | 50 % | 50 % | 100 % |",
    ]
    # Over seeds: seed 1 finds all three.
    rows = misses_table(pool([make_summary(0, ranks=ranks), make_summary(1)])).split("\n")[2:]
    assert [row.split(" | ")[:2] for row in rows] == [["| 1", "50.0 %"], ["| 3–5", "16.7 %"], ["| 11 or more", "33.3 %"]]


def test_points_of_the_plot_are_means_over_seeds() -> None:
    points = {point["label"] + point["group"]: point for point in plot_points(pool([make_summary(0), make_summary(1)]))}
    assert points["32v1"]["accuracy"] == pytest.approx(2 / 3) and points["v2v2"]["gflops"] == pytest.approx(0.05)
    assert points["v2 budgets"]["gflops"] == pytest.approx(0.07) and len(points) == len(pool([make_summary(0)]).systems) + 1


def test_a_claim_compares_with_its_reference_over_the_common_seeds() -> None:
    better = [[1, 1], [1, 1], [1, 1]]
    runs = [make_summary(seed, experiments=(member("a"),)) for seed in (0, 1)]
    runs += [make_summary(0, name="other", experiments=(member("b", 1),), ranks=better, recipe=("student.ranking.margin=0.4",))]
    section = experiment_section("claim", None, runs)
    lines = section.text.split("\n")
    assert section.points == () and section.differences == (("b", (pytest.approx(1 / 3), 0.0, 1.0)),)
    assert "2 configurations, 3 runs, seeds 0, 1" in lines[0]
    [first] = [line for line in lines if line.startswith("| a |")]
    [second] = [line for line in lines if line.startswith("| b |")]
    assert first.startswith("| a | 2 | 30.00 ± 7.07 |") and "| – |" in first
    # Seed 0 alone: the third query is found by b and not by a.
    assert "+33.33 [+0.00, +100.00]" in second and "`other000`" in section.text
    assert lines.index(first) < lines.index(second)
    with pytest.raises(InputError, match="tested on other queries"):
        data = {**runs[0].values["data"], "queries_hash": "xyz"}
        paired_difference(pool([make_summary(0, data=data)]), "v1@32", pool(runs[:1]), "v1@32")
    with pytest.raises(InputError, match="tested on other queries"):
        data = {**runs[0].values["data"], "gallery_count": 5}
        paired_difference(pool([make_summary(0, data=data)]), "v1@32", pool(runs[:1]), "v1@32")
    data = {**runs[0].values["data"], "split_hash": "of another validation part"}
    assert paired_difference(pool([make_summary(0, data=data)]), "v1@32", pool(runs[:1]), "v1@32") == Interval(0.0, 0.0, 0.0)


def test_one_recipe_beside_another_over_the_common_seeds() -> None:
    better = [[1, 1], [1, 1], [1, 1]]
    ours = pool([make_summary(0, name="ours", ranks=better)])
    theirs = pool([make_summary(seed) for seed in (0, 1)])
    theirs.runs[1].values["systems"]["v1@32"]["all"]["acc1"] = 0.9
    told, _, header, _, *rows = beside_table(ours, theirs).split("\n")
    assert told == "Over the seeds that both have: 0."
    assert header.startswith("|  | `ours`, Acc@1 | GFLOPs | `tiny`, Acc@1 | GFLOPs | difference |")
    named = {row.split(" | ")[0].removeprefix("| "): row for row in rows}
    assert not {"best mixture of fixed canvases", "oracle"} & named.keys()
    hits = float(theirs.runs[0].hits("v1@32").mean())  # of seed 0 alone
    assert f"| 50.00 | 0.1000 | +{100 * (1 - hits):.2f} [" in named["SketchyNetV1 at 32"]
    with pytest.raises(InputError, match="no seed in common"):
        beside_table(ours, pool([make_summary(1)]))


def test_claims_by_canvas_and_by_policy() -> None:
    runs = [make_summary(seed, experiments=(member("a", compare="same"),)) for seed in (0, 1)]
    text = experiment_section("claim", "tiny", runs).text
    assert "| a | 16 | 2 |" in text and "| a | 32 | 2 |" in text
    runs = [make_summary(seed, experiments=(member("a", compare="v2"),)) for seed in (0, 1)]
    section = experiment_section("claim", "tiny", runs)
    text, points = section.text, section.points
    assert "| a | 2 | 30.00 ± 0.00 | 50.00 ± 0.00 | 0.0500 | – |" in text
    # At 0.07 GFLOPs seed 0 draws a quarter of the queries at 32 (0.1) and the others at 16 (0.06), which finds 5/12;
    # seed 1 finds as much at 16 alone, 2/3. V2 finds 1/3 and 2/3.
    assert "| a | 50 % | 0.0700 | 50.00 ± 0.00 | 54.17 | −4.17 [" in text
    # A larger budget that is spent in the same way is the same row.
    for run in runs:
        for part in ("systems", "choices"):
            run.values[part]["v2[<=0.9]"] = run.values[part]["v2[<=0.5]"]
    assert "| a | 50–90 % | 0.0700 |" in experiment_section("claim", "tiny", runs).text
    assert {point["group"] for point in points} == {"v1", "a"} and len(points) == 3


def test_bases_of_a_claim_are_kept_apart() -> None:
    runs = [make_summary(0, experiments=(member(),)), make_summary(1, name="x", experiments=(member(base="wide"),))]
    with pytest.raises(InputError, match=r"was run from tiny, wide: name one, as in `experiment claim tiny`"):
        experiment_section("claim", None, runs)
    assert "1 configuration, 1 run, seeds 1" in experiment_section("claim", "wide", runs).text
    text = experiment_section("claim", "narrow", runs).text
    assert "sketchynet experiment run claim --recipe narrow --seeds 0 1 2" in text
    assert "No finished run yet" in experiment_section("absent", None, runs).text


def test_small_differences_have_no_sign_of_zero() -> None:
    assert [percent(v, signed=True) for v in (-0.00001, 0.00001, -0.0123, 0.5)] == ["+0.00", "+0.00", "−1.23", "+50.00"]


@pytest.mark.parametrize(
    ("low", "value", "high", "higher", "equal"),
    [
        (0.01, 0.02, 0.03, "**holds**", "**holds**"), (-0.01, 0.02, 0.03, "partly", "**holds**"),
        (-0.02, -0.01, 0.01, "does not", "partly"), (-0.03, -0.02, -0.01, "does not", "does not"),
        (-0.01, 0.0, 0.01, "does not", "**holds**"),
    ],
)
def test_verdicts_follow_the_interval(low: float, value: float, high: float, higher: str, equal: str) -> None:
    gap = unrounded(Interval(value + 1e-17, low - 1e-17, high))
    assert (above(gap), not_below(gap)) == (higher, equal)


def test_claims_and_goals_have_a_verdict_each() -> None:
    text = claims_table(pool([make_summary(0), make_summary(1)]))
    assert "| V1 is above the directly trained student | partly | +33.33 [+0.00, +100.00] points |" in text
    # At 16 pixels V1 finds the middle query under seed 0, the outer two under seed 1; direct training finds none.
    assert "student, in the mean over the canvases | **holds** | +41.67 [+25.00, +75.00] points |" in text
    assert "| V2 is not below V1, at 3.28× fewer FLOPs on every seed | does not | +16.67 [+0.00, +50.00] points at 2.00× fewer" in text
    assert "| V2's choices differ between sketches | **holds** | 16: 67 %, 32: 33 % |" in text
    assert "| V2 costs at most 0.254 GFLOPs a query | **holds** | 0.0500 GFLOPs |" in text
    assert "that costs no more" not in text and "on shoes" not in text
    cheap = [make_summary(seed) for seed in (0, 1)]
    for run in cheap:
        run.values["systems"]["v1@16"]["all"]["gflops"] = 0.01
        run.values["categories"]["names"] = ["shoes", "chairs"]
        run.values["systems"]["v2"]["all"]["gflops"] = 0.03
    text = claims_table(pool(cheap))
    assert "| V2 is above V1 at every canvas that costs no more | partly | 16: +33.33 [+0.00, +50.00] points |" in text
    assert "| V2 is not below V1, at 3.28× fewer FLOPs on every seed | **holds** |" in text
    # Both seeds find the first two queries, the shoes; one of them finds the third, the chair.
    assert "| V2 reaches 63.48 on shoes | **holds** | 100.00 [100.00, 100.00] |" in text
    assert "| V2 reaches 95.88 on chairs | does not | 50.00 [50.00, 50.00] |" in text
    # Calibrated, V2 gives the chair 32 pixels, which one seed finds it at too; half of 0.1 GFLOPs is within the budget.
    assert "| V2, calibrated to 50 % of the largest canvas, costs at most 0.254 GFLOPs a query | **holds** | 0.0700 GFLOPs |" in text
    assert "| V2, calibrated to 50 % of the largest canvas, reaches 95.88 on chairs | does not |" in text
    assert (f"{100 * GOALS['shoes']:.2f}", f"{100 * GOALS['chairs']:.2f}") == ("63.48", "95.88")
    for run in cheap:
        run.values["systems"]["v1@32"]["all"]["gflops"] = 0.6
    assert "calibrated" not in claims_table(pool(cheap))
    assert text.endswith(RULES)
