"""What a person sees of an evaluation: the final table and the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sketchynet import plots
from sketchynet.flops import count_parameters, embedder_flops, selector_flops
from sketchynet.models import CANVASES, CanvasSelector, Embedder
from sketchynet.ops import nearest
from sketchynet.raster import rasterize
from sketchynet.stages.embedding import embed_photos, embed_sketches
from sketchynet.stages.evaluate import Evaluation
from sketchynet.stages.networks import read_embedder
from sketchynet.stages.recognition import Recognition
from sketchynet.stages.retrieval import Retrieval
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.task import TEST, Task
from sketchynet.tables import aligned

_NAMES = {
    "full": "full network",
    "direct": "trained directly",
    "v1": "SketchyNetV1",
    "v2": "SketchyNetV2",
    "mixture": "  best mixture of fixed canvases",
    "shuffled": "  its choices shuffled",
    "oracle": "  oracle",
}


def display_name(system: str) -> str:
    """A system's name for tables: ``v1@64`` becomes ``SketchyNetV1 at 64``."""
    network, _, canvas = system.partition("@")
    return _NAMES.get(network, network) + (f" at {canvas}" if canvas else "")


def evaluation_table(summary: dict[str, Any]) -> str:
    """The final table: network, parameters, GFLOPs a query, Acc@1/5/10 with 95 % intervals, mean canvas.

    With several categories the accuracies are over all queries, and Acc@1 of each category follows.
    """
    systems = {name: scopes for name, scopes in summary["systems"].items() if "[" not in name}
    first = next(iter(systems.values()))
    categories = [scope for scope in first if scope not in ("all", "details")]
    columns = ["network", "params", "GFLOPs", "Acc@1", "95 %", "Acc@5", "Acc@10", "canvas"]
    columns += [f"{c} Acc@1" for c in categories]
    rows = []
    for name, scopes in systems.items():
        f = scopes["all"]
        row = [display_name(name), f"{f['parameters'] / 1e6:.2f} M", f"{f['gflops']:.4g}", _percent(f["acc1"])]
        row += [f"{_percent(f['acc1_low'])}–{_percent(f['acc1_high'])}", _percent(f["acc5"]), _percent(f["acc10"])]
        row.append(f"{f['mean_canvas']:.0f}")
        rows.append(row + [_percent(scopes[c]["acc1"]) for c in categories])
    lines = [aligned(columns, rows, right=columns[1:])]
    if summary["differences"]:
        lines += ["", "differences of Acc@1 on the same queries, points with 95 % interval"]
        for pair, value in summary["differences"].items():
            a, b = pair.split(" - ")
            interval = f"{100 * value['value']:+.2f}  [{100 * value['low']:+.2f}, {100 * value['high']:+.2f}]"
            lines.append(f"  {display_name(a).strip()} − {display_name(b).strip()}: {interval}")
    leaks = summary["leaks"]
    if leaks:
        lines += ["", "note: the official split repeats pictures across its parts: " + _listed(leaks)]
    return "\n".join(lines)


def paper_table(steps: int = 64) -> str:
    """Parameters and GFLOPs of the paper's networks and of SqueezeNet 1.1 at every canvas of the paper.

    Args:
        steps: points that the selector reads.
    """
    selector = CanvasSelector()
    networks = [Embedder(name) for name in ("vgg16", "squeezenet1_1", "mobilenet_v2")]
    rows = []
    for network in networks:
        costs = {size: embedder_flops(network, size) for size in CANVASES}
        rows.append([network.config["backbone"], *_cost_cells(count_parameters(network), costs)])
    student, choice = networks[-1], selector_flops(selector, steps)
    rows.append([f"selector, {steps} points", *_cost_cells(count_parameters(selector), dict.fromkeys(CANVASES, choice))])
    costs = {size: embedder_flops(student, size) + choice for size in CANVASES}
    rows.append(["SketchyNetV2", *_cost_cells(count_parameters(student) + count_parameters(selector), costs)])
    columns = ["network", "parameters", "", *(f"{size}×{size}" for size in CANVASES)]
    note = (
        "GFLOPs a query by canvas; a multiply-add counts two (convention of the paper).\n"
        "The paper prints the parameters of SketchyNetV2 as 2.27 M: the same number, cut off."
    )
    return aligned(columns, rows, right=columns[1:]) + f"\n{note}"


def _cost_cells(parameters: int, flops: dict[int, int]) -> list[str]:
    return [f"{parameters:,}", f"{parameters / 1e6:.2f} M", *(_gflops(value / 1e9) for value in flops.values())]


def _gflops(value: float) -> str:
    """As the paper prints them: 40.18 and 0.833."""
    return f"{value:.2f} G" if value >= 10 else f"{value:.3f} G"


