"""One table in a paper's layout: rows of arms, groups of columns, and ours beside the published.

"±" is half of a 95 % interval by Student's t: over the draws; of one draw over the folds, and
where there are none either over the cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from statistics import fmean
from typing import Any

from napari_backsplit.backend.comparison.statistics import Draws, over_draws
from napari_backsplit.backend.experiments.cells import Table, mean_text
from napari_backsplit.backend.experiments.figures import Figure, Figures, targets_of
from napari_backsplit.backend.experiments.outcomes import DrawResult
from napari_backsplit.backend.experiments.plan import ExperimentPlan, Layout
from napari_backsplit.backend.experiments.published import LABELS, heads, published

TARGET = "{target}"
ALL_TARGETS = "All lesions mean"
PARAMETERS = "parameters"
DIFFER = (
    "Ours and the published stand side by side, not against each other: data, network and budget "
    "differ."
)
MISSED = "A lesion case without a prediction has the image's diagonal as its HD-95."
LEFT_OUT = "HD-95 leaves out lesion cases without a prediction."
_OF_A_CASE = ("dice", "hd95_mm", "nsd", "average_precision", "lesion_f1", "false_positives")


@dataclass(frozen=True)
class Cell:
    """A figure in the layout; `over` is None where it is undefined."""

    row: str
    column: str
    metric: str
    target: str
    arm: str
    over: Draws | None
    digits: int
    unit: str = ""

    def text(self, brief: bool) -> str:
        """Return the figure as its cell shows it."""
        return mean_text(self.over, self.digits, brief) + (self.unit if self.over else "")


def layout_tables(
    plan: ExperimentPlan, results: Sequence[DrawResult], *, brief: bool = False
) -> list[Table]:
    """Return our numbers in the paper's layout, then the published ones; [] without a layout.

    Parameters
    ----------
    brief : bool
        For a narrow terminal: without intervals and the published numbers, and a table for each
        group of columns.
    """
    layout = plan.layout
    if layout is None:
        return []
    cells = layout_cells(plan, results)
    columns = tuple(dict.fromkeys(cell.column for cell in cells))
    groups = [(column,) for column in columns] if brief else [columns] if columns else []
    ours = [_table(plan, layout, cells, group, brief) for group in groups]
    theirs = published(layout.published).tables() if layout.published and not brief else []
    return [*ours, *theirs]


def _table(
    plan: ExperimentPlan,
    layout: Layout,
    cells: Sequence[Cell],
    columns: tuple[str, ...],
    brief: bool,
) -> Table:
    found = {(cell.row, cell.column, cell.metric): cell.text(brief) for cell in cells}
    places = [(column, metric) for column in columns for metric in _metrics(layout, cells)]
    rows = tuple(
        (row, *(found.get((row, *place), "") for place in places))
        for row in dict.fromkeys(cell.row for cell in cells)
    )
    labels = tuple(dict.fromkeys(metric for _, metric in places))
    return Table(f"{plan.title}: ours", (layout.head, *heads(columns, labels)), rows)


def _metrics(layout: Layout, cells: Sequence[Cell]) -> tuple[str, ...]:
    """Return the metrics of the layout, as far as any cell has them."""
    measured = {cell.metric for cell in cells}
    return tuple(metric for metric in layout.metrics if metric in measured)


# ---------------------------------------------------------------------- figures


def layout_cells(plan: ExperimentPlan, results: Sequence[DrawResult]) -> list[Cell]:
    """Return the figures of the layout, row by row; [] without one."""
    if plan.layout is None:
        return []
    if not plan.arms:
        return list(_qualities(results))
    targets = targets_of(results) or [""]
    cells = [
        cell
        for target in targets
        for arm in plan.arms
        if arm.row
        for cell in _cells(plan, results, target, len(targets) > 1, arm.name)
    ]
    return [*cells, *_over_targets(plan, cells, targets)]


def _cells(
    plan: ExperimentPlan, results: Sequence[DrawResult], target: str, several: bool, arm: str
) -> Iterator[Cell]:
    planned = next(one for one in plan.arms if one.name == arm)
    named = target or "target"
    row = planned.row.replace(TARGET, named[:1].upper() + named[1:])
    row += f" ({target})" if several and TARGET not in planned.row else ""
    figures = Figures(plan, results, target)
    for metric in plan.layout.metrics if plan.layout else ():
        place = (row, planned.column, metric, target, arm)
        if metric == PARAMETERS:
            yield Cell(*place, _parameters(results, arm), 2, "M")
        else:
            figure = Figure("lesion", metric, LABELS.get(metric, metric))
            yield Cell(*place, spread(figures, arm, figure), figure.metric.digits)


def spread(figures: Figures, arm: str, figure: Figure) -> Draws | None:
    """Return a figure of an arm with its interval: over draws, or folds, or cases.

    The figure itself is always the mean over draws of what the comparisons say.
    """
    mean = figures.mean(arm, figure)
    if mean is None or len(figures.results) > 1 or figure.name not in _OF_A_CASE:
        return mean
    values = by_fold(figures.results[0], figures.target, arm, figure)
    if len(values) < 2:
        return mean
    over = over_draws(values)
    half = (over.high - over.low) / 2
    return replace(mean, low=mean.mean - half, high=mean.mean + half)


def by_fold(result: DrawResult, target: str, arm: str, figure: Figure) -> list[float]:
    """Return the means of the folds, or without folds the figures of the cases."""
    wanted = {"target": target, "arm": arm, "group": figure.group}
    rows = [row for row in result.cases if wanted.items() <= row.items() and row.get(figure.name)]
    parts: dict[Any, list[float]] = {}
    for row in rows:
        part = result.fold_of.get(row["case"], row["case"])
        parts.setdefault(part, []).append(float(row[figure.name]))
    return [value for part in parts.values() if isfinite(value := fmean(part))]


def _parameters(results: Sequence[DrawResult], arm: str) -> Draws | None:
    """Return the parameters of an arm's network, in millions."""
    counts = {r.parameters[arm] for r in results if arm in r.parameters}
    return over_draws([max(counts) / 1e6]) if counts else None


