"""The fused norm beside torch's own norm and activation in float64, and in its place in a network."""

from __future__ import annotations

import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sketchynet import _core
from sketchynet.models import fused_norm
from sketchynet.models.fused_norm import Bounds, batch_norm_clamped, bounds_of, can_fuse, frozen_norm_clamped
from sketchynet.models.norm import PrivateBatchNorm, convert_norms

SHAPES = st.tuples(
    st.integers(2, 5), st.sampled_from([1, 2, 3, 16, 24, 63, 64, 65, 144, 320]), st.integers(1, 19), st.integers(1, 7)
)
NONE, RELU, RELU6 = Bounds(-math.inf, math.inf), Bounds(0.0, math.inf), Bounds(0.0, 6.0)


def images(shape: tuple[int, int, int, int], seed: int, *, offset: float = 0.0, spread: float = 1.0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread + offset
    return values.to(memory_format=torch.channels_last)


def affine(channels: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(channels, generator=generator) * 2, torch.randn(channels, generator=generator) + 1


def reference(x: Tensor, weight: Tensor, bias: Tensor, eps: float, bounds: Bounds) -> Tensor:
    return F.batch_norm(x, None, None, weight, bias, True, 0.0, eps).clamp(*bounds)


def gradients(of: Tensor, inputs: list[Tensor], by: Tensor) -> list[Tensor]:
    return [gradient.double() for gradient in torch.autograd.grad(of, inputs, by)]


@settings(deadline=None)
@given(SHAPES, st.sampled_from([NONE, RELU, RELU6]), st.integers(0, 2**16))
def test_equals_norm_and_activation_in_float64(shape: tuple[int, int, int, int], bounds: Bounds, seed: int) -> None:
    x, (weight, bias), by = images(shape, seed), affine(shape[1], seed + 1), images(shape, seed + 2)
    single = [tensor.clone(memory_format=torch.preserve_format).requires_grad_() for tensor in (x, weight, bias)]
    double = [tensor.double().requires_grad_() for tensor in (x, weight, bias)]
    y, mean, var = batch_norm_clamped(*single, 1e-2, bounds)
    expected = reference(*double, 1e-2, bounds)
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mean.double(), double[0].mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(var.double(), double[0].var(dim=(0, 2, 3)), rtol=1e-5, atol=1e-5)
    # Where rounding decides whether a value is clamped, the gradient is torn between two answers.
    normed = reference(*double, 1e-2, NONE)
    torn = torch.stack([(normed - bound).abs() < 1e-4 for bound in bounds]).any(dim=0)
    by = torch.where(torn, 0.0, by)
    for found, wanted in zip(gradients(y, single, by), gradients(expected, double, by.double()), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


@settings(deadline=None)
@given(SHAPES, st.sampled_from([NONE, RELU, RELU6]), st.integers(0, 2**16))
def test_evaluation_equals_norm_and_activation_in_float64(shape: tuple[int, int, int, int], bounds: Bounds, seed: int) -> None:
    x, (weight, bias), (mean, spread) = images(shape, seed), affine(shape[1], seed + 1), affine(shape[1], seed + 2)
    given = mean, spread.square(), weight, bias
    found = frozen_norm_clamped(x, *given, 1e-2, bounds)
    wanted = F.batch_norm(x.double(), *(tensor.double() for tensor in given), False, 0.0, 1e-2).clamp(*bounds)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_literal_numbers_in_evaluation() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0, 4.0]).view(4, 1, 1, 1)
    one = (torch.tensor([value]) for value in (1.0, 3.5, 2.0, 1.0))  # mean, variance, weight, bias
    y = frozen_norm_clamped(x, *one, 0.5, Bounds(0.0, 3.5))
    assert y.flatten().tolist() == [0.0, 0.0, 1.0, 3.5]  # before: -1, 0, 1, 4
    assert x.flatten().tolist() == [-1.0, 0.0, 1.0, 4.0]


def test_literal_numbers() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0, 4.0]).view(4, 1, 1, 1).requires_grad_()  # mean 1, variance 3.5
    weight, bias = torch.tensor([2.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    y, mean, var = batch_norm_clamped(x, weight, bias, 0.5, Bounds(0.0, 3.5))
    assert y.flatten().tolist() == [0.0, 0.0, 1.0, 3.5]  # before: -1, 0, 1, 4; what lies on a bound takes no gradient
    assert mean.item() == 1.0 and var.item() == pytest.approx(14 / 3)
    y.sum().backward()
    assert x.grad is not None and weight.grad is not None and bias.grad is not None
    assert x.grad.flatten().tolist() == [-0.25, -0.25, 0.75, -0.25]
    assert (weight.grad.item(), bias.grad.item()) == (0.0, 1.0)


def test_a_large_mean_cancels_nothing() -> None:
    x = images((4, 40, 33, 17), 0, offset=1000.0, spread=0.5)
    mean, variance = np.empty(40), np.empty(40)
    _core.norm_statistics(fused_norm._rows(x), 1, mean, variance)
    np.testing.assert_allclose(mean, x.double().mean(dim=(0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(variance, x.double().var(dim=(0, 2, 3), correction=0), rtol=1e-4)


def test_constant_channels_have_no_variance() -> None:
    x = torch.full((3, 5, 4, 4), 7.7).to(memory_format=torch.channels_last)
    y, mean, var = batch_norm_clamped(x, *affine(5, 0), 1e-5, RELU6)
    assert (var == 0).all() and torch.equal(mean, torch.full((5,), 7.7))
    torch.testing.assert_close(y, affine(5, 0)[1].clamp(0, 6).view(1, 5, 1, 1).expand_as(y))


def test_threads_change_no_bit() -> None:
    x, by = images((6, 48, 31, 29), 1), images((6, 48, 31, 29), 2)
    found = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 7):
            torch.set_num_threads(number)
            leaves = [tensor.clone(memory_format=torch.preserve_format).requires_grad_() for tensor in (x, *affine(48, 3))]
            y, mean, var = batch_norm_clamped(*leaves, 1e-5, RELU6)
            found.append([y, mean, var, *torch.autograd.grad(y, leaves, by)])
    finally:
        torch.set_num_threads(threads)
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def test_what_is_not_finite_stays_visible() -> None:
    x = images((2, 3, 4, 4), 0)
    x[0, 1, 2, 3] = math.nan
    y, mean, _ = batch_norm_clamped(x, *affine(3, 0), 1e-5, RELU6)
    assert y[:, 1].isnan().all() and mean.isnan().tolist() == [False, True, False]
    assert y[:, [0, 2]].isfinite().all()


def test_which_images_and_activations() -> None:
    x = images((2, 8, 4, 4), 0)
    assert can_fuse(x) and not can_fuse(x.contiguous()) and not can_fuse(x.double()) and not can_fuse(x.bfloat16())
    assert not can_fuse(x[:0])
    assert bounds_of(None) == NONE and bounds_of(nn.ReLU(inplace=True)) == RELU and bounds_of(nn.ReLU6()) == RELU6
    assert bounds_of(nn.GELU()) is None and bounds_of(nn.LeakyReLU()) is None


def test_wrong_arrays_are_refused() -> None:
    x, short = np.zeros((6, 4), np.float32), np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="mean, scale and bias"):
        _core.norm_forward(x, short, short, short, 0.0, 6.0, 1, np.empty_like(x))
    four = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="shape of x"):
        _core.norm_forward(x, four, four, four, 0.0, 6.0, 1, np.empty((5, 4), np.float32))
    with pytest.raises(ValueError, match="low must be below high"):
        _core.norm_forward(x, four, four, four, 6.0, 0.0, 1, np.empty_like(x))
    with pytest.raises(ValueError, match="at least one of each"):
        _core.norm_statistics(x[:0], 1, np.empty(4), np.empty(4))
    with pytest.raises(TypeError):
        _core.norm_statistics(x[:, ::2], 1, np.empty(2), np.empty(2))  # type: ignore[call-arg]


def network(norm: str) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(inplace=True), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)]
    return convert_norms(nn.Sequential(*layers), norm, 1).to(memory_format=torch.channels_last)


