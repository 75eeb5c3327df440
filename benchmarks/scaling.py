"""How the work spreads over processes: rollouts over actors, training on Ray against this process; and what is moved.

    python benchmarks/scaling.py                      # all parts; writes rows to benchmarks/results/scaling.jsonl
    python benchmarks/scaling.py --part rollouts --rounds 9

`rollouts`   the rewards of freshly augmented sketches at all canvases, by one actor and by two, in turn, on the same
             requests; every process has one thread. A ratio is a round's; the table shows their quantiles.
`overhead`   a step of training by one worker on Ray against a step in this process, both of one thread, in turn; the
             first epoch of every run (start-up, first allocations) is left out.
`jobs`       two networks side by side in processes of one thread (`train --jobs 2`), against one in a process of two
             threads, in turn: steps a second of both, again without the first epoch.
`compute`    CPU time of the parts of a step of the student, a pair: drawing it, embedding it forwards and back, and of a
             rollout; with the FLOPs and the activations behind it, for other processors.
`sizes`      what a run moves and keeps: bytes of a step's messages, of the objects in the store, of a checkpoint.

A wall-clock ratio is only as good as the machine is quiet: every row has the load at its beginning and its end. On a
machine that others use too, `chrt -f 1 python benchmarks/scaling.py …` (as root) takes the cores for the time that it needs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from measuring import quantiles, setting

from sketchynet import checkpoint
from sketchynet.config import Recipe, override
from sketchynet.data.pairs import PairedSet
from sketchynet.data.procedural import procedural_pairs
from sketchynet.distributed.side_by_side import train_side_by_side
from sketchynet.flops import embedder_flops
from sketchynet.recipes import find_recipe
from sketchynet.stages.allocator import keep_freed_memory
from sketchynet.stages.batches import BatchPlan, compose, random_canvases
from sketchynet.stages.embedding import embed_photos
from sketchynet.stages.networks import new_embedder
from sketchynet.stages.rewards import Judge, RolloutWorker
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import LocalRuntime, Report, Rollout, RolloutRequest, Runtime
from sketchynet.stages.task import TRAIN, task_of
from sketchynet.stages.teacher import train_member

PHOTOS = 96
CHUNK = 64  # rows that an actor answers at a time, as in a pipeline
VIEWS = 32  # sketches asked about in a round, at every canvas


def recipe() -> Recipe:
    """The networks, canvases and augmentation of the recipe for real data, from scratch, on procedural chairs."""
    changes = ("student.network.weights=null", "teacher.network.weights=null")
    return override(find_recipe("qmul_v1"), changes)


def pairs_of(size: int) -> PairedSet:
    return procedural_pairs(PHOTOS, 8, 10, 2, size, 0)


# --- rollouts --------------------------------------------------------------------------------------------------------


def worker_of(settings: Recipe) -> tuple[RolloutWorker, PairedSet]:
    """A rollout worker with one frozen student; its weights make no difference to the time."""
    pairs = pairs_of(settings.student.photo_size)
    torch.manual_seed(0)
    student = new_embedder(settings.student.network, settings.student.canvases, None).eval()
    photos = pairs.photo_indices(TRAIN)
    gallery = embed_photos(student, pairs, photos, settings.student.photo_size)
    judge = Judge(student, pairs.sketch_indices(TRAIN), photos, (gallery,) * len(settings.student.canvases))
    worker = RolloutWorker(
        pairs, [judge], settings.student.canvases, settings.augmentation, margin=settings.selector.margin, seed=0
    )
    return worker, pairs


def request(pairs: PairedSet, canvases: int, view: int) -> RolloutRequest:
    """Views that nobody has asked for yet, at every canvas."""
    rows = pairs.sketch_indices(TRAIN)[np.random.default_rng(view).permutation(PHOTOS)[:VIEWS]]
    chosen = np.repeat(rows, canvases)
    return RolloutRequest(chosen, np.full(len(chosen), view), np.tile(np.arange(canvases), len(rows)))


def itself(worker: Rollout) -> Rollout:
    return worker


def rollouts(rounds: int) -> dict[str, Any]:
    from sketchynet.distributed.rollouts import RolloutPool
    from sketchynet.distributed.session import connect

    settings = recipe()
    worker, pairs = worker_of(settings)
    connect(3)  # one actor and two of them, both pools alive all the time
    canvases = len(settings.student.canvases)
    times: dict[int, list[float]] = {1: [], 2: []}
    answers = {}
    with RolloutPool(partial(itself, worker), 1, CHUNK) as one, RolloutPool(partial(itself, worker), 2, CHUNK) as two:
        for number in range(rounds + 1):
            asked = request(pairs, canvases, number + 1)
            order = [(1, one), (2, two)]
            for actors, pool in order if number % 2 else order[::-1]:
                began = time.perf_counter()
                answers[actors] = pool(asked)
                times[actors].append(time.perf_counter() - began)
            assert np.array_equal(answers[1].ranks, answers[2].ranks)
            assert np.array_equal(answers[1].triplets, answers[2].triplets)
    first, second = times[1][1:], times[2][1:]  # the first round warms up
    ratios = [a / b for a, b in zip(first, second, strict=True)]
    rows = VIEWS * canvases
    return {
        "part": "rollouts",
        "rows": rows,
        "one_actor_rows_per_second": [rows / value for value in quantiles(first)[::-1]],
        "two_actors_rows_per_second": [rows / value for value in quantiles(second)[::-1]],
        "speed_up": quantiles(ratios),
        "rounds": ratios,
    }


# --- overhead --------------------------------------------------------------------------------------------------------


def train(runtime: Runtime, folder: Path, settings: Recipe, *, member: int = 0, threads: int = 1) -> None:
    """One member of the full network: what a worker runs."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    task = task_of(settings, pairs_of(settings.data.photo_size))
    train_member(member, task, runtime, RunFolder(folder), sketches=task.indices(TRAIN), weights=None)


