"""What is minimised: losses over label sets, of voxels and of regions, and of soft labels."""

from napari_backsplit.backend.training.losses.inverse_weights import inverse_weights
from napari_backsplit.backend.training.losses.label_set_loss import LabelSetLoss
from napari_backsplit.backend.training.losses.label_sets import (
    membership_table,
    merge_into_background,
)
from napari_backsplit.backend.training.losses.regions import (
    GeneralisedDice,
    LabelSetDice,
    dice_weights,
)
from napari_backsplit.backend.training.losses.soft import (
    SoftLoss,
    adaptive_wing,
    deciding,
    normalised_relu,
    shares,
)
from napari_backsplit.backend.training.losses.staged import StagedLoss, make_loss
from napari_backsplit.backend.training.losses.voxels import (
    FocalLoss,
    WeightedCrossEntropy,
    label_set_cross_entropy,
)

__all__ = [
    "FocalLoss",
    "GeneralisedDice",
    "LabelSetDice",
    "LabelSetLoss",
    "SoftLoss",
    "StagedLoss",
    "WeightedCrossEntropy",
    "adaptive_wing",
    "deciding",
    "dice_weights",
    "inverse_weights",
    "label_set_cross_entropy",
    "make_loss",
    "membership_table",
    "merge_into_background",
    "normalised_relu",
    "shares",
]
