"""The rollout pool against the worker called in this process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from sketchynet.errors import InputError
from sketchynet.stages.runtime import Rollout, RolloutRequest, RolloutResult

CHUNK = 4


def make_factory(pause: float = 0.0) -> Callable[[], Rollout]:
    """Factory of a worker with constants of its own and a result that depends on every bit of them."""
    gallery = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)

    def factory() -> Rollout:
        constants = torch.tensor(gallery)

        def answer(request: RolloutRequest) -> RolloutResult:
            time.sleep(pause)
            if (request.sketches < 0).any():
                raise InputError(f"sketch {request.sketches.min()} does not exist")
            wave = torch.from_numpy(np.sin(request.sketches[:, None] + request.views[:, None]))
            query = (wave.float() * constants[request.canvases]) @ constants.T
            return RolloutResult(query.argmax(1).numpy() + 1, query.mean(1).numpy(), query.double().amax(1).numpy())

        return answer

    return factory


def make_request(rows: int) -> RolloutRequest:
    generator = np.random.default_rng(rows)
    return RolloutRequest(*(generator.integers(0, high, rows) for high in (1000, 5, 4)))


def alone(request: RolloutRequest) -> RolloutResult:
    worker = make_factory()()
    return RolloutResult.join(
        worker(request.part(slice(at, at + CHUNK))) for at in range(0, len(request), CHUNK)
    )


def assert_same_bits(result: RolloutResult, wanted: RolloutResult) -> None:
    for found, expected in zip(result.columns, wanted.columns, strict=True):
        np.testing.assert_array_equal(found, expected)


def process_of(pool, ray: ModuleType) -> int:
    """Process id of the pool's first actor."""
    return ray.get(pool._slots[0].actor.__ray_call__.remote(lambda actor: os.getpid()))


@pytest.fixture(autouse=True)
def by_value(ray_session: ModuleType) -> Iterator[None]:
    ray_session.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield


def test_actors_equal_one_process_and_a_dead_one_is_replaced(ray_session: ModuleType) -> None:
    from sketchynet.distributed.rollouts import RolloutPool

    with RolloutPool(make_factory(pause=0.05), actors=2, chunk=CHUNK) as pool:
        for rows in (0, 1, 42):
            assert_same_bits(pool(make_request(rows)), alone(make_request(rows)))
        assert pool.statistics.restarts == 0

        victim = process_of(pool, ray_session)
        killer = threading.Timer(0.3, lambda: os.kill(victim, signal.SIGKILL))
        killer.start()
        request = make_request(121)
        assert_same_bits(pool(request), alone(request))
        killer.join()

        with pytest.raises(InputError, match="^sketch -3 does not exist$"):
            pool(RolloutRequest(np.array([1, -3]), np.zeros(2, np.int64), np.zeros(2, np.int64)))

        statistics = pool.statistics
        assert (statistics.rollouts, statistics.actors, statistics.restarts) == (164, 2, 1)
        assert statistics.seconds > 0
    with pytest.raises(RuntimeError, match="closed"):
        pool(make_request(1))


def test_a_slow_actor_does_not_hold_the_batch(ray_session: ModuleType) -> None:
    """What it holds is given to another one; it may answer later, and is then given work again."""
    from sketchynet.distributed.rollouts import RolloutPool

    with RolloutPool(make_factory(pause=0.02), actors=2, chunk=CHUNK) as pool:
        pool(make_request(40))
        slow = process_of(pool, ray_session)
        os.kill(slow, signal.SIGSTOP)
        try:
            for rows in (61, 30):
                assert_same_bits(pool(make_request(rows)), alone(make_request(rows)))
        finally:
            os.kill(slow, signal.SIGCONT)
        assert pool.statistics.restarts == 0 and pool.statistics.reassigned == 2
        assert pool._slots[0].held == 2  # none of the second call
        assert_same_bits(pool(make_request(121)), alone(make_request(121)))
        assert pool._slots[0].held == 0


@pytest.mark.slow
def test_an_actor_that_never_answers_is_replaced(ray_session: ModuleType) -> None:
    from sketchynet.distributed.rollouts import RolloutPool

    with RolloutPool(make_factory(), actors=1, chunk=CHUNK, stalled_after=2.0) as pool:
        os.kill(process_of(pool, ray_session), signal.SIGSTOP)
        assert_same_bits(pool(make_request(21)), alone(make_request(21)))
        assert pool.statistics.restarts == 1


def test_tensors_lie_in_the_object_store_once(ray_session: ModuleType) -> None:
    """Every actor maps weights and gallery; each of them has the values that were put."""
    from sketchynet.distributed.rollouts import RolloutPool

    network = torch.nn.Linear(300, 300).eval()
    gallery = torch.arange(200_000, dtype=torch.bfloat16).reshape(2, -1)

    class Worker:
        def __init__(self) -> None:
            self.network, self.gallery, self.empty = network, gallery, torch.zeros(0, 3)

        def __call__(self, request: RolloutRequest) -> RolloutResult:
            maps = Path("/proc/self/maps").read_text().splitlines()
            shared = [line.split()[0].split("-") for line in maps if "plasma" in line]
            ranges = [(int(first, 16), int(last, 16)) for first, last in shared]
            tensors = [*self.network.parameters(), self.gallery]
            mapped = [any(a <= t.data_ptr() < b for a, b in ranges) for t in tensors]
            figures = [self.gallery.float().sum(), self.network(torch.ones(300)).detach().sum(), self.empty.numel()]
            return RolloutResult(np.array(mapped).astype(np.int64), np.array(figures, np.float32), np.array(figures, np.float64))

    worker = Worker()
    expected = [float(gallery.float().sum()), float(network(torch.ones(300)).detach().sum()), 0.0]
    with RolloutPool(lambda: worker, actors=2, chunk=1) as pool:
        found = pool(make_request(2))
    assert found.ranks.tolist() == [1, 1, 1] * 2
    assert found.triplets.tolist() == pytest.approx(expected * 2)


def test_failures_end_the_call(ray_session: ModuleType) -> None:
    from sketchynet.distributed.rollouts import RolloutPool

    def refusing() -> Rollout:
        raise InputError("no such checkpoint: student-0")

    with pytest.raises(InputError, match="^no such checkpoint: student-0$"):
        RolloutPool(refusing, actors=1)

    def dying() -> Rollout:
        return lambda request: os._exit(1)

    with RolloutPool(dying, actors=1, retries=0) as pool, pytest.raises(RuntimeError, match="died 1 times"):
        pool(make_request(2))
