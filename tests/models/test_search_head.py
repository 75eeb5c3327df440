from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sketchynet.errors import InputError
from sketchynet.flops import count_parameters, embedder_flops
from sketchynet.models import Embedder, Ensemble, SearchHead, build_from_config
from sketchynet.models.backbones import level_sizes


def _head(*channels: int, **changes: object) -> SearchHead:
    """A head with random values."""
    options = {"dimensions": [5] * len(channels), "photo_sizes": (24, 32), "sketches": 7, "neighbours": 3} | changes
    head = SearchHead(channels, **options)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in head.whitening.parameters():
            parameter.normal_(generator=generator)
        head.bank.copy_(F.normalize(torch.randn(head.bank.shape, generator=generator), dim=2))
    return head


def _network() -> Embedder:
    torch.manual_seed(0)
    return Embedder("vgg_tiny", canvases=(16, 32), pooling="layout", normalize=True).eval()


def test_distances_are_cosines_and_the_mean_of_the_nearest_training_sketches() -> None:
    head = _head(9)
    sketch, photo = (F.normalize(torch.randn(n, 9), dim=1) for n in (2, 4))
    queries, gallery = head.of_sketches(head(sketch)), head.of_photos(head(photo), 32)
    q, g = head(sketch), head(photo)
    assert queries.shape == (2, 6) and gallery.shape == (4, 6)
    for i in range(2):
        for j in range(4):
            near = sorted((float(row @ g[j]) for row in head.bank[1]), reverse=True)[:3]
            expected = 2 - 2 * float(q[i] @ g[j]) + 1 + sum(near) / 3
            assert float((queries[i] - gallery[j]).square().sum()) == pytest.approx(expected, abs=1e-5)
    assert not torch.equal(head.of_photos(g, 24), gallery)  # each photo size has its own training sketches


def test_without_neighbours_only_the_whitening_is_left() -> None:
    head = _head(9, neighbours=0)
    photo = head(torch.randn(4, 9))
    assert head.bank.numel() == 0
    torch.testing.assert_close(head.of_photos(photo, 100), F.pad(photo, (0, 1)))


def test_a_network_with_a_head_is_counted_and_rebuilt_with_it() -> None:
    plain, network = _network(), _network()
    network.add_search_head(_head(network.dim))
    layer = 5 * (plain.dim + 1)
    assert network.dim == 6
    assert count_parameters(network) - count_parameters(plain) == layer
    assert embedder_flops(network, 32) - embedder_flops(plain, 32) == 2 * layer
    twin = build_from_config(network.config)
    assert isinstance(twin, Embedder)
    twin.load_state_dict(network.state_dict())
    canvas = torch.randint(0, 256, (2, 16, 16), dtype=torch.uint8)
    photos = torch.randint(0, 256, (2, 24, 24, 3), dtype=torch.uint8)
    torch.testing.assert_close(twin.eval().embed_sketches(canvas), network.embed_sketches(canvas))
    torch.testing.assert_close(twin.embed_photos(photos), network.embed_photos(photos))
    assert (network.embed_photos(photos)[:, -1] > 0).all() and (network.embed_sketches(canvas)[:, -1] == 0).all()


def test_parts_are_whitened_apart_and_count_alike() -> None:
    head = _head(6, 9)
    rows = torch.randn(4, 15)
    found = head(rows)
    first, second = (F.linear(part, layer.weight, layer.bias) for part, layer in zip(rows.split((6, 9), 1), head.whitening, strict=True))
    cosines = torch.cosine_similarity(first[0], first[1], dim=0) + torch.cosine_similarity(second[0], second[1], dim=0)
    assert found.shape == (4, 10) and head.dim == 11
    assert float(found[0] @ found[1]) == pytest.approx(float(cosines) / 2, abs=1e-6)


