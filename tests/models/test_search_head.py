from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sketchynet.errors import InputError
from sketchynet.flops import count_parameters, embedder_flops
from sketchynet.models import Embedder, Ensemble, SearchHead, build_from_config


def _head(channels: int, **changes: object) -> SearchHead:
    """A head with random values."""
    options = {"dimensions": 5, "photo_sizes": (24, 32), "sketches": 7, "neighbours": 3} | changes
    head = SearchHead(channels, **options)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        head.whitening.weight.normal_(generator=generator)
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
    [({"dimensions": 10}, r"dimensions 10 must lie in 1\.\.9"), ({"neighbours": 8}, r"neighbours 8 must lie in 0\.\.7")],
)
def test_a_head_that_cannot_be_is_named(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _head(9, **changes)


def test_a_photo_size_without_training_sketches_is_named() -> None:
    with pytest.raises(InputError, match="photos of 48 pixels.*24, 32"):
        _head(9).of_photos(torch.randn(1, 5), 48)
    assert math.isfinite(float(_head(9).of_photos(F.normalize(torch.randn(1, 5), dim=1), 24).sum()))
