"""How well simulated clicks did: Dice per structure against the reference, as in Table 5.

Empty masks follow the policy of `comparison.policy`: where the reference is empty, Dice is not
defined and enters no mean; where only the result is empty, it is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.project.schema import Value

State = Literal["segmented", "absent", "no reference", "no image"]


class Row(Value):
    """What became of one structure of one case.

    Attributes
    ----------
    state
        "absent": the reference is empty, so there was nothing to click on. "no reference", "no
        image": there is no file, so nothing was done.
    dice
        None where there is no reference, or an empty one.
    seconds_per_prompt
        The mean over the prompts, the first one with its image included.
    """

    case: str
    structure: str
    state: State
    prompts: int = 0
    voxels: int = 0
    dice: float | None = None
    seconds_per_prompt: float | None = None


class Summary(Value):
    """One structure over all cases.

    Attributes
    ----------
    segmented, absent, missing
        Cases with a mask; with an empty reference; without a reference or an image.
    dice_mean, dice_min
        Over the cases with a Dice, None if there is none.
    """

    structure: str
    segmented: int
    absent: int
    missing: int
    dice_mean: float | None
    dice_min: float | None
    seconds_per_prompt: float | None


def dice(reference: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float | None:
    """Return the Dice coefficient of two masks of one shape, None where the reference is empty."""
    size = np.count_nonzero(reference)
    if not size:
        return None
    return 2 * np.count_nonzero(reference & mask) / (size + np.count_nonzero(mask))


def summarise(rows: Sequence[Row], structures: Iterable[str]) -> tuple[Summary, ...]:
    """Summarise each structure over its cases."""
    return tuple(_summary(s, [row for row in rows if row.structure == s]) for s in structures)


def _summary(structure: str, rows: Sequence[Row]) -> Summary:
    states = [row.state for row in rows]
    scores = [row.dice for row in rows if row.dice is not None]
    seconds = [row.seconds_per_prompt for row in rows if row.seconds_per_prompt is not None]
    return Summary(
        structure=structure,
        segmented=states.count("segmented"),
        absent=states.count("absent"),
        missing=states.count("no reference") + states.count("no image"),
        dice_mean=fmean(scores) if scores else None,
        dice_min=min(scores, default=None),
        seconds_per_prompt=fmean(seconds) if seconds else None,
    )


def plain_table(rows: Sequence[Row], structures: Iterable[str]) -> dict[str, Any]:
    """Return rows and summaries as JSON holds them."""
    return {
        "rows": [row.model_dump() for row in rows],
        "summary": [summary.model_dump() for summary in summarise(rows, structures)],
    }
