from __future__ import annotations

import pytest
import torch
from torch import nn

from sketchynet.flops import count_parameters, embedder_flops, selector_flops
from sketchynet.models import CanvasSelector, Classifier, Embedder, Ensemble


@pytest.mark.parametrize(
    ("backbone", "parameters", "printed", "gflops"),
    [("vgg16", 14_714_688, "14.71", "40.18"), ("mobilenet_v2", 2_223_872, "2.22", "0.833")],
)
def test_the_papers_figures(backbone: str, parameters: int, printed: str, gflops: str) -> None:
    with torch.device("meta"):
        network = Embedder(backbone)
    assert count_parameters(network) == parameters and f"{parameters / 1e6:.2f}" == printed
    value = embedder_flops(network, 256) / 1e9
    assert f"{value:.{len(gflops.split('.')[1])}f}" == gflops


@pytest.mark.parametrize("backbone", ["vgg_small", "mobile_small", "squeezenet1_1"])
def test_against_a_count_by_hand(backbone: str) -> None:
    network = Embedder(backbone, norm="shared").eval()
    total = 0

    def count(module: nn.Module, inputs, output) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel() + output.numel() * (module.bias is not None)
        elif isinstance(module, nn.BatchNorm2d):
            total += 2 * output.numel()
        elif isinstance(module, (nn.ReLU, nn.ReLU6)):
            total += output.numel()
        elif isinstance(module, nn.MaxPool2d):
            total += inputs[0].numel()

    for module in network.modules():
        module.register_forward_hook(count)
    network(torch.zeros(1, 3, 64, 64), 0)
    assert embedder_flops(network, 64) == 2 * total


def test_norms_cost_the_same_unless_folded() -> None:
    costs = {n: embedder_flops(Embedder("mobile_small", norm=n), 64) for n in ("private", "frozen", "shared")}
    assert len(set(costs.values())) == 1
    folded = Embedder("mobile_small", norm="folded")
    assert embedder_flops(folded, 64) < costs["frozen"]
    assert count_parameters(folded) == count_parameters(Embedder("mobile_small"))


def test_counting_leaves_the_network_alone() -> None:
    network = Embedder("mobile_small").train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    embedder_flops(network, 32)
    assert network.training and not any(m._forward_hooks for m in network.modules())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_ensemble_counts_every_pass() -> None:
    one, two = Embedder("mobile_small"), Embedder("vgg_small", projection=10)
    single = [embedder_flops(m, 64) for m in (one, two)]
    assert embedder_flops(Ensemble([one, two]), 64) == sum(single)
    assert embedder_flops(Ensemble([one, two], flip=True), 64) == 2 * sum(single)
    assert single[1] - embedder_flops(Embedder("vgg_small"), 64) == 2 * 10 * (128 + 1)


def test_selector() -> None:
    selector = CanvasSelector()
    assert count_parameters(selector) == 52_356
    step = 3 * 128 * (5 + 128) + 6 * 128 + 7 * 128
    assert selector_flops(selector, 1) == 2 * (step + 128 * 4 + 4)
    assert selector_flops(selector, 101) - selector_flops(selector, 1) == 200 * step


def test_a_classifiers_linear_layer_counts() -> None:
    classifier = Classifier("mobile_small", classes=10, canvases=(32,))
    embedder = Embedder("mobile_small", canvases=(32,))
    assert embedder_flops(classifier, 32) - embedder_flops(embedder, 32) == 2 * 10 * (192 + 1)
    assert embedder_flops(Ensemble([classifier], flip=True), 32) == 2 * embedder_flops(classifier, 32)


def test_a_norm_that_holds_its_activation_counts_both() -> None:
    from torch import nn

    from sketchynet.flops import _counting
    from sketchynet.models import PrivateBatchNorm

    norm = PrivateBatchNorm(4, 2)
    norm.after = nn.Sequential(nn.Identity(), nn.ReLU())
    with _counting(nn.Sequential(norm)) as total:
        norm.eval()(torch.zeros(1, 4, 5, 5))
    assert total[0] == 2 * (2 * 100 + 100)
