"""The predictions of an arm, as prediction jobs or another program left them.

A prediction job leaves, in its folder ``predictions/``, a label map ``<case>.nii.gz`` of the
targets (ids 1..T) on the image's grid, perhaps ``<case>[_<target>]_probability.nii.gz`` (of a
model of soft labels ``_share.nii.gz``), and ``predictions.json`` with what its model had seen. Any
folder of such label maps will do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from napari_backsplit.backend.comparison.seen import ModelRecord, SeenStatus, case_status
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.prediction.roles import HELD_OUT

DECIDES: Mapping[str, Any] = {"mirroring": True, "step_size": 0.5, "rule": "argmax"}
"""Settings of a prediction that decide its masks, beside the model, with what holds by default."""

_STATUSES: tuple[SeenStatus, ...] = ("verified", "declared", "unknown", "seen")
_SUFFIX = ".nii.gz"
_BESIDE = ("_probability", "_share", "_labels", "_gap")  # what lies beside the label map of a case


def map_path(
    folder: Path, case: str, target: str, targets: Sequence[str]
) -> tuple[Path, Literal["share", "probability"]]:
    """Return the map of a target in a folder of predictions, and what it holds.

    A file of shares where there is one, else that of probabilities, which need not exist.
    """
    start = f"{case}_{target}" if len(targets) > 1 else case
    share = folder / f"{start}_share{_SUFFIX}"
    if share.exists():
        return share, "share"
    return folder / f"{start}_probability{_SUFFIX}", "probability"


def decided(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `DECIDES` that hold for a predictions.json; none where it has none.

    A job leaves out what is usual; masks of another program come without any settings at all.
    """
    settings = record.get("settings") or {}
    return {name: settings.get(name, usual) for name, usual in DECIDES.items() if settings}


@dataclass(frozen=True)
class ArmFolder:
    """The predictions of one arm.

    Parameters
    ----------
    name : str
        The arm.
    folder : Path
        The folder of a prediction job.
    record : mapping
        Its predictions.json.
    declared : bool
        The user declares that its model saw none of the cases.
    """

    name: str
    folder: Path
    record: Mapping[str, Any]
    declared: bool = False

    @classmethod
    def open(cls, name: str, folder: Path, declared: bool = False) -> ArmFolder:
        """Read what a prediction job left, or a plain folder of label maps.

        Of the latter nothing is recorded: unless declared, it is unknown what its model had seen.

        Raises
        ------
        InputError
            There are no predictions.
        """
        inner = folder / "predictions"
        places = [folder / "predictions.json", inner / "predictions.json"]
        record = next((place for place in places if place.exists()), None)
        place = inner if inner.is_dir() else folder
        if record is not None:
            return cls(name, place, read_json(record), declared)
        masks = _plain_masks(place)
        if not masks or (folder / "job.json").exists():
            raise InputError(
                f"The arm {name} has no finished predictions.", "Predict with it first."
            )
        return cls(name, place, {"cases": {case: {} for case in masks}}, declared)

    @cached_property
    def cases(self) -> tuple[str, ...]:
        """The cases that were predicted, looked for once."""
        return tuple(case for case in self.record["cases"] if self.mask_path(case).exists())

    def mask_path(self, case: str) -> Path:
        """Return the label map of a case."""
        return self.folder / f"{case}.nii.gz"

    def probability_path(self, case: str, target: str, targets: Sequence[str]) -> Path:
        """Return the probability map of a target, or that of its shares; it need not exist."""
        return map_path(self.folder, case, target, targets)[0]

    def has_shares(self, case: str, target: str, targets: Sequence[str]) -> bool:
        """Whether there is a map of how much of each voxel is a target."""
        path, kind = map_path(self.folder, case, target, targets)
        return kind == "share" and path.exists()

    def seen(self, case: str, hashes: Sequence[str]) -> SeenStatus:
        """Say whether the arm's model had seen a case: what its record and its hashes allow."""
        entry = self.record["cases"].get(case) or {}
        if entry.get("role") in ("training", "validation"):
            return "seen"
        model = cast(ModelRecord, (self.record.get("model") or {}).get("seen") or {})
        if entry.get("role") == HELD_OUT:
            model = cast(ModelRecord, {**model, "validation": []})
        by_hash = case_status(hashes, model)
        said = entry.get("seen", "unknown")
        status = by_hash if by_hash == "seen" or said not in _STATUSES else said
        return "declared" if status == "unknown" and self.declared else status


@dataclass(frozen=True)
class Arm:
    """The predictions of an arm: of one model, or of a model for each fold on its own cases.

    Parameters
    ----------
    name : str
    folders : tuple of ArmFolder
        No case is in two of them.
    """

    name: str
    folders: tuple[ArmFolder, ...]

    @classmethod
    def open(cls, name: str, folders: Sequence[Path], declared: bool = False) -> Arm:
        """Read what the prediction jobs of an arm left.

        Raises
        ------
        InputError
            There is no record of predictions, or two jobs predicted the same case.
        """
        arm = cls(name, tuple(ArmFolder.open(name, folder, declared) for folder in folders))
        twice = [case for case, count in Counter(arm.cases).items() if count > 1]
        if twice:
            raise InputError(
                f"{twice[0]} was predicted twice for the arm {name}.",
                "Pool predictions of different cases, as those of the folds are.",
            )
        return arm

    @cached_property
    def cases(self) -> tuple[str, ...]:
        """The cases that were predicted."""
        return tuple(case for folder in self.folders for case in folder.cases)

    @property
    def recorded(self) -> dict[str, Mapping[str, Any]]:
        """What is known of each case: whether it was seen, and its role in the model's training."""
        return {
            case: entry or {}
            for folder in self.folders
            for case, entry in folder.record["cases"].items()
        }

    @property
    def models(self) -> tuple[str, ...]:
        """The folders of its models, as its predictions name them; "" where they do not."""
        named = ((folder.record.get("model") or {}).get("path") for folder in self.folders)
        return tuple(str(path or "") for path in named)

    @property
    def configurations(self) -> set[str]:
        """nnU-Net's configurations of its models; none of masks of another program."""
        named = ((folder.record.get("model") or {}).get("configuration") for folder in self.folders)
        return {str(name) for name in named if name}

    def decided(self, name: str) -> set[Any]:
        """Return the values of a setting of `DECIDES`; none of masks of another program."""
        each = (decided(folder.record) for folder in self.folders)
        return {settings[name] for settings in each if name in settings}

    @property
    def folds(self) -> set[str]:
        """The folds of its models that predicted."""
        each = ((folder.record.get("model") or {}).get("folds") or () for folder in self.folders)
        return {str(fold) for folds in each for fold in folds}

    @property
    def checkpoints(self) -> set[str]:
        """The names of the checkpoints that predicted."""
        each = ((folder.record.get("settings") or {}).get("checkpoint") for folder in self.folders)
        return {str(name) for name in each if name}

    @property
    def targets(self) -> set[tuple[str, ...]]:
        """The targets, in the order of their ids, that its predictions are recorded to be of."""
        named = (folder.record.get("targets") for folder in self.folders)
        return {tuple(targets) for targets in named if targets}

    def folder_of(self, case: str) -> ArmFolder:
        """Return the predictions that a case is in."""
        return next(folder for folder in self.folders if case in folder.cases)


def _plain_masks(folder: Path) -> list[str]:
    """Return the names of the label maps in a folder, as nnU-Net writes them: one a case."""
    names = (file.name.removesuffix(_SUFFIX) for file in sorted(folder.glob(f"*{_SUFFIX}")))
    return [name for name in names if not name.endswith(_BESIDE)]
