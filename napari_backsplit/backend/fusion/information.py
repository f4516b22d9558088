"""What a voxel would tell a network of its background, and a binary label does not.

BackSplit, Proposition 1: of a softmax with the probabilities eta and the target c, labels that
divide the background carry more Fisher information than binary ones do. The difference is
(1 - eta_c) J^T (Diag(pi) - pi pi^T) J, with pi_k = eta_k / (1 - eta_c) for k != c and pi_c = 0. In
the space of the logits (J = 1) its trace is (1 - eta_c) (1 - sum_k pi_k^2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError

Probabilities = NDArray[np.floating[Any]]

OFF = 0.01
"""How far from 1 the probabilities of a voxel may sum up; half precision stays far below."""


def information_gap(probabilities: Probabilities, target: int) -> NDArray[np.float32]:
    """Return the trace of the information gap in logit space, voxel by voxel.

    Parameters
    ----------
    probabilities : ndarray of float
        Softmax over all classes, (K, z, y, x) with K of 3 or more.
    target : int
        Class c of the target.

    Returns
    -------
    ndarray of float32
        (z, y, x), from 0 to 1 - 1 / (K - 1); 0 where the target is certain.

    Raises
    ------
    InputError
        K is 2, where the gap is zero for every model; `target` is no class; or the values are no
        probabilities.
    """
    check_classes(probabilities.shape, target)
    gap = np.empty(probabilities.shape[1:], np.float32)
    for z in range(len(gap)):
        gap[z] = class_shares(probabilities[:, z], target).sum(axis=0)
    return gap


def gap_shares(probabilities: Probabilities, target: int) -> NDArray[np.float32]:
    """Return each class's share of the information gap; the shares sum up to it.

    The share of class k is (1 - eta_c) pi_k (1 - pi_k), its entry on the diagonal of the gap.

    Parameters
    ----------
    probabilities, target
        As for `information_gap`.

    Returns
    -------
    ndarray of float32
        (K, z, y, x); 0 for the target.

    Raises
    ------
    InputError
        As `information_gap`.
    """
    check_classes(probabilities.shape, target)
    shares = np.empty(probabilities.shape, np.float32)
    for z in range(probabilities.shape[1]):
        shares[:, z] = class_shares(probabilities[:, z], target)
    return shares


def class_shares(values: Probabilities, target: int) -> Probabilities:
    """Return each class's share of the gap for some voxels, (K, ...), in the given precision.

    Raises
    ------
    InputError
        The values are no probabilities.
    """
    others = values.astype(np.result_type(values, np.float32))
    _check_values(others)
    others[target] = 0
    rest = others.sum(axis=0)
    pi = np.divide(others, rest, out=np.zeros_like(others), where=rest > 0)
    shares: Probabilities = others * np.maximum(1 - pi, 0)
    return shares


def check_classes(shape: tuple[int, ...], target: int) -> None:
    """Refuse an array of which the gap says nothing.

    Raises
    ------
    InputError
        As `information_gap`.
    """
    if len(shape) != 4:
        raise InputError(
            f"The probabilities have shape {shape}.", "Give an array (K, z, y, x) of all classes."
        )
    if not 0 <= target < shape[0]:
        raise InputError(
            f"There is no class {target} among {shape[0]}.", "Count the classes from 0."
        )
    if shape[0] < 3:
        raise InputError(
            f"The model has {shape[0]} classes: with two the information gap is zero for every "
            "model (BackSplit, Proposition 1).",
            "Give the probabilities of a model that was trained with supports.",
        )


def _check_values(values: Probabilities) -> None:
    low = float(values.min(initial=0))
    off = float(np.abs(values.sum(axis=0) - 1).max(initial=0))
    if not (low >= 0 and off <= OFF):  # not a number is neither
        raise InputError(
            f"The values are no probabilities: the lowest is {low:.3g}, and those of a voxel miss "
            f"1 by up to {off:.3g}.",
            "Give the softmax over all classes, the background included.",
        )
