"""Pictures of results: plain data in, a PNG out. Drawn with matplotlib's Agg canvas, so no display is needed.

Colours are those of Okabe and Ito, which stay apart for colour-blind readers; a shape goes with every colour.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import ceil, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sketchynet.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
INK, GREY, FAINT = "#222222", "#7A7A7A", "#E6E6E6"

# group: name to show, colour, marker, marker size
GROUPS: dict[str, tuple[str, str, str, float]] = {
    "full": ("full network", INK, "s", 8),
    "direct": ("trained directly", ORANGE, "^", 7),
    "v1": ("SketchyNetV1", BLUE, "o", 7),
    "v2": ("SketchyNetV2", VERMILLION, "*", 19),
    "oracle": ("oracle canvas", GREEN, "D", 8),
    "mixture": ("mixture of canvases", GREY, "X", 8),
    "shuffled": ("shuffled choices", PURPLE, "v", 7),
    "rule": ("rule on the strokes", GREEN, "P", 7),
    "exit": ("early exit", ORANGE, "h", 7),
    "v2 candidates": ("V2 at other prices", SKY, "p", 6),
    "v2 budgets": ("V2 at other budgets", VERMILLION, ".", 6),
}
HOLLOW = {"oracle"}
SPARE_COLOURS = (SKY, GREEN, PURPLE, ORANGE, BLUE)

# Any: matplotlib types its settings as one literal for each of their names.
STYLE: Any = {
    "font.size": 11, "axes.titlesize": 14, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.titlepad": 14, "axes.labelsize": 11.5, "axes.labelcolor": INK, "text.color": INK,
    "axes.edgecolor": GREY, "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False,
    "axes.axisbelow": True, "grid.color": FAINT, "grid.linewidth": 0.8, "xtick.color": GREY, "ytick.color": GREY,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "legend.frameon": False, "figure.facecolor": "white",
}


@contextmanager
def picture(path: Path, width: float, height: float, dpi: int = 150) -> Iterator[Figure]:
    """A figure in inches that is saved at the end under a temporary name and renamed: never half a picture."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    path = Path(path)
    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
        figure = Figure(figsize=(width, height), dpi=dpi, layout=layout)
        FigureCanvasAgg(figure)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            figure.savefig(partial, format="png", metadata={"Software": None})
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def accuracy_flops_plot(points: Sequence[Mapping[str, Any]], path: Path, title: str) -> Path:
    """Accuracy over cost, one mark a network or canvas.

    points: mappings with `label` (short text beside the mark, or none), `gflops` (> 0, a query), `accuracy` (a share, 0 to
    1), `group` (full, direct, v1, v2, oracle, mixture, shuffled, or any other name), and optionally `low` and `high`
    (the interval) and `connect`. Points of one group are joined in order of cost (fixed canvases of one network)
    unless `connect` is False.
    """
    if not points:
        raise InputError("an accuracy–FLOPs plot needs at least one point; evaluate a network first")
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        if not (isfinite(point["gflops"]) and point["gflops"] > 0 and isfinite(point["accuracy"])):
            raise InputError(f"point {point['label']!r}: gflops {point['gflops']} and accuracy {point['accuracy']} "
                             "must be finite and gflops above 0")
        groups.setdefault(point["group"], []).append(point)
    with picture(path, 9, 5.8) as figure:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.grid(True, axis="y")
        marks: list[tuple[float, float]] = []
        texts: list[tuple[float, float, str, str, bool]] = []
        lines: list[np.ndarray] = []
        spare = iter(SPARE_COLOURS * len(groups))
        for name, members in groups.items():
            shown, colour, marker, size = GROUPS.get(name) or (name, next(spare), "o", 7)
            members = sorted(members, key=lambda point: point["gflops"])
            cost = [point["gflops"] for point in members]
            share = [100 * point["accuracy"] for point in members]
            joined = len(members) > 1 and all(point.get("connect", True) for point in members)
            dashed = name not in ("full", "direct", "v1")
            _error_bars(axes, members, colour)
            axes.plot(cost, share, color=colour, marker=marker, markersize=size, linewidth=1.8 if joined else 0,
                      linestyle="--" if dashed else "-", label=shown, zorder=5 if name == "v2" else 3,
                      markerfacecolor="white" if name in HOLLOW else colour, markeredgewidth=1.6,
                      markeredgecolor="white" if name == "v2" else colour)
            if joined:
                lines.append(np.stack([cost, share], axis=1))
            lines += [np.array([[p["gflops"], 100 * p["low"]], [p["gflops"], 100 * p["high"]]])
                      for p in members if _has_interval(p)]
            for point, x, y in zip(members, cost, share, strict=True):
                marks.append((x, y))
                if point["label"]:
                    texts.append((x, y, point["label"], colour, name == "v2"))
        values = [100 * float(point.get(key) or point["accuracy"]) for point in points
                  for key in ("accuracy", "low", "high")]
        room = max(2.0, 0.1 * (max(values) - min(values)))
        axes.set_ylim(max(0.0, min(values) - room), min(104.0, max(values) + room))
        costs = [point["gflops"] for point in points]
        axes.set_xlim(min(costs) / 1.7, max(costs) * 1.9)
        axes.set(title=title, xlabel="GFLOPs a query (log scale; a multiply-add counts two)", ylabel="Acc@1, %")
        axes.xaxis.set_major_formatter(_cost_text)
        axes.xaxis.set_minor_formatter(_minor_cost_text)
        axes.tick_params(axis="x", which="minor", labelsize=9, labelcolor=GREY)
        handles, names = axes.get_legend_handles_labels()
        if len(groups) > 1:
            figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)), fontsize=10.5)
        _direct_labels(figure, axes, marks, lines, texts)
    return Path(path)


