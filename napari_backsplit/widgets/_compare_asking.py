"""What the comparison's panel asks of the backend, loaded when it is asked: never in its thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_backsplit.backend.project import Project
from napari_backsplit.widgets import _asking

if TYPE_CHECKING:
    from napari_backsplit.backend.comparing import Proposal
    from napari_backsplit.backend.comparison.overlays import Overlay
    from napari_backsplit.backend.jobs.devices import Device
    from napari_backsplit.backend.model_choices import CaseGroups, ModelChoice
    from napari_backsplit.backend.shown import Listed, Shown


@dataclass(frozen=True)
class Asked:
    """What a person asks for: the arms' models by name, the baseline, cases, settings."""

    models: Mapping[str, str]
    baseline: str
    cases: tuple[str, ...]
    settings: Mapping[str, Any]


def models(project_folder: Path) -> Sequence[ModelChoice]:
    """Return the models of a project."""
    from napari_backsplit.backend import comparing

    return comparing.models(project_folder)


def suggested(choices: Sequence[ModelChoice]) -> Sequence[str]:
    """Return the paths of the models that a person most likely means."""
    from napari_backsplit.backend import comparing

    return comparing.suggested(choices)


def groups(project: Project, choices: Sequence[ModelChoice]) -> CaseGroups:
    """Sort the cases for a comparison of some models."""
    from napari_backsplit.backend.model_choices import case_groups

    return case_groups(project, choices)


def propose(project: Project, asked: Asked) -> Proposal:
    """Return what would be done."""
    from napari_backsplit.backend import comparing

    return comparing.propose(project, asked.models, asked.baseline, asked.cases, asked.settings)


def begin(project: Project, asked: Asked) -> str:
    """Queue it, and return the chain's name."""
    from napari_backsplit.backend import comparing

    return comparing.begin(project, asked.models, asked.baseline, asked.cases, asked.settings)


def listed(project_folder: Path) -> Sequence[Listed]:
    """Return what can be looked at, the newest first."""
    from napari_backsplit.backend import shown

    return shown.listed(project_folder)


def open_shown(project: Project, name: str) -> Shown:
    """Read a result."""
    from napari_backsplit.backend import shown

    return shown.open_shown(project, name)


def predicted(project: Project, asked: Asked) -> Shown:
    """Return predictions that are there already, unmeasured."""
    from napari_backsplit.backend import comparing, shown

    choices = [
        choice
        for choice in comparing.models(project.folder)
        if choice.path in asked.models.values()
    ]
    title = f"Predicted: {len(asked.cases)} case{'s' * (len(asked.cases) != 1)}"
    order = [asked.models[asked.baseline], *asked.models.values()]
    return shown.predicted_by(project, choices, asked.cases, order, "", title, order[0])


def overlay(project: Project, shown: Shown, case: str, target: str, new: str) -> Overlay:
    """Return the files to lay over a case."""
    from napari_backsplit.backend.comparison.overlays import overlay_of

    return overlay_of(project, shown.folders, case, target, shown.baseline, new)


def volumes_ml(loaded: Any) -> dict[int, float]:
    """Return the volume in ml of each part of an agreement map."""
    import numpy as np

    grid = loaded.overlay.geometry
    voxel_ml = float(np.prod(grid.spacing_mm)) / 1000
    counts = np.bincount(loaded.agreement.ravel(), minlength=8)
    return {number: float(counts[number]) * voxel_ml for number in range(1, 8)}


def running(project_folder: Path) -> str:
    """Return the newest chain that predicts or compares and is not over; "" for none."""
    from napari_backsplit.backend.jobs import chains
    from napari_backsplit.backend.jobs.spec import FINAL

    for chain in reversed(chains(project_folder)):
        tasks = {job.spec.task for job in chain.jobs}
        if tasks <= {"predict", "compare"} and chain.status().state not in FINAL:
            return chain.name
    return ""


def write_pdf(report: Path) -> Path:
    """Print a report to a PDF beside it."""
    from napari_backsplit.backend.comparison.pdf import write_pdf

    file = report.with_suffix(".pdf")
    if not file.exists() or file.stat().st_mtime < report.stat().st_mtime:
        write_pdf(report, file)
    return file


def came_as_dicom(project: Project, case: str) -> bool:
    """Whether a case was a DICOM series."""
    from napari_backsplit.backend.prediction.dicom_source import came_as_dicom

    return came_as_dicom(project, case)


def write_seg(project: Project, case: str, predictions: Path, destination: Path) -> Path:
    """Write a prediction as DICOM SEG to a new file."""
    from napari_backsplit.backend.prediction.dicom_seg import write_seg

    return write_seg(project, case, predictions, destination)


@dataclass(frozen=True)
class CompareWays:
    """What is asked of the backend, in a thread; a test gives other answers."""

    models: Callable[[Path], Sequence[ModelChoice]] = models
    suggested: Callable[[Sequence[ModelChoice]], Sequence[str]] = suggested
    groups: Callable[[Project, Sequence[ModelChoice]], CaseGroups] = groups
    propose: Callable[[Project, Asked], Proposal] = propose
    begin: Callable[[Project, Asked], str] = begin
    listed: Callable[[Path], Sequence[Listed]] = listed
    open_shown: Callable[[Project, str], Shown] = open_shown
    predicted: Callable[[Project, Asked], Shown] = predicted
    overlay: Callable[[Project, Shown, str, str, str], Overlay] = overlay
    volumes_ml: Callable[[Any], Mapping[int, float]] = volumes_ml
    running: Callable[[Path], str] = running
    write_pdf: Callable[[Path], Path] = write_pdf
    came_as_dicom: Callable[[Project, str], bool] = came_as_dicom
    write_seg: Callable[[Project, str, Path, Path], Path] = write_seg
    recommend: Callable[[], Mapping[str, Any]] = _asking.recommend
    devices: Callable[[], Sequence[Device]] = _asking.devices
    repeat: Callable[[Any, Mapping[str, Any]], Any] = _asking.repeat
