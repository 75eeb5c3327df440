from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
import torch
from small import small_pairs

from sketchynet.config import AugmentationConfig
from sketchynet.errors import InputError
from sketchynet.models import Embedder
from sketchynet.raster import rasterize
from sketchynet.stages.embedding import embed_photos
from sketchynet.stages.rewards import Judge, RewardTable, RolloutWorker, view_sketches
from sketchynet.stages.runtime import RolloutRequest, RolloutResult


def _worker() -> tuple[RolloutWorker, Embedder, np.ndarray, torch.Tensor]:
    pairs = small_pairs()
    torch.manual_seed(0)
    student = Embedder("mobile_small", canvases=(16, 32)).eval()
    photos = pairs.photo_indices(0)
    gallery = embed_photos(student, pairs, photos, 32)
    judge = Judge(student, pairs.sketch_indices(0), photos, (gallery, gallery))
    worker = RolloutWorker(pairs, [judge], (16, 32), AugmentationConfig(), margin=0.3, seed=0)
    return worker, student, photos, gallery


def test_outcome_is_the_naive_rank_and_triplet() -> None:
    pairs = small_pairs()
    worker, student, photos, gallery = _worker()
    sketches = pairs.sketch_indices(0)[[3, 0, 9]]
    request = RolloutRequest(sketches, np.zeros(3, int), np.array([1, 0, 1]))
    found = worker(request)
    for row, (sketch, canvas) in enumerate(zip(sketches, (32, 16, 32), strict=True)):
        drawn = torch.from_numpy(rasterize(pairs.sketches.select(np.array([sketch])), canvas))
        with torch.no_grad():
            query = student.embed_sketches(drawn)[0].double()
        distance = [float((query - g.double()).norm()) for g in gallery]
        true = photos.tolist().index(pairs.sketch_photo[sketch])
        others = distance[:true] + distance[true + 1 :]
        assert found.ranks[row] == 1 + sum(d <= distance[true] for d in others)
        assert abs(found.triplets[row] - max(0.0, 0.3 + distance[true] - min(others))) < 1e-4
        first, second = sorted(distance)[:2]
        assert abs(found.clearness[row] - (1.0 - first / second)) < 1e-4


def test_every_canvas_is_searched_in_its_own_gallery() -> None:
    pairs = small_pairs()
    _, student, photos, _ = _worker()
    galleries = tuple(embed_photos(student, pairs, photos, size) for size in (8, 32))
    both, small, large = (
        RolloutWorker(
            pairs, [Judge(student, pairs.sketch_indices(0), photos, pair)], (16, 32), AugmentationConfig(), margin=0.3, seed=0
        )
        for pair in (galleries, galleries[:1] * 2, galleries[1:] * 2)
    )
    sketches = pairs.sketch_indices(0)[:12]
    for canvas, alike, other in ((0, small, large), (1, large, small)):
        request = RolloutRequest(sketches, np.zeros(12, int), np.full(12, canvas))
        found = both(request)
        np.testing.assert_array_equal(found.ranks, alike(request).ranks)
        np.testing.assert_array_equal(found.triplets, alike(request).triplets)
        assert (found.triplets != other(request).triplets).any()


def test_canvases_that_share_a_gallery_share_its_copy() -> None:
    worker, *_ = _worker()
    elsewhere = worker.to(torch.device("meta"))  # as on a GPU, every tensor is another one there
    [judge] = elsewhere._judges
    assert judge.galleries[0] is judge.galleries[1] and judge.galleries[0].device.type == "meta"
    [judge] = pickle.loads(pickle.dumps(_worker()[0]))._judges
    assert judge.galleries[0] is judge.galleries[1]


def test_a_sketch_that_no_student_may_judge_is_refused() -> None:
    worker, *_ = _worker()
    stranger = small_pairs().sketch_indices(2)[:1]
    try:
        worker(RolloutRequest(stranger, np.zeros(1, int), np.zeros(1, int)))
    except ValueError as error:
        assert "no student" in str(error)
    else:
        raise AssertionError("a test sketch was rewarded")


