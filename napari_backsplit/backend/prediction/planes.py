"""Probabilities or shares, labels and the information gap: one output plane at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.prediction.resampling import Logits
from napari_backsplit.backend.prediction.settling import relative

Plane = NDArray[np.float32]


class Softmax:
    """The softmax over the classes of one plane, a class at a time.

    Parameters
    ----------
    logits : ndarray of float16 or float32, (K, y, x)
        On the image's grid.
    """

    def __init__(self, logits: Logits) -> None:
        self._logits = logits
        self._largest = logits[0].astype(np.float32)
        for values in logits[1:]:
            np.maximum(self._largest, values.astype(np.float32), out=self._largest)
        self._total = np.zeros_like(self._largest)
        for k in range(len(logits)):
            self._total += self._term(k)

    def _term(self, k: int) -> Plane:
        return relative(self._logits[k].astype(np.float32), self._largest)

    def of(self, k: int) -> Plane:
        """Return the probability of class k, (y, x)."""
        shares: Plane = self._term(k) / self._total
        return shares

    def gap(self, target: int) -> Plane:
        """Return the information gap, (y, x): (1 - eta_c) (1 - sum of pi_k^2).

        As `fusion.information.information_gap`, without holding all probabilities.
        """
        rest, squares = np.zeros_like(self._total), np.zeros_like(self._total)
        for k in range(len(self._logits)):
            if k != target:
                eta = self.of(k)
                rest += eta
                squares += eta * eta
        share = np.divide(squares, rest, out=np.zeros_like(rest), where=rest > 0)
        gap: Plane = np.maximum(rest - share, 0)
        return gap


def label_plane(logits: Logits) -> NDArray[np.intp]:
    """Return the first class with the largest value, (y, x)."""
    best, label = logits[0].astype(np.float32), np.zeros(logits.shape[1:], np.intp)
    for k in range(1, len(logits)):
        values = logits[k].astype(np.float32)
        better = values > best
        label[better] = k
        np.copyto(best, values, where=better)
    return label


def share_labels(shares: Logits, targets: int) -> NDArray[np.intp]:
    """Return the class of each place by its shares, where no support takes a target's place.

    Parameters
    ----------
    shares : ndarray of float, (K, ...)
        0.5 for the background, then each target's share, then each support's.
    targets : int
        How many targets there are.

    Returns
    -------
    ndarray of int, (...)
        The target that is more than half (of several the largest), else the support, else 0.
    """
    label = label_plane(shares[: 1 + targets])
    if len(shares) > 1 + targets:
        support = label_plane(np.concatenate([shares[:1], shares[1 + targets :]]))
        np.copyto(label, support + targets, where=(label == 0) & (support > 0))
    return label


def share(values: Logits) -> Plane:
    """Return shares as they are written; an average in half precision may round to beyond 1."""
    return np.clip(values.astype(np.float32), 0, 1)


class Maps:
    """The maps that were asked for beside the mask, filled plane by plane.

    Parameters
    ----------
    shape : tuple of int
        Of the whole image, in the network's order of axes.
    box : tuple of slice
        Where the crop lies in it.
    heads : sequence of int
        Classes of the targets.
    soft : int, optional
        Of a model of soft labels, whose outputs are shares: how many targets it has.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        box: tuple[slice, ...],
        heads: Sequence[int],
        soft: int | None = None,
    ) -> None:
        self._box, self._shape, self._heads, self._soft = box, shape, heads, soft
        self.labels: NDArray[np.unsignedinteger[Any]] | None = None
        self.probabilities: list[Plane] = []
        self.gap: Plane | None = None

    def add_labels(self, dtype: type[np.unsignedinteger[Any]]) -> None:
        """Ask for the map of all labels."""
        self.labels = np.zeros(self._shape, dtype)

    def add_probabilities(self) -> None:
        """Ask for the targets' probabilities; outside the crop all is background."""
        for head in self._heads:
            self.probabilities.append(np.full(self._shape, float(head == 0), np.float32))

    def add_gap(self) -> None:
        """Ask for the information gap of the first target."""
        self.gap = np.zeros(self._shape, np.float32)

    def __bool__(self) -> bool:
        return self.labels is not None or bool(self.probabilities) or self.gap is not None

    def decide(self, logits: Logits) -> NDArray[np.intp]:
        """Return the class of each place of a plane, (y, x)."""
        return label_plane(logits) if self._soft is None else share_labels(logits, self._soft)

    def fill(self, z: int, logits: Logits) -> None:
        """Fill plane z of the crop from its logits, (K, y, x)."""
        if self.labels is not None:
            self.labels[self._box][z] = self.decide(logits)
        if self._soft is not None:
            for head, volume in zip(self._heads, self.probabilities, strict=False):
                volume[self._box][z] = share(logits[head])
            return
        if not self.probabilities and self.gap is None:
            return
        softmax = Softmax(logits)
        for head, volume in zip(self._heads, self.probabilities, strict=False):
            volume[self._box][z] = softmax.of(head)
        if self.gap is not None:
            self.gap[self._box][z] = softmax.gap(self._heads[0])
