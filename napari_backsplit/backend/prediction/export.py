"""Logits on the network's grid -> the target's mask on the image's, as nnU-Net would give it.

Worker-only: imports nnU-Net.

nnU-Net resamples all K classes to the image's grid. A target needs little of it: the logits say
on the network's own grid which few cells can become target (`candidates`), and only these are
resampled, against only those classes that may win there, in nnU-Net's own arithmetic
(`resampling`). The mask is the same, bit for bit. Where that does not hold (regions, another order
or kind of resampling) the export goes through nnU-Net's own functions (`full_export`) and says so.

Of a model of soft labels the classes are shares of the voxel, after a constant 0.5 for the
background, and the targets are decided among these alone: argmax is then share > 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from nnunetv2.preprocessing.resampling.default_resampling import (
    ANISO_THRESHOLD,
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from numpy.typing import NDArray

from napari_backsplit.backend.prediction.candidates import TYPES, check_finite
from napari_backsplit.backend.prediction.full_export import Plan, full_export, mask_dtype
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.planes import Maps
from napari_backsplit.backend.prediction.resampling import Grid
from napari_backsplit.backend.prediction.slab_export import SlabExport
from napari_backsplit.backend.prediction.wanted import Exported as Exported
from napari_backsplit.backend.prediction.wanted import Wanted as Wanted
from napari_backsplit.backend.prediction.wanted import check_wanted as check_wanted

Shape = tuple[int, int, int, int]

SOFT_NOTE = (
    "The model learnt soft labels: a voxel is target where its share, resampled to the image's "
    "grid, is above 0.5; no support takes it away."
)
"""What a person should know of a mask that comes from shares."""


class TargetExport:
    """An export that takes the logits slab by slab, as a sliding window finishes them.

    Parameters
    ----------
    shape : tuple of int
        (K, z, y, x) of all logits, on the network's grid.
    dtype : dtype
        Of the logits.
    model, plans_manager, configuration_manager, label_manager, properties, wanted, threads
        As for `export`.

    Attributes
    ----------
    note : str
        Which way is taken, and why.

    Raises
    ------
    InputError
        As `export`.
    """

    def __init__(
        self,
        shape: Shape,
        dtype: Any,
        model: ModelFolder,
        plans_manager: Any,
        configuration_manager: Any,
        label_manager: Any,
        properties: dict[str, Any],
        wanted: Wanted,
        threads: int = 1,
    ) -> None:
        check_wanted(model, wanted, shape)
        plan = Plan(model, plans_manager, configuration_manager, label_manager, properties, threads)
        why = obstacle(plan, np.dtype(dtype))
        self._way = _WholeWay(plan, wanted, shape, why) if why else _ShortWay(plan, wanted, shape)
        self.note = self._way.note
        self._shape = shape
        self._fed = 0

    def feed(self, logits: NDArray[Any], first: int, *, lasting: bool = False) -> None:
        """Take the next layers of the network's first axis.

        Parameters
        ----------
        logits : ndarray of float16 or float32, (K, n, y, x)
            Finished layers.
        first : int
            Their place: the number of layers fed before.
        lasting : bool
            They will not be overwritten before `finish`, and need not be copied.

        Raises
        ------
        InputError
            The logits are not finite.
        """
        expected = (self._shape[0], logits.shape[1], *self._shape[2:])
        end = first + logits.shape[1]
        if first != self._fed or logits.shape != expected or end > self._shape[1]:
            raise ValueError(f"slab {logits.shape} at {first}: {self._fed} of {self._shape} fed")
        if end > first:
            self._way.feed(logits, first, lasting)
        self._fed = end

    def feed_shares(self, slab: NDArray[Any], first: int) -> None:
        """Take the next layers of averaged shares; what stands for the background becomes 0.5.

        An average of 0.5 in half precision may be off by a last place. See `feed`.
        """
        slab[0] = 0.5
        self.feed(slab, first)

    def finish(self) -> Exported:
        """Return the result once every layer was fed."""
        if self._fed != self._shape[1]:
            raise ValueError(f"{self._fed} of {self._shape[1]} layers were fed")
        return self._way.finish()


def export(
    logits: NDArray[Any],
    model: ModelFolder,
    plans_manager: Any,
    configuration_manager: Any,
    label_manager: Any,
    properties: dict[str, Any],
    wanted: Wanted,
    threads: int = 1,
) -> Exported:
    """Export the targets from a network's output.

    Parameters
    ----------
    logits : ndarray of float16 or float32, (K, z, y, x)
        On the network's grid; of a model of soft labels 0.5, then the shares of the others.
    model : ModelFolder
        Whose output it is.
    plans_manager, configuration_manager, label_manager
        nnU-Net's, of this model.
    properties : dict
        Of the image, as nnU-Net's preprocessing leaves them.
    wanted : Wanted
        What to export.
    threads : int
        CPU threads, where torch has work.

    Raises
    ------
    InputError
        No target, one that the model has not, the gap of a model with two classes, of regions or
        of soft labels, another rule than a soft model's, or logits that are not finite.
    """
    shape = (logits.shape[0], logits.shape[1], logits.shape[2], logits.shape[3])
    whole = TargetExport(
        shape,
        logits.dtype,
        model,
        plans_manager,
        configuration_manager,
        label_manager,
        properties,
        wanted,
        threads,
    )
    whole.feed(logits, 0, lasting=True)
    return whole.finish()


def obstacle(plan: Plan, dtype: np.dtype[Any]) -> str:
    """Return why the short way does not give nnU-Net's mask; "" if it does."""
    resample = plan.configuration.resampling_fn_probabilities
    if plan.label_manager.has_regions:
        return "the model predicts overlapping regions"
    if not isinstance(resample, partial) or resample.func is not resample_data_or_seg_to_shape:
        return "the model resamples by another function"
    order, order_z = resample.keywords.get("order", 3), resample.keywords.get("order_z", 0)
    if order != 1 or resample.keywords.get("is_seg"):
        return f"the model resamples by order {order}"
    if order_z != 0 and _separate(plan) is not None:
        return f"the model resamples slices by order {order_z}"
    if dtype not in TYPES:
        return f"the network's output is of type {dtype}"
    if tuple(stop - start for start, stop in _bounds(plan)) != _crop_shape(plan):
        return "the crop reaches beyond the image"
    return ""


