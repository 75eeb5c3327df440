"""What single queries tell, over the seeds of a recipe: the canvas that suffices for a sketch, and the sketches missed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sketchynet.report import display_name
from sketchynet.results.pooling import Pool, markdown
from sketchynet.results.summary import Summary

_FEATURES = ("strokes", "points", "ink")
_FEATURE_COLUMNS = ("strokes, mean", "points, mean", "ink, mean sides of the frame")
_RANKS = ((1, 1), (2, 2), (3, 5), (6, 10), (11, None))
"""Bounds of the ranks that `misses_table` tells apart."""


def sufficing_table(pooled: Pool) -> str:
    """The cheapest canvas that finds the photo, and V2's choice, against strokes, points and ink, as Markdown.

    Means are over seeds and queries; ρ is Spearman's rank correlation of the canvas with the feature, over the
    queries that some canvas finds (all queries for V2's choice), averaged over the seeds.
    """
    kinds: list[tuple[str, Callable[[Summary], np.ndarray]]] = [("cheapest canvas with rank 1", _sufficing)]
    if all("v2" in run.values["choices"] for run in pooled.runs):
        kinds.append(("V2's choice", lambda run: run.choices("v2")))
    features = _features(pooled)
    rows = []
    for kind, canvas_of in kinds:
        numbers = np.concatenate([canvas_of(run) for run in pooled.runs])
        for number, size in [*enumerate(pooled.canvases), (-1, 0)]:
            members = numbers == number
            if not members.any():
                continue
            label = f"{size} px" if size else "none finds it"
            means = [f"{features[name][members].mean():.1f}" for name in _FEATURES]
            rows.append([kind, label, f"{100 * members.mean():.1f} %", *means])
        correlations = []
        for name in _FEATURES:
            each = [_spearman(canvas_of(run), run.features()[name]) for run in pooled.runs]
            correlations.append(f"{np.mean(each):+.2f}".replace("-", "−"))
        rows.append([kind, "ρ with the canvas", "", *correlations])
    return markdown(["", "canvas", "share", *_FEATURE_COLUMNS], rows)


def _sufficing(run: Summary) -> np.ndarray:
    """int64 (n,): the cheapest canvas that ranks the truth first; -1 where none does."""
    hit = run.ranks["v1"] == 1
    return np.where(hit.any(axis=1), hit.argmax(axis=1), -1)


def _spearman(canvas: np.ndarray, feature: np.ndarray) -> float:
    """Spearman's correlation where there is a canvas; 0 where either does not vary."""
    from scipy.stats import rankdata

    kept = canvas >= 0
    a, b = rankdata(canvas[kept]), rankdata(feature[kept])
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def misses_table(pooled: Pool) -> str:
    """Queries by the rank that their truth has for V2 (V1 at its largest canvas where there is no V2), as Markdown.

    For each range of ranks: how many they are, what was drawn, and how many of them others put first: the full
    network, V1 at its largest canvas, and some canvas of V1. Over seeds and queries.
    """
    has_policy = all("v2" in run.values["choices"] for run in pooled.runs)
    ranks = np.concatenate([_policy_ranks(run) if has_policy else run.ranks["v1"][:, -1] for run in pooled.runs])
    features = _features(pooled)
    others: dict[str, Callable[[Summary], np.ndarray]] = {}
    if "full" in pooled.systems:
        others["full network"] = lambda run: run.ranks["full"][:, 0]
    if has_policy:
        others[display_name(pooled.largest)] = lambda run: run.ranks["v1"][:, -1]
    others["some canvas"] = lambda run: run.ranks["v1"].min(axis=1)
    found = {name: np.concatenate([rank_of(run) == 1 for run in pooled.runs]) for name, rank_of in others.items()}
    rows = []
    for low, high in _RANKS:
        members = (ranks >= low) & (ranks <= (ranks.max() if high is None else high))
        if not members.any():
            continue
        label = f"{low} or more" if high is None else str(low) if low == high else f"{low}–{high}"
        row = [label, f"{100 * members.mean():.1f} %", *(f"{features[name][members].mean():.1f}" for name in _FEATURES)]
        rows.append(row + [f"{100 * hits[members].mean():.0f} %" for hits in found.values()])
    system = "V2" if has_policy else display_name(pooled.largest)
    columns = [f"rank by {system}", "share", *_FEATURE_COLUMNS, *(f"first by {name}" for name in found)]
    return markdown(columns, rows)


def _policy_ranks(run: Summary) -> np.ndarray:
    """int64 (n,): the truth's rank at the canvas that V2 chose."""
    return run.ranks["v1"][np.arange(len(run.ranks["v1"])), run.choices("v2")]


def _features(pooled: Pool) -> dict[str, np.ndarray]:
    """float64 (runs · n,): what was drawn, run after run."""
    return {name: np.concatenate([run.features()[name] for run in pooled.runs]) for name in _FEATURES}