def canvas_histogram(canvases: Sequence[int], counts: Sequence[int], path: Path,
                     title: str = "Canvas chosen for each sketch") -> Path:
    """How often each canvas was chosen. canvases: side lengths in pixels; counts: number of sketches, same length."""
    if len(canvases) != len(counts) or not len(canvases):
        raise InputError(f"canvas histogram: {len(canvases)} canvases but {len(counts)} counts; give one count each")
    total = max(1, sum(counts))
    mean = sum(c * n for c, n in zip(canvases, counts, strict=True)) / total
    with picture(path, 7, 4.4) as figure:
        axes = figure.add_subplot()
        bars = axes.bar(range(len(canvases)), counts, width=0.66, color=BLUE)
        for bar, count in zip(bars, counts, strict=True):
            axes.annotate(f"{count:,}\n{100 * count / total:.0f} %", (bar.get_x() + bar.get_width() / 2, count),
                          xytext=(0, 4), textcoords="offset points", ha="center", va="bottom", linespacing=1.25)
        axes.set_xticks(range(len(canvases)), [f"{c} × {c}" for c in canvases])
        axes.set_ylim(0, 1.22 * max(1, *counts))
        axes.grid(True, axis="y")
        axes.tick_params(axis="x", length=0)
        axes.set(title=title, ylabel="sketches", xlabel=f"canvas, pixels (mean {mean:.1f})")
    return Path(path)


