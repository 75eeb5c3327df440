"""Recognition of categories from ImageNet weights, on one CPU core: QuickDraw and TU-Berlin."""

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


def quickdraw() -> Recipe:
    """Made for few drawings a category (25, of which 15 are trained on); with more, fewer epochs will do."""
    network = NetworkConfig(backbone="squeezenet1_1", weights="squeezenet1_1_imagenet.safetensors")

    def optimization(epochs: int) -> OptimizationConfig:
        return OptimizationConfig(
            epochs=epochs,
            batch_size=32,
            learning_rate=1e-3,
            layer_decay=0.9,
            weight_decay=0.05,
            averaging=0.99,
            gradient_clip=1.0,
            validate_every=5,
        )

    return Recipe(
        name="quickdraw",
        description="recognition of QuickDraw's categories: two SqueezeNets from ImageNet weights into one",
        data=DataConfig(source="quickdraw", options={"test": 0.28}, validation=0.17),
        augmentation=AugmentationConfig(
            flip=0.5,
            sketch=SketchAugmentation(
                rotation=10.0, scale=0.1, aspect=0.15, shear=0.1, translation=0.03, jitter=0.01, stroke_dropout=0.1
            ),
        ),
        teacher=TeacherConfig(
            network=network,
            members=2,
            canvas=128,
            train_sizes=(64, 64, 128),
            optimization=optimization(12),
        ),
        student=StudentConfig(
            network=network,
            # The steps lie close where accuracy stops to rise.
            canvases=(48, 64, 80, 96, 128),
            canvases_per_step=2,
            optimization=optimization(10),
            distillation=DistillationConfig(ranking_share=0.5, normalize=True),
        ),
        selector=SelectorConfig(
            reads="ink",
            hidden=64,
            gradient="expected",
            folds=2,
            fold_epochs=8,
            views=3,
            cost_weights=(0.05, 0.1),
            budget=0.49,  # half of the largest canvas's FLOPs
            optimization=OptimizationConfig(
                epochs=25, batch_size=64, learning_rate=3e-3, weight_decay=0.0, validate_every=5
            ),
        ),
        recognition=RecognitionConfig(views=4),
    )


def tu_berlin() -> Recipe:
    """The recipe for QuickDraw on TU-Berlin's 80 drawings a category, a third of them tested on."""
    return quickdraw().model_copy(
        update={
            "name": "tu_berlin",
            "description": "recognition of TU-Berlin's categories, by the recipe for QuickDraw",
            "data": DataConfig(source="tu_berlin", options={"test": 0.33}, validation=0.12),
        }
    )
