"""An audit before training: every case is read once, checked alone and against the cohort."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import BackSplitError, GeometryError
from napari_backsplit.backend.fusion import integrity, quality
from napari_backsplit.backend.fusion.components import Island, islands
from napari_backsplit.backend.fusion.findings import Finding, Limits, Severity, by_severity
from napari_backsplit.backend.fusion.fuse import Mask
from napari_backsplit.backend.fusion.sides import check_sides
from napari_backsplit.backend.geometry import Geometry, axis_codes
from napari_backsplit.backend.project.soft_importing import soft_findings
from napari_backsplit.backend.volume import read_geometry, read_label_map, read_volume

if TYPE_CHECKING:
    from napari_backsplit.backend.project import ProjectReader

__all__ = [
    "Audit",
    "Finding",
    "Limits",
    "Measure",
    "Summary",
    "audit",
    "examine",
    "examine_masks",
    "summarise",
]


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


def audit(project: ProjectReader, limits: Limits | None = None) -> list[Finding]:
    """Check a project before training; see `examine`."""
    return list(examine(project, limits).findings)


def examine(
    project: ProjectReader,
    limits: Limits | None = None,
    cases: Sequence[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Audit:
    """Check and measure the cases of a project. It writes nothing.

    Parameters
    ----------
    project : ProjectReader
    limits : Limits, optional
    cases : sequence of str, optional
        Defaults to all.
    progress : callable
        Told the cases done and their number after each; it may raise to stop the audit.

    Returns
    -------
    Audit
        Positions are voxel indices of the files (z, y, x), as they are stored.
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
    summary = summarise(project, measures, len(chosen))
    return Audit(tuple(by_severity(findings)), measures, summary)


def summarise(
    project: ProjectReader, measures: Sequence[Measure], cases: int
) -> tuple[Summary, ...]:
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


def _outliers(project: ProjectReader, measures: Sequence[Measure], limits: Limits) -> list[Finding]:
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
    """What is being found in one case; `broken` are the structures whose mask cannot be used."""

    case: str
    broken: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    digest: str = ""

    def error(self, structure: str, code: str, message: str) -> None:
        self.findings.append(Finding(self.case, structure, "error", code, message))


def examine_masks(
    case: str,
    grid: Geometry,
    masks: Mapping[str, Mask],
    targets: Sequence[str],
    supports: Sequence[str],
    image: NDArray[Any] | None = None,
    limits: Limits | None = None,
) -> list[Finding]:
    """Check the masks of one case in memory, alone and together; no file is read.

    Parameters
    ----------
    case : str
        For the findings only.
    grid : Geometry
        The grid of the arrays: `Project.geometry` for arrays in the order of the files, its
        `canonical()` for canonical ones. It says where left and the head are.
    masks : mapping of str to ndarray of bool
        Each on the grid, (z, y, x).
    targets, supports : sequence of str
        All that a case should have, in order of priority. Those without a mask are missing.
    image : ndarray, optional
        One channel on the grid, (z, y, x); without it nothing is said of a shift.
    limits : Limits, optional

    Returns
    -------
    list of Finding
        The gravest first; positions are indices of the given arrays.

    Raises
    ------
    GeometryError
        An array has another shape than the grid.
    """
    arrays = masks if image is None else {**masks, "image": image}
    for name, array in arrays.items():
        if array.shape != grid.shape:
            raise GeometryError(
                f"The array of {name} has shape {array.shape}, the grid {grid.shape}.",
                "Give arrays on one grid.",
            )
    report = _Report(case)
    _examine_masks(report, grid, masks, targets, supports, image, limits or Limits())
    return by_severity(report.findings)


def _examine_case(project: ProjectReader, case: str, limits: Limits) -> _Report:
    report, grid = _Report(case), project.geometry(case)
    image = _examine_images(project, report)
    if image is not None and image.shape != grid.shape:
        image = None
    names = [structure.name for structure in project.schema.structures]
    read = {name: _read_mask(project, report, name) for name in names}
    masks = {name: mask for name, mask in read.items() if mask is not None}
    schema = project.schema
    _examine_masks(report, grid, masks, schema.target_names, schema.support_names, image, limits)
    _examine_soft(project, report)
    return report