def retrieval_sheet(rows: Sequence[Mapping[str, Any]], path: Path,
                    title: str = "What the search finds") -> Path:
    """Queries and what was found for them, one line each.

    rows: mappings with `sketch` uint8 (S, S), 255 = ink, at the chosen canvas; `photos`: the first five or so of the
    ranking, each uint8 (H, W, 3); `correct`: one bool a photo, true for the photo that was drawn; `rank`: int, from
    1; optionally `label`, a short text such as the sketch id. The sketch is magnified without smoothing, so that
    its pixels are seen. With `truth`, uint8 (H, W, 3), the photo that was drawn stands beside the sketch; `note` ends
    the line below the row.
    """
    if not rows:
        raise InputError("a retrieval sheet needs at least one query; the test split has no sketch")
    for row in rows:
        if len(row["photos"]) != len(row["correct"]):
            raise InputError(f"retrieval sheet, {row.get('label', 'a row')}: {len(row['photos'])} photos but "
                             f"{len(row['correct'])} marks; give one each")
    columns = 1 + max(len(row["photos"]) + ("truth" in row) for row in rows)
    with picture(path, 1.75 * columns, 2.0 * len(rows) + 0.6, dpi=110) as figure:
        figure.suptitle(title, x=0.012, ha="left", fontsize=15, fontweight="bold")
        grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.1})
        for line, row in zip(grid, rows, strict=True):
            for axes in line:
                axes.axis("off")
            size = row["sketch"].shape[0]
            _image(line[0], 255 - row["sketch"], GREY, 1.0)
            rank = int(row["rank"])
            line[0].set_title(f"{size} × {size} px", fontsize=10, color=INK, pad=4, fontweight="normal", loc="center")
            found = line[1:]
            if "truth" in row:
                _image(line[1], row["truth"], GREEN, 5.0)
                line[1].set_title("truth", fontsize=10, pad=4, loc="center", color=GREEN, fontweight="bold")
                found = line[2:]
            for place, (axes, photo, correct) in enumerate(
                    zip(found, row["photos"], row["correct"], strict=False), start=1):
                _image(axes, photo, GREEN if correct else FAINT, 5.0 if correct else 1.0)
                axes.set_title(f"{place} ✓" if correct else str(place), fontsize=10, pad=4, loc="center",
                               color=GREEN if correct else GREY, fontweight="bold" if correct else "normal")
            note = f"rank {rank}" + (f"  ·  {row['label']}" if row.get("label") else "")
            note += f"  ·  {row['note']}" if row.get("note") else ""
            written = line[0].text(0.0, -0.05, note, transform=line[0].transAxes, fontsize=9, va="top",
                                   color=GREEN if rank == 1 else VERMILLION if rank > len(row["photos"]) else INK)
            # The line runs on below the photos instead of pushing them aside; its height alone is kept free.
            written.set_in_layout(False)
            line[0].text(0.0, -0.05, "|", transform=line[0].transAxes, fontsize=9, va="top", alpha=0.0)
    return Path(path)


def recognition_sheet(rows: Sequence[Mapping[str, Any]], path: Path, columns: int = 8,
                      title: str = "What the sketches were taken for") -> Path:
    """Sketches at the canvas chosen for them, with the likeliest categories below.

    rows: mappings with `sketch` uint8 (S, S), 255 = ink; `truth`, the category's name; `found`: pairs (name,
    probability), likeliest first. The sketch is magnified without smoothing, so that its pixels are seen.
    """
    if not rows:
        raise InputError("a recognition sheet needs at least one sketch; the test split has none")
    lines = -(-len(rows) // columns)
    with picture(path, 1.75 * columns, 2.5 * lines + 0.8, dpi=110) as figure:
        figure.suptitle(title, x=0.012, ha="left", fontsize=15, fontweight="bold")
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for axes, row in zip(grid.flat, rows, strict=False):
            right = row["found"][0][0] == row["truth"]
            _image(axes, 255 - row["sketch"], GREEN if right else VERMILLION, 2.0)
            size = row["sketch"].shape[0]
            axes.set_title(f"{row['truth']}\n{size} px", fontsize=8.5, pad=4, loc="center", color=INK)
            for place, (name, share) in enumerate(row["found"]):
                colour = GREEN if name == row["truth"] else GREY
                axes.text(0.0, -0.04 - 0.115 * place, f"{100 * share:.0f} %  {name}", transform=axes.transAxes,
                          fontsize=8.5, va="top", color=colour, fontweight="bold" if place == 0 else "normal")
    return Path(path)


def sheet_by_canvas(groups: Mapping[int, Sequence[np.ndarray]], path: Path, *, counts: Mapping[int, int] | None = None,
                    columns: int = 8, title: str = "Sketches by the canvas chosen for them") -> Path:
    """Sketches in the canvas that was chosen for them, a block a canvas.

    groups: canvas → sketches uint8 (S, S), 255 = ink, drawn at that canvas (at most 2 × `columns` are shown); counts:
    how many sketches chose the canvas in all (goes into the caption).
    """
    if not any(len(sketches) for sketches in groups.values()):
        raise InputError("a sheet by canvas needs at least one sketch")
    shown = {canvas: list(sketches)[: 2 * columns] for canvas, sketches in sorted(groups.items()) if len(sketches)}
    lines = {canvas: ceil(len(sketches) / columns) for canvas, sketches in shown.items()}
    with picture(path, 1.35 * columns, 1.4 * sum(lines.values()) + 0.42 * len(lines) + 0.7, dpi=120) as figure:
        figure.suptitle(title, x=0.012, ha="left", fontsize=15, fontweight="bold")
        blocks = figure.subfigures(len(lines), 1, height_ratios=[1.4 * n + 0.42 for n in lines.values()],
                                   squeeze=False)[:, 0]
        for block, (canvas, sketches) in zip(blocks, shown.items(), strict=True):
            caption = f"{canvas} × {canvas} px"
            if counts is not None:
                number = counts[canvas]
                caption += f"  ·  {number:,} sketch{'es' if number != 1 else ''}"
            block.suptitle(caption, x=0.012, ha="left", fontsize=11.5, color=BLUE, fontweight="bold")
            grid = block.subplots(lines[canvas], columns, squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.03})
            for axes in grid.flat:
                axes.axis("off")
            for axes, sketch in zip(grid.flat, sketches, strict=False):
                _image(axes, 255 - sketch, FAINT, 1.0)
    return Path(path)