def _separate(plan: Plan) -> int | None:
    """Return the axis whose slices nnU-Net resamples on their own, None if there is none."""
    given = plan.configuration.resampling_fn_probabilities.keywords
    spacing = [plan.properties["spacing"][axis] for axis in plan.plans.transpose_forward]
    current = list(plan.configuration.spacing)
    if len(current) < len(spacing):
        current = [spacing[0], *current]
    apart, axis = determine_do_sep_z_and_axis(
        given.get("force_separate_z", False),
        current,
        spacing,
        given.get("separate_z_anisotropy_threshold", ANISO_THRESHOLD),
    )
    return int(axis) if apart else None


def _crop_shape(plan: Plan) -> tuple[int, ...]:
    return tuple(int(n) for n in plan.properties["shape_after_cropping_and_before_resampling"])


def _bounds(plan: Plan) -> list[tuple[int, int]]:
    """Return where the crop lies, as far as it lies in the image."""
    shape = plan.properties["shape_before_cropping"]
    box = plan.properties["bbox_used_for_cropping"]
    return [(max(int(a), 0), min(int(b), int(n))) for (a, b), n in zip(box, shape, strict=True)]


class _WholeWay:
    """Collects all logits, for nnU-Net's own functions."""

    def __init__(self, plan: Plan, wanted: Wanted, shape: Shape, why: str) -> None:
        self.note = f"All classes were resampled in full by nnU-Net's own functions: {why}."
        if plan.soft is not None:
            self.note = f"{SOFT_NOTE} {self.note}"
        self._plan, self._wanted, self._shape = plan, wanted, shape
        self._all: NDArray[Any] | None = None

    def feed(self, logits: NDArray[Any], first: int, lasting: bool) -> None:
        check_finite(logits)
        if lasting and logits.shape == self._shape:
            self._all = logits
            return
        if self._all is None:
            self._all = np.empty(self._shape, logits.dtype)
        self._all[:, first : first + logits.shape[1]] = logits

    def finish(self) -> Exported:
        if self._all is None:
            raise ValueError("no layers were fed")
        return full_export(self._all, self._plan, self._wanted, self.note)


class _ShortWay:
    """Resamples what can become target, block by block."""

    note = "Only what can become target was resampled; the mask is the one nnU-Net would give."

    def __init__(self, plan: Plan, wanted: Wanted, shape: Shape) -> None:
        if plan.soft is not None:
            self.note = SOFT_NOTE
        self._back = plan.plans.transpose_backward
        self._wanted = wanted
        whole = tuple(int(n) for n in plan.properties["shape_before_cropping"])
        box = tuple(slice(*bounds) for bounds in _bounds(plan))
        heads = [plan.model.head(name) for name in wanted.targets]
        self._mask = _background(whole, box, heads)
        self._maps = _maps(plan, wanted, whole, box, heads)
        self._slabs = SlabExport(
            Grid.of(shape[1:], _crop_shape(plan), _separate(plan)),
            self._mask,
            box,
            heads,
            wanted.rule == "p > 0.5",
            self._maps,
            plan.soft,
        )

    def feed(self, logits: NDArray[Any], first: int, lasting: bool) -> None:
        self._slabs.feed(logits)

    def finish(self) -> Exported:
        maps = self._maps
        return Exported(
            self._turned(self._mask),
            None if maps.labels is None else self._turned(maps.labels),
            tuple(self._turned(p) for p in maps.probabilities),
            None if maps.gap is None else self._turned(maps.gap),
            (self.note,),
        )

    def _turned(self, volume: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(volume.transpose(self._back))


def _background(
    shape: tuple[int, ...], box: tuple[slice, ...], heads: Sequence[int]
) -> NDArray[np.unsignedinteger[Any]]:
    """Return a mask as it is before anything is found: outside the crop all is background."""
    mask = np.zeros(shape, mask_dtype(len(heads)))
    if 0 in heads:
        mask[:] = heads.index(0) + 1
        mask[box] = 0
    return mask


def _maps(
    plan: Plan, wanted: Wanted, shape: tuple[int, ...], box: tuple[slice, ...], heads: list[int]
) -> Maps:
    maps = Maps(shape, box, heads, plan.soft)
    if wanted.labels:
        maps.add_labels(mask_dtype(len(plan.label_manager.foreground_labels)))
    if wanted.probabilities:
        maps.add_probabilities()
    if wanted.gap:
        maps.add_gap()
    return maps
