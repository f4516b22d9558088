"""A loss of hard labels by its name: one or two terms over label sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_backsplit.backend.training.losses.label_sets import merge_into_background
from napari_backsplit.backend.training.losses.regions import (
    ASYMMETRY,
    GeneralisedDice,
    LabelSetDice,
)
from napari_backsplit.backend.training.losses.voxels import (
    CrossEntropy,
    FocalLoss,
    WeightedCrossEntropy,
)


@dataclass(frozen=True)
class Classes:
    """What a term needs to know: the codes, the classes that are background, and the policy."""

    table: Tensor
    batch_dice: bool
    class_weights: Sequence[float] | None
    background: Sequence[int]
    targets: int

    def dice(self, squared: bool = False, beta: float = 1.0) -> LabelSetDice:
        """Return the Dice term, or one of its relatives."""
        return LabelSetDice(
            self.table, self.batch_dice, self.class_weights, squared=squared, beta=beta
        )


TERMS: Mapping[str, Callable[[Classes], list[nn.Module]]] = {
    "dice-ce": lambda of: [of.dice(), CrossEntropy(of.table)],
    "dice": lambda of: [of.dice(squared=True)],
    "ce": lambda of: [CrossEntropy(of.table)],
    "focal": lambda of: [FocalLoss(of.table, of.targets)],
    "asymmetric": lambda of: [of.dice(beta=ASYMMETRY)],
    "weighted-ce": lambda of: [WeightedCrossEntropy(of.table)],
    "generalised-dice": lambda of: [GeneralisedDice(of.table, of.batch_dice, of.background)],
}
"""Name of a loss -> its terms, which are added. Dice + cross-entropy is nnU-Net's, with sum(p) in
Dice's denominator; Dice alone is the one of V-Net and of inverse weighting, with sum(p^2)."""


class LabelSetLoss(nn.Module):
    """A loss over label sets; by default Dice + cross-entropy with weight 1 each, as in nnU-Net.

    Parameters
    ----------
    table : Tensor
        From `membership_table`.
    batch_dice, class_weights
        As for `LabelSetDice`.
    background : sequence of int
        Supports that are part of the background for this loss. With all of them it is the binary
        loss of the targets, whatever the network's classes.
    loss : str
        One of `TERMS`.
    targets : int
        Number of targets, classes 1..targets.
    """

    code: Tensor

    def __init__(
        self,
        table: Tensor,
        batch_dice: bool,
        class_weights: Sequence[float] | None = None,
        background: Sequence[int] = (),
        loss: str = "dice-ce",
        targets: int = 1,
    ) -> None:
        super().__init__()
        table, code = merge_into_background(table, background)
        self.register_buffer("code", code, persistent=False)
        self.recodes = bool((code != torch.arange(len(code))).any())
        of = Classes(table, batch_dice, class_weights, tuple(background), targets)
        self.terms = nn.ModuleList(TERMS[loss](of))

    def forward(self, logits: Tensor, target: Tensor, extra: Tensor | None = None) -> Tensor:
        """Return the loss.

        Parameters
        ----------
        logits : Tensor
            (b, K, z, y, x) or (b, K, y, x); half precision is computed in float32.
        target : Tensor
            (b, 1, ...) codes, any integer or float dtype of whole numbers.
        extra : Tensor, optional
            (b, 1, ...) float32, the weight of each voxel.
        """
        codes = target[:, 0].long()
        codes = self.code[codes] if self.recodes else codes
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        weights = None if extra is None else extra[:, 0]
        terms = [term(logits, codes, weights) for term in self.terms]
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0]
