"""SoftSeg's activation and losses against their formulas."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from numpy.typing import NDArray
from torch import Tensor

from napari_backsplit.backend.prediction.planes import share_labels
from napari_backsplit.backend.training.losses import (
    SoftLoss,
    adaptive_wing,
    deciding,
    make_loss,
    membership_table,
    normalised_relu,
    shares,
)
from napari_backsplit.backend.training.losses.soft import soft_dice
from napari_backsplit.backend.training.spec import RunSpec

Array = NDArray[Any]
ACTIVATIONS = ("sigmoid", "normalised-relu")
portion = st.floats(0, 1)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


# ---------------------------------------------------------------------- adaptive wing


def wing(
    p: float, y: float, omega: float = 8, theta: float = 0.5, epsilon: float = 1, alpha: float = 2.1
) -> float:
    """Return Wang et al.'s equation as it is printed."""
    power, distance = alpha - y, abs(y - p)
    ratio = theta / epsilon
    if distance < theta:
        return omega * log(1 + (distance / epsilon) ** power)
    a = omega * (1 / (1 + ratio**power)) * power * ratio ** (power - 1) * (1 / epsilon)
    c = theta * a - omega * log(1 + ratio**power)
    return a * distance - c


@given(p=st.floats(-1, 2), y=portion)
@settings(max_examples=200, deadline=None)
def test_adaptive_wing_is_its_equation(p: float, y: float) -> None:
    found = adaptive_wing(number(p), number(y))
    assert float(found) == pytest.approx(wing(p, y), rel=1e-9, abs=1e-12)


@given(
    p=portion, y=portion, omega=st.floats(1, 20), theta=st.floats(0.1, 0.9),
    epsilon=st.floats(0.3, 3), alpha=st.floats(2.01, 3),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_adaptive_wing_of_other_constants(
    p: float, y: float, omega: float, theta: float, epsilon: float, alpha: float
) -> None:
    found = adaptive_wing(number(p), number(y), omega, theta, epsilon, alpha)
    assert float(found) == pytest.approx(wing(p, y, omega, theta, epsilon, alpha), rel=1e-9)


@pytest.mark.parametrize("theta", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("y", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_value_and_slope_agree_at_theta(y: float, sign: int, theta: float) -> None:
    step = 1e-7
    sides = []
    for distance in (theta - step, theta + step):
        p = number(y + sign * distance).requires_grad_()
        value = adaptive_wing(p, number(y), theta=theta)
        (slope,) = torch.autograd.grad(value, p)
        sides.append((value.item(), slope.item()))
    (inside, before), (outside, after) = sides
    assert outside - inside == pytest.approx(2 * step * abs(after), abs=1e-12)
    assert before == pytest.approx(after, rel=1e-5)
    assert np.sign(after) == sign
    assert abs(after) > 1


@given(y=portion, first=portion, second=portion)
@settings(max_examples=50, deadline=None)
def test_beyond_theta_the_slope_is_constant(y: float, first: float, second: float) -> None:
    near, far = (y + 0.5 + 1e-6 + each for each in (first, second))
    assume(abs(near - far) > 1e-3)
    values = [float(adaptive_wing(number(each), number(y))) for each in (near, far)]
    p = number(near).requires_grad_()
    (slope,) = torch.autograd.grad(adaptive_wing(p, number(y)), p)
    assert (values[1] - values[0]) / (far - near) == pytest.approx(float(slope), rel=1e-6)


@given(y=portion)
@settings(max_examples=50, deadline=None)
def test_what_is_right_costs_nothing_and_is_left_alone(y: float) -> None:
    p = number(y).requires_grad_()
    value = adaptive_wing(p, number(y))
    (slope,) = torch.autograd.grad(value, p)
    assert float(value) == 0
    assert float(slope) == 0


def test_gradient_of_adaptive_wing() -> None:
    generator = torch.Generator().manual_seed(0)
    p, y = torch.rand(2, 40, generator=generator, dtype=torch.float64)
    assert ((p - y).abs() > 0.5).any()
    assert torch.autograd.gradcheck(lambda x: adaptive_wing(x, y), p.requires_grad_())


# ---------------------------------------------------------------------- activations


@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e6), flat=st.booleans())
@settings(max_examples=50, deadline=None)
def test_normalised_relu_of_each_sample_and_channel(seed: int, scale: float, flat: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 3, *((4, 5) if flat else (2, 3, 4))))
    x[1, 2] = -np.abs(x[1, 2])

    found = normalised_relu(torch.tensor(x * scale), range(2, x.ndim)).numpy()

    for at in np.ndindex(2, 3):
        positive = np.maximum(x[at], 0)
        expected = positive / positive.max() if positive.max() else 0 * positive
        np.testing.assert_allclose(found[at], expected, rtol=1e-12)


