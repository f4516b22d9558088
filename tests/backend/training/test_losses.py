from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook

from napari_backsplit.backend.training.losses import (
    LabelSetDice,
    LabelSetLoss,
    StagedLoss,
    dice_weights,
    label_set_cross_entropy,
    membership_table,
    merge_into_background,
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
    dice_term = loss.terms[0]
    assert isinstance(dice_term, LabelSetDice)
    codes = target[:, 0, :2, :2, :2].long()

    assert torch.autograd.gradcheck(lambda z: label_set_cross_entropy(z, codes, table), logits)

    def dice(z: torch.Tensor) -> torch.Tensor:  # the same sums in double precision
        known = (~(table & (table.sum(1, keepdim=True) > 1)))[codes][..., 1:].movedim(-1, 1)
        one_hot = functional.one_hot(codes.clamp(max=3) * (codes < 4), 4)[..., 1:].movedim(-1, 1)
        p = z.softmax(1)[:, 1:] * known
        total = (2 * (p * one_hot).sum((2, 3, 4)) + 1e-5) / ((p + one_hot).sum((2, 3, 4)) + 1e-5)
        return -total.mean()

    value = dice_term(logits, codes)
    torch.testing.assert_close(value, dice(logits), rtol=1e-5, atol=1e-6)
    (ours,) = torch.autograd.grad(value, logits)
    (reference,) = torch.autograd.grad(dice(logits), logits)
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("classes", [2, 5])
def test_fully_labelled_it_is_nnunets_dice_and_cross_entropy(
    classes: int, batch_dice: bool
) -> None:
    logits, target = _batch(classes)
    theirs = _nnunets_loss(batch_dice)
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


# ---------------------------------------------------------------------- supports as background


@dataclass(frozen=True)
class Case:
    """One target, some supports, of which some are merged, and voxels of any code."""

    classes: int
    sets: list[list[int]]
    merged: list[int]
    seed: int

    @property
    def table(self) -> torch.Tensor:
        return membership_table(self.classes, self.sets)

    @property
    def kept(self) -> list[int]:
        return [label for label in range(self.classes) if label not in self.merged]

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        return _batch(self.classes, self.seed, codes=len(self.table))

    def smaller(
        self, logits: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits, target and table of the scheme that never had the merged supports."""
        background = logits[:, [0, *self.merged]].logsumexp(1, keepdim=True)
        rest = [label for label in self.kept if label]
        number = dict.fromkeys(self.merged, 0) | {k: i for i, k in enumerate(self.kept)}
        sets = sorted({tuple(sorted({number[label] for label in s})) for s in self.sets})
        sets = [members for members in sets if len(members) > 1]
        code = {(i,): i for i in range(len(self.kept))}
        code |= {members: len(self.kept) + i for i, members in enumerate(sets)}
        meaning = [[label] for label in range(self.classes)] + self.sets
        told = [code[tuple(sorted({number[label] for label in each}))] for each in meaning]
        return (
            torch.cat([background, logits[:, rest]], 1),
            torch.tensor(told)[target.long()],
            membership_table(len(self.kept), sets),
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    classes = draw(st.integers(3, 6))
    supports = st.sets(st.integers(2, classes - 1), min_size=1)
    missing = draw(st.lists(supports, max_size=3, unique_by=lambda s: tuple(sorted(s))))
    merged = sorted(draw(st.sets(st.integers(2, classes - 1))))
    sets = [sorted({0, *s}) for s in missing]
    return Case(classes, sets, merged, draw(st.integers(0, 1000)))


@given(case=cases(), batch_dice=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_merged_support_is_as_if_it_had_never_been_a_class(case: Case, batch_dice: bool) -> None:
    logits, target = case.batch()
    weights = [0.0 if label in case.merged else 1.0 for label in range(1, case.classes)]
    merged = LabelSetLoss(case.table, batch_dice, weights, case.merged)

    small_logits, small_target, table = case.smaller(logits, target)

    small = LabelSetLoss(table, batch_dice)
    torch.testing.assert_close(merged(logits, target), small(small_logits, small_target))


@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_each_code_keeps_its_meaning(case: Case) -> None:
    table, code = merge_into_background(case.table, case.merged)

    background = {0, *case.merged}
    rows = [frozenset(row.nonzero()[:, 0].tolist()) for row in table]
    assert rows[: case.classes] == [{label} for label in range(case.classes)]
    assert len(set(rows)) == len(rows), "one code for each meaning"
    for old, row in enumerate(case.table):
        members = set(row.nonzero()[:, 0].tolist())
        assert rows[code[old]] == (members | background if members & background else members)
    for label in set(case.kept) - {0}:
        assert code[label] == label


def test_codes_of_one_meaning_and_sets_of_one_class() -> None:
    """Such tables are odd but allowed."""
    logits, target = _batch(3, codes=6)
    odd = LabelSetLoss(membership_table(3, [[0, 2], [0, 2], [2]]), batch_dice=True)
    plain = LabelSetLoss(membership_table(3, [[0, 2]]), batch_dice=True)
    same = torch.tensor([0, 1, 2, 3, 3, 2])[target.long()]
    torch.testing.assert_close(odd(logits, target), plain(logits, same))


@given(case=cases())
@settings(max_examples=30, deadline=None)
def test_with_all_supports_merged_it_is_the_targets_binary_cross_entropy(case: Case) -> None:
    logits, target = case.batch()
    logits = logits.double()
    table, code = merge_into_background(case.table, range(2, case.classes))

    loss = label_set_cross_entropy(logits, code[target[:, 0].long()], table)

    truth = (target[:, 0] == 1).double()
    expected = functional.binary_cross_entropy(logits.softmax(1)[:, 1], truth)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)


def _nnunets_loss(batch_dice: bool) -> torch.nn.Module:
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    options = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss: torch.nn.Module = DC_and_CE_loss(options, {}, dice_class=MemoryEfficientSoftDiceLoss)
    return loss


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize("share", [None, 0.7])
def test_before_any_support_joins_it_is_nnunets_loss_of_the_targets(
    targets: int, share: float | None
) -> None:
    logits, target = _batch(5, codes=7)
    staged = StagedLoss(membership_table(5, [[0, 4], [0, 3, 4]]), True, targets, share)
    staged.joined = 0

    background = logits[:, [0, *range(targets + 1, 5)]].logsumexp(1, keepdim=True)
    own = torch.cat([background, logits[:, 1 : targets + 1]], 1)
    expected = _nnunets_loss(True)(own, torch.where(target <= targets, target, 0))
    torch.testing.assert_close(staged(logits, target), expected)


@given(weight=st.floats(0, 1), joined=st.integers(0, 3), seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_a_staged_loss_is_the_mean_of_the_joined_and_the_binary_loss(
    weight: float, joined: int, seed: int
) -> None:
    logits, target = _batch(5, seed, codes=6)
    table = membership_table(5, [[0, 4]])
    staged = StagedLoss(table, True, 1, 0.5)
    staged.joined, staged.weight = joined, weight

    share = 0.5 / joined if joined else 0.0
    weights = [0.5 if joined else 1.0] + [share] * joined + [0.0] * (3 - joined)
    with_joined = LabelSetLoss(table, True, weights, range(2 + joined, 5))(logits, target)
    binary = LabelSetLoss(table, True, [1.0, 0.0, 0.0, 0.0], (2, 3, 4))(logits, target)
    torch.testing.assert_close(staged(logits, target), weight * with_joined + (1 - weight) * binary)


@pytest.mark.parametrize("label_sets", [[], [[0, 3]], [[0, 2, 3], [0, 3]]])
def test_a_staged_loss_starts_as_the_plain_one(label_sets: list[list[int]]) -> None:
    table = membership_table(4, label_sets)
    logits, target = _batch(4, codes=len(table))
    logits.requires_grad_()
    losses = StagedLoss(table, True, 1, None), LabelSetLoss(table, True)
    values = [loss(logits, target) for loss in losses]
    staged, plain = (torch.autograd.grad(value, logits)[0] for value in values)
    assert values[0] == values[1]
    assert torch.equal(staged, plain)


def test_a_binary_arm_has_one_loss_whatever_the_weight() -> None:
    logits, target = _batch(2)
    staged = StagedLoss(membership_table(2, []), True, 1, None)
    staged.joined, staged.weight = 0, 0.3
    calls: list[None] = []

    with register_module_forward_hook(
        lambda module, *_: calls.append(None) if isinstance(module, LabelSetLoss) else None
    ):
        loss = staged(logits, target)

    assert loss == LabelSetLoss(membership_table(2, []), True)(logits, target)
    assert len(calls) == 1


def _pull(loss: torch.nn.Module, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the gradient in each class's logit over the class's probability."""
    logits = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, target), logits)
    return gradient / logits.softmax(1)


