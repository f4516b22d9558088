"""A training that ends by the clock: what of its time is used, and whether an epoch still fits."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.spec import RunSpec


def require_time_left(spec: RunSpec, now: Callable[[], float] = time.time) -> None:
    """Refuse a run that would have to be done already.

    Raises
    ------
    InputError
    """
    if spec.until is not None and spec.until.timestamp() <= now():
        raise InputError(
            f"The training shall be done by {in_words(spec.until)}, which is past.",
            "Choose a later time, or a budget in hours or epochs.",
        )


def in_words(moment: datetime) -> str:
    """Return a moment as a clock on the wall shows it."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


class TimeBudget:
    """The time of a run: so many hours of training, or all until a time of day.

    Hours are those in which the training works: a pause, a dead process and sleep do not count.
    A time of day comes whatever happens. A clock that is set back gives no more time than was
    left, and the share that is used never falls, so that the learning rate never rises.

    Parameters
    ----------
    spec : RunSpec
        With `hours` or `until`.
    now : callable
        Seconds since 1970, as the clock on the wall has them.

    Attributes
    ----------
    used : float
        Share of the budget that was used at the last look, 0 to 1.
    left_s : float
        Seconds that were left then.
    """

    def __init__(self, spec: RunSpec, now: Callable[[], float] = time.time) -> None:
        self._until = spec.until.timestamp() if spec.until is not None else None
        self._now = now
        self.used, self._trained_s = 0.0, 0.0
        self.left_s = float("inf") if spec.hours is None else spec.hours * 3600

    def look(self, trained_s: float) -> None:
        """Find out what is left after so many seconds of training."""
        left_s = self.left_s - max(trained_s - self._trained_s, 0.0)
        if self._until is not None:
            left_s = min(left_s, self._until - self._now())
        self.left_s, self._trained_s = max(left_s, 0.0), trained_s
        whole_s = trained_s + self.left_s
        self.used = max(self.used, trained_s / whole_s if whole_s else 1.0)

    def epochs_left(self, epoch_s: float | None) -> int | None:
        """Return how many epochs of so many seconds still fit; None where that is not known."""
        return int(self.left_s / epoch_s) if epoch_s else None

    def state(self) -> dict[str, float]:
        """Return what a resumed training goes on from."""
        return {"used": self.used, "left_s": self.left_s, "trained_s": self._trained_s}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.used = float(state["used"])
        self.left_s = float(state["left_s"])
        self._trained_s = float(state["trained_s"])
