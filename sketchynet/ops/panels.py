"""The relational loss and its gradient, panel by panel (see `relational_huber`).

Shapes: B pairs, K canvases, Dt and Ds embedding sizes, R rows of a panel, C columns, N ordered pairs of different
photos.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sketchynet.ops.pairwise_distance import accumulating, distance_gradients, distances


@dataclass(frozen=True)
class Panel:
    """R rows of one relation: teacher rows (R, Dt) and student rows (K, R, Ds) against columns (C, Dt), (C, Ds)."""

    teacher: Tensor
    student: Tensor
    teacher_columns: Tensor
    student_columns: Tensor
    content: Tensor
    """int64 (R,): numbers below B of what the photos show."""
    content_columns: Tensor
    """int64 (C,)."""
    square: int
    """Columns from here on count twice: their pairs stand for both orders."""


@dataclass(frozen=True)
class Scales:
    """Scalars on the device, so that nothing waits for them: distances are multiplied by 1 / unit."""

    teacher: Tensor
    student: Tensor
    share: Tensor
    """Weight of the relation over its number of pairs."""
    through_unit: Tensor
    """∂L/∂d by way of the student's unit, for each distance of the pn relation."""
    pair: Tensor
    """1 / number of pairs: the size of the two above, which half precision could not hold."""


class Pull(Protocol):
    """The gradient of a panel's loss."""

    def rows(self) -> Tensor:
        """Of the rows: (K, R, Ds)."""

    def columns(self, first: int = 0) -> Tensor:
        """Of the columns from `first` on: (C - first, Ds)."""


class DifferencePull:
    """The gradient from ∂L/∂d and the distances (K, R, C), near pairs from differences."""

    def __init__(self, panel: Panel, grad: Tensor, distance: Tensor) -> None:
        self._panel, self._grad, self._distance = panel, grad, distance

    def rows(self) -> Tensor:
        found = [
            distance_gradients(grad, rows, self._panel.student_columns, distance, of_y=False)[0]
            for grad, rows, distance in zip(self._grad, self._panel.student, self._distance, strict=True)
        ]
        return torch.stack([f for f in found if f is not None])

    def columns(self, first: int = 0) -> Tensor:
        columns = self._panel.student_columns[first:]
        total = torch.zeros_like(columns)
        for grad, rows, distance in zip(self._grad, self._panel.student, self._distance, strict=True):
            found = distance_gradients(grad[:, first:], rows, columns, distance[:, first:], of_x=False)[1]
            if found is not None:
                total += found
        return total


def distance_sums_eager(panel: Panel) -> Tensor:
    """Sums (2,) of the teacher's and the student's distances over the different pairs of a pn panel."""
    counted = (panel.content[:, None] != panel.content_columns[None, :]).to(panel.student.dtype)
    counted[:, panel.square :] *= 2.0
    target = distances(panel.teacher, panel.teacher_columns).to(counted.dtype)
    return torch.stack([(target * counted).sum(), (distances(panel.student[0], panel.student_columns) * counted).sum()])


def _huber(target: Tensor, distance: Tensor, scales: Scales, delta: float) -> tuple[Tensor, Tensor]:
    """Huber's loss of each difference and its slope h'."""
    difference = target.to(distance.dtype) * scales.teacher - distance * scales.student
    size = difference.abs()
    loss = torch.where(size <= delta, 0.5 * difference.square(), delta * (size - 0.5 * delta))
    return loss, difference.clamp(-delta, delta)


def huber_panel_eager(
    panel: Panel, scales: Scales, delta: float, gradients: bool
) -> tuple[Tensor, DifferencePull | None]:
    """Sums (2,) of Huber's loss and of h'·d over the panel, and its gradient if asked for."""
    counted = (panel.content[:, None] != panel.content_columns[None, :]).to(panel.student.dtype)
    twice = counted.clone()
    twice[:, panel.square :] *= 2.0
    target = distances(panel.teacher, panel.teacher_columns)
    distance = torch.stack([distances(rows, panel.student_columns) for rows in panel.student])
    loss, slope = _huber(target, distance, scales, delta)
    sums = torch.stack([(loss * twice).sum(), (slope * distance * twice).sum()])
    if not gradients:
        return sums, None
    grad = (scales.through_unit - slope * (scales.share * scales.student)) * counted
    return sums, DifferencePull(panel, grad, distance)


def _own_photo(
    teacher: tuple[Tensor, Tensor], student: tuple[Tensor, Tensor], scales: Scales, delta: float, gradients: bool
) -> tuple[Tensor, Tensor | None]:
    """The sp relation, row by row and from differences: sums as above, and the gradient (K, B, Ds) of the sketches."""
    target = (teacher[0] - teacher[1]).square().sum(dim=-1).sqrt()
    apart = student[0] - student[1]
    distance = apart.square().sum(dim=-1).sqrt()
    loss, slope = _huber(target, distance, scales, delta)
    sums = torch.stack([loss.sum(), (slope * distance).sum()])
    if not gradients:
        return sums, None
    pull = torch.where(distance > 0, -slope * (scales.share * scales.student) / distance, 0.0)
    return sums, apart * pull[..., None]


