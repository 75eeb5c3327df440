"""Validated configuration of a pipeline: one section a topic, a docstring under every field.

Sections are immutable pydantic models that refuse unknown keys, so that a misspelt key is an error and not
a silent default. Values that the paper leaves open are named *ours*.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sketchynet.augment import PhotoAugmentation, SketchAugmentation
from sketchynet.errors import InputError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Canvas = Annotated[int, Field(ge=8, le=2048)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A group of settings; immutable, unknown keys refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, strict=False
    )


def _check_ascending(levels: tuple[int, ...]) -> None:
    if list(levels) != sorted(set(levels)):
        raise ValueError(f"levels must ascend without repetition, found {list(levels)}")


class DataConfig(Section):
    """Which pairs of sketches and photos, and how they are split."""

    source: str
    """Name of the data source: ``procedural``, or one of ``sketchynet data list``."""
    options: dict[str, int | float | bool | str] = {}
    """Options of that source (see its reader)."""
    skip_bad: bool = False
    """Leave out files that cannot be read, counted and listed in the notes, instead of stopping at the first."""
    photo_size: Canvas = 256
    """Side in pixels to which photos are decoded once, in the prepared cache."""
    validation: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.12
    """Share of the training photos that is carved out for validation."""
    seed: int = 0
    """Seed of the split; apart from the recipe's own, so that seeds of a recipe share their split."""


class AugmentationConfig(Section):
    """Augmentation of a pair; a flip always meets sketch and photo together."""

    flip: Share = 0.5
    """Chance of a joint left–right flip."""
    sketch: SketchAugmentation = SketchAugmentation(
        rotation=8.0, scale=0.12, aspect=0.08, shear=0.05, translation=0.04, jitter=0.008, stroke_dropout=0.1
    )
    """Random changes of the vector sketch; in a recipe file, what this section leaves out is off."""
    photo: PhotoAugmentation = PhotoAugmentation(
        rotation=5.0, scale=0.1, translation=0.04, brightness=0.2, contrast=0.2, saturation=0.4, grayscale=0.2
    )
    """Random changes of the photo; in a recipe file, what this section leaves out is off."""


class NetworkConfig(Section):
    """One embedding network, shared between sketch and photo (Siamese)."""

    backbone: str
    """Name of the backbone (see ``sketchynet flops``), ``NAME/16`` for its layers up to that stride, or ``timm:NAME``."""
    norm: Literal["private", "frozen", "folded", "shared"] = "private"
    """Batch norms: private statistics per canvas and modality, frozen ones, frozen ones folded into the
    convolutions (faster, the same function), or shared ones (for comparison: known to fail)."""
    pooling: Literal["avg", "max", "gem", "layout"] = "avg"
    """Global pooling; ``layout`` joins the generalised mean with the averages of the four quarters."""
    normalize: bool = False
    """Scale embeddings to unit length."""
    projection: Positive | None = None
    """Width of a linear projection head; none by default, as in the paper."""
    weights: str | None = None
    """File name of backbone weights, looked for in ``--weights DIR`` or ``$SKETCHYNET_WEIGHTS``."""


