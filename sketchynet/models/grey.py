"""A first layer for grey canvases: a third of its multiplications, the same output.

A canvas is grey: its three normalised channels are affine in one another. With w the kernel, m and s the channels' mean
and deviation, and g the grey image, a tap inside the image sees sum_c w_c (g - m_c) / s_c, and a tap in the padding
sees 0. So the layer is one convolution of g with sum_c w_c / s_c, minus one of an image of ones with
sum_c w_c m_c / s_c. The second does not depend on g: it is a constant in the middle of the output, another one along
each border, where taps lie in the padding, and is kept as a map for each size.

Shapes: B batch, S canvas side, C output channels.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sketchynet.errors import InputError
from sketchynet.models.embedder import Embedder
from sketchynet.models.inputs import IMAGE_MEAN, IMAGE_STD

_Network = TypeVar("_Network", bound=Embedder)


class GreyStem(nn.Module):
    """A first convolution for normalised RGB images (B, 3, H, W) and, folded, for grey ones (B, 1, H, W) in 0..1.

    Takes over the convolution's weight and bias, under the same names. It is folded once: the weights must not change
    afterwards.
    """

    grey_weight: Tensor
    grey_shift: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation
        with torch.no_grad():
            std = conv.weight.new_tensor(IMAGE_STD).view(1, 3, 1, 1)
            scaled = conv.weight / std
            self.register_buffer("grey_weight", scaled.sum(dim=1, keepdim=True), persistent=False)
            shift = (scaled * conv.weight.new_tensor(IMAGE_MEAN).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
            self.register_buffer("grey_shift", shift, persistent=False)
        self._maps: dict[tuple[int, int, torch.device, torch.dtype], Tensor] = {}

    def _convolved(self, image: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(image, weight, bias, self.stride, self.padding, self.dilation)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 3:
            return self._convolved(x, self.weight, self.bias)
        if self.training:
            raise InputError("a network with a folded first layer is for evaluation: train the one it was made from")
        return self._convolved(x, self.grey_weight) + self._map(x)

    def _map(self, x: Tensor) -> Tensor:
        """What does not depend on the image, bias included: (1, C, H', W')."""
        key = (*x.shape[2:], x.device, x.dtype)
        if key not in self._maps:
            with torch.no_grad():
                shift = -self._convolved(x.new_ones(1, 1, *x.shape[2:]), self.grey_shift.to(x.dtype))
                self._maps[key] = shift if self.bias is None else shift + self.bias.view(1, -1, 1, 1)
        return self._maps[key]


def fold_grey_stem(network: _Network) -> _Network:
    """A copy, in evaluation mode, that embeds sketches through a first layer of one channel; photos go in as before.

    Raises:
        InputError: the network has no first layer that is a plain convolution of three channels.
    """
    folded = copy.deepcopy(network)
    convs = [
        (parent, name, conv)
        for parent in folded.backbone.modules()
        for name, conv in parent.named_children()
        if isinstance(conv, nn.Conv2d) and conv.in_channels == 3
    ]
    plain = [c for *_, c in convs if type(c) is nn.Conv2d and c.groups == 1 and c.padding_mode == "zeros"]
    if len(convs) != 1 or len(plain) != 1:
        found = ", ".join(type(conv).__name__ for *_, conv in convs) or "none"
        raise InputError(
            f"backbone {network.config['backbone']!r} cannot be given a grey first layer: it needs one plain Conv2d of "
            f"three channels, found {found}; leave evaluation.grey_stem off"
        )
    parent, name, conv = convs[0]
    setattr(parent, name, GreyStem(conv))
    folded.grey = True
    return folded.eval()
