"""Convolutional features, built with plain batch norms and torchvision's state_dict keys (`features.N...`).

Published weights therefore load once their `classifier.*` entries are dropped. The small ones are narrow
networks of the same blocks with a total stride of 16, made to train in minutes on a CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from sketchynet.errors import InputError


class Backbone(nn.Module):
    """`features` maps normalised images (B, 3, H, W) to (B, out_channels, ceil(H/stride), ceil(W/stride))."""

    def __init__(self, features: nn.Module, out_channels: int) -> None:
        super().__init__()
        self.features = features
        self.out_channels = out_channels

    def blocks(self) -> list[nn.Module]:
        """Its parts from the input to the embedding, for learning rates that change with the depth."""
        if isinstance(self.features, _TimmFeatures):
            return list(_unpacked(self.features.model))
        return list(self.features.children())

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)

    def with_levels(
        self, x: Tensor, levels: Sequence[int], read: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """The features, and what is read of those behind some of the `blocks`, given by their numbers from 0."""
        found = []
        for number, block in enumerate(self.blocks()):
            x = block(x)
            if number in levels:
                found.append(read(x.clone() if torch.is_grad_enabled() else x))  # the next layer may work in place
        return x, found


def _initialise(network: nn.Module) -> None:
    # He initialisation, so that the deep networks without batch norm train from random weights too.
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _vgg(plan: Sequence[int | str], *, batch_norm: bool = False) -> Backbone:
    """A VGG: each number is a 3x3 convolution of that many channels, each "M" halves the resolution."""
    layers: list[nn.Module] = []
    channels = 3
    for step in plan:
        if isinstance(step, str):
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers.append(nn.Conv2d(channels, step, 3, padding=1, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(step))
        layers.append(nn.ReLU(inplace=True))
        channels = step
    return Backbone(nn.Sequential(*layers), channels)


def _conv_norm_relu6(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand 1x1, depthwise 3x3, project 1x1 (linear); skip where shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(_conv_norm_relu6(inputs, hidden, kernel=1))
        layers += [
            _conv_norm_relu6(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skip else self.conv(x)


def _round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor` that takes away at most a tenth of the channels."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _mobile(blocks: Sequence[tuple[int, int, int, int]], *, width: float, last: int) -> Backbone:
    """A MobileNetV2 of rows (expansion, channels, repeats, stride of the first), channels times `width`."""
    channels = _round_channels(32 * width)
    layers: list[nn.Module] = [_conv_norm_relu6(3, channels, stride=2)]
    for expansion, base, repeats, stride in blocks:
        outputs = _round_channels(base * width)
        for i in range(repeats):
            layers.append(InvertedResidual(channels, outputs, stride if i == 0 else 1, expansion))
            channels = outputs
    layers.append(_conv_norm_relu6(channels, last, kernel=1))
    return Backbone(nn.Sequential(*layers), last)


class Fire(nn.Module):
    """SqueezeNet's block: squeeze 1x1, then 1x1 and 3x3 expansions side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        narrow = self.expand1x1_activation(self.expand1x1(x))
        wide = self.expand3x3_activation(self.expand3x3(x))
        return torch.cat([narrow, wide], dim=1)


def vgg16() -> Backbone:
    """VGG-16 features: 14,714,688 parameters, 512 channels, stride 32."""
    plan = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
    return _vgg(plan)


def vgg_small() -> Backbone:
    """A narrow VGG with batch norm for CPU demonstrations: 128 channels, stride 16."""
    return _vgg((16, "M", 32, "M", 64, 64, "M", 96, 96, "M", 128, 128), batch_norm=True)


def vgg_tiny() -> Backbone:
    """`vgg_small` at half its width, a student that learns in few steps: 64 channels, stride 16."""
    return _vgg((8, "M", 16, "M", 32, 32, "M", 48, 48, "M", 64, 64), batch_norm=True)


def mobilenet_v2() -> Backbone:
    """MobileNetV2 features: 2,223,872 parameters, 1280 channels, stride 32."""
    blocks = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    return _mobile(blocks, width=1.0, last=1280)


def mobile_small() -> Backbone:
    """A MobileNetV2 of width 0.35 with fewer blocks, for CPU demonstrations: 192 channels, stride 16."""
    blocks = ((1, 16, 1, 1), (4, 24, 1, 2), (4, 32, 2, 2), (6, 64, 3, 2), (6, 96, 2, 1))
    return _mobile(blocks, width=0.35, last=192)


