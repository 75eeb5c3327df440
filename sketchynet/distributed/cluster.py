"""What must hold before a run on a cluster: it answers, it is large enough, every node has this package.

Without these checks the same faults are hangs: Ray tries a dead address for two minutes, waits without end for a
resource that no node has, and starts a worker again and again where its code cannot be imported.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sketchynet.distributed import session
from sketchynet.errors import InputError
from sketchynet.version import __version__

import ray  # isort: skip  (after session, which sets Ray's environment)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # isort: skip

__all__ = ["prepare_cluster", "write_timeline"]

_log = logging.getLogger(__name__)
_ANSWER_SECONDS = 20.0
_NODE_SECONDS = 25.0
_POLL_SECONDS = 1.0
_NOTICE_SECONDS = 60.0


def prepare_cluster(
    processes: int, *, gpu: bool = False, actors: int = 0, actor_gpus: float = 0.0, wait: float = 0.0
) -> None:
    """Connects to Ray and checks that ``processes`` processes, and later the rollout actors, can run there.

    Args:
        processes: of one CPU, or with ``gpu`` one GPU, each.
        actors: of a share ``actor_gpus`` of a GPU each, where that is not zero.
        wait: seconds that a cluster is given to grow to that size (its autoscaler is asked at once).

    Raises:
        InputError: within half a minute besides ``wait``: no cluster answers at ``RAY_ADDRESS``, it is too small, or a
            node lacks this version of the package.
    """
    shared = gpus_of_actors(actors, actor_gpus)
    address = os.environ.get("RAY_ADDRESS", "")
    if address in ("", "local"):
        session.connect(processes, gpu=gpu)
        _check_size(f"{actors} rollout actors", shared, "GPU", 0.0)
        return
    if not ray.is_initialized():
        _check_answer(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"RAY_ADDRESS={address}: {_first_line(error)}") from error
    _check_size(f"{processes} processes", processes, "GPU" if gpu else "CPU", wait)
    _check_size(f"{actors} rollout actors", shared, "GPU", wait)
    _check_nodes()


def gpus_of_actors(actors: int, share: float) -> int:
    """GPUs that so many actors with a share of one each need: a share never spans two.

    Raises:
        InputError: the share is negative, or above one and not whole.
    """
    if share < 0 or (share > 1 and share != int(share)):
        raise InputError(f"--actor-gpus {share:g}: give a share of a GPU, from 0 to 1, or a whole number of them")
    if share == 0:
        return 0
    return math.ceil(actors / math.floor(1 / share)) if share <= 1 else actors * int(share)


def _check_answer(address: str) -> None:
    """InputError unless a Ray cluster answers at the address."""
    if address.startswith(("http://", "https://")):
        raise InputError(
            f"RAY_ADDRESS={address} is a dashboard: submit the run there with `ray job submit` (see cluster/README.md), or "
            "give the cluster's own address, as HEAD:6379"
        )
    place = address.removeprefix("ray://")
    host, _, port = place.rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS / 2).close()
        except OSError as error:
            raise InputError(
                f"RAY_ADDRESS={address}: nothing can be reached there ({error}); start the cluster, correct the address, or "
                "unset it to run on this machine"
            ) from error
    if address.startswith("ray://"):
        return  # Ray's client has a time-out of its own
    # In a process of its own: Ray's client library ends the process that asks a dead cluster for too long.
    command = [sys.executable, "-c", "import sys; from ray.scripts.scripts import main; sys.exit(main())", "status"]
    try:
        asked = subprocess.run([*command, "--address", address], capture_output=True, check=False, text=True, timeout=_ANSWER_SECONDS)
        fault = "" if asked.returncode == 0 else _first_line(asked.stderr.strip().rsplit("\n", 1)[-1])
    except subprocess.TimeoutExpired:
        fault = f"what listens there has not answered as a Ray cluster within {_ANSWER_SECONDS:g} seconds"
    if fault:
        raise InputError(f"RAY_ADDRESS={address}: {fault}; start the cluster, or unset it to run on this machine")


def _check_size(who: str, count: int, kind: str, wait: float) -> None:
    """Waits up to ``wait`` seconds until the cluster has so many of a resource."""

    def found() -> int:
        return int(ray.cluster_resources().get(kind, 0))

    if found() >= count:
        return
    if wait > 0:
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=[{kind: 1}] * count)
        try:
            _wait_for(lambda: found() >= count, lambda: f"{found()} of {count} {kind}s", wait)
        finally:
            request_resources(num_cpus=0)  # takes the request back, or the cluster would never shrink again
    if found() < count:
        after = f" after {wait:g} seconds" if wait else ""
        raise InputError(
            f"{who} need {count} {kind}s, but the Ray cluster has {found()}{after}: ask for fewer, add "
            "nodes, or give an autoscaler time to add them with --wait SECONDS"
        )


def _wait_for(enough: Callable[[], bool], state: Callable[[], str], seconds: float) -> None:
    """Returns when there is enough or the time is over; says once a minute what there is."""
    began, told = time.monotonic(), -_NOTICE_SECONDS
    while not enough() and time.monotonic() - began < seconds:
        if time.monotonic() - told >= _NOTICE_SECONDS:
            told = time.monotonic()
            _log.warning("the cluster has %s: waiting for it to grow (%.0f of %.0f s)", state(), told - began, seconds)
        time.sleep(_POLL_SECONDS)


def _check_nodes() -> None:
    """InputError where a node cannot import this package or has another version of it."""
    probe = ray.remote(num_cpus=0, max_retries=0)(_version_probe())
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    asked = {
        probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(): address
        for node, address in nodes.items()
    }
    ready, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_NODE_SECONDS)
    faults = []
    for reference in ready:
        try:
            version = ray.get(reference)
        except Exception as error:  # noqa: BLE001 (of Ray or of the import there: the node cannot be used)
            version = _first_line(str(error).strip().rsplit("\n", 1)[-1])
        if version != __version__:
            faults.append(f"{asked[reference]} ({version})")
    for reference in silent:
        _log.warning("node %s has not answered within %g seconds; it may be busy", asked[reference], _NODE_SECONDS)
    if faults:
        raise InputError(
            f"these nodes lack sketchynet {__version__}, which runs here: {', '.join(sorted(faults))}; install it there "
            "(cluster/README.md, 'What every machine needs')"
        )


def _version_probe() -> Callable[[], Any]:
    def version() -> str:  # nested, so that it travels by value to a node that may lack this module
        try:
            from sketchynet.version import __version__
        except ImportError as error:
            return f"cannot import it: {error}"
        return __version__

    return version


def write_timeline(path: Path) -> None:
    """Writes when which task and actor ran where, as Ray has noted it, for ``chrome://tracing`` and Perfetto."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ray.timeline(filename=str(path))


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
