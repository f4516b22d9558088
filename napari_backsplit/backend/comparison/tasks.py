"""The comparison as a job: predictions of a project's cases against its references.

A prediction job leaves, in its folder ``predictions/``, a label map ``<case>.nii.gz`` of the
targets (ids 1..T) on the image's grid, perhaps ``<case>[_<target>]_probability.nii.gz``, and
``predictions.json`` with what its model had seen.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.compare import CaseInput, conclude, measure_case
from napari_backsplit.backend.comparison.policy import EmptyMaskPolicy
from napari_backsplit.backend.comparison.report import ReportInfo, write_report
from napari_backsplit.backend.comparison.results import Comparison, ComparisonSettings, Row
from napari_backsplit.backend.comparison.seen import (
    ModelRecord,
    SeenStatus,
    case_status,
    weakest,
)
from napari_backsplit.backend.comparison.statistics import Bootstrap
from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.jobs import JobContext, Phase, Progress
from napari_backsplit.backend.prediction.roles import HELD_OUT
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Volume, read_label_map, read_volume

_STATUSES: tuple[SeenStatus, ...] = ("verified", "declared", "unknown", "seen")


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
    """

    name: str
    folder: Path
    record: Mapping[str, Any]

    @classmethod
    def open(cls, name: str, folder: Path) -> ArmFolder:
        """Read what a prediction job left.

        Raises
        ------
        InputError
            There is no record of predictions.
        """
        inner = folder / "predictions"
        places = [folder / "predictions.json", inner / "predictions.json"]
        record = next((place for place in places if place.exists()), None)
        if record is None:
            raise InputError(
                f"The arm {name} has no finished predictions.", "Predict with it first."
            )
        return cls(name, inner if inner.is_dir() else folder, read_json(record))

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases that were predicted."""
        return tuple(case for case in self.record["cases"] if self.mask_path(case).exists())

    def mask_path(self, case: str) -> Path:
        """Return the label map of a case."""
        return self.folder / f"{case}.nii.gz"

    def probability_path(self, case: str, target: str, targets: Sequence[str]) -> Path:
        """Return the probability map of a target, which need not exist."""
        middle = f"_{target}" if len(targets) > 1 else ""
        return self.folder / f"{case}{middle}_probability.nii.gz"

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
        return by_hash if by_hash == "seen" or said not in _STATUSES else said


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
    def open(cls, name: str, folders: Sequence[Path]) -> Arm:
        """Read what the prediction jobs of an arm left.

        Raises
        ------
        InputError
            There is no record of predictions, or two jobs predicted the same case.
        """
        arm = cls(name, tuple(ArmFolder.open(name, folder) for folder in folders))
        twice = [case for case, count in Counter(arm.cases).items() if count > 1]
        if twice:
            raise InputError(
                f"{twice[0]} was predicted twice for the arm {name}.",
                "Pool predictions of different cases, as those of the folds are.",
            )
        return arm

    @property
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
    def configurations(self) -> set[str | None]:
        """nnU-Net's configurations of its models."""
        return {(f.record.get("model") or {}).get("configuration") for f in self.folders}

    def folder_of(self, case: str) -> ArmFolder:
        """Return the predictions that a case is in."""
        return next(folder for folder in self.folders if case in folder.cases)