def squeezenet1_1() -> Backbone:
    """SqueezeNet 1.1 features: 722,496 parameters, 512 channels, stride 16."""
    layers = [
        nn.Conv2d(3, 64, 3, stride=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    ]
    return Backbone(nn.Sequential(*layers), 512)


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "vgg16": vgg16,
    "mobilenet_v2": mobilenet_v2,
    "squeezenet1_1": squeezenet1_1,
    "vgg_small": vgg_small,
    "vgg_tiny": vgg_tiny,
    "mobile_small": mobile_small,
}


TIMM_PREFIX = "features.model."
"""What precedes timm's own keys in the state of a timm backbone."""


class _TimmFeatures(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        features = self.model.forward_features(x)  # type: ignore[operator]  # timm's own method, untyped
        if features.ndim != 4:
            raise InputError(
                f"{type(self.model).__name__} gives features {tuple(features.shape)}, not (B, C, H, W): "
                "choose a convolutional timm network"
            )
        return features


def _unpacked(network: nn.Module) -> Iterator[nn.Module]:
    """A network's parts in order, those inside plain sequences one by one."""
    for part in network.children():
        if type(part) is nn.Sequential:
            yield from _unpacked(part)
        else:
            yield part


def _timm(name: str) -> Backbone:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # a torchvision of another build raises RuntimeError
        raise InputError(
            f"backbone 'timm:{name}' needs timm and a torchvision that fits this torch; timm does not import "
            f"({error}): install both, or choose one of {', '.join(BACKBONES)}"
        ) from error
    try:
        model = timm.create_model(name, pretrained=False, num_classes=0)
    except RuntimeError as error:
        raise InputError(f"timm has no network {name!r} ({error}): timm.list_models() names them") from error
    return Backbone(_TimmFeatures(model), model.num_features)


def build_backbone(name: str) -> Backbone:
    """Build features with random weights.

    Args:
        name: one of `BACKBONES`; "NAME/STRIDE", the part of it before the first layer that goes beyond that stride, so that
            positions stay as close as that; or "timm:NAME" (optional extra).
    """
    if name.startswith("timm:"):
        return _timm(name.removeprefix("timm:"))
    known, cut, stride = name.partition("/")
    if known not in BACKBONES:
        raise InputError(f"backbone {name!r} is unknown: choose one of {', '.join(BACKBONES)}, or timm:NAME")
    backbone = BACKBONES[known]()
    _initialise(backbone)
    return _until_stride(backbone, name, stride) if cut else backbone


def level_sizes(name: str, levels: Sequence[int], fields: int) -> list[int]:
    """How much is read of the features behind some parts of a backbone, given by their numbers from 0: channels times fields².

    Raises:
        InputError: the backbone has no such part, or is not a sequence of parts.
    """
    if not levels:
        return []
    if name.startswith("timm:"):
        raise InputError(f"backbone {name!r} has no levels to read: choose one of {', '.join(BACKBONES)}")
    with torch.device("meta"):  # shapes alone are computed
        backbone = build_backbone(name).eval()
        count = len(backbone.blocks())
        for level in levels:
            if not 0 <= level < count:
                raise InputError(f"level {level} of backbone {name!r} does not exist: its parts are numbered 0 to {count - 1}")
        _, found = backbone.with_levels(torch.zeros(1, 3, 256, 256), levels, lambda x: x[0, :, 0, 0])
    return [fields * fields * len(channels) for channels in found]


def _until_stride(whole: Backbone, name: str, stride: str) -> Backbone:
    """The first layers of a backbone, as many as keep a total stride."""
    if not stride.isdecimal() or int(stride) < 2:
        raise InputError(f"backbone {name!r}: the stride {stride!r} must be a number from 2, such as 16")
    side = 64 * int(stride)
    x = torch.zeros(1, 3, side, side, device="meta")  # shapes alone are computed
    kept: list[nn.Module] = []
    channels = 0
    for layer in whole.features.children():
        x = copy.deepcopy(layer).to("meta").eval()(x)
        if round(side / x.shape[-1]) > int(stride):
            break
        kept.append(layer)
        channels = x.shape[1]
    if not channels:
        raise InputError(f"backbone {name!r}: its first layer goes beyond a stride of {stride} already")
    return Backbone(nn.Sequential(*kept), channels)
