"""Hand-made summaries of runs: three queries, canvases 16 and 32."""

from __future__ import annotations

from typing import Any

import numpy as np
from small import small_recipe

from sketchynet.results.packing import pack
from sketchynet.results.summary import Summary

RANKS = ([[2, 1], [1, 1], [3, 2]], [[1, 1], [2, 1], [1, 2]])
CHOICES = ([1, 0, 0], [0, 1, 0])
RULE = [1, 1, 0]


def member(variant: str = "a", position: int = 0, **changes: str) -> dict[str, Any]:
    """A place in the set "claim", whose reference is variant a."""
    values = {"experiment": "claim", "base": "tiny", "variant": variant, "position": position, "reference": "a", "compare": "largest"}
    return values | changes


def summary_values(seed: int, *, name: str = "tiny", experiments: tuple[dict[str, Any], ...] = (), **changes: Any) -> dict[str, Any]:
    """What summary.json of a run of seed 0 or 1 holds; ``ranks`` of V1 may be given."""
    ranks = np.array(changes.pop("ranks", RANKS[seed]))
    recipe = small_recipe(f"seed={seed}", f"name={name}", *changes.pop("recipe", ()))
    figures = {"acc1": 0.5, "acc5": 1.0, "acc10": 1.0, "mrr": 0.7, "gflops": 0.1, "parameters": 2_000_000, "mean_canvas": 20}
    systems: dict[str, Any] = {
        system: {"all": dict(figures), "left": dict(figures), "right": dict(figures), "details": {}}
        for system in ("full", "direct@16", "direct@32", "v1@16", "v1@32", "v2", "shuffled", "mixture", "rule", "exit", "oracle", "v2[0.1]", "v2[<=0.5]")
    }
    systems["mixture"]["details"] = {"shares": {"16": 0.25, "32": 0.75}}
    counts = np.bincount(CHOICES[seed], minlength=2)
    systems["shuffled"]["details"] = {"shares": {"16": counts[0] / 3, "32": counts[1] / 3}}
    systems["rule"]["details"] = {"rule": {"feature": "ink", "thresholds": [2.5], "falling": False}, "shares": {}}
    systems["exit"]["details"] = {"exit": {"first": 16, "then": 32, "threshold": 0.25}, "shares": {"16": 1 / 3, "32": 2 / 3}}
    systems["v2"]["all"]["gflops"] = 0.05
    systems["v1@16"]["all"]["gflops"], systems["v2[<=0.5]"]["all"]["gflops"] = 0.06, 0.07
    return {
        "format": 1,
        "run": {
            "id": f"{name}{seed}".ljust(32, "0"), "mlflow": None, "name": f"run-{seed}", "date": "2026-01-01 00:00",
            "commits": ["a" * 40], "hardware": {"cpu_count": "2", "gpu": "none", "torch": "2.13.0"}, "seconds": {"student": 90.0}, "borrowed": {},
        },
        "recipe": recipe.model_dump(mode="json"),
        "experiments": list(experiments),
        "data": {"split_hash": "abc", "queries": 3, "queries_hash": "def", "gallery_count": 4, "leaks": []},
        "canvases": [16, 32],
        "canvas_counts": counts.tolist(),
        "systems": systems,
        "differences": {},
        "validation": {"student": {"validation/score": 0.25 + 0.1 * seed, "validation/acc1_16": 0.1}, "selector": {"acc1": 0.3}},
        "categories": {"names": ["left", "right"], "of_query": pack(np.array([0, 0, 1]))},
        "ranks": {
            "full": pack(np.array([[1 + (n == seed)] for n in range(3)])),
            "direct": pack(np.array([[2, 1 + n] for n in range(3)])),
            "v1": pack(ranks),
        },
        "choices": {"v2": pack(np.array(CHOICES[seed])), "v2[0.1]": pack(np.array([0, 0, 0])), "v2[<=0.5]": pack(np.array([0, 1, 1])), "rule": pack(np.array(RULE)), "exit": pack(np.array([0, 1, 1]))},
        "features": {"strokes": pack(np.array([4, 2, 9])), "points": pack(np.array([40, 20, 90])), "ink": pack(np.array([3000, 2000, 1500]))},
    } | changes


def make_summary(seed: int, **changes: Any) -> Summary:
    """The same as a summary that was read."""
    values = summary_values(seed, **changes)
    return Summary(values, f"results/{values['recipe']['name']}-{seed}.json")
