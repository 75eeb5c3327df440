"""Early exit: a small canvas first, and a larger one where the network's answer was not clear.

The rival of a policy that looks at the strokes: it looks at the answer, and pays for both canvases where it goes on.
(A retrieval searches its gallery twice then, which the FLOPs leave out as they do everywhere.)

Shapes: n sketches, K canvases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class EarlyExit:
    """Two canvases and how clear the answer at the first must be to stand."""

    first: int
    """Index of the canvas that every sketch is drawn at."""
    then: int
    """Index of the one that it is drawn at again; the first where none is."""
    threshold: float
    """Answers less clear than this are asked for again."""

    def goes_on(self, clearness: np.ndarray) -> np.ndarray:
        """bool (n,), given the clearness float64 (n, K) of the answers."""
        return clearness[:, self.first] < self.threshold

    def choices(self, clearness: np.ndarray) -> np.ndarray:
        """int64 (n,): index of the canvas whose answer stands."""
        return np.where(self.goes_on(clearness), self.then, self.first)

    def carried(self, clearness: np.ndarray, other: np.ndarray) -> EarlyExit:
        """The exit for another network, whose answers may be clearer: as large a share of its sketches goes on.

        Args:
            clearness: float64 (n, K) of the answers that the exit was tuned on.
            other: float64 (m, K) of the other network's answers.
        """
        share = float(self.goes_on(clearness).mean())
        inner = float(np.quantile(other[:, self.first], share))
        threshold = 0.0 if share == 0.0 else float(np.nextafter(1.0, 2.0)) if share == 1.0 else inner
        return replace(self, threshold=threshold)

    def cost(self, clearness: np.ndarray, flops: np.ndarray) -> np.ndarray:
        """float64 (n,): FLOPs of every sketch, given those of the canvases (K,)."""
        return flops[self.first] + self.goes_on(clearness) * flops[self.then]

    def described(self, sizes: tuple[int, ...]) -> dict[str, object]:
        """As JSON can hold it."""
        return {"first": sizes[self.first], "then": sizes[self.then], "threshold": self.threshold}


def tune_exit(clearness: np.ndarray, ranks: np.ndarray, flops: np.ndarray, budget: float) -> EarlyExit:
    """The early exit with the best Acc@1 (then MRR) that costs at most ``budget`` FLOPs on average.

    Of every two canvases the least clear answers are asked for again, as many as the budget pays for; one canvas alone
    is tried too.

    Args:
        clearness: float64 (n, K) of the answers to held-out sketches.
        ranks: int64 (n, K) of the same answers.
        flops: float64 (K,), ascending.
    """
    found = EarlyExit(0, 0, 0.0)
    best = (-1.0, 0.0)
    rows = np.arange(len(ranks))
    for first in range(len(flops)):
        for then in range(first, len(flops)):
            if flops[first] > budget:
                continue
            paid = int((budget - flops[first]) / flops[then] * len(ranks)) if then > first else 0
            least = np.sort(clearness[:, first])
            # Below this lie at most as many as are paid for; equal ones stay together.
            threshold = float(least[min(paid, len(least) - 1)]) if paid else 0.0
            candidate = EarlyExit(first, then, threshold)
            chosen = ranks[rows, candidate.choices(clearness)]
            # Equal means may differ in their last bits, by the order in which a processor adds.
            score = float((chosen == 1).mean()), round(float((1.0 / chosen).mean()), 12)
            if score > best:
                best, found = score, candidate
    return found
