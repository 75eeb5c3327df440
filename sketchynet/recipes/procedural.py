"""Recipes on the built-in procedural set: nothing to download, small networks, the same code as the large ones."""

from __future__ import annotations

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

CANVASES = (16, 32, 64, 128)


def demo() -> Recipe:
    """Minutes on two CPU cores."""
    return Recipe(
        name="demo",
        description="the whole pipeline on the procedural chairs in minutes, on two CPU cores",
        data=DataConfig(
            source="procedural",
            options={"train": 640, "validation": 96, "test": 160, "sketches": 3},
            photo_size=128,
        ),
        augmentation=AugmentationConfig(flip=0.0),
        teacher=TeacherConfig(
            network=NetworkConfig(backbone="vgg_small", norm="private", normalize=True),
            canvas=128,
            train_sizes=(128,),
            optimization=OptimizationConfig(
                epochs=12, batch_size=32, learning_rate=2e-3, averaging=0.95, validate_every=4
            ),
            ranking=RankingConfig(kind="contrastive", temperature=0.07),
        ),
        student=StudentConfig(
            network=NetworkConfig(backbone="mobile_small", norm="private", normalize=True),
            canvases=CANVASES,
            photo_size=128,
            optimization=OptimizationConfig(
                epochs=12, batch_size=32, learning_rate=3e-3, averaging=0.95, validate_every=4
            ),
            ranking=RankingConfig(kind="contrastive", temperature=0.07),
            distillation=DistillationConfig(ranking_share=0.5, scale=10.0),
        ),
        selector=SelectorConfig(
            views=3,
            cost_weights=(0.1, 0.2, 0.3, 0.4),
            optimization=OptimizationConfig(epochs=20, batch_size=64, learning_rate=3e-3, weight_decay=0.0),
        ),
    )


def procedural() -> Recipe:
    """The claims of the paper on the procedural set."""
    small = demo()
    return small.model_copy(update={"name": "procedural", "description": "the claims on the procedural chairs"})
