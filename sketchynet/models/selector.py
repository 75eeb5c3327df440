"""The canvas selector: a recurrent policy over the vector sketch (paper: SketchyNetV2).

Shapes: B batch, T points, K canvases, H hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sketchynet.errors import InputError
from sketchynet.raster import simplify
from sketchynet.sketch import SketchBatch

POINT_FEATURES = 5
STATISTICS = 6
READS = ("points", "statistics", "both", "ink")
INK_CELLS = 8
"""The ink map has so many cells a side."""
INK_SAMPLES = 8
"""Places of a segment whose ink goes to the map."""
_BESIDE = 16  # units that read the statistics beside a GRU


def stroke_statistics(points: Tensor, lengths: Tensor) -> Tensor:
    """What can be said of a drawing without reading it in order: float (B, 6), each of order one.

    Logarithms of the numbers of points and strokes, of the length of ink and of ink a stroke, width and height of the
    box around all points; of the selector's own input, (B, T, 5) and int64 (B,).
    """
    inside = torch.arange(points.shape[1], device=points.device) < lengths.to(points.device)[:, None]
    place, down, up = points[..., :2], points[..., 2], points[..., 3]
    steps = (place[:, 1:] - place[:, :-1]).square().sum(dim=2).sqrt()
    # The pen state of a point is that behind it: "down" leads to the next point of the stroke.
    ink = (steps * down[:, :-1] * inside[:, 1:]).sum(dim=1)
    strokes = 1.0 + (up * inside).sum(dim=1)
    low = place.masked_fill(~inside[..., None], float("inf")).amin(dim=1)
    high = place.masked_fill(~inside[..., None], float("-inf")).amax(dim=1)
    count = lengths.to(points)
    counted = [count.log() - 3.0, strokes.log() - 1.5, ink.log1p() - 1.5, 3.0 * (ink / strokes).log1p() - 1.0]
    return torch.cat([torch.stack(counted, dim=1), 2.0 * (high - low) - 1.5], dim=1)


def ink_map(points: Tensor, lengths: Tensor) -> Tensor:
    """How much ink lies where: float (B, INK_CELLS²), row by row, of the selector's own input, (B, T, 5) and int64 (B,).

    A value is log(1 + 4 · length), the length of the strokes in sides of a cell. Evenly spaced places of a segment
    share its length, each between the four cells whose middles are nearest; what lies outside of the frame counts
    at its border. Says what is drawn, roughly, where the statistics say how much of it.
    """
    inside = torch.arange(points.shape[1], device=points.device) < lengths.to(points.device)[:, None]
    start, step = points[:, :-1, :2], points[:, 1:, :2] - points[:, :-1, :2]
    # The pen state of a point is that behind it: "down" leads to the next point of the stroke.
    length = step.square().sum(dim=2).sqrt() * points[:, :-1, 2] * inside[:, 1:]
    share = (torch.arange(INK_SAMPLES, device=points.device, dtype=points.dtype) + 0.5) / INK_SAMPLES
    place = start[:, :, None] + share[:, None] * step[:, :, None]  # (B, T - 1, samples, 2)
    place = (place * INK_CELLS - 0.5).clamp(0.0, INK_CELLS - 1.0)
    first = place.floor().clamp(max=INK_CELLS - 2.0)
    right, below = (place - first).unbind(dim=-1)
    cell = (first[..., 1] * INK_CELLS + first[..., 0]).long()
    ink = (length * (INK_CELLS / INK_SAMPLES))[:, :, None]
    found = points.new_zeros(len(points), INK_CELLS**2)
    for down, vertical in ((0, 1.0 - below), (1, below)):
        for across, horizontal in ((0, 1.0 - right), (1, right)):
            weight = ink * vertical * horizontal
            found.scatter_add_(1, (cell + down * INK_CELLS + across).flatten(1), weight.flatten(1))
    return (4.0 * found).log1p()


class CanvasSelector(nn.Module):
    """One-layer GRU over (x, y, pen down, pen up, end), last hidden state, linear layer (the paper).

    Hidden 128 and four canvases give 52,356 parameters. `reads` "statistics" is a perceptron over `stroke_statistics`
    with so many hidden units instead, "ink" one over them and the `ink_map`, "both" the GRU with 16 units over the
    statistics beside its state.
    """

    def __init__(self, num_canvases: int = 4, hidden: int = 128, reads: str = "points") -> None:
        super().__init__()
        if num_canvases < 1 or hidden < 1:
            raise InputError(f"num_canvases {num_canvases} and hidden {hidden} must both be at least 1")
        if reads not in READS:
            raise InputError(f"reads {reads!r} is unknown: choose one of {', '.join(READS)}")
        self.num_canvases = num_canvases
        self.reads = reads
        self.hidden = hidden
        self.config: dict[str, Any] = {
            "kind": "selector", "num_canvases": num_canvases, "hidden": hidden, "reads": reads
        }
        self.gru = nn.GRU(POINT_FEATURES, hidden, batch_first=True) if reads in ("points", "both") else None
        beside = {"points": 0, "statistics": hidden, "both": _BESIDE, "ink": hidden}[reads]
        self.counted = nn.Linear(STATISTICS + (INK_CELLS**2 if reads == "ink" else 0), beside) if beside else None
        self.head = nn.Linear((hidden if self.gru is not None else 0) + beside, num_canvases)

    def forward(self, points: Tensor, lengths: Tensor) -> Tensor:
        """Map points, float (B, T, 5), and their true lengths, int64 (B,) in 1..T, to logits (B, K)."""
        if points.ndim != 3 or points.shape[-1] != POINT_FEATURES:
            raise InputError(f"selector points are float (B, T, 5); got shape {tuple(points.shape)}")
        counts = lengths.cpu()
        if counts.shape != points.shape[:1] or bool(((counts < 1) | (counts > points.shape[1])).any()):
            raise InputError(f"selector lengths must be {len(points)} of 1..{points.shape[1]}; got {counts}")
        read = []
        if self.gru is not None:
            # The state behind a sequence's own last point: what a forward GRU reads later, padding, cannot change it.
            # Packed sequences give the same bits at half the speed.
            states = self.gru(points)[0]
            read.append(states[torch.arange(len(points), device=points.device), lengths.to(points.device) - 1])
        if self.counted is not None:
            known = [stroke_statistics(points, lengths)] + ([ink_map(points, lengths)] if self.reads == "ink" else [])
            read.append(self.counted(torch.cat(known, dim=1)).relu())
        return self.head(torch.cat(read, dim=1) if len(read) > 1 else read[0])


def _shorten(batch: SketchBatch, tolerance: float, max_points: int) -> SketchBatch:
    """Simplify with `tolerance`, doubled for as long as a sketch keeps more than `max_points` points."""
    parts = [batch[i] for i in range(len(batch))]
    waiting = np.arange(len(batch))
    while len(waiting) > 0:
        simplified = simplify(SketchBatch.from_sketches([parts[i] for i in waiting]), tolerance)
        for row, i in enumerate(waiting):
            parts[i] = simplified[row]
        waiting = np.array([i for i in waiting if parts[i].num_points > max_points], dtype=np.int64)
        if tolerance >= 1.0:
            break  # every stroke is down to its ends
        tolerance = min(1.0, max(2.0 * tolerance, 1e-3))
    return SketchBatch.from_sketches(parts)


def selector_input(batch: SketchBatch, *, tolerance: float, max_points: int) -> tuple[Tensor, Tensor]:
    """Turn sketches into the selector's input: points float32 (B, T, 5), zero-padded, and lengths (B,).

    A row is x, y in the unit frame and the one-hot pen state behind that point: down (the stroke goes on),
    up (it ends) or end (the sketch ends). Douglas-Peucker with `tolerance` (unit frame) shortens the sketch;
    where more than `max_points` remain the tolerance doubles until they fit, and of a sketch of very many
    strokes, whose ends alone are too many, evenly spaced points are kept.
    """
    if tolerance < 0 or max_points < 2:
        raise InputError(f"tolerance {tolerance} must not be negative and max_points {max_points} at least 2")
    short = _shorten(batch, tolerance, max_points)
    rows = []
    for i in range(len(short)):
        sketch = short[i]
        row = np.zeros((sketch.num_points, POINT_FEATURES), dtype=np.float32)
        row[:, :2] = sketch.points
        row[:, 2] = 1.0
        row[sketch.stroke_offsets[1:] - 1, 2:4] = (0.0, 1.0)
        if len(row) > max_points:
            row = row[np.linspace(0, len(row) - 1, max_points).round().astype(np.int64)]
        row[-1, 2:] = (0.0, 0.0, 1.0)
        rows.append(torch.from_numpy(row))
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths
