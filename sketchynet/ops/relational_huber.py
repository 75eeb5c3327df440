"""Cross-modal relational distillation: distances of the student follow those of the teacher (paper: L_RKD).

Shapes: B pairs of a sketch and its photo, K canvases, Dt and Ds embedding sizes of teacher and student, R rows of a
panel, M triplets, N ordered pairs of different photos.

The loss is a scalar, so that its gradient is known, up to the factor that comes from above, as soon as the distances
are. Distances are computed in panels of R rows of the B × B relations, each used for the loss and for the gradient
while it lies in the cache, and never again: nothing of size B² exists, forward or backward, and the backward pass
multiplies by its factor. A panel of weights w = ∂L/∂d / d gives the gradient of rows x towards rows y as a row sum of
w times x less a product w·y.

Memory beside the arguments: the gradients, (K + 1)·B·Ds in float32, and panels of about as many elements as the
arguments have (or 128 rows), so O(K·B·D).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sketchynet.errors import InputError
from sketchynet.ops.backend import choose_backend
from sketchynet.ops.checks import require_finite_on_cpu, require_same, widest
from sketchynet.ops.pairwise_distance import accumulating, pairwise_distance_eager, row_distance
from sketchynet.ops.panels import numbered, relational_panels


def relational_huber_eager(
    teacher_sketch: Tensor,
    teacher_photo: Tensor,
    student_sketch: Tensor,
    student_photo: Tensor,
    different: Tensor,
    *,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    delta: float = 1.0,
    normalize: bool = False,
) -> Tensor:
    """Reference of `relational_huber` with whole matrices; `different` bool (B, B) marks pairs of different photos."""

    def relations(sketch: Tensor, photo: Tensor) -> list[Tensor]:
        cross, among = pairwise_distance_eager(sketch, photo), pairwise_distance_eager(photo, photo)
        return [cross.diagonal(dim1=-2, dim2=-1), cross[..., different], among[different]]

    with torch.no_grad():
        teacher = relations(teacher_sketch, teacher_photo)
    return _mean_huber(teacher, relations(student_sketch, student_photo), weights, delta, normalize)


def _mean_huber(
    teacher: list[Tensor], student: list[Tensor], weights: Sequence[float], delta: float, normalize: bool
) -> Tensor:
    """Weighted sum of the mean Huber losses of the distances sp, sn and pn, each (...,)."""
    if normalize and student[2].numel() > 0:
        # One unit for a network, the same at every canvas, so that sp, sn and pn keep their proportions.
        units = [d[2].mean().clamp(min=torch.finfo(d[2].dtype).tiny) for d in (teacher, student)]
        teacher, student = [d / units[0] for d in teacher], [d / units[1] for d in student]
    loss = student[0].new_zeros(())
    for weight, target, value in zip(weights, teacher, student, strict=True):
        if value.numel() > 0:  # a batch of one photo has no negatives
            loss = loss + weight * F.huber_loss(value, target.to(value.dtype).expand_as(value), delta=delta)
    return loss


def _over_triplets(
    embeddings: Sequence[Tensor], triplets: Tensor, weights: Sequence[float], delta: float, normalize: bool
) -> Tensor:
    def relations(sketch: Tensor, photo: Tensor) -> list[Tensor]:
        anchor, positive, negative = triplets.unbind(1)
        near, far = photo[positive], photo[negative]
        drawn = sketch[..., anchor, :]
        return [row_distance(drawn, near), row_distance(drawn, far), row_distance(near, far)]

    with torch.no_grad():
        teacher = relations(*embeddings[:2])
    return _mean_huber(teacher, relations(*embeddings[2:]), weights, delta, normalize)


def _loss_and_pulls(
    teacher_sketch: Tensor,
    teacher_photo: Tensor,
    student_sketch: Tensor,
    student_photo: Tensor,
    content: Tensor | None,
    weights: Sequence[float],
    delta: float,
    normalize: bool,
    gradients: bool,
    triton: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss, and what `_gradients` makes those of student_sketch (K, B, Ds) and student_photo of, which has no
    length unless they are asked for."""
    embeddings = (teacher_sketch, teacher_photo, student_sketch, student_photo)
    count, device = len(student_photo), student_photo.device
    with torch.autocast(device.type, enabled=False):
        if triton:
            from sketchynet.ops.kernels.relational_huber import relational_triton

            pairs = None
            if content is not None:
                content, different = numbered(content)
                content, pairs = content.int(), different.float()
            return relational_triton(embeddings, content, pairs, weights, delta, normalize, gradients)
        if content is None:
            content = torch.arange(count, device=device)
        loss, sketches, photos = relational_panels(embeddings, content, tuple(weights), delta, normalize, gradients)
        return loss, sketches, photos, loss.new_empty(0)