class OptimizationConfig(Section):
    """AdamW with a linear warm-up and a cosine decay to zero."""

    epochs: Positive
    """Epochs; in one epoch each training photo appears once, with one of its sketches."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Sketch–photo pairs in the global batch, whatever the number of workers."""
    batches: Literal["category", "mixed"] = "category"
    """Batches of one category, whose negatives are the ones that matter, or of all categories, whose
    batch-norm statistics are those of evaluation (for private or shared norms on several categories)."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate of the global batch."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor on the learning rate from each block of the backbone to the one before it; below 1 it keeps
    pre-trained first layers nearly as they are."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Decoupled weight decay of the convolution and linear weights."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps in which the learning rate rises."""
    gradient_clip: Annotated[float, Field(gt=0)] | None = 5.0
    """Greatest norm of the gradient."""
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential average of weights that is evaluated and kept; 0 keeps the last weights. Early
    on the average is shorter, so that it does not drag the first weights along."""
    accumulate: Positive = 1
    """Parts that every worker's share of the batch is embedded in, one after another, for batches that do not fit into
    memory. The loss still sees all embeddings of the global batch at once, and so every negative and relation: a
    first pass without gradients embeds all parts, a second one repeats each part to send its gradient back, for a
    third more computing. Batch norms that are not frozen take their statistics from the part."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the forward pass (autocast); the loss is float32. ``float16`` scales the loss, so that small
    gradients survive; the scale is part of the checkpoint."""
    synchronize_norms: bool = False
    """Let private batch norms take their statistics from the images of all workers, so that the result does not depend on
    the number of workers (beyond rounding), for two short messages a norm and pass. Otherwise each worker has the
    statistics of its own share, and the running ones are averaged after every epoch."""
    compile: bool = False
    """Compile the backbone with ``torch.compile``: about a minute for every canvas size, then faster steps. Needs a C++
    compiler on the CPU. Rounding differs from the uncompiled network's."""
    checkpoint_every: Positive | None = None
    """Steps between checkpoints inside an epoch, for epochs of hours; there is one after every epoch anyway."""
    validate_every: Positive = 5
    """Epochs between validations (the last epoch is always validated)."""
    keep: Literal["best", "last"] = "best"
    """Weights that the stage hands on: the best validated ones, or the last ones."""


class RankingConfig(Section):
    """The loss on sketch–photo distances with in-batch negatives."""

    kind: Literal["triplet", "contrastive"] = "triplet"
    """``triplet`` as in the paper, or the symmetric in-batch cross-entropy over cosines."""
    margin: Annotated[float, Field(gt=0)] = 0.3
    """Triplet margin (ours)."""
    mining: Literal["all", "hard", "semi-hard"] = "all"
    """Triplets over all in-batch negatives that violate, over the hardest alone (batch-hard), or over the nearest that
    is farther than the sketch's own photo (semi-hard)."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """Temperature of the contrastive loss."""
    levels: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Parts of the backbone, as in ``search.levels``, whose outputs the same loss trains too (deep supervision, Lee et al.,
    AISTATS 2015), each as its averages over fields at unit length; the last part is what the embedding pools."""
    level_fields: Positive = 4
    """Fields in width and in height over which such a level is averaged."""
    level_weight: Annotated[float, Field(gt=0)] = 0.5
    """Weight of each level's loss beside that of the embedding (ours)."""

    @model_validator(mode="after")
    def _levels_ascend(self) -> RankingConfig:
        _check_ascending(self.levels)
        return self


def _check_compiled(optimization: OptimizationConfig, ranking: RankingConfig) -> None:
    if optimization.compile and ranking.levels:
        raise ValueError(f"optimization.compile leaves out levels: set it to false, or ranking.levels {list(ranking.levels)} to []")


class TeacherConfig(Section):
    """The full network: one or several members, each trained by the ranking loss."""

    network: NetworkConfig
    members: Positive = 1
    """Networks trained from different seeds whose unit-length embeddings are joined."""
    flip: bool = False
    """Join every embedding with that of the mirrored image (doubles the FLOPs, which are counted); see ``search.flip``."""
    canvas: Canvas = 256
    """Canvas and photo size at which the full network is evaluated."""
    train_sizes: Annotated[tuple[Canvas, ...], Field(min_length=1)] = (256,)
    """Training resolutions, in equal shares of the epochs, in this order."""
    optimization: OptimizationConfig
    ranking: RankingConfig = RankingConfig()

    @model_validator(mode="after")
    def _levels_are_not_compiled(self) -> TeacherConfig:
        _check_compiled(self.optimization, self.ranking)
        return self

    @model_validator(mode="after")
    def _evaluated_canvas_is_trained(self) -> TeacherConfig:
        if self.network.norm == "private" and self.canvas not in self.train_sizes:
            raise ValueError(
                f"canvas {self.canvas} is not among train_sizes {list(self.train_sizes)}: its private batch-norm "
                "statistics would never be trained"
            )
        return self


