from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small import small_pairs, small_recipe

from sketchynet import checkpoint
from sketchynet.config import Recipe
from sketchynet.errors import InputError
from sketchynet.models import CanvasSelector, Embedder
from sketchynet.models.selector import selector_input
from sketchynet.stages.networks import read_selector
from sketchynet.stages.picking import HeldOut, pick, shifted
from sketchynet.stages.retrieval import Retrieval
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import LocalRuntime, Report, RolloutRequest, RolloutResult
from sketchynet.stages.selector import train_selector
from sketchynet.stages.task import Answers

CANDIDATES = [
    {"acc1": 0.50, "mrr": 0.60, "gflops": 0.9},
    {"acc1": 0.495, "mrr": 0.61, "gflops": 0.4, "share": 0.5},
    {"acc1": 0.45, "mrr": 0.63, "gflops": 0.1},
    {"acc1": 0.49, "mrr": 0.62, "gflops": 0.49, "share": 0.5},
    {"acc1": 0.46, "mrr": 0.55, "gflops": 0.2, "share": 0.2},
]


@pytest.mark.parametrize(
    ("full", "tolerated", "expected"), [(0.50, 1.0, 1), (0.50, 10.0, 2), (0.50, 0.0, 0), (0.90, 1.0, 0)]
)
def test_pick_the_cheapest_that_is_accurate_enough(full: float, tolerated: float, expected: int) -> None:
    settings = small_recipe(f"selector.tolerated_loss={tolerated}", "selector.budget=null").selector
    assert pick(CANDIDATES, {"acc1": full, "gflops": 1.0}, settings) == expected


@pytest.mark.parametrize(("budget", "expected"), [(0.5, 3), (0.2, 4)])
def test_pick_the_policy_of_the_highest_mrr_that_spends_the_budget(budget: float, expected: int) -> None:
    settings = small_recipe(f"selector.budget={budget}").selector
    assert pick(CANDIDATES, {"acc1": 0.5, "gflops": 1.0}, settings) == expected


def test_a_shift_makes_dear_canvases_less_likely() -> None:
    policy, points, lengths = CanvasSelector(2, 8), torch.rand(5, 4, 5), torch.tensor([4, 3, 2, 1, 4])
    cost = torch.tensor([0.25, 1.0])
    moved = shifted(policy, cost, 2.0)(points, lengths)
    torch.testing.assert_close(moved, policy(points, lengths) - 2.0 * cost)


def test_calibration_meets_every_share_of_the_flops() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.full((40,), 6)
    ranks = np.ones((40, 3), dtype=np.int64)
    flops = np.array([1e8, 4e8, 16e8])
    held_out = HeldOut(np.arange(40), torch.rand(40, 6, 5, generator=generator), lengths, Answers(ranks, np.ones((40, 3))), (16, 32, 64), flops)
    settings = small_recipe("selector.shares=[0.3, 0.5, 0.8]", "selector.budget=0.6").selector
    policy = CanvasSelector(3, 8)
    with torch.no_grad():
        policy.head.weight.mul_(50)  # preferences that differ between sketches
    found = held_out.candidates(policy, settings)
    assert len(found) == 5 and found[0]["shift"] == 0.0
    costs = [figures["gflops"] / 1.6 for figures in found[1:]]
    for cost, share in zip(costs, (0.3, 0.5, 0.6, 0.8), strict=True):
        assert cost <= share
    assert costs == sorted(costs)
    for figures in found:
        chosen = shifted(policy, held_out.cost, figures["shift"])(held_out.points, lengths).argmax(dim=1)
        assert figures["share_64"] == pytest.approx(float((chosen == 2).float().mean()), abs=0.03)


