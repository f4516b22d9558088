"""What is laid over the image of a case: its reference and the predictions of two models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.agreement import LabelMap, agreement
from napari_backsplit.backend.comparison.arms import map_path
from napari_backsplit.backend.errors import BackSplitError, GeometryError
from napari_backsplit.backend.geometry import Geometry
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Volume, read_label_map, read_volume


@dataclass(frozen=True)
class Overlay:
    """The files to show over a case; nothing is read yet.

    Attributes
    ----------
    case, target : str
    number : int
        The target's id in the label maps of the predictions.
    geometry : Geometry
        Of the case, as stored.
    baseline, new : str
        The two arms.
    reference : Path, optional
        The mask of the target, None for a case without one.
    predictions, probabilities : Mapping of str to Path
        Arm -> its label map, and its map of the target, where there is one: its probability, or
        its share of the voxel.
    """

    case: str
    target: str
    number: int
    geometry: Geometry = field(compare=False)
    baseline: str
    new: str
    reference: Path | None = None
    predictions: Mapping[str, Path] = field(default_factory=dict)
    probabilities: Mapping[str, Path] = field(default_factory=dict)

    @property
    def arms(self) -> tuple[str, str]:
        """The baseline, then the new model."""
        return self.baseline, self.new

    @property
    def missing(self) -> tuple[str, ...]:
        """The arms that have not predicted the case."""
        return tuple(arm for arm in self.arms if arm not in self.predictions)

    def follows(self, other: Overlay) -> bool:
        """Whether it shows another case, or the same, as the other one does its own."""
        return (self.target, self.arms) == (other.target, other.arms)


@dataclass(frozen=True, eq=False)
class Loaded:
    """What was read of an overlay.

    Attributes
    ----------
    agreement : ndarray of uint8
        (z, y, x), canonical: see `agreement.agreement`. An arm that is not there marks nothing.
    has_reference : bool
    arms : tuple of str
        Those whose prediction is there.
    refused : tuple of BackSplitError
        Why others are not, where their file cannot be used.
    """

    overlay: Overlay
    agreement: LabelMap
    has_reference: bool
    arms: tuple[str, ...]
    refused: tuple[BackSplitError, ...] = ()


def overlay_of(
    project: Project,
    folders: Mapping[str, tuple[Path, ...]],
    case: str,
    target: str,
    baseline: str,
    new: str,
) -> Overlay:
    """Return what can be shown of a case: a few looks at the disk, nothing is read.

    Parameters
    ----------
    project : Project
    folders : Mapping of str to tuple of Path
        Arm -> the folders of its prediction jobs, absolute or relative to the project; of several
        that have predicted the case, the first counts.
    case, target, baseline, new : str

    Raises
    ------
    ProjectError
        The project has no such case.
    """
    targets = project.schema.target_names
    masks: dict[str, Path] = {}
    maps: dict[str, Path] = {}
    for arm in (baseline, new):
        places = [_inner(project.folder / folder) for folder in folders.get(arm, ())]
        place = next((place for place in places if (place / f"{case}.nii.gz").exists()), None)
        if place is None:
            continue
        masks[arm] = place / f"{case}.nii.gz"
        path, _ = map_path(place, case, target, targets)
        if path.exists():
            maps[arm] = path
    return Overlay(
        case=case,
        target=target,
        number=targets.index(target) + 1,
        geometry=project.geometry(case),
        baseline=baseline,
        new=new,
        reference=project.mask_path(case, target),
        predictions=masks,
        probabilities=maps,
    )


def load(overlay: Overlay) -> Loaded:
    """Read the masks of an overlay into one map; an arm whose file cannot be used is left out."""
    shape = overlay.geometry.canonical().shape
    masks: dict[str, NDArray[np.bool_]] = {}
    refused: list[BackSplitError] = []
    for arm, path in overlay.predictions.items():
        try:
            masks[arm] = _read(overlay, read_label_map(path), f"The prediction by {arm}")
        except BackSplitError as error:
            refused.append(error)
    reference = None
    if overlay.reference is not None:
        try:
            volume = read_label_map(overlay.reference)
            reference = _on_grid(overlay, volume, "The reference") != 0
        except BackSplitError as error:
            refused.append(error)
    none = np.broadcast_to(np.False_, shape)
    baseline, new = (masks.get(arm, none) for arm in overlay.arms)
    return Loaded(
        overlay,
        agreement(reference, baseline, new),
        reference is not None,
        tuple(masks),
        tuple(refused),
    )


def load_probability(overlay: Overlay, arm: str) -> NDArray[np.uint8] | None:
    """Return the probability, or share, of the target in whole per cent: (z, y, x), canonical.

    As uint8; None where the arm wrote no map of the case.

    Raises
    ------
    InputError
        The file cannot be read, or lies on another grid.
    """
    path = overlay.probabilities.get(arm)
    if path is None:
        return None
    array = _on_grid(overlay, read_volume(path), f"The probability map of {arm}")
    per_cent = np.clip(np.nan_to_num(array) * np.float32(100), 0, 100)
    return np.asarray(np.rint(per_cent, out=per_cent), np.uint8)


def _inner(folder: Path) -> Path:
    inner = folder / "predictions"
    return inner if inner.is_dir() else folder


def _read(overlay: Overlay, volume: Volume, what: str) -> NDArray[np.bool_]:
    return np.asarray(_on_grid(overlay, volume, what) == overlay.number)


def _on_grid(overlay: Overlay, volume: Volume, what: str) -> NDArray[Any]:
    difference = overlay.geometry.difference(volume.geometry)
    if difference:
        raise GeometryError(
            f"{what} of {overlay.case} is on another grid than its image: {difference}",
            "Predict the case again.",
        )
    return volume.canonical().array
