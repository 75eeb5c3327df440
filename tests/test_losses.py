from __future__ import annotations

import math

import pytest
import torch

from sketchynet.errors import InputError
from sketchynet.losses import (
    contrastive_loss,
    expected_reward_loss,
    feature_regression,
    leave_one_out_baseline,
    logit_distillation,
    margin_rows,
    policy_entropy,
    reinforce_loss,
    reward,
    softmax_distillation,
    triplet_loss,
    triplet_rows,
)

CONTENT = torch.tensor([0, 1, 0, 2])


def _pairs(canvases: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    sketch = torch.randn(
        *(() if canvases is None else (canvases,)), 4, 3, generator=generator, dtype=torch.float64
    )
    return sketch, torch.randn(4, 3, generator=generator, dtype=torch.float64)


def _naive_triplet(sketch, photo, content, margin: float, mining: str) -> float:
    rows = []
    for i in range(len(sketch)):
        terms = []
        for j in range(len(photo)):
            if content[i] != content[j]:
                positive, negative = math.dist(sketch[i], photo[i]), math.dist(sketch[i], photo[j])
                terms.append(max(0.0, margin + positive - negative))
        if terms:
            rows.append(max(terms) if mining == "hard" else sum(terms) / len(terms))
    return sum(rows) / len(rows)


@pytest.mark.parametrize("mining", ["all", "hard"])
def test_triplet_against_loops(mining: str) -> None:
    sketch, photo = _pairs(canvases=2)
    each = [_naive_triplet(s.tolist(), photo.tolist(), CONTENT.tolist(), 0.4, mining) for s in sketch]
    for value, expected in (
        (triplet_loss(sketch[0], photo, CONTENT, margin=0.4, mining=mining), each[0]),
        (triplet_loss(sketch, photo, CONTENT, margin=0.4, mining=mining), sum(each) / 2),
    ):
        assert value.item() == pytest.approx(expected, rel=1e-10)


def test_triplet_literal() -> None:
    sketch, photo = torch.tensor([[0.0], [5.0]]), torch.tensor([[1.0], [3.0]])
    # Sketch 0: 0.5 + 1 - 3 < 0. Sketch 1: 0.5 + 2 - 4 < 0; with margin 3 they are 1 and 1.
    assert triplet_loss(sketch, photo, torch.arange(2), margin=0.5).item() == 0.0
    assert triplet_loss(sketch, photo, torch.arange(2), margin=3.0).item() == 1.0


def test_same_picture_is_never_a_negative() -> None:
    sketch, photo = _pairs()
    sketch.requires_grad_()
    loss = triplet_loss(sketch, photo, torch.zeros(4, dtype=torch.int64), margin=1.0)
    loss.backward()
    assert loss.item() == 0.0 and not sketch.grad.any()


def test_triplet_rows_against_a_gallery() -> None:
    distance = torch.tensor([[1.0, 0.5, 3.0], [2.0, 2.0, 2.0]])
    negative = torch.tensor([[False, True, True], [False, False, False]])
    target = torch.tensor([0, 1])
    rows = triplet_rows(distance, target, negative, margin=1.0)
    assert rows.tolist() == [0.75, 0.0]
    assert triplet_rows(distance, target, negative, margin=1.0, mining="hard").tolist() == [1.5, 0.0]
    with pytest.raises(InputError, match="mining 'semi'"):
        triplet_rows(distance, target, negative, margin=1.0, mining="semi")


@pytest.mark.parametrize("mining", ["all", "hard"])
def test_triplet_gradients(mining: str) -> None:
    sketch, photo = (t.requires_grad_() for t in _pairs())
    assert torch.autograd.gradcheck(
        lambda s, p: triplet_loss(s, p, CONTENT, margin=2.0, mining=mining), (sketch, photo)
    )


def _naive_contrastive(sketch, photo, content, temperature: float, similarity: str) -> float:
    total = 0.0
    for i in range(len(sketch)):
        scores = {}
        for j in range(len(photo)):
            if i == j or content[i] != content[j]:
                value = -math.dist(sketch[i], photo[j])
                if similarity == "cosine":
                    dot = sum(a * b for a, b in zip(sketch[i], photo[j], strict=True))
                    value = dot / math.hypot(*sketch[i]) / math.hypot(*photo[j])
                scores[j] = math.exp(value / temperature)
        total -= math.log(scores[i] / sum(scores.values()))
    return total / len(sketch)


@pytest.mark.parametrize("similarity", ["distance", "cosine"])
def test_contrastive_against_loops(similarity: str) -> None:
    sketch, photo = _pairs()
    content = CONTENT.tolist()
    forth = _naive_contrastive(sketch.tolist(), photo.tolist(), content, 0.5, similarity)
    back = _naive_contrastive(photo.tolist(), sketch.tolist(), content, 0.5, similarity)
    options = {"temperature": 0.5, "similarity": similarity}
    assert contrastive_loss(sketch, photo, CONTENT, **options).item() == pytest.approx(forth)
    both = contrastive_loss(sketch, photo, CONTENT, symmetric=True, **options)
    assert both.item() == pytest.approx((forth + back) / 2)
    repeated = contrastive_loss(torch.stack([sketch, sketch]), photo, CONTENT, symmetric=True, **options)
    assert repeated.item() == pytest.approx(both.item())


def test_contrastive_gradients_stay_finite() -> None:
    sketch, photo = torch.ones(4, 3, requires_grad=True), torch.ones(4, 3, requires_grad=True)
    contrastive_loss(sketch, photo, CONTENT, temperature=0.1, symmetric=True).backward()
    assert torch.isfinite(sketch.grad).all() and torch.isfinite(photo.grad).all()
    with pytest.raises(InputError, match="similarity 'dot'"):
        contrastive_loss(sketch, photo, CONTENT, temperature=0.1, similarity="dot")


def test_reward_literal() -> None:
    value = reward(
        torch.tensor([1, 4]),
        torch.tensor([0.0, 0.5]),
        torch.tensor([1.0, 0.25]),
        lambda_flops=0.2,
        lambda_rank=2.0,
        lambda_triplet=0.4,
    )
    torch.testing.assert_close(value, torch.tensor([0.8 * 2.0 - 0.2, 0.8 * (0.5 - 0.2) - 0.05]))


def test_leave_one_out() -> None:
    rewards = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 6.0]])
    expected = torch.tensor([[4.0, 3.0], [3.0, 3.0], [2.0, 0.0]])
    torch.testing.assert_close(leave_one_out_baseline(rewards), expected)
    with pytest.raises(InputError, match="S >= 2"):
        leave_one_out_baseline(rewards[:1])