def _listed(leaks: list[list[str]]) -> str:
    return ", ".join(" = ".join(pair) for pair in leaks)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def draw_pictures(task: Task, evaluation: Evaluation, folder: RunFolder) -> list[Path]:
    """Draws the accuracy–FLOPs plot, the canvas histogram and the sheets; returns their paths."""
    target = folder.pictures
    target.mkdir(parents=True, exist_ok=True)
    sheet = "recognition.png" if isinstance(task, Recognition) else "retrieval.png"
    paths = [target / name for name in ("accuracy_flops.png", "canvases.png", sheet, "by_canvas.png")]
    title = f"{task.recipe.name}: accuracy and cost"
    plots.accuracy_flops_plot(_points(evaluation.summary), paths[0], title=title)
    plots.canvas_histogram(evaluation.summary["canvases"], evaluation.summary["canvas_counts"], paths[1])
    if isinstance(task, Recognition):
        plots.recognition_sheet(_recognised(task, evaluation, folder), paths[2])
    elif isinstance(task, Retrieval):
        plots.retrieval_sheet(_sheet_rows(task, evaluation, folder), paths[2])
    counts = dict(zip(evaluation.summary["canvases"], evaluation.summary["canvas_counts"], strict=True))
    plots.sheet_by_canvas(_by_canvas(task, evaluation), paths[3], counts=counts)
    return paths


def _points(summary: dict[str, Any]) -> list[dict[str, Any]]:
    points = []
    for name, scopes in summary["systems"].items():
        f = scopes["all"]
        network = name.partition("@")[0]
        group = "v2 candidates" if "[" in name else network
        label = name.partition("@")[2] or name.removeprefix("v2[").removesuffix("]")
        points.append(
            {
                "label": label,
                "gflops": f["gflops"],
                "accuracy": f["acc1"],
                "low": f["acc1_low"],
                "high": f["acc1_high"],
                "group": group,
            }
        )
    return points


def _chosen_queries(evaluation: Evaluation, rows: int) -> np.ndarray:
    """Queries for the sheet, spread over the canvases that V2 chose and evenly over the test order."""
    picked: list[int] = []
    used = np.unique(evaluation.choices)
    for number, canvas in enumerate(used):
        members = np.flatnonzero(evaluation.choices == canvas)
        share = rows // len(used) + (number < rows % len(used))
        places = np.linspace(0, len(members) - 1, min(share, len(members))).round().astype(int)
        picked += members[places].tolist()
    return np.array(picked, dtype=np.int64)


def _recognised(task: Recognition, evaluation: Evaluation, folder: RunFolder) -> list[dict[str, Any]]:
    student = read_embedder(folder.final("student"))
    rows = []
    for query in _chosen_queries(evaluation, 4 * task.recipe.evaluation.sheet_rows):
        number, canvas = int(evaluation.sketches[query]), student.canvases[evaluation.choices[query]]
        drawn = task.sketches.select(np.array([number]))
        shares = task.probabilities(student, drawn, canvas)[0]
        first = np.argsort(-shares)[:3]
        rows.append(
            {
                "sketch": rasterize(drawn, canvas)[0],
                "truth": task.data.category_names[task.data.labels[number]],
                "found": [(task.data.category_names[c], float(shares[c])) for c in first],
            }
        )
    return rows[: max(8, len(rows) // 8 * 8)]  # whole lines


def _sheet_rows(task: Retrieval, evaluation: Evaluation, folder: RunFolder) -> list[dict[str, Any]]:
    recipe, pairs = task.recipe, task.pairs
    student = read_embedder(folder.final("student"))
    photos = pairs.photo_indices(TEST)
    gallery = embed_photos(student, pairs, photos, recipe.student.photo_size)
    ranks = evaluation.system("v2").ranks[:, 0]
    rows = []
    for query in _chosen_queries(evaluation, recipe.evaluation.sheet_rows):
        sketch, canvas = int(evaluation.sketches[query]), student.canvases[evaluation.choices[query]]
        drawn = pairs.sketches.select(np.array([sketch]))
        category = pairs.categories[pairs.sketch_photo[sketch]]
        columns = np.flatnonzero(pairs.categories[photos] == category)
        embedded = embed_sketches(student, drawn, canvas)
        found = nearest(embedded, gallery[torch.from_numpy(columns)], min(5, len(columns)))
        shown = photos[columns[found.row[0].numpy()]]
        rows.append(
            {
                "sketch": rasterize(drawn, canvas)[0],
                "canvas": canvas,
                "rank": int(ranks[query]),
                "label": (pairs.sketches.ids or ())[sketch],
                "photos": [np.asarray(pairs.photos[p]) for p in shown],
                "correct": [bool(p == pairs.sketch_photo[sketch]) for p in shown],
            }
        )
    return rows


def _by_canvas(task: Task, evaluation: Evaluation, shown: int = 16) -> dict[int, list[np.ndarray]]:
    """Up to ``shown`` sketches a canvas, evenly spread over the test order."""
    groups = {}
    for number, canvas in enumerate(evaluation.summary["canvases"]):
        members = evaluation.sketches[evaluation.choices == number]
        members = members[np.unique(np.linspace(0, max(len(members) - 1, 0), min(shown, len(members))).round().astype(int))]
        groups[canvas] = list(rasterize(task.sketches.select(members), canvas)) if len(members) else []
    return groups
