"""SketchyNetV2's policy: policy gradient over canvases, one policy per price of FLOPs, of which one is picked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from sketchynet import checkpoint
from sketchynet.config import SelectorConfig
from sketchynet.errors import InputError
from sketchynet.flops import embedder_flops, selector_flops
from sketchynet.losses import (
    expected_reward_loss,
    leave_one_out_baseline,
    policy_entropy,
    reinforce_loss,
    reward,
)
from sketchynet.models.embedder import Embedder
from sketchynet.models.selector import CanvasSelector, selector_input
from sketchynet.sketch import SketchBatch
from sketchynet.stages.picking import HeldOut, pick, shifted
from sketchynet.stages.rewards import RewardTable, view_sketches
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import Report, Rollout, RolloutRequest, RolloutResult, Runtime
from sketchynet.stages.task import Answers, Task

NAME = "selector"
_AHEAD = 3  # batches whose rewards are under way: the one that is waited for, and the next two


@dataclass(frozen=True)
class Choices:
    """What a policy chose for some sketches, greedily."""

    canvases: np.ndarray
    """int64 (n,): index of the canvas."""
    steps: np.ndarray
    """int64 (n,): points that the policy read."""


def choose(policy: CanvasSelector, sketches: SketchBatch, settings: SelectorConfig) -> Choices:
    """The most probable canvas of every sketch."""
    read = selector_input(sketches, tolerance=settings.tolerance, max_points=settings.max_points)
    return choose_read(policy, *read)


def choose_read(policy: CanvasSelector, points: torch.Tensor, lengths: torch.Tensor) -> Choices:
    """The same for sketches as a policy reads them: points float32 (n, T, 5), lengths int64 (n,)."""
    policy.eval()
    with torch.no_grad():
        logits = policy(points, lengths)
    return Choices(logits.argmax(dim=1).numpy(), lengths.numpy())


def query_flops(policy: CanvasSelector, student: Embedder, choices: Choices) -> np.ndarray:
    """float64 (n,): FLOPs of every query: policy and student at the chosen canvas."""
    of_canvas = np.array([embedder_flops(student, size) for size in student.canvases], dtype=np.float64)
    of_steps = {int(n): selector_flops(policy, int(n)) for n in np.unique(choices.steps)}
    return of_canvas[choices.canvases] + np.array([of_steps[int(n)] for n in choices.steps], dtype=np.float64)


def train_selector(
    task: Task,
    runtime: Runtime,
    rollout: Rollout,
    folder: RunFolder,
    *,
    student: Embedder,
    sketches: np.ndarray,
) -> None:
    """Trains a policy for every price and writes the picked one to ``selector/final``.

    Args:
        rollout: answers the policy's choices, here or by actors.
        student: SketchyNetV1, frozen; FLOPs are its own, and answers to the validation split.
        sketches: int64, ascending: the sketches that rewards are given for.
    """
    target = folder.final(NAME)
    if checkpoint.is_complete(target):
        return
    settings = task.recipe.selector
    with RewardTable(settings.views, sketches, len(student.canvases), rollout) as table:
        training = _PolicyTraining(task, table, student, sketches)
        with _one_thread():
            _train(training, settings, runtime, folder)
        if settings.picked_on == "folds":
            outcomes = table.as_drawn()
            held_out = HeldOut.of(task, student, sketches, Answers(outcomes.ranks, outcomes.clearness))
            held_out.write(folder)
        else:
            held_out = HeldOut.validation(task, student)
    total = training.done
    candidates = []
    for number, (weight, policy) in enumerate(zip(settings.cost_weights, training.policies, strict=True)):
        calibrated = held_out.candidates(policy, settings, training.unseen(number))
        write_policy(folder.candidate(number), policy, calibrated[0])
        candidates += [{"cost_weight": weight} | figures for figures in calibrated]
    picked = candidates[pick(candidates, held_out.full, settings)]
    policy = training.policies[settings.cost_weights.index(picked["cost_weight"])]
    policy = shifted(policy, held_out.cost, picked["shift"])
    summary = {"picked": picked, "largest_canvas": held_out.full, "candidates": candidates}
    write_policy(target, policy, summary | {"rollouts": table.known})
    checkpoint.prune_epochs(folder.stage(NAME), keep=0)
    figures = {f"picked/{key}": value for key, value in picked.items()}
    runtime.report(Report(NAME, "metrics", total, metrics=figures))
    runtime.report(Report(NAME, "end", total, payload={"status": "FINISHED"}))


def _train(training: _PolicyTraining, settings: SelectorConfig, runtime: Runtime, folder: RunFolder) -> None:
    """All epochs of all policies, from the newest checkpoint on."""
    checkpoint.remove_partial(folder.stage(NAME))
    newest, damaged = checkpoint.newest_whole(folder.stage(NAME))
    for text in damaged:
        notice = f"{NAME}: {text}; going on from the checkpoint before it, {newest}"
        runtime.report(Report(NAME, "notice", payload={"text": notice}))
    if newest is not None:
        state = checkpoint.read_state(newest)
        if "outcomes" not in state:
            raise InputError(f"{newest} is of an earlier version: remove {folder.stage(NAME)}, then resume the run")
        training.restore(state)
    total = training.total
    runtime.report(
        Report(
            NAME,
            "start",
            training.done,
            payload={"epochs": total, "parameters": settings.model_dump(mode="json")},
        )
    )
    while training.done < total:
        figures = training.epoch(runtime)
        runtime.report(Report(NAME, "metrics", training.done, metrics=figures))
        if training.done % settings.optimization.validate_every == 0 and training.done < total:
            training.save(checkpoint.epoch_directory(folder.stage(NAME), training.done))
            checkpoint.prune_epochs(folder.stage(NAME), keep=2)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch within it.

    A GRU step of a small batch takes microseconds: sharing one costs more than it saves, and on a busy machine, where
    the threads wait for each other at every step, an epoch took ten times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def write_policy(directory: Path, policy: CanvasSelector, metrics: dict[str, Any]) -> None:
    """Writes a policy's checkpoint."""
    checkpoint.write_checkpoint(directory, network=policy.state_dict(), config=policy.config, metrics=metrics)


