"""What a validation batch says: voxels found and missed, class by class. Worker only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def class_counts(
    logits: Tensor, codes: Tensor, label_sets: Sequence[Sequence[int]] = ()
) -> dict[str, Any]:
    """Count true positive, false positive and false negative voxels of each foreground class.

    Parameters
    ----------
    logits : Tensor
        (b, K, ...) logits, or other scores; the prediction is the argmax.
    codes : Tensor
        (b, ...) reference codes.
    label_sets : sequence of sequences of int
        Classes of code K, K + 1, ...; a class is not counted in voxels that may hold it.

    Returns
    -------
    dict
        tp, fp, fn: int64 arrays (K - 1,).
    """
    classes, sets = logits.shape[1], len(label_sets)
    pairs = codes.long().clamp(min=0) * classes + logits.argmax(1)
    voxels = torch.bincount(pairs.flatten(), minlength=(classes + sets) * classes)
    table = voxels.cpu().numpy().reshape(classes + sets, classes)  # of code and prediction
    known = np.ones_like(table, dtype=bool)
    for row, members in enumerate(label_sets, classes):
        known[row, list(members)] = False
    tp = table.diagonal()
    found, true = (table * known).sum(axis=0), table[:classes].sum(axis=1)
    return {"tp": tp[1:].copy(), "fp": (found - tp)[1:], "fn": (true - tp)[1:]}


def pooled_dice(steps: Sequence[dict[str, Any]]) -> list[float]:
    """Return the Dice of each foreground class over all batches; NaN for a class in none."""
    tp, fp, fn = (sum(step[key] for step in steps) for key in ("tp", "fp", "fn"))
    voxels = 2 * tp + fp + fn
    return [2 * t / v if v else float("nan") for t, v in zip(tp, voxels, strict=True)]
