"""Which trained policy is used, and where it draws the line: settled on drawings that were held out.

These are the drawings of the validation split, answered by SketchyNetV1; or all that give rewards, each answered by
the student that was not fitted on it, and given a canvas by the policy that learnt nothing from its fold.

Shapes: n drawings, K canvases, T points.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sketchynet import checkpoint
from sketchynet.config import SelectorConfig
from sketchynet.errors import InputError
from sketchynet.flops import embedder_flops, selector_flops
from sketchynet.models.embedder import Embedder
from sketchynet.models.selector import CanvasSelector, selector_input
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.task import VALIDATION, Answers, Task


def shifted(policy: CanvasSelector, cost: torch.Tensor, shift: float) -> CanvasSelector:
    """The policy with ``shift`` times the cost taken off its logits: what it would choose at another price.

    Which sketches deserve a larger canvas is what the policy has learnt; where to draw the line is calibrated
    afterwards, in the bias of its linear layer, so that it costs nothing.

    Args:
        cost: float32 (K,), FLOPs of every canvas as a share of the largest.
    """
    calibrated = copy.deepcopy(policy)
    with torch.no_grad():
        calibrated.head.bias.sub_(shift * cost)
    return calibrated


def pick(candidates: list[dict[str, float]], full: dict[str, float], settings: SelectorConfig) -> int:
    """Number of the candidate that is used, by its figures on held-out drawings.

    With a budget: of the policies calibrated to spend it, the one of the highest MRR, whose noise is less than that of
    Acc@1. A cheaper policy that looks as good there mostly looks so by chance: what may be spent is spent.
    Without a budget: the cheapest one whose Acc@1 is within tolerance of the largest canvas; where none is, the most
    accurate one, among equals the cheaper.

    Args:
        candidates: ``acc1`` in [0, 1], ``mrr`` and ``gflops`` of each, and of the calibrated ones the ``share``.
        full: Acc@1 and GFLOPs of the student at its largest canvas.

    Raises:
        InputError: none is calibrated to the budget.
    """
    order = range(len(candidates))
    if settings.budget is not None:
        spending = [i for i in order if candidates[i].get("share") == settings.budget]
        if not spending:
            raise InputError(f"no policy was calibrated to a share of {settings.budget:g} of the FLOPs: train the selector anew")
        return max(spending, key=lambda i: (candidates[i]["mrr"], -candidates[i]["gflops"]))
    floor = full["acc1"] - settings.tolerated_loss / 100
    good = [i for i in order if candidates[i]["acc1"] >= floor - 1e-9]
    if good:
        return min(good, key=lambda i: (candidates[i]["gflops"], -candidates[i]["acc1"]))
    return max(order, key=lambda i: (candidates[i]["acc1"], -candidates[i]["gflops"]))


@dataclass(frozen=True)
class HeldOut:
    """Drawings with the answers to them at every canvas: all that a choice can lead to."""

    sketches: np.ndarray
    """int64 (n,): their numbers, ascending."""
    points: torch.Tensor
    """float32 (n, T, 5): what a policy reads of them."""
    lengths: torch.Tensor
    """int64 (n,)."""
    answers: Answers
    canvases: tuple[int, ...]
    flops: np.ndarray
    """float64 (K,): FLOPs of the student at every canvas."""

    @classmethod
    def of(cls, task: Task, student: Embedder, sketches: np.ndarray, answers: Answers) -> HeldOut:
        """Some drawings of a task with the answers to them; FLOPs are those of SketchyNetV1."""
        settings = task.recipe.selector
        drawn = task.sketches.select(sketches)
        read = selector_input(drawn, tolerance=settings.tolerance, max_points=settings.max_points)
        flops = np.array([embedder_flops(student, size) for size in student.canvases], dtype=np.float64)
        return cls(sketches, *read, answers, student.canvases, flops)

    @classmethod
    def validation(cls, task: Task, student: Embedder) -> HeldOut:
        """The validation split, answered by SketchyNetV1."""
        answers = task.answers(student, VALIDATION, student.canvases, task.recipe.student.gallery_sizes)
        return cls.of(task, student, task.indices(VALIDATION), answers)

    @classmethod
    def read(cls, task: Task, folder: RunFolder, student: Embedder) -> HeldOut:
        """What a finished run picked its policy on."""
        if task.recipe.selector.picked_on == "validation":
            return cls.validation(task, student)
        if not checkpoint.is_complete(folder.fold_answers):
            stage = folder.fold_answers.parent
            raise InputError(f"{folder.fold_answers} is missing: remove {stage}, then resume the run to train its policy anew")
        tables = checkpoint.read_network(folder.fold_answers)
        sketches, ranks, clearness = (tables[name].numpy() for name in ("sketches", "ranks", "clearness"))
        return cls.of(task, student, sketches, Answers(ranks, clearness))

    def write(self, folder: RunFolder) -> None:
        """Keeps answers that the networks of a finished run alone do not give again."""
        tables = {"sketches": self.sketches, "ranks": self.answers.ranks, "clearness": self.answers.clearness}
        network = {name: torch.from_numpy(table) for name, table in tables.items()}
        checkpoint.write_checkpoint(folder.fold_answers, network=network, config={}, metrics={})

    @property
    def cost(self) -> torch.Tensor:
        """float32 (K,): FLOPs of every canvas as a share of the largest."""
        return torch.from_numpy(self.flops / self.flops[-1]).float()

    @property
    def full(self) -> dict[str, float]:
        """Acc@1 in [0, 1] and GFLOPs of the largest canvas."""
        return {"acc1": float((self.answers.ranks[:, -1] == 1).mean()), "gflops": float(self.flops[-1] / 1e9)}

    def logits(self, policy: CanvasSelector, rows: np.ndarray | None = None) -> np.ndarray:
        """What a policy makes of the drawings, or of some of them: float64 (n, K)."""
        policy.eval()
        place = slice(None) if rows is None else torch.from_numpy(rows)
        with torch.no_grad():
            return policy(self.points[place], self.lengths[place]).double().numpy()

    def candidates(
        self, policy: CanvasSelector, settings: SelectorConfig, unseen: Sequence[tuple[np.ndarray, CanvasSelector]] = ()
    ) -> list[dict[str, float]]:
        """Figures of a policy as it is, and calibrated to every ``share`` of the FLOPs and to the budget.

        Args:
            unseen: where the policy has learnt from these very drawings, rows of each part of them with a policy trained
                at the same price that has not. The figures are then those of all parts, each calibrated to the share by
                itself; a ``shift`` is the policy's own, which takes no answer.
        """
        own = self.logits(policy)
        judged = [(rows, self.logits(like, rows)) for rows, like in unseen] or [(np.arange(len(self.sketches)), own)]
        read = float(np.mean([selector_flops(policy, int(n)) for n in self.lengths]))
        found = [{"shift": 0.0} | self._figures(self._chosen(judged, read, None), read)]
        for share in sorted({*settings.shares, *([] if settings.budget is None else [settings.budget])}):
            shift = self._shift_to(share, own, read)
            found.append({"share": share, "shift": shift} | self._figures(self._chosen(judged, read, share), read))
        return found

    def _chosen(self, judged: list[tuple[np.ndarray, np.ndarray]], read: float, share: float | None) -> np.ndarray:
        """int64 (n,): canvases by the logits of all parts, as they are or each calibrated to a share of the FLOPs."""
        chosen = np.zeros(len(self.sketches), dtype=np.int64)
        for rows, logits in judged:
            chosen[rows] = self._choices(0.0 if share is None else self._shift_to(share, logits, read), logits)
        return chosen

    def _choices(self, shift: float, logits: np.ndarray) -> np.ndarray:
        return (logits - shift * self.flops / self.flops[-1]).argmax(axis=1)

    def _shift_to(self, share: float, logits: np.ndarray, own: float) -> float:
        """The smallest shift (to 1e-3, within ±64) at which a query costs that share of the FLOPs or less.

        The cost falls as the shift grows: taking more off the dearer canvases never makes one of them win.
        """
        low, high = -64.0, 64.0
        while high - low > 1e-3:
            middle = (low + high) / 2
            if self.flops[self._choices(middle, logits)].mean() + own <= share * self.flops[-1]:
                high = middle
            else:
                low = middle
        return high

    def _figures(self, chosen: np.ndarray, own: float) -> dict[str, float]:
        """Acc@1, MRR, GFLOPs a query and share of every canvas."""
        ranks = self.answers.ranks[np.arange(len(self.answers.ranks)), chosen]
        shares = np.bincount(chosen, minlength=len(self.canvases)) / len(ranks)
        figures = {
            "acc1": float((ranks == 1).mean()),
            "mrr": float((1.0 / ranks).mean()),
            "gflops": float((self.flops[chosen].mean() + own) / 1e9),
        }
        return figures | {f"share_{size}": float(s) for size, s in zip(self.canvases, shares, strict=True)}
