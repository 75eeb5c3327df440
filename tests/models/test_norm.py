from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sketchynet.errors import InputError
from sketchynet.models import Embedder, PrivateBatchNorm, build_backbone
from sketchynet.models.norm import convert_norms, fold_norms, set_domain

CANVASES = (16, 32)


def _photos(generator: torch.Generator, count: int = 64) -> Tensor:
    """Bright, smooth colour images."""
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    fine = nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")
    return (128 + 127 * fine).byte().permute(0, 2, 3, 1).contiguous()


def _canvases(generator: torch.Generator, side: int, count: int = 64) -> Tensor:
    """Thin random lines on empty canvases."""
    canvas = torch.zeros(count, side, side, dtype=torch.uint8)
    for image in canvas:
        for row in torch.randint(0, side, (3,), generator=generator):
            image[row] = 255
    return canvas


def _disagreement(embed: Callable[[Tensor], Tensor], network: nn.Module, batch: Tensor) -> float:
    """Distance between training- and evaluation-mode embeddings, relative to the spread of the former."""
    probe = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        network.train()
        training = embed(batch)
        network.load_state_dict(probe)  # the probe itself must not move the statistics
        network.eval()
        evaluation = embed(batch)
    spread = (training - training.mean(dim=0)).norm(dim=1).mean()
    return float((training - evaluation).norm(dim=1).mean() / spread)


def _trained(norm: str) -> tuple[Embedder, torch.Generator]:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    network = Embedder("vgg_small", canvases=CANVASES, norm=norm).train()
    with torch.no_grad():
        for _ in range(30):
            for side in CANVASES:
                network.embed_sketches(_canvases(generator, side))
            network.embed_photos(_photos(generator))
    return network, generator


class _BatchNormAct2d(nn.BatchNorm2d):
    """As timm's: the activation is the norm's own."""

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(super().forward(x)))


def test_a_norm_with_its_activation_becomes_private() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), _BatchNormAct2d(4)).eval()
    nn.init.normal_(network[1].weight)
    x = torch.randn(2, 3, 5, 5)
    expected = network(x)
    assert expected.min() == 0.0
    private = convert_norms(copy.deepcopy(network), "private", 2)
    assert isinstance(private[1], PrivateBatchNorm) and private[1].weight.equal(network[1].weight)
    torch.testing.assert_close(private.eval()(x), expected)
    for norm in ("frozen", "folded"):
        with pytest.raises(InputError, match=r"knows no _BatchNormAct2d.*choose norm='private' or 'shared'"):
            convert_norms(copy.deepcopy(network), norm, 2)


def test_private_norms_agree_between_training_and_evaluation_and_shared_do_not() -> None:
    worst = {}
    for norm in ("private", "shared"):
        network, generator = _trained(norm)
        gaps = [
            _disagreement(network.embed_sketches, network, _canvases(generator, side)) for side in CANVASES
        ]
        gaps.append(_disagreement(network.embed_photos, network, _photos(generator)))
        worst[norm] = max(gaps)
    assert worst["private"] < 0.5
    assert worst["shared"] > 1.5


def test_one_private_domain_is_a_batch_norm() -> None:
    torch.manual_seed(0)
    private, plain = PrivateBatchNorm(5, 3), nn.BatchNorm2d(5, momentum=None)
    private.domain = 2
    for _ in range(3):
        x = torch.randn(4, 5, 3, 3) * 2 + 1
        torch.testing.assert_close(private(x), plain(x))
    torch.testing.assert_close(private.running_mean[2], plain.running_mean)
    torch.testing.assert_close(private.running_var[2], plain.running_var)
    assert private.num_batches_tracked.tolist() == [0, 0, 3]
    assert torch.equal(private.running_mean[:2], torch.zeros(2, 5))
    torch.testing.assert_close(private.eval()(x), plain.eval()(x))


def test_running_statistics_become_exponential() -> None:
    norm, mean = PrivateBatchNorm(1, 1), 0.0
    for step in range(1, 15):
        norm(torch.full((2, 1, 1, 1), float(step**2)))
        weight = max(0.1, 1 / step)
        mean = (1 - weight) * mean + weight * step**2
    assert norm.running_mean.item() == pytest.approx(mean)
    again = PrivateBatchNorm(1, 1)
    again.load_state_dict(norm.state_dict())
    for module in (norm, again):  # a resumed count goes on
        module(torch.ones(2, 1, 1, 1))
    assert again.running_mean.item() == norm.running_mean.item()


def test_two_domains_in_one_backward_pass() -> None:
    norm = PrivateBatchNorm(2, 2)
    x = torch.randn(3, 2, 4, 4)
    total = torch.zeros(())
    for domain in (0, 1):
        norm.domain = domain
        total = total + norm(x).pow(3).sum()
    total.backward()
    assert norm.weight.grad is not None and torch.isfinite(norm.weight.grad).all()


def _settled(norm: str, name: str = "mobile_small") -> nn.Module:
    """A backbone with statistics and affines away from their start."""
    torch.manual_seed(4)
    network = build_backbone(name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_()
    return convert_norms(network, norm, num_domains=3)


@pytest.mark.parametrize("name", ["mobile_small", "vgg_small"])
@pytest.mark.parametrize("norm", ["private", "frozen", "folded"])
def test_conversion_keeps_the_function(norm: str, name: str) -> None:
    x = torch.randn(2, 3, 32, 32)
    expected = _settled("shared", name).eval()(x)
    converted = _settled(norm, name).eval()
    for domain in range(3):
        set_domain(converted, domain)
        torch.testing.assert_close(converted(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["frozen", "folded"])
def test_frozen_statistics_do_not_move_and_gradients_flow(norm: str) -> None:
    network = _settled(norm).train()
    before = {key: value.clone() for key, value in network.named_buffers()}
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    training = network(x)
    training.square().mean().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert all(torch.equal(value, before[key]) for key, value in network.named_buffers())
    torch.testing.assert_close(network.eval()(x), training)
    trained = {key for key, p in network.named_parameters() if p.grad is not None}
    assert "features.0.0.weight" in trained
    assert ("features.0.0.bias" in trained) == (norm == "folded")
    assert "features.0.1.weight" not in trained


def test_bad_choices() -> None:
    with pytest.raises(InputError, match="norm 'group' is unknown"):
        convert_norms(build_backbone("mobile_small"), "group", 2)
    with pytest.raises(InputError, match="follows no convolution"):
        fold_norms(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)))

    class Other(nn.BatchNorm2d):
        pass

    with pytest.raises(InputError, match="Other"):
        convert_norms(nn.Sequential(nn.Conv2d(3, 3, 1), Other(3)), "private", 2)
