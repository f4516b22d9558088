"""The tables and the notes of an experiment, as texts for the terminal and for a page.

"±" is half of the 95 % interval over the draws by Student's t; a dash is an undefined figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite

from napari_backsplit.backend.comparison.statistics import Draws
from napari_backsplit.backend.comparison.verdicts import signed
from napari_backsplit.backend.experiments.cells import DASH, Table, mean_text, with_half
from napari_backsplit.backend.experiments.figures import (
    DICE,
    FIGURES,
    Figure,
    Figures,
    Matched,
    targets_of,
)
from napari_backsplit.backend.experiments.layout import layout_notes, layout_tables
from napari_backsplit.backend.experiments.outcomes import DrawResult
from napari_backsplit.backend.experiments.plan import ExperimentPlan


def tables(
    plan: ExperimentPlan, results: Sequence[DrawResult], *, brief: bool = False
) -> list[Table]:
    """Return the tables of an experiment.

    First the one in the paper's layout, where the plan has one, and what the paper published; then
    means, differences to the controls, to the baseline and between arms of which one names the
    other, matched sensitivity, and Dice draw by draw.

    Parameters
    ----------
    brief : bool
        For a narrow terminal: means without intervals, and of the differences those in Dice.
    """
    targets = targets_of(results)
    made = layout_tables(plan, results, brief=brief)
    for target in (targets or [""]) if plan.arms else ():
        suffix = f" ({target})" if len(targets) > 1 else ""
        made += _tables(Figures(plan, results, target), suffix, brief)
    return made


def _tables(figures: Figures, suffix: str, brief: bool) -> Iterator[Table]:
    groups: dict[str, list[Figure]] = {}
    for figure in FIGURES:
        if any(figures.has_cases(result, figure.group) for result in figures.results):
            name = f"{figure.group.capitalize()} cases{suffix}"
            groups.setdefault(name, []).append(figure)
    for name, columns in groups.items():
        yield _means(figures, columns, name, brief)
    if groups:
        yield from _dice(figures, suffix) if brief else _comparisons(figures, groups, suffix)
    yield _by_draw(figures, suffix)


def _means(figures: Figures, columns: Sequence[Figure], name: str, brief: bool) -> Table:
    rows = [
        (
            arm,
            _measured(figures, arm, columns[0]),
            *(
                mean_text(figures.mean(arm, figure), figure.metric.digits, brief)
                for figure in columns
            ),
        )
        for arm in figures.arms
    ]
    count = len(figures.results)
    title = f"{name}: mean over {count} draws" if count > 1 else f"{name}: one draw"
    return Table(title, ("arm", "draws", *(figure.label for figure in columns)), tuple(rows))


def _measured(figures: Figures, arm: str, figure: Figure) -> str:
    """Say in how many of the draws an arm was measured."""
    results = figures.results
    count = sum(figures.summary(result, arm, figure.group) is not None for result in results)
    return str(count) if count == len(results) else f"{count}/{len(results)}"


def _comparisons(figures: Figures, groups: dict[str, list[Figure]], suffix: str) -> Iterator[Table]:
    for against in _compared_with(figures):
        arms = [arm for arm, other in figures.pairs if other == against]
        for name, columns in groups.items():
            rows = [(a, *(_difference(figures, a, against, f) for f in columns)) for a in arms]
            title = f'{name}: difference to "{against}", and in favour in how many draws'
            yield Table(title, ("arm", *(figure.label for figure in columns)), tuple(rows))
    for name, columns in groups.items():
        yield from _pairs(figures, columns, name)
    ordered = sorted(figures.pairs, key=lambda pair: pair[1] == figures.plan.baseline)
    matched = tuple(_matched(figures.matched(*pair)) for pair in ordered)
    title = f"False positives in all cases of a draw, where A finds as many lesions as B{suffix}"
    head = ("A", "B", "FP of B", "FP of A", "A − B", "draws reached")
    yield Table(title, head, matched)


def _pairs(figures: Figures, columns: Sequence[Figure], name: str) -> Iterator[Table]:
    """Yield the differences between arms of which one names the other; nothing if none does."""
    pairs = [(arm.name, arm.against) for arm in figures.plan.arms if arm.against]
    rows = [(a, b, *(_difference(figures, a, b, f) for f in columns)) for a, b in pairs]
    if rows:
        title = f"{name}: A − B, and in favour of A in how many draws"
        yield Table(title, ("A", "B", *(figure.label for figure in columns)), tuple(rows))


def _compared_with(figures: Figures) -> list[str]:
    """Return what arms are measured against, the baseline last."""
    named = {against for _, against in figures.pairs}
    return [name for name in (*figures.plan.controls, figures.plan.baseline) if name in named]


def _dice(figures: Figures, suffix: str) -> Iterator[Table]:
    if not any(figures.has_cases(result, "lesion") for result in figures.results):
        return
    others = _compared_with(figures)
    rows = [
        (
            arm,
            *(
                _difference(figures, arm, o, DICE) if (arm, o) in figures.pairs else ""
                for o in others
            ),
        )
        for arm in figures.arms[1:]
    ]
    title = f"Dice in lesion cases{suffix}: difference, and in favour in how many draws"
    yield Table(title, ("arm", *(f'to "{other}"' for other in others)), tuple(rows))
    yield from _pairs(figures, [DICE], f"Dice in lesion cases{suffix}")


def _difference(figures: Figures, arm: str, against: str, figure: Figure) -> str:
    draws = figures.difference(arm, against, figure)
    return DASH if draws is None else _change(draws, figure.metric.digits, figure.wins(draws))


def _change(draws: Draws, digits: int, wins: int) -> str:
    mean = signed(draws.mean, digits)
    return f"{with_half(draws, mean, digits)} ({wins}/{draws.count})"


def _matched(matched: Matched) -> tuple[str, ...]:
    change = matched.difference
    return (
        matched.arm,
        matched.against,
        mean_text(matched.against_fp, 1),
        mean_text(matched.arm_fp, 1),
        DASH if change is None else _change(change, 1, change.negative),
        f"{matched.reached}/{matched.draws}" if matched.draws else DASH,
    )


def _by_draw(figures: Figures, suffix: str) -> Table:
    rows = [
        (
            arm,
            *(_cell(figures, r, arm) for r in figures.results),
            mean_text(figures.hours(arm), 2, True),
        )
        for arm in figures.arms
    ]
    head = ("arm", *(str(result.seed) for result in figures.results), "training h")
    return Table(f"Dice in lesion cases by draw{suffix}", head, tuple(rows))


def _cell(figures: Figures, result: DrawResult, arm: str) -> str:
    """Return Dice, or how the arm stands; the notes say why."""
    state = result.outcomes[arm].state
    value = figures.value(result, arm, DICE)
    return state if state != "done" else f"{value:.3f}" if isfinite(value) else DASH


def notes(plan: ExperimentPlan, results: Sequence[DrawResult]) -> list[str]:
    """Say what the tables leave out, and how to read them."""
    lines = [line for result in results for line in _outcome_notes(result)]
    for target in targets_of(results):
        lines += [
            line for r in results for line in _figure_notes(Figures(plan, results, target), r)
        ]
    several = (
        '"±" is half of the 95 % interval over the draws, by Student\'s t. A difference smaller '
        "than that is not shown, and over few draws it is wide."
    )
    one = "There is one draw, so no interval: another draw may say otherwise."
    together = (
        "A network that finds fewer lesions also has fewer false positives: read the two together."
    )
    own = layout_notes(plan, results)
    if not plan.arms:
        return [*dict.fromkeys(lines), *own]
    return [*dict.fromkeys(lines), *own, one if len(results) == 1 else several, together]


def _outcome_notes(result: DrawResult) -> Iterator[str]:
    for arm, outcome in result.outcomes.items():
        if outcome.state != "done":
            yield f"{arm}, draw {result.seed}: {outcome.text}."
    if result.summary is None and result.outcomes:
        yield f"Draw {result.seed} was not compared: {result.reason}."


def _figure_notes(figures: Figures, result: DrawResult) -> Iterator[str]:
    if result.summary and not figures.has_cases(result, "lesion"):
        yield f"Draw {result.seed} has no lesion cases; its lesion-free cases count."
    for arm in figures.arms:
        if figures.finds_nothing(result, arm):
            yield (
                f"{arm}, draw {result.seed}: finds nothing, so its false positives are left out."
            )