@dataclass(frozen=True)
class CaseReader:
    """Reads the cases of a project with the predictions of several arms."""

    project: Project
    arms: tuple[Arm, ...]

    def read(self, case: str, *, for_figure: bool = False) -> CaseInput:
        """Read a case: with the image for a figure, otherwise with the probabilities."""
        value = self.project.case(case)
        geometry = self.project.geometry(case)
        targets = self.project.schema.target_names
        masks = self.project.masks(case)
        image = self.project.image_paths(case)[0] if for_figure else None
        arms = [arm.folder_of(case) for arm in self.arms]
        return CaseInput(
            case=case,
            patient=value.patient,
            spacing_mm=geometry.spacing_mm,
            reference={target: masks[target] for target in targets if target in masks},
            predictions={arm.name: self._masks(arm, case, targets) for arm in arms},
            probabilities={}
            if for_figure
            else {arm.name: self._probabilities(arm, case, targets) for arm in arms},
            image=read_volume(image) if image else None,
            seen=weakest(arm.seen(case, self._hashes(case)) for arm in arms),
        )

    def _hashes(self, case: str) -> list[str]:
        images = self.project.case(case).images.values()
        known = [digest for image in images for digest in (image.sha256, image.source_sha256)]
        return [digest for digest in known if digest]

    def _masks(
        self, arm: ArmFolder, case: str, targets: Sequence[str]
    ) -> dict[str, NDArray[np.bool_]]:
        label_map = self._on_grid(read_label_map(arm.mask_path(case)), arm, case)
        return {target: label_map == number for number, target in enumerate(targets, start=1)}

    def _probabilities(
        self, arm: ArmFolder, case: str, targets: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        paths = {target: arm.probability_path(case, target, targets) for target in targets}
        return {
            target: self._on_grid(read_volume(path), arm, case)
            for target, path in paths.items()
            if path.exists()
        }

    def _on_grid(self, volume: Volume, arm: ArmFolder, case: str) -> NDArray[Any]:
        difference = self.project.geometry(case).difference(volume.geometry)
        if difference:
            raise GeometryError(
                f"The prediction of {case} by {arm.name} is on another grid: {difference}",
                "Predict the case again.",
            )
        return volume.array


def run_compare(context: JobContext) -> dict[str, Any]:
    """Compare prediction jobs on the project's references; write comparisons/<id>/.

    Parameters of the job: arms (name -> folder of a prediction job, relative to the project, or
    a list of folders that are pooled, as those of the folds are), baseline (name), controls
    (names), about (name -> what the arm is, in words), tolerance_mm, cases (None: those that all
    arms predicted), missed_hd95, resamples, seed, title.

    Returns
    -------
    dict
        "report", the path of report.html in the project; "folder"; "verdict", one sentence for
        each target and pair; "cases", how many were compared.
    """
    params = context.params
    arms = tuple(
        Arm.open(name, [context.path(folder) for folder in _listed(folders)])
        for name, folders in params["arms"].items()
    )
    with Project.open(context.project_folder, read_only=True) as project:
        reader = CaseReader(project, arms)
        cases = choose_cases(project, arms, params.get("cases"))
        comparison = conclude(list(_measure(context, reader, cases)), settings_of(params))
        context.report(Phase(name="report"))
        folder = context.project_folder / "comparisons" / context.folder.name
        report = write_report(
            comparison,
            folder,
            lambda case: reader.read(case, for_figure=True),
            ReportInfo(
                title=params.get("title") or "Comparison",
                arms=params.get("about"),
                notes=tuple(_notes(project, arms, cases)),
            ),
        )
    return _result(context, comparison, report, cases)


def _listed(folders: str | Sequence[str]) -> Sequence[str]:
    return [folders] if isinstance(folders, str) else folders


def settings_of(params: Mapping[str, Any]) -> ComparisonSettings:
    """Return the settings that a job's parameters ask for."""
    names = list(params["arms"])
    return ComparisonSettings(
        baseline=params.get("baseline") or names[0],
        controls=tuple(params.get("controls") or ()),
        tolerance_mm=float(params.get("tolerance_mm", 2.0)),
        bootstrap=replace(
            Bootstrap(),
            resamples=int(params.get("resamples", 10_000)),
            seed=int(params.get("seed", 0)),
        ),
        policy=EmptyMaskPolicy(params.get("missed_hd95", "leave out")),
    )


def choose_cases(project: Project, arms: Sequence[Arm], wanted: Sequence[str] | None) -> list[str]:
    """Return the labelled cases that every arm predicted, or check those wanted.

    Raises
    ------
    InputError
        A wanted case lacks a reference or a prediction, or no case is left.
    """
    common = [case for case in arms[0].cases if all(case in arm.cases for arm in arms[1:])]
    able = [case for case in common if _labelled(project, case)]
    lacking = sorted(set(wanted or ()) - set(able))
    if lacking:
        raise InputError(
            f"{', '.join(lacking)} cannot be compared: a reference or a prediction is missing, "
            "or was rejected in the review.",
            "Predict the case with every arm, or leave it out.",
        )
    chosen = [case for case in able if wanted is None or case in wanted]
    if not chosen:
        raise InputError(
            "No case has a reference and a prediction of every arm.", "Predict the same cases."
        )
    return chosen


def _labelled(project: Project, case: str) -> bool:
    targets = project.schema.target_names
    there = case in project.case_ids() and all(project.mask_path(case, t) for t in targets)
    return there and not project.rejected(case)


def _measure(context: JobContext, reader: CaseReader, cases: Sequence[str]) -> Iterator[Row]:
    settings = settings_of(context.params)
    context.report(Phase(name="measure"))
    began = time.monotonic()
    for done, case in enumerate(cases):
        context.checkpoint()
        pace = (time.monotonic() - began) / done if done else None
        eta_s = None if pace is None else pace * (len(cases) - done)
        context.report(Progress(done=done, total=len(cases), text=case, eta_s=eta_s))
        yield from measure_case(reader.read(case), settings)
    context.report(Progress(done=len(cases), total=len(cases)))


def _notes(project: Project, arms: Sequence[Arm], cases: Sequence[str]) -> Iterator[str]:
    predicted = {case for arm in arms for case in arm.recorded}
    if left_out := len(predicted - set(cases)):
        yield (
            f"{left_out} predicted case{'s' if left_out > 1 else ''} left out: without a "
            "reference, rejected in the review, not predicted by every arm, or not chosen."
        )
    if len(set.union(*(arm.configurations for arm in arms))) > 1:
        yield "The arms use different configurations: more than the label map differs."
    roles = {case: {arm.recorded[case].get("role") for arm in arms} for case in cases}
    held_out = [case for case, each in roles.items() if HELD_OUT in each <= {HELD_OUT, "unseen"}]
    if held_out:
        yield (
            f"Cross-validation: {len(held_out)} of {len(cases)} cases were predicted by networks "
            "of the fold that held them out, with the last checkpoint, which does not depend on "
            "them. Plans, and supports that were chosen for the whole project, may."
        )


def _result(
    context: JobContext, comparison: Comparison, report: Path, cases: Sequence[str]
) -> dict[str, Any]:
    relative = report.relative_to(context.project_folder)
    return {
        "report": relative.as_posix(),
        "folder": relative.parent.as_posix(),
        "verdict": [verdict.sentence for verdict in comparison.verdicts],
        "cases": len(cases),
    }
