from __future__ import annotations

import re
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from small import small_pairs, small_recipe

from sketchynet.config import AugmentationConfig
from sketchynet.data import PairedSet
from sketchynet.errors import InputError
from sketchynet.stages.batches import (
    BatchPlan,
    PairSampler,
    Prefetched,
    clean_photos,
    compose,
    drawers_beside,
    random_canvases,
)
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.train import Places


def test_every_photo_once_an_epoch_with_one_of_its_sketches() -> None:
    pairs = small_pairs()
    train = pairs.sketch_indices(0)
    sampler = PairSampler(pairs, train, batch_size=10, seed=3)
    batches = sampler.epoch(0)
    assert max(len(b) for b in batches) <= 10
    seen = np.concatenate(batches)
    assert sorted(pairs.sketch_photo[seen]) == sorted(pairs.photo_indices(0))
    assert set(seen) <= set(train)


def test_epochs_differ_and_repeat_by_seed() -> None:
    pairs = small_pairs()
    sampler = PairSampler(pairs, pairs.sketch_indices(0), batch_size=10, seed=3)
    again = PairSampler(pairs, pairs.sketch_indices(0), batch_size=10, seed=3)
    assert [b.tolist() for b in sampler.epoch(4)] == [b.tolist() for b in again.epoch(4)]
    assert [b.tolist() for b in sampler.epoch(4)] != [b.tolist() for b in sampler.epoch(5)]


def test_parts_of_workers_make_the_batch_of_one_process() -> None:
    pairs = small_pairs()
    plan = BatchPlan(pairs.sketch_indices(0)[:7], (16, 32), (32, 32))
    settings = AugmentationConfig()

    def part(rank: int, world: int):
        drawn = partial(compose, pairs, augmentation=settings, seed=1, epoch=2)
        ((_, (batch,)),) = Prefetched([plan], lambda p, rows: drawn(p, rows=rows), rank=rank, world_size=world)
        return batch

    whole, first, second = part(0, 1), part(0, 2), part(1, 2)
    assert len(first.sketches) == 4 and len(second.sketches) == 3
    for alone, a, b in zip(whole.canvases, first.canvases, second.canvases, strict=True):
        assert np.array_equal(alone, np.concatenate([a, b]))
    assert np.array_equal(whole.images[0], np.concatenate([first.images[0], second.images[0]]))
    drawn = partial(compose, pairs, augmentation=settings, seed=1, epoch=2)
    ((_, parts),) = Prefetched([plan], lambda p, rows: drawn(p, rows=rows), rank=0, world_size=2, parts=3)
    assert [len(part.sketches) for part in parts] == [2, 1, 1]
    assert np.array_equal(first.images[0], np.concatenate([part.images[0] for part in parts]))


def test_photos_are_drawn_once_a_size_with_the_same_changes() -> None:
    pairs, rows = small_pairs(), np.arange(5)
    chosen, settings = pairs.sketch_indices(0)[:5], AugmentationConfig()
    plan = BatchPlan(chosen, (16, 24, 32), (32, 16, 32))
    batch = compose(pairs, plan, settings, seed=1, epoch=2, rows=rows)
    assert plan.galleries == [16, 32] and [tuple(images.shape) for images in batch.images] == [(5, 16, 16, 3), (5, 32, 32, 3)]
    for size, images in zip((16, 32), batch.images, strict=True):
        alone = compose(pairs, BatchPlan(chosen, (16,), (size,)), settings, seed=1, epoch=2, rows=rows)
        assert np.array_equal(images, alone.images[0])
    shrunk = batch.images[1].float().reshape(5, 16, 2, 16, 2, 3).mean(dim=(2, 4))
    otherwise = compose(pairs, plan, settings, seed=1, epoch=3, rows=rows).images[0]
    same, other = ((shrunk - images).abs().mean() for images in (batch.images[0], otherwise))
    assert same < other / 2  # the same crop and colours


