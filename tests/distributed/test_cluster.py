"""Bad input of clusters: a message within half a minute, never a hang."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sketchynet.errors import InputError


def _train(tmp_path: Path, address: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """The command itself, against an address."""
    command = [sys.executable, "-m", "sketchynet.cli", "train", "demo", "--workers", "2", "--track", "none"]
    began = time.monotonic()
    ended = subprocess.run(
        [*command, "--output", str(tmp_path / "run")],
        env=os.environ | {"RAY_ADDRESS": address, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not (tmp_path / "run").exists()  # nothing half-begun
    return time.monotonic() - began, ended


def test_a_cluster_that_cannot_be_reached(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra 'distributed' is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    seconds, ended = _train(tmp_path, address)
    assert ended.returncode == 2 and seconds < 30
    assert f"RAY_ADDRESS={address}: nothing can be reached there" in ended.stderr and "Traceback" not in ended.stderr


def test_what_listens_but_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra 'distributed' is not installed")
    from sketchynet.distributed import cluster

    monkeypatch.setattr(cluster, "_ANSWER_SECONDS", 4.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(InputError, match="has not answered as a Ray cluster within 4 seconds"):
            cluster._check_answer(f"127.0.0.1:{silent.getsockname()[1]}")
    with pytest.raises(InputError, match="is a dashboard.*ray job submit"):
        cluster._check_answer("http://127.0.0.1:8265")


def test_fewer_resources_and_nodes_of_another_version(ray_session, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    from sketchynet.distributed import cluster

    with pytest.raises(InputError, match=r"400 processes need 400 CPUs, but the Ray cluster has \d+: ask for fewer"):
        cluster._check_size("400 processes", 400, "CPU", 0.0)
    with pytest.raises(InputError, match=r"1 processes need 1 GPUs, but the Ray cluster has 0 after 1 seconds"):
        cluster._check_size("1 processes", 1, "GPU", 1.0)
    assert "waiting for it to grow" in caplog.text
    cluster._check_nodes()  # asks the real node
    monkeypatch.setattr(cluster, "__version__", "9.9")
    address = ray_session.util.get_node_ip_address()
    with pytest.raises(InputError, match=rf"lack sketchynet 9\.9, which runs here: {address} \(\d.*install it there"):
        cluster._check_nodes()


def test_a_node_without_the_package(ray_session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The probe itself, in a worker whose Python finds no sketchynet."""
    from sketchynet.distributed import cluster

    def blocked():
        def version() -> str:
            sys.modules["sketchynet.version"] = None  # type: ignore[assignment]  # what an import meets then fails
            try:
                return cluster_probe()
            finally:
                del sys.modules["sketchynet.version"]

        cluster_probe = original()
        return version

    original = cluster._version_probe
    monkeypatch.setattr(cluster, "_version_probe", blocked)
    with pytest.raises(InputError, match="cannot import it: .*sketchynet.version"):
        cluster._check_nodes()


def test_the_interface_of_an_address() -> None:
    pytest.importorskip("ray", reason="the extra 'distributed' is not installed")
    from sketchynet.distributed.interfaces import interface_of

    assert interface_of("127.0.0.1") == "lo" and interface_of("203.0.113.77") is None


def test_gpus_that_shares_of_actors_need() -> None:
    pytest.importorskip("ray", reason="the extra 'distributed' is not installed")
    from sketchynet.distributed.cluster import gpus_of_actors

    needed = {(4, 0.0): 0, (4, 0.25): 1, (5, 0.25): 2, (4, 0.4): 2, (3, 1.0): 3, (2, 2.0): 4}
    assert {key: gpus_of_actors(*key) for key in needed} == needed
    for share in (-0.5, 1.5):
        with pytest.raises(InputError, match=f"--actor-gpus {share:g}: give a share of a GPU"):
            gpus_of_actors(2, share)


def test_actors_with_gpus_where_there_are_none(ray_session, monkeypatch: pytest.MonkeyPatch) -> None:
    from sketchynet.distributed import cluster

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(InputError, match="4 rollout actors need 2 GPUs, but the Ray cluster has 0: ask for fewer"):
        cluster.prepare_cluster(1, actors=4, actor_gpus=0.5)
