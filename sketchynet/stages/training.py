"""The loop that trains one network by gradient, for every stage and task that does.

Data-parallel and single-process training are the same code: see :mod:`sketchynet.stages.runtime`. After
every epoch rank 0 writes a checkpoint from which the stage goes on bit for bit (CPU, same number of threads).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from sketchynet import checkpoint
from sketchynet.config import OptimizationConfig
from sketchynet.errors import InputError
from sketchynet.models.embedder import Embedder
from sketchynet.stages.batches import BatchPlan, prefetched
from sketchynet.stages.runtime import Report, Runtime

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
    plan: Callable[[int, int], tuple[tuple[int, ...], int]]
    """(epoch, step) → canvas sizes and photo size of that step."""
    optimization: OptimizationConfig
    seed: int
    parameters: Mapping[str, Any]
    """What the log shows of the stage's settings."""


def train_network(stage: TrainingStage, runtime: Runtime, folder: Path) -> None:
    """Trains a network and writes it to ``folder/final``; goes on from the newest checkpoint if there is one.

    A stage whose ``final`` exists is done and returns at once.
    """
    final = folder / "final"
    if final.exists():
        return
    settings = stage.optimization
    if runtime.world_size > settings.batch_size // 4:
        raise InputError(
            f"{stage.name}: {runtime.world_size} workers share a batch of {settings.batch_size}; each needs "
            "at least 4. Use fewer --workers or a larger optimization.batch_size"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        network = stage.build().to(runtime.device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    run = _Run(stage, runtime, network)
    if runtime.rank == 0:
        checkpoint.remove_partial(folder)
    newest = checkpoint.latest_epoch(folder)
    if newest is not None:
        run.restore(newest)
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
                run.save(checkpoint.epoch_directory(folder, run.epoch), state=True)
                checkpoint.prune_epochs(folder, keep=2)
        runtime.report(Report(stage.name, "metrics", run.epoch, metrics=figures))
        runtime.barrier()
    if runtime.rank == 0:
        run.save(final, state=False)
        checkpoint.prune_epochs(folder, keep=0)
    runtime.report(Report(stage.name, "end", run.epoch, payload={"status": "FINISHED"}))
    runtime.barrier()


class _Run:
    """The moving parts of a training run."""

    def __init__(self, stage: TrainingStage, runtime: Runtime, network: Embedder) -> None:
        self.stage, self.runtime, self.network = stage, runtime, network
        self.epoch = self.steps = 0
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(network, stage.optimization), lr=stage.optimization.learning_rate
        )
        self.average = {k: v.clone() for k, v in network.state_dict().items()}
        self.best: dict[str, torch.Tensor] | None = None
        self.best_score = -math.inf
        self.metrics: dict[str, float] = {}

    def train_epoch(self) -> dict[str, float]:
        """One pass over the examples; the mean figures of its steps."""
        stage, runtime, network = self.stage, self.runtime, self.network
        batches = stage.examples.epoch(self.epoch)
        plans = [BatchPlan(batch, *stage.plan(self.epoch, step)) for step, batch in enumerate(batches)]
        steps = len(plans)
        network.train()
        sums: dict[str, float] = {}
        started = reported = time.monotonic()
        drawn = prefetched(
            plans,
            lambda plan, rows: stage.examples.compose(plan, epoch=self.epoch, rows=rows),
            rank=runtime.rank,
            world_size=runtime.world_size,
        )
        for step, (plan, batch) in enumerate(drawn):
            self._set_learning_rate((self.epoch * steps + step) / (stage.optimization.epochs * steps))
            # Networks with random layers (timm's stochastic depth) stay reproducible after a resume.
            entropy = np.random.SeedSequence([stage.seed, self.epoch, step, runtime.rank])
            torch.manual_seed(int(entropy.generate_state(1)[0]))
            precise = stage.optimization.precision == "float32"
            with torch.autocast(runtime.device.type, dtype=torch.bfloat16, enabled=not precise):
                outputs = stage.examples.outputs(network, batch, runtime.device)
            gathered = [runtime.gather(rows.float()) for rows in outputs]
            loss, figures = stage.examples.loss(gathered, plan, self.epoch)
            self._step(loss)
            for key, value in ({"loss": float(loss.detach())} | figures).items():
                sums[key] = sums.get(key, 0.0) + value
            if time.monotonic() - reported > 1.0:
                reported = time.monotonic()
                runtime.report(Report(stage.name, "progress", self.epoch, metrics={"share": (step + 1) / steps}))
        runtime.average_buffers(network)
        self.epoch += 1
        seconds = time.monotonic() - started
        pairs_seen = sum(len(batch) for batch in batches)
        figures = {key: value / steps for key, value in sums.items()}
        rates = {"seconds": seconds, "pairs_per_second": pairs_seen / seconds}
        return figures | rates | {"learning_rate": self.optimizer.param_groups[-1]["lr"]}

    def _step(self, loss: torch.Tensor) -> None:
        if not torch.isfinite(loss):
            raise InputError(
                f"{self.stage.name}: the loss is {float(loss)} in epoch {self.epoch + 1}; lower "
                "optimization.learning_rate, then --resume from the last good epoch"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.runtime.sum_gradients(self.network.parameters())
        clip = self.stage.optimization.gradient_clip
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        self.optimizer.step()
        self.steps += 1
        if self.stage.optimization.averaging:
            decay = min(self.stage.optimization.averaging, self.steps / (self.steps + 9))
            # Running statistics are averaged like the weights that they belong to.
            for name, value in self.network.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1.0 - decay)
                else:
                    self.average[name].copy_(value)

    def _set_learning_rate(self, progress: float) -> None:
        settings = self.stage.optimization
        if progress < settings.warmup:
            factor = max(progress / settings.warmup, 0.01)
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (progress - settings.warmup) / (1 - settings.warmup)))
        for group in self.optimizer.param_groups:
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
        figures = stage.examples.validate(self.network)
        self.network.load_state_dict(current)
        if figures["validation/score"] > self.best_score or stage.optimization.keep == "last":
            self.best, self.best_score, self.metrics = weights, figures["validation/score"], figures
        return figures

    def save(self, directory: Path, *, state: bool) -> None:
        """Writes a checkpoint: the kept weights, and with ``state`` all that a resume needs."""
        kept = self.best if self.best is not None else self.weights()
        training = {
            "epoch": self.epoch,
            "steps": self.steps,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "best_score": self.best_score if self.best is not None else None,
            "metrics": self.metrics,
        }
        checkpoint.write_checkpoint(
            directory,
            network=kept,
            config=self.network.config,
            metrics={"epochs": self.epoch} | self.metrics,
            state=training if state else None,
        )

    def restore(self, directory: Path) -> None:
        """Goes back to a checkpoint that :meth:`save` wrote with its state."""
        found = checkpoint.read_state(directory)
        checkpoint.load_into(self.network, found["network"], place=str(directory))
        self.average = {k: v.to(self.runtime.device) for k, v in found["average"].items()}
        self.optimizer.load_state_dict(found["optimizer"])
        self.best, self.metrics = found["best"], found["metrics"]
        self.epoch, self.steps = found["epoch"], found["steps"]
        self.best_score = -math.inf if found["best_score"] is None else found["best_score"]


def _parameter_groups(network: Embedder, settings: OptimizationConfig) -> list[dict[str, Any]]:
    """Groups by block of the backbone, for the learning rate, and by kind, for the weight decay.

    Weight decay is for matrices and kernels only: biases and norms have one dimension.
    """
    blocks = list(network.backbone.features.children())
    depth_of = {id(p): depth for depth, block in enumerate(blocks) for p in block.parameters()}
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            depth = depth_of.get(id(parameter), len(blocks) - 1)
            groups.setdefault((depth, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": settings.weight_decay if decayed else 0.0,
            "factor": settings.layer_decay ** (len(blocks) - 1 - depth),
        }
        for (depth, decayed), parameters in groups.items()
    ]