def test_views_are_seeded_and_the_first_is_the_sketch_itself() -> None:
    pairs, settings = small_pairs(), AugmentationConfig()
    indices = np.array([0, 1])
    plain = view_sketches(pairs.sketches, indices, np.array([0, 0]), settings, 0)
    assert np.array_equal(plain.points, pairs.sketches.select(indices).points)
    one = view_sketches(pairs.sketches, indices, np.array([0, 2]), settings, 0)
    alone = view_sketches(pairs.sketches, indices[1:], np.array([2]), settings, 0)
    assert np.array_equal(one[0].points, pairs.sketches[0].points)
    assert np.array_equal(one[1].points, alone[0].points)
    assert not np.array_equal(alone[0].points, pairs.sketches[1].points)


def test_table_rolls_out_all_canvases_of_a_view_once() -> None:
    asked: list[tuple[int, int, int]] = []

    def rollout(request: RolloutRequest) -> RolloutResult:
        rows = list(zip(request.sketches, request.views, request.canvases, strict=True))
        asked.extend(rows)
        return RolloutResult(
            np.array([100 * v + 10 * c + s for s, v, c in rows]), np.array([s for s, _, _ in rows], np.float32),
            np.array([c / 10 for _, _, c in rows]),
        )

    with RewardTable(2, np.array([2, 5, 7]), 4, rollout) as table:
        request = RolloutRequest(np.array([7, 2, 7, 7]), np.array([1, 0, 1, 0]), np.array([3, 1, 3, 3]))
        for _ in range(2):
            found = table.lookup(request)
            assert found.ranks.tolist() == [137, 12, 137, 37]
            assert found.triplets.tolist() == [7, 2, 7, 7]
            assert found.clearness.tolist() == [0.3, 0.1, 0.3, 0.3]
        assert sorted(asked) == sorted((s, v, c) for s, v in ((7, 1), (2, 0), (7, 0)) for c in range(4))
        assert table.known == 12
        other = RolloutRequest(np.array([7, 5]), np.array([1, 1]), np.array([0, 2]))
        assert table.lookup(other).ranks.tolist() == [107, 125]
        assert len(asked) == len(set(asked)) == table.known == 16
        drawn = table.as_drawn()
        assert drawn.ranks.tolist() == [[2, 12, 22, 32], [5, 15, 25, 35], [7, 17, 27, 37]]
        assert drawn.clearness.tolist() == [[0.0, 0.1, 0.2, 0.3]] * 3
        assert len(asked) == len(set(asked)) == table.known == 20


def test_rollouts_run_ahead_and_are_asked_for_once() -> None:
    """The learner goes on while a batch is rolled out; what is under way is not asked for again."""
    asked: list[list[int]] = []
    gate = threading.Event()

    def rollout(request: RolloutRequest) -> RolloutResult:
        asked.append(request.sketches.tolist())
        if len(asked) > 1:
            assert gate.wait(10)
        return RolloutResult(request.sketches + 1, request.sketches.astype(np.float32), request.sketches / 10)

    with RewardTable(1, np.arange(6), 1, rollout) as table:
        zero = np.zeros(2, np.int64)
        for first in (0, 2):
            table.prepare(np.array([first, first + 1]), zero)
        assert table.lookup(RolloutRequest(np.array([0, 1]), zero, zero)).ranks.tolist() == [1, 2]
        table.prepare(np.array([2, 4]), zero)
        assert table.known == 2
        gate.set()
        assert table.lookup(RolloutRequest(np.array([4, 3]), zero, zero)).ranks.tolist() == [5, 4]
    assert asked == [[0, 1], [2, 3], [4]]


def test_error_of_a_rollout_reaches_the_learner() -> None:
    def rollout(request: RolloutRequest) -> RolloutResult:
        raise InputError("sketch 3 has no points")

    with RewardTable(1, np.arange(6), 2, rollout) as table, pytest.raises(InputError, match="sketch 3"):
        table.lookup(RolloutRequest(np.array([3]), np.array([0]), np.array([1])))