class Said(CanvasSelector):
    """A policy that says, of drawings whose first number tells which they are, what it is told to."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__(2, 8)
        self.said = torch.tensor(logits)

    def forward(self, points: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.said[points[:, 0, 0].long()]


def test_figures_of_a_policy_that_learnt_from_the_drawings_are_those_of_its_like() -> None:
    ranks = np.array([[1, 1], [3, 1], [1, 1], [2, 1]])
    points = torch.arange(4.0)[:, None, None].expand(4, 6, 5)
    answers = Answers(ranks, np.ones((4, 2)))
    held_out = HeldOut(np.arange(4), points, torch.full((4,), 6), answers, (16, 32), np.array([1e8, 4e8]))
    settings = small_recipe("selector.shares=[0.65]", "selector.budget=null").selector
    policy = Said([[0.0, -1.0]] * 3 + [[0.0, 1.0]])
    knows = [[0.0, -1.0], [0.0, 1.0], [0.0, -2.0], [0.0, 3.0]]
    bold = [[small, large + 30.0] for small, large in knows]  # knows as much, and likes large canvases
    parts = [(np.array([0, 1]), Said(knows)), (np.array([2, 3]), Said(bold))]
    plain, calibrated = held_out.candidates(policy, settings, parts)
    # All of the second part are drawn large as they are; each part by itself, calibrated, draws one of its two large.
    assert (plain["acc1"], plain["share_32"], plain["shift"]) == (1.0, 0.75, 0.0)
    assert (calibrated["acc1"], calibrated["mrr"], calibrated["share_32"]) == (1.0, 1.0, 0.5)
    assert calibrated["gflops"] == pytest.approx(0.25, abs=1e-4)
    # The line that is used is drawn through the policy's own preferences.
    assert calibrated["shift"] == held_out.candidates(policy, settings)[1]["shift"]
    assert held_out.candidates(policy, settings)[1]["acc1"] == 0.75


def recipe_on_folds(*changes: str) -> Recipe:
    return small_recipe(
        "selector.folds=2",
        "selector.picked_on=folds",
        "selector.cost_weights=[0.1, 0.3]",
        "selector.shares=[0.5, 0.8]",
        "selector.budget=0.8",
        "selector.optimization.epochs=3",
        *changes,
    )


def outcome(request: RolloutRequest) -> RolloutResult:
    """Large canvases find what has an odd number; numbers tell drawings and views apart."""
    found = (request.sketches % 2 == 0) | (request.canvases == 1)
    return RolloutResult(
        np.where(found, 1, 2 + request.views), np.zeros(len(request), np.float32), request.sketches / 1000
    )


def train(recipe: Recipe, folder: RunFolder, runtime: LocalRuntime | None = None) -> None:
    pairs = small_pairs()
    student = Embedder("mobile_small", canvases=(16, 32)).eval()
    runtime = runtime or LocalRuntime()
    train_selector(Retrieval(recipe, pairs), runtime, outcome, folder, student=student, sketches=pairs.sketch_indices(0))


def judged(recipe: Recipe, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, turned: set[int]) -> list[tuple[list[int], np.ndarray]]:
    """Trains policies; returns the drawings that each was judged on, with its logits there. ``turned``: drawings whose
    outcomes are turned round."""
    found: list[tuple[list[int], np.ndarray]] = []
    logits = HeldOut.logits

    def watched(self: HeldOut, policy: CanvasSelector, rows: np.ndarray | None = None) -> np.ndarray:
        said = logits(self, policy, rows)
        if rows is not None:
            found.append((self.sketches[rows].tolist(), said))
        return said

    def rollout(request: RolloutRequest) -> RolloutResult:
        hit = (request.canvases == 1) != np.isin(request.sketches, list(turned))
        return RolloutResult(np.where(hit, 1, 9), np.zeros(len(request), np.float32), np.ones(len(request)))

    pairs = small_pairs()
    student = Embedder("mobile_small", canvases=(16, 32)).eval()
    with monkeypatch.context() as patch:
        patch.setattr(HeldOut, "logits", watched)
        train_selector(Retrieval(recipe, pairs), LocalRuntime(), rollout, folder, student=student, sketches=pairs.sketch_indices(0))
    return found


def test_a_fold_is_judged_by_the_policies_that_have_not_learnt_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_on_folds("selector.optimization.learning_rate=0.05")
    rewarded = Retrieval(recipe, small_pairs()).folds().rewarded
    plain = judged(recipe, RunFolder(tmp_path / "plain"), monkeypatch, set())
    turned = judged(recipe, RunFolder(tmp_path / "turned"), monkeypatch, set(rewarded[1].tolist()))
    # Both folds at the first price, then at the second.
    assert [rows for rows, _ in plain] == [rows for rows, _ in turned] == 2 * [part.tolist() for part in rewarded]
    for price in (0, 1):
        (_, first), (_, second) = plain[2 * price : 2 * price + 2]
        (_, other_first), (_, other_second) = turned[2 * price : 2 * price + 2]
        # Turning the outcomes of fold 1 round changes nothing for the policy that fold 1 is judged by.
        np.testing.assert_array_equal(second, other_second)
        assert not np.allclose(first, other_first)
    assert not np.allclose(plain[0][1], plain[2][1])  # another price


def test_what_the_policy_was_picked_on_is_kept_and_read_again(tmp_path: Path) -> None:
    pairs, recipe, folder = small_pairs(), recipe_on_folds(), RunFolder(tmp_path)
    task, train_rows = Retrieval(recipe, pairs), pairs.sketch_indices(0)
    reports: list[Report] = []
    train(recipe, folder, LocalRuntime(listener=reports.append))
    names = {name for report in reports if report.kind == "metrics" for name in report.metrics if name.endswith("/reward")}
    parts = ("", "/without_fold_0", "/without_fold_1")
    assert names == {f"cost_weight_{weight}{part}/reward" for weight in (0.1, 0.3) for part in parts}
    [start] = [report for report in reports if report.kind == "start"]
    assert start.payload["epochs"] == 3 * 2 * 3
    # Ranks of the drawings as drawn, whichever views were explored.
    student = Embedder("mobile_small", canvases=(16, 32)).eval()
    held_out = HeldOut.read(task, folder, student)
    assert held_out.sketches.tolist() == train_rows.tolist()
    np.testing.assert_array_equal(held_out.answers.ranks, np.stack([np.where(train_rows % 2, 2, 1), np.ones_like(train_rows)], 1))
    np.testing.assert_array_equal(held_out.answers.clearness, np.stack([train_rows / 1000] * 2, 1))
    assert held_out.canvases == (16, 32) and held_out.flops[0] < held_out.flops[1]
    metrics = json.loads((folder.final("selector") / "metrics.json").read_text())
    assert len(metrics["candidates"]) == 2 * 3 and metrics["picked"]["share"] == 0.8
    # The policy that is used spends the budget on the drawings, read anew.
    policy = read_selector(folder.final("selector"))
    read = selector_input(pairs.sketches.select(train_rows), tolerance=recipe.selector.tolerance, max_points=24)
    chosen = policy(*read).argmax(dim=1).numpy()
    assert held_out.flops[chosen].mean() <= 0.8 * held_out.flops[1]
    checkpoint.remove(folder.fold_answers)
    with pytest.raises(InputError, match=r"fold-answers is missing: remove .*selector, then resume"):
        HeldOut.read(task, folder, student)


def test_a_budget_that_no_policy_was_calibrated_to_is_refused() -> None:
    with pytest.raises(InputError, match=r"calibrated to a share of 0\.7"):
        pick(CANDIDATES, {"acc1": 0.5, "gflops": 1.0}, small_recipe("selector.budget=0.7").selector)


def test_it_takes_two_folds_to_pick_on() -> None:
    with pytest.raises(InputError, match=r'picked_on = "folds" needs two folds or more, and folds is 0'):
        small_recipe("selector.folds=0", "selector.picked_on=folds")
