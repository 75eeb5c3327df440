"""Fills the marked places of a Markdown document (docs/results.md) with tables and figures made from summaries.

A place lies between two comments, which stay; what is between them is replaced:

    <!-- results: table qmul_v1 -->
    <!-- /results -->

Prose outside the marks is never touched. Kinds of places:

    table RECIPE             every system over the seeds of a recipe, differences, canvases, runs
    claims RECIPE            what is claimed: holds, partly, does not
    canvases RECIPE          the canvas that suffices, and V2's choice, against strokes, points and ink
    ceiling RECIPE           what a canvas for each sketch could bring at V2's cost, by the ranks of other seeds
    misses RECIPE            queries by the rank of their truth: what was drawn, and who finds them
    plot RECIPE              accuracy over FLOPs, means over the seeds (an image beside the document)
    overview RECIPE…         the claims on several recipes, a column each
    published RECIPE         published systems on QMUL, and the recipe's beside them
    beside RECIPE OTHER      one recipe's networks and V2 minus another's on the same queries
    experiment NAME [BASE]   a claim's recipe set: every variant, compared with the set's reference
    runs                     every run there is, with its id

A place that names a recipe or an experiment without finished runs says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from sketchynet import plots
from sketchynet.errors import InputError
from sketchynet.results.beside import beside_table
from sketchynet.results.ceiling import ceiling_table
from sketchynet.results.claims import Section, experiment_section
from sketchynet.results.forest import forest_plot
from sketchynet.results.overview import overview_table, published_table
from sketchynet.results.pooling import (
    by_recipe,
    image_path,
    markdown,
    percent,
    plot_points,
    pool,
    pooled_table,
)
from sketchynet.results.queries import misses_table, sufficing_table
from sketchynet.results.summary import Summary
from sketchynet.results.verdicts import claims_table

_BEGIN = re.compile(r"^<!-- results: (?P<what>.+?) -->$")
_END = "<!-- /results -->"
_KINDS = "table RECIPE, claims RECIPE, canvases RECIPE, ceiling RECIPE, misses RECIPE, plot RECIPE, published RECIPE, overview RECIPE…, beside RECIPE OTHER, experiment NAME [BASE], runs"


def fill_document(document: Path, summaries: Sequence[Summary], *, images: Path | None) -> str:
    """The text of a document with every marked place filled anew; nothing is written but the images.

    Args:
        images: folder for the plots; None draws none (the links to them are made all the same).

    Raises:
        InputError: a mark is unknown, is not closed or not opened; names the line.
    """
    try:
        lines = document.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{document} cannot be read ({error}); give a Markdown file with marks `<!-- results: … -->`") from error
    filled: list[str] = []
    opened: int | None = None
    for number, line in enumerate(lines, start=1):
        begins = _BEGIN.match(line)
        if opened is not None and begins:
            raise InputError(f"{document}, line {number}: the place of line {opened} is not closed by `{_END}`")
        if line == _END and opened is None:
            raise InputError(f"{document}, line {number}: `{_END}` without a `<!-- results: … -->` before it")
        if line.startswith("<!-- results") and not begins:
            raise InputError(f"{document}, line {number}: `{line}` is no mark; write `<!-- results: KIND NAME -->`")
        if begins:
            opened = number
            filled += [line, *_place(begins["what"].split(), summaries, document, images, number), _END]
        elif line == _END:
            opened = None
        elif opened is None:
            filled.append(line)
    if opened is not None:
        raise InputError(f"{document}: the place of line {opened} is not closed by `{_END}`")
    return "\n".join(filled)


def write_document(document: Path, text: str) -> None:
    """Replaces the document in one step."""
    partial = document.with_name(f".{document.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, document)
    finally:
        partial.unlink(missing_ok=True)


def _place(
    words: list[str], summaries: Sequence[Summary], document: Path, images: Path | None, line: int
) -> list[str]:
    kind, names = words[0], words[1:]
    if kind == "runs" and not names:
        text = _all_runs(summaries)
    elif kind in ("table", "claims", "canvases", "ceiling", "misses", "plot", "published") and len(names) == 1:
        runs = by_recipe(summaries).get(names[0])
        text = f"*No finished run of `{names[0]}` yet.*" if not runs else _of_recipe(kind, runs, document, images)
    elif kind == "overview" and names:
        found = [by_recipe(summaries).get(name) for name in names]
        missing = ", ".join(f"`{name}`" for name, runs in zip(names, found, strict=True) if not runs)
        text = f"*No finished run of {missing} yet.*" if missing else overview_table([pool(runs) for runs in found if runs])
    elif kind == "beside" and len(names) == 2:
        ours, theirs = (by_recipe(summaries).get(name) for name in names)
        text = beside_table(pool(ours), pool(theirs)) if ours and theirs else f"*`{names[0]}` and `{names[1]}` need runs of both.*"
    elif kind == "experiment" and len(names) in (1, 2):
        section = experiment_section(names[0], names[1] if len(names) == 2 else None, summaries)
        text = section.text
        if section.points or section.differences:
            text += "\n\n" + _picture(section, "-".join(["experiment", *names]), document, images)
    else:
        raise InputError(f"{document}, line {line}: no place `{' '.join(words)}`; there are {_KINDS}")
    return ["", *text.split("\n"), ""]


def _of_recipe(kind: str, runs: Sequence[Summary], document: Path, images: Path | None) -> str:
    pooled = pool(runs)
    if kind == "table":
        return pooled_table(pooled)
    if kind == "claims":
        return claims_table(pooled)
    if kind == "canvases":
        return sufficing_table(pooled)
    if kind == "ceiling":
        return ceiling_table(pooled)
    if kind == "misses":
        return misses_table(pooled)
    if kind == "published":
        return published_table(pooled)
    return _picture(Section("", points=tuple(plot_points(pooled))), runs[0].recipe.name, document, images)


def _picture(section: Section, name: str, document: Path, images: Path | None) -> str:
    """Draws a section's picture, unless `images` is None, and links it."""
    path = image_path(document.parent / "images" / "results" if images is None else images, name)
    shown = "accuracy over FLOPs" if section.points else "differences"
    if images is not None and section.points:
        plots.accuracy_flops_plot(section.points, path, title=f"{name}: accuracy and cost")
    elif images is not None:
        forest_plot(section.differences, path, title=name, reference=section.reference)
    return f"![{name}: {shown}]({Path(os.path.relpath(path, document.parent)).as_posix()})"


def _all_runs(summaries: Sequence[Summary]) -> str:
    rows = []
    for runs in by_recipe(summaries).values():
        for run in runs:
            values = run.values["run"]
            best = f"v1@{run.canvases[-1]}"
            accuracy = [percent(run.figures(s)["acc1"]) if s in run.values["systems"] else "–" for s in ("full", best, "v2")]
            minutes = sum(values["seconds"].values()) / 60
            commits = " + ".join(commit[:7] for commit in values["commits"])
            rows.append([f"`{run.run_id}`", run.recipe.name, str(run.seed), values["date"], commits,
                         f"{minutes:.0f}" if minutes else "–", *accuracy])
    if not rows:
        return "*No finished run yet.*"
    return markdown(["run", "recipe", "seed", "date", "commit", "minutes", "full", "V1", "V2"], rows)
