"""QMUL Shoe-V1 and Chair-V1 from ImageNet weights, on two CPU cores."""

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

_IMAGENET = "mobilenet_v2_imagenet.safetensors"


def qmul_v1() -> Recipe:
    """Shoes and chairs in one network; the gallery of a query is its category's."""
    network = NetworkConfig(
        backbone="mobilenet_v2", norm="private", pooling="layout", normalize=True, weights=_IMAGENET
    )
    ranking = RankingConfig(kind="contrastive", temperature=0.07)
    return Recipe(
        name="qmul_v1",
        description="QMUL Shoe-V1 and Chair-V1: MobileNetV2 members from ImageNet weights, one MobileNetV2 student",
        data=DataConfig(
            source="qmul_v1", options={"extra_sketches": True, "fit_photos": True}, photo_size=256
        ),
        augmentation=AugmentationConfig(
            flip=0.5,
            sketch=SketchAugmentation(
                rotation=3.0, scale=0.05, aspect=0.05, translation=0.02, jitter=0.004, stroke_dropout=0.1
            ),
            photo=PhotoAugmentation(
                rotation=3.0, scale=0.05, aspect=0.05, translation=0.02, brightness=0.3, contrast=0.3,
                saturation=0.3, grayscale=0.3, border="white",
            ),
        ),
        teacher=TeacherConfig(
            network=network,
            members=2,
            flip=True,
            canvas=256,
            train_sizes=(128, 128, 256),
            optimization=OptimizationConfig(
                epochs=27,
                batch_size=24,
                batches="mixed",
                learning_rate=1e-3,
                layer_decay=0.866,
                weight_decay=0.05,
                averaging=0.99,
                gradient_clip=1.0,
                validate_every=6,
            ),
            ranking=ranking,
        ),
        student=StudentConfig(
            network=network,
            canvases_per_step=3,
            optimization=OptimizationConfig(
                epochs=20,
                batch_size=24,
                batches="mixed",
                learning_rate=1e-3,
                layer_decay=0.866,
                weight_decay=0.05,
                averaging=0.99,
                gradient_clip=1.0,
                validate_every=5,
            ),
            ranking=ranking,
            distillation=DistillationConfig(ranking_share=0.5, scale=30.0),
        ),
        selector=SelectorConfig(
            folds=2,
            fold_epochs=16,
            views=4,
            cost_weights=(0.05, 0.1, 0.2, 0.3),
            optimization=OptimizationConfig(epochs=30, batch_size=64, learning_rate=3e-3, weight_decay=0.0),
        ),
    )
