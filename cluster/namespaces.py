"""A cluster of separate hosts on one machine: the on-premise file, run for real.

    sudo python cluster/namespaces.py check     # bring it up, train twice, lose a node, compare, take it down
    sudo python cluster/namespaces.py up        # bring it up and leave it
    sudo python cluster/namespaces.py down

Every host is a set of Linux namespaces: its own network (address, sshd on port 22), processes (`ray stop` there ends
Ray there alone, and killing the host's first process takes every other one with it, as a power failure does), host
name, home folder, shared memory and Ray's temporary folder. Only the folder `shared` is common, as NFS would be.
`cluster/local.yaml` is filled in and run by `ray up`; what is added to it says how small the hosts are.

Needs root, Debian's openssh-server, iproute2, rsync and util-linux, and the environment of `make test`. What it
starts is ended by the process ids it wrote down; nothing else on the machine is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from sketchynet.config import override
from sketchynet.recipes import find_recipe

ROOT = Path(__file__).resolve().parents[1]
STATE = Path("/var/tmp/sketchynet-one-host")
SHARED = STATE / "shared"
BRIDGE, NETWORK = "sketchynet0", "10.198.51"
NAME = "sketchynet-one-host"
DASHBOARD = 18265
TINY = (  # a run of seconds, to look at the cluster rather than at what is trained
    'data.options={"train": 24, "validation": 8, "test": 10, "sketches": 2}', "data.photo_size=32",
    "teacher.canvas=32", "teacher.train_sizes=[32]", "teacher.optimization.epochs=60", "student.canvases=[16, 32]",
    "teacher.optimization.batch_size=12", "student.optimization.batch_size=12", "student.canvases_per_step=null",
    "student.photo_size=32", "student.optimization.epochs=6", "selector.max_points=24",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("check", "up", "down"))
    parser.add_argument("--hosts", type=int, default=3, metavar="N", help="hosts with one CPU each (default 3)")
    parser.add_argument("--tiny", action="store_true", help="train for seconds instead of the whole demo")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("namespaces.py needs root: network and process namespaces are made")
    for tool in ("ip", "/usr/sbin/sshd", "rsync", "unshare", "ssh-keygen"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing (Debian: apt-get install openssh-server iproute2 rsync util-linux)")
    if options.action == "down":
        down()
        return 0
    if options.hosts < 3:
        sys.exit(f"--hosts {options.hosts}: at least 3, so that two are left when one is lost")
    down()
    try:
        up(options.hosts)
        if options.action == "check":
            check(options.tiny)
    except BaseException:
        down()
        raise
    if options.action == "check":
        down()
    return 0


# --- hosts -----------------------------------------------------------------------------------------------------------


def up(count: int) -> None:
    """Makes the hosts and starts Ray on them by the on-premise file."""
    for folder in (STATE, SHARED):
        folder.mkdir(parents=True, exist_ok=True)
    key = STATE / "key"
    if not key.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    for number in range(count):
        start_host(number)
    said(f"{count} hosts: {', '.join(map(address, range(count)))}")
    file = STATE / "local.yaml"
    file.write_text(yaml.safe_dump(filled_in(count), sort_keys=False))
    began = time.monotonic()
    ray("up", "-y", "--no-config-cache", file, log="ray-up")
    said(f"ray up {file}: {time.monotonic() - began:.0f} s")
    wait_for_nodes(count)


def start_host(number: int) -> None:
    """A host: namespaces, an address, sshd."""
    name, home = host(number), STATE / host(number) / "home"
    make_home(home)
    run("ip", "netns", "add", name)
    run("ip", "link", "add", f"{name}e", "type", "veth", "peer", "name", "eth0", "netns", name)
    run("ip", "link", "set", f"{name}e", "master", BRIDGE, "up")
    inside = ("ip", "-n", name)
    run(*inside, "addr", "add", f"{address(number)}/24", "dev", "eth0")
    run(*inside, "link", "set", "eth0", "up")
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "route", "add", "default", "via", f"{NETWORK}.1")  # Ray finds its own address by its default route
    folder = home.parent
    (folder / "ray").mkdir(exist_ok=True)
    host_key = folder / "host_key"
    if not host_key.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host_key)
    (folder / "sshd_config").write_text(
        f"ListenAddress {address(number)}\nHostKey {host_key}\nAuthorizedKeysFile {STATE}/key.pub\nStrictModes no\n"
        f"PermitRootLogin prohibit-password\nPasswordAuthentication no\nUsePAM no\nPidFile none\n"
        "Subsystem sftp internal-sftp\nMaxStartups 100\n"
    )
    kept = "".join(  # what lies in the home that is hidden, and the host needs all the same
        f"mkdir -p {home / path.relative_to(Path.home())} && mount --bind {path} {home / path.relative_to(Path.home())} && "
        for path in (Path(sys.base_prefix), Path(sys.prefix), STATE)
        if path.is_relative_to(Path.home())
    )
    prepare = (
        f"{kept}mount --rbind {home} {Path.home()} && mkdir -p /tmp/ray /run/sshd && mount --bind {folder}/ray /tmp/ray && "
        f"mount -t tmpfs -o size=1g tmpfs /dev/shm && hostname {name} && "
        f"exec /usr/sbin/sshd -D -f {folder}/sshd_config -E {folder}/sshd.log"
    )
    command = ["ip", "netns", "exec", name, "unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc"]
    process = subprocess.Popen(  # outlives this script (`up`), so its number is written down
        [*command, "--mount-proc", "sh", "-c", prepare], start_new_session=True, stdin=subprocess.DEVNULL
    )
    remember(name, process.pid)
    until(lambda: subprocess.run([*ssh(number), "true"], capture_output=True, check=False).returncode == 0, 30, f"sshd of {name}")


def make_home(home: Path) -> None:
    """A home with an environment that borrows this one's packages, so that the file's setup commands only build."""
    home.mkdir(parents=True, exist_ok=True)
    environment = home / "sketchynet-env"
    if not environment.exists():
        base = Path(sys.prefix)
        run(sys.executable, "-m", "venv", "--without-pip", environment)
        [packages] = environment.glob("lib/python*/site-packages")
        [borrowed] = base.glob("lib/python*/site-packages")
        (packages / "borrowed.pth").write_text(f"{borrowed}\n")
        script = environment / "bin" / "ray"
        # Under the name that it has in the host, where the home lies in its usual place.
        python = Path.home() / "sketchynet-env" / "bin" / "python"
        script.write_text(f"#!{python}\nimport sys\nfrom ray.scripts.scripts import main\nsys.exit(main())\n")
        script.chmod(0o755)
    # Without a network to PyPI: build with what is there. (pip reads 0 as "no isolation".)
    (home / ".bashrc").write_text(
        f"export PIP_NO_BUILD_ISOLATION=0 PIP_NO_INDEX=1 PIP_ROOT_USER_ACTION=ignore\nexport PATH=$PATH:{sys.prefix}/bin\n"
    )


def filled_in(count: int) -> dict[str, Any]:
    """`local.yaml` with its marked places filled in, and the hosts made as small as they are."""
    config = yaml.safe_load((ROOT / "cluster" / "local.yaml").read_text())
    config["cluster_name"] = NAME
    config["provider"] |= {"head_ip": address(0), "worker_ips": [address(n) for n in range(1, count)]}
    config["auth"] |= {"ssh_user": "root", "ssh_private_key": str(STATE / "key")}
    config["min_workers"] = config["max_workers"] = count - 1
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[commands] = [
            command.replace(" start ", " start --num-cpus=1 --object-store-memory=268435456 ") for command in config[commands]
        ]
    return config


def kill_host(number: int) -> None:
    """SIGKILL for the first process of a host, and so for all of its processes."""
    name = host(number)
    os.kill(known()[name], signal.SIGKILL)
    until(lambda: not alive(known()[name]), 10, f"the end of {name}")


def down() -> None:
    """Ends what is written down, and removes the network."""
    for pid in known().values():
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: not alive(pid), 10, f"the end of process {pid}")
    (STATE / "processes.json").unlink(missing_ok=True)
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    for name in listed:
        if name.startswith("sknode"):
            run("ip", "netns", "delete", name)
    # A namespace that a dying process still holds would keep its end of the cable, and this one, for a while.
    for link in (*sorted(Path("/sys/class/net").glob("sknode*e")), Path("/sys/class/net") / BRIDGE):
        if link.exists():
            subprocess.run(["ip", "link", "delete", link.name], capture_output=True, check=False)
            until(lambda link=link: not link.exists(), 10, f"the end of {link.name}")


# --- what is checked -------------------------------------------------------------------------------------------------


def check(tiny: bool) -> None:
    """Trains by `ray submit` and by `ray job submit`, the latter losing a host, and compares."""
    runs = SHARED / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    recipe = SHARED / "recipe.json"  # a file, because `ray submit` takes quotes off its arguments
    recipe.write_text(override(find_recipe("demo"), TINY if tiny else ()).model_dump_json(indent=1))
    common = [recipe, "--workers", "2", "--track", "jsonl", "--cache", SHARED / "cache"]
    began = time.monotonic()
    ray("submit", STATE / "local.yaml", ROOT / "cluster" / "train.py", *common, "--output", runs / "alone", log="ray-submit")
    said(f"ray submit: trained in {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    with dashboard():
        job = subprocess.Popen(
            ray_command(
                "job", "submit", "--address", f"http://127.0.0.1:{DASHBOARD}", "--working-dir", ROOT / "cluster", "--",
                "python", "train.py", *common, "--output", runs / "struck"),
            env=client_environment(), stdout=(STATE / "ray-job-submit.log").open("w"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        lost = lose_a_host(runs / "struck", job)
        status = job.wait()
    if status != 0:
        sys.exit(f"the job ended with status {status}: see {STATE}/ray-job-submit.log")
    said(f"ray job submit: trained in {time.monotonic() - began:.0f} s, {host(lost)} killed on the way")
    notice = [line for line in (STATE / "ray-job-submit.log").read_text().splitlines() if "start again" in line]
    said(f"the job said: worker{notice[0].partition('worker')[2] if notice else 's, nothing'}")
    first, second = (figures(runs / name) for name in ("alone", "struck"))
    for name, value in first.items():
        said(f"  {name:<24} Acc@1 {value:.4f}  with a host lost {second[name]:.4f}")
    if not notice:
        sys.exit("the killed host had no part in the run: nothing was shown")
    if first != second:
        sys.exit("the run that lost a host ended with other figures")
    weights = [(runs / name / "student" / "final" / "network.safetensors").read_bytes() for name in ("alone", "struck")]
    said(f"final figures equal; weights of SketchyNetV1 {'equal to the bit' if weights[0] == weights[1] else 'differ'}")


def lose_a_host(run: Path, job: subprocess.Popen[bytes]) -> int:
    """Kills a host that trains as soon as the first network has a checkpoint; returns its number."""
    until(lambda: bool(list(run.glob("teacher-0/epoch-*"))) or job.poll() is not None, 900, "the first checkpoint")
    for number in reversed(range(1, len(known()))):  # not the head, which holds the driver
        found = subprocess.run([*ssh(number), "pgrep -f 'ray::.*[Tt]rain' | wc -l"], capture_output=True, check=False, text=True)
        if int(found.stdout.split()[-1]) > 0:
            kill_host(number)
            return number
    sys.exit("no host but the head trains")


def figures(run: Path) -> dict[str, float]:
    summary = json.loads((run / "evaluation.json").read_text())
    return {name: scopes["all"]["acc1"] for name, scopes in summary["systems"].items()}


@contextmanager
def dashboard():
    """The tunnel of `ray dashboard`, open for as long as it is needed."""
    with (STATE / "ray-dashboard.log").open("w") as log:
        tunnel = subprocess.Popen(
            ray_command("dashboard", "--port", DASHBOARD, STATE / "local.yaml"),
            env=client_environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        def answers() -> bool:
            address = f"http://127.0.0.1:{DASHBOARD}/api/version"
            return subprocess.run(["curl", "-sf", "-m", "5", address], capture_output=True, check=False).returncode == 0
        until(answers, 60, "the dashboard")
        yield
    finally:
        os.killpg(tunnel.pid, signal.SIGTERM)
        tunnel.wait()


def wait_for_nodes(count: int) -> None:
    code = "import ray; ray.init('auto', logging_level='ERROR'); print(sum(n['Alive'] for n in ray.nodes()))"
    command = [*ssh(0), f"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 ~/sketchynet-env/bin/python -c \"{code}\""]
    began = time.monotonic()

    def all_there() -> bool:
        found = subprocess.run(command, capture_output=True, check=False, text=True).stdout.split()
        return bool(found) and found[-1] == str(count)

    until(all_there, 400, f"{count} Ray nodes")
    said(f"{count} Ray nodes after another {time.monotonic() - began:.0f} s")


# --- small things ----------------------------------------------------------------------------------------------------


def host(number: int) -> str:
    return f"sknode{number}"


def address(number: int) -> str:
    return f"{NETWORK}.{10 + number}"


def ssh(number: int) -> list[str]:
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    return ["ssh", "-i", str(STATE / "key"), *options, "-o", "ConnectTimeout=3", f"root@{address(number)}"]


def client_environment() -> dict[str, str]:
    """For the machine one sits at: a home without another cluster's token, no address of another cluster."""
    home = STATE / "client"
    home.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return kept | {"HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0", "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}


def ray_command(*arguments: object) -> list[str]:
    code = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
    return [sys.executable, "-c", code, *map(str, arguments)]


def ray(*arguments: object, log: str) -> None:
    path = STATE / f"{log}.log"
    with path.open("w") as file:
        ended = subprocess.run(ray_command(*arguments), env=client_environment(), cwd=ROOT, stdout=file,
                               stderr=subprocess.STDOUT, check=False)
    if ended.returncode != 0:
        tail = "\n".join(path.read_text().splitlines()[-20:])
        sys.exit(f"ray {arguments[0]} ended with status {ended.returncode} (all of it in {path}):\n{tail}")


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


def known() -> dict[str, int]:
    path = STATE / "processes.json"
    return json.loads(path.read_text()) if path.exists() else {}


def remember(name: str, pid: int) -> None:
    (STATE / "processes.json").write_text(json.dumps(known() | {name: pid}))


def alive(pid: int) -> bool:
    """Whether a process that was written down still runs; another one that got its number since does not count."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
    try:
        return str(STATE).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def until(true, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            sys.exit(f"waited {seconds:g} s for {what}, in vain; logs are in {STATE}")
        time.sleep(0.5)


def said(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
