from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sketchynet.errors import InputError
from sketchynet.models import (
    CanvasSelector,
    Classifier,
    Embedder,
    Ensemble,
    build_from_config,
    photo_input,
    sketch_input,
)
from sketchynet.models.pooling import build_pooling


def _canvas(side: int, count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, side, side), dtype=torch.uint8)


def _photos(side: int = 64, count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8)


def test_embeddings_are_pooled_features() -> None:
    network = Embedder("mobile_small", canvases=(32, 64)).eval()
    canvas, photos = _canvas(32), _photos()
    expected = network.backbone(sketch_input(canvas)).mean(dim=(2, 3))
    torch.testing.assert_close(network.embed_sketches(canvas), expected)
    torch.testing.assert_close(
        network.embed_photos(photos), network.backbone(photo_input(photos)).mean(dim=(2, 3))
    )
    assert network.dim == expected.shape[1] == 192


def test_canvas_picks_its_statistics() -> None:
    network = Embedder("mobile_small", canvases=(64, 32)).train()
    counts = network.backbone.features[0][1].num_batches_tracked
    network.embed_sketches(_canvas(32))
    network.embed_photos(_photos())
    network.embed_photos(_photos())
    assert counts.tolist() == [2, 0, 1]
    with pytest.raises(InputError, match="48x48"):
        network.embed_sketches(_canvas(48))


def test_a_network_starts_from_one_with_other_canvases() -> None:
    trained = Embedder("mobile_small", canvases=(32, 64), pooling="layout")
    for images in (_canvas(32), _canvas(64), 255 - _canvas(64)):
        trained.embed_sketches(images)
    trained.embed_photos(_photos())
    network = Embedder("mobile_small", canvases=(16, 32, 48, 64), pooling="layout")
    network.add_regressor(5)
    network.start_from(trained)
    counts, means = (getattr(network.backbone.features[0][1], f) for f in ("num_batches_tracked", "running_mean"))
    theirs = trained.backbone.features[0][1].running_mean
    assert counts.tolist() == [1, 0, 1, 0, 2]
    assert torch.equal(means, theirs[[0, 1, 1, 2, 2]])  # 48 lies nearer to 64 than to 32 by ratio
    images, photos = _canvas(32), _photos()
    network.eval(), trained.eval()
    assert torch.equal(network.embed_sketches(images), trained.embed_sketches(images))
    assert torch.equal(network.embed_photos(photos), trained.embed_photos(photos))
    network.train().embed_sketches(_canvas(48))
    assert counts.tolist() == [1, 0, 1, 1, 2] and not torch.allclose(means[3], theirs[2], rtol=0.2)
    with pytest.raises(InputError, match="with pooling 'avg' cannot start from one with pooling 'layout'"):
        Embedder("mobile_small", canvases=(32,)).start_from(trained)


@pytest.mark.parametrize("pooling", ["avg", "max", "gem", "layout"])
@pytest.mark.parametrize("projection", [None, 7])
def test_options(pooling: str, projection: int | None) -> None:
    network = Embedder(
        "mobile_small", canvases=(32,), pooling=pooling, projection=projection, normalize=True
    ).eval()
    embedding = network.embed_sketches(_canvas(32))
    pooled = 5 * 192 if pooling == "layout" else 192
    assert embedding.shape == (3, projection or pooled) and network.dim == embedding.shape[1]
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))


def test_pooling_values() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 6.0]).view(1, 1, 2, 2)
    assert build_pooling("avg")(x).item() == 3.0
    assert build_pooling("max")(x).item() == 6.0
    assert build_pooling("gem")(x).item() == pytest.approx(((1 + 8 + 27 + 216) / 4) ** (1 / 3))
    wide = torch.arange(16.0).view(1, 1, 4, 4)
    quarters = torch.tensor([2.5, 4.5, 10.5, 12.5])
    torch.testing.assert_close(build_pooling("layout")(wide)[0], torch.cat([torch.ones(1), quarters / quarters.norm()]))
    zero = torch.zeros(1, 1, 2, 2, requires_grad=True)
    gem = build_pooling("gem")
    gem(zero).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in gem.parameters() if p.grad is not None)
    with pytest.raises(InputError, match="pooling 'mean'"):
        build_pooling("mean")


