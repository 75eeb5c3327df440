"""Recipes on the built-in procedural set: nothing to download, small networks, the same code as the large ones."""

from __future__ import annotations

from sketchynet.augment import PhotoAugmentation, SketchAugmentation
from sketchynet.config import (
    AugmentationConfig,
    DataConfig,
    DistillationConfig,
    NetworkConfig,
    OptimizationConfig,
    RankingConfig,
    Recipe,
    SelectorConfig,
    StudentConfig,
    TeacherConfig,
)

CANVASES = (32, 48, 96, 128)
"""Below 32 pixels a chair's details are gone; between 48 and 96 sketches differ most in what they lose."""

AUGMENTATION = AugmentationConfig(
    flip=0.0,  # a chair seen from the left is never asked for from the right
    sketch=SketchAugmentation(
        rotation=4.0, scale=0.06, aspect=0.04, shear=0.03, translation=0.03, jitter=0.005, stroke_dropout=0.05
    ),
    photo=PhotoAugmentation(
        rotation=2.0, scale=0.05, translation=0.03, brightness=0.1, contrast=0.1, saturation=0.3, grayscale=0.2
    ),
)
"""Milder than by default: few epochs leave little to overfit."""


def demo() -> Recipe:
    """Minutes on two CPU cores."""
    return Recipe(
        name="demo",
        description="the whole pipeline on the procedural chairs in minutes, on two CPU cores",
        data=DataConfig(
            source="procedural",
            options={"train": 800, "validation": 120, "test": 160, "sketches": 4},
            photo_size=128,
        ),
        augmentation=AUGMENTATION,
        teacher=TeacherConfig(
            network=NetworkConfig(backbone="vgg_small", norm="private", normalize=True),
            canvas=128,
            train_sizes=(64, 64, 128),  # most is learnt at a quarter of the cost
            optimization=OptimizationConfig(
                epochs=8, batch_size=32, learning_rate=2e-3, validate_every=4, keep="last"
            ),
            ranking=RankingConfig(kind="contrastive", temperature=0.07),
        ),
        student=StudentConfig(
            network=NetworkConfig(backbone="vgg_tiny", norm="private", normalize=True),
            canvases=CANVASES,
            canvases_per_step=2,
            photo_size=128,
            optimization=OptimizationConfig(epochs=7, batch_size=32, learning_rate=3e-3, validate_every=4),
            ranking=RankingConfig(kind="contrastive", temperature=0.07),
            # Distances between unit-length embeddings are small, and their squared errors smaller.
            distillation=DistillationConfig(ranking_share=0.5, scale=100.0),
        ),
        selector=SelectorConfig(
            reads="ink",  # a GRU learns less of a chair's shape from so few, and costs more
            hidden=32,
            max_points=96,
            entropy=0.06,  # outcomes differ little between canvases: a policy in a hurry settles on one
            triplet_weight=1.0,
            holdout=0.25,
            views=2,
            gradient="expected",
            cost_weights=(0.05, 0.1),
            budget=0.48,  # validation and test drawings differ by some hundredths of it: below half on both
            optimization=OptimizationConfig(epochs=30, batch_size=128, learning_rate=5e-3, weight_decay=0.0),
        ),
    )


def procedural() -> Recipe:
    """The paper's claims on more chairs: the full network and the policy learn from many, the student from 1,600."""
    small = demo()
    teacher, student, selector = small.teacher, small.student, small.selector
    return small.model_copy(
        update={
            "name": "procedural",
            "description": "the claims on 4,800 procedural chairs, about twenty CPU minutes a seed",
            "data": small.data.model_copy(
                update={"options": {"train": 4000, "validation": 400, "test": 400, "sketches": 4}}
            ),
            "teacher": teacher.model_copy(
                update={
                    "optimization": teacher.optimization.model_copy(update={"epochs": 9, "validate_every": 3})
                }
            ),
            "student": student.model_copy(
                update={
                    "canvases_per_step": 3,
                    "gallery": "full",  # not the demo's: of its few photos what is stored is too well fitted
                    # How near the full network brings a sketch to a photo that it was trained on is nothing to learn.
                    "distillation": student.distillation.model_copy(update={"relations": (0.0, 1.0, 1.0)}),
                    "optimization": student.optimization.model_copy(update={"epochs": 14, "validate_every": 7}),
                }
            ),
            "selector": selector.model_copy(
                update={
                    "holdout": 0.6,
                    "optimization": selector.optimization.model_copy(update={"epochs": 20, "validate_every": 10}),
                }
            ),
        }
    )