@pytest.mark.parametrize("x", [0.0, -1.0, 1e-30, -1e30])
def test_a_channel_without_a_maximum_is_zero_with_finite_slopes(x: float) -> None:
    outputs = torch.full((1, 1, 3, 4), x, requires_grad=True)
    found = normalised_relu(outputs, (2, 3))
    (slope,) = torch.autograd.grad((found * torch.arange(12.0).view(3, 4)).sum(), outputs)
    assert slope.isfinite().all()
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-20)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_decision_is_the_class_with_more_than_half(activation: str, seed: int) -> None:
    outputs = torch.randn(2, 4, 3, 4, generator=torch.Generator().manual_seed(seed))
    found = shares(outputs, activation)
    assert found.min() >= 0
    assert found.max() <= 1
    assert found.shape == (2, 3, 3, 4)

    decision = deciding(outputs, activation).argmax(1)

    greatest, best = found.max(1)
    assert torch.equal(decision, torch.where(greatest > 0.5, best + 1, 0))
    outputs[:, 0] = 1e6
    assert torch.equal(shares(outputs, activation), found), "the background's channel is not seen"


def test_no_support_takes_a_voxel_from_a_target_as_in_a_prediction() -> None:
    scores = np.array([[0.6, 0.9], [0.4, 0.9], [0.6, 0.55], [0.2, 0.3]], np.float32)
    outputs = torch.from_numpy(scores).logit().T[None]  # one target, one support
    outputs = torch.cat([torch.zeros_like(outputs[:, :1]), outputs], 1)
    found = deciding(outputs, "sigmoid", 1).argmax(1)[0]
    assert found.tolist() == [1, 2, 1, 0]
    plane = np.concatenate([np.full((1, 4), 0.5, np.float32), scores.T])[:, None]
    assert found.tolist() == share_labels(plane, 1)[0].tolist()
    assert deciding(outputs, "sigmoid").argmax(1)[0].tolist() == [2, 2, 1, 0]


def test_a_voxel_of_which_half_is_the_target_is_background() -> None:
    outputs = torch.tensor([0.0, 0.0]).view(1, 2, 1, 1)
    assert deciding(outputs, "sigmoid").argmax(1).item() == 0
    assert deciding(outputs + 1e-3, "sigmoid").argmax(1).item() == 1


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_shares_of_half_precision_are_single(activation: str) -> None:
    outputs = torch.randn(1, 3, 4, 5).bfloat16()
    found = shares(outputs, activation)
    assert found.dtype == torch.float32
    assert torch.equal(found, shares(outputs.float(), activation))


def test_softmax_makes_no_shares() -> None:
    with pytest.raises(ValueError, match="softmax makes no shares"):
        shares(torch.zeros(1, 2, 3, 3), "softmax")


# ---------------------------------------------------------------------- the loss of a run


def of_spec(name: str, activation: str, **settings: Any) -> SoftLoss:
    values = {"loss": name, "labels": "soft", "activation": activation, **settings}
    batch_dice = values.pop("batch_dice", True)
    spec = RunSpec.model_validate(values)
    loss = make_loss(spec, membership_table(4, []), batch_dice, targets=1)
    assert isinstance(loss, SoftLoss)
    return loss


