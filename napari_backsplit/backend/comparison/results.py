"""The values of a comparison: rows, summaries, differences, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, nan
from typing import Literal

from napari_backsplit.backend.comparison.curves import OperatingPoint, froc
from napari_backsplit.backend.comparison.intervals import Bootstrap
from napari_backsplit.backend.comparison.lesion_table import LesionRow
from napari_backsplit.backend.comparison.lesions import LesionCount, LesionSettings, StratumCount
from napari_backsplit.backend.comparison.metrics import Measures
from napari_backsplit.backend.comparison.policy import EmptyMaskPolicy
from napari_backsplit.backend.comparison.seen import SeenStatus
from napari_backsplit.backend.comparison.soft_metrics import SoftMeasures
from napari_backsplit.backend.comparison.statistics import Difference

Group = Literal["lesion", "lesion-free"]
GROUPS: tuple[Group, ...] = ("lesion", "lesion-free")

ALL = "all"
"""The stratum that holds every case of a group."""

PRIMARY = ("dice", "nsd", "found_lesions", "false_positives")
"""Metrics of lesion cases over which Holm's correction runs, for each target, pair and stratum:
overlap, boundary, what is found, what is found where nothing is."""


@dataclass(frozen=True)
class Metric:
    """A metric as tables show it.

    Parameters
    ----------
    name : str
        Field of a row.
    label, unit : str
        Words and unit; the unit of a share is empty.
    higher_is_better : bool
        Which way is better.
    digits : int
        Decimals shown.
    pooled_by : str
        Field whose sum divides the sum of the field; empty for a mean over cases.
    """

    name: str
    label: str
    unit: str = ""
    higher_is_better: bool = True
    digits: int = 3
    pooled_by: str = ""

    @property
    def bound(self) -> float:
        """The largest difference there can be: one of a share, otherwise infinite."""
        return 1.0 if self.unit in ("", "share") else inf


METRICS: dict[Group, tuple[Metric, ...]] = {
    "lesion": (
        Metric("dice", "Dice"),
        Metric("iou", "IoU"),
        Metric("nsd", "NSD"),
        Metric("hd95_mm", "HD-95", "mm", False, 1),
        Metric("assd_mm", "ASSD", "mm", False, 2),
        Metric("found_lesions", "Lesions found", "share", pooled_by="reference_lesions"),
        Metric("lesion_f1", "Lesion F1"),
        Metric("sensitivity", "Voxel sensitivity"),
        Metric("precision", "Voxel precision"),
        Metric("average_precision", "Average precision"),
        Metric("false_positives", "False positives", "per case", False, 2),
        Metric("false_positive_ml", "False positive volume", "ml per case", False, 2),
        Metric("false_negative_ml", "False negative volume", "ml per case", False, 2),
        Metric("absolute_difference_ml", "Volume difference, absolute", "ml", False, 2),
    ),
    "lesion-free": (
        Metric("any_false_positive", "Cases with a false positive", "share", False),
        Metric("false_positives", "False positives", "per case", False, 2),
        Metric("false_positive_ml", "False positive volume", "ml per case", False, 2),
    ),
}


@dataclass(frozen=True)
class Row:
    """One case, one target, one arm.

    Parameters
    ----------
    case, patient, target, arm : str
        Neutral ids.
    seen : SeenStatus
        What is known of whether the models had seen the case.
    measures : Measures
        The metrics.
    average_precision : float
        Not a number where no probabilities were given.
    by_threshold : tuple of LesionCount
        Lesions at each threshold; empty where no probabilities were given.
    soft : SoftMeasures
        The metrics of shares, where there are any.
    """

    case: str
    patient: str
    target: str
    arm: str
    seen: SeenStatus
    measures: Measures
    average_precision: float = nan
    by_threshold: tuple[LesionCount, ...] = ()
    soft: SoftMeasures = field(default_factory=SoftMeasures)

    @property
    def group(self) -> Group:
        """Whether the reference holds a lesion."""
        return "lesion" if self.measures.reference_lesions else "lesion-free"

    @property
    def missed(self) -> bool:
        """A case with lesions in which nothing was predicted."""
        return self.group == "lesion" and not self.measures.predicted_lesions

    @property
    def counted(self) -> bool:
        """Whether the case may enter a verdict."""
        return self.seen in ("verified", "declared")

    @property
    def absolute_difference_ml(self) -> float:
        """Absolute volume difference in ml."""
        return abs(self.measures.difference_ml)

    @property
    def any_false_positive(self) -> float:
        """One if there is a false positive, otherwise zero."""
        return float(self.measures.false_positives > 0)

    def value(self, name: str) -> float:
        """Return a metric by its name."""
        owners = (self, self.measures, self.soft)
        return float(next(getattr(owner, name) for owner in owners if hasattr(owner, name)))


@dataclass(frozen=True)
class Summary:
    """One arm on one group of cases.

    Parameters
    ----------
    target, arm, group : str
        Which.
    cases, patients, missed : int
        Cases and patients counted, and cases with lesions in which nothing was predicted.
    reference_lesions, found_lesions, false_positives : int
        Sums over the cases.
    means : mapping of str to float
        Mean over cases (or pooled share) of each metric, not a number where undefined.
    by_stratum : tuple of StratumCount
        Sums over the cases for each size of lesion.
    """

    target: str
    arm: str
    group: Group
    cases: int
    patients: int
    missed: int
    reference_lesions: int
    found_lesions: int
    false_positives: int
    means: Mapping[str, float]
    by_stratum: tuple[StratumCount, ...] = ()


@dataclass(frozen=True)
class Contrast:
    """An arm against another on one metric and one group of cases.

    Parameters
    ----------
    target, arm, against : str
        Which; `against` is the baseline or a control.
    group : str
        "lesion" or "lesion-free".
    metric : Metric
        What is compared.
    difference : Difference
        Arm minus `against`.
    stratum : str
        "all", or of lesion cases the stratum of their reference volume.
    """

    target: str
    arm: str
    against: str
    group: Group
    metric: Metric
    difference: Difference
    stratum: str = ALL


@dataclass(frozen=True)
class MatchedSensitivity:
    """False positives of an arm where it finds at least as many lesions as the other.

    ``point`` is None if no threshold of the arm finds as many.
    """

    target: str
    arm: str
    against: str
    found: int
    false_positives: int
    point: OperatingPoint | None


@dataclass(frozen=True)
class Verdict:
    """What may be said of an arm against another, for one target.

    Parameters
    ----------
    target, arm, against : str
        Which.
    sentence : str
        The verdict in one sentence.
    details : tuple of str
        What must be read with it.
    reading : str
        That of Dice in lesion cases: "better", "worse", "not shown to differ", "too few to
        judge", or "no verdict".
    """

    target: str
    arm: str
    against: str
    sentence: str
    details: tuple[str, ...]
    reading: str


@dataclass(frozen=True)
class ComparisonSettings:
    """What a comparison depends on besides its masks.

    Parameters
    ----------
    baseline : str
        Arm against which the others are measured.
    controls : tuple of str
        Arms (such as the same extra binary training) against which the rest is measured too.
    tolerance_mm : float
        Tolerance of the NSD, in mm.
    bootstrap : Bootstrap
        How intervals are drawn.
    policy : EmptyMaskPolicy
        What holds for empty masks.
    lesions : LesionSettings
        What is a lesion, when it is found, and the strata of volume of lesions and of cases.
    """

    baseline: str
    controls: tuple[str, ...] = ()
    tolerance_mm: float = 2.0
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    policy: EmptyMaskPolicy = field(default_factory=EmptyMaskPolicy)
    lesions: LesionSettings = field(default_factory=LesionSettings)


@dataclass(frozen=True)
class Comparison:
    """Everything that was measured and what may be said of it.

    Parameters
    ----------
    lesions : tuple of LesionRow
        Every lesion; empty where they were not listed.
    title : str
        Title of its report.
    folders : mapping of str to tuple of str
        Arm -> the folders of its predictions, relative to the project, where known.
    notes : tuple of str
        What has to be read with the verdict, a sentence each.
    soft : tuple of Contrast
        Differences of metrics of shares; no verdict rests on them.
    """

    settings: ComparisonSettings
    arms: tuple[str, ...]
    targets: tuple[str, ...]
    rows: tuple[Row, ...]
    summaries: tuple[Summary, ...]
    contrasts: tuple[Contrast, ...]
    matched: tuple[MatchedSensitivity, ...]
    verdicts: tuple[Verdict, ...]
    lesions: tuple[LesionRow, ...] = ()
    title: str = "Comparison"
    folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    soft: tuple[Contrast, ...] = ()

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(arm, the arm it is measured against), the baseline first."""
        return arm_pairs(self.arms, self.settings)

    def select(self, target: str, arm: str, group: Group, counted: bool = True) -> list[Row]:
        """Return the rows of a target, arm and group, those that may be counted by default."""
        return [
            row
            for row in self.rows
            if (row.target, row.arm, row.group) == (target, arm, group)
            and (row.counted or not counted)
        ]

    def contrast(
        self, target: str, arm: str, against: str, group: Group, metric: str, stratum: str = ALL
    ) -> Contrast | None:
        """Return one contrast, or None if it was not measured."""
        return find_contrast(self.contrasts, target, arm, against, group, metric, stratum)

    def contrasts_of(
        self, target: str, arm: str, against: str, stratum: str | None = ALL
    ) -> list[Contrast]:
        """Return the contrasts of a pair in one stratum; in every stratum for None."""
        return [
            item
            for item in self.contrasts
            if (item.target, item.arm, item.against) == (target, arm, against)
            and stratum in (None, item.stratum)
        ]

    @property
    def froc(self) -> dict[str, dict[str, tuple[OperatingPoint, ...]]]:
        """Target -> arm -> operating points over the cases that count, where probabilities are."""
        return {
            target: {arm: points for arm in self.arms if (points := self._points(target, arm))}
            for target in self.targets
        }

    def _points(self, target: str, arm: str) -> tuple[OperatingPoint, ...]:
        rows = countable(self.rows, target, arm)
        counts = [row.by_threshold for row in rows]
        return froc(counts) if counts and all(counts) else ()

    @property
    def strata(self) -> tuple[str, ...]:
        """The name of all, then the strata of lesion cases that hold a case."""
        return tuple(dict.fromkeys(item.stratum for item in self.contrasts))

    def summary(self, target: str, arm: str, group: Group) -> Summary:
        """Return one summary."""
        wanted = (target, arm, group)
        return next(s for s in self.summaries if (s.target, s.arm, s.group) == wanted)


