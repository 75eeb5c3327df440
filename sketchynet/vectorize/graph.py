"""The skeleton of a line drawing as a graph: nodes are free ends and junctions, branches are pixel chains."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))


@dataclass(eq=False)
class Branch:
    """A chain of skeleton pixels between two nodes.

    points: float64 (N, 2) pixel coordinates (x, y), pixel centres at +0.5; the node's own pixels at both ends
    are included.  nodes: the node at the first and at the last point, -1 for a ring without any node.
    """

    points: np.ndarray
    nodes: tuple[int, int]

    @property
    def length(self) -> float:
        return float(np.hypot(*np.diff(self.points, axis=0).T).sum())


@dataclass(eq=False)
class Graph:
    """Branches by number; position float64 (2,) and local half line width (pixels) of every node."""

    branches: dict[int, Branch]
    position: dict[int, np.ndarray]
    half_width: dict[int, float]
    dots: list[np.ndarray]
    """Positions float64 (2,) of skeleton pixels without any neighbour."""
    at_node: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Branch ends at a node: (branch, 0) where the branch begins there, (branch, 1) where it ends there."""

    def index_ends(self) -> None:
        at_node: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for number in sorted(self.branches):
            for side, node in enumerate(self.branches[number].nodes):
                if node >= 0:
                    at_node[node].append((number, side))
        self.at_node = dict(at_node)


def skeleton_graph(skeleton: np.ndarray, distance: np.ndarray, darkness: np.ndarray) -> Graph:
    """Graph of a skeleton, bool (H, W); distance float (H, W) is the ink's distance transform.

    darkness, float (H, W), moves the points from their pixel centres to the middle of the line.

    Two pixels are linked if they share an edge, or if they touch at a corner and no shared neighbour already
    links them; the stairs that thinning leaves thus make no false junctions.  Adjacent junction pixels are
    one node.
    """
    neighbours = _links(skeleton)
    rows, columns = np.nonzero(skeleton)
    degree = np.array([len(links) for links in neighbours])
    centres = np.stack([columns, rows], axis=1) + 0.5
    centres += np.where(degree[:, None] == 2, _off_centre(rows, columns, distance, darkness), 0.0)

    is_junction = np.zeros(skeleton.shape, dtype=bool)
    crossing = degree >= 3
    is_junction[rows[crossing], columns[crossing]] = True
    labels, clusters = ndimage.label(is_junction, structure=np.ones((3, 3)))
    node_of = labels[rows, columns] - 1  # -1: not a junction
    ends = np.flatnonzero(degree <= 1)
    node_of[ends] = clusters + np.arange(len(ends))

    members: dict[int, list[int]] = defaultdict(list)
    for pixel in np.flatnonzero(node_of >= 0).tolist():
        members[int(node_of[pixel])].append(pixel)
    position = {node: centres[pixels].mean(axis=0) for node, pixels in members.items()}
    half_width = {node: float(distance[rows[p], columns[p]].max()) for node, p in members.items()}

    branches: dict[int, Branch] = {}
    visited = node_of >= 0
    for node, pixels in members.items():
        for start in pixels:
            for following in neighbours[start]:
                other = int(node_of[following])
                if other >= 0:
                    if start < following and other != node:  # two nodes side by side
                        branches[len(branches)] = Branch(centres[[start, following]], (node, other))
                elif not visited[following]:
                    chain = _walk(start, following, neighbours, visited, node_of)
                    branches[len(branches)] = Branch(centres[chain], (node, int(node_of[chain[-1]])))
    for start in np.flatnonzero(~visited).tolist():  # what is left are rings
        if not visited[start]:
            visited[start] = True
            chain = _walk(start, neighbours[start][0], neighbours, visited, node_of)
            branches[len(branches)] = Branch(centres[[*chain, start]], (-1, -1))
    dots = [centres[pixel] for pixel in ends.tolist() if not neighbours[pixel]]
    graph = Graph(branches, position, half_width, dots)
    graph.index_ends()
    return graph


