"""Patches with what a loss needs beside the codes: weights of voxels, or soft labels. Worker only.

Weights are computed here, so in the worker processes that augment, not on the device that trains.

Soft labels go through nnU-Net's own augmentation as its regression target: the spatial transform
interpolates them linearly with the grid of the image, mirroring flips them, the two conversions for
rotation in the plane fold and unfold them, and every other transform leaves them alone. Beyond the
edge of the image a voxel holds nothing but background, so all shares are 0 there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import blosc2
import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import (
    NonDetMultiThreadedAugmenter,
)
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.functional import interpolate

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.losses import inverse_weights
from napari_backsplit.backend.training.soft_labels import ENDING

if TYPE_CHECKING:
    from napari_backsplit.backend.training.trainer import BackSplitTrainer

Levels = Tensor | list[Tensor]
"""One tensor, or one for each output of a network with deep supervision, the finest first."""

_MAPPED = {} if os.name == "nt" else {"mmap_mode": "r"}
"""How nnU-Net opens its arrays: mapped into memory, but on Windows."""

_REMEDY = "Train the arm again from the start: that prepares its soft labels."


class Extra(Protocol):
    """What a batch holds beside images and codes."""

    def soft(self, stem: Path) -> Any | None:
        """Return the stored soft labels of a case, (K - 1, z, y, x); None where none are used."""

    def made(self, sample: Mapping[str, Any]) -> Levels:
        """Return it for one augmented patch, (c, ...), float32, at the codes' resolutions."""


@dataclass(frozen=True)
class VoxelWeights:
    """Weights of voxels, inverse to the volume of their lesion in the patch.

    Attributes
    ----------
    targets : tuple of int
        Codes that are a lesion.
    """

    targets: tuple[int, ...]

    def soft(self, stem: Path) -> None:
        """Return None: codes are all that is needed."""

    def made(self, sample: Mapping[str, Any]) -> Levels:
        """Return weights (1, ...), from the finest codes.

        A coarser level takes the weight of the very voxel whose code it takes.
        """
        codes = sample["segmentation"]
        finest = codes[0] if isinstance(codes, list) else codes
        weights = inverse_weights(np.isin(finest[0].numpy(), self.targets))
        return _nearest(torch.from_numpy(weights)[None], codes)


@dataclass(frozen=True)
class SoftShares:
    """How much of each voxel belongs to each class but the background.

    Attributes
    ----------
    classes : int
        K, with the background.
    rounds : bool
        Round the shares after the augmentation, 0.5 upwards. Of one target that is, away from the
        border of the image, what nnU-Net makes of hard labels, which it interpolates linearly and
        gives to the larger share; where three classes meet, a voxel may become background that
        nnU-Net gives to the largest of them. The hard labels of this package are the nearest
        voxel's instead, so the two differ by up to half a voxel where a patch was turned or scaled,
        and by nothing where it was not.
    """

    classes: int
    rounds: bool = False

    def soft(self, stem: Path) -> Any:
        """Return the stored soft labels of a case, opened, not read.

        Raises
        ------
        InputError
            There are none, or they are of other classes.
        """
        path = stem.with_name(f"{stem.name}{ENDING}.b2nd")
        if not path.is_file():
            raise InputError(f"{stem.name} has no soft labels on the network's grid.", _REMEDY)
        stored = blosc2.open(str(path), mode="r", dparams={"nthreads": 1}, **_MAPPED)
        if stored.shape[0] != self.classes - 1:
            said = f"{stem.name} has soft labels of {stored.shape[0]} classes"
            raise InputError(f"{said}, the run learns {self.classes - 1}.", _REMEDY)
        return stored

    def made(self, sample: Mapping[str, Any]) -> Levels:
        """Return shares (K - 1, ...), 0..1.

        A coarser level is interpolated linearly from the one before it. Strides are 1 or 2, so a
        voxel holds the mean of the voxels that it covers, which is its own share. Rounded labels go
        the way of hard ones, by the nearest voxel.
        """
        shares, codes = sample["regression_target"].clamp_(0, 1), sample["segmentation"]
        if self.rounds:
            return _nearest((shares >= 0.5).float(), codes)
        return _averaged(shares, codes)


def _nearest(finest: Tensor, codes: Levels) -> Levels:
    """Return an array (c, ...) at the levels of codes, by nnU-Net's choice of a voxel."""
    if not isinstance(codes, list):
        return finest
    shapes = [level.shape[1:] for level in codes]
    return [
        finest if shape == finest.shape[1:] else _resized(finest, shape, "nearest-exact")
        for shape in shapes
    ]


def _averaged(finest: Tensor, codes: Levels) -> Levels:
    """Return an array (c, ...) at the levels of codes, each the average of the one before it."""
    if not isinstance(codes, list):
        return finest
    mode = "trilinear" if finest.ndim == 4 else "bilinear"
    levels = []
    for level in codes:
        if level.shape[1:] != finest.shape[1:]:
            finest = _resized(finest, level.shape[1:], mode)
        levels.append(finest)
    return levels


def _resized(array: Tensor, shape: Sequence[int], mode: str) -> Tensor:
    return interpolate(array[None], tuple(shape), mode=mode)[0]


