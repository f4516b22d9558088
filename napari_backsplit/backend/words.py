"""What is about to be done, in the words of a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_backsplit.backend.training.space import duration_text
from napari_backsplit.backend.training.spec import WITH_SUPPORTS, RunSpec

if TYPE_CHECKING:
    from napari_backsplit.backend.improvement import Improvement
    from napari_backsplit.backend.training.estimate import Estimate


def sentence(improvement: Improvement, estimate: Estimate | None = None) -> str:
    """Say in one sentence what will be done and what it takes, as far as that is known.

    Parameters
    ----------
    estimate : Estimate, optional
        Of `training.estimate`; None where nothing is known yet.
    """
    run = improvement.run
    what = f"Fine-tune {improvement.name or Path(improvement.model).name}"
    if run.arm in WITH_SUPPORTS and run.supports:
        what += f" with {listed(run.supports)}"
    parts = [what, _length(run)]
    if improvement.folds:
        parts.append(f"{len(improvement.folds)} folds in cross-validation")
    return f"{', '.join(parts)}{f', {estimate.text}' if estimate else ''}."


def _length(run: RunSpec) -> str:
    if run.until is not None:
        return f"until {run.until.astimezone():%H:%M}"
    if run.hours is not None:
        return duration_text(3600 * run.hours)
    return f"{run.epochs} epoch{'' if run.epochs == 1 else 's'}"


def fine_tune_title(run: RunSpec) -> str:
    """Return what a person reads of a fine-tune."""
    with_supports = run.arm in WITH_SUPPORTS and run.supports
    return f"fine-tune with {listed(run.supports)}" if with_supports else f"fine-tune, {run.arm}"


def listed(names: Sequence[str]) -> str:
    """Write names as a person does: "kidney, liver and spleen"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
