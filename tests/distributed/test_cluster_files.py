"""Cluster files against Ray's own schema and the fields KubeRay requires; scripts by running them."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"
LAUNCHER_FILES = ("local", "aws", "gcp")


def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_ray_accepts_the_cluster_file(name: str) -> None:
    util = pytest.importorskip("ray.autoscaler._private.util", reason="the extra 'distributed' is missing")
    config = _read(name)
    util.validate_config(util.prepare_config(config))
    with pytest.raises(Exception, match="machine_types"):
        util.validate_config(util.prepare_config(config | {"machine_types": 1}))


def test_local_cluster_counts_its_machines() -> None:
    config = _read("local")
    assert len(config["provider"]["worker_ips"]) == config["min_workers"] == config["max_workers"]


def test_hosts_of_one_machine_run_the_on_premise_file_as_it_is() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util", reason="the extra 'distributed' is missing")
    script = runpy.run_path(str(CLUSTER / "namespaces.py"))
    config, original = script["filled_in"](4), _read("local")
    assert config["provider"]["worker_ips"] == [script["address"](number) for number in (1, 2, 3)]
    assert config["max_workers"] == 3
    for key in ("file_mounts", "setup_commands", "rsync_exclude"):
        assert config[key] == original[key]
    util.validate_config(util.prepare_config(config))


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_clouds_scale_from_nothing_with_spot_and_a_head_that_stays(name: str) -> None:
    config = _read(name)
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert "GPU" not in head["resources"] and not _is_spot(head)
    assert [_is_spot(node) for node in types.values()] == [True, False]
    for node in types.values():
        assert node["min_workers"] == 0 and node["max_workers"] == config["max_workers"]
        assert node["resources"]["GPU"] == 1
    assert "-v /shared:/shared" in config["docker"]["run_options"]


def _is_spot(node: dict[str, Any]) -> bool:
    return "spot" in str(node["node_config"]).lower()


def test_ray_job_has_the_fields_that_its_api_requires() -> None:
    job = _read("rayjob")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
    cluster = spec["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    for group in workers:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] and group["groupName"]
    for group in (head, *workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["image"] and container["resources"]["limits"] == container["resources"]["requests"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    # The numbers of the entry point fit what the cluster may grow to.
    wanted = int(re.search(r"--workers (\d+)", spec["entrypoint"])[1])  # type: ignore[index]
    assert wanted <= sum(group["maxReplicas"] for group in workers)


def test_versions_agree() -> None:
    pytest.importorskip("ray", reason="the extra 'distributed' is missing")
    constraints = (CLUSTER.parent / "constraints.txt").read_text()
    assert f"ray=={_read('rayjob')['spec']['rayClusterSpec']['rayVersion']}\n" in constraints
    images = {re.search(r"sketchynet:(\d+\.\d+)", p.read_text())[1] for p in CLUSTER.glob("*.yaml") if "image:" in p.read_text()}  # type: ignore[index]
    assert images == {".".join(version("sketchynet").split(".")[:2])}


def test_on_premise_file_mounts_all_that_the_build_reads() -> None:
    mounts = _read("local")["file_mounts"]
    assert all(place == f"~/sketchynet/{source}" for place, source in mounts.items())
    text = (CLUSTER / "Containerfile").read_text()
    copied = {word for line in text.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]}
    assert set(mounts.values()) == copied - {"cluster/train.py"}  # `ray submit` brings the entry point


def test_container_file_copies_all_that_the_build_reads() -> None:
    text = (CLUSTER / "Containerfile").read_text()
    copied = {word for line in text.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]}
    assert {"pyproject.toml", "setup.py", "CMakeLists.txt", "constraints.txt", "README.md", "LICENSE"} <= copied
    assert {"csrc", "sketchynet", "cluster/train.py"} <= copied
    assert all((CLUSTER.parent / name).exists() for name in copied)


def _slurm(tmp_path: Path, *arguments: str, ray_status: int = 0, nodes: int = 3) -> subprocess.CompletedProcess[str]:
    """The Slurm script with stand-ins for Slurm's commands, Ray and Python, which write down how they were called."""
    tools = tmp_path / "env" / "bin"
    tools.mkdir(parents=True, exist_ok=True)
    (tmp_path / "cluster").mkdir(exist_ok=True)
    note = 'echo "$(basename "$0") $*" >> "$CALLS"\n'
    programs = {
        "scontrol": 'for n in $(seq "$NODES"); do echo "node$n"; done\n',
        "srun": note + 'case "$*" in *hostname*) echo "192.0.2.7 198.51.100.7" ;; esac\n',
        "ray": f"{note}exit {ray_status}\n",
        "python": note + 'echo "address $RAY_ADDRESS" >> "$CALLS"\n',
        "sleep": "exit 0\n",
    }
    for name, body in programs.items():
        (tools / name).write_text("#!/bin/bash\n" + body)
        (tools / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "NODES": str(nodes),
        "SKETCHYNET_ENV": str(tmp_path / "env"),
        "SLURM_JOB_ID": "41",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_CPUS_PER_TASK": "32",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_SUBMIT_DIR": str(tmp_path),
    }
    return subprocess.run(
        ["bash", str(CLUSTER / "slurm.sh"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_slurm_script_starts_ray_on_every_node_and_trains(tmp_path: Path) -> None:
    found = _slurm(tmp_path, "demo", "--workers", "8", "--output", "/shared/runs/first")
    assert found.returncode == 0, found.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    head = next(call for call in calls if "--head" in call)
    others = next(call for call in calls if "--address=192.0.2.7:20041" in call)
    assert "--nodelist=node1 " in head and "--port=20041" in head and "--num-gpus=4" in head
    assert "--nodelist=node2,node3 " in others and "--nodes=2 --ntasks=2" in others
    train = f"python {tmp_path}/cluster/train.py demo --workers 8 --output /shared/runs/first --or-resume"
    assert calls[calls.index(train) + 1] == "address 192.0.2.7:20041"


def test_slurm_script_says_what_is_missing(tmp_path: Path) -> None:
    found = _slurm(tmp_path, "demo", ray_status=1, nodes=1)
    assert found.returncode == 1 and "Ray did not come up at 192.0.2.7:20041" in found.stderr
    assert "python" not in (tmp_path / "calls").read_text()
    (tmp_path / "env" / "bin" / "ray").unlink()
    found = subprocess.run(
        ["bash", str(CLUSTER / "slurm.sh")],
        env=os.environ | {"SKETCHYNET_ENV": str(tmp_path / "env")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2 and "SKETCHYNET_ENV" in found.stderr


def test_entry_point_hands_over_to_sketchynet_train(monkeypatch: pytest.MonkeyPatch) -> None:
    cli = pytest.importorskip("sketchynet.cli")
    calls: list[Any] = []
    monkeypatch.setattr(cli, "main", lambda arguments: calls.append(arguments) or 0)
    monkeypatch.setattr(sys, "argv", ["train.py", "demo", "--workers", "4"])
    monkeypatch.setenv("RAY_ADDRESS", "203.0.113.1:6379")
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(CLUSTER / "train.py"), run_name="__main__")
    assert caught.value.code == 0
    assert calls == [["train", "demo", "--workers", "4"]]
    assert os.environ["RAY_ADDRESS"] == "203.0.113.1:6379"  # the one that a submitted job is given stays
