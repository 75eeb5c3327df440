from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sketchynet.errors import InputError
from sketchynet.flops import count_parameters, embedder_flops
from sketchynet.models import AsymmetricEmbedder, Embedder, Ensemble, build_from_config, fold_grey_stem


def _full(flip: bool = True) -> Ensemble:
    return Ensemble([Embedder("vgg_tiny", canvases=(32,)), Embedder("vgg_tiny", canvases=(32,))], flip=flip)


def _network(dim: int = 6) -> AsymmetricEmbedder:
    return AsymmetricEmbedder("vgg_tiny", canvases=(16, 32), photos=_full(), dim=dim)


def test_photos_go_through_the_full_network_and_sketches_do_not() -> None:
    network = _network().eval()
    assert network.reduction is not None
    network.reduction.copy_(torch.linalg.qr(torch.randn(network.photos.dim, 6)).Q)
    photos = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    expected = F.normalize(network.photos.embed_photos(photos) @ network.reduction, dim=1)
    torch.testing.assert_close(network.embed_photos(photos), expected)
    canvas = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    alone = Embedder("vgg_tiny", canvases=(16, 32), normalize=True, projection=6).eval()
    alone.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith(("photos.", "reduction"))})
    torch.testing.assert_close(network.embed_sketches(canvas), alone.embed_sketches(canvas))
    torch.testing.assert_close(fold_grey_stem(network).embed_sketches(canvas), alone.embed_sketches(canvas), rtol=1e-4, atol=1e-5)


def test_without_reduction_the_space_is_the_full_networks() -> None:
    full = _full()
    network = AsymmetricEmbedder("vgg_tiny", canvases=(16,), photos=full, dim=full.dim).eval()
    photos = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    assert network.reduction is None and network.dim == full.dim
    torch.testing.assert_close(network.embed_photos(photos), full.eval().embed_photos(photos))


def test_training_never_changes_the_photos_side() -> None:
    network = _network()
    before = {name: value.clone() for name, value in network.photos.state_dict().items()}
    network.train()
    assert network.training and not any(module.training for module in network.photos.modules())
    photos = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    gallery = network.embed_photos(photos)
    assert not gallery.requires_grad
    loss = (network.embed_sketches(torch.randint(0, 256, (4, 16, 16), dtype=torch.uint8)) - gallery).square().sum()
    loss.backward()
    assert all(parameter.grad is None for parameter in network.photos.parameters())
    assert all(p.grad is not None for n, p in network.named_parameters() if not n.startswith("photos."))
    assert all(torch.equal(before[name], value) for name, value in network.photos.state_dict().items())


def test_a_query_costs_the_sketches_side_alone() -> None:
    network, alone = _network(), Embedder("vgg_tiny", canvases=(16, 32), projection=6)
    assert count_parameters(network) == count_parameters(alone)
    assert embedder_flops(network, 32) == embedder_flops(alone, 32)


def test_configuration_builds_its_like() -> None:
    network = _network()
    twin = build_from_config(network.config)
    assert isinstance(twin, AsymmetricEmbedder)
    twin.load_state_dict(network.state_dict())
    photos = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    assert torch.equal(twin.eval().embed_photos(photos), network.eval().embed_photos(photos))
    with pytest.raises(InputError, match="asymmetric configuration .* does not fit"):
        build_from_config({**network.config, "colour": 1})


@pytest.mark.parametrize("dim", [0, 10_000])
def test_a_size_that_the_photos_do_not_have_is_refused(dim: int) -> None:
    with pytest.raises(InputError, match=f"dim {dim} must lie in 1"):
        _network(dim)
