"""The relational loss and its gradient, panel by panel (see `relational_huber`).

Shapes: B pairs, K canvases, Dt and Ds embedding sizes, R rows of a panel, C columns, N ordered pairs of different
photos.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sketchynet.ops.pairwise_distance import accumulating, distance_gradients, distances, distances_apart


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
    """Tensors are scalars on the device, so that nothing waits for them.

    Gradients are taken times the number of pairs and divided by it in the end.
    """

    teacher: Tensor
    """1 / unit of the teacher's distances."""
    student: Tensor
    share: float
    """Weight of the relation, over the canvases."""
    through_unit: Tensor
    """∂L/∂d by way of the student's unit, for each distance of the pn relation, times pairs."""


class Pull(Protocol):
    """The gradient of a panel's loss, times pairs."""

    def add_rows(self, into: Tensor, times: float = 1.0) -> None:
        """Adds that of the rows to (K, R, Ds)."""

    def add_columns(self, into: Tensor, first: int = 0, times: float = 1.0) -> None:
        """Adds that of the columns from `first` on to (C - first, Ds)."""


class DifferencePull:
    """The gradient from ∂L/∂d and the distances (K, R, C), near pairs from differences."""

    def __init__(self, panel: Panel, grad: Tensor, distance: Tensor) -> None:
        self._panel, self._grad, self._distance = panel, grad, distance

    def add_rows(self, into: Tensor, times: float = 1.0) -> None:
        canvases = zip(into, self._grad, self._panel.student, self._distance, strict=True)
        for part, grad, rows, distance in canvases:
            found = distance_gradients(grad, rows, self._panel.student_columns, distance, of_y=False)[0]
            assert found is not None
            part.add_(found, alpha=times)

    def add_columns(self, into: Tensor, first: int = 0, times: float = 1.0) -> None:
        columns = self._panel.student_columns[first:]
        for grad, rows, distance in zip(self._grad, self._panel.student, self._distance, strict=True):
            found = distance_gradients(grad[:, first:], rows, columns, distance[:, first:], of_x=False)[1]
            assert found is not None
            into.add_(found, alpha=times)


class WeightPull:
    """The gradient as matrix products of weights w = ∂L/∂d / d, (K, R, C)."""

    def __init__(self, panel: Panel, weights: Tensor) -> None:
        self._panel, self._weights = panel, weights

    def add_rows(self, into: Tensor, times: float = 1.0) -> None:
        rows, columns = self._panel.student, self._panel.student_columns
        into.addcmul_(self._weights.sum(dim=2, keepdim=True, dtype=into.dtype), rows, value=times)
        for part, weights in zip(into, self._weights, strict=True):
            part.addmm_(weights, columns, alpha=-times)

    def add_columns(self, into: Tensor, first: int = 0, times: float = 1.0) -> None:
        rows, columns = self._panel.student, self._panel.student_columns[first:]
        for weights, drawn in zip(self._weights[:, :, first:], rows, strict=True):
            into.addcmul_(weights.sum(dim=0, dtype=into.dtype)[:, None], columns, value=times)
            into.addmm_(weights.T, drawn, alpha=-times)


def _different(panel: Panel) -> Tensor:
    return (panel.content[:, None] != panel.content_columns[None, :]).to(panel.student.dtype)


def _sum(values: Tensor, square: int) -> Tensor:
    """Sum over a panel (..., R, C), whose columns from `square` on count twice."""
    return values.sum() + values[..., square:].sum() if square < values.shape[-1] else values.sum()


def distance_sums(panel: Panel) -> Tensor:
    """Sums (2,) of the teacher's and the student's distances over the different pairs of a pn panel."""
    counted = _different(panel)
    target = distances(panel.teacher, panel.teacher_columns).to(counted.dtype)
    distance = distances(panel.student[0], panel.student_columns)
    return torch.stack([_sum(target * counted, panel.square), _sum(distance * counted, panel.square)])


def _huber(target: Tensor, distance: Tensor, scales: Scales, delta: float) -> tuple[Tensor, Tensor]:
    """The differences, and the slope h' of Huber's loss, which is h'·(difference - h'/2)."""
    difference = torch.addcmul(target.to(distance.dtype) * scales.teacher, distance, scales.student, value=-1.0)
    return difference, difference.clamp(-delta, delta)


def huber_panel(panel: Panel, scales: Scales, delta: float, gradients: bool) -> tuple[Tensor, Pull | None]:
    """Sums (2,) of Huber's loss and of h'·d over the panel, and its gradient if asked for."""
    counted = _different(panel)
    target = distances(panel.teacher, panel.teacher_columns)
    found = [distances_apart(rows, panel.student_columns) for rows in panel.student]
    distance = found[0][0][None] if len(found) == 1 else torch.stack([d for d, _ in found])
    difference, slope = _huber(target, distance, scales, delta)
    slope.mul_(counted)
    loss = difference.sub_(slope, alpha=0.5).mul_(slope)
    sums = torch.stack([_sum(loss, panel.square), _sum(torch.mul(slope, distance, out=loss), panel.square)])
    if not gradients:
        return sums, None
    grad = torch.addcmul(scales.through_unit * counted, slope, scales.student, value=-scales.share)
    if all(apart for _, apart in found):
        return sums, WeightPull(panel, grad.div_(distance))
    return sums, DifferencePull(panel, grad, distance)


