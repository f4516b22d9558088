"""Charts of a comparison as PNG, drawn without a screen, for a light and a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.results import Comparison, Contrast, Group, Row
from napari_backsplit.backend.pictures import GREY, Theme, new_figure, png, shorten, style_axes

OKABE_ITO = {
    "reference": "#009E73",
    "arms": ("#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#E69F00", "#0072B2"),
}
_SHARES = ("dice", "nsd", "found_lesions", "lesion_f1", "sensitivity", "precision")


def arm_colours(comparison: Comparison) -> dict[str, str]:
    """Give each arm a colour of Okabe and Ito, the baseline the first."""
    baseline = comparison.settings.baseline
    arms = [baseline, *(arm for arm in comparison.arms if arm != baseline)]
    colours: tuple[str, ...] = tuple(OKABE_ITO["arms"])
    return {arm: colours[k % len(colours)] for k, arm in enumerate(arms)}


def paired_chart(
    comparison: Comparison, target: str, arm: str, against: str, theme: Theme
) -> bytes:
    """Draw a line for each lesion case from one arm's value to the other's."""
    figure = new_figure(8.6, 3.4)
    panels = (("dice", "Dice"), ("nsd", "NSD"), ("hd95_mm", "HD-95 (mm)"))
    for axes, (name, label) in zip(figure.subplots(1, 3), panels, strict=True):
        values = [
            _by_case(comparison.select(target, which, "lesion", counted=False), name)
            for which in (against, arm)
        ]
        _draw_pairs(axes, np.stack(values, axis=1), name != "hd95_mm", comparison, arm, against)
        axes.set_xticks([0, 1], [shorten(against), shorten(arm)])
        axes.set_title(label, loc="left")
        style_axes(axes, theme)
    return png(figure)


def _by_case(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    ordered = sorted(rows, key=lambda row: row.case)
    return np.array([row.value(name) for row in ordered], float)


def _draw_pairs(
    axes: Any,
    values: NDArray[np.float64],
    higher_is_better: bool,
    comparison: Comparison,
    arm: str,
    against: str,
) -> None:
    """Draw the pairs (cases, 2) in the colour of the better arm, and the means as bars."""
    colours = arm_colours(comparison)
    pairs = values[np.isfinite(values).all(axis=1)]
    for left, right in pairs:
        gain = (right - left) * (1 if higher_is_better else -1)
        colour = colours[arm] if gain > 0 else colours[against] if gain < 0 else GREY
        axes.plot([0, 1], [left, right], color=colour, lw=1, alpha=0.75, marker="o", ms=3.5)
    for x, column in enumerate(pairs.T if len(pairs) else []):
        side = -0.16 if x == 0 else 0.16
        axes.hlines(column.mean(), x + side - 0.09, x + side + 0.09, colors=GREY, lw=3)
    axes.set_xlim(-0.35, 1.35)
    axes.set_ylim(bottom=0)
    if higher_is_better:
        axes.set_ylim(-0.02, 1.02)


def forest_chart(contrasts: Sequence[Contrast], theme: Theme) -> bytes:
    """Draw the difference and interval of each metric that is a share."""
    shown = [
        item
        for item in contrasts
        if item.group == "lesion" and item.metric.name in _SHARES and item.difference.pairs
    ]
    figure = new_figure(8.6, 0.7 + 0.36 * max(len(shown), 1))
    axes = figure.subplots()
    for y, item in enumerate(reversed(shown)):
        difference = item.difference
        sure = difference.reading in ("better", "worse")
        axes.plot([difference.low, difference.high], [y, y], color=theme.ink, lw=1.6)
        face = theme.ink if sure else "none"
        axes.plot(difference.value, y, "o", color=theme.ink, mfc=face, ms=6.5)
    axes.axvline(0, color=GREY, lw=1)
    axes.set_yticks(range(len(shown)), [item.metric.label for item in reversed(shown)])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    reach = max([0.1, *(abs(v) for c in shown for v in (c.difference.low, c.difference.high))])
    axes.set_xlim(-1.08 * reach, 1.08 * reach)
    axes.set_xlabel("← worse      difference      better →")
    style_axes(axes, theme, grid="x")
    return png(figure)


def distribution_chart(comparison: Comparison, target: str, theme: Theme) -> bytes:
    """Draw Dice, and false positive volume in both groups, one dot for each case and arm."""
    figure = new_figure(8.6, 1.2 + 0.5 * len(comparison.arms))
    panels: tuple[tuple[Group, str, str], ...] = (
        ("lesion", "dice", "Dice\nlesion cases"),
        ("lesion", "false_positive_ml", "FP volume (ml)\nlesion cases"),
        ("lesion-free", "false_positive_ml", "FP volume (ml)\nlesion-free cases"),
    )
    for k, (axes, (group, name, label)) in enumerate(
        zip(figure.subplots(1, 3, sharey=True), panels, strict=True)
    ):
        _draw_distribution(axes, comparison, target, group, name)
        axes.set_title(label, loc="left")
        style_axes(axes, theme, grid="x")
        if k == 0:
            arms = comparison.arms[::-1]
            axes.set_yticks(range(len(arms)), [shorten(arm) for arm in arms])
    return png(figure)


def _draw_distribution(
    axes: Any, comparison: Comparison, target: str, group: Group, name: str
) -> None:
    rng = np.random.default_rng(0)
    colours = arm_colours(comparison)
    for y, arm in enumerate(comparison.arms[::-1]):
        values = _by_case(comparison.select(target, arm, group, counted=False), name)
        values = values[np.isfinite(values)]
        if not len(values):
            axes.text(0.5, 0.5, "no such case", transform=axes.transAxes, ha="center", color=GREY)
            continue
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        axes.hlines(y, low, high, colors=GREY, lw=7, alpha=0.45)
        axes.plot(
            values, y + rng.uniform(-0.17, 0.17, len(values)), "o", ms=3.5, color=colours[arm]
        )
        axes.vlines(middle, y - 0.26, y + 0.26, colors=GREY, lw=2.2)
    axes.set_ylim(-0.5, len(comparison.arms) - 0.5)
    axes.set_xlim(left=0)
    if name == "dice":
        axes.set_xlim(-0.02, 1.02)
