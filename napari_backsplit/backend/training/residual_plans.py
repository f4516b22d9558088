"""nnU-Net's planners of residual encoders, run for a plan set that another planner made.

Worker only. They are given the plan set's own spacing and median shape, so what they answer
belongs to images that are preprocessed already.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from nnunetv2.experiment_planning.experiment_planners.network_topology import (
    get_pool_and_conv_props,
)
from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
    residual_encoder_unet_planners as residual,
)
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import write_json

PLANNERS = {"resenc-m": residual.nnUNetPlannerResEncM, "resenc-l": residual.nnUNetPlannerResEncL}
MANY_VOXELS = 1e15
"""So many that the planner's batch size, which is not used, is bounded by memory alone."""

_DATASET = "Dataset001_stand-in"
_LEAST_EDGE = 4
"""Voxels that nnU-Net's planners keep along an axis at the lowest resolution."""

_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6)
_MOST_FEATURES = {2: 512, 3: 320}


def planned(
    configuration: Mapping[str, Any], preset: str, gpu_memory_gb: float | None = None
) -> dict[str, Any]:
    """Return patch_size and architecture as nnU-Net's planner of a preset chooses them.

    Parameters
    ----------
    configuration : mapping
        Of nnU-Net's plans: spacing (mm) and median shape (voxels) in the network's order of axes.
    preset : {"resenc-m", "resenc-l"}
    gpu_memory_gb : float, optional
        GPU memory to fill, GB; None: the preset's own, 8 or 24.

    Raises
    ------
    InputError
        The plans do not say how large the images are.
    """
    spacing, shape = _images(configuration)
    options = {} if gpu_memory_gb is None else {"gpu_memory_target_in_gb": gpu_memory_gb}
    with _stand_in(len(configuration["normalization_schemes"])), torch.device("meta"):
        planner = PLANNERS[preset](_DATASET, **options)
        found = planner.get_plans_for_configuration(spacing, shape, "", MANY_VOXELS, {})
    return _plain({key: found[key] for key in ("patch_size", "architecture")})


def for_patch(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a residual encoder for a patch that somebody chose, by nnU-Net's rules of topology."""
    spacing, patch = configuration["spacing"], configuration["patch_size"]
    _, strides, kernels, patch, _ = get_pool_and_conv_props(spacing, patch, _LEAST_EDGE, 999999)
    axes, stages = len(spacing), len(strides)
    arguments = {
        "n_stages": stages,
        "features_per_stage": [min(_MOST_FEATURES[axes], 32 * 2**i) for i in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
        "kernel_sizes": kernels,
        "strides": strides,
        "n_blocks_per_stage": _BLOCKS[:stages],
        "n_conv_per_stage_decoder": [1] * (stages - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet."
        "ResidualEncoderUNet",
        "arch_kwargs": arguments,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    return _plain({"patch_size": patch, "architecture": architecture})


def _images(configuration: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    spacing = [float(mm) for mm in configuration["spacing"]]
    shape = configuration.get("median_image_size_in_voxels") or []
    if len(shape) != len(spacing):
        raise InputError(
            "The plan set does not say how large its images are, so nnU-Net cannot plan a residual "
            "encoder for them.",
            "Make a plan set with --preset resenc-m or resenc-l.",
        )
    return spacing, [float(size) for size in shape]


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """Return it as JSON keeps it: lists of plain numbers."""
    recursive_fix_for_json_export(found)
    plain: dict[str, Any] = _lists(found)
    return plain


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


@contextmanager
def _stand_in(channels: int) -> Iterator[None]:
    """Give nnU-Net's planner a dataset to open: it looks at channels and labels alone."""
    kept = {key: os.environ.get(key) for key in _SET}
    with TemporaryDirectory(prefix="backsplit-") as folder:
        described = {
            "channel_names": {str(channel): "any" for channel in range(channels)},
            "labels": {"background": 0, "target": 1},
            "numTraining": 1,
            "file_ending": ".nii.gz",
            "dataset": {},
        }
        write_json(Path(folder) / _DATASET / "dataset.json", described)
        figures = {"median_relative_size_after_cropping": 1.0}
        write_json(Path(folder) / _DATASET / "dataset_fingerprint.json", figures)
        os.environ.update({key: value or folder for key, value in _SET.items()})
        try:
            yield
        finally:
            for key, before in kept.items():
                os.environ.pop(key, None)
                if before is not None:
                    os.environ[key] = before


_SET = {"nnUNet_raw": "", "nnUNet_preprocessed": "", "nnUNet_n_proc_DA": "1"}
"""Folders, and as many threads as the planner asks torch for: 0 crashes it."""
