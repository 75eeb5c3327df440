"""Differences with their intervals as a picture: one line a configuration, zero marked."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from sketchynet.plots import BLUE, FAINT, GREY, VERMILLION, picture
from sketchynet.retrieval import Interval

_LABEL, _AXIS = 40, 80
"""Letters in a line of a configuration's name beside its interval, and of what the axis means."""


def forest_plot(rows: Sequence[tuple[str, Interval]], path: Path, *, title: str, reference: str) -> Path:
    """Draws differences of Acc@1 (shares) from a reference, first row on top; what excludes zero is in colour."""
    labels = [textwrap.fill(label, _LABEL) for label, _ in rows]
    further = sum(label.count("\n") for label in labels)
    with picture(path, 8.5, 1.5 + 0.42 * len(rows) + 0.2 * further) as figure:
        axes = figure.add_subplot()
        for place, (_, gap) in enumerate(rows):
            clear = gap.low > 0 or gap.high < 0
            colour = GREY if not clear else BLUE if gap.value > 0 else VERMILLION
            axes.plot([100 * gap.low, 100 * gap.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot([100 * gap.value], [place], color=colour, marker="o", markersize=7)
        axes.axvline(0.0, color=GREY, linewidth=1.0)
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(True, axis="x", color=FAINT)
        axes.set(title=title, xlabel=textwrap.fill(f"points of Acc@1 above “{reference}”, with 95 % interval", _AXIS))
    return Path(path)
