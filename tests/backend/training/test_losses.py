from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from napari_backsplit.backend.training.losses import (
    LabelSetDice,
    LabelSetLoss,
    dice_weights,
    label_set_cross_entropy,
    membership_table,
)


def _batch(
    classes: int, seed: int = 0, codes: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 4, 5, 6, generator=generator) * 3
    target = torch.randint(0, codes or classes, (2, 1, 4, 5, 6), generator=generator)
    return logits, target.to(torch.int16)


@given(classes=st.integers(2, 12), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_set_of_all_but_the_target_is_binary_cross_entropy(classes: int, seed: int) -> None:
    logits, target = _batch(classes, seed, codes=2)
    others = [label for label in range(classes) if label != 1]
    table = membership_table(classes, [others])
    codes = torch.where(target == 1, 1, classes)[:, 0].long()

    loss = label_set_cross_entropy(logits.double(), codes, table)

    probability = logits.double().softmax(1)[:, 1]
    expected = functional.binary_cross_entropy(probability, (codes == 1).double())
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-6)


def test_gradient_of_the_label_set_loss() -> None:
    logits, target = _batch(4, codes=6)
    logits = logits[:, :, :2, :2, :2].double().requires_grad_()
    table = membership_table(4, [[0, 3], [0, 2, 3]])
    loss = LabelSetLoss(table, batch_dice=False)
    loss.dice.weights = loss.dice.weights.double()
    codes = target[:, 0, :2, :2, :2].long()

    assert torch.autograd.gradcheck(lambda z: label_set_cross_entropy(z, codes, table), logits)

    def dice(z: torch.Tensor) -> torch.Tensor:  # the same sums in double precision
        known = (~(table & (table.sum(1, keepdim=True) > 1)))[codes][..., 1:].movedim(-1, 1)
        one_hot = functional.one_hot(codes.clamp(max=3) * (codes < 4), 4)[..., 1:].movedim(-1, 1)
        p = z.softmax(1)[:, 1:] * known
        total = (2 * (p * one_hot).sum((2, 3, 4)) + 1e-5) / ((p + one_hot).sum((2, 3, 4)) + 1e-5)
        return -total.mean()

    value = loss.dice(logits, codes)
    torch.testing.assert_close(value, dice(logits), rtol=1e-5, atol=1e-6)
    (ours,) = torch.autograd.grad(value, logits)
    (reference,) = torch.autograd.grad(dice(logits), logits)
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("classes", [2, 5])
def test_fully_labelled_it_is_nnunets_dice_and_cross_entropy(
    classes: int, batch_dice: bool
) -> None:
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    logits, target = _batch(classes)
    theirs = DC_and_CE_loss(
        {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False},
        {},
        dice_class=MemoryEfficientSoftDiceLoss,
    )
    ours = LabelSetLoss(membership_table(classes, [[0, 1]]), batch_dice)

    torch.testing.assert_close(ours(logits, target), theirs(logits, target))


def test_a_missing_support_is_not_pushed_down_where_it_may_be() -> None:
    logits = torch.zeros(1, 3, 2, 2, 2, requires_grad=True)
    table = membership_table(3, [[0, 2]])
    unknown = torch.full((1, 1, 2, 2, 2), 3)

    LabelSetLoss(table, batch_dice=True)(logits, unknown).backward()

    assert logits.grad is not None
    assert (logits.grad[:, 1] > 0).all(), "the target is known to be absent"
    torch.testing.assert_close(logits.grad[:, 2], logits.grad[:, 0])
    assert (logits.grad[:, 2] < 0).all()


def test_target_share_of_the_dice_term() -> None:
    logits, target = _batch(4)
    table = membership_table(4, [])
    only_target = LabelSetDice(table, True, dice_weights(1, 2, 1.0))
    binary = functional.one_hot(target[:, 0].long(), 4).movedim(-1, 1)[:, 1]
    p = logits.softmax(1)[:, 1]
    expected = -(2 * (p * binary).sum() + 1e-5) / (p.sum() + binary.sum() + 1e-5)

    torch.testing.assert_close(only_target(logits, target[:, 0].long()), expected)
    assert dice_weights(1, 3, None) is None
    np.testing.assert_allclose(dice_weights(1, 2, 0.5), [0.5, 0.25, 0.25])


@pytest.mark.parametrize("members", [[], [0, 3], [-1]])
def test_a_set_names_existing_classes(members: list[int]) -> None:
    with pytest.raises(ValueError, match="label set"):
        membership_table(3, [members])