class DistillationConfig(Section):
    """What the student learns from the full network: its relations (the paper), or one of two rivals."""

    kind: Literal["relations", "features", "softmax"] = "relations"
    """``relations``: cross-modal distances, L_RKD. ``features``: the full network's embedding itself, regressed from
    the student's by a linear layer that only training has (FitNets). ``softmax``: each sketch's distribution over
    the photos of the batch."""
    ranking_share: Share = 0.5
    """λ of λ·L_tri + (1−λ)·L_RKD (ours); 1 is a student trained directly."""
    relations: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Weights of the relations sketch–positive, sketch–negative, positive–negative."""
    huber_delta: Annotated[float, Field(gt=0)] = 1.0
    """Where the Huber loss turns linear (ours)."""
    normalize: bool = False
    """Divide distances by their batch mean, for networks whose embeddings differ in scale."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the distilled loss; L_RKD is small beside a ranking loss when embeddings have unit length (ours)."""
    components: Positive = 256
    """``features``: principal components of the full network's training embeddings that are regressed."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """``softmax``: temperature of the distances, on both sides."""
    start: Literal["weights", "member"] = "weights"
    """What the distilled student's training starts from: its network's ``weights`` (the paper), or the first ``member`` of
    the full network, which must be a network of the same kind (ours). Students of folds start from the weights
    either way: the member has seen the drawings on which they are asked."""


class StudentConfig(Section):
    """The light network: trained on all canvases at once, directly and by distillation."""

    network: NetworkConfig
    canvases: Annotated[tuple[Canvas, ...], Field(min_length=1)] = (32, 64, 128, 256)
    """Canvas sizes, ascending; the student serves them all."""
    canvases_per_step: Positive | None = None
    """Draw the batch at so many random canvases a step instead of at all (cheaper on large canvases)."""
    photo_size: Canvas = 256
    """Size of the photos; the paper keeps it full."""
    photo_sizes: tuple[Canvas, ...] | None = None
    """Instead, one size for each of ``canvases``: a sketch is then learnt and searched among photos of its canvas's size,
    in a gallery of its own, which is nearer to what few pixels show. A query costs the same; the photos are embedded
    once for every size (ours). Private norms keep one set of statistics for photos of all sizes."""
    gallery: Literal["own", "full"] = "own"
    """Whose embeddings of the photos the distilled student's queries are compared with: its ``own``, one network for both
    sides (the paper), or those that the ``full`` network stores. The student then learns to embed sketches alone, against
    all training photos at once (ours); a query costs the same."""
    dimensions: Positive = 256
    """``gallery`` ``full``: principal directions of the full network's training embeddings that are kept, if it has more."""
    optimization: OptimizationConfig
    ranking: RankingConfig = RankingConfig()
    distillation: DistillationConfig = DistillationConfig()
    direct: bool = True
    """Also train the same network without a teacher, for comparison."""

    @model_validator(mode="after")
    def _levels_are_not_compiled(self) -> StudentConfig:
        _check_compiled(self.optimization, self.ranking)
        return self

    @model_validator(mode="after")
    def _canvases_ascend(self) -> StudentConfig:
        if list(self.canvases) != sorted(set(self.canvases)):
            raise ValueError(f"canvases must ascend without repetition, found {list(self.canvases)}")
        if self.canvases_per_step is not None and self.canvases_per_step > len(self.canvases):
            raise ValueError(
                f"canvases_per_step = {self.canvases_per_step} is more than the {len(self.canvases)} canvases"
            )
        return self

    @model_validator(mode="after")
    def _every_canvas_has_its_photo_size(self) -> StudentConfig:
        if self.photo_sizes is not None and len(self.photo_sizes) != len(self.canvases):
            raise ValueError(
                f"photo_sizes {list(self.photo_sizes)} must be one for each of the canvases {list(self.canvases)}, or null "
                f"for photos of {self.photo_size} pixels throughout"
            )
        return self

    @property
    def gallery_sizes(self) -> tuple[int, ...]:
        """Side of the photos that a sketch is compared with, one a canvas."""
        return self.photo_sizes or (self.photo_size,) * len(self.canvases)