def test_levels_are_the_features_behind_parts_of_the_backbone() -> None:
    plain, network = _network(), _network()
    numbers = (5, 8)
    network.add_levels(numbers, fields=2)
    photos = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    seen: dict[int, torch.Tensor] = {}
    for number in numbers:
        layer = plain.backbone.blocks()[number]
        layer.register_forward_hook(lambda _, __, output, number=number: seen.update({number: output.clone()}))
    with torch.no_grad():
        embedding, found = plain.embed_photos(photos), network.embed_photos(photos)
    parts = found.split(network.parts, dim=1)
    assert network.dim == found.shape[1] == sum(network.parts)
    torch.testing.assert_close(parts[0], embedding)
    for number, part in zip(numbers, parts[1:], strict=True):
        features = seen[number]
        height, width = features.shape[2] // 2, features.shape[3] // 2
        quarters = [
            features[:, :, y : y + height, x : x + width].mean(dim=(2, 3)) for y in (0, height) for x in (0, width)
        ]
        expected = torch.stack(quarters, dim=2).flatten(1)
        torch.testing.assert_close(part, F.normalize(expected, dim=1))


def test_levels_in_front_of_a_layer_that_works_in_place_are_trained() -> None:
    torch.manual_seed(0)
    network = Embedder("vgg_tiny", canvases=(16, 32), norm="frozen")
    assert isinstance(network.backbone.blocks()[2], torch.nn.ReLU)
    canvas = torch.randint(0, 256, (2, 16, 16), dtype=torch.uint8)
    with network.reading((1,), 2):
        embedded = network.embed_sketches(canvas)
    with torch.no_grad():
        size = embedded.shape[1] - network.dim
        assert (embedded[:, -size:] < 0).any()  # before the activation
    embedded[:, -size:].square().sum(dim=0)[0].backward()
    assert network.backbone.blocks()[0].weight.grad is not None
    assert network.levels == ()


def test_a_network_with_levels_behind_a_head_is_rebuilt_and_pays_for_the_whitening_alone() -> None:
    plain, network = _network(), _network()
    network.add_levels((5,), fields=2)
    sizes = network.parts
    network.add_search_head(_head(*sizes))
    assert network.dim == 11
    assert embedder_flops(network, 32) - embedder_flops(plain, 32) == 2 * 5 * sum(size + 1 for size in sizes)
    twin = build_from_config(network.config)
    assert isinstance(twin, Embedder)
    twin.load_state_dict(network.state_dict())
    canvas = torch.randint(0, 256, (2, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(twin.eval().embed_sketches(canvas), network.embed_sketches(canvas))


@pytest.mark.parametrize(
    ("backbone", "levels", "message"),
    [
        ("vgg_tiny", (3, 40), r"level 40 of backbone 'vgg_tiny' does not exist: its parts are numbered 0 to \d+"),
        ("timm:resnet18", (3,), "'timm:resnet18' has no levels to read"),
    ],
)
def test_levels_that_a_backbone_lacks_are_named(backbone: str, levels: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        level_sizes(backbone, levels, 4)


def test_members_with_heads_are_joined_as_they_are_compared() -> None:
    members = [_network(), _network()]
    for member in members:
        member.add_search_head(_head(member.dim))
    both = Ensemble(members)
    canvas = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    photos = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        squares = [torch.cdist(m.embed_sketches(canvas), m.embed_photos(photos)).square() for m in members]
        joined = torch.cdist(both.embed_sketches(canvas), both.embed_photos(photos)).square()
    torch.testing.assert_close(joined, (squares[0] + squares[1]) / 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"dimensions": [10]}, r"dimensions 10 must lie in 1\.\.9"), ({"neighbours": 8}, r"neighbours 8 must lie in 0\.\.7")],
)
def test_a_head_that_cannot_be_is_named(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _head(9, **changes)


def test_a_photo_size_without_training_sketches_is_named() -> None:
    with pytest.raises(InputError, match="photos of 48 pixels.*24, 32"):
        _head(9).of_photos(torch.randn(1, 5), 48)
    assert math.isfinite(float(_head(9).of_photos(F.normalize(torch.randn(1, 5), dim=1), 24).sum()))
