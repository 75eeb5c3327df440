"""A claim's recipe set as one table: every variant over its seeds, compared with the set's reference.

Which run belongs to which set is noted in its summary (``experiments``) by whoever ran the set; the order of the
variants, the reference and the comparison are noted there too, so that a table outlives a change of the recipes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sketchynet.errors import InputError
from sketchynet.report import display_name
from sketchynet.results.pooling import (
    RESAMPLES,
    Pool,
    interval_text,
    markdown,
    paired_difference,
    percent,
    pool,
    spread_text,
)
from sketchynet.results.summary import DEALT, Summary
from sketchynet.retrieval import Interval, bootstrap_interval

_RIVALS = ("mixture", "shuffled", DEALT, "rule", "exit")
"""What V2 is compared with in sets about policies."""


@dataclass(frozen=True)
class Section:
    """An experiment as it is shown."""

    text: str
    """Markdown."""
    differences: tuple[tuple[str, Interval], ...] = ()
    """Of V1 from the reference, by configuration, for a picture."""
    reference: str = ""
    points: tuple[dict[str, Any], ...] = ()
    """Of V2 at every price, for an accuracy–FLOPs plot."""


def experiment_section(name: str, base: str | None, summaries: Sequence[Summary]) -> Section:
    """An experiment's table, and what its picture shows.

    Args:
        base: recipe that the variants are made from; may be left out where there is one alone.

    Raises:
        InputError: the runs are of several bases and none is named, or the seeds of a variant do not fit together.
    """
    groups = _groups(name, summaries)
    if base is None and len(groups) > 1:
        raise InputError(f"experiment {name!r} was run from {', '.join(sorted(groups))}: name one, as in `experiment {name} {min(groups)}`")
    chosen = next(iter(groups), None) if base is None else base
    if chosen not in groups:
        of_base = f" --recipe {base}" if base else ""
        return Section(f"*No finished run yet: `sketchynet experiment run {name}{of_base} --seeds 0 1 2`.*")
    members, runs = groups[chosen]
    first = members[0]
    pools = {
        member["variant"]: pool([run for run, m in zip(runs, members, strict=True) if m["variant"] == member["variant"]])
        for member in sorted(members, key=lambda m: m["position"])
    }
    reference = pools.get(first["reference"])
    compare = first["compare"]
    table = {"largest": _by_largest, "same": _by_canvas, "v2": _by_policy}[compare]
    text = "\n\n".join([_heading(name, chosen, first, pools), table(pools, reference)])
    if compare == "v2":
        return Section(text, points=tuple(_policy_points(pools)))
    return Section(text, tuple(_differences(pools, reference, by_canvas=compare == "same")), first["reference"])


def _groups(name: str, summaries: Sequence[Summary]) -> dict[str, tuple[list[dict[str, Any]], list[Summary]]]:
    """Memberships and runs of an experiment, by base recipe."""
    groups: dict[str, tuple[list[dict[str, Any]], list[Summary]]] = {}
    for run in summaries:
        for member in run.values["experiments"]:
            if member["experiment"] == name:
                members, runs = groups.setdefault(member["base"], ([], []))
                members.append(member)
                runs.append(run)
    return groups


def _heading(name: str, base: str, member: dict[str, Any], pools: dict[str, Pool]) -> str:
    count = sum(len(pooled.runs) for pooled in pools.values())
    seeds = sorted({seed for pooled in pools.values() for seed in pooled.seeds})
    text = (
        f"Experiment `{name}` on `{base}`: {_counted(len(pools), 'configuration')}, {_counted(count, 'run')}, "
        f"seeds {', '.join(map(str, seeds))}; "
        f"each configuration read the test split once a seed. Differences are to “{member['reference']}”, in points of "
        "Acc@1, paired by query over the common seeds, with 95 % intervals."
    )
    return text if member["reference"] in pools else f"{text} **The reference has not been run yet.**"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _gap(pooled: Pool, system: str, reference: Pool | None, other: str) -> Interval | None:
    """A difference from the reference; None for the reference itself and where there is nothing to compare with."""
    if reference is None or (reference is pooled and system == other) or other not in reference.systems:
        return None
    return paired_difference(pooled, system, reference, other)


def _compared(pooled: Pool, system: str, reference: Pool | None, other: str) -> str:
    gap = _gap(pooled, system, reference, other)
    return "–" if gap is None else interval_text(gap)


def _differences(
    pools: dict[str, Pool], reference: Pool | None, *, by_canvas: bool
) -> Iterator[tuple[str, Interval]]:
    for variant, pooled in pools.items():
        for size in pooled.canvases if by_canvas else pooled.canvases[-1:]:
            system = f"v1@{size}"
            other = system if by_canvas else reference.largest if reference else ""
            gap = _gap(pooled, system, reference, other)
            if gap is not None:
                yield f"{variant}, at {size}" if by_canvas and len(pooled.canvases) > 1 else variant, gap


def _validation(pooled: Pool, stage: str, key: str) -> str:
    values = [run.values["validation"].get(stage, {}).get(key) for run in pooled.runs]
    return "–" if None in values else spread_text(np.array(values, dtype=np.float64))


def _accuracy(pooled: Pool, system: str) -> str:
    if system not in pooled.systems:
        return "–"
    return spread_text(pooled.figure(system, "acc1"))


def _by_largest(pools: dict[str, Pool], reference: Pool | None) -> str:
    canvases = sorted({size for pooled in pools.values() for size in pooled.canvases})
    columns = ["configuration", "seeds", "validation score", *(f"Acc@1 at {size}" for size in canvases)]
    columns += ["largest canvas, difference"]
    # Sets about other networks have these two beside each configuration.
    beside = {
        f"V1 − {display_name(rival).strip()}": rival
        for rival in ("direct", "full")
        if all(_rival(pooled, rival) for pooled in pools.values())
    }
    rows = []
    for variant, pooled in pools.items():
        row = [variant, str(len(pooled.runs)), _validation(pooled, "student", "validation/score")]
        row += [_accuracy(pooled, f"v1@{size}") for size in canvases]
        row.append(_compared(pooled, pooled.largest, reference, reference.largest if reference else ""))
        row += [interval_text(pooled.difference(pooled.largest, _rival(pooled, rival))) for rival in beside.values()]
        rows.append([*row, _ids(pooled)])
    return markdown([*columns, *beside, "runs"], rows)


def _rival(pooled: Pool, network: str) -> str:
    """The system of a network that V1 at its largest canvas is compared with; empty where there is none."""
    system = network if network == "full" else f"{network}@{pooled.canvases[-1]}"
    return system if system in pooled.systems else ""


def _ids(pooled: Pool) -> str:
    return " ".join(f"`{run.run_id[:8]}`" for run in pooled.runs)


def _by_canvas(pools: dict[str, Pool], reference: Pool | None) -> str:
    rows = []
    for variant, pooled in pools.items():
        for size in pooled.canvases:
            system = f"v1@{size}"
            validation = _validation(pooled, "student", f"validation/acc1_{size}")
            row = [variant, str(size), str(len(pooled.runs)), validation, _accuracy(pooled, system)]
            rows.append([*row, _compared(pooled, system, reference, system), _ids(pooled)])
    columns = ["configuration", "canvas", "seeds", "validation Acc@1", "Acc@1", "same canvas, difference", "runs"]
    return markdown(columns, rows)


def _by_policy(pools: dict[str, Pool], reference: Pool | None) -> str:
    columns = ["configuration", "seeds", "Acc@1 where picked", "V2 Acc@1", "GFLOPs", "difference"]
    columns += [f"V2 − {display_name(rival).strip()}" for rival in _RIVALS]
    rows = []
    for variant, pooled in pools.items():
        if "v2" not in pooled.systems:
            continue
        cost = pooled.figure("v2", "gflops").mean()
        row = [variant, str(len(pooled.runs)), _validation(pooled, "selector", "acc1"), _accuracy(pooled, "v2")]
        row += [f"{cost:.4f}", _compared(pooled, "v2", reference, "v2")]
        row += [interval_text(pooled.difference("v2", r)) if r in pooled.comparable else "–" for r in _RIVALS]
        rows.append([*row, _ids(pooled)])
    return "\n\n".join([markdown([*columns, "runs"], rows), *_budgets(pools)])


def _budgets(pools: dict[str, Pool]) -> list[str]:
    """V2 calibrated to every share of the largest canvas's FLOPs, against the best mixture of canvases at its cost."""
    rows = []
    for variant, pooled in pools.items():
        for names in _alike(pooled):
            name = names[0]
            mixture = pooled.mixture_hits(name)
            gap = bootstrap_interval(pooled.mean_hits(name) - mixture, resamples=RESAMPLES)
            cost = pooled.figure(name, "gflops").mean()
            figures = [f"{cost:.4f}", spread_text(pooled.figure(name, "acc1")), percent(float(mixture.mean())), interval_text(gap)]
            bounds = dict.fromkeys(f"{100 * float(n[5:-1]):g}" for n in (names[0], names[-1]))
            rows.append([variant, f"{'–'.join(bounds)} %", *figures])
    columns = ["configuration", "budget", "GFLOPs", "V2 Acc@1", "best mixture of fixed canvases at that cost", "difference"]
    return [markdown(columns, rows)] if rows else []


def _alike(pooled: Pool) -> list[list[str]]:
    """Budgets, ascending, in groups that chose the same canvas for every query: more was not worth paying for."""
    groups: list[list[str]] = []
    before: list[list[int]] = []
    for name in pooled.bracketed("v2[<="):
        chosen = [run.choices(name).tolist() for run in pooled.runs]
        if groups and chosen == before:
            groups[-1].append(name)
        else:
            groups.append([name])
        before = chosen
    return groups


def _policy_points(pools: dict[str, Pool]) -> list[dict[str, Any]]:
    """Fixed canvases of the first configuration, and V2 of all configurations at every budget."""
    first = next(iter(pools.values()))

    def point(pooled: Pool, system: str, label: str, group: str) -> dict[str, Any]:
        cost, accuracy = (float(pooled.figure(system, key).mean()) for key in ("gflops", "acc1"))
        return {"label": label, "group": group, "gflops": cost, "accuracy": accuracy}

    points = [point(first, f"v1@{size}", str(size), "v1") for size in first.canvases]
    for variant, pooled in pools.items():
        points += [point(pooled, name, "", variant) for name in pooled.bracketed("v2[<=")]
    return points
