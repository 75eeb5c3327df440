"""One recipe beside another on the same queries: what changing the networks or the data's size brought."""

from __future__ import annotations

from sketchynet.errors import InputError
from sketchynet.results.pooling import Pool, display_name, interval_text, markdown, paired_difference, percent


def beside_table(ours: Pool, theirs: Pool) -> str:
    """Every network and V2 that both recipes have, over their common seeds and paired by query, as Markdown.

    Raises:
        InputError: they have no seed in common, or were tested on other queries.
    """
    name, other = ours.runs[0].recipe.name, theirs.runs[0].recipe.name
    common = sorted({*ours.seeds} & {*theirs.seeds})
    if not common:
        raise InputError(f"{name} and {other} have no seed in common: run the seeds of one of them for the other too")
    ours, theirs = (Pool(tuple(run for run in pooled.runs if run.seed in common)) for pooled in (ours, theirs))
    scopes = ["all", *ours.runs[0].values["categories"]["names"]]
    columns = ["", f"`{name}`, Acc@1", "GFLOPs", f"`{other}`, Acc@1", "GFLOPs", "difference", *scopes[1:]]
    rows = []
    for system in ours.systems:
        if system in theirs.systems and (system in ("full", "v2") or "@" in system):
            row = [display_name(system).strip()]
            for pooled in (ours, theirs):
                row += [percent(pooled.figure(system, "acc1").mean()), f"{pooled.figure(system, 'gflops').mean():.4f}"]
            gaps = [paired_difference(ours, system, theirs, system, scope) for scope in scopes]
            rows.append([*row, *(interval_text(gap) for gap in gaps if gap is not None)])
    return f"Over the seeds that both have: {', '.join(map(str, common))}.\n\n{markdown(columns, rows)}"
