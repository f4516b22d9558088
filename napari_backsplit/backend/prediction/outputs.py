"""The files of a prediction: what they are called and what stands in them. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.targets import match_targets
from napari_backsplit.backend.prediction.wanted import SHARE, Prediction, Rule, Wanted, rule_of
from napari_backsplit.backend.prediction.written import write_array

RULES: tuple[Rule, ...] = ("argmax", "p > 0.5")
"""What can be asked for; a model of soft labels knows "share > 0.5" alone."""


@dataclass(frozen=True)
class Outputs:
    """What to write of a case.

    Attributes
    ----------
    targets : dict of str to str
        Name of the target -> the model's label for it.
    ids : dict of str to int
        Name of the target -> id in the mask.
    probabilities, full_label_map, gap : bool
        Also write a probability map of each target, or by the rule share > 0.5 the map of its
        shares; all classes of the model; the information gap of the first target.
    rule : str
        When a voxel is a target; see `Wanted`.
    """

    targets: dict[str, str]
    ids: dict[str, int]
    probabilities: bool = False
    full_label_map: bool = False
    gap: bool = False
    rule: Rule = "argmax"

    @property
    def wanted(self) -> Wanted:
        """What to ask the predictor for."""
        return Wanted(
            tuple(self.targets.values()),
            rule=self.rule,
            probabilities=self.probabilities,
            labels=self.full_label_map,
            gap=self.gap,
        )

    @property
    def kind(self) -> str:
        """What the maps of the targets hold: "probability" or "share"."""
        return "share" if self.rule == SHARE else "probability"

    def files(self, folder: Path, case: str) -> dict[str, Path]:
        """Return the files of a case.

        "mask", "labels", "gap", "probability of <target>", or "share of <target>": what is a
        share of a voxel is not called a probability.
        """
        names = {"mask": f"{case}.nii.gz"}
        if self.full_label_map:
            names["labels"] = f"{case}_labels.nii.gz"
        if self.gap:
            names["gap"] = f"{case}_gap.nii.gz"
        for target in self.targets if self.probabilities else ():
            middle = f"_{target}" if len(self.targets) > 1 else ""
            names[f"{self.kind} of {target}"] = f"{case}{middle}_{self.kind}.nii.gz"
        return {what: folder / name for what, name in names.items()}

    def write(self, prediction: Prediction, files: Mapping[str, Path]) -> None:
        """Write the files of a case, the mask last: where it is, the case is finished.

        Raises
        ------
        ProjectError
            The disk is full or read-only; no file is half written.
        """
        for what in sorted(files, key=lambda what: what == "mask"):
            text = f"{what}, {self.rule}" if what == "mask" else what
            write_array(self._array(what, prediction), files[what], prediction.grid, text)

    def _array(self, what: str, prediction: Prediction) -> NDArray[Any]:
        exported = prediction.exported
        if what == "mask":
            return self._with_ids(exported.mask)
        if what in ("labels", "gap"):
            array: NDArray[Any] = getattr(exported, what)
            return array
        names = [f"{self.kind} of {target}" for target in self.targets]
        return exported.probabilities[names.index(what)]

    def _with_ids(self, mask: NDArray[Any]) -> NDArray[Any]:
        ids = [0, *(self.ids[target] for target in self.targets)]
        if ids == list(range(len(ids))):
            return mask
        table = np.array(ids, np.uint8 if max(ids) < 256 else np.uint16)
        own: NDArray[Any] = table[mask]
        return own


def outputs_of(model: ModelFolder, names: Sequence[str], params: Mapping[str, Any]) -> Outputs:
    """Return what a job writes of the cases of a project.

    Parameters
    ----------
    names : sequence of str
        The project's targets.
    params : mapping
        rule, targets, probabilities, full_label_map and gap, as of the job.

    Raises
    ------
    InputError
        There is no such rule, it is not the model's, or a target has no label of the model.
    """
    rule = params.get("rule", "argmax")
    if rule not in (*RULES, SHARE):
        raise InputError(f"There is no rule {rule!r}.", f"Choose from: {', '.join(RULES)}.")
    return Outputs(
        match_targets(model, names, params.get("targets")),
        {name: index for index, name in enumerate(names, start=1)},
        params.get("probabilities", False),
        params.get("full_label_map", False),
        params.get("gap", False),
        rule_of(model, rule),
    )
