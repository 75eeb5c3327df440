"""The claims as sets of recipes: each varies one thing of a base recipe and names what it is compared with."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sketchynet.config import Recipe, override
from sketchynet.errors import InputError

_STUDENT_ALONE = ("student.direct=false", "selector.train=false")
"""Sets about the student spend nothing on what they do not compare."""

_FROM_WEIGHTS = "student.distillation.start=weights"
_BOTH_SIDES = (*_STUDENT_ALONE, "student.gallery=own", _FROM_WEIGHTS)
_PAPER = (*_BOTH_SIDES, "student.distillation.relations=[1, 1, 1]")
"""Sets about the paper's distillation compare students that embed both sides, start from the same
weights as their rivals, and learn by all relations."""


@dataclass(frozen=True)
class Variant:
    """One configuration of a set."""

    name: str
    changes: tuple[str, ...] = ()
    """``key=value`` changes of the base recipe, as for ``--set``."""
    teacher: bool = True
    """Whether a full network is trained (or borrowed); a student that is not distilled needs none."""


@dataclass(frozen=True)
class Experiment:
    """A named set of configurations."""

    name: str
    question: str
    base: Recipe
    variants: tuple[Variant, ...]
    reference: str
    """Name of the variant that the others are compared with."""
    compare: Literal["largest", "same", "v2"] = "largest"
    """SketchyNetV1 at the largest canvas, V1 at each canvas with the reference at the same one, or V2."""

    def recipe(self, variant: Variant, seed: int) -> Recipe:
        """The recipe of a variant; its name says what it changes, if anything."""
        changed = override(self.base, [*variant.changes, f"seed={seed}"])
        if changed == override(self.base, [f"seed={seed}"]):
            return changed
        told = [change for change in variant.changes if change not in _PAPER]
        return changed.model_copy(update={"name": f"{self.base.name}[{', '.join(told) or 'student alone'}]"})

    def only(self, names: Sequence[str] | None) -> Experiment:
        """The experiment with some of its variants.

        Raises:
            InputError: it has no such variant.
        """
        if names is None:
            return self
        known = {variant.name: variant for variant in self.variants}
        for name in names:
            if name not in known:
                raise InputError(f"experiment {self.name!r} has no configuration {name!r}; there are: {', '.join(known)}")
        return replace(self, variants=tuple(known[name] for name in names))

    def position(self, variant: Variant) -> int:
        """Place of a variant in the whole set, for tables."""
        return [v.name for v in EXPERIMENTS[self.name](self.base).variants].index(variant.name)


def _one_size(base: Recipe) -> tuple[str, ...]:
    """The change that gives all canvases photos of one size, where the base recipe does not."""
    return () if base.student.photo_sizes is None else ("student.photo_sizes=null",)


def _no_head(base: Recipe) -> tuple[str, ...]:
    """The changes that take the search heads away, and what is trained for them, where the base recipe has them."""
    return (*(["search.head=false"] if base.search.head else []), *_no_levels(base))


def _no_levels(base: Recipe) -> tuple[str, ...]:
    """The changes for a backbone that has other levels than the base recipe's, where that reads some."""
    rankings = {"teacher.ranking": base.teacher.ranking.levels, "student.ranking": base.student.ranking.levels}
    read = {"search": base.search.levels} | rankings
    return tuple(f"{name}.levels=[]" for name, levels in read.items() if levels)


def _distillation(base: Recipe) -> Experiment:
    shares = (0.0, 0.25, 0.5, 0.75)
    swept = tuple(
        Variant(f"λ = {share:g}", (f"student.distillation.ranking_share={share:g}", *_PAPER)) for share in shares
    )
    direct = Variant("trained directly", ("student.distillation.ranking_share=1", *_PAPER), teacher=False)
    question = "Does distillation help, and with how much of the ranking loss (λ)?"
    return Experiment("distillation", question, base, (direct, *swept), direct.name)


def _relations(base: Recipe) -> Experiment:
    named = {
        "all relations": (1, 1, 1),
        "without sketch–positive": (0, 1, 1),
        "without sketch–negative": (1, 0, 1),
        "without positive–negative": (1, 1, 0),
    }
    variants = tuple(
        Variant(name, (f"student.distillation.relations={list(weights)}", *_BOTH_SIDES)) for name, weights in named.items()
    )
    return Experiment("relations", "Which of the distilled relations matter?", base, variants, "all relations")


def _rivals(base: Recipe) -> Experiment:
    variants = [Variant("relations", _PAPER)]
    # Both rivals are of order one where L_RKD is small, so that no factor is needed.
    for kind, name in (("features", "feature regression"), ("softmax", "row softmax")):
        changes = (f"student.distillation.kind={kind}", "student.distillation.scale=1", *_PAPER)
        variants.append(Variant(name, changes))
    question = "Do distilled relations beat regressed features and distilled row softmax?"
    return Experiment("rivals", question, base, tuple(variants), "relations")


