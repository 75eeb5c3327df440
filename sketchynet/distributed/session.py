"""The connection to Ray: made once, quietly, and ended here.

The address comes from Ray's own environment (``RAY_ADDRESS``, or the one a submitted job is given); without
one a local instance is started.
"""

from __future__ import annotations

import logging
import os

# Ray reads these when it is imported or started; whoever has set one of them keeps it.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default; unset, every start prints a FutureWarning
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in a worker and in the driver
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}.items():
    os.environ.setdefault(_name, _value)

import ray

from sketchynet.errors import InputError

__all__ = ["connect", "cores", "shutdown"]

_log = logging.getLogger(__name__)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def connect(processes: int = 1, *, gpu: bool = False) -> None:
    """Connects to Ray unless this process is connected; a local instance has room for ``processes``.

    Output of the workers stays in Ray's log files: what a user should see comes as a report or an error.
    Raises InputError where a local instance lacks the CPUs or, with ``gpu``, the GPUs; a cluster may have an
    autoscaler, so there the lack is only said.
    """
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        ray.init(
            address=address or "local",
            num_cpus=None if address else max(cores(), processes),
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    kind = "GPU" if gpu else "CPU"
    found = int(ray.cluster_resources().get(kind, 0))
    if found >= processes:
        return
    lacking = f"{processes} processes need {processes} {kind}s, but Ray has {found}"
    if not _can_grow():
        raise InputError(f"{lacking}: ask for fewer, or point RAY_ADDRESS at a larger cluster")
    _log.warning("%s: waiting for the cluster to grow (Ctrl-C, and ask for fewer, if it cannot)", lacking)


def shutdown() -> None:
    """Ends the connection and, where it was started here, the local instance; harmless when there is none."""
    if ray.is_initialized():
        ray.shutdown()


def _can_grow() -> bool:
    """Whether the connected cluster may have an autoscaler: a local instance never does."""
    return bool(os.environ.get("RAY_ADDRESS"))