def has_curves(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether `training_curves` has something to draw: a run whose stages were all taken over trained nothing."""
    return bool(_panels(rows))


def _panels(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[int, float]]]:
    """Metric → stage → step → value, of what has at least two steps."""
    curves: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        if row["kind"] == "metrics":
            for name, value in row["values"].items():
                curves.setdefault(name, {}).setdefault(row["stage"], {})[int(row["step"])] = float(value)
    panels = {name: {stage: steps for stage, steps in stages.items() if len(steps) > 1}
              for name, stages in curves.items()}
    return {name: stages for name, stages in panels.items() if stages}


def training_curves(rows: Sequence[Mapping[str, Any]], path: Path, title: str = "Training") -> Path:
    """Every metric of the stages over its steps, one panel a metric, one line a stage.

    rows: journal rows (others than metrics are passed over); a step that a resume repeated counts with its last
    value; metrics with fewer than two steps are left out.
    """
    panels = _panels(rows)
    if not panels:
        raise InputError("training curves need a metric with at least two steps; the journal holds none")
    stages = list(dict.fromkeys(stage for lines in panels.values() for stage in lines))
    palette = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, INK)
    colours = {stage: palette[i % len(palette)] for i, stage in enumerate(stages)}
    columns = min(3, len(panels))
    height = 2.9 * ceil(len(panels) / columns) + 0.9
    with picture(path, max(6.0, 4.2 * columns), height, dpi=120) as figure:
        figure.suptitle(title, x=0.012, ha="left", fontsize=15, fontweight="bold")
        grid = figure.subplots(ceil(len(panels) / columns), columns, squeeze=False)
        for axes in grid.flat[len(panels):]:
            axes.axis("off")
        for axes, (name, lines) in zip(grid.flat, panels.items(), strict=False):
            for stage, steps in lines.items():
                order = sorted(steps)
                axes.plot(order, [steps[step] for step in order], color=colours[stage], linewidth=1.8,
                          marker="o" if len(order) < 15 else None, markersize=3.5)
            axes.set_title(name, fontsize=11.5, pad=6)
            axes.grid(True, axis="y")
            axes.xaxis.get_major_locator().set_params(integer=True)
        for axes in grid[-1]:
            axes.set_xlabel("step")
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=colours[stage], linewidth=2.5) for stage in stages]
        figure.legend(handles, [stage or "pipeline" for stage in stages], loc="outside lower center",
                      ncols=min(6, len(stages)))
    return Path(path)


def _error_bars(axes: Axes, members: Sequence[Mapping[str, Any]], colour: str) -> None:
    for point in members:
        if _has_interval(point):
            axes.plot([point["gflops"]] * 2, [100 * point["low"], 100 * point["high"]], color=colour, alpha=0.3,
                      linewidth=3, solid_capstyle="round", zorder=2)


def _has_interval(point: Mapping[str, Any]) -> bool:
    low, high = point.get("low"), point.get("high")
    return low is not None and high is not None and high > low


def _cost_text(value: float, _position: float) -> str:
    return f"{value:g}"


def _minor_cost_text(value: float, _position: float) -> str:
    """Label 2 and 5 of each decade, so that a plot over less than a decade still has numbers."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def _direct_labels(figure: Figure, axes: Axes, marks: Sequence[tuple[float, float]], lines: Sequence[np.ndarray],
                   texts: Sequence[tuple[float, float, str, str, bool]]) -> None:
    """Write each label on the side of its mark where it covers least of marks, lines and earlier labels.

    marks: data positions; lines: polylines (n, 2) in data units; texts: x, y, text, colour, whether it is the one
    that matters most.
    """
    figure.draw_without_rendering()
    dots = [_dotted(axes.transData.transform(line)) for line in lines]
    inked = np.concatenate(dots) if dots else np.zeros((0, 2))
    spots = axes.transData.transform(np.asarray(marks))
    frame = axes.get_window_extent()
    points = figure.dpi / 72
    taken: list[tuple[float, float, float, float]] = []
    sides = [(0, 11, "center", "bottom"), (0, -11, "center", "top"), (11, 0, "left", "center"),
             (-11, 0, "right", "center"), (8, 8, "left", "bottom"), (-8, 8, "right", "bottom"),
             (8, -8, "left", "top"), (-8, -8, "right", "top"), (0, 24, "center", "bottom"), (0, -24, "center", "top")]
    for x, y, text, colour, bold in sorted(texts, key=lambda item: not item[4]):
        best, best_cost = None, float("inf")
        for order, (dx, dy, across, along) in enumerate(sides):
            note = axes.annotate(text, (x, y), xytext=(dx, dy), textcoords="offset points", ha=across, va=along,
                                 fontsize=12 if bold else 10, fontweight="bold" if bold else "normal", color=colour,
                                 zorder=6)
            note.set_in_layout(False)
            box = note.get_window_extent()
            edges = (box.x0 - 2, box.y0 - 2, box.x1 + 2, box.y1 + 2)
            cost = 0.1 * order + sum(_overlap(edges, other) for other in taken)
            cost += sum(60.0 for sx, sy in spots if edges[0] - 5 * points < sx < edges[2] + 5 * points
                        and edges[1] - 5 * points < sy < edges[3] + 5 * points)
            inside = (inked > edges[:2]).all(axis=1) & (inked < edges[2:]).all(axis=1)
            cost += 12.0 * np.count_nonzero(inside)
            cost += 1000.0 * (edges[0] < frame.x0 or edges[2] > frame.x1 or edges[1] < frame.y0 or edges[3] > frame.y1)
            if cost < best_cost:
                if best is not None:
                    best[0].remove()
                best, best_cost = (note, edges), cost
            else:
                note.remove()
        if best is not None:
            taken.append(best[1])


def _dotted(line: np.ndarray, step: float = 4.0) -> np.ndarray:
    """Points every `step` pixels along a polyline (n, 2)."""
    parts = []
    for start, end in pairwise(line):
        count = max(2, int(np.hypot(*(end - start)) / step))
        parts.append(start + np.linspace(0, 1, count)[:, None] * (end - start))
    return np.concatenate(parts)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Common area of two boxes (x0, y0, x1, y1), pixels²."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _image(axes: Axes, pixels: np.ndarray, edge: str, width: float) -> None:
    """Pixels uint8 (H, W) or (H, W, 3), magnified by nearest neighbour, in a frame."""
    from matplotlib.patches import Rectangle

    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=(0, 1, 0, 1), aspect="equal")
    axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=edge, linewidth=width,
                             clip_on=False, zorder=10))
