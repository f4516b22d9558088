"""The figures of an experiment over its draws: means, differences, and matched sensitivity.

An undefined figure is not a number, or None over draws; it is never 0. A network that finds
nothing has no false positives either: where an arm predicts nothing in any lesion case of a draw,
its false positives of that draw are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

from napari_backsplit.backend.comparison.results import (
    METRICS,
    ComparisonSettings,
    Group,
    Metric,
    arm_pairs,
)
from napari_backsplit.backend.comparison.statistics import Draws, over_draws
from napari_backsplit.backend.experiments.outcomes import DrawResult
from napari_backsplit.backend.experiments.plan import ExperimentPlan

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A column of the tables: a metric of lesion cases or of lesion-free cases."""

    group: Group
    name: str
    label: str

    @property
    def metric(self) -> Metric:
        """The metric, which knows its digits and what is better."""
        return next(metric for metric in METRICS[self.group] if metric.name == self.name)

    def wins(self, difference: Draws) -> int:
        """Return in how many draws a difference is strictly in favour."""
        return difference.positive if self.metric.higher_is_better else difference.negative


DICE = Figure("lesion", "dice", "Dice")
FIGURES = (
    DICE,
    Figure("lesion", "average_precision", "AP"),
    Figure("lesion", "found_lesions", "share found"),
    Figure("lesion", "lesion_f1", "lesion F1"),
    Figure("lesion", "false_positives", "FP/case"),
    Figure("lesion-free", "any_false_positive", "share with FP"),
    Figure("lesion-free", "false_positives", "FP/case"),
    Figure("lesion-free", "false_positive_ml", "FP ml/case"),
)


@dataclass(frozen=True)
class Matched:
    """False positives of an arm where it finds as many lesions as another, over draws.

    Attributes
    ----------
    draws, reached : int
        Draws in which this is defined, and those in which the arm finds as many at any threshold.
    arm_fp, against_fp, difference : Draws or None
        False positives in all cases of a draw, over the draws that reached; None without one.
    """

    arm: str
    against: str
    draws: int
    reached: int
    arm_fp: Draws | None
    against_fp: Draws | None
    difference: Draws | None


@dataclass(frozen=True)
class Figures:
    """Every figure of an experiment for one target."""

    plan: ExperimentPlan
    results: Sequence[DrawResult]
    target: str

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms, the baseline first."""
        return tuple(arm.name for arm in self.plan.arms)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(arm, the arm it is measured against), the baseline first."""
        return arm_pairs(self.arms, ComparisonSettings(self.plan.baseline, self.plan.controls))

    def summary(self, result: DrawResult, arm: str, group: Group) -> Entry | None:
        """Return the summary of an arm on a draw; None where there is none, or no such case."""
        entry = self._entry(result, "summaries", arm=arm, group=group)
        return entry if entry and entry["cases"] else None

    def has_cases(self, result: DrawResult, group: Group) -> bool:
        """Whether a compared draw has cases of a group."""
        return any(self.summary(result, arm, group) for arm in self.arms)

    def finds_nothing(self, result: DrawResult, arm: str) -> bool:
        """Whether an arm predicts nothing in any lesion case of a draw."""
        entry = self.summary(result, arm, "lesion")
        return entry is not None and entry["missed"] == entry["cases"]

    def value(self, result: DrawResult, arm: str, figure: Figure) -> float:
        """Return a figure of an arm on a draw, not a number where it is undefined."""
        entry = self.summary(result, arm, figure.group)
        silent = "false_positive" in figure.name and self.finds_nothing(result, arm)
        value = None if entry is None or silent else entry["means"].get(figure.name)
        return nan if value is None else float(value)

    def values(self, arm: str, figure: Figure) -> list[float]:
        """Return a figure of an arm, draw by draw."""
        return [self.value(result, arm, figure) for result in self.results]

    def mean(self, arm: str, figure: Figure) -> Draws | None:
        """Return a figure of an arm over the draws that have it."""
        return _over(self.values(arm, figure))

    def difference(self, arm: str, against: str, figure: Figure) -> Draws | None:
        """Return arm minus `against` over the draws that have both."""
        both = zip(self.values(arm, figure), self.values(against, figure), strict=True)
        return _over([ours - theirs for ours, theirs in both])

    def matched(self, arm: str, against: str) -> Matched:
        """Return the false positives of an arm at the sensitivity of another.

        A draw in which the other finds no lesion is left out.
        """
        entries = [
            self._entry(result, "matched_sensitivity", arm=arm, against=against)
            for result in self.results
        ]
        defined = [entry for entry in entries if entry and entry["found"]]
        reached = [entry for entry in defined if entry["point"]]
        ours = [float(entry["point"]["false_positives"]) for entry in reached]
        theirs = [float(entry["false_positives"]) for entry in reached]
        change = [a - b for a, b in zip(ours, theirs, strict=True)]
        over = (_over(ours), _over(theirs), _over(change))
        return Matched(arm, against, len(defined), len(reached), *over)

    def hours(self, arm: str) -> Draws | None:
        """Return the training hours of an arm over the draws in which it was trained."""
        return _over([result.outcomes[arm].hours for result in self.results])

    def _entry(self, result: DrawResult, part: str, **wanted: str) -> Entry | None:
        """Return the one entry of a part of a draw's summary.json that is wanted."""
        wanted["target"] = self.target
        entries = (result.summary or {}).get(part, ())
        return next((e for e in entries if wanted.items() <= _ids(e, wanted).items()), None)


def _ids(entry: Entry, names: Mapping[str, str]) -> dict[str, str]:
    return {name: entry[name] for name in names}


def targets_of(results: Sequence[DrawResult]) -> list[str]:
    """Return the targets that were compared."""
    named = [target for r in results if r.summary for target in r.summary["targets"]]
    return list(dict.fromkeys(named))


def _over(values: Sequence[float]) -> Draws | None:
    finite = [value for value in values if isfinite(value)]
    return over_draws(finite) if finite else None
