"""Soft labels in nnU-Net's augmentation: they are moved with the image, and stay soft."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor

from napari_backsplit.backend.training.loading import SoftShares
from napari_backsplit.backend.training.seeds import seed_everything
from napari_backsplit.backend.training.trainer import BackSplitTrainer

pytestmark = pytest.mark.training


@dataclass(frozen=True)
class Shape:
    """A patch before and after its augmentation, as nnU-Net plans it."""

    start: tuple[int, ...]
    patch: tuple[int, ...]
    flat: bool = False  # rotated in the plane only, as a patch of thick slices is

    @property
    def levels(self) -> list[list[float]]:
        return [[1.0] * len(self.patch), [0.5] * len(self.patch)]

    def pipeline(self, trainer: Any = BackSplitTrainer) -> BasicTransform:
        axes = tuple(range(len(self.patch)))
        transforms: BasicTransform = trainer.get_training_transforms(
            self.patch, (-np.pi / 6, np.pi / 6), self.levels, axes, self.flat, [True]
        )
        return transforms


VOLUME = Shape((30, 28, 26), (20, 18, 16))
THICK = Shape((8, 30, 28), (8, 20, 18), flat=True)
SLICE = Shape((40, 38), (24, 26))
SHAPES = pytest.mark.parametrize(
    "shape", [VOLUME, THICK, SLICE], ids=["volume", "thick slices", "slice"]
)


def _pass(pipeline: BasicTransform, seed: int, codes: Tensor, shares: Tensor | None = None) -> Any:
    """Augment a patch, (c, ...) each, with the random numbers of a seed."""
    seed_everything(seed, 0)
    sample = {"image": torch.ones((1, *codes.shape[1:])), "segmentation": codes.clone()}
    if shares is not None:
        sample["regression_target"] = shares.clone()
    return pipeline(**sample)


@contextmanager
def _watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Note the parameters that the spatial and the mirror transform draw."""
    drawn: dict[str, Any] = {}

    def watch(kind: type[BasicTransform], key: str) -> None:
        draw = kind.get_parameters

        def noted(self: BasicTransform, **sample: Any) -> dict[str, Any]:
            params: dict[str, Any] = draw(self, **sample)
            drawn[key] = params[key]
            return params

        context.setattr(kind, "get_parameters", noted)

    with monkeypatch.context() as context:
        watch(SpatialTransform, "affine")
        watch(MirrorTransform, "axes")
        yield drawn


def _blob(places: list[np.ndarray[Any, Any]], shape: Shape) -> Any:
    """Return two Gaussians of other sizes at places in voxels of the patch before augmentation."""
    made = []
    for at, wide in ((0.45, 4.0), (0.55, 3.0)):
        distance = sum(
            (place - at * size) ** 2 / (4 if shape.flat and axis == 0 else 1)
            for axis, (place, size) in enumerate(zip(places, shape.start, strict=True))
        )
        made.append(np.exp(-distance / (2 * wide**2)))
    return np.stack(made)