def test_merged_supports_are_pulled_with_the_background_each_by_its_share() -> None:
    """The binary loss says nothing about how the background is divided."""
    logits, target = _batch(5, codes=6)
    staged = StagedLoss(membership_table(5, [[0, 4]]), True, 1, None)
    staged.joined = 1

    pull = _pull(staged, logits, target)
    torch.testing.assert_close(pull[:, 3:], pull[:, :1].expand(-1, 2, -1, -1, -1))
    assert ((pull[:, 2] - pull[:, 0]).abs() > 1e-6).all(), "the support that has joined"

    staged.joined = 0
    pull = _pull(staged, logits, target)
    torch.testing.assert_close(pull[:, 2:], pull[:, :1].expand(-1, 3, -1, -1, -1))
    outside = target[:, 0] != 1
    assert (pull[:, 0][outside] < 0).all()
    assert (pull[:, 1][outside] > 0).all()


def test_the_mask_of_a_support_is_not_seen_before_it_joins() -> None:
    logits, target = _batch(4)
    logits.requires_grad_()
    unseen = torch.where(target == 3, 0, target)
    staged = StagedLoss(membership_table(4, []), True, 1, None)
    for joined, same in ((1, True), (2, False)):
        staged.joined = joined
        losses = [staged(logits, each) for each in (target, unseen)]
        first, second = (torch.autograd.grad(loss, logits)[0] for loss in losses)
        assert torch.equal(first, second) is same
        assert (losses[0] == losses[1]).item() is same


