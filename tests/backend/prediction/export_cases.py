"""Random outputs of a network, with all that nnU-Net's export asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from napari_backsplit.backend.prediction.export import Exported, TargetExport, Wanted, export
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from tests.backend.prediction import tiny_model

ORDERS = ((0, 1, 2), (2, 0, 1), (1, 0, 2), (2, 1, 0))


@dataclass(frozen=True, eq=False)
class Case:
    """One image's logits, and whose they are."""

    logits: np.ndarray
    model: ModelFolder
    plans: Any
    configuration: Any
    label_manager: Any
    properties: dict[str, Any]

    @property
    def theirs(self) -> tuple[Any, ...]:
        return self.plans, self.configuration, self.label_manager, self.properties

    def inside(self) -> np.ndarray:
        """Return where the crop lies, on the image's grid."""
        whole = np.zeros(self.properties["shape_before_cropping"], bool)
        whole[tuple(slice(a, b) for a, b in self.properties["bbox_used_for_cropping"])] = True
        return whole.transpose(self.plans.transpose_backward)

    def nnunet(self, probabilities: bool = False) -> Any:
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            self.logits, *self.theirs, probabilities, 1
        )

    def export(self, *targets: str, **wanted: Any) -> Exported:
        return export(self.logits, self.model, *self.theirs, Wanted(targets, **wanted))

    def streamed(self, cuts: list[int], *targets: str, **wanted: Any) -> Exported:
        """Export from slabs, each overwritten once it was taken."""
        shape, dtype = self.logits.shape, self.logits.dtype
        taken = TargetExport(shape, dtype, self.model, *self.theirs, Wanted(targets, **wanted))
        for first, stop in zip([0, *cuts], [*cuts, shape[1]], strict=True):
            slab = self.logits[:, first:stop].copy()
            taken.feed(slab, first)
            slab[:] = np.nan
        return taken.finish()


def case(
    logits: np.ndarray,
    outputs: tuple[int, ...],
    *,
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0),
    planned: tuple[float, ...] = (1.0, 1.0, 1.0),
    order: tuple[int, ...] = (0, 1, 2),
    margins: tuple[tuple[int, int], ...] = ((0, 0), (0, 0), (0, 0)),
    labels: dict[str, Any] | None = None,
    resampling: dict[str, Any] | None = None,
    **changes: Any,
) -> Case:
    """Make a case: `outputs`, `spacing` and `margins` in the network's order of axes.

    `margins` are the voxels cropped away before and after, on each axis.
    """
    k = len(logits)
    labels = {f"label{i}": i for i in range(1, k)} if labels is None else labels
    kwargs = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    changes.setdefault("resampling_fn_probabilities_kwargs", kwargs | (resampling or {}))
    plan = tiny_model.plans(spacing=list(planned), **changes)
    plan["transpose_forward"] = list(order)
    plan["transpose_backward"] = [order.index(axis) for axis in range(3)]
    dataset = tiny_model.dataset(labels)
    if any(isinstance(label, list) for label in labels.values()):
        dataset["regions_class_order"] = list(range(1, k + 1))
    manager = PlansManager(plan)
    properties = {
        "spacing": [spacing[order.index(axis)] for axis in range(3)],
        "shape_after_cropping_and_before_resampling": tuple(outputs),
        "shape_before_cropping": tuple(
            int(a + n + b) for n, (a, b) in zip(outputs, margins, strict=True)
        ),
        "bbox_used_for_cropping": [
            [int(a), int(a + n)] for n, (a, _) in zip(outputs, margins, strict=True)
        ],
    }
    model = ModelFolder(Path(), plan, dataset, "3d_fullres", "nnUNetTrainer", {})
    configuration = manager.get_configuration("3d_fullres")
    return Case(
        logits, model, manager, configuration, manager.get_label_manager(dataset), properties
    )


def random_case(seed: int) -> Case:
    """A case of any kind: every number of classes, type, resampling, tie and crop."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 41) if seed % 3 else rng.integers(2, 6))
    low, high = (1, 7) if seed % 7 == 0 else (4, 15)
    shape = rng.integers(low, high, 3)
    outputs = np.maximum((shape * rng.uniform(0.5, 2.6, 3)).astype(int), 1)
    kept = rng.random(3) < 0.15
    outputs = np.where(kept, shape, outputs)
    spacing, planned = rng.uniform(0.7, 1.3, 3), rng.uniform(0.7, 1.3, 3)
    if seed % 4 == 1:
        spacing[rng.integers(3)] *= 6
    elif seed % 4 == 2:
        planned[rng.integers(3)] *= 6
    margins = rng.integers(0, 4, (3, 2)) * (rng.random() < 0.5)
    return case(
        _logits(rng, k, shape, seed),
        tuple(int(n) for n in outputs),
        spacing=tuple(spacing),
        planned=tuple(planned),
        order=ORDERS[rng.integers(len(ORDERS))],
        margins=tuple((int(a), int(b)) for a, b in margins),
    )


def _logits(rng: np.random.Generator, k: int, shape: np.ndarray, seed: int) -> np.ndarray:
    """Noise, coarse steps full of exact ties, blobs that may touch a border, or near ties."""
    values = rng.normal(size=(k, *shape)) * rng.choice([0.01, 1.0, 8.0, 200.0])
    kind = seed % 5
    if kind == 1:
        values = np.round(values)
    if kind == 2:
        center = rng.uniform(0, 1, (k, 3)) * shape
        grid = np.indices(shape)[None] - center[:, :, None, None, None]
        values = 9 - 2 * np.sqrt((grid**2).sum(axis=1)) + 0.2 * rng.normal(size=(k, *shape))
        values[0] = 2
    if kind == 3:
        near = rng.normal(size=shape)
        values = near + rng.integers(-1, 2, (k, *shape)) * 2.0**-11 * np.abs(near)
    if kind == 4:
        values[:] = values[rng.integers(k, size=k)]
    return values.astype(np.float32 if seed % 6 == 0 else np.float16)
