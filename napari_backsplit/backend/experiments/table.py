"""The figures of an experiment over its draws, as plain data and as tables.

An undefined figure is a dash, never 0. A network that finds nothing has no false positives
either: where an arm predicts nothing in any lesion case of a draw, its false positives of that
draw are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from napari_backsplit.backend.comparison.tables import without_nan
from napari_backsplit.backend.comparison.verdicts import signed
from napari_backsplit.backend.experiments.outcomes import DrawResult
from napari_backsplit.backend.experiments.plan import ExperimentPlan

FORMAT_VERSION = 1
DASH = "–"

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A figure of the tables: a metric of lesion cases or of lesion-free cases."""

    group: Group
    name: str
    label: str

    @property
    def metric(self) -> Metric:
        """The metric, which knows what is better."""
        return next(metric for metric in METRICS[self.group] if metric.name == self.name)


LESION = (
    Figure("lesion", "dice", "Dice"),
    Figure("lesion", "average_precision", "AP"),
    Figure("lesion", "found_lesions", "lesions found"),
    Figure("lesion", "lesion_f1", "lesion F1"),
    Figure("lesion", "false_positives", "FP a case"),
)
LESION_FREE = (
    Figure("lesion-free", "false_positives", "FP a lesion-free case"),
    Figure("lesion-free", "any_false_positive", "lesion-free cases with FP"),
    Figure("lesion-free", "false_positive_ml", "FP ml a lesion-free case"),
)
FIGURES = (*LESION, *LESION_FREE)


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the title and the table in Markdown."""
        rows = ["| " + " | ".join(cells) + " |" for cells in (self.head, *self.rows)]
        return "\n".join(
            [f"## {self.title}", "", rows[0], "|" + "---|" * len(self.head), *rows[1:]]
        )


@dataclass(frozen=True)
class Matched:
    """False positives of an arm where it finds as many lesions as another, over draws.

    Attributes
    ----------
    draws, reached : int
        Draws in which this is defined, and those in which the arm finds as many at any threshold.
    arm_fp, against_fp, difference : Draws or None
        False positives of a draw's cases together, over the draws that reached; None without one.
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

    def entry(self, result: DrawResult, arm: str, group: Group) -> Entry | None:
        """Return the summary of an arm on a draw; None where there is none, or no such case."""
        entries = (result.summary or {}).get("summaries", ())
        wanted = (self.target, arm, group)
        found = (e for e in entries if (e["target"], e["arm"], e["group"]) == wanted)
        entry = next(found, None)
        return entry if entry and entry["cases"] else None

    def has_cases(self, result: DrawResult, group: Group) -> bool:
        """Whether a compared draw has cases of a group."""
        return any(self.entry(result, arm, group) for arm in self.arms)

    def finds_nothing(self, result: DrawResult, arm: str) -> bool:
        """Whether an arm predicts nothing in any lesion case of a draw."""
        entry = self.entry(result, arm, "lesion")
        return entry is not None and entry["missed"] == entry["cases"]

    def value(self, result: DrawResult, arm: str, figure: Figure) -> float:
        """Return a figure of an arm on a draw, not a number where it is undefined."""
        entry = self.entry(result, arm, figure.group)
        silent = "false_positive" in figure.name and self.finds_nothing(result, arm)
        value = None if entry is None or silent else entry["means"].get(figure.name)
        return nan if value is None else float(value)

    def values(self, arm: str, figure: Figure) -> list[float]:
        """Return a figure of an arm, draw by draw."""
        return [self.value(result, arm, figure) for result in self.results]

    def mean(self, arm: str, figure: Figure) -> Draws | None:
        """Return a figure of an arm over the draws that have it; None if none has."""
        return _over(self.values(arm, figure))

    def difference(self, arm: str, against: str, figure: Figure) -> Draws | None:
        """Return arm minus `against` over the draws that have both; None if none has."""
        both = zip(self.values(arm, figure), self.values(against, figure), strict=True)
        return _over([ours - theirs for ours, theirs in both])

    def matched(self, arm: str, against: str) -> Matched:
        """Return the false positives of an arm at the sensitivity of another.

        A draw in which the other finds no lesion is left out.
        """
        entries = [e for result in self.results if (e := self._match(result, arm, against))]
        reached = [entry for entry in entries if entry["point"]]
        ours = [float(entry["point"]["false_positives"]) for entry in reached]
        theirs = [float(entry["false_positives"]) for entry in reached]
        change = [a - b for a, b in zip(ours, theirs, strict=True)]
        return Matched(
            arm, against, len(entries), len(reached), _over(ours), _over(theirs), _over(change)
        )

    def _match(self, result: DrawResult, arm: str, against: str) -> Entry | None:
        entries = (result.summary or {}).get("matched_sensitivity", ())
        wanted = (self.target, arm, against)
        found = (e for e in entries if (e["target"], e["arm"], e["against"]) == wanted)
        entry = next(found, None)
        return entry if entry and entry["found"] else None

    def hours(self, arm: str) -> Draws | None:
        """Return the training hours of an arm over the draws in which it was trained."""
        return _over([result.outcomes[arm].hours for result in self.results])


