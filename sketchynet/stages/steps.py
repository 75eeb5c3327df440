"""One step of training: embeddings, the loss of the whole batch, gradients, weights.

A worker's share of the global batch may be too large for its memory. It is then embedded in parts (Gao et al.
2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"): a first pass without gradients gives
all embeddings, the loss of the whole batch gives the gradient at each of them, and a second pass repeats part after
part and sends these gradients on into the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from sketchynet.config import OptimizationConfig
from sketchynet.errors import InputError
from sketchynet.models.embedder import Embedder
from sketchynet.models.norm import statistics_kept, synchronise_norms
from sketchynet.stages.runtime import Runtime

__all__ = ["Step", "check_shares"]

_LOW_PRECISION = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_VARIANTS = 64  # of compiled code for one function: domains of norms, canvas sizes, batches of two lengths

Outputs = Callable[[Embedder, Any, torch.device], list[torch.Tensor]]
Loss = Callable[[list[torch.Tensor]], tuple[torch.Tensor, dict[str, float]]]


class Step:
    """The step of one network, by one worker among several.

    Holds the optimiser and the scaler of float16's gradients; the network is changed in place.
    """

    def __init__(
        self, network: Embedder, outputs: Outputs, settings: OptimizationConfig, runtime: Runtime
    ) -> None:
        self._network, self._outputs, self._settings, self._runtime = network, outputs, settings, runtime
        self.optimizer = torch.optim.AdamW(_parameter_groups(network, settings), lr=settings.learning_rate)
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=settings.precision == "float16")
        if settings.synchronize_norms and runtime.world_size > 1:
            synchronise_norms(network, runtime.share)
        if settings.compile:
            from torch._dynamo import config  # seconds to import

            config.recompile_limit = max(config.recompile_limit, _VARIANTS)
            network.backbone.compile()

    def __call__(self, parts: Sequence[Any], loss: Loss, seed: Sequence[int]) -> tuple[float, dict[str, float]]:
        """Changes the weights; returns the loss and its figures.

        Args:
            parts: this worker's share of the batch, drawn, whole or in parts.
            loss: of the global batch, from the gathered outputs.
            seed: of the network's random layers (dropout, stochastic depth) in this step.

        Raises:
            FloatingPointError: the loss is not finite; the weights are unchanged.
        """
        network, settings = self._network, self._settings
        self.optimizer.zero_grad(set_to_none=True)
        if len(parts) == 1:
            value, figures = self._backward(self._embed(parts[0], seed, 0), loss)
        else:
            value, figures = self._backward_in_parts(parts, loss, seed)
        self._runtime.sum_gradients(network.parameters())
        self.scaler.unscale_(self.optimizer)
        if settings.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value, figures

    def _embed(self, part: Any, seed: Sequence[int], number: int) -> list[torch.Tensor]:
        """Outputs of one part, in float32 at least; the same whenever they are asked for within a step."""
        entropy = np.random.SeedSequence([*seed, self._runtime.rank, number])
        torch.manual_seed(int(entropy.generate_state(1)[0]))
        low = _LOW_PRECISION.get(self._settings.precision)
        with torch.autocast(self._runtime.device.type, dtype=low or torch.bfloat16, enabled=low is not None):
            outputs = self._outputs(self._network, part, self._runtime.device)
        return [rows.float() if rows.dtype in _LOW_PRECISION.values() else rows for rows in outputs]

    def _backward(self, outputs: list[torch.Tensor], loss: Loss) -> tuple[float, dict[str, float]]:
        """Gradients of the global batch's loss, down to whatever this worker's outputs hang on."""
        value, figures = loss([self._runtime.gather(rows) for rows in outputs])
        if not torch.isfinite(value):
            raise FloatingPointError(f"the loss is {float(value.detach())}")
        self.scaler.scale(value).backward()
        return float(value.detach()), figures

    def _backward_in_parts(
        self, parts: Sequence[Any], loss: Loss, seed: Sequence[int]
    ) -> tuple[float, dict[str, float]]:
        with torch.no_grad():
            cached = [self._embed(part, seed, number) for number, part in enumerate(parts)]
        joined = [torch.cat(rows).requires_grad_() for rows in zip(*cached, strict=True)]
        value, figures = self._backward(joined, loss)
        lengths = [len(rows[0]) for rows in cached]
        wanted = [None if rows.grad is None else rows.grad.split(lengths) for rows in joined]
        with statistics_kept(self._network):  # the first pass has counted this batch
            for number, part in enumerate(parts):
                outputs = self._embed(part, seed, number)
                used = [(rows, g[number]) for rows, g in zip(outputs, wanted, strict=True) if g is not None]
                torch.autograd.backward([rows for rows, _ in used], [gradient for _, gradient in used])
        return value, figures


def check_shares(
    name: str, batches: Sequence[np.ndarray], norm: str, settings: OptimizationConfig, workers: int
) -> None:
    """Refuses batches that leave a worker, or a part of its share, with too little.

    Norms with statistics of the batch need two examples; others one.

    Raises:
        InputError: names the smallest batch and what to change.
    """
    shares = workers * settings.accumulate
    smallest = min(map(len, batches))
    least = 1 if norm in ("frozen", "folded") else 2
    if shares > 1 and smallest < shares * least:
        parts = f", each in accumulate = {settings.accumulate} parts," if settings.accumulate > 1 else ""
        raise InputError(
            f"{name}: {workers} workers{parts} share batches of {settings.batch_size}, of which the smallest has "
            f"{smallest} examples; each needs at least {least} (norm {norm!r}). Use fewer --workers, a smaller "
            "optimization.accumulate, a larger optimization.batch_size, or optimization.batches=mixed"
        )


def _parameter_groups(network: Embedder, settings: OptimizationConfig) -> list[dict[str, Any]]:
    """Groups by block of the backbone, for the learning rate, and by kind, for the weight decay.

    Weight decay is for matrices and kernels only: biases and norms have one dimension.
    """
    blocks = network.backbone.blocks()
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