class PatchLoader(nnUNetDataLoader):  # type: ignore[misc]
    """nnU-Net's loader whose batches also hold "extra".

    Images, codes and random numbers are exactly those of nnU-Net's loader. No cascade: plans of a
    project have one stage.

    Parameters
    ----------
    extra : Extra
        What a batch also holds.
    given : Any
        As nnU-Net's loader takes it.
    """

    def __init__(self, extra: Extra, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.extra = extra

    def generate_train_batch(self) -> dict[str, Any]:
        """Return the next batch: data, target, extra (tensors or lists of levels) and keys."""
        cases = self.get_indices()
        with torch.no_grad(), threadpool_limits(limits=1, user_api=None):
            patches = [
                self._patch(case, self.get_do_oversample(place)) for place, case in enumerate(cases)
            ]
        data, target, extra = (_stacked(samples) for samples in zip(*patches, strict=True))
        return {"data": data, "target": target, "extra": extra, "keys": cases}

    def _patch(self, case: str, on_target: bool) -> tuple[Levels, Levels, Levels]:
        """Return image, codes and extra of one augmented patch."""
        image, codes, _, properties = self._data.load_case(case)
        low, high = self.get_bbox(image.shape[1:], on_target, properties["class_locations"])
        box = [list(edges) for edges in zip(low, high, strict=True)]
        codes = crop_and_pad_nd(codes, box, -1, cast_cropped_to=np.int16)
        sample = {
            "image": torch.from_numpy(crop_and_pad_nd(image, box, 0)).float(),
            "segmentation": torch.from_numpy(codes).to(torch.int16),
        }
        soft = self.extra.soft(Path(self._data.source_folder) / case)
        if soft is not None:
            sample["regression_target"] = torch.from_numpy(crop_and_pad_nd(soft, box, 0)).float()
        if self.patch_size_was_2d:
            sample = {name: array[:, 0] for name, array in sample.items()}
        sample = self.transforms(**sample)
        return sample["image"], sample["segmentation"], self.extra.made(sample)


def _stacked(samples: Sequence[Levels]) -> Levels:
    if isinstance(samples[0], list):
        return [torch.stack(level) for level in zip(*samples, strict=True)]
    return torch.stack(list(samples))  # type: ignore[arg-type]


def to_device(batch: Mapping[str, Any], device: torch.device) -> list[Any]:
    """Return data, target and, where there is one, extra of a batch on a device."""
    return [_moved(batch[name], device) for name in ("data", "target", "extra") if name in batch]


def _moved(levels: Levels, device: torch.device) -> Levels:
    if isinstance(levels, list):
        return [level.to(device, non_blocking=True) for level in levels]
    return levels.to(device, non_blocking=True)


def wanted_extra(trainer: BackSplitTrainer) -> Extra | None:
    """Return what the batches of a run hold beside images and codes; None for nothing."""
    spec = trainer.run.spec
    if spec.labels == "soft":
        return SoftShares(trainer.label_manager.num_segmentation_heads, spec.round_labels)
    return VoxelWeights(tuple(trainer.targets)) if spec.inverse_weighting else None


def patch_loaders(trainer: BackSplitTrainer, extra: Extra) -> tuple[Any, Any]:
    """Return what draws training and validation batches with an extra, as nnU-Net draws its own.

    Raises
    ------
    InputError
        A case has no soft labels.
    """
    trainer.dataset_class = infer_dataset_class(trainer.preprocessed_dataset_folder)
    patch_size = trainer.configuration_manager.patch_size
    size, augmentation, plain = _transforms(trainer)
    training, held_out = trainer.get_tr_and_val_datasets()
    processes = get_allowed_n_proc_DA()

    def served(cases: Any, size: Any, transforms: BasicTransform, share: int) -> Any:
        for case in cases.identifiers:
            extra.soft(Path(cases.source_folder) / case)
        loader = PatchLoader(
            extra,
            cases,
            trainer.batch_size,
            size,
            patch_size,
            trainer.label_manager,
            trainer.oversample_foreground_percent,
            probabilistic_oversampling=trainer.probabilistic_oversampling,
            transforms=transforms,
        )
        if not processes:
            return SingleThreadedAugmenter(loader, None)
        return _in_advance(loader, processes, share, trainer.device.type == "cuda")

    return served(training, size, augmentation, 1), served(held_out, patch_size, plain, 2)


def _transforms(trainer: BackSplitTrainer) -> tuple[Any, BasicTransform, BasicTransform]:
    """Return the size of a patch before its augmentation, the augmentation, and none but levels."""
    plan, labels = trainer.configuration_manager, trainer.label_manager
    rotation, flat, start, mirrored = (
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    )
    levels = trainer._get_deep_supervision_scales()
    about = {"foreground_labels": labels.foreground_labels, "ignore_label": labels.ignore_label}
    augmentation = trainer.get_training_transforms(
        plan.patch_size, rotation, levels, mirrored, flat, plan.use_mask_for_norm, **about
    )
    return start, augmentation, trainer.get_validation_transforms(levels, **about)


def _in_advance(loader: PatchLoader, processes: int, share: int, pinned: bool) -> Any:
    """Return the batches of a loader as some worker processes make them, in nnU-Net's numbers."""
    batches = NonDetMultiThreadedAugmenter(
        loader,
        None,
        max(1, processes // share),
        num_cached=max(6 // share, processes // (2 * share)),
        seeds=None,
        pin_memory=pinned,
        wait_time=0.002,
    )
    next(batches)  # A worker that fails is told of here, before the training starts.
    return batches