def test_reinforce_gradient_is_the_policy_gradient() -> None:
    logits = torch.tensor([[0.2, -0.1, 0.5]], requires_grad=True)
    rewards = torch.tensor([[1.0, 0.0, 2.0]], requires_grad=True)
    # Every action once, weighted by its probability, is the exact gradient of the expected reward.
    log_probabilities = logits.log_softmax(dim=1)
    weights = 3 * log_probabilities.exp().detach()
    reinforce_loss(log_probabilities, weights * rewards).backward()
    other = logits.detach().clone().requires_grad_()
    expected = -(other.softmax(dim=1) * rewards.detach()).sum()
    expected.backward()
    torch.testing.assert_close(logits.grad, other.grad)
    assert rewards.grad is None


def test_expected_reward_literal_and_gradient() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)]], requires_grad=True)
    rewards = torch.tensor([[1.0, 3.0], [4.0, 0.0]], requires_grad=True)
    loss = expected_reward_loss(logits.log_softmax(dim=1), rewards)
    assert loss.item() == pytest.approx(-(2.0 + 1.0) / 2)
    loss.backward()
    # d/dz_k of sum_k p_k R_k is p_k (R_k - expected R); half of it, since it is a mean over two sketches.
    torch.testing.assert_close(logits.grad, -0.5 * torch.tensor([[-0.5, 0.5], [0.75, -0.75]]))
    assert rewards.grad is None
    with pytest.raises(InputError, match="differ"):
        expected_reward_loss(logits, rewards[:1])


