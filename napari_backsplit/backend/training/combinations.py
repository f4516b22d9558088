"""Which settings of a run exclude one another, and why. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_backsplit.backend.training.spec import RunSpec

MONAI = ("segresnet", "swinunetr")
"""Architectures of the package MONAI, which have one output and are for volumes."""

WEIGHTED = ("dice-ce", "dice", "ce", "focal", "asymmetric")
"""Losses that take a weight for each voxel."""

BY_CLASS = ("dice-ce", "dice", "asymmetric")
"""Losses that are a mean over classes, of which the targets' share can be chosen."""

REGRESSION = ("adaptive-wing", "dice")
"""Losses of soft labels."""

SWIN_WIDTH = 12
"""SwinUNETR's features are a multiple of this."""

SEGRESNET_WIDTH = 8
"""SegResNet's features are a multiple of this: its norms have so many groups."""


def require_fit(spec: RunSpec) -> None:
    """Refuse settings that cannot work together.

    Raises
    ------
    ValueError
        With the reason.
    """
    for wrong in (*_network(spec), *_loss(spec), *_soft(spec), *_supports(spec)):
        raise ValueError(wrong)


def _network(spec: RunSpec) -> Iterator[str]:
    name = spec.architecture
    if name in MONAI and spec.deep_supervision:
        yield f"{name} has no deep supervision: it has one output. Leave deep_supervision out"
    if name in MONAI and spec.patch_size is not None and len(spec.patch_size) != 3:
        yield f"{name} is for volumes, the patch {list(spec.patch_size)} is for slices"
    if name in MONAI and "2d" in spec.recipe:
        yield f"{name} is for volumes, the recipe 2d plans slices"
    if name == "planned" and spec.width is not None:
        yield f"width {spec.width} belongs to another architecture; of the planned one, the plan"
    if name == "swinunetr" and spec.width is not None and spec.width % SWIN_WIDTH:
        yield f"the width {spec.width} of swinunetr is no multiple of {SWIN_WIDTH}"
    if name == "segresnet" and spec.width is not None and spec.width % SEGRESNET_WIDTH:
        yield f"the width {spec.width} of segresnet is no multiple of {SEGRESNET_WIDTH}"
    if spec.final_lr and spec.schedule != "cosine":
        yield f"final_lr {spec.final_lr:g} belongs to the cosine schedule, not to {spec.schedule}"
    if spec.final_lr > spec.initial_lr:
        yield f"final_lr {spec.final_lr:g} is above initial_lr {spec.initial_lr:g}"


def _loss(spec: RunSpec) -> Iterator[str]:
    if spec.inverse_weighting and spec.loss not in WEIGHTED:
        yield f"the loss {spec.loss} takes no weights of voxels, only {', '.join(WEIGHTED)}"
    if spec.target_dice_share is not None and spec.loss not in BY_CLASS:
        yield f"target_dice_share belongs to a mean over classes, which {spec.loss} is not"
    if spec.loss == "adaptive-wing" and spec.labels != "soft":
        yield "adaptive-wing is a regression of soft labels: add labels = soft, or take softseg"


def _soft(spec: RunSpec) -> Iterator[str]:
    if spec.labels != "soft":
        if spec.round_labels:
            yield "round_labels rounds soft labels; hard ones are whole already"
        if spec.activation != "softmax":
            yield f"the activation {spec.activation} is for soft labels"
        return
    if spec.activation == "softmax":
        yield "soft labels need the activation sigmoid or normalised-relu"
    if spec.loss not in REGRESSION:
        yield f"the loss {spec.loss} is for classes; soft labels take {' or '.join(REGRESSION)}"
    if spec.inverse_weighting:
        yield "inverse weighting needs lesions with an outline, which soft labels do not have"
    partial = spec.support_cases < 1 and spec.arm in ("backsplit", "permuted", "blobs")
    if spec.arm == "virtual-set" or (partial and spec.missing == "label-set"):
        remedy = "; add the recipe plain-partial" if partial else ""
        yield (
            "soft labels do not combine with label sets: a share of a voxel that is one of several "
            f"classes is not defined{remedy}"
        )
    if spec.curriculum_epochs or spec.final_support_weight != 1:
        yield "soft labels do not combine with supports that join later or lose weight"
    if spec.split_offset is not None or spec.split_noise:
        yield "split_offset and split_noise divide a background, which soft labels do not have"


def _supports(spec: RunSpec) -> Iterator[str]:
    if spec.supports and (spec.support_count or 0) > len(spec.supports):
        yield f"support_count {spec.support_count} is more than the {len(spec.supports)} supports"
    if spec.arm == "virtual-set" and spec.missing == "background":
        yield "the arm virtual-set is a label set, which missing = background forbids"