def _examine_soft(project: ProjectReader, report: _Report) -> None:
    """Check the soft masks of a case against the masks of its targets."""
    for target in project.schema.target_names:
        try:
            said = [] if target in report.broken else soft_findings(project, report.case, target)
        except (BackSplitError, OSError):
            report.error(target, "soft", "Its soft mask cannot be used. Import it again.")
        else:
            found = (Finding(report.case, target, "warning", "soft", text) for text in said)
            report.findings += found


def _examine_images(project: ProjectReader, report: _Report) -> NDArray[Any] | None:
    """Look for images that are missing, changed, unreadable or not finite; return the first.

    Their voxels are hashed.
    """
    case = project.case(report.case)
    for channel in case.missing_channels:
        report.error(channel, "missing_channel", "The case lacks this channel. Leave it out.")
    if project.verify_images([report.case]):
        text = "Its image is gone or has changed since it was imported. Restore it."
        report.error("", "changed", text)
    digest, first = hashlib.sha256(), None
    try:
        for channel, image in case.images.items():
            array = read_volume(project.folder / image.file).array
            report.findings += integrity.check_finite(report.case, channel, array)
            digest.update(f"{array.shape}".encode())
            digest.update(np.ascontiguousarray(array, np.float32).data)
            first = array if first is None else first
    except (BackSplitError, OSError):
        report.error("", "unreadable", "Its image cannot be read. Restore it.")
    else:
        report.digest = digest.hexdigest()
    return first


def _read_mask(project: ProjectReader, report: _Report, structure: str) -> Mask | None:
    """Return a mask that lies on the image's grid; None without one, and where it does not."""
    case, path = report.case, project.mask_path(report.case, structure)
    if path is None:
        return None
    try:
        wrong = integrity.check_grid(case, structure, project.geometry(case), read_geometry(path))
        label_map = read_label_map(path).array
    except (BackSplitError, OSError):
        report.error(structure, "unreadable", "The mask cannot be read. Make it again.")
        report.broken.add(structure)
        return None
    report.findings += wrong
    if wrong:
        report.broken.add(structure)
        return None
    report.findings += integrity.check_ids(case, structure, label_map)
    return np.asarray(label_map != 0)


def _examine_masks(
    report: _Report,
    grid: Geometry,
    masks: Mapping[str, Mask],
    target_names: Sequence[str],
    support_names: Sequence[str],
    image: NDArray[Any] | None,
    limits: Limits,
) -> None:
    """Check and measure the masks of a case, alone and together."""
    case = report.case
    targets = {name: masks[name] for name in target_names if name in masks}
    supports = {name: masks[name] for name in support_names if name in masks}
    kinds: tuple[tuple[Sequence[str], Mapping[str, Mask], Severity], ...] = (
        (target_names, targets, "warning"),
        (support_names, supports, "info"),
    )
    for names, kind, severity in kinds:
        check = quality.check_target if kind is targets else quality.check_support
        for name in (name for name in names if name not in report.broken):
            report.findings += check(case, name, masks.get(name))
        report.findings += quality.check_overlaps(case, kind, limits)
        for name, mask in kind.items():
            _examine_mask(report, grid, name, mask, image, limits)
            report.findings += quality.check_border(case, name, mask, grid, severity)
    _examine_holes(report, grid, targets, supports, limits)
    missing = [name for name in support_names if name not in masks]
    for name, mask in targets.items():
        report.findings += quality.check_outside(case, name, mask, supports, missing, limits)
    report.findings += check_sides(case, {**targets, **supports}, grid, image, limits)


def _examine_mask(
    report: _Report,
    grid: Geometry,
    name: str,
    mask: Mask,
    image: NDArray[Any] | None,
    limits: Limits,
) -> None:
    """Measure one mask, and check it alone."""
    found = islands(mask, grid.voxel_ml)
    report.measures.append(Measure(report.case, name, found))
    report.findings += quality.check_islands(report.case, name, found, limits)
    if image is not None:
        report.findings += quality.check_shift(report.case, name, mask, image, grid, limits)


def _examine_holes(
    report: _Report,
    grid: Geometry,
    targets: Mapping[str, Mask],
    supports: Mapping[str, Mask],
    limits: Limits,
) -> None:
    """Check for holes: a lesion may lie in that of an organ, an organ in none of a lesion."""
    for kind, lesions in ((targets, ()), (supports, tuple(targets.values()))):
        for name, mask in kind.items():
            others = [other for key, other in kind.items() if key != name]
            report.findings += quality.check_holes(
                report.case, name, mask, lesions, others, grid.voxel_ml, limits
            )
