"""Losses of whole regions: Dice, asymmetric similarity, generalised Dice.

They are minus the score, as in nnU-Net; the papers' 1 - score has the same gradients. A class is
left out of the sums in voxels whose set holds it beside other classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

SMOOTH = 1e-5
"""Added to numerators and denominators, as in nnU-Net."""

ASYMMETRY = 1.5
"""beta of the asymmetric similarity loss (Shirokikh et al. 2020)."""


def overlap(
    intersection: Tensor,
    prediction: Tensor,
    reference: Tensor,
    beta: float = 1.0,
    smooth: float = SMOOTH,
) -> Tensor:
    """Return F_beta of regions from their sums; with beta = 1 it is Dice.

    F = (1 + beta^2) TP / ((1 + beta^2) TP + beta^2 FN + FP), whose denominator is
    beta^2 reference + prediction (Hashemi et al. 2018, eq. 3, doi 10.1109/ACCESS.2018.2886371).

    Parameters
    ----------
    intersection, prediction, reference : Tensor
        Sums over voxels of p y, of p and of y.
    beta : float
        Above 1 a missed voxel costs more than a false one.
    smooth : float
        Added above and below.
    """
    denominator = (beta**2 * reference + prediction + smooth).clamp_min(1e-8)
    return ((1 + beta**2) * intersection + smooth) / denominator


class LabelSetDice(nn.Module):
    """Soft Dice over the foreground classes, each where its membership is known.

    A class is unknown in a voxel whose set holds it beside other classes. Targets are in no such
    set, so they count everywhere. Equal to nnU-Net's MemoryEfficientSoftDiceLoss (do_bg=False)
    when every voxel is fully labelled and `class_weights` is None.

    Weights of voxels multiply every summand: sum(w p y), sum(w p) and sum(w y) (Shirokikh et al.
    2020). That paper is binary; here it is a mean over the foreground classes.

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
    squared : bool
        sum(p^2) for sum(p), as in V-Net (Milletari et al. 2016) and Shirokikh et al. 2020.
    beta : float
        As for `overlap`: 1.5 makes it the asymmetric similarity loss.
    """

    weights: Tensor

    def __init__(
        self,
        table: Tensor,
        batch_dice: bool,
        class_weights: Sequence[float] | None = None,
        smooth: float = SMOOTH,
        squared: bool = False,
        beta: float = 1.0,
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
        self.batch_dice, self.smooth, self.squared, self.beta = batch_dice, smooth, squared, beta

    def forward(self, logits: Tensor, codes: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return minus the weighted mean Dice; shapes as in `label_set_cross_entropy`."""
        space, total = tuple(range(2, logits.ndim)), sum_type(logits)
        prediction = logits.softmax(1)[:, 1:]
        with torch.no_grad():
            partial = codes >= self.classes
            certain = codes.masked_fill(partial, 0).long()
            reference = torch.zeros(logits.shape, device=logits.device, dtype=total)
            reference = reference.scatter_(1, certain[:, None], 1)[:, 1:]
            if weights is not None:
                reference = reference * weights[:, None]
            reference_sum = reference.sum(space)
        intersection = (prediction * reference).sum(space, dtype=total)
        counted = prediction**2 if self.squared else prediction
        if weights is not None:
            counted = counted * weights[:, None]
        prediction_sum = counted.sum(space, dtype=total)
        if bool(partial.any()):
            prediction_sum = self._where_known(counted, prediction_sum, codes)
        sums = (intersection, prediction_sum, reference_sum)
        return mean_overlap(sums, self.weights, self.batch_dice, self.beta, self.smooth)

    def _where_known(self, counted: Tensor, total: Tensor, codes: Tensor) -> Tensor:
        """Leave out of the sums (b, K - 1) the voxels in which a class may or may not be.

        The reference is 0 in those voxels, so the intersection needs no such care.
        """
        total = total.clone()
        for label, unknown in self.unknown_where.items():
            if unknown:
                known = ~torch.isin(codes, torch.tensor(unknown, device=codes.device))
                total[:, label - 1] = (counted[:, label - 1] * known).flatten(1).sum(1)
        return total


def mean_overlap(
    sums: tuple[Tensor, Tensor, Tensor],
    weights: Tensor,
    batch_dice: bool,
    beta: float = 1.0,
    smooth: float = SMOOTH,
) -> Tensor:
    """Return minus the weighted mean over classes of `overlap`, from its sums (b, K - 1)."""
    if batch_dice:
        intersection, prediction, reference = (total.sum(0) for total in sums)
    else:
        intersection, prediction, reference = sums
    score = overlap(intersection, prediction, reference, beta, smooth)
    return -(score * weights).sum(-1).mean()


def sum_type(logits: Tensor) -> torch.dtype:
    """Return the type to sum in: float32, or float64 for float64."""
    return torch.promote_types(logits.dtype, torch.float32)


class GeneralisedDice(nn.Module):
    """Generalised Dice of all classes, the background too, each with weight 1 / volume^2.

    2 sum_l v_l sum(y p) / sum_l v_l sum(y + p) with v_l = 1 / (sum y)^2 (Sudre et al. 2017, doi
    10.1007/978-3-319-67558-9_28). v is scaled to at most 1, which changes nothing. A class without
    a voxel would weigh infinitely much: it weighs as much as the smallest one that is there.

    Extended to label sets: a class is left out of the sums where it may or may not be. Supports
    that are part of the background are one class with it. Takes no weights of voxels.

    Parameters
    ----------
    table : Tensor
        From `membership_table`.
    batch_dice : bool
        Sum over the batch before the ratio.
    background : sequence of int
        Supports that are part of the background.
    """

    reference: Tensor
    known: Tensor

    def __init__(self, table: Tensor, batch_dice: bool, background: Sequence[int] = ()) -> None:
        super().__init__()
        self.merged = [0, *background]
        self.kept = [label for label in range(table.shape[1]) if label not in self.merged]
        rows = torch.cat([table[:, self.merged].any(1, keepdim=True), table[:, self.kept]], 1)
        certain = rows.sum(1, keepdim=True) == 1
        self.register_buffer("reference", rows & certain, persistent=False)
        self.register_buffer("known", ~rows | certain, persistent=False)
        self.batch_dice = batch_dice

    def forward(self, logits: Tensor, codes: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return minus the score; shapes as in `label_set_cross_entropy`."""
        p = logits.softmax(1)
        prediction = torch.cat([p[:, self.merged].sum(1, keepdim=True), p[:, self.kept]], 1)
        reference = self.reference[codes].movedim(-1, 1).to(p.dtype)
        known = self.known[codes].movedim(-1, 1)
        space = tuple(range(2, logits.ndim))
        sums = [(prediction * each).sum(space) for each in (reference, known)]
        sums.append(reference.sum(space))
        inside, predicted, volume = (s.sum(0) for s in sums) if self.batch_dice else sums
        weight = inverse_square(volume)
        inside, predicted, volume = ((weight * s).sum(-1) for s in (inside, predicted, volume))
        score = overlap(inside, predicted, volume)
        return -score.mean()


def inverse_square(volume: Tensor) -> Tensor:
    """Return (least / volume)^2 with the least volume above 0; 1 where a volume is 0."""
    there = volume > 0
    least = volume.masked_fill(~there, torch.inf).amin(-1, keepdim=True)
    return torch.where(there, (least / volume.clamp_min(1)) ** 2, 1.0)


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
