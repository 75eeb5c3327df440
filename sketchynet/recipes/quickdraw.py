"""Recognition of QuickDraw's categories from ImageNet weights, on one CPU core."""

from __future__ import annotations

from sketchynet.augment import SketchAugmentation
from sketchynet.config import (
    AugmentationConfig,
    DataConfig,
    DistillationConfig,
    NetworkConfig,
    OptimizationConfig,
    Recipe,
    RecognitionConfig,
    SelectorConfig,
    StudentConfig,
    TeacherConfig,
)

_IMAGENET = "mobilenet_v2_imagenet.safetensors"


def quickdraw() -> Recipe:
    """Few drawings a category: made for the 25 that the tests of this project have at hand."""
    network = NetworkConfig(backbone="mobilenet_v2", norm="private", weights=_IMAGENET)
    return Recipe(
        name="quickdraw",
        description="recognition of QuickDraw's categories: MobileNetV2 from ImageNet weights",
        data=DataConfig(source="quickdraw", validation=0.17),
        augmentation=AugmentationConfig(
            flip=0.5,
            sketch=SketchAugmentation(
                rotation=10.0, scale=0.1, aspect=0.15, shear=0.1, translation=0.03, jitter=0.01, stroke_dropout=0.1
            ),
        ),
        teacher=TeacherConfig(
            network=network,
            flip=True,
            canvas=128,
            train_sizes=(64, 64, 128),
            optimization=OptimizationConfig(
                epochs=15, batch_size=32, learning_rate=1e-3, layer_decay=0.9, weight_decay=0.05, averaging=0.99,
                gradient_clip=1.0, validate_every=5,
            ),
        ),
        student=StudentConfig(
            network=network,
            canvases=(32, 48, 64, 96, 128),
            canvases_per_step=2,
            optimization=OptimizationConfig(
                epochs=15, batch_size=32, learning_rate=1e-3, layer_decay=0.9, weight_decay=0.05, averaging=0.99,
                gradient_clip=1.0, validate_every=5,
            ),
            distillation=DistillationConfig(ranking_share=0.5, normalize=True, scale=1.0),
        ),
        selector=SelectorConfig(
            hidden=64,
            gradient="expected",
            folds=2,
            fold_epochs=10,
            views=4,
            cost_weights=(0.05, 0.1, 0.2),
            optimization=OptimizationConfig(epochs=30, batch_size=64, learning_rate=3e-3, weight_decay=0.0),
        ),
        recognition=RecognitionConfig(),
    )