# ---------------------------------------------------------------------- the share of the Dice term


@given(
    targets=st.integers(1, 4),
    supports=st.integers(0, 6),
    left_out=st.integers(0, 6),
    share=st.none() | st.floats(0.01, 1),
)
def test_dice_weights_are_shares(
    targets: int, supports: int, left_out: int, share: float | None
) -> None:
    weights = dice_weights(targets, supports, share, left_out)
    if weights is None:
        assert not left_out
        assert share is None or not supports
        return
    assert len(weights) == targets + supports + left_out
    assert sum(weights) == pytest.approx(1)
    expected = share if share and supports else targets / (targets + supports)
    assert sum(weights[:targets]) == pytest.approx(expected)
    assert weights[targets + supports :] == [0] * left_out
    assert len(set(weights[:targets])) == 1


def test_dice_does_not_pull_a_class_that_is_left_out() -> None:
    logits, target = _batch(5)
    dice = LabelSetDice(membership_table(5, []), True, dice_weights(1, 1, None, 2))
    pull = _pull(dice, logits, target[:, 0].long())
    torch.testing.assert_close(pull[:, 3:], pull[:, :1].expand(-1, 2, -1, -1, -1))
    for weighted in (1, 2):
        assert ((pull[:, weighted] - pull[:, 0]).abs() > 1e-7).all()


def test_the_whole_share_to_the_target_leaves_supports_to_cross_entropy() -> None:
    logits, target = _batch(4)
    staged = StagedLoss(membership_table(4, []), True, 1, 1.0)
    cross_entropy = functional.cross_entropy(logits, target[:, 0].long())
    two = torch.stack([logits[:, [0, 2, 3]].logsumexp(1), logits[:, 1]], 1)
    binary = functional.cross_entropy(two, (target[:, 0] == 1).long())
    dice = _nnunets_loss(True)(two, target == 1) - binary
    torch.testing.assert_close(staged(logits, target), cross_entropy + dice)
