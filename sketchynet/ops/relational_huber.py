"""Cross-modal relational distillation: distances of the student follow those of the teacher (paper: L_RKD).

Shapes: B pairs of a sketch and its photo, K canvases, Dt and Ds embedding sizes of teacher and student.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sketchynet.errors import InputError
from sketchynet.ops.backend import choose_backend
from sketchynet.ops.pairwise_distance import pairwise_distance_eager


def _relations(
    sketch: Tensor, photo: Tensor, different: Tensor, normalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Distances sp (..., B), sn (..., N), pn (N,) of one network, N pairs that show different photos."""
    cross = pairwise_distance_eager(sketch, photo)
    among = pairwise_distance_eager(photo, photo)
    sp, sn, pn = cross.diagonal(dim1=-2, dim2=-1), cross[..., different], among[different]
    if normalize and pn.numel() > 0:
        # One unit for a network, the same at every canvas, so that sp, sn and pn keep their proportions.
        unit = pn.mean().clamp(min=torch.finfo(pn.dtype).tiny)
        sp, sn, pn = sp / unit, sn / unit, pn / unit
    return sp, sn, pn


def relational_huber_eager(
    teacher_sketch: Tensor,
    teacher_photo: Tensor,
    student_sketch: Tensor,
    student_photo: Tensor,
    different: Tensor,
    *,
    weights: tuple[float, float, float],
    delta: float,
    normalize: bool,
) -> Tensor:
    """Reference of `relational_huber`; `different` bool (B, B) marks pairs that show different photos."""
    with torch.no_grad():
        teacher = _relations(teacher_sketch, teacher_photo, different, normalize)
    student = _relations(student_sketch, student_photo, different, normalize)
    loss = student_sketch.new_zeros((), dtype=student[0].dtype)
    for weight, target, value in zip(weights, teacher, student, strict=True):
        if value.numel() > 0:  # a batch of one photo has no negatives
            target = target.to(value.dtype).expand_as(value)
            loss = loss + weight * F.huber_loss(value, target, delta=delta)
    return loss


def relational_huber(
    teacher_sketch: Tensor,
    teacher_photo: Tensor,
    student_sketch: Tensor,
    student_photo: Tensor,
    *,
    content: Tensor | None = None,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    delta: float = 1.0,
    normalize: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Huber loss between the distances of teacher and student, a scalar.

    Row i of every tensor belongs to pair i. Three relations, each averaged by itself, then weighted: sketch
    to its own photo (sp), sketch to other photos (sn), photo to other photos (pn).

    Args:
        teacher_sketch, teacher_photo: (B, Dt); no gradient flows into them.
        student_sketch: (B, Ds), or (K, B, Ds) for K canvases, over which the loss is the average; the pn
            relation does not depend on the canvas and is computed once.
        student_photo: (B, Ds).
        content: int64 (B,); photos of equal content are never negatives. All differ by default.
        weights: of sp, sn and pn.
        delta: where Huber turns from quadratic to linear, in units of distance.
        normalize: divide a network's distances by its mean distance between different photos, for teachers
            and students whose embeddings differ in scale. Gradients flow through the student's mean.
    """
    choose_backend(backend)
    count = len(teacher_photo)
    shapes = [tuple(t.shape) for t in (teacher_sketch, teacher_photo, student_sketch, student_photo)]
    if (
        teacher_sketch.shape != teacher_photo.shape
        or student_photo.ndim != 2
        or student_sketch.ndim not in (2, 3)
        or student_sketch.shape[-2:] != student_photo.shape
        or len(student_photo) != count
    ):
        raise InputError(
            "relational_huber needs teacher (B, Dt) twice, student (B, Ds) or (K, B, Ds), and (B, Ds); "
            f"got {shapes}"
        )
    if delta <= 0:
        raise InputError(f"Huber delta {delta} must be positive")
    if content is None:
        content = torch.arange(count, device=student_photo.device)
    elif content.shape != (count,):
        raise InputError(f"content must number the {count} photos of the batch; got {tuple(content.shape)}")
    different = content[:, None] != content[None, :]
    return relational_huber_eager(
        teacher_sketch,
        teacher_photo,
        student_sketch,
        student_photo,
        different,
        weights=weights,
        delta=delta,
        normalize=normalize,
    )
