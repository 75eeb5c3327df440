from __future__ import annotations

import math

import pytest
import torch

from sketchynet.errors import InputError
from sketchynet.ops import relational_huber, relational_huber_eager

B, DT, DS = 5, 4, 7


def _distance(a: list[float], b: list[float]) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def _huber(difference: float, delta: float) -> float:
    size = abs(difference)
    return 0.5 * size**2 if size <= delta else delta * (size - 0.5 * delta)


def _naive(ts, tp, ss, sp, content, weights, delta, normalize) -> float:
    """One canvas, loops over pairs."""
    groups: dict[str, list[tuple[float, float]]] = {"sp": [], "sn": [], "pn": []}
    for i in range(len(tp)):
        groups["sp"].append((_distance(ts[i], tp[i]), _distance(ss[i], sp[i])))
        for j in range(len(tp)):
            if content[i] != content[j]:
                groups["sn"].append((_distance(ts[i], tp[j]), _distance(ss[i], sp[j])))
                groups["pn"].append((_distance(tp[i], tp[j]), _distance(sp[i], sp[j])))
    units = (1.0, 1.0)
    if normalize:
        units = tuple(sum(pair[k] for pair in groups["pn"]) / len(groups["pn"]) for k in (0, 1))
    total = 0.0
    for weight, name in zip(weights, ("sp", "sn", "pn"), strict=True):
        terms = [_huber(t / units[0] - s / units[1], delta) for t, s in groups[name]]
        total += weight * sum(terms) / len(terms) if terms else 0.0
    return total


def _data(canvases: int | None = None) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = [(B, DT), (B, DT), (B, DS) if canvases is None else (canvases, B, DS), (B, DS)]
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("content", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 2]])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("delta", [0.3, 1.0])
def test_against_loops(content: list[int], normalize: bool, delta: float) -> None:
    ts, tp, ss, sp = _data(canvases=3)
    weights = (1.0, 0.5, 2.0)
    options = {"content": torch.tensor(content), "weights": weights, "delta": delta, "normalize": normalize}
    lists = [t.tolist() for t in (ts, tp, sp)]
    each = [
        _naive(lists[0], lists[1], canvas.tolist(), lists[2], content, weights, delta, normalize)
        for canvas in ss
    ]
    assert relational_huber(ts, tp, ss, sp, **options).item() == pytest.approx(sum(each) / 3, rel=1e-10)
    assert relational_huber(ts, tp, ss[0], sp, **options).item() == pytest.approx(each[0], rel=1e-10)


def test_literal_value() -> None:
    # Teacher distances sp 1, 1; sn 3, 3 (approx.); the student collapses everything to distance 0.
    teacher_sketch = torch.tensor([[0.0], [3.0]])
    teacher_photo = torch.tensor([[1.0], [2.0]])
    zeros = torch.zeros(2, 6)
    # sp: 1, 1 -> 0.5; sn: |0-2|, |3-1| = 2 -> 1.5; pn: 1 -> 0.5
    assert relational_huber(teacher_sketch, teacher_photo, zeros, zeros).item() == pytest.approx(2.5)


@pytest.mark.parametrize("normalize", [False, True])
def test_gradients(normalize: bool) -> None:
    ts, tp, ss, sp = _data(canvases=2)
    ss.requires_grad_()
    sp.requires_grad_()
    content = torch.tensor([0, 1, 2, 1, 3])
    assert torch.autograd.gradcheck(
        lambda a, b: relational_huber(ts, tp, a, b, content=content, normalize=normalize, delta=0.7), (ss, sp)
    )


def test_teacher_takes_no_gradient() -> None:
    ts, tp, ss, sp = (t.requires_grad_() for t in _data())
    relational_huber(ts, tp, ss, sp).backward()
    assert ts.grad is None and tp.grad is None and ss.grad is not None


@pytest.mark.parametrize("normalize", [False, True])
def test_collapsed_student_has_finite_gradients(normalize: bool) -> None:
    ts, tp, _, _ = (t.float() for t in _data())
    ss, sp = torch.ones(B, DS, requires_grad=True), torch.ones(B, DS, requires_grad=True)
    loss = relational_huber(ts, tp, ss, sp, normalize=normalize)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(ss.grad).all() and torch.isfinite(sp.grad).all()


def test_without_negatives_only_sp_counts() -> None:
    ts, tp, ss, sp = _data()
    loss = relational_huber(ts, tp, ss, sp, content=torch.zeros(B, dtype=torch.int64))
    alone = relational_huber(ts, tp, ss, sp, weights=(1.0, 0.0, 0.0))
    assert loss.item() == pytest.approx(alone.item()) and loss.item() > 0


def test_a_perfect_student_has_no_loss() -> None:
    ts, tp, _, _ = _data()
    assert relational_huber(ts, tp, ts, tp).item() == 0.0
    assert relational_huber(ts, tp, 3 * ts, 3 * tp, normalize=True).item() == pytest.approx(0.0, abs=1e-20)


