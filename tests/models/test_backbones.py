from __future__ import annotations

import pytest
import torch
from torch import nn

from sketchynet.errors import InputError
from sketchynet.models import BACKBONES, build_backbone


@pytest.mark.parametrize(
    ("name", "parameters", "channels", "stride"),
    [
        ("vgg16", 14_714_688, 512, 32),
        ("mobilenet_v2", 2_223_872, 1280, 32),
        ("squeezenet1_1", 722_496, 512, None),
        ("vgg_small", None, 128, 16),
        ("vgg_tiny", None, 64, 16),
        ("mobile_small", None, 192, 16),
    ],
)
def test_sizes(name: str, parameters: int | None, channels: int, stride: int | None) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name).eval()
        shape = backbone(torch.zeros(2, 3, 96, 64)).shape
    count = sum(p.numel() for p in backbone.parameters())
    if parameters is not None:
        assert count == parameters
    assert shape[:2] == (2, channels) and backbone.out_channels == channels
    if stride is not None:
        assert shape[2:] == (96 // stride, 64 // stride)


def test_small_networks_are_small() -> None:
    names = ("vgg_small", "vgg_tiny", "mobile_small")
    counts = {n: sum(p.numel() for p in build_backbone(n).parameters()) for n in names}
    assert 300_000 <= counts["vgg_small"] <= 500_000
    assert 100_000 <= counts["vgg_tiny"] <= 130_000
    assert 50_000 <= counts["mobile_small"] <= 100_000


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("vgg16", {"features.0.weight": (64, 3, 3, 3), "features.28.bias": (512,)}),
        (
            "mobilenet_v2",
            {
                "features.0.0.weight": (32, 3, 3, 3),
                "features.1.conv.0.0.weight": (32, 1, 3, 3),
                "features.1.conv.1.weight": (16, 32, 1, 1),
                "features.1.conv.2.running_mean": (16,),
                "features.2.conv.1.0.weight": (96, 1, 3, 3),
                "features.17.conv.3.bias": (320,),
                "features.18.1.running_var": (1280,),
            },
        ),
        (
            "squeezenet1_1",
            {"features.3.squeeze.weight": (16, 64, 1, 1), "features.12.expand3x3.bias": (256,)},
        ),
    ],
)
def test_keys_of_published_weights(name: str, keys: dict[str, tuple[int, ...]]) -> None:
    state = build_backbone(name).state_dict()
    assert {key: tuple(state[key].shape) for key in keys} == keys


def test_same_seed_same_weights() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_backbone("mobile_small").state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_backbones_start_plain() -> None:
    norms = [type(m) for m in build_backbone("mobilenet_v2").modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 52 and set(norms) == {nn.BatchNorm2d}


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(InputError, match="vgg17.*mobilenet_v2"):
        build_backbone("vgg17")
    assert set(BACKBONES) >= {"vgg16", "mobilenet_v2", "squeezenet1_1"}


@pytest.mark.parametrize(
    ("name", "layers", "channels"),
    [("mobilenet_v2/16", 14, 96), ("mobilenet_v2/32", 19, 1280), ("squeezenet1_1/8", 8, 256), ("vgg16/16", 30, 512)],
)
def test_a_cut_backbone_is_the_first_layers_up_to_a_stride(name: str, layers: int, channels: int) -> None:
    whole, cut = build_backbone(name.partition("/")[0]).eval(), build_backbone(name).eval()
    assert cut.out_channels == channels and len(list(cut.features.children())) == layers
    cut.load_state_dict({key: value for key, value in whole.state_dict().items() if key in cut.state_dict()})
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = image
        for layer in list(whole.features.children())[:layers]:
            expected = layer(expected)
        found = cut(image)
    assert torch.equal(found, expected) and found.shape[1] == channels


@pytest.mark.parametrize(("name", "message"), [("vgg16/1", "stride '1'"), ("vgg16/half", "'half' must be a number"), ("vgg/16", "'vgg/16' is unknown")])
def test_wrong_cuts_are_named(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_backbone(name)


def test_timm_without_timm_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(InputError, match="timm:resnet18.*needs timm"):
        build_backbone("timm:resnet18")
