"""Siamese embedders: one network for sketches at several canvases and for photos.

Shapes: B batch, S canvas side, H and W photo height and width, D embedding size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sketchynet.errors import InputError
from sketchynet.models.backbones import build_backbone, level_sizes
from sketchynet.models.inputs import grey_input, photo_input, sketch_input
from sketchynet.models.norm import convert_norms, set_domain
from sketchynet.models.pooling import build_pooling, fields
from sketchynet.models.search_head import SearchHead

CANVASES = (32, 64, 128, 256)


class Embedder(nn.Module):
    """Backbone features, global pooling and, where asked for, a projection and unit length.

    Args:
        backbone: a name of `build_backbone`.
        canvases: the sketch canvas sides in pixels that the network serves.
        norm: treatment of batch norms (`sketchynet.models.norm`).
        pooling: "avg", "max", "gem" or "layout" (`sketchynet.models.pooling`).
        normalize: scale embeddings to unit length.
        projection: size of a linear layer behind the pooling; none by default, as in the paper.
        regressor: see `add_regressor`.
        levels: options of `add_levels`, where it is to be called.
        search_head: options of the `SearchHead` behind all this, see `add_search_head`.

    `dim` is the embedding size D; `config` a plain dict, from which `build_from_config` builds its like.
    """

    def __init__(
        self,
        backbone: str = "mobilenet_v2",
        *,
        canvases: Sequence[int] = CANVASES,
        norm: str = "private",
        pooling: str = "avg",
        normalize: bool = False,
        projection: int | None = None,
        regressor: int | None = None,
        levels: Mapping[str, Any] | None = None,
        search_head: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.canvases = tuple(int(side) for side in canvases)
        if not self.canvases or len(set(self.canvases)) < len(self.canvases) or min(self.canvases) < 8:
            raise InputError(f"canvases {self.canvases} must be distinct sides of 8 pixels or more")
        if projection is not None and projection < 1:
            raise InputError(f"projection {projection} must be at least 1, or None for no projection")
        self.config: dict[str, Any] = {
            "kind": "embedder",
            "backbone": backbone,
            "canvases": list(self.canvases),
            "norm": norm,
            "pooling": pooling,
            "normalize": normalize,
            "projection": projection,
        }
        self.norm = norm
        self.normalize = normalize
        self.grey = False  # set where the first layer takes grey canvases (`sketchynet.models.grey`)
        self.backbone = build_backbone(backbone)
        channels = self.backbone.out_channels * (5 if pooling == "layout" else 1)
        convert_norms(self.backbone, norm, num_domains=1 + len(self.canvases))
        self.pooling = build_pooling(pooling)
        self.projection = nn.Identity() if projection is None else nn.Linear(channels, projection)
        self.dim = channels if projection is None else projection
        self.regressor: nn.Linear | None = None
        if regressor is not None:
            self.add_regressor(regressor)
        self.parts: tuple[int, ...] = (self.dim,)
        self.levels: tuple[int, ...] = ()
        self.fields = 0
        if levels is not None:
            self.add_levels(**levels)
        self.search_head: SearchHead | None = None
        if search_head is not None:
            self.add_search_head(SearchHead(self.parts, **search_head))

    def add_regressor(self, size: int) -> None:
        """Adds a linear layer from the embedding to `size` values, for distilling by feature regression.

        It is trained and kept with the network but is no part of it: no embedding passes it, and parameters and
        FLOPs do not count it.
        """
        self.regressor = nn.Linear(self.dim, size)
        self.config["regressor"] = size

    def add_levels(self, numbers: Sequence[int], fields: int) -> None:
        """Joins to the embedding what lies behind some parts of the backbone, for a search head to read.

        `parts` becomes the sizes of what is joined, `dim` their sum. A query pays nothing: these features are computed on the
        way to the embedding.

        Args:
            numbers: of the parts, from 0, ascending.
            fields: each part adds the averages of fields x fields fields of its features, at unit length.

        Raises:
            InputError: the backbone has no such parts.
        """
        self.levels, self.fields = tuple(numbers), fields
        self.parts = (self.dim, *level_sizes(str(self.config["backbone"]), numbers, fields))
        self.dim = sum(self.parts)
        self.config["levels"] = {"numbers": list(numbers), "fields": fields}

    @contextmanager
    def reading(self, levels: Sequence[int], fields: int) -> Iterator[None]:
        """Within it embeddings are joined by levels as `add_levels` joins them, while the network stays what it is."""
        before = self.levels, self.fields
        self.levels, self.fields = tuple(levels), fields
        try:
            yield
        finally:
            self.levels, self.fields = before

    def add_search_head(self, head: SearchHead) -> None:
        """Adds the last step of the search, computed from training pairs; `dim` becomes that of its result.

        Networks are trained, distilled and started from without it.
        """
        self.search_head = head
        self.dim = head.dim
        self.config["search_head"] = head.config

    def start_from(self, other: Embedder) -> None:
        """Takes over the weights of a trained network of the same kind, whatever its canvases.

        Private statistics of a canvas that the other does not serve begin as those of its nearest one (by ratio, the
        larger of two), to be replaced by the first batch.

        Raises:
            InputError: the other differs in more than its canvases.
        """
        names = ("kind", "backbone", "norm", "pooling", "normalize", "projection", "classes")
        differing = [name for name in names if self.config.get(name) != other.config.get(name)]
        if differing:
            theirs = ", ".join(f"{name} {other.config.get(name)!r}" for name in differing)
            mine = ", ".join(f"{name} {self.config.get(name)!r}" for name in differing)
            raise InputError(f"a network with {mine} cannot start from one with {theirs}")
        nearest = [min(other.canvases, key=lambda side: (abs(math.log(side / own)), -side)) for own in self.canvases]
        sources = [0, *map(other.domain, nearest)]
        unknown = [1 + place for place, own in enumerate(self.canvases) if own not in other.canvases]
        taken = other.state_dict()
        if self.norm == "private":
            for name in list(taken):
                if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
                    taken[name] = taken[name][sources]
                if name.endswith("num_batches_tracked"):
                    taken[name][unknown] = 0
        self.load_state_dict(self.state_dict() | taken)  # a regressor of one's own stays

    def domain(self, side: int) -> int:
        """The batch-norm domain of a sketch canvas; photos are domain 0."""
        if side in self.canvases:
            return 1 + self.canvases.index(side)
        raise InputError(f"a {side}x{side} canvas is not among those of this network, {self.canvases}")

    def embed_sketches(self, canvas: Tensor) -> Tensor:
        """Embed ink coverage, uint8 (B, S, S) with S one of `canvases`, to (B, D)."""
        image = grey_input(canvas) if self.grey else sketch_input(canvas)
        embedding = self.forward(image, self.domain(image.shape[-1]))
        return embedding if self.search_head is None else self.search_head.of_sketches(embedding)

    def embed_photos(self, photos: Tensor) -> Tensor:
        """Embed RGB photos, uint8 (B, H, W, 3), to (B, D)."""
        embedding = self.forward(photo_input(photos), 0)
        return embedding if self.search_head is None else self.search_head.of_photos(embedding, photos.shape[1])

    def forward(self, image: Tensor, domain: int) -> Tensor:
        """Embed normalised images (B, 3, H, W) of one batch-norm domain to (B, D), or to (B, D - 1) before a search head's
        last number."""
        stem = next(p for p in self.backbone.parameters() if p.ndim == 4)
        # Convolutions are fast only where input and weights share a memory format.
        channels_last = stem.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        image = image.to(dtype=stem.dtype, memory_format=layout)
        set_domain(self.backbone, domain)
        read: list[Tensor] = []
        if self.levels:
            features, read = self.backbone.with_levels(image, self.levels, lambda x: fields(x.to(stem.dtype), self.fields))
        else:
            features = self.backbone(image)
        # Autocast: distances need the weights' full precision.
        embedding = self.projection(self.pooling(features.to(stem.dtype)))
        embedding = F.normalize(embedding, dim=1) if self.normalize else embedding
        embedding = torch.cat([embedding, *read], dim=1) if read else embedding
        return embedding if self.search_head is None else self.search_head(embedding)


class Classifier(Embedder):
    """An embedder with a linear layer over its embedding: one logit a category, for sketch recognition.

    Args:
        classes: number of categories, C.
        dropout: share of the embedding's entries that training hides from the linear layer.
        options: of `Embedder`.
    """

    def __init__(
        self, backbone: str = "mobilenet_v2", *, classes: int, dropout: float = 0.0, **options: Any
    ) -> None:
        super().__init__(backbone, **options)
        if classes < 2:
            raise InputError(f"classes {classes}: a classifier tells at least 2 categories apart")
        self.config |= {"kind": "classifier", "classes": classes, "dropout": dropout}
        self.classes = classes
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.dim, classes)
        # Every category equally likely at first: a random guess that is sure of itself would tear at the backbone.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def classify(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
        """Ink coverage, uint8 (B, S, S), to logits (B, C) and the embedding behind them (B, D)."""
        embedding = self.embed_sketches(canvas)
        return self.head(self.dropout(embedding)), embedding


class Ensemble(nn.Module):
    """Several embedders as one: unit-length member embeddings joined and scaled to unit length again.

    Distances therefore lie in [0, 2], unless members have search heads: these are joined as they are compared, so that
    squared distances are the members' means. With `flip` every member embeds the image and its mirror image, and both are
    joined: sketch and photo are compared as they are and mirrored, never one against the other's mirror.
    """

    def __init__(self, members: Sequence[Embedder], flip: bool = False) -> None:
        super().__init__()
        if not members:
            raise InputError("an ensemble needs at least one member")
        self.members = nn.ModuleList(members)
        self.flip = flip
        self.dim = sum(member.dim for member in members) * (2 if flip else 1)
        common = set(members[0].canvases).intersection(*(member.canvases for member in members))
        self.canvases = tuple(side for side in members[0].canvases if side in common)
        self.config: dict[str, Any] = {
            "kind": "ensemble",
            "flip": flip,
            "members": [member.config for member in members],
        }

    def _join(self, image: Tensor, width_axis: int, embed: Callable[[Embedder, Tensor], Tensor]) -> Tensor:
        images = [image, image.flip(width_axis)] if self.flip else [image]
        parts = []
        for member in self.members:
            assert isinstance(member, Embedder)
            embedded = [embed(member, view) for view in images]
            parts += embedded if member.search_head is not None else [F.normalize(rows, dim=1) for rows in embedded]
        return torch.cat(parts, dim=1) / math.sqrt(len(parts))

    def embed_sketches(self, canvas: Tensor) -> Tensor:
        """Embed ink coverage, uint8 (B, S, S), to (B, D)."""
        return self._join(canvas, 2, Embedder.embed_sketches)

    def embed_photos(self, photos: Tensor) -> Tensor:
        """Embed RGB photos, uint8 (B, H, W, 3), to (B, D)."""
        return self._join(photos, 2, Embedder.embed_photos)

    def classify(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
        """As `Classifier.classify`, where all members are classifiers: mean logits and joined embeddings."""
        logits: list[Tensor] = []

        def embed(member: Embedder, view: Tensor) -> Tensor:
            assert isinstance(member, Classifier)
            scores, embedding = member.classify(view)
            logits.append(scores)
            return embedding

        joined = self._join(canvas, 2, embed)
        return torch.stack(logits).mean(dim=0), joined


def embedder_from_config(config: Mapping[str, Any]) -> Embedder | Ensemble:
    """Build the embedder or ensemble, with random weights, that `config` describes."""
    options = dict(config)
    kind = options.pop("kind", None)
    try:
        if kind == "embedder":
            return Embedder(**options)
        if kind == "classifier":
            return Classifier(**options)
        if kind == "ensemble":
            members = [embedder_from_config(member) for member in options.pop("members")]
            if all(isinstance(member, Embedder) for member in members):
                return Ensemble([m for m in members if isinstance(m, Embedder)], **options)
            raise InputError("an ensemble's members must be embedders, not ensembles")
    except (TypeError, KeyError) as error:
        raise InputError(f"{kind} configuration {dict(config)} does not fit this version: {error}") from error
    raise InputError(f"network kind {kind!r} is unknown: expected 'embedder', 'classifier' or 'ensemble'")
