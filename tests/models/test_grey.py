from __future__ import annotations

import pytest
import torch
from torch import nn

from sketchynet.errors import InputError
from sketchynet.flops import embedder_flops
from sketchynet.models import Classifier, Embedder, Ensemble, GreyStem, fold_grey_stem


def _canvas(size: int) -> torch.Tensor:
    """Ink up to the borders, where taps lie in the padding."""
    return torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(size))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "bias"), [(3, 2, 1, 1, False), (3, 1, 0, 1, True), (5, 2, 2, 1, True), (3, 1, 4, 2, False)]
)
def test_the_folded_layer_gives_the_same_output(kernel: int, stride: int, padding: int, dilation: int, bias: bool) -> None:
    from sketchynet.models.inputs import grey_input, sketch_input

    torch.manual_seed(0)
    conv = nn.Conv2d(3, 6, kernel, stride, padding, dilation, bias=bias).double()
    stem = GreyStem(conv).eval()
    for size in (16, 23, 16):
        canvas = _canvas(size)
        expected = conv(sketch_input(canvas).double())
        torch.testing.assert_close(stem(sketch_input(canvas).double()), expected)
        # The input itself is float32: its rounding is all that differs.
        torch.testing.assert_close(stem(grey_input(canvas).double()), expected, rtol=1e-5, atol=1e-5)
        # Without the border's map the padding would count as ink: the outermost rows would be wrong.
        assert padding == 0 or stem._map(grey_input(canvas).double()).std(dim=(2, 3)).max() > 1e-3


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "squeezenet1_1", "vgg_tiny", "mobile_small"])
def test_sketches_are_embedded_as_before_and_photos_too(backbone: str) -> None:
    torch.manual_seed(0)
    network = Embedder(backbone, canvases=(32, 64), normalize=True).eval()
    folded = fold_grey_stem(network)
    photos = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        for size in (32, 64):
            torch.testing.assert_close(folded.embed_sketches(_canvas(size)), network.embed_sketches(_canvas(size)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(folded.embed_photos(photos), network.embed_photos(photos), rtol=1e-5, atol=1e-6)
    assert folded.state_dict().keys() == network.state_dict().keys() and not network.grey


def test_flops_of_one_channel_are_counted_and_the_papers_stay() -> None:
    network = Embedder("mobilenet_v2")
    outputs = 32 * 128 * 128
    paper, grey = embedder_flops(network, 256), embedder_flops(network, 256, grey=True)
    # Two thirds of the layer's multiply-adds are saved; the map costs what a bias would.
    assert paper - grey == 2 * outputs * (2 * 9 - 1) and round(paper / 1e9, 3) == 0.833
    assert embedder_flops(fold_grey_stem(network), 256) == paper
    squeeze = Embedder("squeezenet1_1")
    side = (128 - 3) // 2 + 1
    assert embedder_flops(squeeze, 128) - embedder_flops(squeeze, 128, grey=True) == 2 * 64 * side * side * 2 * 9
    pair = Ensemble([network, network], flip=True)
    assert embedder_flops(pair, 256, grey=True) == 4 * grey


def test_a_classifier_is_folded_with_its_head() -> None:
    network = Classifier("vgg_tiny", canvases=(32,), classes=4).eval()
    nn.init.normal_(network.head.weight)
    for found, expected in zip(fold_grey_stem(network).classify(_canvas(32)), network.classify(_canvas(32)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_folded_is_named() -> None:
    network = Embedder("vgg_tiny", canvases=(32,))
    folded = fold_grey_stem(network).train()
    with pytest.raises(InputError, match="is for evaluation"):
        folded.embed_sketches(_canvas(32))
    with pytest.raises(InputError, match=r"'vgg_tiny' cannot be given a grey first layer.*found none"):
        fold_grey_stem(folded)
    network.backbone.features[0] = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")
    with pytest.raises(InputError, match="found Conv2d; leave evaluation.grey_stem off"):
        fold_grey_stem(network)