def test_samples_estimate_the_expected_gradient() -> None:
    logits, rewards = torch.tensor([[0.2, -0.1, 0.5]]), torch.tensor([[1.0, 0.0, 2.0]])
    drawn = torch.multinomial(
        logits.softmax(dim=1).expand(200, -1), 64, replacement=True, generator=torch.Generator().manual_seed(0)
    ).reshape(-1, 1)
    sampled, exact = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    chosen = sampled.log_softmax(dim=1)[0, drawn]
    found = rewards[0, drawn]
    reinforce_loss(chosen, found, leave_one_out_baseline(found)).backward()
    expected_reward_loss(exact.log_softmax(dim=1), rewards).backward()
    torch.testing.assert_close(sampled.grad, exact.grad, atol=0.02, rtol=0.0)


def test_reinforce_baseline_and_shapes() -> None:
    log_probabilities = torch.tensor([-1.0, -2.0])
    value = reinforce_loss(log_probabilities, torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0]))
    assert value.item() == pytest.approx(-(-1.0 * 2.0 + -2.0 * -1.0) / 2)
    with pytest.raises(InputError, match="differ"):
        reinforce_loss(log_probabilities, torch.zeros(3))


def test_entropy() -> None:
    assert policy_entropy(torch.zeros(5, 4)).item() == pytest.approx(math.log(4))
    assert policy_entropy(torch.tensor([[100.0, 0.0]])).item() == pytest.approx(0.0)


def test_margin_rows_are_the_triplet_loss_of_probabilities() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.4, 0.4, 0.2]])
    rows = margin_rows(probabilities, torch.tensor([0, 1, 1]), margin=0.25)
    torch.testing.assert_close(rows, torch.tensor([0.0, 0.55, 0.25]))


def test_logit_distillation_is_zero_for_equals_and_keeps_its_gradient() -> None:
    teacher = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
    assert float(logit_distillation(teacher.expand(3, -1, -1), teacher, temperature=2.0)) == pytest.approx(0.0, abs=1e-6)
    student = torch.zeros(2, 3, requires_grad=True)
    logit_distillation(student, teacher, temperature=2.0).backward()
    # d/dz of T² KL at temperature T is T (q − p).
    expected = 2.0 * (torch.full((2, 3), 1 / 3) - (teacher / 2.0).softmax(dim=1)) / 2
    torch.testing.assert_close(student.grad, expected)


def test_softmax_distillation_against_loops() -> None:
    (sketch, photo), temperature = _pairs(canvases=2), 0.3
    teacher_sketch, teacher_photo = _pairs()[0] * 2.0, torch.flip(photo, [0])

    def rows(queries: list, gallery: list) -> list[list[float]]:
        logits = [[-math.dist(q, g) / temperature for g in gallery] for q in queries]
        return [[v - math.log(sum(map(math.exp, row))) for v in row] for row in logits]

    wanted = rows(teacher_sketch.tolist(), teacher_photo.tolist())
    each = []
    for canvas in sketch.tolist():
        found = rows(canvas, photo.tolist())
        each += [sum(math.exp(w) * (w - f) for w, f in zip(*pair, strict=True)) for pair in zip(wanted, found, strict=True)]
    loss = softmax_distillation(teacher_sketch, teacher_photo, sketch, photo, temperature=temperature)
    assert float(loss) == pytest.approx(sum(each) / len(each), rel=1e-6)
    # Relations alone count: turned and mirrored embeddings say the same.
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    same = softmax_distillation(sketch[0] @ turn, photo @ turn, sketch[0], photo, temperature=temperature)
    assert float(same) == pytest.approx(0.0, abs=1e-7)


def test_feature_regression_is_relative_to_the_features() -> None:
    target = torch.tensor([[3.0, 4.0], [0.0, 5.0]])
    assert float(feature_regression(torch.zeros(2, 2), target)) == 1.0
    assert float(feature_regression(target.expand(3, 2, 2), target)) == 0.0
    predicted = torch.stack([target + 5.0, target])
    assert float(feature_regression(predicted, target)) == pytest.approx(1.0)  # (2·50 + 2·0) / 4 over 25
    assert float(feature_regression(predicted * 10, target * 10)) == pytest.approx(1.0)