def _galleries(base: Recipe) -> Experiment:
    variants = (
        Variant("its own", (*_no_head(base), *_PAPER)),
        Variant("the full network's", ("student.gallery=full", *_no_head(base), *_one_size(base), _FROM_WEIGHTS, *_STUDENT_ALONE)),
    )
    question = "Whose photo embeddings should the student's queries be compared with?"
    return Experiment("galleries", question, base, variants, variants[0].name, "same")


def _starts(base: Recipe) -> Experiment:
    teacher, student = (stage.network.model_dump(mode="json") for stage in (base.teacher, base.student))
    alike = [f"teacher.network.{key}={json.dumps(student[key])}" for key in student if teacher[key] != student[key]]
    silent = ["student.distillation.relations=[0, 0, 0]"]
    if base.recognition is not None:
        silent.append("recognition.logits_weight=0")
    starts = {
        "the network's weights": ("weights", ()),
        "a member of the full network": ("member", ()),
        "a member, then not distilled": ("member", silent),  # longer training alone
    }
    variants = tuple(
        Variant(name, (f"student.distillation.start={start}", *untaught, "student.gallery=own", *alike, *_STUDENT_ALONE))
        for name, (start, untaught) in starts.items()
    )
    question = "Where should the student's training start, if it is a network of the full network's kind?"
    return Experiment("starts", question, base, variants, variants[0].name, "same")


