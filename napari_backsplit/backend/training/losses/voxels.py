"""Losses that are a mean over voxels: cross-entropy, its class-weighted form, and focal loss.

Where a voxel's code is a set, its probability is p(set), the sum of its members' (`label_sets`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_backsplit.backend.training.losses.label_sets import set_log_likelihood, sets_present

FOCAL_ALPHA = 0.75
"""Share of the targets in the focal loss (Shirokikh et al. 2020)."""

FOCAL_GAMMA = 2.0
"""How fast the focal loss forgets a voxel that is right (Lin et al. 2017)."""


def label_set_cross_entropy(
    logits: Tensor, codes: Tensor, table: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Return the mean of -w log p(set) over voxels.

    -log p(S) = logsumexp(z) - logsumexp(z over S). With S = all but one class this is the binary
    cross-entropy of that class; with one member it is the ordinary cross-entropy. The mean is the
    sum over the number of voxels, not over that of weights, as in Shirokikh et al. 2020.

    Parameters
    ----------
    logits : Tensor
        (b, K, ...), float.
    codes : Tensor
        (b, ...), integer codes.
    table : Tensor
        From `membership_table`.
    weights : Tensor, optional
        (b, ...), w of each voxel; None: 1.
    """
    if weights is None and not sets_present(codes, table):
        return functional.cross_entropy(logits, codes.long())
    loss = -set_log_likelihood(logits, codes, table)
    return loss.mean() if weights is None else (loss * weights).mean()


class CrossEntropy(nn.Module):
    """Cross-entropy over label sets; see `label_set_cross_entropy`."""

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)

    def forward(self, logits: Tensor, codes: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the loss; shapes as in `label_set_cross_entropy`."""
        return label_set_cross_entropy(logits, codes, self.table, weights)


class WeightedCrossEntropy(nn.Module):
    """Cross-entropy in which each class of the batch weighs the same: w = N / (M n).

    N is the number of voxels in the batch, n that of the voxel's class and M how many classes the
    batch has, so that the weights' mean is 1. With two classes the ratio of the weights is that of
    Sudre et al. 2017 (doi 10.1007/978-3-319-67558-9_28), (N - n) / n for the target and 1 for the
    background, with the reference's volume for the predicted one.

    Extended to label sets: a voxel counts with the first class of its set, which is the background
    wherever that is a member. Takes no weights of voxels.
    """

    table: Tensor
    counted_as: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("counted_as", table.int().argmax(1), persistent=False)

    def forward(self, logits: Tensor, codes: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the loss; shapes as in `label_set_cross_entropy`."""
        classes = self.counted_as[codes]
        counts = torch.bincount(classes.flatten(), minlength=self.table.shape[1])
        weight = classes.numel() / ((counts > 0).sum() * counts.clamp_min(1))
        return label_set_cross_entropy(logits, codes, self.table, weight.to(logits)[classes])


class FocalLoss(nn.Module):
    """Focal loss: the mean of -a (1 - p)^gamma log p (Lin et al. 2017, eq. 5, arXiv 1708.02002).

    The original is binary: a = alpha for the target, 1 - alpha for the background, and p the
    probability of the voxel's own class. Extended to K classes: a = alpha for each target and
    1 - alpha for the background, for each support and for a set of these; p is p(class) or p(set).
    With K = 2 it is the original.

    Parameters
    ----------
    table : Tensor
        From `membership_table`.
    targets : int
        Number of targets, classes 1..targets.
    alpha, gamma : float
        alpha = 0.75 as in Shirokikh et al. 2020; gamma = 2.
    """

    table: Tensor
    balance: Tensor

    def __init__(
        self, table: Tensor, targets: int, alpha: float = FOCAL_ALPHA, gamma: float = FOCAL_GAMMA
    ) -> None:
        super().__init__()
        others = torch.ones(table.shape[1], dtype=torch.bool)
        others[1 : targets + 1] = False
        balance = torch.where((table & others).any(1), 1 - alpha, alpha)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("balance", balance, persistent=False)
        self.gamma = gamma

    def forward(self, logits: Tensor, codes: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the loss; shapes as in `label_set_cross_entropy`."""
        log_p = set_log_likelihood(logits, codes, self.table)
        wrong = -torch.expm1(log_p)
        loss = -self.balance[codes] * wrong.clamp_min(0) ** self.gamma * log_p
        return loss.mean() if weights is None else (loss * weights).mean()
