"""Dice + cross-entropy over label sets: one loss for fully and for partially labelled voxels.

A voxel's code is either a class 0..K-1 or a set code K, K+1, ... that stands for "one of these
classes" (a case without some supports: its remaining background is background *or* a missing
support). The likelihood of a set is the sum of its members' probabilities (marginal loss; Shi et
al. 2021, doi 10.1016/j.media.2021.101979), so no voxel is ever told a false "background". Without
set codes the loss is nnU-Net's own Dice + cross-entropy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def membership_table(classes: int, label_sets: Sequence[Sequence[int]]) -> Tensor:
    """Return which classes each code may stand for.

    Parameters
    ----------
    classes : int
        K, the number of classes with the background.
    label_sets : sequence of sequences of int
        The classes of code K, K + 1, ... in this order.

    Returns
    -------
    Tensor
        bool, (K + number of sets, K); row c < K holds c alone.

    Raises
    ------
    ValueError
        A set is empty or names a class outside 0..K-1.
    """
    table = torch.zeros(classes + len(label_sets), classes, dtype=torch.bool)
    table[:classes] = torch.eye(classes, dtype=torch.bool)
    for row, members in zip(table[classes:], label_sets, strict=True):
        if not members or min(members) < 0 or max(members) >= classes:
            raise ValueError(f"label set {list(members)} is not a set of classes 0..{classes - 1}")
        row[list(members)] = True
    return table


def label_set_cross_entropy(logits: Tensor, codes: Tensor, table: Tensor) -> Tensor:
    """Return the mean of -log p(set) over voxels.

    -log p(S) = logsumexp(z) - logsumexp(z over S). With S = all but one class this is the binary
    cross-entropy of that class; with one member it is the ordinary cross-entropy.

    Parameters
    ----------
    logits : Tensor
        (b, K, ...), float.
    codes : Tensor
        (b, ...), integer codes.
    table : Tensor
        From `membership_table`.
    """
    classes = logits.shape[1]
    present = [code for code in range(classes, len(table)) if bool((codes == code).any())]
    if not present:
        return functional.cross_entropy(logits, codes.long())
    log_p = logits.log_softmax(1)
    certain = codes.masked_fill(codes >= classes, 0).long()
    likelihood = log_p.gather(1, certain[:, None])[:, 0]
    for code in present:
        inside = log_p[:, table[code]].logsumexp(1)
        likelihood = torch.where(codes == code, inside, likelihood)
    return -likelihood.mean()


class LabelSetDice(nn.Module):
    """Soft Dice over the foreground classes, each where its membership is known.

    A class is unknown in a voxel whose set holds it beside other classes. Targets are in no such
    set, so they count everywhere. Equal to nnU-Net's MemoryEfficientSoftDiceLoss (do_bg=False)
    when every voxel is fully labelled and `class_weights` is None.

    Parameters
    ----------
    table : Tensor
        From `membership_table`.
    batch_dice : bool
        Sum over the batch before the ratio, as nnU-Net's plans ask.
    class_weights : sequence of float, optional
        Weight of each foreground class 1..K-1 in the mean; None: the plain mean.
    smooth : float
        Added to numerator and denominator.
    """

    weights: Tensor

    def __init__(
        self,
        table: Tensor,
        batch_dice: bool,
        class_weights: Sequence[float] | None = None,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__()
        classes = table.shape[1]
        weights = torch.ones(classes - 1) if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("weights", weights / weights.sum(), persistent=False)
        self.classes = classes
        self.unknown_where = {
            label: [code for code in range(classes, len(table)) if table[code, label]]
            for label in range(1, classes)
        }
        self.batch_dice = batch_dice
        self.smooth = smooth

    def forward(self, logits: Tensor, codes: Tensor) -> Tensor:
        """Return minus the weighted mean Dice; shapes as in `label_set_cross_entropy`."""
        space = tuple(range(2, logits.ndim))
        prediction = logits.softmax(1)[:, 1:]
        with torch.no_grad():
            partial = codes >= self.classes
            certain = codes.masked_fill(partial, 0).long()
            reference = torch.zeros(logits.shape, device=logits.device)
            reference = reference.scatter_(1, certain[:, None], 1)[:, 1:]
            reference_sum = reference.sum(space)
        intersection = (prediction * reference).sum(space, dtype=torch.float32)
        prediction_sum = prediction.sum(space, dtype=torch.float32)
        if bool(partial.any()):
            prediction_sum = self._where_known(prediction, prediction_sum, codes)
        if self.batch_dice:
            intersection, prediction_sum, reference_sum = (
                total.sum(0) for total in (intersection, prediction_sum, reference_sum)
            )
        denominator = (reference_sum + prediction_sum + self.smooth).clamp_min(1e-8)
        dice = (2 * intersection + self.smooth) / denominator
        return -(dice * self.weights).sum(-1).mean()

    def _where_known(self, prediction: Tensor, total: Tensor, codes: Tensor) -> Tensor:
        """Leave out of the sums (b, K - 1) the voxels in which a class may or may not be.

        The reference is 0 in those voxels, so the intersection needs no such care.
        """
        total = total.clone()
        for label, unknown in self.unknown_where.items():
            if unknown:
                known = ~torch.isin(codes, torch.tensor(unknown, device=codes.device))
                total[:, label - 1] = (prediction[:, label - 1] * known).flatten(1).sum(1)
        return total


class LabelSetLoss(nn.Module):
    """Dice + cross-entropy with weight 1 each, as nnU-Net's DC_and_CE_loss, over label sets.

    Parameters
    ----------
    table : Tensor
        From `membership_table`.
    batch_dice, class_weights
        As for `LabelSetDice`.
    background : sequence of int
        Supports that are part of the background for this loss. With all of them it is the binary
        loss of the targets, whatever the network's classes.
    """

    table: Tensor
    code: Tensor

    def __init__(
        self,
        table: Tensor,
        batch_dice: bool,
        class_weights: Sequence[float] | None = None,
        background: Sequence[int] = (),
    ) -> None:
        super().__init__()
        table, code = merge_into_background(table, background)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("code", code, persistent=False)
        self.recodes = bool((code != torch.arange(len(code))).any())
        self.dice = LabelSetDice(table, batch_dice, class_weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Parameters
        ----------
        logits : Tensor
            (b, K, z, y, x) or (b, K, y, x).
        target : Tensor
            (b, 1, ...) codes, any integer or float dtype of whole numbers.
        """
        codes = target[:, 0].long()
        codes = self.code[codes] if self.recodes else codes
        logits = logits.float()
        dice: Tensor = self.dice(logits, codes)
        return dice + label_set_cross_entropy(logits, codes, self.table)