def test_a_private_norm_takes_the_activation_behind_it() -> None:
    plain, private = network("shared"), network("private")
    assert isinstance(private[1], PrivateBatchNorm) and isinstance(private[1].after, nn.ReLU6)
    assert isinstance(private[2], nn.Identity) and isinstance(private[4], PrivateBatchNorm) and private[4].after is None
    assert private.state_dict().keys() == plain.state_dict().keys()
    private.load_state_dict(plain.state_dict())
    for step in range(3):
        x = images((4, 3, 9, 9), step)
        outcomes = []
        for module in (plain, private):
            module.train()
            module.zero_grad()
            y = module(x)
            y.square().mean().backward()
            outcomes.append([y, *(parameter.grad for parameter in module.parameters())])
        for found, wanted in zip(outcomes[1], outcomes[0], strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    x = images((2, 3, 9, 9), 9)
    kept = {name: tensor[0] for name, tensor in private.state_dict().items() if "running" in name}
    # The first updates of a private norm are plain averages (see PrivateBatchNorm), those of torch's are not.
    plain.load_state_dict(plain.state_dict() | kept)
    expected = plain.eval()(x)
    with patch("sketchynet.models.norm.frozen_norm_clamped", wraps=frozen_norm_clamped) as fused:
        torch.testing.assert_close(private.eval()(x), expected)
        assert fused.call_count == 0  # it gives no gradient
        with torch.no_grad():
            torch.testing.assert_close(private(x), expected)
            torch.testing.assert_close(private(x.contiguous()), expected)
        assert fused.call_count == 4  # two norms; a channels-last convolution makes channels-last images


def test_one_value_a_channel_is_refused() -> None:
    norm = PrivateBatchNorm(4, 1).train()
    with pytest.raises(ValueError, match="one value a channel"):
        norm(torch.zeros(1, 4, 1, 1).to(memory_format=torch.channels_last))
