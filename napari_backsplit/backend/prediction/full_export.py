"""The export through nnU-Net's own functions: every class resampled in full.

Worker-only: imports nnU-Net. For what `export` has no shorter way: regions, resampling of another
order, resampling by torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from numpy.typing import NDArray

from napari_backsplit.backend.fusion.information import information_gap
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.planes import share, share_labels
from napari_backsplit.backend.prediction.wanted import Exported, Wanted

FloatMap = NDArray[np.float32]
LabelMap = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, eq=False)
class Plan:
    """What nnU-Net's export needs to know beside the logits, in its own terms."""

    model: ModelFolder
    plans: Any
    configuration: Any
    label_manager: Any
    properties: dict[str, Any]
    threads: int = 1

    @property
    def soft(self) -> int | None:
        """How many targets a model of soft labels has, None of another."""
        return len(self.model.targets) if self.model.soft else None


def full_export(logits: NDArray[Any], plan: Plan, wanted: Wanted, note: str) -> Exported:
    """Export through nnU-Net's own functions.

    Parameters
    ----------
    logits : ndarray of float, (K, z, y, x)
        On the network's grid.
    plan : Plan
        Whose logits these are.
    wanted : Wanted
        What to export.
    note : str
        Why this way was taken.
    """
    if plan.soft is not None:
        return _soft_export(logits, plan, wanted, note, plan.soft)
    labels = np.ascontiguousarray(_convert(logits, plan, False))
    by_probability = wanted.rule == "p > 0.5"
    every = None
    if by_probability or wanted.probabilities or wanted.gap:
        every = _convert(logits, plan, True)[1]
    heads = [plan.model.head(name) for name in wanted.targets]
    kept = [] if every is None else [np.ascontiguousarray(every[head]) for head in heads]
    found = [p > 0.5 for p in kept] if by_probability else _found(labels, plan.model, wanted)
    return Exported(
        combine(found, _smallest_last(plan.model, wanted.targets)),
        labels if wanted.labels else None,
        tuple(kept) if wanted.probabilities else (),
        _gap(every, heads[0], plan) if wanted.gap and every is not None else None,
        (note,),
    )


def _soft_export(
    shares: NDArray[Any], plan: Plan, wanted: Wanted, note: str, targets: int
) -> Exported:
    """Export shares, (K, z, y, x): nnU-Net resamples them, and no softmax changes them."""
    manager = copy(plan.label_manager)
    manager.inference_nonlin = _unchanged
    every = _convert(shares, replace(plan, label_manager=manager), True)[1]
    every[0] = 0.5  # also where it was resampled by a function that leaves a constant in no peace
    heads = [plan.model.head(name) for name in wanted.targets]
    dtype = mask_dtype(len(plan.label_manager.foreground_labels))
    labels: LabelMap = share_labels(every, targets).astype(dtype)
    return Exported(
        combine([labels == head for head in heads], range(len(heads))),
        labels if wanted.labels else None,
        tuple(share(every[head]) for head in heads) if wanted.probabilities else (),
        None,
        (note,),
    )


def _unchanged(values: Any) -> Any:
    return values


def _convert(logits: NDArray[Any], plan: Plan, probabilities: bool) -> Any:
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        plan.plans,
        plan.configuration,
        plan.label_manager,
        plan.properties,
        return_probabilities=probabilities,
        num_threads_torch=plan.threads,
    )


def _found(labels: NDArray[Any], model: ModelFolder, wanted: Wanted) -> list[NDArray[np.bool_]]:
    return [np.isin(labels, model.values(name)) for name in wanted.targets]


def _smallest_last(model: ModelFolder, targets: Sequence[str]) -> list[int]:
    return sorted(range(len(targets)), key=lambda i: -len(model.values(targets[i])))


def combine(
    found: Sequence[NDArray[np.bool_]], order: Sequence[int]
) -> NDArray[np.unsignedinteger[Any]]:
    """Return one map of several masks, i + 1 where mask i is; in `order`, later ones win."""
    mask = np.zeros(found[0].shape, mask_dtype(len(found)))
    for index in order:
        mask[found[index]] = index + 1
    return mask


def mask_dtype(largest: int) -> type[np.uint8 | np.uint16]:
    """Return the type in which nnU-Net stores labels up to this one."""
    return np.uint8 if largest < 255 else np.uint16


def _gap(every: NDArray[Any], target: int, plan: Plan) -> FloatMap:
    gap = information_gap(every, target)
    outside = np.ones(gap.shape, bool)
    box = plan.properties["bbox_used_for_cropping"]
    inside = outside.transpose(plan.plans.transpose_forward)
    inside[tuple(slice(low, high) for low, high in box)] = False
    gap[outside] = 0
    return gap
