"""What the paper claims, and what is wanted beyond it, against the pooled seeds of a recipe: holds, partly, does not.

The rules are fixed here, printed with every table and the same for all.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sketchynet.results.pooling import Pool, interval_text, markdown, percent, unrounded
from sketchynet.results.summary import DEALT
from sketchynet.retrieval import Interval

PAPER_SAVING = 3.28
"""FLOPs of V1 over those of V2, as the paper states."""
QUERY_BUDGET = 0.254
"""GFLOPs of a query of the paper's final network."""
GOALS = {"shoes": 73 / 115, "chairs": 93 / 97}
"""Acc@1 of DenseNet-169 on QMUL Shoe-V1 and Chair-V1 (TC-Net, ACM MM 2019; printed as 63.48 and 95.88), of their 115 and 97
test drawings: V2 is to reach it within the budget."""

Row = tuple[str, str, str]
"""A claim, its verdict, the figures behind it."""

RULES = (
    "“Above” holds where the whole 95 % interval lies above zero, partly where the estimate does; “not below” and a goal "
    "hold where the estimate is not below, partly where the interval reaches it."
)


def claims_table(pooled: Pool) -> str:
    """Every claim that the runs can speak of, its verdict and the figures behind it, as Markdown."""
    return markdown(["claim", "verdict", "figures"], claims(pooled)) + f"\n\n{RULES}"


def claims(pooled: Pool) -> list[Row]:
    """Every claim that the runs can speak of, its verdict and the figures behind it."""
    return [*_distillation(pooled), *_policy(pooled), *_goals(pooled)]


def within_budget(pooled: Pool) -> tuple[float, str] | None:
    """The largest share of the FLOPs that lies within `QUERY_BUDGET`, and V2 calibrated to it; None where there is none."""
    largest = pooled.figure(pooled.largest, "gflops").mean()
    shares = {float(name.removeprefix("v2[<=")[:-1]): name for name in pooled.bracketed("v2[<=")}
    within = [share for share in shares if share * largest <= QUERY_BUDGET]
    return (max(within), shares[max(within)]) if within else None


def above(gap: Interval) -> str:
    """Verdict on a difference that is to be above zero."""
    return "**holds**" if gap.low > 0 else "partly" if gap.value > 0 else "does not"


def not_below(gap: Interval) -> str:
    """Verdict on a difference that is not to be below zero."""
    return "**holds**" if gap.value >= 0 else "partly" if gap.high >= 0 else "does not"


def _distillation(pooled: Pool) -> Iterator[Row]:
    best, known = pooled.largest, set(pooled.systems)
    direct = f"direct@{pooled.canvases[-1]}"
    if direct in known:
        gap = pooled.difference(best, direct)
        yield "V1 is above the directly trained student", above(gap), f"{interval_text(gap)} points"
    pairs = [(f"v1@{size}", f"direct@{size}") for size in pooled.canvases if f"direct@{size}" in known]
    if len(pairs) > 1:
        gap = pooled.mean_difference(pairs)
        yield "V1 is above the directly trained student, in the mean over the canvases", above(gap), f"{interval_text(gap)} points"
    if "full" in known:
        gap = pooled.difference(best, "full")
        saved = pooled.figure("full", "gflops").mean() / pooled.figure(best, "gflops").mean()
        text = f"{interval_text(gap)} points at {saved:.1f}× fewer FLOPs"
        yield "V1 is not below the full network", not_below(gap), text


def _policy(pooled: Pool) -> Iterator[Row]:
    known = pooled.comparable
    if "v2" not in known:
        return
    best = pooled.largest
    saved = float((pooled.figure(best, "gflops") / pooled.figure("v2", "gflops")).min())
    gap = pooled.difference("v2", best)
    verdict = not_below(gap) if saved >= PAPER_SAVING else "does not"
    text = f"{interval_text(gap)} points at {saved:.2f}× fewer FLOPs"
    yield f"V2 is not below V1, at {PAPER_SAVING}× fewer FLOPs on every seed", verdict, text
    for rival, name in (
        ("mixture", "the best mixture of fixed canvases"),
        ("shuffled", "its own choices shuffled"),
        (DEALT, "its own choices shuffled within each category"),
        ("rule", "a rule on strokes, points or ink"),
        ("exit", "an early exit where the answer is clear"),
    ):
        if rival in known:
            gap = pooled.difference("v2", rival)
            priced = "v2" if rival == DEALT else rival
            cost = pooled.figure(priced, "gflops").mean() / pooled.figure("v2", "gflops").mean()
            text = f"{interval_text(gap)} points at {cost:.2f}× its FLOPs"
            yield f"V2 is above {name}", above(gap), text
    spent = pooled.figure("v2", "gflops").mean()
    cheaper = [size for size in reversed(pooled.canvases) if pooled.figure(f"v1@{size}", "gflops").mean() <= spent]
    if cheaper:
        gaps = [pooled.difference("v2", f"v1@{size}") for size in cheaper]
        least = min((above(gap) for gap in gaps), key=("does not", "partly", "**holds**").index)
        text = "; ".join(f"{size}: {interval_text(gap)} points" for size, gap in zip(cheaper, gaps, strict=True))
        yield "V2 is above V1 at every canvas that costs no more", least, text
    counts = np.array([run.values["canvas_counts"] for run in pooled.runs])
    used = int((counts > 0).sum(axis=1).min())
    shares = ", ".join(
        f"{size}: {100 * share:.0f} %" for size, share in zip(pooled.canvases, counts.sum(axis=0) / counts.sum(), strict=True)
    )
    yield "V2's choices differ between sketches", "**holds**" if used > 1 else "does not", shares


def _goals(pooled: Pool) -> Iterator[Row]:
    """V2's as it is, and that of V2 calibrated to as much of the budget as there is a share for: both are told beforehand."""
    if "v2" not in pooled.systems:
        return
    yield from _reached(pooled, "v2", "V2")
    budget = within_budget(pooled)
    if budget is not None:
        share, system = budget
        yield from _reached(pooled, system, f"V2, calibrated to {100 * share:.0f} % of the largest canvas,")


def _reached(pooled: Pool, system: str, name: str) -> Iterator[Row]:
    goals = {category: goal for category, goal in GOALS.items() if category in pooled.runs[0].values["categories"]["names"]}
    costs = pooled.figure(system, "gflops")
    verdict = "**holds**" if costs.max() <= QUERY_BUDGET else "partly" if costs.mean() <= QUERY_BUDGET else "does not"
    if system == "v2" or goals:
        yield f"{name} costs at most {QUERY_BUDGET} GFLOPs a query", verdict, f"{costs.mean():.4f} GFLOPs"
    for category, goal in goals.items():
        interval = pooled.accuracy(system, category)
        gap = unrounded(Interval(interval.value - goal, interval.low - goal, interval.high - goal))
        yield f"{name} reaches {percent(goal)} on {category}", not_below(gap), interval_text(interval, signed=False)
