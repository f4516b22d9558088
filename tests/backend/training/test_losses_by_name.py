"""Each loss by its name against its formula, and what holds for all of them."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import Tensor
from torch.nn import functional

from napari_backsplit.backend.training.combinations import BY_CLASS, WEIGHTED
from napari_backsplit.backend.training.losses import (
    FocalLoss,
    LabelSetLoss,
    StagedLoss,
    inverse_weights,
    make_loss,
    membership_table,
)
from napari_backsplit.backend.training.losses.label_set_loss import TERMS
from napari_backsplit.backend.training.spec import Loss, RunSpec
from tests.backend.training.loss_formulas import FORMULAS, Batch

LOSSES = tuple(TERMS)
SETS = ([], [[0, 3]], [[0, 2, 3], [0, 3]])


def test_every_loss_of_a_spec_is_there() -> None:
    assert {*LOSSES, "adaptive-wing"} == set(get_args(Loss))
    assert set(WEIGHTED) < set(LOSSES)


def staged(name: str, batch: Batch) -> StagedLoss:
    table = membership_table(batch.logits.shape[1], batch.sets)
    share = batch.share if name in BY_CLASS else None
    loss = StagedLoss(table, batch.batch_dice, batch.targets, share, name)
    loss.joined = batch.joined
    return loss


def value(name: str, batch: Batch) -> float:
    weights = None if batch.weights is None else torch.tensor(batch.weights)[:, None]
    logits, target = torch.tensor(batch.logits), torch.tensor(batch.codes)[:, None]
    return float(staged(name, batch)(logits, target, weights))


@st.composite
def batches(draw: st.DrawFn, weighted: bool = False) -> Batch:
    sets = draw(st.sampled_from(SETS))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    shape = (2, *draw(st.sampled_from([(3, 4), (2, 2, 3)])))
    targets = draw(st.integers(1, 3 if not sets else 1))
    most = draw(st.integers(0, 3 + len(sets)))  # so that some classes are not there
    return Batch(
        logits=2 * rng.standard_normal((2, 4, *shape[1:])),
        codes=rng.integers(0, most + 1, shape),
        sets=sets,
        weights=rng.uniform(1, 50, shape) if weighted else None,
        batch_dice=draw(st.booleans()),
        targets=targets,
        share=draw(st.sampled_from([None, 0.5, 1.0])),
        joined=draw(st.integers(0, 3 - targets)),
    )


@pytest.mark.parametrize("name", LOSSES)
@given(batch=batches())
@settings(max_examples=25, deadline=None)
def test_each_loss_is_its_formula(name: str, batch: Batch) -> None:
    batch = batch if name in BY_CLASS else Batch(**{**vars(batch), "share": None})
    assert value(name, batch) == pytest.approx(FORMULAS[name](batch), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", WEIGHTED)
@given(batch=batches(weighted=True))
@settings(max_examples=25, deadline=None)
def test_each_weighted_loss_is_its_formula(name: str, batch: Batch) -> None:
    batch = batch if name in BY_CLASS else Batch(**{**vars(batch), "share": None})
    assert value(name, batch) == pytest.approx(FORMULAS[name](batch), rel=1e-6, abs=1e-6)


# ---------------------------------------------------------------------- what holds for each of them


def tensors(
    space: tuple[int, ...], codes: int = 5, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits of four classes, codes and weights."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, *space, generator=generator, dtype=dtype)
    target = torch.randint(0, codes, (2, 1, *space), generator=generator)
    return logits, target, 1 + 20 * torch.rand(2, 1, *space, generator=generator)


def of_spec(name: str, **settings: Any) -> StagedLoss:
    spec = RunSpec.model_validate({"loss": name, **settings})
    loss = make_loss(spec, membership_table(4, [[0, 3]]), batch_dice=True, targets=1)
    assert isinstance(loss, StagedLoss)
    return loss


@pytest.mark.parametrize(
    ("name", "weighted"), [*((n, False) for n in LOSSES), *((n, True) for n in WEIGHTED)]
)
def test_gradients_of_each_loss(name: str, weighted: bool) -> None:
    logits, target, weights = tensors((2, 2, 2), dtype=torch.float64)
    loss = of_spec(name)
    loss.joined, loss.weight = 1, 0.6
    extra = weights.double() if weighted else None
    assert torch.autograd.gradcheck(
        lambda z: loss(z, target, extra), logits.requires_grad_(), eps=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_of_one_change_nothing(name: str) -> None:
    logits, target, _ = tensors((4, 5))
    loss = of_spec(name)
    ones = torch.ones(target.shape)
    torch.testing.assert_close(loss(logits, target, ones), loss(logits, target))


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_do_change_it(name: str) -> None:
    logits, target, weights = tensors((4, 5))
    loss = of_spec(name)
    assert abs(loss(logits, target, weights) - loss(logits, target)) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_single(name: str, dtype: torch.dtype) -> None:
    logits, target, _ = tensors((4, 5))
    half = logits.to(dtype)
    loss = of_spec(name)
    single = loss(half.float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(half, target), single)
    assert loss(half, target).dtype == torch.float32


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("code", [0, 1, 4])
def test_a_patch_of_one_code_has_a_finite_loss_and_slope(name: str, code: int) -> None:
    """No target, nothing but target, nothing that is known; and outputs far from one another."""
    logits, target, _ = tensors((3, 4, 5))
    logits = (logits * 1e4).requires_grad_()
    loss = of_spec(name)
    for joined in (0, 2):
        loss.joined = joined
        found = loss(logits, torch.full_like(target, code))
        (slope,) = torch.autograd.grad(found, logits)
        assert found.isfinite()
        assert slope.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_descent_finds_the_labels(name: str) -> None:
    _, target, _ = tensors((4, 5, 6), codes=4)
    logits = torch.zeros(2, 4, 4, 5, 6, requires_grad=True)
    loss, optimiser = of_spec(name), torch.optim.Adam([logits], 0.3)
    for _ in range(60):
        optimiser.zero_grad()
        loss(logits, target).backward()
        optimiser.step()
    assert (logits.argmax(1) == target[:, 0]).float().mean() > 0.99


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_neither_the_order_of_voxels_nor_that_of_supports_matters(name: str, seed: int) -> None:
    logits, target, weights = tensors((4, 5), codes=4, seed=seed)
    extra = weights if name in WEIGHTED else None
    loss = make_loss(RunSpec(loss=name), membership_table(4, []), True, 1)  # type: ignore[arg-type]
    before = loss(logits, target, extra)

    order = torch.randperm(20)
    z, t, w = (each.flatten(2)[..., order].view(each.shape) for each in (logits, target, weights))
    torch.testing.assert_close(loss(z, t, None if extra is None else w), before)

    renamed = torch.tensor([0, 1, 3, 2])
    torch.testing.assert_close(loss(logits[:, renamed], renamed[target], extra), before)


@pytest.mark.parametrize("name", LOSSES)
def test_an_unknown_support_is_not_pulled_by_a_voxel_that_may_be_it(name: str) -> None:
    logits, target, _ = tensors((3, 4))
    target[0] = 4
    logits.requires_grad_()
    (pull,) = torch.autograd.grad(of_spec(name)(logits, target), logits)
    pull = (pull / logits.softmax(1))[0]
    torch.testing.assert_close(pull[3], pull[0])
    assert (pull[3] < 0).all(), "the classes that it is not fall, so these two rise"


@pytest.mark.parametrize("name", WEIGHTED)
def test_deep_supervision_weighs_each_level_with_its_own_weights(name: str) -> None:
    fine, coarse = tensors((4, 6)), tensors((2, 3), seed=1)
    loss = of_spec(name)
    deep = DeepSupervisionWrapper(loss, [0.75, 0.25])
    levels = [list(pair) for pair in zip(fine, coarse, strict=True)]
    expected = 0.75 * loss(*fine) + 0.25 * loss(*coarse)
    torch.testing.assert_close(deep(*levels), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_the_two_stages_mix_as_their_weight_says(name: str) -> None:
    logits, target, weights = tensors((4, 5))
    extra = weights if name in WEIGHTED else None
    loss = of_spec(name)
    whole = loss(logits, target, extra)
    loss.joined = 0
    binary = loss(logits, target, extra)
    loss.joined, loss.weight = 2, 0.3
    torch.testing.assert_close(loss(logits, target, extra), 0.3 * whole + 0.7 * binary)
    assert abs(whole - binary) > 1e-3


# ---------------------------------------------------------------------- single losses


@given(seed=st.integers(0, 1000), alpha=st.floats(0.1, 0.9), gamma=st.floats(0, 4))
@settings(max_examples=25, deadline=None)
def test_with_two_classes_focal_loss_is_the_binary_one(
    seed: int, alpha: float, gamma: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 2, 4, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 2, (2, 4, 5), generator=generator)
    p = (logits[:, 1] - logits[:, 0]).sigmoid()
    target = -alpha * (1 - p) ** gamma * p.log()
    background = -(1 - alpha) * p**gamma * (1 - p).log()

    loss = FocalLoss(membership_table(2, []), 1, alpha, gamma)(logits, y)

    torch.testing.assert_close(
        loss, torch.where(y == 1, target, background).mean(), rtol=1e-6, atol=0
    )


def test_without_gamma_and_balance_focal_loss_is_half_of_cross_entropy() -> None:
    logits, target, _ = tensors((4, 5), codes=4)
    loss = FocalLoss(membership_table(4, []), 1, alpha=0.5, gamma=0)(logits, target[:, 0])
    torch.testing.assert_close(loss, functional.cross_entropy(logits, target[:, 0]) / 2)


def test_a_class_of_one_voxel_weighs_as_much_as_the_background() -> None:
    """Weighted cross-entropy: each class of the batch has one share, whatever its volume."""
    logits, target = torch.zeros(1, 4, 5, 5), torch.zeros(1, 1, 5, 5, dtype=torch.long)
    target[0, 0, 2, 2] = 1
    logits.requires_grad_()
    of_spec("weighted-ce")(logits, target).backward()
    assert logits.grad is not None
    share = logits.grad[:, 0].abs()
    assert share.sum() - share[0, 2, 2] == pytest.approx(0.5 * 0.75, rel=1e-5)
    assert logits.grad[0, 1, 2, 2] == pytest.approx(-0.5 * 0.75, rel=1e-5)


def test_generalised_dice_ignores_the_scale_of_a_class() -> None:
    """A lesion of one voxel that is missed costs about as much as half of the score."""
    target = torch.zeros(1, 1, 20, 20, 20, dtype=torch.long)
    target[0, 0, 5, 5, 5] = 1
    right = 20.0 * functional.one_hot(target[:, 0], 4).movedim(-1, 1)
    missed = 20.0 * functional.one_hot(torch.zeros_like(target[:, 0]), 4).movedim(-1, 1)
    loss = of_spec("generalised-dice")
    assert loss(right, target) == pytest.approx(-1, abs=1e-3)
    assert loss(missed, target) > -0.01
    assert of_spec("ce")(missed, target) < 0.01


@pytest.mark.parametrize("name", WEIGHTED)
def test_inverse_weights_make_a_small_lesion_count(name: str) -> None:
    """Missing 1 voxel in 513 moves the loss as much as missing the other 512, or nearly so."""
    target = np.zeros((24, 24, 24), np.int64)
    target[2:10, 2:10, 2:10] = 1
    target[18, 18, 18] = 1
    weights = torch.tensor(inverse_weights(target == 1))[None, None]
    codes = torch.tensor(target)[None, None]
    right = 8.0 * functional.one_hot(codes[:, 0], 4).movedim(-1, 1)
    small, large = right.clone(), right.clone()
    small[0, :, 18, 18, 18] = right[0, :, 0, 0, 0]
    large[0, :, 2:10, 2:10, 2:10] = right[0, :, :1, :1, :1]
    loss = of_spec(name, target_dice_share=1.0) if name in BY_CLASS else of_spec(name)

    def cost(outputs: Tensor, extra: Tensor | None) -> float:
        return float(loss(outputs, codes, extra) - loss(right, codes, extra))

    assert cost(small, None) < 0.01 * cost(large, None)
    assert cost(small, weights) == pytest.approx(cost(large, weights), rel=0.05)


def test_a_loss_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError):
        LabelSetLoss(membership_table(2, []), True, loss="jaccard")
