"""The C++ side of `match_rank`, against loops; of numpy alone, so that the sanitizers can run it."""

from __future__ import annotations

import numpy as np
import pytest

from sketchynet import _core


def test_squares_and_distances() -> None:
    generator = np.random.default_rng(0)
    for dim in (1, 7, 8, 19, 64):
        x, y = (generator.standard_normal((13, dim)).astype(np.float32) for _ in range(2))
        squares, distances = np.zeros(13), np.zeros(13)
        for threads in (1, 3, 20):
            _core.row_squares(x, threads, squares)
            np.testing.assert_allclose(squares, np.square(x.astype(np.float64)).sum(axis=1), rtol=1e-14)
        _core.row_distances(x, y, distances)
        np.testing.assert_allclose(distances, np.square(x.astype(np.float64) - y).sum(axis=1), rtol=1e-14)


@pytest.mark.parametrize("threads", [1, 2, 9])
def test_unsure_comparisons_are_decided_by_differences(threads: int) -> None:
    """Bounds between which every product falls leave all to the differences; sharp ones leave nothing."""
    generator = np.random.default_rng(1)
    queries = generator.standard_normal((5, 11)).astype(np.float32)
    gallery = generator.standard_normal((600, 11)).astype(np.float32)
    exact = np.square(queries[:, None].astype(np.float64) - gallery[None]).sum(axis=2)
    true = np.zeros(5)
    _core.row_distances(queries, gallery[:5], true)
    expected = (exact <= true[:, None] * (1 + 1e-14)).sum(axis=1)
    products = np.ascontiguousarray(queries @ gallery.T)
    zeros = np.zeros(600, np.float32)
    for width, garbage in ((1e9, np.nan), (1e9, 1.0)):
        counts = np.full(5, 100, np.int64)
        cuts = [np.full(5, side * width, np.float32) for side in (-1, 1)]
        _core.count_nearer(
            np.full_like(products, garbage), queries, gallery, zeros, zeros, *cuts, true, threads, counts
        )
        assert (counts - 100 == expected).all()
    counts = np.zeros(5, np.int64)
    half = (0.5 * np.square(gallery).sum(axis=1)).astype(np.float32)
    cut = (0.5 * (true - np.square(queries.astype(np.float64)).sum(axis=1))).astype(np.float32)
    _core.count_nearer(products, queries, gallery, half, half, cut + 1e-4, cut + 1e-4, true, threads, counts)
    assert (np.abs(counts - expected) <= 1).all()


def test_shapes_are_checked() -> None:
    x, out = np.zeros((3, 2), np.float32), np.zeros(3)
    with pytest.raises(ValueError, match="shape of x"):
        _core.row_distances(x, x[:2].copy(), out)
    with pytest.raises(ValueError, match=r"out must be float64 \(n,\)"):
        _core.row_squares(x, 1, out[:2])
    with pytest.raises(TypeError):
        _core.row_squares(x.astype(np.float64), 1, out)
