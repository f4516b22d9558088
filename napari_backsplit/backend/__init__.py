"""The library: everything that works without a screen."""

NOTICE = "Research use only. Not a medical device."
"""What every window, report and picture says."""

WORKER_ONLY = (
    "napari_backsplit.backend.prediction.checkpoint",
    "napari_backsplit.backend.prediction.export",
    "napari_backsplit.backend.prediction.full_export",
    "napari_backsplit.backend.prediction.network",
    "napari_backsplit.backend.prediction.predictor",
    "napari_backsplit.backend.prediction.preparation",
    "napari_backsplit.backend.prediction.shares",
    "napari_backsplit.backend.prediction.sliding",
    "napari_backsplit.backend.training.checkpointing",
    "napari_backsplit.backend.training.class_counts",
    "napari_backsplit.backend.training.course",
    "napari_backsplit.backend.training.export",
    "napari_backsplit.backend.training.head_split",
    "napari_backsplit.backend.training.loading",
    "napari_backsplit.backend.training.losses",
    "napari_backsplit.backend.training.losses.label_set_loss",
    "napari_backsplit.backend.training.losses.label_sets",
    "napari_backsplit.backend.training.losses.regions",
    "napari_backsplit.backend.training.losses.soft",
    "napari_backsplit.backend.training.losses.staged",
    "napari_backsplit.backend.training.losses.voxels",
    "napari_backsplit.backend.training.memory",
    "napari_backsplit.backend.training.monai_networks",
    "napari_backsplit.backend.training.nnunet",
    "napari_backsplit.backend.training.optimisers",
    "napari_backsplit.backend.training.prepare",
    "napari_backsplit.backend.training.residual_plans",
    "napari_backsplit.backend.training.run",
    "napari_backsplit.backend.training.seeds",
    "napari_backsplit.backend.training.snapshot",
    "napari_backsplit.backend.training.standing_aside",
    "napari_backsplit.backend.training.stopwatch",
    "napari_backsplit.backend.training.trainer",
)
"""Modules that import torch or nnU-Net: loaded by a job's own process only."""