def _weighted(shares: list[Tensor], sums: list[Tensor], which: int) -> Tensor:
    return torch.stack([share * found[which] for share, found in zip(shares, sums, strict=True)]).sum()


def relational_panels(
    embeddings: tuple[Tensor, ...],
    content: Tensor,
    relation_weights: tuple[float, ...],
    delta: float,
    normalize: bool,
    gradients: bool,
    triton: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss with the gradients of student_sketch (K, B, Ds) and student_photo, empty unless asked for.

    All are float32 (float64 of float64): a loss scale that multiplies them later saves what float16 would flush.

    embeddings: teacher_sketch, teacher_photo (B, Dt), student_sketch (K, B, Ds), student_photo (B, Ds).
    """
    sum_distances: Callable[[Panel], Tensor] = distance_sums_eager
    huber_panel: Callable[[Panel, Scales, float, bool], tuple[Tensor, Pull | None]] = huber_panel_eager
    if triton:
        from sketchynet.ops.kernels.relational_huber import distance_sums_triton, huber_panel_triton

        sum_distances, huber_panel = distance_sums_triton, huber_panel_triton
    else:
        embeddings = tuple(accumulating(t) for t in embeddings)
    ts, tp, ss, sp = embeddings
    (canvases, count, _), device = ss.shape, sp.device
    dtype = torch.float64 if sp.dtype == torch.float64 else torch.float32
    # Pairs of different photos, counted without a wait for the device: those of equal content lie together, sorted.
    ordered = content.sort().values
    content, behind = torch.searchsorted(ordered, content), torch.searchsorted(ordered, content, right=True)
    different = (count * count - (behind - content).sum()).to(dtype)
    one, zero = torch.ones((), dtype=dtype, device=device), torch.zeros((), dtype=dtype, device=device)
    negatives = different.clamp(min=1.0)
    share = [
        one * (relation_weights[0] / (canvases * count)),
        relation_weights[1] / (canvases * negatives),
        relation_weights[2] / negatives,
    ]
    elements = sum(t.numel() for t in embeddings)
    rows = max(128, elements // (2 * max(1, canvases) * count) // 128 * 128)

    def photo_panels() -> Iterator[tuple[int, int, Panel]]:
        for first in range(0, count, rows):
            last = min(first + rows, count)
            yield first, last, Panel(
                tp[first:last], sp[None, first:last], tp[first:], sp[first:], content[first:last], content[first:],
                last - first,
            )  # fmt: skip

    units = [one, one]
    if normalize:
        total = torch.zeros(2, dtype=dtype, device=device)
        for _, _, panel in photo_panels():
            total += sum_distances(panel)
        means = torch.where(different > 0, total / negatives, 1.0).clamp(min=torch.finfo(dtype).tiny)
        units = [1.0 / means[0], 1.0 / means[1]]
    scales = [Scales(units[0], units[1], s, zero, 1.0 / negatives) for s in share]

    sketch_gradient = torch.zeros(ss.shape if gradients else (0,), dtype=dtype, device=device)
    photo_gradient = torch.zeros(sp.shape if gradients else (0,), dtype=dtype, device=device)
    own, pull = _own_photo(
        (accumulating(ts), accumulating(tp)), (accumulating(ss), accumulating(sp)), scales[0], delta, gradients
    )
    sums = [own, torch.zeros_like(own), torch.zeros_like(own)]
    if pull is not None:
        sketch_gradient += pull
        photo_gradient -= pull.sum(dim=0)

    if relation_weights[1] != 0:
        for first in range(0, count, rows):
            part = slice(first, first + rows)
            panel = Panel(ts[part], ss[:, part], tp, sp, content[part], content, count)
            found, pulls = huber_panel(panel, scales[1], delta, gradients)
            sums[1] = sums[1] + found
            if pulls is not None:
                sketch_gradient[:, part] += pulls.rows()
                photo_gradient += pulls.columns()
    if normalize and gradients and relation_weights[2] != 0:
        # What the student's unit does to the loss needs every sum, before the last gradient is taken.
        for _, _, panel in photo_panels():
            sums[2] = sums[2] + huber_panel(panel, scales[2], delta, False)[0]
    by_unit = _weighted(share, sums, 1) * units[1].square()
    through = torch.where(different > 0, by_unit / negatives, 0.0) if normalize else zero
    if relation_weights[2] != 0 or (normalize and gradients):
        scale = Scales(units[0], units[1], share[2], through, 1.0 / negatives)
        sums[2] = torch.zeros_like(own)
        for first, last, panel in photo_panels():
            found, pulls = huber_panel(panel, scale, delta, gradients)
            sums[2] = sums[2] + found
            if pulls is not None:
                # The relation is symmetric and both orders count: a row is pulled twice by every column, and a
                # column past the panel's square likewise by every row.
                photo_gradient[first:last] += 2.0 * pulls.rows()[0]
                if last < count:
                    photo_gradient[last:] += 2.0 * pulls.columns(last - first)
    return _weighted(share, sums, 0), sketch_gradient, photo_gradient
