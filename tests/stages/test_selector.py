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
from sketchynet.stages.selector import choose, train_selector


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
        return RolloutResult(np.where(found, 1, 20), np.zeros(len(request), np.float32), np.ones(len(request)))

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
        return RolloutResult(np.ones(len(request), np.int64), np.zeros(len(request), np.float32), np.ones(len(request)))

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
        return RolloutResult(np.ones(len(request), np.int64), np.zeros(len(request), np.float32), np.ones(len(request)))

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