def targets_of(results: Sequence[DrawResult]) -> list[str]:
    """Return the targets that were compared."""
    named = [target for r in results if r.summary for target in r.summary["targets"]]
    return list(dict.fromkeys(named))


def _over(values: Sequence[float]) -> Draws | None:
    finite = [value for value in values if isfinite(value)]
    return over_draws(finite) if finite else None


def wins(difference: Draws, figure: Figure) -> int:
    """Return in how many draws a difference is strictly in favour."""
    return difference.positive if figure.metric.higher_is_better else difference.negative


# ---------------------------------------------------------------------- plain data


def plain_results(plan: ExperimentPlan, results: Sequence[DrawResult]) -> dict[str, Any]:
    """Return all figures as JSON holds them; an undefined one is null."""
    values = {
        "format_version": FORMAT_VERSION,
        "plan": plan.model_dump(mode="json", exclude={"data": {"folder"}}),
        "baseline": plan.baseline,
        "draws": [
            {
                "draw": result.seed,
                "compared": result.summary is not None,
                "reason": result.reason,
                "arms": {name: asdict(outcome) for name, outcome in result.outcomes.items()},
            }
            for result in results
        ],
        "targets": {t: _plain(Figures(plan, results, t)) for t in targets_of(results)},
        "notes": notes(plan, results),
    }
    plain: dict[str, Any] = without_nan(values)
    return plain


def _plain(figures: Figures) -> dict[str, Any]:
    return {
        "figures": [
            {
                "arm": arm,
                **_named(figure),
                "values": figures.values(arm, figure),
                "over_draws": _dict(figures.mean(arm, figure)),
            }
            for arm in figures.arms
            for figure in FIGURES
        ],
        "differences": [
            {
                "arm": arm,
                "against": against,
                **_named(figure),
                "wins": wins(draws, figure),
                **asdict(draws),
            }
            for arm, against in figures.pairs
            for figure in FIGURES
            if (draws := figures.difference(arm, against, figure))
        ],
        "matched_sensitivity": [asdict(figures.matched(*pair)) for pair in figures.pairs],
        "training_hours": {arm: _dict(figures.hours(arm)) for arm in figures.arms},
    }


def _named(figure: Figure) -> dict[str, str]:
    return {"group": figure.group, "metric": figure.name}


def _dict(draws: Draws | None) -> dict[str, Any] | None:
    return None if draws is None else asdict(draws)


# ---------------------------------------------------------------------- tables


def tables(
    plan: ExperimentPlan, results: Sequence[DrawResult], *, brief: bool = False
) -> list[Table]:
    """Return the tables of an experiment: means, differences, matched sensitivity, by draw.

    Parameters
    ----------
    brief : bool
        Leave out the wide ones: differences and matched sensitivity.
    """
    targets = targets_of(results)
    several = len(targets) > 1
    return [
        table
        for target in targets or [""]
        for table in _tables(
            Figures(plan, results, target), f" ({target})" if several else "", brief
        )
    ]


def _tables(figures: Figures, suffix: str, brief: bool) -> Iterator[Table]:
    shown = [f for f in FIGURES if any(figures.has_cases(r, f.group) for r in figures.results)]
    for group, words in (("lesion", "Lesion cases"), ("lesion-free", "Lesion-free cases")):
        columns = [figure for figure in shown if figure.group == group]
        if columns:
            yield _means(figures, columns, f"{words}{suffix}: mean over {_count(figures)}")
    if shown and not brief:
        yield from _comparisons(figures, shown, suffix)
    yield _by_draw(figures, suffix)


def _comparisons(figures: Figures, shown: Sequence[Figure], suffix: str) -> Iterator[Table]:
    for against in dict.fromkeys(against for _, against in figures.pairs):
        title = f'Difference to "{against}"{suffix}: mean, 95 % interval, draws in favour'
        yield _differences(figures, shown, against, title)
    yield _matched(figures, f"False positives where as many lesions are found{suffix}")


def _count(figures: Figures) -> str:
    count = len(figures.results)
    return f"{count} draws with a 95 % t interval" if count > 1 else "one draw, so no interval"


def _means(figures: Figures, columns: Sequence[Figure], title: str) -> Table:
    rows = [
        (
            arm,
            _draws(figures, arm, columns),
            *(_mean(figures.mean(arm, figure), figure.metric.digits) for figure in columns),
        )
        for arm in figures.arms
    ]
    return Table(title, ("arm", "draws", *(figure.label for figure in columns)), tuple(rows))


