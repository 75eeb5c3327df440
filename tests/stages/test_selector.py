from __future__ import annotations

import numpy as np
import pytest
import torch
from small import small_pairs, small_recipe

from sketchynet.models import CanvasSelector, Embedder
from sketchynet.models.selector import selector_input
from sketchynet.stages import selector
from sketchynet.stages.meters import MeteredRuntime
from sketchynet.stages.retrieval import Retrieval
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import LocalRuntime, Report, RolloutRequest, RolloutResult
from sketchynet.stages.selector import Validation, choose, pick, shifted, train_selector
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
    validation = Validation(torch.rand(40, 6, 5, generator=generator), lengths, Answers(ranks, np.ones((40, 3))), (16, 32, 64), flops)
    settings = small_recipe("selector.shares=[0.3, 0.5, 0.8]", "selector.budget=0.6").selector
    policy = CanvasSelector(3, 8)
    with torch.no_grad():
        policy.head.weight.mul_(50)  # preferences that differ between sketches
    found = validation.candidates(policy, settings)
    assert len(found) == 5 and found[0]["shift"] == 0.0
    costs = [figures["gflops"] / 1.6 for figures in found[1:]]
    for cost, share in zip(costs, (0.3, 0.5, 0.6, 0.8), strict=True):
        assert cost <= share
    assert costs == sorted(costs)
    for figures in found:
        chosen = shifted(policy, validation.cost, figures["shift"])(validation.points, lengths).argmax(dim=1)
        assert figures["share_64"] == pytest.approx(float((chosen == 2).float().mean()), abs=0.03)


@pytest.mark.parametrize(("gradient", "reads"), [("sampled", "points"), ("expected", "points"), ("expected", "ink")])
def test_policy_learns_which_sketches_need_the_large_canvas(tmp_path, gradient: str, reads: str) -> None:
    """Sketches with many points are found on the large canvas only: the policy has to find that out.

    One canvas for all sketches would be right for half of them.
    """
    pairs = small_pairs()
    recipe = small_recipe(
        f"selector.gradient={gradient}",
        f"selector.reads={reads}",
        "selector.cost_weights=[0.3]",
        "selector.shares=[]",
        "selector.budget=null",
        "selector.entropy=0.1",
        "selector.optimization.epochs=100",
        "selector.optimization.learning_rate=0.01",
        "selector.optimization.validate_every=100",
        "selector.hidden=32",
        "selector.max_points=96",
        "selector.views=1",
    )
    sketches = pairs.sketch_indices(0)
    _, points = selector_input(pairs.sketches, tolerance=recipe.selector.tolerance, max_points=96)
    hard = (points > points[sketches].median()).numpy()

    def rollout(request: RolloutRequest) -> RolloutResult:
        found = ~hard[request.sketches] | (request.canvases == 1)
        return RolloutResult(np.where(found, 1, 20), np.zeros(len(request), np.float32))

    student = Embedder("mobile_small", canvases=(16, 32)).eval()
    folder = RunFolder(tmp_path)
    task = Retrieval(recipe, pairs)
    train_selector(task, LocalRuntime(), rollout, folder, student=student, sketches=sketches)
    from sketchynet.stages.networks import read_selector

    policy = read_selector(folder.final("selector"))
    chosen = choose(policy, pairs.sketches.select(sketches), recipe.selector).canvases
    assert (chosen == hard[sketches]).mean() > 0.65


def test_steps_of_the_policy_are_counted_and_traced(tmp_path) -> None:
    recipe = small_recipe("selector.cost_weights=[0.1]", "selector.optimization.epochs=4", "selector.optimization.batch_size=8", "selector.reads=ink")
    pairs = small_pairs()
    reports: list[Report] = []
    runtime = MeteredRuntime(LocalRuntime(listener=reports.append), tmp_path / "profile")

    def rollout(request: RolloutRequest) -> RolloutResult:
        return RolloutResult(np.ones(len(request), np.int64), np.zeros(len(request), np.float32))

    sketches = pairs.sketch_indices(0)
    student = Embedder("mobile_small", canvases=(16, 32)).eval()
    train_selector(Retrieval(recipe, pairs), runtime, rollout, RunFolder(tmp_path), student=student, sketches=sketches)
    epochs = [report.metrics for report in reports if report.kind == "metrics" and "steps_per_second" in report.metrics]
    assert len(epochs) == 4 and all(figures["steps_per_second"] > 0 for figures in epochs)
    [trace] = [report.payload["path"] for report in reports if report.kind == "artifact"]
    assert trace == str(tmp_path / "profile" / "selector-rank0.json.gz") and (tmp_path / "profile" / "selector-rank0.json.gz").exists()


def test_the_policy_learns_in_one_thread_and_its_rollouts_in_all(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    learning, rolling = set(), set()
    entropy = selector.policy_entropy

    def watched(logits: torch.Tensor) -> torch.Tensor:
        learning.add(torch.get_num_threads())
        return entropy(logits)

    def rollout(request: RolloutRequest) -> RolloutResult:
        rolling.add(torch.get_num_threads())
        return RolloutResult(np.ones(len(request), np.int64), np.zeros(len(request), np.float32))

    monkeypatch.setattr(selector, "policy_entropy", watched)
    pairs, recipe = small_pairs(), small_recipe("selector.cost_weights=[0.3]", "selector.optimization.epochs=2")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        student = Embedder("mobile_small", canvases=(16, 32)).eval()
        train_selector(
            Retrieval(recipe, pairs),
            LocalRuntime(),
            rollout,
            RunFolder(tmp_path),
            student=student,
            sketches=pairs.sketch_indices(0),
        )
        assert learning == {1} and rolling == {2} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_untrained_policy_chooses_among_its_canvases() -> None:
    pairs, recipe = small_pairs(), small_recipe()
    chosen = choose(CanvasSelector(2, 8), pairs.sketches, recipe.selector)
    assert set(chosen.canvases) <= {0, 1} and (chosen.steps <= 24).all() and len(chosen.steps) == len(pairs.sketches)