def _over_targets(
    plan: ExperimentPlan, cells: Sequence[Cell], targets: Sequence[str]
) -> Iterator[Cell]:
    """Yield the means over several targets, without an interval, as Tab. 2 has them."""
    if len(targets) < 2:
        return
    for arm in plan.arms:
        if TARGET not in arm.row:
            continue
        for metric in plan.layout.metrics if plan.layout else ():
            own = [cell for cell in cells if (cell.arm, cell.metric) == (arm.name, metric)]
            means = [cell.over.mean for cell in own if cell.over is not None]
            over = over_draws([fmean(means)]) if len(means) == len(targets) else None
            row = arm.row.replace(TARGET, ALL_TARGETS)
            yield replace(own[0], row=row, target="", over=over)


def _qualities(results: Sequence[DrawResult]) -> Iterator[Cell]:
    """Yield Dice of masks by their source, as Tab. 5 and 6 have it."""
    made = [(head, name) for r in results for head, means in r.quality.items() for name in means]
    heads_ = dict.fromkeys(head for head, _ in made)
    for name in dict.fromkeys(name for _, name in made):
        for head in heads_:
            values = [r.quality[head][name] for r in results if name in r.quality.get(head, {})]
            over = over_draws(values) if values else None
            yield Cell(name, head, "dice", "", "", over, 3)


# ---------------------------------------------------------------------- words


def layout_notes(plan: ExperimentPlan, results: Sequence[DrawResult]) -> list[str]:
    """Say what the intervals of the layout are over, and how to read the published numbers."""
    layout = plan.layout
    if layout is None:
        return []
    lines = []
    if len(results) == 1 and plan.arms:
        over = "folds" if results[0].fold_of else "cases"
        lines.append(f'In the paper\'s layout "±" is of the {over}, since there is one draw.')
    if plan.arms and "hd95_mm" in layout.metrics:
        penalised = plan.comparison.get("missed_hd95") == "image diagonal"
        lines.append(MISSED if penalised else LEFT_OUT)
    if layout.published:
        known = published(layout.published)
        lines.append(f"{known.source}. {known.note} {DIFFER}")
    return lines


def plain_layout(plan: ExperimentPlan, results: Sequence[DrawResult]) -> dict[str, Any]:
    """Return ours and the published as JSON holds them; {} without a layout."""
    layout = plan.layout
    if layout is None:
        return {}
    ours = [_plain(cell) for cell in layout_cells(plan, results)]
    made: dict[str, Any] = {"ours": ours, "published": None}
    if layout.published:
        known = published(layout.published)
        numbers = [{**vars(number), "value": number.value} for number in known.numbers()]
        made["published"] = {"source": known.source, "note": known.note, "numbers": numbers}
        made["reading"] = DIFFER
    return made


def _plain(cell: Cell) -> Mapping[str, Any]:
    over = None if cell.over is None else vars(cell.over)
    return {**{name: value for name, value in vars(cell).items() if name != "digits"}, "over": over}