class StagedLoss(nn.Module):
    """A `LabelSetLoss` whose supports join one after the other and may lose weight.

    The loss is w L + (1 - w) L0: L with the joined supports as classes and the others in the
    background, L0 with all of them in the background, which is the targets' binary loss.

    Parameters
    ----------
    table : Tensor
        From `membership_table`.
    batch_dice : bool
        As for `LabelSetDice`.
    targets : int
        Number of targets, classes 1..targets; the classes after them are supports.
    target_share : float or None
        As for `dice_weights`.
    """

    table: Tensor

    def __init__(
        self, table: Tensor, batch_dice: bool, targets: int, target_share: float | None
    ) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self.batch_dice, self.targets, self.target_share = batch_dice, targets, target_share
        self.supports = table.shape[1] - 1 - targets
        self.joined, self.weight = self.supports, 1.0
        self._losses: dict[int, LabelSetLoss] = {}

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss; shapes as in `LabelSetLoss`."""
        loss: Tensor = self._loss(self.joined)(logits, target)
        if self.weight == 1 or not self.joined:
            return loss
        binary: Tensor = self._loss(0)(logits, target)
        return self.weight * loss + (1 - self.weight) * binary

    def _loss(self, joined: int) -> LabelSetLoss:
        """Return the loss of the first supports, made when it is first needed."""
        if joined not in self._losses:
            left_out = self.supports - joined
            weights = dice_weights(self.targets, joined, self.target_share, left_out)
            background = range(1 + self.targets + joined, self.table.shape[1])
            made = LabelSetLoss(self.table.cpu(), self.batch_dice, weights, background)
            self._losses[joined] = made.to(self.table.device)
        return self._losses[joined]


def merge_into_background(table: Tensor, supports: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Make supports part of the background: a voxel of either may be any of them.

    Parameters
    ----------
    table : Tensor
        From `membership_table`, (codes, K).
    supports : sequence of int
        Classes.

    Returns
    -------
    table : Tensor
        The new table, whose first K rows are the single classes.
    code : Tensor
        int64, (codes,): the code of the new table for each of the old one.
    """
    classes = table.shape[1]
    merged = torch.zeros(classes, dtype=torch.bool)
    merged[[0, *supports]] = True
    rows = torch.where((table & merged).any(1, keepdim=True), table | merged, table)
    single = rows.sum(1) == 1
    sets, number = torch.unique(rows[~single], dim=0, return_inverse=True)
    code = rows.int().argmax(1)
    code[~single] = classes + number
    return torch.cat([torch.eye(classes, dtype=torch.bool), sets]), code


def dice_weights(
    targets: int, supports: int, target_share: float | None, left_out: int = 0
) -> list[float] | None:
    """Return the weight of each foreground class in the Dice term.

    Parameters
    ----------
    targets, supports : int
        How many classes of each kind; targets come first.
    target_share : float or None
        The targets' share of the term, 0..1; None: a plain mean over classes, as in nnU-Net and
        the BackSplit paper, in which the targets' share falls to targets / (K - 1).
    left_out : int
        How many classes after these have no weight.
    """
    if target_share is None or not supports:
        target_share = targets / (targets + supports)
        if not left_out:
            return None
    weights = [target_share / targets] * targets
    weights += [(1 - target_share) / supports] * supports if supports else []
    return weights + [0.0] * left_out