def step_seconds(reports: list[Report], steps: int) -> list[float]:
    """Seconds of a step in every epoch but the first."""
    return [report.metrics["seconds"] / steps for report in reports if report.kind == "metrics"][1:]


def short(*, size: int, epochs: int, batch: int) -> Recipe:
    """A schedule of a few epochs for a member at one size."""
    small = (f"data.photo_size={size}", f"teacher.canvas={size}", f"teacher.train_sizes=[{size}]",
             f"teacher.optimization.epochs={epochs}", f"teacher.optimization.validate_every={epochs}",
             f"teacher.optimization.batch_size={batch}")  # fmt: skip
    return override(recipe(), small)


def overhead(rounds: int) -> dict[str, Any]:
    from sketchynet.distributed.training import run_training

    batch = 16
    settings = short(size=64, epochs=6, batch=batch)
    steps = -(-PHOTOS // batch)
    times: dict[str, list[float]] = {"process": [], "ray": []}
    ratios = []
    for _ in range(rounds):
        medians = {}
        for name in ("process", "ray"):
            reports: list[Report] = []
            with tempfile.TemporaryDirectory() as folder:
                job = partial(train, folder=Path(folder) / "run", settings=settings)
                if name == "process":
                    job(LocalRuntime(listener=reports.append))
                else:
                    run_training(
                        job, workers=1, storage=Path(folder), name="bench", listener=reports.append, threads_per_worker=1
                    )
            found = step_seconds(reports, steps)
            times[name] += found
            medians[name] = statistics.median(found)
        ratios.append(medians["ray"] / medians["process"])
    return {
        "part": "overhead",
        "steps_an_epoch": steps,
        "batch": batch,
        "process_step_seconds": quantiles(times["process"]),
        "ray_step_seconds": quantiles(times["ray"]),
        "ratio": quantiles(ratios),
        "rounds": ratios,
    }


# --- jobs ------------------------------------------------------------------------------------------------------------


def train_named(names: Collection[str], runtime: Runtime, *, folder: Path, settings: Recipe) -> None:
    [name] = names
    train(runtime, folder, settings, member=int(name.removeprefix("teacher-")))


def jobs(rounds: int) -> dict[str, Any]:
    batch, size, beside = 24, 128, 2
    settings = short(size=size, epochs=4, batch=batch)
    steps = -(-PHOTOS // batch)
    rates: dict[str, list[float]] = {"one": [], "beside": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            reports: list[Report] = []
            train(LocalRuntime(listener=reports.append), Path(folder) / "alone", settings, threads=beside)
            rates["one"].append(1.0 / statistics.median(step_seconds(reports, steps)))
            named: dict[str, list[Report]] = {RunFolder.teacher(member): [] for member in range(beside)}
            train_side_by_side(
                dict.fromkeys(named, ()),
                partial(train_named, folder=Path(folder), settings=settings),
                jobs=beside,
                threads=1,
                listener=lambda report, named=named: named[report.stage].append(report),
                consoles=Path(folder) / "consoles",
            )
            rates["beside"].append(sum(1.0 / statistics.median(step_seconds(found, steps)) for found in named.values()))
    ratios = [beside / one for one, beside in zip(rates["one"], rates["beside"], strict=True)]
    return {
        "part": "jobs",
        "steps_an_epoch": steps,
        "batch": batch,
        "size": size,
        "one_steps_per_second": quantiles(rates["one"]),
        "beside_steps_per_second": quantiles(rates["beside"]),
        "speed_up": quantiles(ratios),
        "rounds": ratios,
    }


# --- compute ---------------------------------------------------------------------------------------------------------


def activations(network: torch.nn.Module, size: int) -> int:
    """Numbers that all layers put out for one photo of that size."""
    counted = 0

    def count(module: torch.nn.Module, given: Any, output: torch.Tensor) -> None:
        nonlocal counted
        counted += output.numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if not list(m.children())]
    with torch.no_grad():
        network.embed_photos(torch.zeros(1, size, size, 3, dtype=torch.uint8))  # type: ignore[operator]
    for hook in hooks:
        hook.remove()
    return counted


def compute(rounds: int) -> dict[str, Any]:
    settings = recipe()
    student = settings.student
    canvases = student.canvases_per_step or len(student.canvases)
    worker, pairs = worker_of(settings)
    torch.manual_seed(0)
    network = new_embedder(student.network, student.canvases, None).train()
    sketches = pairs.sketch_indices(TRAIN)[:16]
    asked = request(pairs, len(student.canvases), 1)
    times: dict[str, list[float]] = {"compose": [], "embed": [], "rollout": []}
    for number in range(rounds + 1):
        chosen = random_canvases(student.canvases, canvases, seed=0, epoch=0, step=number)
        plan = BatchPlan(sketches, chosen, (student.photo_size,) * len(chosen))
        marks = [time.process_time()]
        batch = compose(pairs, plan, settings.augmentation, seed=0, epoch=number, rows=np.arange(len(sketches)))
        marks.append(time.process_time())
        outputs = [*map(network.embed_photos, batch.images), *map(network.embed_sketches, batch.canvases)]
        sum(rows.square().mean() for rows in outputs).backward()
        marks.append(time.process_time())
        worker(asked)
        marks.append(time.process_time())
        if number:  # the first round warms up
            for (name, found), begin, end in zip(times.items(), marks, marks[1:], strict=False):
                found.append((end - begin) / (len(asked) if name == "rollout" else len(sketches)))
    network.eval()
    mean = statistics.mean(embedder_flops(network, size) for size in student.canvases)
    photo = embedder_flops(network, student.photo_size)
    held = statistics.mean(activations(network, size) for size in student.canvases)
    return {
        "part": "compute",
        "canvases_a_step": canvases,
        "compose_cpu_seconds_a_pair": quantiles(times["compose"]),
        "embed_cpu_seconds_a_pair": quantiles(times["embed"]),
        "rollout_cpu_seconds_a_row": quantiles(times["rollout"]),
        "forward_gflops_a_pair": (photo + canvases * mean) / 1e9,
        "activations_a_pair": activations(network, student.photo_size) + canvases * held,
    }


# --- sizes -----------------------------------------------------------------------------------------------------------


def sizes(rounds: int) -> dict[str, Any]:
    """Bytes, counted from the objects themselves."""
    from ray import cloudpickle

    settings = recipe()
    worker, pairs = worker_of(settings)
    student = new_embedder(settings.student.network, settings.student.canvases, None)
    teacher = new_embedder(settings.teacher.network, (settings.teacher.canvas,), None)
    found: dict[str, Any] = {"part": "sizes"}
    canvases = settings.student.canvases_per_step or len(settings.student.canvases)
    for name, network, views in (("student", student, canvases), ("teacher", teacher, 1)):
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        found |= {f"{name}_parameters": trained, f"{name}_gradient_bytes": 4 * trained, f"{name}_embedding": network.dim,
                  f"{name}_gathered_bytes_a_pair": 4 * network.dim * (views + 1)}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        optimizer = torch.optim.AdamW(student.parameters())
        for parameter in student.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        copies = [{name: value.clone() for name, value in student.state_dict().items()} for _ in range(3)]
        state = {"network": copies[0], "average": copies[1], "best": copies[2], "optimizer": optimizer.state_dict()}
        target = Path(folder) / "epoch-00001"
        weights = student.state_dict()
        checkpoint.write_checkpoint(target, network=weights, config=student.config, metrics={}, state=state)
        found["student_checkpoint_bytes"] = sum(file.stat().st_size for file in target.iterdir())
    asked = request(pairs, len(settings.student.canvases), 1).part(slice(0, CHUNK))
    photo = pairs.photos[0].nbytes
    points = pairs.sketches.points.nbytes / len(pairs.sketches)
    return found | {
        "rollout_worker_bytes": len(cloudpickle.dumps(worker)),
        "rollout_request_bytes": len(cloudpickle.dumps(asked)),
        "rollout_rows": CHUNK,
        "photo_bytes": photo,
        "sketch_points_bytes": points,
    }


PARTS = {"sizes": sizes, "compute": compute, "rollouts": rollouts, "overhead": overhead, "jobs": jobs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="this part alone (may be repeated)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of every competitor (default 5)")
    default = Path(__file__).parent / "results" / "scaling.jsonl"
    parser.add_argument("--output", type=Path, default=default, metavar="FILE", help="rows are added to it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.part or PARTS:
        load = os.getloadavg()[0]
        row = PARTS[name](options.rounds)
        row |= {"load": [round(load, 2), round(os.getloadavg()[0], 2)], "cores": len(os.sched_getaffinity(0))}
        row["scheduling"] = "fifo" if os.sched_getscheduler(0) == os.SCHED_FIFO else "other"
        row |= setting(torch.device("cpu"))
        print(json.dumps(row, indent=1))
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with options.output.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