def _photos(base: Recipe) -> Experiment:
    def variant(name: str, sizes: list[int] | None) -> Variant:
        return Variant(name, (f"student.photo_sizes={json.dumps(sizes)}", "student.gallery=own", *_STUDENT_ALONE))

    canvases, most = base.student.canvases, base.data.photo_size
    larger = [min(3 * canvas // 2, most) for canvas in canvases]
    variants = (
        variant(f"{base.student.photo_size} pixels for all", None),
        variant("half as large again as the canvas", larger),
        variant("as large as the canvas", list(canvases)),
    )
    question = "How large should the photos be that a canvas's sketches are searched among?"
    return Experiment("photos", question, base, variants, variants[0].name, "same")


def _search(base: Recipe) -> Experiment:
    all_parts = ("search.head=true", *_STUDENT_ALONE, "student.gallery=own")
    head = (*all_parts, *(["search.levels=[]"] if base.search.levels else []))
    variants = [
        Variant("as trained", ("search.head=false", *head[1:])),
        Variant("whitened", (*head, "search.neighbours=0")),
        Variant("photos near everything held back", (*head, "search.whitening=null", "search.dimensions=null")),
        Variant("both", head),
    ]
    if base.search.levels:
        variants.append(Variant("both, and levels", all_parts))
    question = "What does a search head bring, computed from training pairs after the training?"
    return Experiment("search", question, base, tuple(variants), variants[0].name, "same")


def _copies(base: Recipe) -> Experiment:
    def variant(name: str, shift: float) -> Variant:
        return Variant(name, (f"search.copy_shift={shift}", "selector.train=false"))

    variants = (variant("each photo once", 0.0), variant("four copies more, moved by 5 %", 0.05))
    question = "What do moved copies of every photo in the gallery bring?"
    return Experiment("copies", question, base, variants, variants[0].name, "same")


def _canvases(base: Recipe) -> Experiment:
    def variant(size: int, photo_size: int) -> Variant:
        alone = [f"student.canvases=[{size}]", "student.canvases_per_step=null"]
        if base.student.photo_sizes is not None:
            alone.append(f"student.photo_sizes=[{photo_size}]")
        return Variant(f"{size} alone", (*alone, *_STUDENT_ALONE))

    alone = map(variant, base.student.canvases, base.student.gallery_sizes)
    question = "What does one student for all canvases cost against one student a canvas?"
    return Experiment("canvases", question, base, (Variant("all canvases", _STUDENT_ALONE), *alone), "all canvases", "same")


def _resolution(base: Recipe) -> Experiment:
    full = base.student.photo_size
    sizes = [size for size in (32, 64, 128, 256) if size < full]

    def variant(name: str, sketch: int, photo: int) -> Variant:
        changes = (
            f"student.canvases=[{sketch}]", "student.canvases_per_step=null",
            f"student.photo_size={photo}", *_one_size(base),
            "student.distillation.ranking_share=1", *_PAPER,
        )
        return Variant(name, changes, teacher=False)

    variants = [variant(f"sketch and photo at {full}", full, full)]
    variants += [variant(f"sketch at {size}", size, full) for size in sizes]
    variants += [variant(f"photo at {size}", full, size) for size in sizes]
    question = "Who loses more by fewer pixels, sketches or photos (the pilot study)?"
    return Experiment("resolution", question, base, tuple(variants), variants[0].name)


def _prices(base: Recipe) -> Experiment:
    prices = "selector.cost_weights=[0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7]"
    variants = tuple(
        Variant(name, (prices, f"selector.gradient={kind}"))
        for name, kind in (("all-action gradient", "expected"), ("sampled REINFORCE", "sampled"))
    )
    return Experiment("prices", "What does V2 reach at every price of FLOPs (λ_F)?", base, variants, variants[1].name, "v2")


def _policies(base: Recipe) -> Experiment:
    variants = (
        Variant("GRU over the points", ("selector.reads=points",)),
        Variant("statistics of the strokes", ("selector.reads=statistics",)),
        Variant("both", ("selector.reads=both",)),
        Variant("statistics and ink map", ("selector.reads=ink",)),
    )
    return Experiment("policies", "What should the policy read?", base, variants, variants[0].name, "v2")


def _picking(base: Recipe) -> Experiment:
    folds = [] if base.selector.folds >= 2 else ["selector.folds=2"]
    variants = (
        Variant("on the validation split", (*folds, "selector.picked_on=validation")),
        Variant("on the drawings of the folds", (*folds, "selector.picked_on=folds")),
    )
    question = "On which drawings should the policy be picked and calibrated?"
    return Experiment("picking", question, base, variants, variants[0].name, "v2")


def _students(base: Recipe) -> Experiment:
    def variant(name: str, backbone: str, weights: str) -> Variant:
        network = (f"student.network.backbone={backbone}", f"student.network.weights={weights}")
        changes = (*network, *_no_levels(base), _FROM_WEIGHTS, "selector.train=false")
        return Variant(name, changes)

    variants = (
        variant("MobileNetV2", "mobilenet_v2", "mobilenet_v2_imagenet.safetensors"),
        variant("SqueezeNet 1.1", "squeezenet1_1", "squeezenet1_1_imagenet.safetensors"),
        variant("MobileNetV2 up to a stride of 16", "mobilenet_v2/16", "mobilenet_v2_imagenet.safetensors"),
        variant(
            "EfficientNet-Lite0 (timm; its state_dict as tf_efficientnet_lite0.safetensors in --weights)",
            "timm:tf_efficientnet_lite0",
            "tf_efficientnet_lite0.safetensors",
        ),
    )
    return Experiment("students", "Is the student plug-and-play?", base, variants, variants[0].name)


def _teachers(base: Recipe) -> Experiment:
    def variant(name: str, members: int, flip: bool) -> Variant:
        changes = (f"teacher.members={members}", f"teacher.flip={str(flip).lower()}", *mirrored, *_no_levels(base))
        return Variant(name, (*changes, _FROM_WEIGHTS, *_STUDENT_ALONE))

    mirrored = () if base.search.flip else ("search.flip=true",)

    variants = (
        variant("one network", 1, False),
        variant("two networks", 2, False),
        variant("two networks, mirrored too", 2, True),
        variant("four networks, mirrored too", 4, True),
        Variant(
            "VGG-16 (vgg16_imagenet.safetensors in --weights)",
            (
                "teacher.network.backbone=vgg16", "teacher.network.weights=vgg16_imagenet.safetensors",
                "teacher.members=1", "teacher.flip=false", *_no_levels(base), _FROM_WEIGHTS, *_STUDENT_ALONE,
            ),
        ),
    )
    return Experiment("teachers", "How strong must the full network be?", base, variants, variants[0].name)


def _base(base: Recipe) -> Experiment:
    question = "What does the recipe reach, seed after seed?"
    return Experiment("base", question, base, (Variant("as it is"),), "as it is", "v2")


EXPERIMENTS: dict[str, Callable[[Recipe], Experiment]] = {
    "base": _base,
    "distillation": _distillation,
    "relations": _relations,
    "rivals": _rivals,
    "galleries": _galleries,
    "starts": _starts,
    "canvases": _canvases,
    "photos": _photos,
    "search": _search,
    "copies": _copies,
    "resolution": _resolution,
    "prices": _prices,
    "policies": _policies,
    "picking": _picking,
    "students": _students,
    "teachers": _teachers,
}


def find_experiment(name: str, base: Recipe) -> Experiment:
    """An experiment over variants of a recipe.

    Raises:
        InputError: there is none of that name.
    """
    if name not in EXPERIMENTS:
        near = difflib.get_close_matches(name, EXPERIMENTS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(EXPERIMENTS)}"
        raise InputError(f"no experiment {name!r}; {hint}")
    return EXPERIMENTS[name](base)
