"""QMUL Shoe-V1 and Chair-V1 from ImageNet weights, on two CPU cores."""

from __future__ import annotations

from sketchynet.config import (
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
    network = NetworkConfig(backbone="mobilenet_v2", norm="folded", normalize=True, weights=_IMAGENET)
    return Recipe(
        name="qmul_v1",
        description="QMUL Shoe-V1 and Chair-V1: MobileNetV2 members from ImageNet weights, one MobileNetV2 student",
        data=DataConfig(source="qmul_v1", options={"extra_sketches": True}, photo_size=256),
        teacher=TeacherConfig(
            network=network,
            members=2,
            flip=True,
            canvas=256,
            train_sizes=(128, 192),
            optimization=OptimizationConfig(
                epochs=24,
                batch_size=24,
                learning_rate=3e-4,
                layer_decay=0.866,
                weight_decay=0.05,
                averaging=0.99,
                validate_every=6,
            ),
            ranking=RankingConfig(kind="contrastive", temperature=0.07),
        ),
        student=StudentConfig(
            network=network,
            canvases_per_step=2,
            optimization=OptimizationConfig(
                epochs=12,
                batch_size=24,
                learning_rate=3e-4,
                layer_decay=0.866,
                weight_decay=0.05,
                averaging=0.98,
                validate_every=4,
            ),
            ranking=RankingConfig(kind="contrastive", temperature=0.07),
            distillation=DistillationConfig(ranking_share=0.5, scale=10.0),
        ),
        selector=SelectorConfig(
            folds=2,
            views=4,
            cost_weights=(0.05, 0.1, 0.2, 0.3),
            optimization=OptimizationConfig(epochs=40, batch_size=64, learning_rate=2e-3, weight_decay=0.0),
        ),
    )