def canvas_costs(student: Embedder) -> torch.Tensor:
    """float32 (K,): FLOPs of every canvas of the student as a share of its largest."""
    flops = torch.tensor([embedder_flops(student, size) for size in student.canvases], dtype=torch.float64)
    return (flops / flops[-1]).float()


class _PolicyTraining:
    """Policies for all prices, one after another, over one table of outcomes.

    Where they are picked on the drawings of the folds, one more for every fold and price follows, which learns from the
    other folds alone.
    """

    def __init__(self, task: Task, table: RewardTable, student: Embedder, sketches: np.ndarray) -> None:
        self.task, self.recipe, self.settings, self.table = task, task.recipe, task.recipe.selector, table
        self.sketches = sketches
        self.cost = canvas_costs(student)
        inputs = [self._view_input(view) for view in range(self.settings.views)]
        self.lengths = torch.stack([lengths for _, lengths in inputs])
        """int64 (views, n): points that the policy reads of every view of every rewarded sketch."""
        longest = int(self.lengths.max())
        self.points = torch.stack([F.pad(points, (0, 0, 0, longest - points.shape[1])) for points, _ in inputs])
        """float32 (views, n, T, 5): those points, zero-padded."""
        everything = np.arange(len(sketches))
        self.parts = task.folds().parts(sketches) if self.settings.picked_on == "folds" else ()
        """int64 rows of the rewarded sketches in each fold; none where nothing is picked on them."""
        learnt = [everything, *(np.setdiff1d(everything, part) for part in self.parts)]
        self._lessons = [(weight, rows) for rows in learnt for weight in self.settings.cost_weights]
        """Price, and rows that are learnt from, of one policy after another."""
        self.finished: list[CanvasSelector] = []
        self.done = 0
        self._begin()

    @property
    def total(self) -> int:
        """Epochs of all policies."""
        return self.settings.optimization.epochs * len(self._lessons)

    @property
    def policies(self) -> list[CanvasSelector]:
        """The finished ones that have learnt from all, one a price."""
        return self.finished[: len(self.settings.cost_weights)]

    def unseen(self, price: int) -> list[tuple[np.ndarray, CanvasSelector]]:
        """Rows of every fold with the policy of that price that has not learnt from them."""
        prices = len(self.settings.cost_weights)
        return [(rows, self.finished[fold * prices + price]) for fold, rows in enumerate(self.parts, start=1)]

    def _view_input(self, view: int) -> tuple[torch.Tensor, torch.Tensor]:
        views = np.full(len(self.sketches), view)
        drawn = view_sketches(self.task.sketches, self.sketches, views, self.recipe.augmentation, self.recipe.seed)
        settings = self.settings
        return selector_input(drawn, tolerance=settings.tolerance, max_points=settings.max_points)

    def _begin(self) -> None:
        """A fresh policy, the next; all start from the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed * 1000 + 900)
            self.policy = self._new_policy()
        self.optimizer = torch.optim.AdamW(
            self.policy.parameters(),
            lr=self.settings.optimization.learning_rate,
            weight_decay=self.settings.optimization.weight_decay,
        )

    def _new_policy(self) -> CanvasSelector:
        return CanvasSelector(len(self.cost), self.settings.hidden, self.settings.reads)

    def epoch(self, runtime: Runtime) -> dict[str, float]:
        """One pass over the sketches to learn from, each in one of its views; the learner is the runtime's only worker."""
        settings = self.settings
        epochs = settings.optimization.epochs
        lesson, epoch = divmod(self.done, epochs)
        weight, learnt = self._lessons[lesson]
        generator = np.random.default_rng([self.recipe.seed, epoch, 41])
        sampler = torch.Generator().manual_seed(int(generator.integers(2**31)))
        # A policy that leaves half of the sketches out sees the others twice: as many steps as one that sees all.
        passes = round(len(self.sketches) / len(learnt))
        order = np.concatenate([learnt[generator.permutation(len(learnt))] for _ in range(passes)])
        views = generator.integers(0, settings.views, len(order))
        batches = np.array_split(np.arange(len(order)), -(-len(order) // settings.optimization.batch_size))
        self.policy.train()
        sums = {"reward": 0.0, "entropy": 0.0, "cost": 0.0, "reciprocal_rank": 0.0}
        remaining = 1.0 - epoch / epochs
        for group in self.optimizer.param_groups:
            group["lr"] = settings.optimization.learning_rate * max(remaining, 0.05)
        for number, batch in enumerate(batches):
            for ahead in batches[number : number + _AHEAD]:
                self.table.prepare(self.sketches[order[ahead]], views[ahead])
            rows, seen = order[batch], views[batch]
            logits = self.policy(*self._read(rows, seen))
            log_probabilities = logits.log_softmax(dim=1)
            entropy = policy_entropy(logits)
            canvases, shares = self._explored(log_probabilities.detach(), sampler)
            rewards, reciprocal = self._rewards(rows, seen, canvases, weight)
            chosen = log_probabilities.gather(1, canvases)
            if settings.gradient == "expected":
                loss = expected_reward_loss(chosen, rewards)
            else:
                loss = reinforce_loss(chosen.T, rewards.T, leave_one_out_baseline(rewards.T))
            self.optimizer.zero_grad(set_to_none=True)
            (loss - settings.entropy * remaining * entropy).backward()
            runtime.sum_gradients(self.policy.parameters())
            if settings.optimization.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_(self.policy.parameters(), settings.optimization.gradient_clip)
            self.optimizer.step()
            share = len(batch) / len(order)
            weighted = {"reward": rewards, "cost": self.cost[canvases], "reciprocal_rank": reciprocal}
            for key, values in weighted.items():
                sums[key] += share * float((values * shares).sum(dim=1).mean())
            sums["entropy"] += share * float(entropy.detach())
        self.done += 1
        if self.done % epochs == 0:
            self.finished.append(self.policy.eval())
            if self.done < self.total:
                self._begin()
        fold = lesson // len(settings.cost_weights)
        name = f"cost_weight_{weight:g}" + (f"/without_fold_{fold - 1}" if fold else "")
        return {f"{name}/{key}": value for key, value in sums.items()} | {
            "outcomes_known": float(self.table.known),
            "rollout_wait_seconds": self.table.waited,
        }

    def _read(self, rows: np.ndarray, views: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The policy's input for some rows of the rewarded sketches, each in its view."""
        lengths = self.lengths[views, rows]
        return self.points[views, rows, : int(lengths.max())], lengths

    def _explored(
        self, log_probabilities: torch.Tensor, sampler: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Canvases int64 (B, S) that get a reward, and the weight (B, S) of each in the expected figures."""
        probabilities = log_probabilities.exp()
        if self.settings.gradient == "expected":
            return torch.arange(len(self.cost)).expand(len(probabilities), -1), probabilities
        drawn = torch.multinomial(probabilities, self.settings.samples, replacement=True, generator=sampler)
        return drawn, torch.full(drawn.shape, 1.0 / self.settings.samples)

    def _rewards(
        self, rows: np.ndarray, views: np.ndarray, canvases: torch.Tensor, weight: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rewards (B, S) of the canvases (B, S), and the reciprocal ranks behind them."""
        explored = canvases.shape[1]
        request = RolloutRequest(
            np.repeat(self.sketches[rows], explored), np.repeat(views, explored), canvases.reshape(-1).numpy()
        )
        outcome = self.table.lookup(request)
        ranks = torch.from_numpy(outcome.ranks).view_as(canvases)
        rewards = reward(
            ranks,
            torch.from_numpy(outcome.triplets).view_as(canvases),
            self.cost[canvases],
            lambda_flops=weight,
            lambda_rank=self.settings.rank_weight,
            lambda_triplet=self.settings.triplet_weight,
        )
        return rewards, 1.0 / ranks

    def save(self, directory: Path) -> None:
        """Writes a checkpoint with all that a resume needs."""
        state = {
            "done": self.done,
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "finished": [policy.state_dict() for policy in self.finished],
            "outcomes": [torch.from_numpy(column) for column in self.table.outcomes.columns],
        }
        checkpoint.write_checkpoint(
            directory, network=self.policy.state_dict(), config=self.policy.config, metrics={}, state=state
        )

    def restore(self, state: Any) -> None:
        """Goes back to a checkpoint that :meth:`save` wrote."""
        self.done = state["done"]
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        for weights in state["finished"]:
            policy = self._new_policy()
            policy.load_state_dict(weights)
            self.finished.append(policy.eval())
        self.table.outcomes.put(..., RolloutResult(*(column.numpy() for column in state["outcomes"])))
