"""One local Ray instance for all tests of this folder, without traces in the user's home."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The ``ray`` module, connected to an instance with two CPUs."""
    pytest.importorskip("ray", reason="the extra 'distributed' is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
        patch.delenv("RAY_ADDRESS", raising=False)
        from sketchynet.distributed import session

        ray = session.ray
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        try:
            yield ray
        finally:
            session.shutdown()
            assert not ray.is_initialized()
