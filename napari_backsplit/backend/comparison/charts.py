"""Charts of a comparison as SVG, drawn without a screen, one small panel for each question.

A page sets the panels beside one another where it is wide and below one another where it is not,
and gives them its own colours, light or dark.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.agreement import OUTLINE_COLOURS
from napari_backsplit.backend.comparison.lesion_table import LesionRow
from napari_backsplit.backend.comparison.results import Comparison, Contrast, Group, Row
from napari_backsplit.backend.pictures import GREY, PAGE, new_figure, shorten, style_axes, svg

ARM_COLOURS = (
    OUTLINE_COLOURS["baseline"],
    OUTLINE_COLOURS["new"],
    "#cc79a7",
    "#009e73",
    "#d55e00",
    "#0072b2",
)
"""Of Okabe and Ito; the first two as on the image."""

_SHARES = ("dice", "nsd", "found_lesions", "lesion_f1", "sensitivity", "precision")
_PANEL_IN = (3.1, 2.7)
_MOST_ORGANS = 8
_MARKERS = "os^Dv*"
_NOWHERE = "elsewhere"

Drawing = Callable[[Any], None]


@dataclass(frozen=True)
class Panel:
    """One chart.

    Parameters
    ----------
    name : str
        Of its file, without ending.
    title : str
        What it shows, in words.
    svg : str
        An SVG element with no title of its own.
    """

    name: str
    title: str
    svg: str


def arm_colours(comparison: Comparison) -> dict[str, str]:
    """Give each arm a colour: the baseline's, the new model's, then controls and the rest."""
    baseline, controls = comparison.settings.baseline, comparison.settings.controls
    others = [arm for arm in comparison.arms if arm != baseline]
    others.sort(key=lambda arm: arm in controls)
    return {arm: ARM_COLOURS[k % len(ARM_COLOURS)] for k, arm in enumerate([baseline, *others])}


def counted_rows(comparison: Comparison, target: str, arm: str) -> list[Row]:
    """Return the rows of an arm that enter summaries: unseen cases, or those not known."""
    own = [row for row in comparison.rows if (row.target, row.arm) == (target, arm)]
    return [row for row in own if row.counted] or [row for row in own if row.seen == "unknown"]


def _panel(
    name: str, title: str, draw: Drawing, grid: str = "y", size_in: tuple[float, float] = _PANEL_IN
) -> Panel:
    figure = new_figure(*size_in)
    axes = figure.subplots()
    draw(axes)
    style_axes(axes, PAGE, grid)
    for text in axes.texts:
        text.set(fontsize=8.5, color=PAGE.ink)
    return Panel(name, title, svg(figure, name))


# --- each case under both arms ------------------------------------------------------------------


def paired_panels(
    comparison: Comparison, target: str, arm: str, against: str, name: str
) -> list[Panel]:
    """Draw a line for each lesion case from one arm's value to the other's."""
    panels = []
    for metric, label in (("dice", "Dice"), ("nsd", "NSD"), ("hd95_mm", "HD-95 (mm)")):
        sides = [
            _by_case(comparison.select(target, which, "lesion", counted=False), metric)
            for which in (against, arm)
        ]
        values = np.stack(sides, axis=1)
        if np.isfinite(values).all(axis=1).any():
            draw = partial(_draw_pairs, values, metric != "hd95_mm", comparison, arm, against)
            panels.append(_panel(f"{name}-{metric}", label, draw))
    return panels


def _by_case(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    ordered = sorted(rows, key=lambda row: row.case)
    return np.array([row.value(name) for row in ordered], float)


def _draw_pairs(
    values: NDArray[np.float64],
    higher_is_better: bool,
    comparison: Comparison,
    arm: str,
    against: str,
    axes: Any,
) -> None:
    """Draw the pairs (cases, 2) in the colour of the better arm, and the means as bars."""
    colours = arm_colours(comparison)
    pairs = values[np.isfinite(values).all(axis=1)]
    for left, right in pairs:
        gain = (right - left) * (1 if higher_is_better else -1)
        colour = colours[arm] if gain > 0 else colours[against] if gain < 0 else GREY
        axes.plot([0, 1], [left, right], color=colour, lw=1.1, alpha=0.8, marker="o", ms=3.8)
    for x, column in enumerate(pairs.T):
        side = -0.16 if x == 0 else 0.16
        axes.hlines(column.mean(), x + side - 0.09, x + side + 0.09, colors=GREY, lw=3)
    axes.set_xlim(-0.35, 1.35)
    axes.set_ylim(bottom=0)
    if higher_is_better:
        axes.set_ylim(-0.02, 1.02)
    axes.set_xticks([0, 1], [shorten(against, 14), shorten(arm, 14)])


def forest_panel(contrasts: Sequence[Contrast], name: str) -> Panel | None:
    """Draw the difference and interval of each metric that is a share; None without any."""
    shown = [
        item
        for item in contrasts
        if item.group == "lesion" and item.metric.name in _SHARES and item.difference.pairs
    ]
    if not shown:
        return None
    size = (4.6, 0.75 + 0.3 * len(shown))
    return _panel(name, "Differences with their intervals", partial(_draw_forest, shown), "x", size)


def _draw_forest(shown: Sequence[Contrast], axes: Any) -> None:
    for y, item in enumerate(reversed(shown)):
        difference = item.difference
        sure = difference.reading in ("better", "worse")
        axes.plot([difference.low, difference.high], [y, y], color=PAGE.ink, lw=1.6)
        face = PAGE.ink if sure else PAGE.page
        axes.plot(difference.value, y, "o", color=PAGE.ink, mfc=face, ms=6)
    axes.axvline(0, color=GREY, lw=1)
    axes.set_yticks(range(len(shown)), [item.metric.label for item in reversed(shown)])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    ends = [
        abs(v) for c in shown for v in (c.difference.low, c.difference.high, c.difference.value)
    ]
    reach = max([0.1, *(end for end in ends if np.isfinite(end))])
    axes.set_xlim(-1.08 * reach, 1.08 * reach)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("← worse · better →")


# --- lesions ------------------------------------------------------------------------------------


def found_by_size(
    comparison: Comparison, target: str, arms: Sequence[str]
) -> list[tuple[str, dict[str, tuple[int, int]]]]:
    """Return, for each size of lesion that occurs, arm -> (found, reference) over all cases."""
    sums: dict[str, dict[str, list[int]]] = {}
    for arm in arms:
        for row in counted_rows(comparison, target, arm):
            for part in row.measures.by_stratum:
                entry = sums.setdefault(part.name, {}).setdefault(arm, [0, 0])
                entry[0] += part.found
                entry[1] += part.reference
    table = [(name, {a: (n[0], n[1]) for a, n in each.items()}) for name, each in sums.items()]
    return [(name, each) for name, each in table if any(n for _, n in each.values())]


def size_panel(comparison: Comparison, target: str, arms: Sequence[str], name: str) -> Panel | None:
    """Draw the share of lesions found by size; None if no lesion was counted."""
    sizes = found_by_size(comparison, target, arms)
    if not sizes:
        return None

    def draw(axes: Any) -> None:
        values = {
            arm: [found / total if total else 0.0 for found, total in (e[arm] for _, e in sizes)]
            for arm in arms
        }
        labels = [f"{at_least(size)}\nn = {each[arms[0]][1]}" for size, each in sizes]
        _draw_bars(axes, labels, values, arm_colours(comparison))
        axes.set_ylim(0, 1.02)

    return _panel(name, "Share of lesions found, by their size", draw)


def at_least(size: str) -> str:
    """Return the name of a class of size as a person writes it, with ≥."""
    return size.replace(">=", "≥")


def _draw_bars(
    axes: Any, labels: Sequence[str], values: dict[str, list[float]], colours: dict[str, str]
) -> None:
    width = 0.8 / len(values)
    for k, (arm, heights) in enumerate(values.items()):
        x = np.arange(len(labels)) + (k - (len(values) - 1) / 2) * width
        axes.bar(x, heights, 0.88 * width, color=colours[arm])
    axes.set_xticks(range(len(labels)), labels)


def froc_panel(comparison: Comparison, target: str, arms: Sequence[str], name: str) -> Panel | None:
    """Draw sensitivity against false positives per case; None without probabilities."""
    known = comparison.froc.get(target, {})
    curves = {arm: known[arm] for arm in arms if known.get(arm) and known[arm][0].reference}
    if not curves:
        return None

    def draw(axes: Any) -> None:
        colours = arm_colours(comparison)
        for k, (arm, points) in enumerate(curves.items()):
            x = [point.false_positives_per_case for point in points]
            y = [point.sensitivity for point in points]
            axes.plot(x, y, "-", marker=_MARKERS[k % 6], ms=3, lw=1.3, color=colours[arm])
            own = _operating_point(counted_rows(comparison, target, arm))
            axes.plot(*own, _MARKERS[k % 6], ms=9, mfc="none", mew=1.8, color=colours[arm])
        axes.set_ylim(0, 1.03)
        axes.set_xlim(left=0)
        axes.set_xlabel("False positives per case")

    return _panel(name, "FROC: share of lesions found", draw)


def _operating_point(rows: Sequence[Row]) -> tuple[float, float]:
    """Return (false positives per case, sensitivity) of the masks themselves."""
    found, lesions, false = (
        sum(getattr(row.measures, name) for row in rows)
        for name in ("found_lesions", "reference_lesions", "false_positives")
    )
    return false / len(rows), found / lesions


def false_ml_by_organ(
    lesions: Iterable[LesionRow], target: str, arms: Sequence[str]
) -> list[tuple[str, dict[str, float]]]:
    """Return, for each organ that holds false positives, arm -> volume in ml, the most first."""
    sums: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(arms, 0.0))
    for row in lesions:
        if row.kind == "false positive" and row.target == target:
            for arm in set(row.found_by) & set(arms):
                sums[row.organ or _NOWHERE][arm] += row.ml
    return sorted(sums.items(), key=lambda item: (item[0] == _NOWHERE, -sum(item[1].values())))


def organ_panel(
    comparison: Comparison,
    lesions: Sequence[LesionRow],
    target: str,
    arms: Sequence[str],
    name: str,
) -> Panel | None:
    """Draw the false positive volume by the organ it lies in; None without false positives."""
    organs = false_ml_by_organ(lesions, target, arms)[:_MOST_ORGANS]
    if not organs:
        return None

    def draw(axes: Any) -> None:
        colours = arm_colours(comparison)
        height = 0.8 / len(arms)
        for k, arm in enumerate(arms):
            y = np.arange(len(organs)) + (k - (len(arms) - 1) / 2) * height
            values = [each[arm] for _, each in organs]
            axes.barh(y, values, 0.88 * height, color=colours[arm])
        axes.set_yticks(range(len(organs)), [shorten(organ, 16) for organ, _ in organs])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel("ml, all cases together")

    size = (_PANEL_IN[0], max(1.6, 0.9 + 0.42 * len(organs)))
    return _panel(name, "False positive volume by organ", draw, "x", size)


# --- every arm ----------------------------------------------------------------------------------


def distribution_panels(comparison: Comparison, target: str, name: str) -> list[Panel]:
    """Draw Dice, and false positive volume in both groups, one dot for each case and arm."""
    wanted: tuple[tuple[Group, str, str], ...] = (
        ("lesion", "dice", "Dice, lesion cases"),
        ("lesion", "false_positive_ml", "False positives (ml), lesion cases"),
        ("lesion-free", "false_positive_ml", "False positives (ml), lesion-free cases"),
    )
    size = (_PANEL_IN[0], 0.6 + 0.42 * len(comparison.arms))
    return [
        _panel(f"{name}-{k}", label, partial(_draw_distribution, comparison, target, group, metric),
               "x", size)
        for k, (group, metric, label) in enumerate(wanted, start=1)
        if comparison.select(target, comparison.arms[0], group, counted=False)
    ]  # fmt: skip


def _draw_distribution(
    comparison: Comparison, target: str, group: Group, name: str, axes: Any
) -> None:
    rng = np.random.default_rng(0)
    colours = arm_colours(comparison)
    arms = comparison.arms[::-1]
    for y, arm in enumerate(arms):
        values = _by_case(comparison.select(target, arm, group, counted=False), name)
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        axes.hlines(y, low, high, colors=GREY, lw=7, alpha=0.45)
        jitter = y + rng.uniform(-0.17, 0.17, len(values))
        axes.plot(values, jitter, "o", ms=3.5, color=colours[arm])
        axes.vlines(middle, y - 0.26, y + 0.26, colors=GREY, lw=2.2)
    axes.set_ylim(-0.5, len(arms) - 0.5)
    axes.set_yticks(range(len(arms)), [shorten(arm, 14) for arm in arms])
    axes.set_xlim(left=0)
    if name == "dice":
        axes.set_xlim(-0.02, 1.02)
