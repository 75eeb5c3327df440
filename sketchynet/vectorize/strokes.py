"""Tracing strokes through the junctions of a skeleton graph, and smoothing them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sketchynet.vectorize.graph import Graph

End = tuple[int, int]
"""A branch end: (branch, 0) its first point, (branch, 1) its last."""

NOTHING = np.empty((0, 2))

CORNER_ARM = 5
"""Pixels on either side over which the turn at a corner is measured."""

CORNER_TURN = math.radians(60.0)
"""Turn from which a bend is a corner that smoothing keeps."""


@dataclass(frozen=True, eq=False)
class Pairing:
    """Which branches are one pen movement.

    links: from a branch end to the end it continues in and the points (M, 2) passed on the way; holds every
    pair in both directions.  bridges: branches that are no strokes of their own, but the way of two links.
    """

    links: dict[End, tuple[End, np.ndarray]]
    bridges: frozenset[int]


def pair_branches(graph: Graph, *, lookahead: float, max_turn: float) -> Pairing:
    """Pair the branches at every junction by continuity of direction, straightest pairs first.

    lookahead: pixels over which a branch's direction is measured.  max_turn: largest turn, in radians, that
    counts as going on; where only two branches meet there is no choice and they are joined at any angle.
    """
    joined = [ends for ends in graph.at_node.values() if len(ends) > 1]
    directions = {end: _direction(graph, end, lookahead) for ends in joined for end in ends}
    links, bridges = _share_bridges(graph, directions, max_length=5.0 * lookahead, max_turn=max_turn / 2)
    for ends in joined:
        free = [end for end in ends if end not in links and end[0] not in bridges]
        couples = itertools.combinations(free, 2)
        turns = sorted((_turn(directions[a], directions[b]), a, b) for a, b in couples)
        for turn, a, b in turns:
            if a not in links and b not in links and (turn <= max_turn or len(ends) == 2):
                links[a], links[b] = (b, NOTHING), (a, NOTHING)
    return Pairing(links, frozenset(bridges))


def _direction(graph: Graph, end: End, lookahead: float) -> np.ndarray:
    """Unit vector (2,) in which a branch leaves its node, measured beyond the zone where skeletons bend."""
    branch = graph.branches[end[0]]
    points = branch.points if end[1] == 0 else branch.points[::-1]
    skip = min(int(graph.half_width[branch.nodes[end[1]]]), (len(points) - 1) // 2)
    vector = points[min(skip + round(lookahead), len(points) - 1)] - points[skip]
    norm = float(np.hypot(*vector))
    return vector / norm if norm > 0 else np.zeros(2)


def _turn(a: np.ndarray, b: np.ndarray) -> float:
    """Angle in radians by which a pen turns that arrives along a and leaves along b (both point away)."""
    return float(np.arccos(np.clip(-(a @ b), -1.0, 1.0)))


def _share_bridges(
    graph: Graph, directions: dict[End, np.ndarray], *, max_length: float, max_turn: float
) -> tuple[dict[End, tuple[End, np.ndarray]], set[int]]:
    """Links and bridges of crossings at a small angle, where two lines run over one common branch."""
    links: dict[End, tuple[End, np.ndarray]] = {}
    bridges: set[int] = set()
    for number, branch in graph.branches.items():
        u, v = branch.nodes
        if u < 0 or u == v or branch.length > max_length:
            continue
        left = [end for end in graph.at_node[u] if end[0] != number]
        right = [end for end in graph.at_node[v] if end[0] != number]
        arms = [*left, *right]
        if len(left) != 2 or len(right) != 2 or any(end in links or end[0] in bridges for end in arms):
            continue
        # Two arms that would go straight into each other are one line, which the bridge merely touches.
        if min(_turn(directions[a], directions[b]) for a, b in (left, right)) < 2.0 * max_turn:
            continue
        worst, c, d = min(
            (max(_turn(directions[left[0]], directions[c]), _turn(directions[left[1]], directions[d])), c, d)
            for c, d in (right, right[::-1])
        )
        if worst <= max_turn:
            bridges.add(number)
            for a, b in ((left[0], c), (left[1], d)):
                links[a], links[b] = (b, branch.points), (a, branch.points[::-1])
    return links, bridges


def trace(graph: Graph, pairing: Pairing) -> list[tuple[np.ndarray, bool]]:
    """Join paired branches into strokes: a list of (points float64 (N, 2), closed).

    A closed stroke does not repeat its first point.
    """
    whole = [number for number in sorted(graph.branches) if number not in pairing.bridges]
    is_ring = {number: graph.branches[number].nodes[0] < 0 for number in whole}
    open_ends = [(n, s) for n in whole for s in (0, 1) if not is_ring[n] and (n, s) not in pairing.links]
    done: set[int] = set()
    strokes = []
    # Strokes with open ends first; what is left are rings and loops that pairing has closed.
    for start in [*open_ends, *((n, 0) for n in whole)]:
        if start[0] in done:
            continue
        pieces = []
        end: End = start
        while end[0] not in done:
            done.add(end[0])
            pieces.append(_passage(graph, end, pairing))
            out = (end[0], 1 - end[1])
            if out not in pairing.links:
                break
            end, way = pairing.links[out]
            pieces.append(way)
        strokes.append((np.concatenate(pieces), is_ring[start[0]] or start in pairing.links))
    return strokes


def _passage(graph: Graph, end: End, pairing: Pairing) -> np.ndarray:
    """A branch's points in drawing order, entered at `end`.

    Where the stroke runs on through a junction, the points within half a line width of it are left out: the
    skeleton bends there towards the other lines, the pen did not.  A stroke that stops at a junction keeps
    them and so touches the line it was drawn up to.
    """
    branch = graph.branches[end[0]]
    points = branch.points if end[1] == 0 else branch.points[::-1]
    if branch.nodes[0] < 0:
        return points[:-1]
    first, last = 0, len(points)
    for side in (0, 1):
        this = end if side == 0 else (end[0], 1 - end[1])
        node = branch.nodes[this[1]]
        if this in pairing.links and len(graph.at_node[node]) > 2:
            cut = min(round(graph.half_width[node]), (len(points) - 1) // 3)
            first, last = (cut, last) if side == 0 else (first, len(points) - cut)
    return points[first:last]


def smooth(points: np.ndarray, *, closed: bool, sigma: float, limit: float, spacing: float) -> np.ndarray:
    """Smooth a stroke by a Gaussian over its arc length and sample it evenly; float64 (N, 2) → (M, 2).

    sigma, limit and spacing are pixels.  No sample moves further than limit; sharp corners and the ends of an
    open stroke stay where they are.  A closed stroke repeats its first point at the end.
    """
    if closed:
        points = np.concatenate([points, points[:1]])
    samples = _resample(points, 1.0)
    corners = _corners(samples, closed)
    if closed:
        if len(corners) == 0:
            moved = ndimage.gaussian_filter1d(samples[:-1], sigma, axis=0, mode="wrap")
            return _resample(_limited(samples, np.concatenate([moved, moved[:1]]), limit), spacing)
        # From here on the ring is an open stroke from its first corner back to it.
        samples = np.roll(samples[:-1], -corners[0], axis=0)
        samples = np.concatenate([samples, samples[:1]])
        corners = corners[1:] - corners[0]
    bounds = [0, *corners.tolist(), len(samples) - 1]
    pieces = []
    for first, last in itertools.pairwise(bounds):
        piece = samples[first : last + 1]
        pad = min(int(np.ceil(4.0 * sigma)), len(piece) - 1)
        # A point reflection at both ends keeps them in place.
        head = 2.0 * piece[0] - piece[pad:0:-1]
        tail = 2.0 * piece[-1] - piece[-2 : -pad - 2 : -1]
        moved = ndimage.gaussian_filter1d(np.concatenate([head, piece, tail]), sigma, axis=0)
        piece = _resample(_limited(piece, moved[pad : pad + len(piece)], limit), spacing)
        pieces.append(piece if last == bounds[-1] else piece[:-1])
    return np.concatenate(pieces)


def _corners(samples: np.ndarray, closed: bool) -> np.ndarray:
    """Indices, rising, of the sharp corners in points (N, 2) one pixel apart; no ends of open strokes."""
    arm = CORNER_ARM
    line = samples[:-1] if closed else samples
    if len(line) <= 2 * arm:
        return np.empty(0, dtype=np.int64)
    wrapped = np.pad(line, ((arm, arm), (0, 0)), mode="wrap")
    before, after = line - wrapped[: -2 * arm], wrapped[2 * arm :] - line
    across = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    turn = np.abs(np.arctan2(across, (before * after).sum(axis=1)))
    if not closed:
        turn[:arm] = turn[-arm:] = 0.0
    peak = turn == ndimage.maximum_filter1d(turn, 2 * arm + 1, mode="wrap")
    return np.flatnonzero(peak & (turn > CORNER_TURN))


def _limited(points: np.ndarray, moved: np.ndarray, limit: float) -> np.ndarray:
    """The moved points (N, 2), none further than limit from where it was."""
    shift = moved - points
    distance = np.hypot(shift[:, 0], shift[:, 1])
    return points + shift * np.minimum(1.0, limit / np.maximum(distance, 1e-9))[:, None]


def _resample(points: np.ndarray, spacing: float) -> np.ndarray:
    """Points at equal steps of about `spacing` along a polyline, both ends kept; at least two."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    count = max(2, round(along[-1] / spacing) + 1)
    at = np.linspace(0.0, along[-1], count)
    return np.stack([np.interp(at, along, points[:, 0]), np.interp(at, along, points[:, 1])], axis=1)


def length(points: np.ndarray) -> float:
    """Arc length of a polyline (N, 2); 0 for a dot."""
    return float(np.hypot(*np.diff(points, axis=0).T).sum())


def drawing_order(strokes: list[np.ndarray]) -> list[np.ndarray]:
    """Put strokes and their directions into the conventional order: see sketchynet.vectorize."""
    turned = [_turn_round(stroke) for stroke in strokes]
    # Rounding keeps the order independent of the last bits of a sum.
    return sorted(turned, key=lambda s: (-round(length(s), 3), round(float(s[0].sum()), 3), float(s[0, 0])))


def _turn_round(stroke: np.ndarray) -> np.ndarray:
    if len(stroke) > 2 and np.array_equal(stroke[0], stroke[-1]):
        ring = stroke[:-1]
        ring = np.roll(ring, -int(np.argmin(ring[:, 1])), axis=0)
        x, y = ring.T
        clockwise = float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) >= 0.0  # y points down
        ring = ring if clockwise else np.roll(ring[::-1], 1, axis=0)
        return np.concatenate([ring, ring[:1]])
    return stroke[::-1] if stroke[-1].sum() < stroke[0].sum() else stroke
