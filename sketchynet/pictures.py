"""Pictures of an evaluation: accuracy over FLOPs, canvases, what was found, and what was missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sketchynet import plots
from sketchynet.models.embedder import Embedder
from sketchynet.ops import nearest_photos
from sketchynet.raster import rasterize
from sketchynet.stages.copies import PhotoCopies
from sketchynet.stages.embedding import embed_galleries, embed_sketches
from sketchynet.stages.evaluate import Evaluation
from sketchynet.stages.networks import read_embedder
from sketchynet.stages.recognition import Recognition
from sketchynet.stages.retrieval import Retrieval
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.search_head import searched
from sketchynet.stages.task import TEST, Task


def draw_pictures(task: Task, evaluation: Evaluation, folder: RunFolder, *, device: str = "cpu") -> list[Path]:
    """Draws plots and sheets, embedding on a device; returns their paths.

    The canvas histogram and the sheet by canvas need a policy; without one, sketches are shown at the largest canvas.
    """
    target, summary = folder.pictures, evaluation.summary
    target.mkdir(parents=True, exist_ok=True)
    title = f"{task.recipe.name}: accuracy and cost"
    paths = [plots.accuracy_flops_plot(_points(summary), target / "accuracy_flops.png", title=title)]
    if evaluation.choices is not None:
        counts = dict(zip(summary["canvases"], summary["canvas_counts"], strict=True))
        paths.append(plots.canvas_histogram(list(counts), list(counts.values()), target / "canvases.png"))
        sketches = _by_canvas(task, evaluation, evaluation.choices)
        paths.append(plots.sheet_by_canvas(sketches, target / "by_canvas.png", counts=counts))
    missed = _missed(evaluation)
    rows = task.recipe.evaluation.sheet_rows
    student = read_embedder(searched(task.recipe, folder, "student")).to(device)
    if isinstance(task, Recognition):
        shown = _recognised(task, evaluation, student, _chosen_queries(evaluation, 4 * rows))
        paths.append(plots.recognition_sheet(shown, target / "recognition.png"))
        if len(missed):
            shown = _recognised(task, evaluation, student, missed[: 4 * rows])
            title = "What was mistaken most"
            paths.append(plots.recognition_sheet(shown, target / "failures.png", title=title))
    elif isinstance(task, Retrieval):
        photos, sizes = task.pairs.photo_indices(TEST), task.recipe.student.gallery_sizes
        embedded = embed_galleries(student, task.pairs, photos, sizes, PhotoCopies.of(task.recipe))
        galleries = [embedded[size] for size in sizes]
        shown = _sheet_rows(task, evaluation, student, galleries, _chosen_queries(evaluation, rows))
        paths.append(plots.retrieval_sheet(shown, target / "retrieval.png"))
        if len(missed):
            shown = _sheet_rows(task, evaluation, student, galleries, missed[:rows], failures=True)
            title = "What the search misses by most"
            paths.append(plots.retrieval_sheet(shown, target / "failures.png", title=title))
    return paths


def _points(summary: dict[str, Any]) -> list[dict[str, Any]]:
    points = []
    for name, scopes in summary["systems"].items():
        f = scopes["all"]
        network = name.partition("@")[0]
        group, label = network, name.partition("@")[2] or name
        if "[" in name:
            budget = name.startswith("v2[<=")
            group, label = ("v2 budgets", "") if budget else ("v2 candidates", name[3:-1])
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


def _canvas_numbers(evaluation: Evaluation) -> np.ndarray:
    """int64 (n,): the canvas that each query is shown at, V2's or the largest."""
    if evaluation.choices is not None:
        return evaluation.choices
    return np.full(len(evaluation.sketches), len(evaluation.summary["canvases"]) - 1)


def _shown_ranks(evaluation: Evaluation) -> np.ndarray:
    """int64 (n,): rank of the truth at that canvas."""
    return evaluation.ranks["v1"][np.arange(len(evaluation.sketches)), _canvas_numbers(evaluation)]


def _chosen_queries(evaluation: Evaluation, rows: int) -> np.ndarray:
    """Queries for the sheet, spread over the canvases that V2 chose and evenly over the test order."""
    picked: list[int] = []
    numbers = _canvas_numbers(evaluation)
    used = np.unique(numbers)
    for number, canvas in enumerate(used):
        members = np.flatnonzero(numbers == canvas)
        share = rows // len(used) + (number < rows % len(used))
        places = np.linspace(0, len(members) - 1, min(share, len(members))).round().astype(int)
        picked += members[places].tolist()
    return np.array(picked, dtype=np.int64)


def _missed(evaluation: Evaluation) -> np.ndarray:
    """Queries whose truth is not first, the worst first."""
    ranks = _shown_ranks(evaluation)
    order = np.argsort(-ranks, kind="stable")
    return order[ranks[order] > 1]


def _ranks_in_words(evaluation: Evaluation, query: int) -> str:
    """The ranks of a query at every canvas and by the full network, for the line below it."""
    canvases = evaluation.summary["canvases"]
    parts = [f"{c} px: {r}" for c, r in zip(canvases, evaluation.ranks["v1"][query].tolist(), strict=True)]
    if "full" in evaluation.ranks:
        parts.append(f"full network: {evaluation.ranks['full'][query, 0]}")
    return "rank at " + ",  ".join(parts)


def _recognised(
    task: Recognition, evaluation: Evaluation, student: Embedder, queries: np.ndarray
) -> list[dict[str, Any]]:
    numbers = _canvas_numbers(evaluation)
    rows = []
    for query in queries:
        number, canvas = int(evaluation.sketches[query]), student.canvases[numbers[query]]
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


def _sheet_rows(
    task: Retrieval, evaluation: Evaluation, student: Embedder, galleries: list[torch.Tensor], queries: np.ndarray,
    *, failures: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """What the student finds for some queries; galleries: its embeddings of the test photos, a canvas."""
    pairs = task.pairs
    photos = pairs.photo_indices(TEST)
    numbers, ranks = _canvas_numbers(evaluation), _shown_ranks(evaluation)
    rows = []
    for query in queries:
        sketch, canvas = int(evaluation.sketches[query]), student.canvases[numbers[query]]
        drawn = pairs.sketches.select(np.array([sketch]))
        truth = pairs.sketch_photo[sketch]
        columns = np.flatnonzero(pairs.categories[photos] == pairs.categories[truth])
        embedded = embed_sketches(student, drawn, canvas)
        found = nearest_photos(embedded, galleries[numbers[query]][torch.from_numpy(columns)], min(5, len(columns)))
        shown = photos[columns[found.row[0].numpy()]]
        row = {
            "sketch": rasterize(drawn, canvas)[0],
            "canvas": canvas,
            "rank": int(ranks[query]),
            "label": (pairs.sketches.ids or ())[sketch],
            "photos": [np.asarray(pairs.photos[p]) for p in shown],
            "correct": [bool(p == truth) for p in shown],
        }
        if failures:
            row |= {"truth": np.asarray(pairs.photos[truth]), "note": _ranks_in_words(evaluation, int(query))}
        rows.append(row)
    return rows


def _by_canvas(
    task: Task, evaluation: Evaluation, choices: np.ndarray, shown: int = 16
) -> dict[int, list[np.ndarray]]:
    """Up to ``shown`` sketches a canvas, evenly spread over the test order."""
    groups = {}
    for number, canvas in enumerate(evaluation.summary["canvases"]):
        members = evaluation.sketches[choices == number]
        members = members[np.unique(np.linspace(0, max(len(members) - 1, 0), min(shown, len(members))).round().astype(int))]
        groups[canvas] = list(rasterize(task.sketches.select(members), canvas)) if len(members) else []
    return groups