def batch(*space: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Return outputs of four classes, codes that say nothing, and shares that sum to at most 1."""
    generator = torch.Generator().manual_seed(3)
    outputs = torch.randn(2, 4, *space, generator=generator, dtype=dtype)
    mixture = torch.rand(2, 4, *space, generator=generator, dtype=dtype) ** 3
    extra = (mixture / mixture.sum(1, keepdim=True))[:, 1:]
    return outputs, torch.zeros(2, 1, *space), extra


def reference_shares(outputs: Array, activation: str) -> Array:
    found = np.zeros_like(outputs[:, 1:])
    for sample, k in np.ndindex(found.shape[:2]):
        channel = outputs[sample, k + 1]
        if activation == "sigmoid":
            found[sample, k] = 1 / (1 + np.exp(-channel))
        elif channel.max() > 0:
            found[sample, k] = np.maximum(channel, 0) / channel.max()
    return found


def reference_dice(p: Array, y: Array, weights: list[float], batch_dice: bool) -> float:
    scores = []
    for samples in [range(len(p))] if batch_dice else [[i] for i in range(len(p))]:
        for k, weight in enumerate(weights):
            inside = below = 1e-5 / 2
            for sample in samples:
                for at in np.ndindex(p.shape[2:]):
                    a, b = p[(sample, k, *at)], y[(sample, k, *at)]
                    inside += a * b
                    below += (a * a + b * b) / 2
            scores.append(weight * inside / below)
    return -sum(scores) * len(weights) / len(scores)


@pytest.mark.parametrize("space", [(3, 4), (2, 3, 4)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_adaptive_wing_is_a_mean_over_voxels_and_classes(
    activation: str, space: tuple[int, ...]
) -> None:
    outputs, target, extra = batch(*space)
    found = of_spec("adaptive-wing", activation)(outputs, target, extra)
    p, y = reference_shares(outputs.numpy(), activation), extra.numpy()
    expected = np.mean([wing(*pair) for pair in zip(p.ravel(), y.ravel(), strict=True)])
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("share", [None, 0.5])
@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dice_of_shares_is_its_formula(
    activation: str, batch_dice: bool, share: float | None
) -> None:
    outputs, target, extra = batch(3, 4)
    loss = of_spec("dice", activation, target_dice_share=share, batch_dice=batch_dice)
    weights = [1 / 3] * 3 if share is None else [0.5, 0.25, 0.25]
    p = reference_shares(outputs.numpy(), activation)
    expected = reference_dice(p, extra.numpy(), weights, batch_dice)
    assert float(loss(outputs, target, extra)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["adaptive-wing", "dice"])
def test_gradients_of_soft_losses(name: str, activation: str) -> None:
    outputs, target, extra = batch(2, 2, 3)
    loss = of_spec(name, activation)
    assert torch.autograd.gradcheck(
        lambda z: loss(z, target, extra), outputs.requires_grad_(), atol=1e-7
    )


@given(y=st.floats(0.05, 1), other=portion)
@settings(max_examples=50, deadline=None)
def test_dice_of_shares_is_best_where_they_are_right(y: float, other: float) -> None:
    assume(abs(y - other) > 1e-3)
    reference, weight = torch.full((1, 1, 4, 4), y, dtype=torch.float64), torch.ones(1)
    right = soft_dice(reference, reference, weight, True)
    wrong = soft_dice(torch.full_like(reference, other), reference, weight, True)
    assert float(right) == pytest.approx(-1)
    assert right < wrong


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["adaptive-wing", "dice"])
def test_a_batch_without_a_target_has_a_finite_loss_and_slope(name: str, activation: str) -> None:
    outputs, target, extra = batch(3, 4, dtype=torch.float32)
    for scale in (1e4, 0.0):
        z = (outputs * scale).requires_grad_()
        found = of_spec(name, activation)(z, target, torch.zeros_like(extra))
        (slope,) = torch.autograd.grad(found, z)
        assert found.isfinite()
        assert slope.isfinite().all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["adaptive-wing", "dice"])
def test_descent_finds_the_shares(name: str, activation: str) -> None:
    outputs, target, extra = batch(4, 5, dtype=torch.float32)
    extra = extra / extra.amax((2, 3), keepdim=True)  # what a normalised ReLU can reach
    z = (outputs.abs() + 0.1).requires_grad_()
    loss, optimiser = of_spec(name, activation), torch.optim.Adam([z], 0.03)
    before = (shares(z, activation) - extra).abs().mean()
    for _ in range(150):
        optimiser.zero_grad()
        loss(z, target, extra).backward()
        optimiser.step()
    assert (shares(z, activation) - extra).abs().mean() < 0.25 * before


def test_deep_supervision_gives_each_level_its_shares() -> None:
    fine, coarse = batch(4, 6), batch(2, 3)
    loss = of_spec("adaptive-wing", "sigmoid")
    deep = DeepSupervisionWrapper(loss, [0.75, 0.25])
    levels = [list(pair) for pair in zip(fine, coarse, strict=True)]
    torch.testing.assert_close(deep(*levels), 0.75 * loss(*fine) + 0.25 * loss(*coarse))


def test_half_precision_is_computed_in_single() -> None:
    outputs, target, extra = batch(3, 4, dtype=torch.float32)
    half = outputs.bfloat16()
    loss = of_spec("adaptive-wing", "normalised-relu")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(half, target, extra), loss(half.float(), target, extra))


def test_a_batch_without_shares_is_refused() -> None:
    outputs, target, _ = batch(3, 4)
    with pytest.raises(ValueError, match="the batch has none"):
        of_spec("adaptive-wing", "sigmoid")(outputs, target)


def test_supports_of_soft_labels_are_there_from_the_start() -> None:
    loss = of_spec("adaptive-wing", "sigmoid")
    assert (loss.supports, loss.joined, loss.weight) == (2, 2, 1)
