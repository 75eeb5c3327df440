"""Losses and policy-gradient terms: pure functions of tensors.

Shapes: B pairs of a sketch and its photo (or drawings), D embedding size, K canvases, G gallery photos, C categories,
S samples a sketch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sketchynet.errors import InputError
from sketchynet.ops import hard_negatives, negative_distance, pairwise_distance, row_distance


def triplet_rows(
    distance: Tensor, target: Tensor, negative: Tensor, *, margin: float, mining: str = "all"
) -> Tensor:
    """Triplet loss of each row, max(0, margin + d(s, p) - d(s, n)): (..., B).

    Args:
        distance: (..., B, G), sketches against photos.
        target: int64 (B,), the column of each sketch's own photo.
        negative: bool (B, G), the columns that show another photo.
        mining: "all" averages over a row's negatives, "hard" takes the nearest. Rows without one give 0.
    """
    true = distance.gather(-1, target[:, None].expand(*distance.shape[:-1], 1))
    hinge = (margin + true - distance).clamp(min=0.0).masked_fill(~negative, 0.0)
    if mining == "all":
        return hinge.sum(dim=-1) / negative.sum(dim=-1).clamp(min=1)
    if mining == "hard":  # the nearest negative has the largest hinge
        return hinge.amax(dim=-1)
    raise InputError(f"mining {mining!r} is unknown: choose 'all' or 'hard'")


def margin_rows(probabilities: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """Margin loss of each drawing, max(0, margin + p(likeliest other category) - p(own)): (B,).

    What the triplet loss is to distances, for probabilities (B, C); labels int64 (B,).
    """
    own = probabilities.gather(1, labels[:, None])
    others = probabilities.scatter(1, labels[:, None], 0.0)
    return (margin + others.amax(dim=1) - own[:, 0]).clamp(min=0.0)


def logit_distillation(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Hinton et al. 2015: T^2 KL(teacher || student) of the softened probabilities, a scalar.

    student (K, B, C) or (B, C), teacher (B, C). The factor keeps the gradient's size while T changes.
    """
    wanted = (teacher / temperature).log_softmax(dim=-1)
    found = (student / temperature).log_softmax(dim=-1)
    return temperature**2 * (wanted.exp() * (wanted - found)).sum(dim=-1).mean()


def softmax_distillation(
    teacher_sketch: Tensor, teacher_photo: Tensor, sketch: Tensor, photo: Tensor, *, temperature: float
) -> Tensor:
    """KL(teacher || student) of each sketch's softmax over the photos of the batch, a scalar.

    sketch (K, B, D) or (B, D), photo (B, D); the teacher's, without K, may have another D. Logits are minus the
    Euclidean distance over `temperature`, on both sides.
    """
    wanted = (-pairwise_distance(teacher_sketch, teacher_photo) / temperature).log_softmax(dim=-1)
    found = (-pairwise_distance(sketch, photo) / temperature).log_softmax(dim=-1)
    return (wanted.exp() * (wanted - found)).sum(dim=-1).mean()


