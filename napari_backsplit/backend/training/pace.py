"""How long the rest of a training takes, from what was measured so far."""

from __future__ import annotations

from statistics import fmean, median
from typing import Any

WARM_UP = 10
"""First iterations of an attempt, which say little: batches were ready, kernels are chosen."""

RECENT = 11
"""Epochs that are looked back at: other programs come and go."""

VALIDATION_SHARE = 1 / 3
"""Work on a validation batch as a share of that on a training batch, until it was measured."""


class Pace:
    """Predicts the seconds of an epoch.

    Parameters
    ----------
    iterations, validation_iterations : int
        Batches in an epoch.

    Attributes
    ----------
    epochs : list of float
        Seconds of recent epochs' training and validation.
    extras : list of float
        Seconds of recent epochs' checkpoints and pictures. They are not the same in each epoch,
        so that their mean counts, not their median.
    """

    def __init__(self, iterations: int, validation_iterations: int) -> None:
        self.iterations, self.validation_iterations = iterations, validation_iterations
        self.epochs: list[float] = []
        self.extras: list[float] = []
        self._first = True
        self._steps: list[tuple[float, float]] = []

    def add_step(self, seconds: float, of_data: float) -> None:
        """Note the seconds of an iteration, and how many of them it waited for its batch."""
        if self._first:
            self._steps.append((seconds, of_data))

    def add_epoch(self, seconds: float) -> None:
        """Note the seconds of an epoch's training and validation."""
        if self._first and self._steps:
            steps, skipped = self._settled()
            early = sum(total for total, _ in self._steps[:skipped])
            seconds -= early - skipped * fmean(total for total, _ in steps)
        self._first = False
        self.epochs = [*self.epochs, seconds][-RECENT:]

    def add_extra(self, seconds: float) -> None:
        """Note the seconds of what followed: checkpoints and pictures."""
        self.extras = [*self.extras, seconds][-RECENT:]

    def epoch_s(self) -> float | None:
        """Return the seconds that an epoch is likely to take; None before the first iteration."""
        extra = fmean(self.extras) if self.extras else 0.0
        if self.epochs:
            return median(self.epochs) + extra
        if not self._steps:
            return None
        steps, _ = self._settled()
        step, data = (fmean(column) for column in zip(*steps, strict=True))
        validation = self.validation_iterations * (step - data) * VALIDATION_SHARE
        return self.iterations * step + validation

    def state(self) -> dict[str, Any]:
        """Return what a resumed training goes on from."""
        return {"epochs": self.epochs, "extras": self.extras}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`; the present attempt still begins with a warm-up."""
        self.epochs = [float(seconds) for seconds in state.get("epochs", [])]
        self.extras = [float(seconds) for seconds in state.get("extras", [])]

    def _settled(self) -> tuple[list[tuple[float, float]], int]:
        """Return the iterations after the warm-up, and how many belong to it."""
        skipped = min(WARM_UP, len(self._steps) // 4)
        return self._steps[skipped:], skipped
