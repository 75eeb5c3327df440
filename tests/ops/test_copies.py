from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sketchynet.errors import InputError
from sketchynet.ops import (
    copies,
    match_rank,
    nearest,
    nearest_photos,
    pairwise_distance,
    photo_distance,
    photo_rank,
)

GALLERY = torch.tensor(
    [[[0.0, 5.0], [3.0, 0.0], [9.0, 9.0]], [[1.0, 0.0], [9.0, 9.0], [0.0, 2.0]], [[0.0, -4.0], [8.0, 8.0], [-4.0, 0.0]]]
)
QUERIES = torch.tensor([[0.0, 0.0], [3.0, 1.0]])


def test_the_mean_of_a_photos_two_nearest_copies_counts() -> None:
    near = [[(3, 5), (1, 2), (4, 4)], [(1, 5), (5**0.5, 10**0.5), (34**0.5, 50**0.5)]]
    expected = torch.tensor(near, dtype=torch.float64).mean(dim=2)
    torch.testing.assert_close(photo_distance(QUERIES, GALLERY), expected)
    assert photo_rank(QUERIES, GALLERY, torch.tensor([0, 2])).tolist() == [3, 3]  # a tie counts against us
    found = nearest_photos(QUERIES, GALLERY, 2)
    assert found.row.tolist() == [[1, 0], [1, 0]]
    torch.testing.assert_close(found.distance, expected.sort(dim=1).values[:, :2])


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 9), st.integers(1, 4), st.integers(1, 5))
def test_ranks_and_order_are_those_of_naive_distances(seed: int, queries: int, photos: int, times: int, dim: int) -> None:
    generator = np.random.default_rng(seed)
    # Few distinct values: many ties.
    x = torch.from_numpy(generator.integers(0, 3, (queries, dim)).astype(np.float32))
    gallery = torch.from_numpy(generator.integers(0, 3, (photos, times, dim)).astype(np.float32))
    target = torch.from_numpy(generator.integers(0, photos, queries))
    naive = [[np.mean(sorted(float((q - c).square().sum()) ** 0.5 for c in photo)[:2]) for photo in gallery] for q in x]
    assert photo_rank(x, gallery, target).tolist() == [
        sum(other <= row[true] for other in row) for row, true in zip(naive, target.tolist(), strict=True)
    ]
    k = int(generator.integers(1, photos + 1))
    assert nearest_photos(x, gallery, k).row.tolist() == [sorted(range(photos), key=row.__getitem__)[:k] for row in naive]


def test_photos_stored_once_go_to_the_operators_of_one_copy() -> None:
    gallery, target = GALLERY[:, 0], torch.tensor([0, 2])
    assert photo_rank(QUERIES, gallery, target).equal(match_rank(QUERIES, gallery, target))
    assert nearest_photos(QUERIES, gallery, 3).row.equal(nearest(QUERIES, gallery, 3).row)
    assert photo_distance(QUERIES, gallery).equal(pairwise_distance(QUERIES, gallery))
    assert photo_distance(QUERIES[:0], GALLERY).shape == (0, 3)
    assert photo_rank(QUERIES[:0], GALLERY, target[:0]).shape == (0,)


def test_in_parts_the_answers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, gallery = torch.randn(7, 5, generator=generator), torch.randn(4, 3, 5, generator=generator)
    target = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    whole = photo_distance(queries, gallery), photo_rank(queries, gallery, target), *nearest_photos(queries, gallery, 3)
    monkeypatch.setattr(copies, "CHUNK_ELEMENTS", 24)  # two queries at a time
    parts = photo_distance(queries, gallery), photo_rank(queries, gallery, target), *nearest_photos(queries, gallery, 3)
    assert all(map(torch.equal, whole, parts))


def test_equal_photos_are_tied_in_large_galleries_too() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, photo = torch.randn(97, 601, generator=generator), torch.randn(1, 5, 601, generator=generator)
    gallery = torch.cat([photo, torch.randn(30, 5, 601, generator=generator) + 3.0, photo, photo.flip(1)])
    assert photo_rank(queries, gallery, torch.full((97,), 31)).tolist() == [3] * 97
    assert nearest_photos(queries, gallery, 3).row.tolist() == [[0, 31, 32]] * 97


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match=r"\(G, C, D\) with C copies of every photo; got \(2, 2\) and \(2, 3, 2, 1\)"):
        photo_distance(QUERIES, torch.zeros(2, 3, 2, 1))
    with pytest.raises(InputError, match=r"got \(2, 2\) and \(3, 0, 2\)"):
        photo_distance(QUERIES, GALLERY[:, :0])
    with pytest.raises(InputError, match="k = 4 must be between 1 and the 3 photos"):
        nearest_photos(QUERIES, GALLERY, 4)
    with pytest.raises(InputError, match="photo_rank: target"):
        photo_rank(QUERIES, GALLERY, torch.tensor([0, 3]))
    broken = GALLERY.clone()
    broken[1, 2, 0] = float("nan")
    for ask in (photo_distance, lambda q, g: photo_rank(q, g, torch.tensor([0, 1])), lambda q, g: nearest_photos(q, g, 1)):
        with pytest.raises(InputError, match="gallery row 1 of 3 is not finite"):
            ask(QUERIES, broken)
