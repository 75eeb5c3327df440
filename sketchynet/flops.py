"""Floating-point operations and parameters, in the paper's convention.

FLOPs = 2 x (convolution multiply-adds + convolution-bias outputs + 2 x batch-norm outputs + ReLU outputs
+ max-pool inputs): exactly the published 40.18 G of VGG-16 features and 0.833 G of MobileNetV2 features at
256x256. A linear layer counts like a convolution, every other activation like a ReLU; global pooling,
additions of skips and unit length are not counted. Networks are counted as what they execute: folded batch
norms cost a convolution bias.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from sketchynet.models import (
    AsymmetricEmbedder,
    CanvasSelector,
    Classifier,
    Embedder,
    Ensemble,
    GreyStem,
    build_from_config,
    fold_grey_stem,
)
from sketchynet.models.norm import FoldedNorm, PrivateBatchNorm
from sketchynet.models.selector import INK_CELLS, INK_SAMPLES, POINT_FEATURES

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Sigmoid, nn.Tanh)


def count_parameters(module: nn.Module) -> int:
    """Parameters of the network as published, trained or frozen.

    A folded batch norm counts as before folding (weight and bias). What no query passes does not count: a regressor that
    only training has, and the network that embeds the photos of an `AsymmetricEmbedder`.
    """
    modules = list(module.modules())
    helpers: list[nn.Module] = [m.regressor for m in modules if isinstance(m, Embedder) and m.regressor is not None]
    helpers += [m.photos for m in modules if isinstance(m, AsymmetricEmbedder)]
    left_out = {part for helper in helpers for part in helper.modules()}
    counted = [m for m in modules if m not in left_out]
    folded = sum(m.num_features for m in counted if isinstance(m, FoldedNorm))
    parameters = {id(p): p.numel() for m in counted for p in m.parameters(recurse=False)}
    return sum(parameters.values()) + folded


def _operations(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """Half of a layer's FLOPs for one call."""
    if isinstance(module, nn.Conv2d):
        kernel = module.kernel_size[0] * module.kernel_size[1] * module.in_channels // module.groups
        return output.numel() * (kernel + (module.bias is not None))
    if isinstance(module, GreyStem):  # of one channel, it adds a map in place of a bias
        channels = inputs.shape[1]
        taps = module.weight[0, 0].numel() * channels
        return output.numel() * (taps + (channels == 1 or module.bias is not None))
    if isinstance(module, nn.Linear):
        return output.numel() * (module.in_features + (module.bias is not None))
    if isinstance(module, (nn.BatchNorm2d, PrivateBatchNorm)):
        return 2 * output.numel()
    if isinstance(module, _ACTIVATIONS):
        return output.numel()
    if isinstance(module, nn.MaxPool2d):
        return inputs.numel()
    return 0


@contextmanager
def _counting(network: nn.Module) -> Iterator[list[int]]:
    total = [0]

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        total[0] += 2 * _operations(module, inputs[0], output)

    norms = (nn.BatchNorm2d, PrivateBatchNorm)  # may hold the activation behind them, which counts for itself
    leaves = [m for m in network.modules() if isinstance(m, norms) or next(m.children(), None) is None]
    hooks = [m.register_forward_hook(count) for m in leaves]
    try:
        yield total
    finally:
        for hook in hooks:
            hook.remove()


def embedder_flops(network: Embedder | Ensemble, size: int, *, grey: bool = False) -> int:
    """FLOPs of embedding one size x size image; of a classifier, of classifying it.

    An ensemble costs the sum of its members, twice with flips. `size` need not be a canvas of the network. The paper
    counts three channels for sketches too; `grey` counts one, with the first layer folded (`fold_grey_stem`).
    """
    if isinstance(network, Ensemble):
        times = 2 if network.flip else 1
        return times * sum(embedder_flops(m, size, grey=grey) for m in network.members if isinstance(m, Embedder))
    return _counted_flops(json.dumps(network.config), size, grey)


@lru_cache(maxsize=256)
def _counted_flops(config: str, size: int, grey: bool) -> int:
    with torch.device("meta"):  # shapes alone: nothing is computed
        twin = build_from_config(json.loads(config))
        assert isinstance(twin, Embedder)
        twin = fold_grey_stem(twin) if grey else twin.eval()
        with _counting(twin) as total, torch.no_grad():
            embedding = twin(torch.zeros(1, 1 if grey else 3, size, size), 0)
            if isinstance(twin, Classifier):
                twin.head(embedding)
    return total[0]


def selector_flops(selector: CanvasSelector, steps: int) -> int:
    """FLOPs of choosing a canvas for a sketch of `steps` points.

    A GRU step has 3 H (5 + H) multiply-adds, 6 H biases and 7 H gate operations (three activations, the
    reset product and the update's two products and sum); the linear layer H K multiply-adds and K biases. Statistics
    take 12 operations a point (difference, square and sum of two coordinates, root, masked sum of length and of
    strokes, four bounds) and a perceptron's layer. The ink map takes 17 a sample of a segment (place, cell and share in
    both coordinates, four weights of three products or sums) and a logarithm a cell.
    """
    hidden = selector.hidden
    operations = (selector.head.in_features + 1) * selector.num_canvases
    if selector.gru is not None:
        operations += steps * (3 * hidden * (POINT_FEATURES + hidden) + 6 * hidden + 7 * hidden)
    if selector.counted is not None:
        operations += 12 * steps + selector.counted.out_features * (selector.counted.in_features + 2)
    if selector.reads == "ink":
        operations += 17 * INK_SAMPLES * steps + 2 * INK_CELLS**2
    return 2 * operations
