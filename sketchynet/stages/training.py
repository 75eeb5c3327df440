"""The loop that trains one network by gradient, for every stage and task that does.

Data-parallel and single-process training are the same code: see :mod:`sketchynet.stages.runtime`. After
every epoch, and every so many steps inside it where the recipe says so, rank 0 writes a checkpoint from which the
stage goes on bit for bit (CPU, same number of threads and workers) or, with another number of workers, with the same
batches. Everything random is derived from seed, epoch, step and example: (epoch, step) is all that there is of random
states and the sampler's position.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from sketchynet import checkpoint
from sketchynet.config import OptimizationConfig
from sketchynet.errors import InputError
from sketchynet.models.embedder import Embedder
from sketchynet.stages.batches import BatchPlan, Prefetched, drawers_beside
from sketchynet.stages.runtime import Report, Runtime, agreed
from sketchynet.stages.steps import Step, check_shares

__all__ = ["Examples", "TrainingStage", "train_network"]


class Examples(Protocol):
    """What a network learns from, and how it is told: the task's part of a training stage."""

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The global batches of an epoch, each the int64 numbers of its sketches."""

    def compose(self, plan: BatchPlan, *, epoch: int, rows: np.ndarray) -> Any:
        """Draws ``rows`` (this worker's part) of a planned batch."""

    def outputs(self, network: Embedder, batch: Any, device: torch.device) -> list[torch.Tensor]:
        """What the loss needs of the network, each a tensor with one row an example of this worker."""

    def loss(
        self, outputs: list[torch.Tensor], plan: BatchPlan, epoch: int
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Scalar loss of the global batch, from the outputs of all workers, and figures for the log."""

    def validate(self, network: Embedder) -> dict[str, float]:
        """Figures on the validation split; ``validation/score`` decides which weights are kept."""


@dataclass(frozen=True)
class TrainingStage:
    """One network to train."""

    name: str
    build: Callable[[], Embedder]
    """Makes the network with its first weights; torch's generator is seeded before."""
    examples: Examples
    plan: Callable[[int, int], tuple[tuple[int, ...], tuple[int, ...]]]
    """(epoch, step) → canvas sizes of that step, and the photo size that goes with each."""
    optimization: OptimizationConfig
    seed: int
    parameters: Mapping[str, Any]
    """What the log shows of the stage's settings."""


def train_network(stage: TrainingStage, runtime: Runtime, folder: Path) -> None:
    """Trains a network and writes it to ``folder/final``; goes on from the newest checkpoint if there is one.

    A stage whose ``final`` exists is done and returns at once.
    """
    final = folder / "final"
    if agreed(runtime, checkpoint.is_complete(final)):
        return
    settings = stage.optimization
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        network = stage.build().to(runtime.device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    check_shares(stage.name, stage.examples.epoch(0), network.norm, settings, runtime.world_size)
    run = _Run(stage, runtime, network, folder)
    run.restore()
    runtime.report(
        Report(stage.name, "start", run.epoch, payload={"epochs": settings.epochs, "parameters": dict(stage.parameters)})
    )
    runtime.barrier()
    while run.epoch < settings.epochs:
        figures = run.train_epoch()
        if runtime.rank == 0:
            if run.epoch % settings.validate_every == 0 or run.epoch == settings.epochs:
                figures |= run.validate()
            if run.epoch < settings.epochs:
                run.save()
        runtime.report(Report(stage.name, "metrics", run.epoch, metrics=figures))
        runtime.barrier()
    if runtime.rank == 0:
        run.finish(final)
    runtime.report(Report(stage.name, "end", run.epoch, payload={"status": "FINISHED"}))
    runtime.barrier()


class _Run:
    """The moving parts of a training run."""

    def __init__(self, stage: TrainingStage, runtime: Runtime, network: Embedder, folder: Path) -> None:
        self.stage, self.runtime, self.network, self.folder = stage, runtime, network, folder
        self.epoch = self.step = self.updates = 0
        self.sums: dict[str, float] = {}
        self.take_step = Step(network, stage.examples.outputs, stage.optimization, runtime)
        self.average = {k: v.clone() for k, v in network.state_dict().items()}
        self.best: dict[str, torch.Tensor] | None = None
        self.best_score = -math.inf
        self.metrics: dict[str, float] = {}

    def train_epoch(self) -> dict[str, float]:
        """The epoch's examples that are left; the mean figures of its steps."""
        stage, runtime, network, settings = self.stage, self.runtime, self.network, self.stage.optimization
        batches = stage.examples.epoch(self.epoch)
        plans = [BatchPlan(batch, *stage.plan(self.epoch, step)) for step, batch in enumerate(batches)]
        steps, first = len(plans), self.step
        network.train()
        started = reported = time.monotonic()
        drawn = Prefetched(
            plans[first:],
            lambda plan, rows: stage.examples.compose(plan, epoch=self.epoch, rows=rows),
            rank=runtime.rank,
            world_size=runtime.world_size,
            parts=settings.accumulate,
            drawers=drawers_beside(runtime.device),
        )
        for plan, parts in drawn:
            self._set_learning_rate((self.epoch * steps + self.step) / (settings.epochs * steps))
            self._update(plan, parts)
            if settings.checkpoint_every and self.step % settings.checkpoint_every == 0 and self.step < steps:
                runtime.average_buffers(network)
                if runtime.rank == 0:
                    self.save()
            if time.monotonic() - reported > 1.0:
                reported = time.monotonic()
                runtime.report(Report(stage.name, "progress", self.epoch, metrics={"share": self.step / steps}))
        runtime.average_buffers(network)
        figures = {key: value / steps for key, value in self.sums.items()}
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}
        seconds = time.monotonic() - started
        rates = {
            "seconds": seconds,
            "pairs_per_second": sum(map(len, batches[first:])) / seconds,
            "input_wait_share": drawn.waited / seconds,
        }
        return figures | rates | {"learning_rate": self.take_step.optimizer.param_groups[-1]["lr"]}

    def _update(self, plan: BatchPlan, parts: list[Any]) -> None:
        """One step, and the average of the weights over the steps."""
        stage = self.stage
        try:
            loss, figures = self.take_step(
                parts,
                lambda gathered: stage.examples.loss(gathered, plan, self.epoch),
                (stage.seed, self.epoch, self.step),
            )
        except FloatingPointError as error:
            raise InputError(
                f"{stage.name}: {error} in epoch {self.epoch + 1}, step {self.step + 1}; lower "
                "optimization.learning_rate, then --resume from the last good epoch"
            ) from None
        for key, value in ({"loss": loss} | figures).items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.step += 1
        self.updates += 1
        if stage.optimization.averaging:
            decay = min(stage.optimization.averaging, self.updates / (self.updates + 9))
            # Running statistics are averaged like the weights that they belong to.
            values = self.network.state_dict()
            floating = [name for name, value in values.items() if value.is_floating_point()]
            for name in values.keys() - set(floating):
                self.average[name].copy_(values[name])
            # All at once: on a GPU a launch for each would take longer than what it does.
            torch._foreach_lerp_([self.average[n] for n in floating], [values[n] for n in floating], 1.0 - decay)

    def _set_learning_rate(self, progress: float) -> None:
        settings = self.stage.optimization
        if progress < settings.warmup:
            factor = max(progress / settings.warmup, 0.01)
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (progress - settings.warmup) / (1 - settings.warmup)))
        for group in self.take_step.optimizer.param_groups:
            group["lr"] = settings.learning_rate * factor * group["factor"]

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights that are evaluated: averaged ones where the recipe averages."""
        return self.average if self.stage.optimization.averaging else self.network.state_dict()

    def validate(self) -> dict[str, float]:
        """Validates the current weights and remembers them if they are the best so far."""
        stage = self.stage
        current = {k: v.clone() for k, v in self.network.state_dict().items()}
        weights = {k: v.clone() for k, v in self.weights().items()}
        self.network.load_state_dict(weights)
        # The compiled code is for training: another for one evaluation would take longer than it saves.
        with torch.compiler.set_stance("force_eager") if stage.optimization.compile else nullcontext():
            figures = stage.examples.validate(self.network)
        self.network.load_state_dict(current)
        if figures["validation/score"] > self.best_score or stage.optimization.keep == "last":
            self.best, self.best_score, self.metrics = weights, figures["validation/score"], figures
        return figures

    def save(self) -> None:
        """Writes a checkpoint with all that a resume needs, and keeps the one before it."""
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "updates": self.updates,
            "sums": self.sums,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.take_step.optimizer.state_dict(),
            "scaler": self.take_step.scaler.state_dict(),
            "best": self.best,
            "best_score": self.best_score if self.best is not None else None,
            "metrics": self.metrics,
        }
        self._write(checkpoint.epoch_directory(self.folder, self.epoch, self.step), state)
        checkpoint.prune_epochs(self.folder, keep=2)

    def finish(self, final: Path) -> None:
        """Writes the kept weights; the checkpoints on the way are not needed any more."""
        self._write(final, None)
        checkpoint.prune_epochs(self.folder, keep=0)

    def _write(self, directory: Path, state: Any) -> None:
        kept = self.best if self.best is not None else self.weights()
        metrics = {"epochs": self.epoch} | self.metrics
        checkpoint.write_checkpoint(
            directory, network=kept, config=self.network.config, metrics=metrics, state=state
        )

    def restore(self) -> None:
        """Goes back to the newest undamaged checkpoint, if there is one.

        Rank 0 looks on the storage and says which; the others read the same.
        """
        position = (-1, 0)
        if self.runtime.rank == 0:
            checkpoint.remove_partial(self.folder)
            newest, damaged = checkpoint.newest_whole(self.folder)
            if newest is not None:
                found = checkpoint.read_state(newest)
                position = found["epoch"], found["step"]
            for text in damaged:
                notice = f"{self.stage.name}: {text}; going on from the checkpoint before it, {newest}"
                self.runtime.report(Report(self.stage.name, "notice", payload={"text": notice}))
        epoch, step = (agreed(self.runtime, number) for number in position)
        if epoch < 0:
            return
        directory = checkpoint.epoch_directory(self.folder, epoch, step)
        found = checkpoint.read_state(directory)
        checkpoint.load_into(self.network, found["network"], place=str(directory))
        self.average = {k: v.to(self.runtime.device) for k, v in found["average"].items()}
        self.take_step.optimizer.load_state_dict(found["optimizer"])
        if found["scaler"]:
            self.take_step.scaler.load_state_dict(found["scaler"])
        self.best, self.metrics = found["best"], found["metrics"]
        self.epoch, self.step, self.updates, self.sums = epoch, step, found["updates"], found["sums"]
        self.best_score = -math.inf if found["best_score"] is None else found["best_score"]