def test_channels_last_changes_nothing_but_speed() -> None:
    torch.manual_seed(0)
    network = Embedder("mobile_small", canvases=(32,)).eval()
    canvas = _canvas(32)
    expected = network.embed_sketches(canvas)
    network = network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network.embed_sketches(canvas), expected, rtol=1e-4, atol=1e-5)
    seen = []
    network.backbone.features[0][0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    network.embed_sketches(canvas)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_autocast_embeddings_come_in_full_precision() -> None:
    network = Embedder("mobile_small", canvases=(32,)).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert network.embed_sketches(_canvas(32)).dtype == torch.float32


def test_ensemble_joins_unit_members() -> None:
    torch.manual_seed(0)
    members = [Embedder("mobile_small", canvases=(32,)), Embedder("vgg_small", canvases=(64, 32))]
    ensemble = Ensemble(members).eval()
    canvas = _canvas(32)
    parts = [F.normalize(m.embed_sketches(canvas), dim=1) for m in members]
    embedding = ensemble.embed_sketches(canvas)
    torch.testing.assert_close(embedding, torch.cat(parts, dim=1) / math.sqrt(2))
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
    assert ensemble.dim == 320 == embedding.shape[1] and ensemble.canvases == (32,)


def test_flip_joins_the_image_and_its_mirror_image() -> None:
    torch.manual_seed(0)
    member = Embedder("mobile_small", canvases=(32,)).eval()
    ensemble = Ensemble([member], flip=True).eval()
    canvas = _canvas(32)
    plain, mirrored = (F.normalize(member.embed_sketches(c), dim=1) for c in (canvas, canvas.flip(2)))
    found = ensemble.embed_sketches(canvas)
    assert ensemble.dim == found.shape[1] == 2 * member.dim
    torch.testing.assert_close(found, torch.cat([plain, mirrored], dim=1) / 2**0.5)
    swapped = torch.cat(ensemble.embed_sketches(canvas.flip(2)).chunk(2, dim=1)[::-1], dim=1)
    torch.testing.assert_close(found, swapped)


def test_configurations_rebuild_the_network() -> None:
    member = Embedder("mobile_small", canvases=(32,), norm="folded", pooling="gem", projection=5)
    for network in (member, Ensemble([member, member], flip=True), CanvasSelector(3, hidden=9)):
        again = build_from_config(network.config)
        assert type(again) is type(network) and again.config == network.config
        again.load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "unet"},
        {"kind": "embedder", "depth": 3},
        {"kind": "ensemble"},
        {"kind": "ensemble", "flip": True, "members": []},
        {"kind": "selector", "width": 3},
        {"kind": "embedder", "canvases": [32, 32]},
        {"kind": "embedder", "projection": 0},
    ],
)
def test_bad_configurations(config: dict) -> None:
    with pytest.raises(InputError):
        build_from_config(config)


def test_a_classifier_is_its_embedding_and_a_linear_layer() -> None:
    network = Classifier("mobile_small", classes=7, dropout=0.5, canvases=(32, 64), norm="frozen").eval()
    torch.nn.init.normal_(network.head.weight)
    canvas = _canvas(32)
    logits, embedding = network.classify(canvas)
    torch.testing.assert_close(embedding, network.embed_sketches(canvas))
    torch.testing.assert_close(logits, embedding @ network.head.weight.T + network.head.bias)
    again = build_from_config(network.config)
    assert isinstance(again, Classifier) and again.config == network.config
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again.eval().classify(canvas)[0], logits)
    with pytest.raises(InputError, match="at least 2"):
        Classifier("mobile_small", classes=1)


def test_an_ensemble_of_classifiers_averages_logits_over_members_and_mirror_images() -> None:
    members = [Classifier("mobile_small", classes=4, canvases=(32,), norm="frozen").eval() for _ in range(2)]
    for member in members:
        torch.nn.init.normal_(member.head.weight)
    canvas = _canvas(32)
    logits, embedding = Ensemble(members, flip=True).eval().classify(canvas)
    each = [m.classify(view)[0] for m in members for view in (canvas, canvas.flip(2))]
    torch.testing.assert_close(logits, torch.stack(each).mean(dim=0))
    assert embedding.shape == (3, 4 * 192)