def feature_regression(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of predictions (..., B, C) from the full network's features (B, C), a scalar.

    Relative to the mean squared length of the batch's features, so that predicting zero gives 1.
    """
    return (predicted - target).square().sum(dim=-1).mean() / target.square().sum(dim=-1).mean().clamp(min=1e-12)


def _different(content: Tensor) -> Tensor:
    return content[:, None] != content[None, :]


def triplet_loss(
    sketch: Tensor, photo: Tensor, content: Tensor, *, margin: float, mining: str = "all"
) -> Tensor:
    """In-batch triplet loss (paper: L_tri), a scalar; sketch (B, D) or (K, B, D), photo (B, D).

    Row i of both is pair i; `content`, int64 (B,), keeps photos of the same picture from being negatives.
    The mean over sketches, and canvases, that have a negative; 0 where none has one. With mining "hard" or
    "semi-hard" (see `hard_negatives`) one negative counts a sketch, and no matrix of distances is stored.
    """
    if mining != "all":
        picked = hard_negatives(sketch, photo, content, mining=mining)
        hinge = margin + row_distance(sketch, photo) - negative_distance(sketch, photo, picked)
        found = picked >= 0
        return (hinge.clamp(min=0.0) * found).sum() / found.sum().clamp(min=1)
    negative = _different(content)
    target = torch.arange(len(photo), device=photo.device)
    rows = triplet_rows(pairwise_distance(sketch, photo), target, negative, margin=margin)
    counted = negative.any(dim=-1).expand(rows.shape)
    return (rows * counted).sum() / counted.sum().clamp(min=1)


def contrastive_loss(
    sketch: Tensor,
    photo: Tensor,
    content: Tensor,
    *,
    temperature: float | Tensor,
    similarity: str = "distance",
    symmetric: bool = False,
) -> Tensor:
    """InfoNCE of sketches (B, D) or (K, B, D) against the photos (B, D) of the batch, a scalar.

    Logits are the negative Euclidean distance or, with similarity "cosine", the cosine, over the temperature.
    Other photos of the same `content` are left out. `symmetric` averages with photos against sketches.
    """
    if similarity == "distance":
        logits = -pairwise_distance(sketch, photo)
    elif similarity == "cosine":
        logits = 1.0 - pairwise_distance(sketch, photo, metric="cosine")
    else:
        raise InputError(f"similarity {similarity!r} is unknown: choose 'distance' or 'cosine'")
    own = torch.eye(len(photo), dtype=torch.bool, device=photo.device)
    logits = (logits / temperature).masked_fill(~(_different(content) | own), float("-inf"))
    loss = -logits.log_softmax(dim=-1).diagonal(dim1=-2, dim2=-1).mean()
    if symmetric:
        loss = 0.5 * (loss - logits.log_softmax(dim=-2).diagonal(dim1=-2, dim2=-1).mean())
    return loss


def reward(
    rank: Tensor,
    triplet: Tensor,
    flops_fraction: Tensor,
    *,
    lambda_flops: float,
    lambda_rank: float,
    lambda_triplet: float,
) -> Tensor:
    """The paper's reward R = lambda_F R_comp + (1 - lambda_F) R_acc, elementwise (arguments broadcast).

    R_comp = -flops_fraction (FLOPs of the chosen canvas over those of the largest),
    R_acc = lambda_r / rank - lambda_tri L_tri.
    """
    accuracy = lambda_rank / rank.to(triplet.dtype) - lambda_triplet * triplet
    return -lambda_flops * flops_fraction + (1.0 - lambda_flops) * accuracy


def gallery_contrastive(sketch: Tensor, gallery: Tensor, target: Tensor, negative: Tensor, *, temperature: float) -> Tensor:
    """InfoNCE of sketches (B, D) or (K, B, D) against the photos of a gallery (G, D), a scalar.

    Logits are cosines over the temperature. Each sketch has its own photo, `target` int64 (B,), and the columns of
    `negative`, bool (B, G); others are left out.
    """
    logits = (1.0 - pairwise_distance(sketch, gallery, metric="cosine")) / temperature
    own = torch.zeros_like(negative).scatter(1, target[:, None], True)
    logits = logits.masked_fill(~(negative | own), float("-inf"))
    return -logits.log_softmax(dim=-1).gather(-1, target[:, None].expand(*logits.shape[:-1], 1)).mean()


def leave_one_out_baseline(rewards: Tensor) -> Tensor:
    """For each of S >= 2 samples of a sketch the mean reward of its other samples: (S, B) to (S, B)."""
    if rewards.ndim != 2 or len(rewards) < 2:
        raise InputError(f"leave-one-out needs rewards (S, B) with S >= 2; got {tuple(rewards.shape)}")
    return (rewards.sum(dim=0) - rewards) / (len(rewards) - 1)


def reinforce_loss(log_probabilities: Tensor, rewards: Tensor, baseline: Tensor | float = 0.0) -> Tensor:
    """REINFORCE (paper: L_PG): -mean of log p(c|s) (R - baseline); shapes agree; no gradient into R."""
    if log_probabilities.shape != rewards.shape:
        raise InputError(
            f"log-probabilities {tuple(log_probabilities.shape)}, rewards {tuple(rewards.shape)}: they differ"
        )
    return -(log_probabilities * (rewards - baseline).detach()).mean()


def expected_reward_loss(log_probabilities: Tensor, rewards: Tensor) -> Tensor:
    """Minus the mean expected reward, -(1/B) sum_b sum_k p(k|s_b) R_bk; both (B, K); no gradient into R.

    Its gradient is what REINFORCE estimates from samples (Sutton et al. 2000, "all-action" policy gradient): exact,
    hence without variance from the sampling, where the outcome of every canvas is known. A baseline would
    change nothing, since probabilities sum to one.
    """
    if log_probabilities.shape != rewards.shape:
        raise InputError(
            f"log-probabilities {tuple(log_probabilities.shape)}, rewards {tuple(rewards.shape)}: they differ"
        )
    return -(log_probabilities.exp() * rewards.detach()).sum(dim=-1).mean()


def policy_entropy(logits: Tensor) -> Tensor:
    """Mean entropy in nats of the policies with logits (B, K); subtract a multiple to keep exploring."""
    log_probabilities = logits.log_softmax(dim=-1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1).mean()