def test_flips_meet_sketch_and_photo_together() -> None:
    pairs = small_pairs()
    plan = BatchPlan(pairs.sketch_indices(0)[:4], (32,), (32,))
    from sketchynet.augment import PhotoAugmentation, SketchAugmentation

    still = {"sketch": SketchAugmentation(), "photo": PhotoAugmentation()}
    rows = np.arange(4)
    plain = compose(pairs, plan, AugmentationConfig(flip=0.0, **still), seed=0, epoch=0, rows=rows)
    flipped = compose(pairs, plan, AugmentationConfig(flip=1.0, **still), seed=0, epoch=0, rows=rows)
    assert np.array_equal(plain.images[0], clean_photos(pairs, plain.photos, 32))
    assert np.array_equal(flipped.images[0], plain.images[0].flip(2))
    assert (flipped.canvases[0].int() - plain.canvases[0].flip(2).int()).abs().max() <= 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_random_canvases(count: int) -> None:
    drawn = [random_canvases((16, 32, 64, 128), count, seed=0, epoch=0, step=s) for s in range(50)]
    assert all(len(set(d)) == count and list(d) == sorted(d) for d in drawn)
    assert {c for d in drawn for c in d} == {16, 32, 64, 128}
    assert random_canvases((16, 32), None, seed=0, epoch=0, step=0) == (16, 32)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the kernel does not tell how memory is shared")
def test_workers_map_the_photos_instead_of_copying_them(tmp_path: Path) -> None:
    """After a batch was drawn, the pages of the prepared photos are the file's own: no process has a copy."""
    places = Places(RunFolder(tmp_path), None, tmp_path / "cache", None)
    pairs = places.load(small_recipe(), progress=False)
    assert isinstance(pairs, PairedSet)
    plan = BatchPlan(pairs.sketch_indices(0)[:7], (16,), (32,))
    batch = compose(pairs, plan, AugmentationConfig(), seed=1, epoch=0, rows=np.arange(3))
    assert len(batch.images[0]) == 3
    mapped = re.search(r"photos\.npy\n((?:\w+:.*\n)+)", Path("/proc/self/smaps").read_text())
    assert mapped is not None
    kilobytes = {name: int(size) for name, size in re.findall(r"(\w+): +(\d+) kB", mapped[1])}
    assert kilobytes["Rss"] > 0 and kilobytes["Anonymous"] == 0


def test_threads_draw_ahead_in_order_and_the_wait_is_counted() -> None:
    plans = [BatchPlan(np.arange(n, n + 3), (16,), (32,)) for n in range(6)]
    under_way, most, lock = 0, 0, threading.Lock()

    def slow(plan: BatchPlan, rows: np.ndarray) -> list[int]:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        return plan.sketches[rows].tolist()

    for drawers in (1, 3):
        most = 0
        drawn = Prefetched(plans, slow, rank=0, world_size=1, drawers=drawers)
        assert [batch for _, (batch,) in drawn] == [[n, n + 1, n + 2] for n in range(6)]
        assert most == drawers and 0.05 <= drawn.waited < 5.0
    assert list(Prefetched([], slow, rank=0, world_size=1)) == []


def test_a_batch_that_cannot_be_drawn_ends_the_iteration_with_its_error() -> None:
    def fail(plan: BatchPlan, rows: np.ndarray) -> list[int]:
        raise InputError(f"photo {plan.sketches[0]} is damaged")

    plans = [BatchPlan(np.arange(2), (16,), (32,))] * 3
    with pytest.raises(InputError, match="photo 0 is damaged"):
        list(Prefetched(plans, fail, rank=0, world_size=1, drawers=2))


def test_drawers_leave_the_cores_to_whoever_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    for threads, beside_gpu in ((1, 1), (2, 1), (6, 5), (64, 8)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert drawers_beside(torch.device("cpu")) == 1
        assert drawers_beside(torch.device("cuda")) == beside_gpu
