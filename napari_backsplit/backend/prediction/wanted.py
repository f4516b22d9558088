"""What a person may want of a prediction and how, and what the export gives. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion.information import check_classes

if TYPE_CHECKING:
    from napari_backsplit.backend.prediction.model_folder import ModelFolder

Rule = Literal["argmax", "p > 0.5", "share > 0.5"]
SHARE: Rule = "share > 0.5"
ACTIVATIONS = ("sigmoid", "normalised-relu")
"""What turns the outputs of a model of soft labels into shares."""


@dataclass(frozen=True)
class Settings:
    """How to predict.

    Attributes
    ----------
    device : str
        cpu, mps, cuda or cuda:N.
    threads : int
        CPU threads of torch.
    mirroring : bool, optional
        Average over mirrored tiles: None and True follow the checkpoint, as nnU-Net does.
    step_size : float
        Step of the sliding window as a share of the patch, above 0 and at most 1.
    """

    device: str = "cpu"
    threads: int = 1
    mirroring: bool | None = None
    step_size: float = 0.5

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Settings:
        """Return the settings that are among a job's parameters."""
        known = {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in params.items() if key in known})


@dataclass(frozen=True)
class Wanted:
    """What to export.

    Attributes
    ----------
    targets : tuple of str
        Labels of the model, at least one.
    rule : str
        "argmax": the target is more likely than each other class, as nnU-Net decides; "p > 0.5":
        it is more likely than all of them together; "share > 0.5": it is more than half of the
        voxel, of several targets the largest. A model of soft labels decides by its shares,
        whether the rule is this or "argmax"; another one never does.
    probabilities : bool
        Also the probability of each target, or its share of the voxel.
    labels : bool
        Also the map of all labels, as nnU-Net writes it.
    gap : bool
        Also the information gap (BackSplit, Proposition 1) of the first target.
    """

    targets: tuple[str, ...]
    rule: Rule = "argmax"
    probabilities: bool = False
    labels: bool = False
    gap: bool = False


@dataclass(frozen=True, eq=False)
class Exported:
    """What a model says, on the grid that nnU-Net's reader sees.

    Attributes
    ----------
    mask : ndarray of uint8 or uint16, (z, y, x)
        i + 1 where `Wanted.targets[i]` is, 0 elsewhere. Of nested regions the smallest wins.
    labels : ndarray of uint8 or uint16, (z, y, x), optional
        All labels, with nnU-Net's values. Of a model of soft labels a target that is more than
        half of the voxel, else the largest such support, else 0.
    probabilities : tuple of ndarray of float32, (z, y, x)
        One a target if they were asked for, 0 to 1; 0 outside nnU-Net's crop. Of a model of soft
        labels the share of the voxel that is target.
    gap : ndarray of float32, (z, y, x), optional
        The information gap, 0 outside nnU-Net's crop.
    notes : tuple of str
        What a person should know of how it came about.
    """

    mask: NDArray[np.unsignedinteger[Any]]
    labels: NDArray[np.unsignedinteger[Any]] | None = None
    probabilities: tuple[NDArray[np.float32], ...] = ()
    gap: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about one image.

    Attributes
    ----------
    exported : Exported
        The mask and what else was wanted, on the grid that nnU-Net's reader sees.
    grid : dict
        What `written.write_array` needs to write on the image's own grid.
    notes : tuple of str
        What a person should know about how this image was predicted.
    """

    exported: Exported
    grid: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def check_settings(settings: Settings) -> None:
    """Refuse settings that no prediction can follow.

    Raises
    ------
    InputError
        The step size or the number of threads.
    """
    if not 0 < settings.step_size <= 1:
        raise InputError(f"Step size {settings.step_size} is not in (0, 1].", "Use 0.5.")
    if settings.threads < 1:
        raise InputError(f"{settings.threads} threads cannot work.", "Use 1 or more.")


def check_wanted(model: ModelFolder, wanted: Wanted, shape: tuple[int, ...]) -> None:
    """Refuse what cannot be exported of logits of the shape (K, z, y, x).

    Raises
    ------
    InputError
        No target, one that the model has not, the gap of regions, of two classes or of soft
        labels, or a rule that is not the model's.
    """
    if not wanted.targets:
        raise InputError("No target was chosen.", "Choose at least one label of the model.")
    heads = [model.head(name) for name in wanted.targets]
    rule_of(model, wanted.rule)
    if model.soft:
        _check_soft(model, wanted, heads)
    if not wanted.gap:
        return
    if model.regions:
        raise InputError(
            "The model predicts overlapping regions, which have no information gap.",
            "Leave the gap out.",
        )
    check_classes(shape, heads[0])


def rule_of(model: ModelFolder, rule: Rule) -> Rule:
    """Return the rule by which a model decides, if this one was asked for.

    Raises
    ------
    InputError
        It decides otherwise.
    """
    if model.soft and rule == "p > 0.5":
        raise InputError(
            "The model learnt soft labels: it predicts shares of a voxel, which are no "
            "probabilities, so the rule p > 0.5 says nothing.",
            f"Leave the rule out: it decides by {SHARE}.",
        )
    if not model.soft and rule == SHARE:
        raise InputError(
            f"The rule {SHARE} is for models of soft labels; this one predicts classes.",
            "Use argmax or p > 0.5.",
        )
    return SHARE if model.soft else rule


def _check_soft(model: ModelFolder, wanted: Wanted, heads: list[int]) -> None:
    if model.activation not in ACTIVATIONS or model.regions:
        raise InputError(
            f"The model says that it learnt soft labels with the activation {model.activation!r}, "
            f"which is none of {', '.join(ACTIVATIONS)}, or that it has regions.",
            "Restore its dataset.json.",
        )
    if wanted.gap:
        raise InputError(
            "The model learnt soft labels: its shares of a voxel are no probabilities of classes, "
            "of which alone there is an information gap.",
            "Leave the gap out.",
        )
    if 0 in heads:
        raise InputError("A model of soft labels has no share of the background.", "Leave it out.")
    if sorted(model.head(name) for name in model.targets) != [*range(1, len(model.targets) + 1)]:
        raise InputError(
            "The targets of a model of soft labels come first among its labels; in this "
            "dataset.json they do not.",
            "Restore its dataset.json.",
        )
