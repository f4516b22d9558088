"""Arms measured against one reference and against each other, case by case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import nan
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.curves import (
    at_sensitivity,
    average_precision,
    check_probability,
    froc,
    lesions_by_threshold,
)
from napari_backsplit.backend.comparison.intervals import Bootstrap
from napari_backsplit.backend.comparison.lesion_table import LesionRow, lesion_rows
from napari_backsplit.backend.comparison.lesions import StratumCount
from napari_backsplit.backend.comparison.metrics import Segmentation, measure
from napari_backsplit.backend.comparison.results import (
    ALL,
    GROUPS,
    METRICS,
    PRIMARY,
    Comparison,
    ComparisonSettings,
    Contrast,
    Group,
    MatchedSensitivity,
    Metric,
    Row,
    Summary,
    arm_pairs,
    countable,
)
from napari_backsplit.backend.comparison.seen import SeenStatus
from napari_backsplit.backend.comparison.soft_agreement import SOFT_METRICS, is_soft
from napari_backsplit.backend.comparison.soft_metrics import SoftReference
from napari_backsplit.backend.comparison.statistics import (
    Difference,
    corrected,
    holm,
    paired_difference,
)
from napari_backsplit.backend.comparison.strata import strata_names, stratum_of
from napari_backsplit.backend.comparison.verdicts import give_verdicts
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.volume import Volume

Masks = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class CaseInput:
    """One case as it enters a comparison.

    Parameters
    ----------
    case, patient : str
        Neutral ids.
    spacing_mm : tuple of float
        Voxel spacing (z, y, x).
    reference : mapping of str to ndarray
        Target -> mask, (z, y, x).
    predictions : mapping of str to mapping
        Arm -> target -> mask, on the reference's grid.
    probabilities : mapping of str to mapping, optional
        Arm -> target -> probability 0..1, or share of the voxel, where known.
    image : Volume, optional
        The image, for figures only.
    supports : mapping of str to ndarray
        Support -> mask, (z, y, x): where lesions lie. None need be known.
    seen : SeenStatus
        What is known of whether any of the models had seen the case.
    modality : str
        Of the image, as "CT": how its values are shown as grey.
    soft : mapping of str to ndarray
        Target -> how much of each voxel it is, 0..1 (z, y, x), where that is known.
    shares : frozenset of str
        Arms whose `probabilities` are shares of the voxel.
    """

    case: str
    patient: str
    spacing_mm: tuple[float, ...]
    reference: Masks
    predictions: Mapping[str, Masks]
    probabilities: Mapping[str, Masks] = field(default_factory=dict)
    image: Volume | None = None
    seen: SeenStatus = "unknown"
    supports: Masks = field(default_factory=dict)
    modality: str = ""
    soft: Masks = field(default_factory=dict)
    shares: frozenset[str] = frozenset()


def compare(cases: Iterable[CaseInput], settings: ComparisonSettings) -> Comparison:
    """Measure every arm on every case and compare them in pairs.

    Parameters
    ----------
    cases : iterable of CaseInput
        Read one at a time; no case is kept.
    settings : ComparisonSettings
        Names the baseline and the controls.

    Raises
    ------
    InputError
        There is no case, a case lacks an arm or target, a case comes twice, or the baseline or
        a control is not an arm.
    """
    rows: list[Row] = []
    lesions: list[LesionRow] = []
    for case in cases:
        rows += measure_case(case, settings)
        lesions += lesions_of(case, settings)
        del case  # let go before the next is read
    return conclude(rows, settings, lesions)


def measure_case(case: CaseInput, settings: ComparisonSettings) -> Iterator[Row]:
    """Measure every target and arm of one case."""
    for target, mask in case.reference.items():
        reference = Segmentation.of(mask, case.spacing_mm)
        rows = [_measure_arm(case, target, arm, reference, settings) for arm in case.predictions]
        yield from _with_soft(case, target, rows)


def lesions_of(case: CaseInput, settings: ComparisonSettings) -> list[LesionRow]:
    """List the lesions of every target of one case."""
    return [row for target in case.reference for row in lesion_rows(case, target, settings)]


def _measure_arm(
    case: CaseInput, target: str, arm: str, reference: Segmentation, settings: ComparisonSettings
) -> Row:
    if target not in case.predictions[arm]:
        raise InputError(
            f"{case.case} has no {target} predicted by {arm}.", "Predict it, or leave it out."
        )
    prediction = Segmentation.of(case.predictions[arm][target], case.spacing_mm)
    measures = measure(
        reference, prediction, settings.tolerance_mm, settings.policy, settings.lesions
    )
    row = Row(case.case, case.patient, target, arm, case.seen, measures)
    probability = case.probabilities.get(arm, {}).get(target)
    if probability is None:
        return row
    what = f"The {_kind(case, arm)} of {target} in {case.case} by {arm}"
    check_probability(probability, reference.runs.shape, what)
    return replace(
        row,
        average_precision=average_precision(case.reference[target], probability),
        by_threshold=lesions_by_threshold(reference.runs, probability, settings.lesions),
    )


def _kind(case: CaseInput, arm: str) -> Literal["share", "probability"]:
    return "share" if arm in case.shares else "probability"


def _with_soft(case: CaseInput, target: str, rows: Sequence[Row]) -> Iterator[Row]:
    """Add what is measured of shares, where the reference or an arm has any."""
    reference = SoftReference.of(case, target)
    for row in rows:
        prediction = case.probabilities.get(row.arm, {}).get(target)
        if reference is None or prediction is None:
            yield row
        else:
            yield replace(row, soft=reference.measure(prediction, _kind(case, row.arm)))


def conclude(
    rows: Sequence[Row], settings: ComparisonSettings, lesions: Sequence[LesionRow] = ()
) -> Comparison:
    """Summarise measured rows, compare the arms, and say what may be said."""
    arms = tuple(dict.fromkeys(row.arm for row in rows))
    targets = tuple(dict.fromkeys(row.target for row in rows))
    _check(rows, arms, targets)
    check_arms(arms, settings)
    pairs = arm_pairs(arms, settings)
    comparison = Comparison(
        settings=settings,
        arms=arms,
        targets=targets,
        rows=tuple(rows),
        summaries=tuple(
            _summarise(rows, target, arm, group)
            for target in targets
            for group in GROUPS
            for arm in arms
        ),
        contrasts=tuple(
            contrast
            for target in targets
            for arm, against in pairs
            for contrast in _contrasts(rows, target, arm, against, settings)
        ),
        matched=tuple(
            match
            for target in targets
            for pair in pairs
            if (match := _match(rows, target, *pair)) is not None
        ),
        verdicts=(),
        lesions=tuple(lesions),
        soft=tuple(
            contrast
            for target in targets
            for arm, against in pairs
            for contrast in _soft_contrasts(rows, target, arm, against, settings)
        ),
    )
    return give_verdicts(comparison)


def _check(rows: Sequence[Row], arms: tuple[str, ...], targets: tuple[str, ...]) -> None:
    if not rows:
        raise InputError("There is no case to compare.", "Predict labelled cases with both arms.")
    keys = [(row.case, row.target, row.arm) for row in rows]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"{twice[0]} comes twice.", "Give each case once.")
    cases = {row.case for row in rows}
    complete = {(case, target, arm) for case in cases for target in targets for arm in arms}
    if lacking := sorted(complete - set(keys)):
        case, target, arm = lacking[0]
        raise InputError(
            f"{case} has no {target} predicted by {arm}.",
            "Every arm must predict the same cases; predict it, or leave the case out.",
        )


def check_arms(arms: Sequence[str], settings: ComparisonSettings) -> None:
    """Refuse arms that cannot be compared as `settings` say, before anything is measured.

    Raises
    ------
    InputError
        There are fewer than two, or the baseline or a control is none of them.
    """
    if len(arms) < 2:
        given = f"{arms[0]} is the only arm." if arms else "There is no arm."
        raise InputError(given, "Give another to compare it with.")
    for name in (settings.baseline, *settings.controls):
        if name not in arms:
            raise InputError(f"{name} is not among the arms {', '.join(arms)}.", "Name an arm.")


def _rows_of(rows: Sequence[Row], target: str, arm: str, group: Group) -> list[Row]:
    return [row for row in countable(rows, target, arm) if row.group == group]


def _summarise(rows: Sequence[Row], target: str, arm: str, group: Group) -> Summary:
    own = _rows_of(rows, target, arm, group)
    return Summary(
        target=target,
        arm=arm,
        group=group,
        cases=len(own),
        patients=len({row.patient for row in own}),
        missed=sum(row.missed for row in own),
        reference_lesions=sum(row.measures.reference_lesions for row in own),
        found_lesions=sum(row.measures.found_lesions for row in own),
        false_positives=sum(row.measures.false_positives for row in own),
        means={metric.name: _mean(own, metric) for metric in METRICS[group]},
        by_stratum=_added([row.measures.by_stratum for row in own]),
    )


def _added(cases: Sequence[tuple[StratumCount, ...]]) -> tuple[StratumCount, ...]:
    """Add up the counts of each size of lesion."""
    names = [each.name for each in fields(StratumCount)[1:]]
    return tuple(
        StratumCount(sizes[0].name, *(sum(getattr(s, name) for s in sizes) for name in names))
        for sizes in zip(*cases, strict=True)
    )


def _mean(rows: Sequence[Row], metric: Metric) -> float:
    values = _values(rows, metric.name)
    if metric.pooled_by:
        total = float(_values(rows, metric.pooled_by).sum())
        return float(values.sum()) / total if total else nan
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else nan


def _values(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    return np.array([row.value(name) for row in rows], float)


def _contrasts(
    rows: Sequence[Row], target: str, arm: str, against: str, settings: ComparisonSettings
) -> Iterator[Contrast]:
    """Compare two arms: all cases of each group first, then the strata of lesion cases."""
    for group in GROUPS:
        ours, theirs = (_rows_of(rows, target, name, group) for name in (arm, against))
        pair = _Pair(target, arm, against, group, ALL, ours, theirs)
        yield from _family(pair, settings.bootstrap)
    limits = settings.lesions.strata_ml
    ours, theirs = (_rows_of(rows, target, name, "lesion") for name in (arm, against))
    for stratum in strata_names(limits):
        parts = [
            [row for row in side if stratum_of(row.measures.reference_ml, limits) == stratum]
            for side in (ours, theirs)
        ]
        if parts[0]:
            pair = _Pair(target, arm, against, "lesion", stratum, *parts)
            yield from _family(pair, settings.bootstrap)


def _soft_contrasts(
    rows: Sequence[Row], target: str, arm: str, against: str, settings: ComparisonSettings
) -> Iterator[Contrast]:
    """Compare two arms on shares, where both have them."""
    for group, metrics in SOFT_METRICS.items() if is_soft(rows) else ():
        ours, theirs = (_rows_of(rows, target, name, group) for name in (arm, against))
        pair = _Pair(target, arm, against, group, ALL, ours, theirs)
        for metric in metrics:
            difference = pair.difference(metric, settings.bootstrap)
            if difference.pairs:
                yield Contrast(target, arm, against, group, metric, difference)


@dataclass(frozen=True)
class _Pair:
    """The rows of two arms on the same cases, in the same order."""

    target: str
    arm: str
    against: str
    group: Group
    stratum: str
    ours: Sequence[Row]
    theirs: Sequence[Row]

    def difference(self, metric: Metric, settings: Bootstrap) -> Difference:
        """Compare them on a metric."""
        return paired_difference(
            _values(self.theirs, metric.name),
            _values(self.ours, metric.name),
            [row.patient for row in self.ours],
            metric.higher_is_better,
            _values(self.ours, metric.pooled_by) if metric.pooled_by else None,
            settings,
            metric.bound,
        )


def _family(pair: _Pair, settings: Bootstrap) -> Iterator[Contrast]:
    """Compare two arms on each metric, Holm's correction over the primary ones of lesion cases."""
    found = {metric: pair.difference(metric, settings) for metric in METRICS[pair.group]}
    family = PRIMARY if pair.group == "lesion" else ()
    tested = {m.name: found[m].wilcoxon_p for m in found if m.name in family}
    after = holm(tested)
    for metric, measured in found.items():
        difference = measured
        if metric.name in after:
            difference = corrected(measured, after[metric.name], settings.level)
        yield Contrast(
            *(pair.target, pair.arm, pair.against, pair.group, metric, difference, pair.stratum)
        )


def _match(rows: Sequence[Row], target: str, arm: str, against: str) -> MatchedSensitivity | None:
    """Find the false positives of `arm` where it finds what `against` finds, over all cases."""
    ours = [row for group in GROUPS for row in _rows_of(rows, target, arm, group)]
    theirs = [row for group in GROUPS for row in _rows_of(rows, target, against, group)]
    if not ours or not all(row.by_threshold for row in ours):
        return None
    found = sum(row.measures.found_lesions for row in theirs)
    return MatchedSensitivity(
        target=target,
        arm=arm,
        against=against,
        found=found,
        false_positives=sum(row.measures.false_positives for row in theirs),
        point=at_sensitivity(froc([row.by_threshold for row in ours]), found),
    )
