"""Recipes for one's own catalogue and for the published sets that are trained like it, from ImageNet weights."""

from __future__ import annotations

from typing import Any

from sketchynet.config import AugmentationConfig, DataConfig, Recipe, SearchConfig
from sketchynet.recipes.qmul_v1 import qmul_v1, qmul_v1_squeezenet


def folder() -> Recipe:
    """Photos and drawings of one's own, at 128 pixels: an hour or two for some hundred photos on two CPU cores."""
    base = qmul_v1()
    teacher, student, selector = base.teacher, base.student, base.selector
    return _changed(
        base,
        name="folder",
        description="one's own photos/ and sketches/ in --data DIR: MobileNetV2 at 128 pixels from ImageNet weights",
        data=DataConfig(source="folder", photo_size=128),
        teacher=_changed(
            teacher,
            members=1,
            flip=False,
            canvas=128,
            train_sizes=(64, 128),
            optimization=_changed(teacher.optimization, epochs=20, validate_every=5),
        ),
        student=_changed(
            student,
            canvases=(32, 64, 96, 128),
            photo_size=128,
            canvases_per_step=None,
            optimization=_changed(student.optimization, epochs=16, validate_every=4),
        ),
        selector=_changed(selector, fold_epochs=10),
    )


def qmul_v2() -> Recipe:
    """ShoeV2 or ChairV2, whichever lies in --data DIR, on the paper's canvases."""
    base = qmul_v1()
    return _changed(
        base,
        name="qmul_v2",
        description="QMUL ShoeV2 or ChairV2 in --data DIR: MobileNetV2 from ImageNet weights (best on a GPU)",
        data=DataConfig(source="qmul_v2", options={"fit_photos": True}, photo_size=256),
        student=_changed(base.student, canvases=(32, 64, 128, 256)),
    )


def sketchy() -> Recipe:
    """The Sketchy database; the gallery of a query is its category's."""
    base = qmul_v2()
    return _changed(
        base,
        name="sketchy",
        description="the Sketchy database in --data DIR: MobileNetV2 from ImageNet weights (needs a GPU)",
        data=DataConfig(source="sketchy", photo_size=256),
        augmentation=AugmentationConfig(),  # photos of scenes: no white border
    )


def sketchy_squeezenet() -> Recipe:
    """The Sketchy database, or a part of it, at 128 pixels with SqueezeNet 1.1 on both sides: a CPU's share of the work."""
    base = qmul_v1_squeezenet()
    teacher, student = base.teacher, base.student
    batches = {"batches": "category", "batch_size": 32}  # there are no batch norms that would mind
    return _changed(
        base,
        name="sketchy_squeezenet",
        description="the Sketchy database, or some categories, in --data DIR: SqueezeNet 1.1 at 128 pixels, on two CPU cores",
        data=DataConfig(source="sketchy", photo_size=128),
        augmentation=AugmentationConfig(),
        teacher=_changed(teacher, optimization=_changed(teacher.optimization, **batches)),
        student=_changed(student, optimization=_changed(student.optimization, **batches)),
    )


def sketchy_levels() -> Recipe:
    """`sketchy_squeezenet` behind search heads that read two levels: the last Fire module at a stride of 8, the first at 16."""
    return _changed(
        sketchy_squeezenet(),
        name="sketchy_levels",
        description="sketchy_squeezenet behind search heads that read two levels of each network beside the embedding",
        search=SearchConfig(head=True, levels=(7, 9), flip=False),
    )


def fscoco() -> Recipe:
    """FS-COCO: whole scenes, one gallery."""
    base = sketchy()
    return _changed(
        base,
        name="fscoco",
        description="FS-COCO in --data DIR: MobileNetV2 from ImageNet weights (needs a GPU)",
        data=DataConfig(source="fscoco", photo_size=256),
    )


def _changed(section: Any, **fields: Any) -> Any:
    """The section with other fields, validated again."""
    return type(section).model_validate({**{name: getattr(section, name) for name in type(section).model_fields}, **fields})