def test_bad_input() -> None:
    ts, tp, ss, sp = _data()
    with pytest.raises(InputError, match="relational_huber needs"):
        relational_huber(ts, tp, ss[:3], sp)
    with pytest.raises(InputError, match="content must number the 5 photos"):
        relational_huber(ts, tp, ss, sp, content=torch.zeros(3))
    with pytest.raises(InputError, match="delta 0"):
        relational_huber(ts, tp, ss, sp, delta=0.0)
    with pytest.raises(InputError, match="'triton' cannot run here.*float64: convert"):
        relational_huber(ts, tp, ss, sp, backend="triton")
    with pytest.raises(InputError, match="'triton' cannot run here.*move them to a CUDA device"):
        relational_huber(*(t.float() for t in (ts, tp, ss, sp)), backend="triton")
    with pytest.raises(InputError, match="student_sketch torch.float64, student_photo torch.float32: convert"):
        relational_huber(ts, tp, ss, sp.float())
    with pytest.raises(InputError, match="teacher's on meta and the student's on cpu"):
        relational_huber(ts.to("meta"), tp.to("meta"), ss, sp)
    with pytest.raises(InputError, match="nothing to average"):
        relational_huber(ts[:0], tp[:0], ss[:0], sp[:0])
    with pytest.raises(InputError, match="triplet 1 is .0, 1, 5.; the batch has the rows 0 to 4"):
        relational_huber(ts, tp, ss, sp, triplets=torch.tensor([[0, 1, 2], [0, 1, 5]]))
    with pytest.raises(InputError, match="int64 .M, 3."):
        relational_huber(ts, tp, ss, sp, triplets=torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(InputError, match="either content or triplets"):
        relational_huber(
            ts, tp, ss, sp, triplets=torch.zeros(2, 3, dtype=torch.int64), content=torch.arange(B)
        )


def test_over_given_triplets() -> None:
    ts, tp, ss, sp = _data(canvases=2)
    triplets = torch.tensor([[0, 0, 1], [3, 2, 4], [0, 0, 3]])
    total = [0.0, 0.0, 0.0]
    for canvas in ss.tolist():
        for a, p, n in triplets.tolist():
            pairs = [
                (_distance(ts[a], tp[p]), _distance(canvas[a], sp[p])),
                (_distance(ts[a], tp[n]), _distance(canvas[a], sp[n])),
                (_distance(tp[p], tp[n]), _distance(sp[p], sp[n])),
            ]
            for r, (teacher, student) in enumerate(pairs):
                total[r] += _huber(teacher - student, 0.4) / 6
    weights = (1.0, 0.5, 2.0)
    loss = relational_huber(ts, tp, ss, sp, triplets=triplets, weights=weights, delta=0.4)
    assert loss.item() == pytest.approx(sum(w * t for w, t in zip(weights, total, strict=True)), rel=1e-10)
    inputs = tuple(t.requires_grad_() for t in (ss, sp))
    assert torch.autograd.gradcheck(
        lambda a, b: relational_huber(ts, tp, a, b, triplets=triplets, normalize=True, delta=0.4), inputs
    )


@pytest.mark.parametrize("normalize", [False, True])
def test_panels_equal_whole_matrices(normalize: bool) -> None:
    """300 rows make several panels; float64 so that nothing but the order of sums differs."""
    generator = torch.Generator().manual_seed(5)
    ts, tp, sp = (torch.randn(300, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    ss = torch.randn(2, 300, 6, generator=generator, dtype=torch.float64)
    content = torch.arange(300) % 280
    options = {"weights": (0.3, 1.0, 2.0), "delta": 0.8, "normalize": normalize}
    gradients = []
    for operator, mask in ((relational_huber, {"content": content}), (relational_huber_eager, None)):
        inputs = [t.clone().requires_grad_() for t in (ss, sp)]
        if mask is None:
            loss = operator(ts, tp, *inputs, content[:, None] != content[None, :], **options)
        else:
            loss = operator(ts, tp, *inputs, **mask, **options)
        gradients.append((loss.detach(), *torch.autograd.grad(1.5 * loss, inputs)))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_reference_gradients() -> None:
    ts, tp, ss, sp = _data(canvases=2)
    different = ~torch.eye(B, dtype=torch.bool)
    inputs = tuple(t.requires_grad_() for t in (ss, sp))
    assert torch.autograd.gradcheck(
        lambda a, b: relational_huber_eager(ts, tp, a, b, different, normalize=True, delta=0.7), inputs
    )


def test_a_loss_scale_saves_what_float16_would_flush() -> None:
    generator = torch.Generator().manual_seed(6)
    ts, tp, ss, sp = (torch.randn(60, 8, generator=generator).half() for _ in range(4))
    ss.requires_grad_()
    (65536.0 * relational_huber(ts, tp, ss, sp, weights=(0.0, 1e-3, 0.0))).backward()
    exact = ss.detach().double().requires_grad_()
    (65536.0 * relational_huber(ts.double(), tp.double(), exact, sp.double(), weights=(0.0, 1e-3, 0.0))).backward()
    assert (ss.grad.double() - exact.grad).norm() <= 1e-3 * exact.grad.norm()


@pytest.mark.parametrize("name", ["teacher_sketch", "teacher_photo", "student_sketch", "student_photo"])
def test_a_row_that_is_not_finite_is_named(name: str) -> None:
    names = ("teacher_sketch", "teacher_photo", "student_sketch", "student_photo")
    embeddings = {n: torch.rand(4, 6) for n in names}
    embeddings[name][2, 5] = math.nan
    with pytest.raises(InputError, match=f"relational_huber: {name} row 2 of 4 is not finite"):
        relational_huber(**embeddings)