def _draws(figures: Figures, arm: str, columns: Sequence[Figure]) -> str:
    """Say in how many of the draws an arm was measured."""
    results, group = figures.results, columns[0].group
    measured = sum(figures.entry(result, arm, group) is not None for result in results)
    return str(measured) if measured == len(results) else f"{measured} of {len(results)}"


def _mean(draws: Draws | None, digits: int) -> str:
    if draws is None:
        return DASH
    interval = f" [{draws.low:.{digits}f}, {draws.high:.{digits}f}]" if draws.count > 1 else ""
    return f"{draws.mean:.{digits}f}{interval}"


def _differences(figures: Figures, columns: Sequence[Figure], against: str, title: str) -> Table:
    rows = [
        (
            arm,
            *(_difference(figures.difference(arm, against, figure), figure) for figure in columns),
        )
        for arm, other in figures.pairs
        if other == against
    ]
    return Table(title, ("arm", *(figure.label for figure in columns)), tuple(rows))


def _difference(draws: Draws | None, figure: Figure) -> str:
    if draws is None:
        return DASH
    return f"{_change(draws, figure.metric.digits)} {wins(draws, figure)}/{draws.count}"


def _change(draws: Draws, digits: int) -> str:
    low, high = signed(draws.low, digits), signed(draws.high, digits)
    return signed(draws.mean, digits) + (f" [{low}, {high}]" if draws.count > 1 else "")


def _matched(figures: Figures, title: str) -> Table:
    rows = [_matched_row(figures.matched(*pair)) for pair in figures.pairs]
    head = ("arm", "against", "FP of that one", "FP of the arm", "difference", "draws")
    return Table(title, head, tuple(rows))


def _matched_row(matched: Matched) -> tuple[str, ...]:
    change = matched.difference
    return (
        matched.arm,
        matched.against,
        _mean(matched.against_fp, 1),
        _mean(matched.arm_fp, 1),
        DASH if change is None else f"{_change(change, 1)} {change.negative}/{change.count}",
        f"{matched.reached}/{matched.draws} reached" if matched.draws else DASH,
    )


def _by_draw(figures: Figures, suffix: str) -> Table:
    results = figures.results
    rows = [
        (arm, *(_cell(figures, result, arm) for result in results), _hours(figures.hours(arm)))
        for arm in figures.arms
    ]
    head = ("arm", *(f"draw {result.seed}" for result in results), "training hours a draw")
    return Table(f"Dice in lesion cases, draw by draw{suffix}", head, tuple(rows))


def _cell(figures: Figures, result: DrawResult, arm: str) -> str:
    outcome = result.outcomes[arm]
    if outcome.state != "done":
        return _short(outcome.text)
    if result.summary is None:
        return "not compared"
    if not figures.has_cases(result, "lesion"):
        return "no lesion cases"
    value = figures.value(result, arm, LESION[0])
    text = f"{value:.3f}" if isfinite(value) else DASH
    return f"{text}, finds nothing" if figures.finds_nothing(result, arm) else text


def _hours(draws: Draws | None) -> str:
    return DASH if draws is None else f"{draws.mean:.2f}"


def _short(text: str, limit: int = 60) -> str:
    text = text.replace("|", "/").replace("\n", " ")
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


# ---------------------------------------------------------------------- in words


def notes(plan: ExperimentPlan, results: Sequence[DrawResult]) -> list[str]:
    """Say what the tables leave out, and how to read them."""
    lines = [line for result in results for line in _outcome_notes(result)]
    for target in targets_of(results):
        figures = Figures(plan, results, target)
        for result in results:
            lines += _figure_notes(figures, result)
    lines.append(
        "There is one draw, so no interval: another draw may say otherwise."
        if len(results) == 1
        else "An interval that holds 0 shows no difference, and over few draws it is wide."
    )
    lines.append(
        "A network that finds fewer lesions also has fewer false positives: read the two together."
    )
    return lines


def _outcome_notes(result: DrawResult) -> Iterator[str]:
    for arm, outcome in result.outcomes.items():
        if outcome.state != "done":
            yield f"{arm}, draw {result.seed}: {outcome.text}."
    if result.summary is None:
        yield f"Draw {result.seed} was not compared: {result.reason}."


def _figure_notes(figures: Figures, result: DrawResult) -> Iterator[str]:
    if result.summary and not figures.has_cases(result, "lesion"):
        yield f"Draw {result.seed} has no lesion cases; its lesion-free cases count."
    for arm in figures.arms:
        if figures.finds_nothing(result, arm):
            yield (
                f"{arm}, draw {result.seed}: finds nothing, so its false positives are left out."
            )