def _origins(shape: Shape, drawn: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    """Return where each voxel of the augmented patch comes from, from the drawn parameters alone.

    The patch is cut at the middle of a larger one, turned and scaled about that middle by a matrix
    (not along the first axis of thick slices), then mirrored.
    """
    index = np.indices(shape.patch).astype(float)
    for axis in drawn["axes"]:
        index[axis] = shape.patch[axis] - 1 - index[axis]
    if drawn["affine"] is None:
        cut = [
            before // 2 - after // 2 for before, after in zip(shape.start, shape.patch, strict=True)
        ]
        return [place + start for place, start in zip(index, cut, strict=True)]
    first = int(shape.flat)
    middle = np.array([(size - 1) / 2 for size in shape.patch[first:]])
    centred = np.moveaxis(index[first:], 0, -1) - middle
    turned = np.moveaxis(centred @ np.asarray(drawn["affine"]).T, -1, 0)
    return [*index[:first]] + [
        place + (size - 1) / 2 for place, size in zip(turned, shape.start[first:], strict=True)
    ]


@SHAPES
def test_soft_labels_are_where_the_transform_puts_them(
    shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob given by a formula: augmented, against the formula at the places it was moved from."""
    before = torch.from_numpy(_blob(list(np.indices(shape.start)), shape)).float()
    codes = (before[:1] > 0.5).to(torch.int16)
    pipeline, moved = shape.pipeline(), 0
    for seed in range(40):
        with _watched(monkeypatch) as drawn:
            sample = _pass(pipeline, seed, codes, before)
        finest, coarse = SoftShares(3).made(sample)
        expected = _blob(_origins(shape, drawn), shape)
        inside = expected > 0.01
        error = np.abs(finest.numpy() - expected)[inside].mean()
        if drawn["affine"] is None:
            assert error < 1e-6, "not turned or scaled: nothing is interpolated"
        moved += drawn["affine"] is not None
        assert error < 1e-2
        assert finest.min() >= 0
        assert finest.max() <= 1
        assert len(finest.unique()) > 100, "still soft"
        assert finest.shape[1:] == sample["segmentation"][0].shape[1:]
        assert coarse.shape[1:] == sample["segmentation"][1].shape[1:]
        # What a coarser voxel holds is what its voxels hold, so no volume is lost.
        assert coarse.mean() == pytest.approx(float(finest.mean()), rel=1e-4)
    assert moved > 5


@SHAPES
def test_no_transform_of_a_training_makes_soft_labels_hard(shape: Shape) -> None:
    """Each in its turn and with certainty: one interpolates, the others keep every value."""
    sample: dict[str, Any] = {
        "image": torch.rand((1, *shape.start)),
        "segmentation": torch.zeros((1, *shape.start), dtype=torch.int16),
        "regression_target": torch.rand((2, *shape.start)),
    }
    kinds = []
    for transform in shape.pipeline().transforms:
        values = sample["regression_target"].flatten().sort().values
        made = transform.transform if isinstance(transform, RandomTransform) else transform
        if isinstance(made, SpatialTransform):
            made.p_rotation = 1
        sample = made(**sample)
        after = sample["regression_target"].flatten()
        if isinstance(made, SpatialTransform):
            assert len(after.unique()) > 0.5 * len(after)
        else:
            assert torch.equal(after.sort().values, values), made
        kinds.append(type(made).__name__)
    assert sample["regression_target"].dtype == torch.float32
    assert sample["regression_target"].shape == (2, *shape.patch)
    assert {"SpatialTransform", "MirrorTransform", "MaskImageTransform"} <= set(kinds)


def _lumps(shape: Shape, seed: int) -> Tensor:
    """Return random lumps (1, ...) of 0 and 1, away from the border."""
    noise = torch.from_numpy(np.random.default_rng(seed).random(shape.start)).float()
    smooth = torch.nn.functional.avg_pool2d if noise.ndim == 2 else torch.nn.functional.avg_pool3d
    lumps = (smooth(noise[None, None], 3, 1, 1)[0] > 0.53).to(torch.int16)
    for axis, size in enumerate(shape.start, 1):
        if not (shape.flat and axis == 1):
            lumps.narrow(axis, 0, 4).zero_()
            lumps.narrow(axis, size - 4, 4).zero_()
    return lumps


@SHAPES
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_rounded_hard_masks_are_nnunets_own(shape: Shape, seed: int) -> None:
    """Voxel for voxel, at each level: its labels are interpolated linearly, then decided.

    Where a share is a half to within the last bits, nnU-Net, which computes in half precision,
    leaves the decision to the nearest voxel.
    """
    lumps = _lumps(shape, seed)
    theirs = _pass(shape.pipeline(nnUNetTrainer), seed, lumps)["segmentation"]
    sample = _pass(shape.pipeline(), seed, lumps, lumps.float())
    ours = SoftShares(2, rounds=True).made(sample)
    tie = (sample["regression_target"] - 0.5).abs() < 5e-4
    assert tie.float().mean() < 0.02
    assert torch.equal(ours[0][~tie].long(), theirs[0][~tie].long())
    if not tie.any():
        assert torch.equal(ours[1].long(), theirs[1].long())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_rounded_hard_masks_are_our_own_unless_turned_or_scaled(seed: int) -> None:
    lumps = _lumps(VOLUME, seed)
    pipeline = VOLUME.pipeline()
    pipeline.transforms[0].p_rotation = pipeline.transforms[0].p_scaling = 0
    sample = _pass(pipeline, seed, lumps, lumps.float())
    assume(sample["segmentation"][0].any())
    rounded = SoftShares(2, rounds=True).made(sample)
    for ours, theirs in zip(rounded, sample["segmentation"], strict=True):
        assert torch.equal(ours.long(), theirs.long())
    soft = SoftShares(2).made(sample)
    assert torch.equal(soft[0], rounded[0])
    assert not torch.equal(soft[1], rounded[1]), "a coarser voxel holds some of each"


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_soft_labels_change_no_random_number(seed: int) -> None:
    """So that soft and hard runs of a seed see the same images."""
    lumps = _lumps(VOLUME, seed)
    hard = _pass(VOLUME.pipeline(), seed, lumps)
    soft = _pass(VOLUME.pipeline(), seed, lumps, torch.rand((3, *VOLUME.start)))
    assert torch.equal(hard["image"], soft["image"])
    assert torch.equal(hard["segmentation"][0], soft["segmentation"][0])