def _off_centre(
    rows: np.ndarray, columns: np.ndarray, distance: np.ndarray, darkness: np.ndarray
) -> np.ndarray:
    """Shift (N, 2) from pixels to the centroid of the ink around them, as far as the line is wide.

    Thinning cannot halve a line of even width and leaves it half a pixel to one side; the grey values of its
    borders tell where the middle is.  No shift is longer than half a pixel by axis.
    """
    reach = int(np.ceil(np.median(distance[rows, columns])))
    padded = np.pad(darkness, reach)
    around = np.arange(-reach, reach + 1)
    weight = padded[rows[:, None, None] + reach + around[:, None], columns[:, None, None] + reach + around]
    total = weight.sum(axis=(1, 2))
    shift = np.stack([weight.sum(axis=1) @ around, weight.sum(axis=2) @ around], axis=1) / total[:, None]
    return np.clip(shift, -0.5, 0.5)


def _links(skeleton: np.ndarray) -> list[list[int]]:
    """Linked pixels of every skeleton pixel, in the order of np.nonzero."""
    padded = np.pad(skeleton, 1)
    rows, columns = np.nonzero(padded)
    number = np.full(padded.shape, -1, dtype=np.int64)
    number[rows, columns] = np.arange(len(rows))
    neighbours: list[list[int]] = [[] for _ in rows]
    for down, right in STEPS:
        linked = padded[rows + down, columns + right]
        if down and right:
            linked &= ~(padded[rows + down, columns] | padded[rows, columns + right])
        first = np.flatnonzero(linked)
        second = number[rows[first] + down, columns[first] + right]
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            neighbours[a].append(b)
            neighbours[b].append(a)
    return neighbours


def _walk(
    start: int, following: int, neighbours: list[list[int]], visited: np.ndarray, node_of: np.ndarray
) -> list[int]:
    """Follow a chain from start over following until a node or, in a ring, the last unvisited pixel."""
    chain = [start, following]
    while node_of[chain[-1]] < 0:
        here, before = chain[-1], chain[-2]
        visited[here] = True
        links = neighbours[here]
        step = links[1] if links[0] == before else links[0]
        if node_of[step] < 0 and visited[step]:
            break  # the ring is closed
        chain.append(step)
    return chain


def prune_spurs(graph: Graph, *, slack: float) -> None:
    """Remove the short side branches that thinning grows out of bumps in a thick line, in place.

    A spur hangs on a junction by one end, its other end is free, and it reaches no further out of the line
    than `slack` pixels: its length is at most the junction's half width plus slack.
    """
    doomed = []
    for ends in graph.at_node.values():
        spurs = []
        for number, side in ends:
            branch = graph.branches[number]
            free = branch.nodes[1 - side]
            if len(ends) >= 3 and free != branch.nodes[side] and len(graph.at_node[free]) == 1:
                reach = graph.half_width[branch.nodes[side]] + slack
                if branch.length <= reach:
                    spurs.append((branch.length, number))
        # At least two branches stay at a junction: a small star keeps its longest arms.
        doomed += [number for _, number in sorted(spurs)[: len(ends) - 2]]
    for number in doomed:
        del graph.branches[number]
    if doomed:
        graph.index_ends()


def contract(graph: Graph, *, reach: float) -> None:
    """Merge junctions that a branch of at most `reach` pixels links, in place.

    Lines of some thickness that cross make two junctions with a short bridge; it is one crossing.
    """
    parent = {node: node for node in graph.position}

    def root(node: int) -> int:
        while parent[node] != node:
            node = parent[node]
        return node

    bridges = set()
    for number, branch in graph.branches.items():
        u, v = branch.nodes
        if u >= 0 and all(len(graph.at_node[n]) >= 3 for n in (u, v)) and branch.length <= reach:
            bridges.add(number)
            parent[root(u)] = root(v)
    if not bridges:
        return
    groups: dict[int, list[int]] = defaultdict(list)
    for node in graph.position:
        groups[root(node)].append(node)
    for node, members in groups.items():
        graph.position[node] = np.mean([graph.position[m] for m in members], axis=0)
        graph.half_width[node] = max(graph.half_width[m] for m in members)
    for number, branch in list(graph.branches.items()):
        if number in bridges:
            del graph.branches[number]
        elif branch.nodes[0] >= 0:
            branch.nodes = (root(branch.nodes[0]), root(branch.nodes[1]))
    graph.index_ends()
