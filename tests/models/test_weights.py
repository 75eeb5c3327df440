from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sketchynet.errors import InputError
from sketchynet.models import Embedder, PrivateBatchNorm, build_backbone, load_backbone_weights


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1", "mobilenet_v2/16"])
@pytest.mark.parametrize("norm", ["private", "folded"])
def test_published_weights_load(weights_dir: Path, name: str, norm: str) -> None:
    path = weights_dir / f"{name.partition('/')[0]}_imagenet.safetensors"
    network, plain = (Embedder(name, canvases=(32, 64), norm=n).eval() for n in (norm, "shared"))
    load_backbone_weights(network, path)
    load_backbone_weights(plain, path)
    photos = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    canvas = photos[..., 0]
    torch.testing.assert_close(network.embed_photos(photos), plain.embed_photos(photos), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        network.embed_sketches(canvas), plain.embed_sketches(canvas), rtol=1e-3, atol=1e-3
    )


def _state(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    state = build_backbone(name).state_dict()
    for key, value in state.items():
        if key.endswith("running_mean"):
            value.normal_()
    return state | {"classifier.1.weight": torch.zeros(10, 3)}


def test_a_cut_backbone_takes_its_part_of_a_whole_file_and_its_own_whole(tmp_path: Path) -> None:
    whole = _state("mobile_small")
    save_file(whole, tmp_path / "whole.safetensors")
    network, twin = Embedder("mobile_small/8", norm="shared"), Embedder("mobile_small/8", norm="shared")
    load_backbone_weights(network, tmp_path / "whole.safetensors")
    for key, value in network.backbone.state_dict().items():
        assert torch.equal(value, whole[key])
    save_file(network.state_dict(), tmp_path / "cut.safetensors")
    load_backbone_weights(twin, tmp_path / "cut.safetensors")
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in twin.state_dict().items())
    del whole["features.0.0.weight"]
    save_file(whole | {"features.40.weight": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match="missing: features.0.0.weight; unexpected: features.40.weight"):
        load_backbone_weights(network, tmp_path / "wrong.safetensors")


def test_timms_own_file_loads_into_a_timm_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm imports only beside a torchvision of the same build: a module of its interface stands in for it."""

    class Network(nn.Module):
        num_features = 4

        def __init__(self) -> None:
            super().__init__()
            self.conv_stem, self.bn1 = nn.Conv2d(3, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4)
            self.blocks = nn.Sequential(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1)))

        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks(self.bn1(self.conv_stem(x)))

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=lambda name, **_: Network()))
    assert [type(block) for block in build_backbone("timm:any").blocks()] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    theirs = Network().state_dict()
    save_file(theirs | {"classifier.weight": torch.zeros(3, 4)}, tmp_path / "theirs.safetensors")
    network, twin = (Embedder("timm:any", canvases=(16, 32)) for _ in range(2))
    load_backbone_weights(network, tmp_path / "theirs.safetensors")
    assert torch.equal(network.backbone.state_dict()["features.model.conv_stem.weight"], theirs["conv_stem.weight"])
    save_file(network.state_dict(), tmp_path / "ours.safetensors")
    load_backbone_weights(twin, tmp_path / "ours.safetensors")
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in twin.state_dict().items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", "wrapped.pth"])
def test_plain_statistics_load_into_every_domain(tmp_path: Path, suffix: str) -> None:
    state, path = _state("mobile_small"), tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if "wrapped" in suffix else state, path)
    network = Embedder("mobile_small", canvases=(32, 64))
    load_backbone_weights(network, path)
    norm = network.backbone.features[0][1]
    assert isinstance(norm, PrivateBatchNorm)
    for domain in range(3):
        assert torch.equal(norm.running_mean[domain], state["features.0.1.running_mean"])


@pytest.mark.parametrize("norm", ["private", "frozen", "folded", "shared"])
def test_own_embedders_load_again(tmp_path: Path, norm: str) -> None:
    source = Embedder("mobile_small", canvases=(32,), norm=norm).eval()
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    target = Embedder("mobile_small", canvases=(32,), norm=norm).eval()
    load_backbone_weights(target, tmp_path / "weights.safetensors")
    photos = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    assert torch.equal(source.embed_photos(photos), target.embed_photos(photos))


def test_another_architecture_is_named_and_changes_nothing(tmp_path: Path) -> None:
    save_file(_state("squeezenet1_1"), tmp_path / "weights.safetensors")
    network = Embedder("mobile_small")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(InputError, match="SqueezeNet") as caught:
        load_backbone_weights(network, tmp_path / "weights.safetensors")
    for part in ("missing: features.0.0.weight", "unexpected: features.0.bias", "'mobile_small'", "more"):
        assert part in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_another_width_names_the_shapes(tmp_path: Path) -> None:
    state = _state("mobile_small")
    state["features.0.0.weight"] = torch.zeros(24, 3, 3, 3)
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"features.0.0.weight \(24, 3, 3, 3\) instead of \(16, 3, 3, 3\)"):
        load_backbone_weights(Embedder("mobile_small"), tmp_path / "weights.safetensors")


class _Harmful:
    def __reduce__(self):
        return (print, ("executed",))


def test_unusable_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = Embedder("mobile_small")
    (tmp_path / "broken.safetensors").write_bytes(b"no header")
    (tmp_path / "broken.pth").write_bytes(b"no zip")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "harmful.pth").write_bytes(pickle.dumps(_Harmful(), protocol=2))
    torch.save([1, 2], tmp_path / "list.pth")
    files = ("missing.pth", "broken.safetensors", "broken.pth", "empty.pth", "harmful.pth", "list.pth")
    for name in files:
        with pytest.raises(InputError, match=name):
            load_backbone_weights(network, tmp_path / name)
    assert "executed" not in capsys.readouterr().out