def countable(rows: Sequence[Row], target: str, arm: str) -> list[Row]:
    """Return the rows of an arm that may count, by case.

    All that no model is known to have seen, if none of the target's cases is known to be unseen.
    """
    own = [row for row in rows if row.target == target]
    kept = [row for row in own if row.counted] or [row for row in own if row.seen == "unknown"]
    return sorted((row for row in kept if row.arm == arm), key=lambda row: row.case)


def find_contrast(
    contrasts: tuple[Contrast, ...],
    target: str,
    arm: str,
    against: str,
    group: Group,
    metric: str,
    stratum: str = ALL,
) -> Contrast | None:
    """Return one of `contrasts`, or None if it was not measured."""
    wanted = (target, arm, against, group, metric, stratum)
    return next(
        (
            c
            for c in contrasts
            if (c.target, c.arm, c.against, c.group, c.metric.name, c.stratum) == wanted
        ),
        None,
    )


def arm_pairs(arms: tuple[str, ...], settings: ComparisonSettings) -> tuple[tuple[str, str], ...]:
    """Return (arm, the arm it is measured against): all against the baseline, then controls."""
    others = [arm for arm in arms if arm != settings.baseline]
    against = [(arm, settings.baseline) for arm in others]
    for control in settings.controls:
        against += [(arm, control) for arm in others if arm not in settings.controls]
    return tuple(against)
