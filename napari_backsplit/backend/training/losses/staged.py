"""The loss of a run: supports that join one after the other, and the spec's choice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_backsplit.backend.training.losses.label_set_loss import LabelSetLoss
from napari_backsplit.backend.training.losses.regions import dice_weights
from napari_backsplit.backend.training.losses.soft import SoftLoss
from napari_backsplit.backend.training.spec import RunSpec


def make_loss(
    spec: RunSpec, table: Tensor, batch_dice: bool, targets: int
) -> StagedLoss | SoftLoss:
    """Return the loss that a run minimises.

    Called with outputs (b, K, ...), codes (b, 1, ...) and, where the spec asks for them, the
    voxels' weights (b, 1, ...) or the classes' shares (b, K - 1, ...).

    Parameters
    ----------
    spec : RunSpec
        Its loss, labels, activation and target_dice_share.
    table : Tensor
        From `membership_table`.
    batch_dice : bool
        Sum regions over the batch before their ratio, as the plans say.
    targets : int
        Number of targets, classes 1..targets; the classes after them are supports.
    """
    if spec.labels != "soft":
        # {background, virtual}: no voxel is told that it is the virtual class, which has no Dice
        share = 1.0 if spec.arm == "virtual-set" else spec.target_dice_share
        return StagedLoss(table, batch_dice, targets, share, spec.loss)
    supports = table.shape[1] - 1 - targets
    weights = dice_weights(targets, supports, spec.target_dice_share)
    mean = torch.ones(targets + supports) if weights is None else torch.tensor(weights)
    return SoftLoss(spec.loss, spec.activation, mean / mean.sum(), batch_dice, supports)


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
    loss : str
        As for `LabelSetLoss`.
    """

    table: Tensor

    def __init__(
        self,
        table: Tensor,
        batch_dice: bool,
        targets: int,
        target_share: float | None,
        loss: str = "dice-ce",
    ) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self.batch_dice, self.targets, self.target_share = batch_dice, targets, target_share
        self.loss = loss
        self.supports = table.shape[1] - 1 - targets
        self.joined, self.weight = self.supports, 1.0
        self._losses: dict[int, LabelSetLoss] = {}

    def forward(self, logits: Tensor, target: Tensor, extra: Tensor | None = None) -> Tensor:
        """Return the loss; shapes as in `LabelSetLoss`."""
        loss: Tensor = self._loss(self.joined)(logits, target, extra)
        if self.weight == 1 or not self.joined:
            return loss
        binary: Tensor = self._loss(0)(logits, target, extra)
        return self.weight * loss + (1 - self.weight) * binary

    def _loss(self, joined: int) -> LabelSetLoss:
        """Return the loss of the first supports, made when it is first needed."""
        if joined not in self._losses:
            left_out = self.supports - joined
            weights = dice_weights(self.targets, joined, self.target_share, left_out)
            background = range(1 + self.targets + joined, self.table.shape[1])
            made = LabelSetLoss(
                self.table.cpu(), self.batch_dice, weights, background, self.loss, self.targets
            )
            self._losses[joined] = made.to(self.table.device)
        return self._losses[joined]
