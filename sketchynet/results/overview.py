"""What a reader looks for first: the claims on several data sets side by side, and published systems beside ours."""

from __future__ import annotations

from collections.abc import Sequence

from sketchynet.errors import InputError
from sketchynet.report import display_name
from sketchynet.results.pooling import Pool, interval_text, markdown, seeds_text
from sketchynet.results.verdicts import GOALS, RULES, claims, within_budget

PUBLISHED = (
    ("Triplet-SN, CVPR 2016", "Sketch-a-Net", 52.17, 72.16),
    ("spatial attention with HOLEF, ICCV 2017", "Sketch-a-Net", 61.74, 81.44),
    ("deep shape matching, ECCV 2018", "VGG-16", 54.8, 85.6),
    ("jigsaw pre-training, CVPR 2020", "GoogLeNet", 56.52, 85.98),
    ("TC-Net, ACM MM 2019", "DenseNet-169", round(100 * GOALS["shoes"], 2), round(100 * GOALS["chairs"], 2)),
    ("photo pre-training, CVPR 2023", "ResNet-50", 76.52, 98.97),
)
"""Method, backbone, and Acc@1 in percent as printed on the official test splits of QMUL Shoe-V1 and Chair-V1."""


def overview_table(pools: Sequence[Pool]) -> str:
    """Every claim that half of the recipes or more can speak of, a column each, as Markdown."""
    told = [{claim: (verdict, figures) for claim, verdict, figures in claims(pooled)} for pooled in pools]
    shared = [c for c in dict.fromkeys(claim for rows in told for claim in rows) if 2 * sum(c in rows for rows in told) >= len(told)]
    columns = ["claim"]
    for pooled in pools:
        first = pooled.runs[0]
        columns.append(f"`{first.recipe.name}`, {first.values['data']['queries']:,} queries, {seeds_text(pooled)}")
    rows = []
    for claim in shared:
        cells = [rows.get(claim, ("–", "")) for rows in told]
        rows.append([claim, *(f"{verdict} {figures}".strip() for verdict, figures in cells)])
    return markdown(columns, rows) + f"\n\n{RULES}"


def published_table(pooled: Pool) -> str:
    """Published systems and a recipe's own on QMUL Shoe-V1 and Chair-V1, as Markdown.

    Raises:
        InputError: the recipe was not tested on shoes and chairs.
    """
    known = pooled.runs[0].values["categories"]["names"]
    if not {*GOALS} <= {*known}:
        raise InputError(
            f"{pooled.runs[0].recipe.name} was tested on {', '.join(known)}, what is published on {' and '.join(GOALS)}: "
            "name a recipe of QMUL Shoe-V1 and Chair-V1"
        )
    rows = [[name, backbone, "–", f"{shoes:.2f}", f"{chairs:.2f}"] for name, backbone, shoes, chairs in PUBLISHED]
    named = {system: display_name(system).strip() for system in ("full", pooled.largest, "v2") if system in pooled.systems}
    budget = within_budget(pooled)
    if budget is not None:
        named[budget[1]] = f"SketchyNetV2 at {100 * budget[0]:.0f} % of the largest canvas"
    recipe = pooled.runs[0].recipe
    for system, name in named.items():
        network = recipe.teacher.network if system == "full" else recipe.student.network
        accuracy = [interval_text(pooled.accuracy(system, category), signed=False) for category in ("shoes", "chairs")]
        rows.append([name, network.backbone, f"{pooled.figure(system, 'gflops').mean():.3f}", *accuracy])
    return markdown(["system", "backbone", "GFLOPs a query", "shoes, Acc@1", "chairs, Acc@1"], rows)
