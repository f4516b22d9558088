"""SoftSeg: how much of a voxel is the target, learnt by regression (Gros et al. 2021).

doi 10.1016/j.media.2021.102038. Outputs (b, K, ...) keep the channel of the background, which
nothing trains, so that a network looks as any other: channels 1..K-1 are the classes' shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_backsplit.backend.training.losses.regions import mean_overlap

OMEGA, THETA, EPSILON, ALPHA = 8.0, 0.5, 1.0, 2.1
"""Adaptive wing as in SoftSeg."""

FLAT = 1e-6
"""A channel whose maximum is below this is not stretched to 1."""

DECISION = 0.5
"""A voxel is of a class where the class has more than this share of it."""


def normalised_relu(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Return relu(x) / max(relu(x)), 0 where the maximum is 0 (Gros et al. 2021, section 2.2).

    Parameters
    ----------
    x : Tensor
        Float, of any shape.
    axes : sequence of int
        Axes over which the maximum is taken: those of space, so that each sample and each channel
        has its own.

    Returns
    -------
    Tensor
        As x, in 0..1. Gradients are finite everywhere: the maximum counts as at least 1e-6.
    """
    positive = x.relu()
    return positive / positive.amax(tuple(axes), keepdim=True).clamp_min(FLAT)


def adaptive_wing(
    prediction: Tensor,
    reference: Tensor,
    omega: float = OMEGA,
    theta: float = THETA,
    epsilon: float = EPSILON,
    alpha: float = ALPHA,
) -> Tensor:
    """Return the adaptive wing loss of each voxel (Wang et al. 2019, eq. 3, arXiv 1904.07399).

    With d = |y - p|:

        omega ln(1 + (d / epsilon)^(alpha - y))   where d < theta,
        A d - C                                   elsewhere,
        A = omega (alpha - y) (theta / epsilon)^(alpha - y - 1) / epsilon
            / (1 + (theta / epsilon)^(alpha - y)),
        C = theta A - omega ln(1 + (theta / epsilon)^(alpha - y)),

    so that value and slope agree at theta. Computed as
    omega ln(1 + (min(d, theta) / epsilon)^(alpha - y)) + A max(d - theta, 0), which is the same.

    Parameters
    ----------
    prediction, reference : Tensor
        p and y, shares in 0..1, of one shape. No gradient goes to y.
    omega, theta, epsilon, alpha : float
        SoftSeg's are 8, 0.5, 1 and 2.1.
    """
    distance = (reference - prediction).abs()
    power = alpha - reference
    edge = torch.exp(power * math.log(theta / epsilon))
    slope = omega * power * edge / (1 + edge) / theta
    near = omega * torch.log1p((distance.clamp_max(theta) / epsilon) ** power)
    return near + slope * (distance - theta).relu()


def shares(outputs: Tensor, activation: str) -> Tensor:
    """Return how much of each voxel is of each class.

    Parameters
    ----------
    outputs : Tensor
        (b, K, ...) of a network; the background's channel is left out.
    activation : {"sigmoid", "normalised-relu"}
        RunSpec.activation.

    Returns
    -------
    Tensor
        (b, K - 1, ...), float32 (float64 for float64), in 0..1.

    Raises
    ------
    ValueError
        There is no such activation for shares.
    """
    outputs = outputs[:, 1:].to(torch.promote_types(outputs.dtype, torch.float32))
    if activation == "sigmoid":
        return outputs.sigmoid()
    if activation == "normalised-relu":
        return normalised_relu(outputs, range(2, outputs.ndim))
    raise ValueError(f"the activation {activation} makes no shares: sigmoid or normalised-relu")


def deciding(outputs: Tensor, activation: str, targets: int | None = None) -> Tensor:
    """Return 0.5 for the background and the shares: their argmax (b, ...) is the decision.

    A voxel is of the class with the greatest share, where that is above 0.5. With `targets`, the
    number of classes after the background that are targets, no support takes a voxel from them,
    as in a prediction: where one is above 0.5 the supports are 0. Other parameters as for
    `shares`; the result is (b, K, ...).
    """
    found = shares(outputs, activation)
    if targets is not None:
        taken = (found[:, :targets] > DECISION).any(1, keepdim=True)
        found = torch.cat([found[:, :targets], found[:, targets:].masked_fill(taken, 0)], 1)
    return torch.cat([torch.full_like(found[:, :1], DECISION), found], 1)


def soft_dice(prediction: Tensor, reference: Tensor, weights: Tensor, batch_dice: bool) -> Tensor:
    """Return minus the mean over classes of 2 sum(p y) / sum(p^2 + y^2).

    The squares (Milletari et al. 2016) make p = y its one minimum whatever y is; with plain sums
    a voxel of which half is the target would be pushed to 1.

    Parameters
    ----------
    prediction, reference : Tensor
        (b, K - 1, ...), shares.
    weights : Tensor
        (K - 1,), of classes in the mean.
    batch_dice : bool
        Sum over the batch before the ratio.
    """
    space = tuple(range(2, prediction.ndim))
    sums = ((prediction * reference).sum(space), (prediction**2).sum(space),
            (reference**2).sum(space))  # fmt: skip
    return mean_overlap(sums, weights, batch_dice)


class SoftLoss(nn.Module):
    """Regression of shares: the mean adaptive wing loss, or soft Dice.

    Gros et al. have one class; here voxels and classes are averaged alike for adaptive wing, and
    Dice is a mean over classes. Supports are all there from the start: `joined` and `weight` are
    kept for the trainer alone.

    Parameters
    ----------
    loss : {"adaptive-wing", "dice"}
    activation : {"sigmoid", "normalised-relu"}
    class_weights : Tensor
        (K - 1,), as for `soft_dice`; they sum to 1.
    batch_dice : bool
        As for `soft_dice`.
    supports : int
        How many of the classes are supports.
    """

    weights: Tensor

    def __init__(
        self, loss: str, activation: str, class_weights: Tensor, batch_dice: bool, supports: int
    ) -> None:
        super().__init__()
        self.register_buffer("weights", class_weights, persistent=False)
        self.loss, self.activation, self.batch_dice = loss, activation, batch_dice
        self.supports = self.joined = supports
        self.weight = 1.0

    def forward(self, logits: Tensor, target: Tensor, extra: Tensor | None = None) -> Tensor:
        """Return the loss.

        Parameters
        ----------
        logits : Tensor
            (b, K, ...), outputs before the activation.
        target : Tensor
            Not used: codes do not know shares.
        extra : Tensor
            (b, K - 1, ...), the reference's shares of classes 1..K-1, in 0..1.

        Raises
        ------
        ValueError
            There are no shares.
        """
        if extra is None:
            raise ValueError("soft labels are trained from shares, and the batch has none")
        found = shares(logits, self.activation)
        reference = extra.to(found.dtype)
        if self.loss == "dice":
            return soft_dice(found, reference, self.weights, self.batch_dice)
        return adaptive_wing(found, reference).mean()
