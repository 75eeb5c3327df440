"""Threads, buffers and bad input of the rasteriser's calls."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from drawings import random_batch
from numpy.typing import NDArray

from sketchynet import InputError, Sketch, SketchBatch, _core, rasterize

# --- threads, buffers, layouts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 200])
def test_threads_do_not_change_a_byte(size: int) -> None:
    batch = random_batch(37, seed=3)
    expected = rasterize(batch, size, threads=1)
    for threads in (2, 3, 64, None):
        assert np.array_equal(rasterize(batch, size, threads=threads), expected)


def test_a_sketch_does_not_depend_on_its_batch() -> None:
    batch = random_batch(9, seed=4)
    together = rasterize(batch, 64)
    for b in range(len(batch)):
        assert np.array_equal(rasterize(batch.select([b]), 64)[0], together[b])


def test_calls_from_several_threads() -> None:
    batch = random_batch(20, seed=5)
    expected = rasterize(batch, 64)
    results: list[NDArray[np.uint8]] = []
    callers = [threading.Thread(target=lambda: results.append(rasterize(batch, 64))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 4 and all(np.array_equal(result, expected) for result in results)


def test_out_is_overwritten_and_returned() -> None:
    batch = random_batch(3, seed=6)
    out = np.full((5, 32, 32), 77, np.uint8)
    part = out[1:4]
    assert rasterize(batch, 32, out=part) is part
    assert np.array_equal(part, rasterize(batch, 32))
    assert (out[[0, 4]] == 77).all()


def test_non_contiguous_points() -> None:
    batch = random_batch(3, seed=8)
    wide = np.zeros((len(batch.points), 4))
    wide[:, ::2] = batch.points
    same = SketchBatch(wide[:, ::2], batch.stroke_offsets.astype(np.int32), batch.sketch_offsets)
    assert np.array_equal(rasterize(same, 32), rasterize(batch, 32))


def test_empty_batch() -> None:
    assert rasterize(SketchBatch.from_sketches([]), 16).shape == (0, 16, 16)


@pytest.mark.parametrize("size", [0, 7, 2049, 4096, 32.0, "64", None, True])
def test_bad_size(size: object) -> None:
    with pytest.raises(InputError, match="8 to 2048"):
        rasterize(random_batch(1, seed=0), size)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, math.inf, "2", True])
def test_bad_line_width(width: float) -> None:
    with pytest.raises(InputError, match="line_width"):
        rasterize(random_batch(1, seed=0), 32, line_width=width)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_bad_threads(threads: object) -> None:
    with pytest.raises(InputError, match=f"threads is {threads}"):
        rasterize(random_batch(1, seed=0), 32, threads=threads)  # type: ignore[arg-type]  # the point of the test


def test_bad_out() -> None:
    batch = random_batch(2, seed=0)
    read_only = np.empty((2, 32, 32), np.uint8)
    read_only.flags.writeable = False
    for out in (np.empty((2, 32, 32)), np.empty((1, 32, 32), np.uint8), [0]):
        with pytest.raises(InputError, match="it must be uint8"):
            rasterize(batch, 32, out=out)  # type: ignore[arg-type]  # the point of the test
    for out in (np.empty((2, 32, 64), np.uint8)[:, :, ::2], read_only):
        with pytest.raises(InputError, match="C-contiguous and writable"):
            rasterize(batch, 32, out=out)
    memory = np.zeros(2 * 32 * 32, np.uint8)
    sketch = Sketch(memory[:16].view(np.float32).reshape(2, 2), np.array([0, 2]))
    both = SketchBatch(sketch.points, np.array([0, 1, 2]), np.array([0, 1, 2]))
    with pytest.raises(InputError, match="shares memory"):
        rasterize(both, 32, out=memory.reshape(2, 32, 32))


def test_the_extension_refuses_arrays_it_could_overrun() -> None:
    batch = random_batch(1, seed=0)
    widths = np.ones(batch.num_strokes)
    out = np.empty(32 * 32, np.uint8)
    read_only = out.copy()
    read_only.flags.writeable = False
    one = np.array([0]), np.array([32]), np.array([0])
    good = [batch.points, batch.stroke_offsets, batch.sketch_offsets, widths, None, 1.0, True, *one, 1, out]
    _core.rasterize(*good)
    for place, bad in [
        (0, batch.points[:-1]),
        (0, np.full_like(batch.points, np.nan)),
        (1, batch.stroke_offsets[:-1]),
        (1, batch.stroke_offsets[::-1].copy()),
        (2, np.array([0, 10**9])),
        (3, widths[:-1]),
        (3, np.full_like(widths, np.nan)),
        (4, np.zeros(1, bool)),
        (5, 0.0),
        (7, np.array([1])),
        (7, np.array([-1])),
        (8, np.array([64])),
        (8, np.array([7])),
        (8, np.array([4096])),
        (8, np.array([32, 32])),
        (9, np.array([1])),
        (9, np.array([-1])),
        (9, np.array([2**63 - 1])),
        (10, 0),
        (11, out[:-1]),
        (11, out.reshape(32, 32)),
        (11, read_only),
    ]:
        arguments = [*good[:place], bad, *good[place + 1 :]]
        with pytest.raises(ValueError):
            _core.rasterize(*arguments)
    two = np.array([0, 0]), np.array([16, 16]), np.array([0, 255])  # the second begins inside the first
    with pytest.raises(ValueError, match="overlap"):
        _core.rasterize(*good[:7], *two, 1, out)
    for place, bad in [
        (0, batch.points.astype(np.float64)),
        (0, batch.points[::2]),
        (11, out[::2]),
        (8, [32]),
    ]:
        with pytest.raises(TypeError):
            _core.rasterize(*good[:place], bad, *good[place + 1 :])
