"""An audit before training: every case is read once, checked alone and against the cohort."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.fusion import integrity, quality
from napari_backsplit.backend.fusion.components import Island, islands
from napari_backsplit.backend.fusion.findings import Finding, Limits, Severity
from napari_backsplit.backend.fusion.fuse import Mask
from napari_backsplit.backend.geometry import axis_codes
from napari_backsplit.backend.volume import read_geometry, read_label_map, read_volume

if TYPE_CHECKING:
    from napari_backsplit.backend.project import Project

__all__ = ["Audit", "Finding", "Limits", "Measure", "Summary", "audit", "examine", "summarise"]

_RANK: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Measure:
    """What was measured of one mask: its volume and islands, the largest first."""

    case: str
    structure: str
    islands: tuple[Island, ...]

    @property
    def ml(self) -> float:
        """The volume of the mask."""
        return sum(island.ml for island in self.islands)


@dataclass(frozen=True)
class Summary:
    """One structure over the cohort.

    Attributes
    ----------
    cases, empty, missing
        Cases with voxels, with an empty mask, and with none.
    median_ml, least_ml, most_ml
        Of the cases with voxels; 0 where there are none.
    islands
        Components of all cases together.
    """

    structure: str
    cases: int
    empty: int
    missing: int
    median_ml: float
    least_ml: float
    most_ml: float
    islands: int


@dataclass(frozen=True)
class Audit:
    """What an audit found, the gravest first, and what it measured."""

    findings: tuple[Finding, ...]
    measures: tuple[Measure, ...]
    summary: tuple[Summary, ...]

    @property
    def passed(self) -> bool:
        """True where there is no error."""
        return all(finding.severity != "error" for finding in self.findings)


def audit(project: Project, limits: Limits | None = None) -> list[Finding]:
    """Check a project before training; see `examine`."""
    return list(examine(project, limits).findings)


def examine(
    project: Project,
    limits: Limits | None = None,
    cases: Sequence[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Audit:
    """Check and measure the cases of a project. It writes nothing.

    Parameters
    ----------
    project : Project
    limits : Limits, optional
    cases : sequence of str, optional
        Defaults to all.
    progress : callable
        Told the cases done and their number after each; it may raise to stop the audit.
    """
    limits = limits or Limits()
    chosen = tuple(project.case_ids() if cases is None else cases)
    reports = []
    for done, case in enumerate(chosen, start=1):
        reports.append(_examine_case(project, case, limits))
        progress(done, len(chosen))
    measures = tuple(measure for report in reports for measure in report.measures)
    findings = [finding for report in reports for finding in report.findings]
    findings += integrity.check_duplicates({r.case: r.digest for r in reports if r.digest})
    codes = {case: axis_codes(project.geometry(case)) for case in chosen}
    findings += integrity.check_orientations(codes)
    findings += _outliers(project, measures, limits)
    findings.sort(key=lambda finding: _RANK[finding.severity])
    return Audit(tuple(findings), measures, summarise(project, measures, len(chosen)))


def summarise(project: Project, measures: Sequence[Measure], cases: int) -> tuple[Summary, ...]:
    """Return a row for each structure of a project: targets, then supports."""
    return tuple(
        _summary(structure.name, [m for m in measures if m.structure == structure.name], cases)
        for structure in project.schema.structures
    )


def _summary(structure: str, measures: Sequence[Measure], cases: int) -> Summary:
    ml = [measure.ml for measure in measures if measure.islands]
    return Summary(
        structure=structure,
        cases=len(ml),
        empty=len(measures) - len(ml),
        missing=cases - len(measures),
        median_ml=median(ml) if ml else 0.0,
        least_ml=min(ml, default=0.0),
        most_ml=max(ml, default=0.0),
        islands=sum(len(measure.islands) for measure in measures),
    )


def _outliers(project: Project, measures: Sequence[Measure], limits: Limits) -> list[Finding]:
    """Check volumes; those of lesions do vary, and are only told."""
    result: list[Finding] = []
    for structure in project.schema.structures:
        ml = {m.case: m.ml for m in measures if m.structure == structure.name}
        is_target = structure.name in project.schema.target_names
        severity: Severity = "info" if is_target else "warning"
        result += quality.check_outliers(structure.name, ml, severity, limits)
    return result


# --- one case -----------------------------------------------------------------------------------


@dataclass
class _Report:
    """What is being found in one case."""

    case: str
    findings: list[Finding] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    digest: str = ""

    def error(self, structure: str, code: str, message: str) -> None:
        self.findings.append(Finding(self.case, structure, "error", code, message))


def _examine_case(project: Project, case: str, limits: Limits) -> _Report:
    report = _Report(case)
    _examine_images(project, report)
    masks: dict[str, Mask] = {}
    for structure in project.schema.structures:
        mask = _examine_mask(project, report, structure.name, limits)
        if mask is not None:
            masks[structure.name] = mask
    _examine_together(project, report, masks, limits)
    return report


def _examine_images(project: Project, report: _Report) -> None:
    """Look for images that are missing, changed, unreadable or not finite; hash their voxels."""
    case = project.case(report.case)
    for channel in case.missing_channels:
        report.error(channel, "missing_channel", "The case lacks this channel. Leave it out.")
    if project.verify_images([report.case]):
        text = "Its image is gone or has changed since it was imported. Restore it."
        report.error("", "changed", text)
    digest = hashlib.sha256()
    try:
        for channel, image in case.images.items():
            array = read_volume(project.folder / image.file).array
            report.findings += integrity.check_finite(report.case, channel, array)
            digest.update(f"{array.shape}".encode())
            digest.update(np.ascontiguousarray(array, np.float32).data)
    except (BackSplitError, OSError):
        report.error("", "unreadable", "Its image cannot be read. Restore it.")
    else:
        report.digest = digest.hexdigest()


def _examine_mask(project: Project, report: _Report, structure: str, limits: Limits) -> Mask | None:
    """Check one mask alone and measure it; return it if it lies on the image's grid."""
    case, path = report.case, project.mask_path(report.case, structure)
    is_target = structure in project.schema.target_names
    check = quality.check_target if is_target else quality.check_support
    if path is None:
        report.findings += check(case, structure, None)
        return None
    geometry = project.geometry(case)
    try:
        wrong_grid = integrity.check_grid(case, structure, geometry, read_geometry(path))
        label_map = read_label_map(path).array
    except (BackSplitError, OSError):
        report.error(structure, "unreadable", "The mask cannot be read. Make it again.")
        return None
    report.findings += wrong_grid
    if wrong_grid:
        return None
    mask: Mask = label_map != 0
    found = islands(mask, geometry.voxel_ml)
    report.measures.append(Measure(case, structure, found))
    report.findings += integrity.check_ids(case, structure, label_map)
    report.findings += check(case, structure, mask)
    report.findings += quality.check_islands(case, structure, found, limits)
    return mask


def _examine_together(
    project: Project, report: _Report, masks: dict[str, Mask], limits: Limits
) -> None:
    """Check the masks of a case against one another and against the image's edge."""
    schema, case = project.schema, report.case
    targets = {name: masks[name] for name in schema.target_names if name in masks}
    supports = {name: masks[name] for name in schema.support_names if name in masks}
    missing = [name for name in schema.support_names if name not in masks]
    for kind in (targets, supports):
        report.findings += quality.check_overlaps(case, kind, limits)
    for name, mask in targets.items():
        report.findings += quality.check_border(case, name, mask)
        report.findings += quality.check_outside(case, name, mask, supports, missing)