def _own_photo(
    teacher: tuple[Tensor, Tensor], student: tuple[Tensor, Tensor], scales: Scales, delta: float, gradients: bool
) -> tuple[Tensor, Tensor | None]:
    """The sp relation, row by row and from differences: sums as above, and the gradient (K, B, Ds) of the sketches."""
    target = (teacher[0] - teacher[1]).square().sum(dim=-1).sqrt()
    apart = student[0] - student[1]
    distance = apart.square().sum(dim=-1).sqrt()
    difference, slope = _huber(target, distance, scales, delta)
    sums = torch.stack([(slope * (difference - 0.5 * slope)).sum(), (slope * distance).sum()])
    if not gradients:
        return sums, None
    pull = torch.where(distance > 0, -slope * (scales.share * scales.student) / distance, 0.0)
    return sums, apart * pull[..., None]


def numbered(content: Tensor) -> tuple[Tensor, Tensor]:
    """What photos show, as numbers below B, and how many ordered pairs show different things, float64 ().

    Counted without a wait for the device: those of equal content lie together, sorted.
    """
    ordered = content.sort().values
    content, behind = torch.searchsorted(ordered, content), torch.searchsorted(ordered, content, right=True)
    return content, (len(content) ** 2 - (behind - content).sum()).double()


def relational_panels(
    embeddings: tuple[Tensor, ...],
    content: Tensor,
    relation_weights: tuple[float, ...],
    delta: float,
    normalize: bool,
    gradients: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss with the gradients of student_sketch (K, B, Ds) and student_photo, empty unless asked for.

    Gradients are float32 (float64 of float64), the loss likewise.

    embeddings: teacher_sketch, teacher_photo (B, Dt), student_sketch (K, B, Ds), student_photo (B, Ds).
    """
    ts, tp, ss, sp = (accumulating(t) for t in embeddings)
    (canvases, count, _), device = ss.shape, sp.device
    dtype = sp.dtype
    content, different = numbered(content)
    different = different.to(dtype)
    pair = 1.0 / different.clamp(min=1.0)
    one, zero = torch.ones((), dtype=dtype, device=device), torch.zeros((), dtype=dtype, device=device)
    own_share, cross_share = relation_weights[0] / (canvases * count), relation_weights[1] / canvases
    # As few panels as have together no more elements than the arguments.
    panels = -(-canvases * count * count // sum(t.numel() for t in embeddings))
    rows = max(128, -(-count // (panels * 128)) * 128)
    if device.type == "cpu":
        rows = min(rows, 256)  # panels that stay in the cache, and a triangle that wastes less

    def photo_panels() -> Iterator[tuple[int, int, Panel]]:
        for first in range(0, count, rows):
            last = min(first + rows, count)
            yield first, last, Panel(
                tp[first:last], sp[None, first:last], tp[first:], sp[first:], content[first:last], content[first:],
                last - first,
            )  # fmt: skip

    units = (one, one)
    if normalize:
        total = torch.zeros(2, dtype=dtype, device=device)
        for _, _, panel in photo_panels():
            total += distance_sums(panel)
        means = torch.where(different > 0, total * pair, 1.0).clamp(min=torch.finfo(dtype).tiny)
        units = (1.0 / means[0], 1.0 / means[1])

    sketch_gradient = torch.zeros(ss.shape if gradients else (0,), dtype=dtype, device=device)
    photo_gradient = torch.zeros(sp.shape if gradients else (0,), dtype=dtype, device=device)
    own, pull = _own_photo(
        (ts, tp), (ss, sp), Scales(*units, own_share, zero), delta, gradients
    )
    cross, among = torch.zeros_like(own), torch.zeros_like(own)
    if relation_weights[1] != 0:
        scales = Scales(*units, cross_share, zero)
        for first in range(0, count, rows):
            part = slice(first, first + rows)
            panel = Panel(ts[part], ss[:, part], tp, sp, content[part], content, count)
            found, pulls = huber_panel(panel, scales, delta, gradients)
            cross += found
            if pulls is not None:
                pulls.add_rows(sketch_gradient[:, part])
                pulls.add_columns(photo_gradient)
    if normalize and gradients and relation_weights[2] != 0:
        # What the student's unit does to the loss needs every sum, before the last gradient is taken.
        for _, _, panel in photo_panels():
            among += huber_panel(panel, Scales(*units, relation_weights[2], zero), delta, False)[0]
    through = zero
    if normalize:
        by_unit = own_share * own[1] + (cross_share * cross[1] + relation_weights[2] * among[1]) * pair
        through = torch.where(different > 0, by_unit * units[1].square(), 0.0)
    if relation_weights[2] != 0 or (normalize and gradients):
        scales = Scales(*units, relation_weights[2], through)
        among = torch.zeros_like(own)
        for first, last, panel in photo_panels():
            found, pulls = huber_panel(panel, scales, delta, gradients)
            among += found
            if pulls is not None:
                # The relation is symmetric and both orders count: a row is pulled twice by every column, and a
                # column past the panel's square likewise by every row.
                pulls.add_rows(photo_gradient[None, first:last], times=2.0)
                if last < count:
                    pulls.add_columns(photo_gradient[last:], last - first, times=2.0)
    loss = own_share * own[0] + (cross_share * cross[0] + relation_weights[2] * among[0]) * pair
    if pull is not None:
        sketch_gradient.mul_(pair).add_(pull)
        photo_gradient.mul_(pair).sub_(pull.sum(dim=0))
    return loss, sketch_gradient, photo_gradient
