"""A finished comparison, read back from its folder: quick, and without a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from napari_backsplit.backend.comparison.curves import OperatingPoint
from napari_backsplit.backend.comparison.lesion_table import LesionRow, read_lesions
from napari_backsplit.backend.comparison.results import Row, Verdict
from napari_backsplit.backend.comparison.tables import read_cases
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import read_json

COMPARISONS = "comparisons"

Points = tuple[OperatingPoint, ...]


@dataclass(frozen=True)
class OpenedComparison:
    """What a comparison job left.

    Parameters
    ----------
    id : str
        Its folder in comparisons/.
    title : str
        Title of the report.
    baseline : str
        Arm against which the others are measured.
    controls, arms, targets : tuple of str
        As they were compared.
    rows : tuple of Row
        One a case, target and arm.
    lesions : tuple of LesionRow
        Every lesion; empty for a comparison of an earlier version.
    verdicts : tuple of Verdict
        What may be said, for each target and pair.
    summary : mapping
        summary.json.
    folders : mapping of str to tuple of str
        Arm -> the folders of its predictions, relative to the project; empty where unknown.
    report : Path
        The report.
    curves : mapping of str to mapping
        Target -> arm -> operating points; empty without probabilities.
    """

    id: str
    title: str
    baseline: str
    controls: tuple[str, ...]
    arms: tuple[str, ...]
    targets: tuple[str, ...]
    rows: tuple[Row, ...]
    lesions: tuple[LesionRow, ...]
    verdicts: tuple[Verdict, ...]
    summary: Mapping[str, Any]
    folders: Mapping[str, tuple[str, ...]]
    report: Path
    curves: Mapping[str, Mapping[str, Points]] = field(default_factory=dict)

    @classmethod
    def open(cls, project_folder: Path, comparison_id: str) -> OpenedComparison:
        """Read a comparison.

        Raises
        ------
        InputError
            There is none of this name, or its tables cannot be read.
        """
        folder = Path(project_folder) / COMPARISONS / comparison_id
        if not (folder / "summary.json").exists():
            raise InputError(
                f"There is no finished comparison {comparison_id}.",
                f"Choose one of: {', '.join(comparisons(project_folder)) or 'none yet'}.",
            )
        summary = read_json(folder / "summary.json")
        try:
            return cls._of(Path(project_folder), comparison_id, summary)
        except (KeyError, TypeError, AttributeError, OSError) as error:
            lacks = error.strerror if isinstance(error, OSError) else error
            raise InputError(
                f"The comparison {comparison_id} cannot be read: {type(error).__name__}, {lacks}.",
                "Run the comparison again.",
            ) from None

    @classmethod
    def _of(
        cls, project_folder: Path, comparison_id: str, summary: Mapping[str, Any]
    ) -> OpenedComparison:
        folder = project_folder / COMPARISONS / comparison_id
        lesions = folder / "lesions.csv"
        return cls(
            id=comparison_id,
            title=str(summary.get("title") or "Comparison"),
            baseline=summary["settings"]["baseline"],
            controls=tuple(summary["settings"].get("controls") or ()),
            arms=tuple(summary["arms"]),
            targets=tuple(summary["targets"]),
            rows=tuple(read_cases(folder / "cases.csv")),
            lesions=tuple(read_lesions(lesions)) if lesions.exists() else (),
            verdicts=tuple(_verdict(entry) for entry in summary["verdicts"]),
            summary=summary,
            folders=_folders(project_folder, comparison_id, summary),
            report=folder / "report.html",
            curves=_curves(folder / "froc.json"),
        )

    @property
    def froc(self) -> Mapping[str, Points]:
        """Arm -> operating points of the first target."""
        return self.froc_of(self.targets[0])

    def froc_of(self, target: str) -> Mapping[str, Points]:
        """Return arm -> operating points; empty without probabilities."""
        return self.curves.get(target, {})


def comparisons(project_folder: Path) -> tuple[str, ...]:
    """Return the finished comparisons of a project, the newest first."""
    summaries = list((Path(project_folder) / COMPARISONS).glob("*/summary.json"))
    newest = sorted(summaries, key=lambda path: (path.stat().st_mtime_ns, path.parent.name))
    return tuple(path.parent.name for path in newest[::-1])


def _verdict(entry: Mapping[str, Any]) -> Verdict:
    return Verdict(**{**entry, "details": tuple(entry["details"])})


def _folders(
    project_folder: Path, comparison_id: str, summary: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Return the folders of predictions: from the job where the summary does not name them."""
    found = summary.get("folders")
    job = project_folder / "jobs" / comparison_id / "job.json"
    if not found and job.exists():
        found = read_json(job)["params"].get("arms")
    return {
        arm: (folders,) if isinstance(folders, str) else tuple(folders)
        for arm, folders in (found or {}).items()
    }


def _curves(path: Path) -> dict[str, dict[str, Points]]:
    if not path.exists():
        return {}
    names = {each.name for each in fields(OperatingPoint)}
    return {
        target: {
            arm: tuple(
                OperatingPoint(**{name: v for name, v in point.items() if name in names})
                for point in points
            )
            for arm, points in arms.items()
        }
        for target, arms in read_json(path)["curves"].items()
    }
