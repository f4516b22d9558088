"""What a check before a training says: one line, its remedy, and what may be offered to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from napari_backsplit.backend.training.spec import PlanSpec, RunSpec

Level = Literal["passed", "warned", "refused"]
Action = Literal[
    "",
    "reserve",
    "declare unseen",
    "include unreviewed",
    "accept unfit",
    "fewer folds",
    "fewer supports",
    "fewer workers",
    "other device",
    "smaller batch",
    "more epochs",
    "no tracker",
    "review",
]
"""What a panel may offer as a button beside a line."""


@dataclass(frozen=True)
class Check:
    """One line of a preflight.

    Attributes
    ----------
    name : str
        What was looked at, in one or two words.
    level : Level
        A refused line keeps the training from being begun.
    text : str
        What was found; case ids, never a path.
    remedy : str
        What to do about it; "" where nothing is to be done.
    action : Action
        A short word for what a panel may offer to do.
    """

    name: str
    level: Level
    text: str
    remedy: str = ""
    action: Action = ""


def passed(name: str, text: str) -> Check:
    """Return a line that says that all is well."""
    return Check(name, "passed", text)


def warned(name: str, text: str, remedy: str = "", action: Action = "") -> Check:
    """Return a line that a person should have read."""
    return Check(name, "warned", text, remedy, action)


def refused(name: str, text: str, remedy: str = "", action: Action = "") -> Check:
    """Return a line that keeps the training from being begun."""
    return Check(name, "refused", text, remedy, action)


class Wanted(Protocol):
    """What an improvement asks for, as far as it is looked at before it begins."""

    @property
    def model(self) -> str:
        """The model as a person named it: number of a job, folder or zip."""

    @property
    def run(self) -> RunSpec:
        """The fine-tune."""

    @property
    def plan(self) -> PlanSpec | None:
        """The plan set to make; None: it is there."""

    @property
    def control(self) -> bool:
        """Whether the same extra binary training follows."""

    @property
    def declare_unseen(self) -> bool:
        """Whether the user declares that the model has not seen the test cases."""

    @property
    def folds(self) -> tuple[int, ...]:
        """Folds of a cross-validation; () for one run that is measured on the test set."""

    @property
    def where(self) -> str:
        """Address of the scheduler that runs it; "" for this machine."""


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first of many names: "a, b, c and 4 more"."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def seconds_left(until: datetime) -> float:
    """Return the seconds until a time of day; negative where it has passed."""
    return (until - datetime.now(until.tzinfo)).total_seconds()
