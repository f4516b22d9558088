"""The head split: a binary model's output layer becomes one with supports, its target unchanged.

The target's row is copied, the background's is kept, and each support starts as the background's
row with its bias lowered by an offset. nnU-Net's own loader drops the output layers and starts
them at random instead.

Shares of a voxel (soft labels) do not compete: the target's row is copied, and a support starts
with a new network's. The background's row says nothing there, and far below 0, where the offset
would put it, a ReLU learns nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from napari_backsplit.backend.errors import InputError

_HEADS = re.compile(r"(^|\.)(seg_layers\.\d+|conv_final\.2\.conv|out\.conv\.conv)\.(weight|bias)")
"""Output layers of nnU-Net's networks, at every resolution, of SegResNet and of SwinUNETR."""


def is_head(name: str) -> bool:
    """Whether a parameter of this name belongs to an output layer: its rows are the classes."""
    return _HEADS.search(name) is not None


def default_offset(supports: int) -> float:
    """Return -5 - ln n for n new supports.

    Together the supports then take exp(-5) = 0.7 % of the background's probability whatever n
    is, so p(target) moves by less than 2e-3 and the argmax stays. An exact posterior split
    (-ln(n + 1)) would let the target beat every piece of the divided background.
    """
    return -5.0 - math.log(max(supports, 1))


def split_head(
    weights: Mapping[str, Tensor],
    old_labels: Mapping[str, int],
    new_labels: Mapping[str, int],
    offset: float | None = None,
    noise: float = 0.0,
    fresh: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return a state dict whose output layers, at every resolution, predict `new_labels`.

    Parameters
    ----------
    weights : mapping of str to Tensor
        The network_weights of a checkpoint; output layers, as `is_head` tells them, have weights
        (K, features, 1, ...) and biases (K,).
    old_labels, new_labels : mapping of str to int
        Label name to id, both with "background"; rows are carried over by name.
    offset : float, optional
        Added to the background's bias for each new label; None: `default_offset`.
    noise : float
        Standard deviation of what is added to a new label's weights, in standard deviations of
        the background's; drawn from torch's global generator.
    fresh : mapping of str to Tensor, optional
        Of soft labels: the new network's own state dict, whose rows new labels keep. Offset and
        noise are then not used.

    Raises
    ------
    InputError
        The model has a label that the new scheme lacks, or its head does not fit its labels.
    """
    lost = sorted(set(old_labels) - set(new_labels))
    if lost:
        raise InputError(
            f"The baseline predicts {', '.join(lost)}, which the project does not have.",
            "Name the project's target as in the baseline, or map it: --label-mapping NAME=TARGET.",
        )
    added = [name for name in new_labels if name not in old_labels]
    shift = default_offset(len(added)) if offset is None else offset
    source = [old_labels.get(name, old_labels["background"]) for name in _by_id(new_labels)]
    shifted = [index for index, name in enumerate(_by_id(new_labels)) if name in added]
    grown = {
        key: _split(key, value, len(old_labels), source, shifted, shift, noise)
        if is_head(key)
        else value
        for key, value in weights.items()
    }
    for key, value in (fresh or {}).items():
        if is_head(key) and key in grown and grown[key].shape == value.shape:
            grown[key][shifted] = value[shifted].to(grown[key])
    return grown


def _by_id(labels: Mapping[str, int]) -> list[str]:
    return sorted(labels, key=lambda name: labels[name])


def _split(
    key: str,
    value: Tensor,
    classes: int,
    source: list[int],
    shifted: list[int],
    shift: float,
    noise: float,
) -> Tensor:
    if value.shape[0] != classes:
        raise InputError(
            f"The baseline's output layer {key} has {value.shape[0]} rows for {classes} labels.",
            "Use a model trained with one softmax class per label (no regions, no ignore label).",
        )
    grown = value[source].clone()
    if key.endswith("bias"):
        grown[shifted] += shift
    elif noise and value[0].numel() > 1:
        grown[shifted] += noise * value[0].std() * torch.randn_like(grown[shifted])
    return grown
