"""What a person may want of a prediction, and what the export gives. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Rule = Literal["argmax", "p > 0.5"]


@dataclass(frozen=True)
class Wanted:
    """What to export.

    Attributes
    ----------
    targets : tuple of str
        Labels of the model, at least one.
    rule : str
        "argmax": the target is more likely than each other class, as nnU-Net decides; "p > 0.5":
        it is more likely than all of them together.
    probabilities : bool
        Also the probability of each target.
    labels : bool
        Also the map of all labels, as nnU-Net writes it.
    gap : bool
        Also the information gap (BackSplit, Proposition 1) of the first target.
    """

    targets: tuple[str, ...]
    rule: Rule = "argmax"
    probabilities: bool = False
    labels: bool = False
    gap: bool = False


@dataclass(frozen=True, eq=False)
class Exported:
    """What a model says, on the grid that nnU-Net's reader sees.

    Attributes
    ----------
    mask : ndarray of uint8 or uint16, (z, y, x)
        i + 1 where `Wanted.targets[i]` is, 0 elsewhere. Of nested regions the smallest wins.
    labels : ndarray of uint8 or uint16, (z, y, x), optional
        All labels, with nnU-Net's values.
    probabilities : tuple of ndarray of float32, (z, y, x)
        One a target if they were asked for, 0 to 1; 0 outside nnU-Net's crop.
    gap : ndarray of float32, (z, y, x), optional
        The information gap, 0 outside nnU-Net's crop.
    notes : tuple of str
        What a person should know of how it came about.
    """

    mask: NDArray[np.unsignedinteger[Any]]
    labels: NDArray[np.unsignedinteger[Any]] | None = None
    probabilities: tuple[NDArray[np.float32], ...] = ()
    gap: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()
