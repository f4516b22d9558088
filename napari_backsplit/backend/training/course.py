"""How far a training is: what it took, what its budget leaves, and when it ends. Worker only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from napari_backsplit.backend.training.pace import Pace
from napari_backsplit.backend.training.schedule import lr_factor
from napari_backsplit.backend.training.spec import RunSpec
from napari_backsplit.backend.training.stopwatch import Stopwatch
from napari_backsplit.backend.training.time_budget import TimeBudget, in_words

STILL_HIGH = 0.5
"""Share of the first learning rate above which an end by the clock is an end before its time."""


class Course:
    """The course of a run, from its first epoch to its last, over all attempts.

    Attributes
    ----------
    watch : Stopwatch
        Of the present epoch.
    iterations : int
        Batches that were trained on.
    ended : str
        Why the run ended before its number of epochs, in a sentence; empty where it did not.
    """

    def __init__(self, spec: RunSpec, device: str = "cpu") -> None:
        self.spec = spec
        self.watch = Stopwatch(device)
        self.pace = Pace(spec.iterations, spec.validation_iterations)
        self.budget = TimeBudget(spec) if spec.by_the_clock else None
        self.iterations, self.ended = 0, ""
        self._earlier_s = self._worked_s = 0.0

    @property
    def seconds(self) -> float:
        """Seconds that the run trained for, without waiting."""
        return self._earlier_s + self.watch.seconds

    @property
    def used(self) -> float | None:
        """Share of the time that was used as the epoch began; None for a budget in epochs."""
        return None if self.budget is None else self.budget.used

    # ------------------------------------------------------------------ epochs

    def another(self, epoch: int, smoothed: Sequence[float] = ()) -> bool:
        """Return whether an epoch shall be trained, and begin it.

        Parameters
        ----------
        epoch : int
            Its number, which is how many there were before. There is always a first.
        smoothed : sequence of float
            The targets' smoothed Dice after each epoch.
        """
        factor = lr_factor(self.spec, epoch - 1, self.used) if self.budget else 1.0
        if self.budget is not None:
            self.budget.look(self.seconds)
        if epoch:
            self.ended = self._not_better(epoch, smoothed) or self._no_time(epoch, factor)
        self.watch.start()
        return not self.ended and (self.budget is not None or epoch < self.spec.epochs)

    @contextmanager
    def iteration(self) -> Iterator[None]:
        """Time an iteration."""
        watch = self.watch
        before, waited = watch.seconds, watch.parts["data"]
        yield
        self.iterations += 1
        self.pace.add_step(watch.seconds - before, watch.parts["data"] - waited)

    def end_of_work(self) -> None:
        """Note that training and validation of the epoch are over."""
        self._worked_s = self.watch.seconds
        self.pace.add_epoch(self._worked_s)

    def end_of_epoch(self) -> dict[str, float]:
        """Note that all of the epoch is over, and return its seconds by part."""
        lap = self.watch.lap()
        self.pace.add_extra(lap["epoch"] - self._worked_s)
        self._earlier_s += lap["epoch"]
        self.watch.start()
        return lap

    def _not_better(self, epoch: int, smoothed: Sequence[float]) -> str:
        if self.spec.patience is None or not smoothed:
            return ""
        best = max(range(len(smoothed)), key=lambda number: smoothed[number])
        if len(smoothed) - 1 - best < self.spec.patience:
            return ""
        return (
            f"The targets' Dice has not risen since epoch {best + 1}: "
            f"the training ended early, after epoch {epoch}."
        )

    def _no_time(self, epoch: int, factor: float) -> str:
        if self.budget is None or self.budget.left_s >= (self.pace.epoch_s() or 1e-9):
            return ""
        if self.spec.until is None:
            return f"{epoch} epochs fitted into {self.spec.hours:.3g} hours."
        text = f"{epoch} epochs fitted into the time until {in_words(self.spec.until)}."
        if factor < STILL_HIGH or self.spec.schedule == "constant":
            return text
        return f"{text} The job was held up: its learning rate had hardly fallen by then."

    # ------------------------------------------------------------------ what is said of it

    def told(self, epoch: int) -> tuple[int, int, str, float | None]:
        """Return iterations done and in all, a text, and the seconds left, while in an epoch."""
        epoch_s, whole = self.pace.epoch_s(), self._epochs(epoch)
        present = epoch if self.ended else min(epoch + 1, whole or epoch + 1)
        about = "about " if self.budget and not self.ended else ""
        text = f"epoch {present}" + (f" of {about}{whole}" if whole else "")
        total = max((whole or epoch + 1) * self.spec.iterations, self.iterations)
        if epoch_s is None or whole is None:
            return self.iterations, total, text, None
        rest_s = max(epoch_s - self.watch.seconds, 0.0) if epoch < whole else 0.0
        return self.iterations, total, text, rest_s + max(whole - epoch - 1, 0) * epoch_s

    def _epochs(self, epoch: int) -> int | None:
        """Return how many epochs there will be, as it looks now."""
        if self.ended:
            return epoch
        if self.budget is None:
            return self.spec.epochs
        left = self.budget.epochs_left(self.pace.epoch_s())
        return None if left is None else epoch + max(left, 1)

    # ------------------------------------------------------------------ checkpoints

    def state(self) -> dict[str, Any]:
        """Return what a resumed run goes on from: plain numbers."""
        budget = None if self.budget is None else self.budget.state()
        return {"seconds": self.seconds, "pace": self.pace.state(), "budget": budget}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`; an empty one says nothing."""
        self._earlier_s = float(state.get("seconds", 0.0))
        self.pace.restore(state.get("pace", {}))
        if self.budget is not None and state.get("budget"):
            self.budget.restore(state["budget"])