class SearchConfig(Section):
    """What stands between a trained network and the search: a head that is computed from training pairs, not trained.

    The full network's members, the directly trained student, SketchyNetV1 and the students of folds each have their own;
    distillation and training go without. See `sketchynet.models.search_head`."""

    head: bool = False
    """Whether there is one (ours); without, embeddings are searched as they were trained."""
    levels: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Parts of the backbone, ascending, by their numbers from 0 (torchvision's ``features.N``), whose outputs are searched
    beside the embedding, the last part's in finer fields than its; students and full network must have them. They are
    computed on the way to it, and whitened by themselves."""
    fields: Positive = 4
    """Fields in width and in height over which a level is averaged."""
    flip: bool = True
    """Whether the full network behind heads is searched with mirror images where ``teacher.flip`` joins them; students learn
    from them either way."""
    whitening: Annotated[float, Field(gt=0)] | None = 1.0
    """Shrinkage of the whitening: the mean variance, so many times, is added to the differences between sketches and their
    photos in every direction. null keeps all directions as they are."""
    dimensions: Positive | None = 256
    """Principal directions that are kept of the whitened embedding, and of each whitened level; null keeps all."""
    neighbours: Annotated[int, Field(ge=0)] = 10
    """Training sketches, at most as many as there are, that say how much a photo lies near everything; 0 for none."""
    sketches: Annotated[int, Field(ge=2)] = 1024
    """Training sketches, drawn at random, from which the head is computed."""
    copy_shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of its side by which every photo is stored four times more, moved to the left, right, top and bottom, with or
    without a head (ours): its two copies nearest to a drawing count, in their mean. What comes in at the edge is as
    ``augmentation.photo.border`` says. To embed a query costs the same, to search costs five times and more; 0 for none."""

    @model_validator(mode="after")
    def _levels_ascend(self) -> SearchConfig:
        _check_ascending(self.levels)
        return self

    @model_validator(mode="after")
    def _enough_sketches(self) -> SearchConfig:
        if self.neighbours > self.sketches:
            raise ValueError(f"neighbours = {self.neighbours} is more than the {self.sketches} sketches")
        return self


class SelectorConfig(Section):
    """The canvas policy: a GRU over the vector sketch, trained by policy gradient."""

    train: bool = True
    """Without, there is no policy and no student of a fold: the pipeline ends with SketchyNetV1."""
    reads: Literal["points", "statistics", "both", "ink"] = "points"
    """What the policy reads: the points by its GRU (the paper), cheap statistics of them (strokes, points, ink, box)
    by a small perceptron, or both; or, by a perceptron, the statistics and a map of how much ink lies where (ours)."""
    hidden: Positive = 128
    """Width of the GRU, or of the perceptron that reads statistics or the ink map."""
    tolerance: Annotated[float, Field(ge=0, lt=0.5)] = 0.01
    """Douglas–Peucker tolerance, in units of the frame (ours)."""
    max_points: Positive = 96
    """Points that the policy reads at most; what is longer after simplification is thinned out."""
    folds: Annotated[int, Field(ge=0)] = 0
    """Cross-fitting: so many students, each rewarded on the fold it was not fitted on. 0 holds a share of
    the training photos out of the student instead, for data sets with many sketches."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """That share (used when ``folds`` is 0)."""
    fold_epochs: Positive | None = None
    """Epochs of a fold's student; the student's own number by default."""
    views: Positive = 4
    """Seeded augmentations of every sketch that the policy sees (the first is the sketch as drawn)."""
    cost_weights: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.1, 0.2, 0.3, 0.5)
    """λ_F values; a policy is trained for each, and one of them is picked (ours)."""
    picked_on: Literal["validation", "folds"] = "validation"
    """Where it is picked and calibrated, and where its rivals are tuned: on the validation split, answered by the
    student; or on the drawings of all folds, each answered by the student that was not fitted on it, and given its
    canvas by policies that have not learnt from its fold, for which more policies are trained (in as many steps). A student
    of a fold has seen fewer photos than the one that is used, but a small validation split leaves the choice to chance (ours)."""
    shares: tuple[Share, ...] = (0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Shares of the largest canvas's FLOPs to which every trained policy is calibrated there, besides
    being used as it is (ours): a price moves the mean cost in jumps, a calibration does not."""
    tolerated_loss: Annotated[float, Field(ge=0)] = 1.0
    """Points of Acc@1 that the picked policy may lose there against the largest canvas."""
    budget: Annotated[float, Field(gt=0, le=1)] | None = None
    """Instead: the share of the largest canvas's FLOPs that a query costs on average. Every trained policy is
    calibrated to it, and the one of the highest MRR is picked."""
    rank_weight: Annotated[float, Field(ge=0)] = 1.0
    """λ_r of R_acc = λ_r / rank − λ_tri · L_tri (ours)."""
    triplet_weight: Annotated[float, Field(ge=0)] = 0.2
    """λ_tri of R_acc (ours)."""
    margin: Annotated[float, Field(gt=0)] = 0.3
    """Margin of L_tri in the reward (ours)."""
    gradient: Literal["sampled", "expected"] = "sampled"
    """``sampled`` is the paper's REINFORCE; ``expected`` is the gradient that it estimates, exact over all
    canvases of a sketch: no variance from the sampling, for the price of rolling out every canvas once."""
    samples: Annotated[int, Field(ge=2)] = 8
    """Canvases sampled a sketch and step (``sampled``); the mean reward of the others is each one's baseline."""
    entropy: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the policy's entropy at the start; it falls linearly to zero (ours). With too little the policy
    settles on one canvas before it has learnt to read the sketch."""
    optimization: OptimizationConfig

    @model_validator(mode="after")
    def _folds_to_pick_on(self) -> SelectorConfig:
        if self.picked_on == "folds" and self.folds < 2:
            raise ValueError(
                f'picked_on = "folds" needs two folds or more, and folds is {self.folds}: set folds to 2, or picked_on to "validation"'
            )
        return self


class RecognitionConfig(Section):
    """Recognition of categories instead of retrieval of photos: what takes the place of the ranking losses.

    A sketch's rank is then that of its own category among all of them, so that Acc@1 is the usual accuracy, and
    in the selector's reward the triplet loss gives way to a margin loss on the probabilities of the categories.
    """

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the target's weight that is spread over all categories in the cross-entropy."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the embedding that training hides from the linear layer."""
    views: Positive = 6
    """Seeded augmentations of every training sketch that the full network is asked about; a distilled student
    is trained on these, in turn, so that both have always seen the same drawing."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """Temperature at which the full network's logits are distilled."""
    logits_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the distilled logits beside the distilled relations (``student.distillation.scale``)."""


class EvaluationConfig(Section):
    """How the test split is read."""

    bootstrap: Positive = 2000
    """Resamples behind the 95 % intervals."""
    grey_stem: bool = False
    """Embed sketches through a first layer folded to one channel: the same embeddings for a third of that layer. The
    FLOPs of the paper's convention (three channels) stand beside as ever."""
    sheet_rows: Positive = 8
    """Queries on the retrieval sheet."""


class Recipe(Section):
    """A whole pipeline: data, full network, students, selector, evaluation."""

    name: str
    """Name of the recipe."""
    description: str = ""
    """One line for ``sketchynet recipes``."""
    seed: int = 0
    """Seed of everything but the split."""
    data: DataConfig
    augmentation: AugmentationConfig = AugmentationConfig()
    teacher: TeacherConfig
    student: StudentConfig
    search: SearchConfig = SearchConfig()
    selector: SelectorConfig
    recognition: RecognitionConfig | None = None
    """Given, the task is recognition; otherwise it is retrieval."""
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def searches_mirrored(self) -> bool:
        """Whether the full network is searched with mirror images."""
        return self.teacher.flip and (self.search.flip or not self.search.head)

    @model_validator(mode="after")
    def _stored_gallery_is_the_full_networks(self) -> Recipe:
        student = self.student
        if student.gallery == "own":
            return self
        if self.recognition is not None:
            raise ValueError("student.gallery = full: recognition has no photos")
        if student.network.projection is not None:
            raise ValueError(
                f"student.gallery = full: student.network.projection {student.network.projection} must be null; the full "
                "network's embedding and student.dimensions give the size"
            )
        if student.photo_size != self.teacher.canvas:
            raise ValueError(
                f"student.gallery = full: student.photo_size {student.photo_size} must be teacher.canvas "
                f"{self.teacher.canvas}, the size at which the full network embeds photos"
            )
        if student.photo_sizes is not None:
            raise ValueError("student.gallery = full has the full network's one size: student.photo_sizes must be null")
        if student.distillation.kind != "relations" or student.distillation.ranking_share == 1.0:
            raise ValueError(
                "student.gallery = full needs student.distillation.kind = relations and a ranking_share below 1; for a "
                "student without them set student.gallery=own"
            )
        if student.ranking.levels:
            raise ValueError("student.gallery = full compares embeddings alone: student.ranking.levels must be []")
        if student.ranking.kind == "triplet" and student.ranking.mining == "semi-hard":
            raise ValueError("student.gallery = full: semi-hard negatives are picked in a batch; choose mining all or hard")
        return self

    @model_validator(mode="after")
    def _head_needs_both_sides(self) -> Recipe:
        if self.recognition is not None:
            asked = [name for name in ("head", "copy_shift") if getattr(self.search, name)]
            if asked:
                raise ValueError(f"search.{asked[0]}: recognition searches no photos")
        if self.search.head and self.student.gallery == "full":
            raise ValueError("search.head needs student.gallery = own: the full network's photos are stored as they are")
        return self

    @model_validator(mode="after")
    def _student_can_start_from_a_member(self) -> Recipe:
        if self.student.distillation.start == "weights":
            return self
        kinds = [stage.network.model_dump(exclude={"weights"}) for stage in (self.teacher, self.student)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"student.distillation.start = member: student.network {kinds[1]} must be of the kind of teacher.network "
                f"{kinds[0]}; start from weights instead"
            )
        if self.student.gallery == "full" or self.student.distillation.ranking_share == 1.0:
            raise ValueError(
                "student.distillation.start = member needs student.gallery = own and a ranking_share below 1; otherwise "
                "set student.distillation.start=weights"
            )
        return self

    @model_validator(mode="after")
    def _recognition_ranks_no_photos(self) -> Recipe:
        for name, stage in (("teacher", self.teacher), ("student", self.student)):
            if self.recognition is not None and stage.ranking != RankingConfig():
                raise ValueError(f"{name}.ranking is about photos; a recipe for recognition cannot set it")
        if self.recognition is not None and self.student.distillation.kind != "relations":
            raise ValueError("student.distillation.kind: recognition distils logits and relations alone")
        return self


def parse_recipe(values: Mapping[str, Any], *, place: str) -> Recipe:
    """Validates a recipe given as nested mappings.

    Raises:
        InputError: a key is unknown or a value has the wrong type or range; names the key and ``place``.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InputError(_explain(error, place)) from None


def override(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """The recipe with ``key=value`` assignments applied; keys are dotted, values JSON or bare words.

    Raises:
        InputError: an assignment has no ``=``, names no field, or does not validate.
    """
    values = recipe.model_dump(mode="json")
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment}: expected key=value, for example student.optimization.epochs=5")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        _assign(values, key.strip(), value)
    return parse_recipe(values, place="after --set")


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    section: Any = values
    names = key.split(".")
    for depth, name in enumerate(names):
        free = names[:2] == ["data", "options"] and depth == 2
        if not isinstance(section, dict) or (name not in section and not free):
            known = sorted(section) if isinstance(section, dict) else []
            where = ".".join(names[:depth]) or "the recipe"
            raise InputError(f"--set {key}: no field {name!r} in {where}{_hint(name, known)}")
        if depth == len(names) - 1:
            section[name] = value
        else:
            section = section[name]


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe from a JSON file.

    Raises:
        InputError: the file is missing, is not JSON, or does not validate.
    """
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"no recipe file {path}; `sketchynet recipes` lists the built-in names") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a JSON recipe: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object with the recipe's sections, found {type(values).__name__}")
    return parse_recipe(values, place=str(path))


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; fields there: {', '.join(known)}" if known else ""


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    section: Any = Recipe
    for name in location:
        field = getattr(section, "model_fields", {}).get(name)
        section = field.annotation if field is not None else None
    return sorted(getattr(section, "model_fields", None) or getattr(section, "__dataclass_fields__", {}))


def _explain(error: ValidationError, place: str) -> str:
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"]) or "recipe"
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            lines.append(f"{key}: unknown key{_hint(str(item['loc'][-1]), _fields_at(item['loc'][:-1]))}")
        elif item["type"] == "missing":
            lines.append(f"{key}: missing")
        else:
            found = "" if isinstance(item["input"], dict) else f", found {item['input']!r}"
            lines.append(f"{key}: {item['msg'].removeprefix('Value error, ')}{found}")
    return f"recipe {place}: " + "; ".join(lines)
