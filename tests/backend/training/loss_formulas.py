"""The losses, written out voxel by voxel in double precision from their formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SMOOTH = 1e-5


@dataclass(frozen=True)
class Batch:
    """Outputs and codes of a batch, and the policy of its loss."""

    logits: Array
    codes: Array
    sets: list[list[int]]
    weights: Array | None = None
    batch_dice: bool = True
    targets: int = 1
    share: float | None = None
    joined: int = 2

    @property
    def kept(self) -> int:
        """Number of classes of their own, with the background; the others are background."""
        return 1 + self.targets + self.joined

    def meaning(self, code: int) -> frozenset[int]:
        """Return what a voxel's code may stand for."""
        classes = self.logits.shape[1]
        members = [code] if code < classes else self.sets[code - classes]
        return frozenset(label if label < self.kept else 0 for label in members)

    def voxels(self) -> list[tuple[int, frozenset[int], list[float], float]]:
        """Return sample, meaning, probability of each class and weight of each voxel."""
        found = []
        for sample, *at in np.ndindex(self.codes.shape):
            z = self.logits[(sample, slice(None), *at)]
            total = sum(exp(each) for each in z)
            p = [0.0] * self.kept
            for label, each in enumerate(z):
                p[label if label < self.kept else 0] += exp(each) / total
            where = (sample, *at)
            weight = 1.0 if self.weights is None else float(self.weights[where])
            found.append((sample, self.meaning(int(self.codes[where])), p, weight))
        return found

    def class_weights(self) -> list[float]:
        if not self.joined:
            return [1 / self.targets] * self.targets
        count = self.targets + self.joined
        share = self.targets / count if self.share is None else self.share
        return [share / self.targets] * self.targets + [(1 - share) / self.joined] * self.joined


def cross_entropy(batch: Batch) -> float:
    terms = [-w * log(sum(p[k] for k in told)) for _, told, p, w in batch.voxels()]
    return sum(terms) / len(terms)


def focal(batch: Batch) -> float:
    terms = []
    for _, told, p, w in batch.voxels():
        right = sum(p[k] for k in told)
        balance = 0.75 if all(1 <= k <= batch.targets for k in told) else 0.25
        terms.append(-w * balance * (1 - right) ** 2 * log(right))
    return sum(terms) / len(terms)


def weighted_cross_entropy(batch: Batch) -> float:
    voxels = batch.voxels()
    counted = [min(told) for _, told, _, _ in voxels]
    frequent = [len(voxels) / (len(set(counted)) * counted.count(k)) for k in counted]
    terms = [
        -f * log(sum(p[k] for k in told))
        for f, (_, told, p, _) in zip(frequent, voxels, strict=True)
    ]
    return sum(terms) / len(terms)


def sums(batch: Batch, squared: bool) -> list[list[tuple[float, float, float]]]:
    """Return, by group of samples and class, sum(w p y), sum(w p) or sum(w p^2), and sum(w y)."""
    groups = 1 if batch.batch_dice else len(batch.codes)
    found = [[(0.0, 0.0, 0.0)] * batch.kept for _ in range(groups)]
    for sample, told, p, w in batch.voxels():
        for k in range(batch.kept):
            if k in told and len(told) > 1:
                continue  # unknown
            y, row = float(told == {k}), found[0 if batch.batch_dice else sample]
            inside, predicted, reference = row[k]
            predicted += w * (p[k] ** 2 if squared else p[k])
            row[k] = (inside + w * p[k] * y, predicted, reference + w * y)
    return found


def region(batch: Batch, squared: bool = False, beta: float = 1.0) -> float:
    scores = []
    for row in sums(batch, squared):
        score = 0.0
        for weight, (tp, predicted, reference) in zip(batch.class_weights(), row[1:], strict=True):
            fn, fp = reference - tp, predicted - tp
            below = (1 + beta**2) * tp + beta**2 * fn + fp
            score += weight * ((1 + beta**2) * tp + SMOOTH) / (below + SMOOTH)
        scores.append(score)
    return -sum(scores) / len(scores)


def generalised_dice(batch: Batch) -> float:
    scores = []
    for row in sums(batch, squared=False):
        volumes = [reference for _, _, reference in row]
        there = [v for v in volumes if v]
        least = min(there, default=1.0)
        weights = [(least / v) ** 2 if v else 1.0 for v in volumes]
        above = sum(v * tp for v, (tp, _, _) in zip(weights, row, strict=True))
        below = sum(v * (p + y) for v, (_, p, y) in zip(weights, row, strict=True))
        scores.append((2 * above + SMOOTH) / (below + SMOOTH))
    return -sum(scores) / len(scores)


FORMULAS: dict[str, Callable[[Batch], float]] = {
    "dice-ce": lambda batch: region(batch) + cross_entropy(batch),
    "dice": lambda batch: region(batch, squared=True),
    "ce": cross_entropy,
    "focal": focal,
    "asymmetric": lambda batch: region(batch, beta=1.5),
    "weighted-ce": weighted_cross_entropy,
    "generalised-dice": generalised_dice,
}
