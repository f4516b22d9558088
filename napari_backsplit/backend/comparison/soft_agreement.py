"""What a comparison says of shares: the metrics in its tables, and what they rest on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from napari_backsplit.backend.comparison.results import (
    Comparison,
    Contrast,
    Group,
    Metric,
    Row,
    countable,
)

SOFT_METRICS: dict[Group, tuple[Metric, ...]] = {
    "lesion": (
        Metric("soft_dice_squares", "Soft Dice of squares"),
        Metric("soft_dice", "Soft Dice"),
        Metric("soft_absolute_error", "Mean absolute error", "", False, 4),
        Metric("soft_squared_error", "Mean squared error (Brier)", "", False, 4),
        Metric("soft_absolute_difference_ml", "Soft volume difference, absolute", "ml", False, 2),
        Metric(
            "soft_absolute_difference_percent", "Soft volume difference, absolute", "%", False, 1
        ),
    ),
    "lesion-free": (
        Metric("soft_absolute_difference_ml", "Soft volume difference, absolute", "ml", False, 2),
    ),
}
"""Metrics of shares, apart from those of masks, which they never change; none is primary."""


def is_soft(rows: Sequence[Row]) -> bool:
    """Whether anything was measured of shares."""
    return any(row.soft.soft_prediction for row in rows)


def soft_contrasts(comparison: Comparison, target: str, arm: str, against: str) -> list[Contrast]:
    """Return the differences of a pair on shares."""
    wanted = (target, arm, against)
    return [each for each in comparison.soft if (each.target, each.arm, each.against) == wanted]


def soft_notes(comparison: Comparison, target: str) -> Iterator[str]:
    """Say what stands for the reference and for each arm's shares, a sentence each."""
    rows = [row for row in comparison.rows if row.target == target]
    kinds = {row.case: row.soft.soft_reference for row in rows if row.soft.soft_reference}
    soft = list(kinds.values()).count("soft")
    yield (
        f"The reference is a soft mask in {soft} of {len(kinds)} cases"
        f"{'' if soft == len(kinds) else '; in the others it is the mask, as 0 and 1'}."
    )
    for arm in comparison.arms:
        yield _arm_note(arm, countable(rows, target, arm) or rows)


def _arm_note(arm: str, rows: Sequence[Row]) -> str:
    said = {row.soft.soft_prediction for row in rows if row.arm == arm} - {""}
    if not said:
        return f"{arm} wrote no map, only masks: nothing is measured of it here."
    if said == {"share"}:
        return (
            f"{arm} predicts shares; its average precision and FROC, where there are any, are "
            "those of its shares."
        )
    if said == {"probability"}:
        return f"{arm} predicts classes: its probability of {rows[0].target} is taken for a share."
    return f"{arm} predicts shares in some cases, and in others probabilities, taken for shares."


def soft_summary(comparison: Comparison) -> dict[str, Any]:
    """Return the notes and the means of each arm as plain values; empty where nothing is soft."""
    targets = [
        target
        for target in comparison.targets
        if is_soft([row for row in comparison.rows if row.target == target])
    ]
    return {
        target: {
            "notes": list(soft_notes(comparison, target)),
            "means": list(_means(comparison, target)),
        }
        for target in targets
    }


def _means(comparison: Comparison, target: str) -> Iterator[dict[str, Any]]:
    for arm in comparison.arms:
        rows = countable(comparison.rows, target, arm)
        for group, metrics in SOFT_METRICS.items():
            own = [row for row in rows if row.group == group and row.soft.soft_prediction]
            if own:
                yield {
                    "arm": arm,
                    "group": group,
                    "cases": len(own),
                    "means": {metric.name: _mean(own, metric.name) for metric in metrics},
                }


def _mean(rows: Sequence[Row], name: str) -> float:
    values = [value for row in rows if (value := row.value(name)) == value]
    return sum(values) / len(values) if values else float("nan")
