"""A real, tiny nnU-Net model with random weights, in nnU-Net's own layout and save format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

SPACING = (2.0, 1.0, 1.0)


def plans(channels: int = 1, **changes: Any) -> dict[str, Any]:
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "tinyPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16, 16, 16],
        "median_image_size_in_voxels": [24.0, 24.0, 24.0],
        "spacing": list(SPACING),
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling | {"order": 3},
        "resampling_fn_seg_kwargs": resampling | {"is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 2,
                "features_per_stage": [8, 16],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * 2,
                "strides": [[1, 1, 1], [2, 2, 2]],
                "n_conv_per_stage": [1, 1],
                "n_conv_per_stage_decoder": [1],
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    return {
        "dataset_name": "Dataset777_Tiny",
        "plans_name": "tinyPlans",
        "original_median_spacing_after_transp": list(SPACING),
        "original_median_shape_after_transp": [24, 24, 24],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration | changes},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(c): {
                "max": 1.0,
                "mean": 0.0,
                "median": 0.0,
                "min": -1.0,
                "percentile_00_5": -1.0,
                "percentile_99_5": 1.0,
                "std": 1.0,
            }
            for c in range(channels)
        },
    }


def dataset(labels: dict[str, Any], channels: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "channel_names": {str(c): f"zscore{c}" for c in range(channels)},
        "labels": {"background": 0, **labels},
        "numTraining": 4,
        "file_ending": ".nii.gz",
        **more,
    }


def write_json_files(folder: Path, plans: dict[str, Any], dataset: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))


def write_model(
    folder: Path,
    labels: dict[str, Any] | None = None,
    *,
    channels: int = 1,
    folds: tuple[int, ...] = (0,),
    trainer_name: str = "nnUNetTrainer",
    mirroring: tuple[int, ...] | None = (0, 1, 2),
    name: str = "checkpoint_final.pth",
    plans_changes: dict[str, Any] | None = None,
    **dataset_more: Any,
) -> Path:
    """Write a model as nnU-Net saves it; weights are random and large enough to matter."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    labels = {"lesion": 1} if labels is None else labels
    plan = plans(channels, **(plans_changes or {}))
    data = dataset(labels, channels, **dataset_more)
    write_json_files(folder, plan, data)
    manager = PlansManager(plan)
    heads = manager.get_label_manager(data).num_segmentation_heads
    for fold in folds:
        torch.manual_seed(fold)
        network = nnUNetTrainer.build_network_architecture(
            manager, manager.get_configuration("3d_fullres"), channels, heads, True
        )
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
            for layer in network.decoder.seg_layers:
                layer.bias.zero_()
        checkpoint = {
            "network_weights": network.state_dict(),
            "optimizer_state": {"state": {0: {"momentum": torch.ones(100)}}, "param_groups": []},
            "grad_scaler_state": None,
            "logging": {"ema_fg_dice": [np.float32(0.5), np.float64(0.25)]},
            "_best_ema": np.float64(0.25),
            "current_epoch": 3,
            "init_args": {
                "plans": plan,
                "configuration": "3d_fullres",
                "fold": fold,
                "dataset_json": data,
                "device": torch.device("cpu"),
            },
            "trainer_name": trainer_name,
            "inference_allowed_mirroring_axes": mirroring,
        }
        file = folder / f"fold_{fold}" / name
        file.parent.mkdir(exist_ok=True)
        torch.save(checkpoint, file)
    return folder


def write_image(
    path: Path, shape: tuple[int, ...] = (13, 27, 22), seed: int = 0, spacing=(0.9, 1.1, 1.7)
) -> Path:
    """Write a smooth random image on an oblique grid that is no multiple of the model's."""
    rng = np.random.default_rng(seed)
    image = sitk.GetImageFromArray(rng.normal(size=shape).astype(np.float32))
    image = sitk.SmoothingRecursiveGaussian(image, 1.5)
    image.SetSpacing(spacing)
    image.SetOrigin((11.0, -22.0, 33.0))
    c, s = np.cos(0.3), np.sin(0.3)
    image.SetDirection((-c, s, 0.0, -s, -c, 0.0, 0.0, 0.0, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path
