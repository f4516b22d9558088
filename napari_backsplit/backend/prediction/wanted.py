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

Rule = Literal["argmax", "p > 0.5"]


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
        it is more likely than all of them together.
    probabilities : bool
        Also the probability of each target.
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
        All labels, with nnU-Net's values.
    probabilities : tuple of ndarray of float32, (z, y, x)
        One a target if they were asked for, 0 to 1; 0 outside nnU-Net's crop.
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
        No target, one that the model has not, or the gap of regions or of two classes.
    """
    if not wanted.targets:
        raise InputError("No target was chosen.", "Choose at least one label of the model.")
    heads = [model.head(name) for name in wanted.targets]
    if not wanted.gap:
        return
    if model.regions:
        raise InputError(
            "The model predicts overlapping regions, which have no information gap.",
            "Leave the gap out.",
        )
    check_classes(shape, heads[0])
