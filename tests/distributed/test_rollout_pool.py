"""The rollout pool against the worker called in this process."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
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
            return RolloutResult(query.argmax(1).numpy() + 1, query.mean(1).numpy())

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
    np.testing.assert_array_equal(result.ranks, wanted.ranks)
    np.testing.assert_array_equal(result.triplets, wanted.triplets)


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

        victim = pool._actors[0]
        killer = threading.Timer(0.3, lambda: ray_session.kill(victim))
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