def _gradients(
    grad: Tensor,
    student_sketch: Tensor,
    student_photo: Tensor,
    of_sketches: Tensor,
    of_photos: Tensor,
    notes: Tensor,
    weights: Sequence[float],
    delta: float,
    triton: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of student_sketch (K, B, Ds) and student_photo, in their type, given that of the loss."""
    if triton:
        from sketchynet.ops.kernels.relational_huber import relational_gradients_triton

        return relational_gradients_triton(
            grad, student_sketch, student_photo, of_sketches, of_photos, notes, weights, delta
        )
    dtype = student_photo.dtype
    # Multiplied and rounded in the same pass.
    sketch, photo = (torch.mul(grad, t, out=torch.empty_like(t, dtype=dtype)) for t in (of_sketches, of_photos))
    return sketch, photo


class _Loss(torch.autograd.Function):
    """The operator outside of compiled graphs, where it takes a third of the custom operator's time to call."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        loss, *pulls = _loss_and_pulls(*arguments)
        ctx.options = *arguments[5:7], arguments[9]
        ctx.save_for_backward(*arguments[2:4], *pulls)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *_gradients(grad, *ctx.saved_tensors, *ctx.options), *(None,) * 6


_operator = torch.library.custom_op("sketchynet::relational_huber", _loss_and_pulls, mutates_args=())
_backward_operator = torch.library.custom_op("sketchynet::relational_huber_backward", _gradients, mutates_args=())


@_operator.register_fake
def _(
    teacher_sketch, teacher_photo, student_sketch, student_photo, content, weights, delta, normalize, gradients, triton
):
    dtype = torch.float64 if student_photo.dtype == torch.float64 else torch.float32
    loss = student_photo.new_empty((), dtype=dtype)
    none = loss.new_empty(0)
    if not gradients:
        return loss, none, none.clone(), none.clone()
    if not triton:
        return (
            loss,
            torch.empty_like(student_sketch, dtype=dtype),
            torch.empty_like(student_photo, dtype=dtype),
            none,
        )
    from sketchynet.ops.kernels.relational_huber import shapes_of_pulls

    shapes = shapes_of_pulls(student_sketch.shape, student_photo.dtype, weights, normalize)
    return loss, *(loss.new_empty(shape) for shape in shapes)


@_backward_operator.register_fake
def _(grad, student_sketch, student_photo, of_sketches, of_photos, notes, weights, delta, triton):
    return torch.empty_like(student_sketch), torch.empty_like(student_photo)


def _setup(ctx, inputs, output) -> None:
    _, *pulls = output
    ctx.options = *inputs[5:7], inputs[9]
    ctx.save_for_backward(*inputs[2:4], *pulls)
    ctx.mark_non_differentiable(*pulls)
    ctx.set_materialize_grads(False)  # no zeros for what is not differentiable


def _backward(ctx, grad: Tensor | None, *_):
    if grad is None:
        return (None,) * 10
    return None, None, *_backward_operator(grad, *ctx.saved_tensors, *ctx.options), *(None,) * 6


_operator.register_autograd(_backward, setup_context=_setup)


def _check(
    teacher_sketch: Tensor,
    teacher_photo: Tensor,
    student_sketch: Tensor,
    student_photo: Tensor,
    delta: float,
    weights: Sequence[float],
) -> None:
    tensors = (teacher_sketch, teacher_photo, student_sketch, student_photo)
    if (
        teacher_sketch.shape != teacher_photo.shape
        or teacher_photo.ndim != 2
        or student_photo.ndim != 2
        or student_sketch.ndim not in (2, 3)
        or student_sketch.shape[-2:] != student_photo.shape
        or len(student_photo) != len(teacher_photo)
    ):
        raise InputError(
            "relational_huber needs teacher (B, Dt) twice, student (B, Ds) or (K, B, Ds), and (B, Ds); "
            f"got {[tuple(t.shape) for t in tensors]}"
        )
    if student_sketch.numel() == 0 or teacher_photo.numel() == 0:
        raise InputError(
            f"relational_huber has nothing to average: {[tuple(t.shape) for t in tensors]}; leave empty batches out"
        )
    require_same("relational_huber", student_sketch=student_sketch, student_photo=student_photo)
    require_same("relational_huber", teacher_sketch=teacher_sketch, teacher_photo=teacher_photo)
    if teacher_photo.device != student_photo.device:
        raise InputError(
            f"relational_huber needs embeddings on one device, found the teacher's on {teacher_photo.device} and the "
            f"student's on {student_photo.device}: move them with .to(device)"
        )
    require_finite_on_cpu(
        "relational_huber",
        teacher_sketch=teacher_sketch,
        teacher_photo=teacher_photo,
        student_sketch=student_sketch,
        student_photo=student_photo,
    )
    if not delta > 0:
        raise InputError(f"Huber delta {delta} must be positive")
    if len(weights) != 3:
        raise InputError(f"weights are those of sp, sn and pn; got {len(weights)} of them")


def relational_huber(
    teacher_sketch: Tensor,
    teacher_photo: Tensor,
    student_sketch: Tensor,
    student_photo: Tensor,
    *,
    content: Tensor | None = None,
    triplets: Tensor | None = None,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    delta: float = 1.0,
    normalize: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Huber loss between the distances of teacher and student, a scalar float32 (float64 of float64).

    Row i of every tensor belongs to pair i. Three relations, each averaged by itself, then weighted: sketch
    to its own photo (sp), sketch to other photos (sn), photo to other photos (pn).

    Distances are sums in float32. On a CUDA device products of float32 embeddings follow
    `torch.get_float32_matmul_precision()`, and weights of the gradient have the student's type. A distance of zero
    has the gradient zero; distances within rounding of zero, d² below γ(|x|² + |y|²), a bounded one.

    Args:
        teacher_sketch, teacher_photo: (B, Dt); no gradient flows into them.
        student_sketch: (B, Ds), or (K, B, Ds) for K canvases, over which the loss is the average; the pn
            relation does not depend on the canvas and is computed once.
        student_photo: (B, Ds).
        content: int64 (B,); photos of equal content are never negatives. All differ by default.
        triplets: int64 (M, 3), rows of a sketch, its photo and another photo; the relations of these alone instead
            of all in the batch, with memory O(K·M·D). Excludes `content`.
        weights: of sp, sn and pn.
        delta: where Huber turns from quadratic to linear, in units of distance.
        normalize: divide a network's distances by its mean distance between different photos, for teachers
            and students whose embeddings differ in scale. Gradients flow through the student's mean.
        backend: "auto", "eager" or "triton"; given triplets are always eager.

    Raises:
        InputError: shapes, types, devices or rows that do not fit; a backend that cannot run here; on the CPU a row
            that is not finite, with its number (on a GPU the loss is not finite either).
    """
    student_sketch, student_photo = widest(student_sketch, student_photo)
    teacher_sketch, teacher_photo = widest(teacher_sketch, teacher_photo)
    _check(teacher_sketch, teacher_photo, student_sketch, student_photo, delta, weights)
    chosen = choose_backend(backend, student_photo, teacher_photo)
    count = len(student_photo)
    embeddings = (teacher_sketch.detach(), teacher_photo.detach(), student_sketch, student_photo)
    if triplets is not None:
        if content is not None:
            raise InputError("give relational_huber either content or triplets, not both")
        if triplets.ndim != 2 or triplets.shape[1] != 3 or triplets.dtype != torch.int64 or len(triplets) == 0:
            raise InputError(
                f"triplets must be int64 (M, 3) with M >= 1; got {triplets.dtype} {tuple(triplets.shape)}"
            )
        outside = ((triplets < 0) | (triplets >= count)).any(dim=1)
        if bool(outside.any()):
            row = int(outside.nonzero()[0, 0])
            raise InputError(f"triplet {row} is {triplets[row].tolist()}; the batch has the rows 0 to {count - 1}")
        return _over_triplets([accumulating(t) for t in embeddings], triplets, weights, delta, normalize)
    if content is not None and content.shape != (count,):
        raise InputError(f"content must number the {count} photos of the batch; got {tuple(content.shape)}")
    canvases = student_sketch if student_sketch.ndim == 3 else student_sketch[None]
    gradients = torch.is_grad_enabled() and (student_sketch.requires_grad or student_photo.requires_grad)
    arguments = (
        *embeddings[:2], canvases, student_photo, content, [float(w) for w in weights], float(delta), normalize,
        gradients, chosen == "triton",
    )  # fmt: skip
    if torch.compiler.is_compiling() or not gradients:
        return _operator(*arguments)[0]
    return _Loss.apply(*arguments)
