"""What became of an experiment: how each arm stands on each draw."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, nan
from typing import Any

from napari_backsplit.backend.experiments.draws import Draw
from napari_backsplit.backend.experiments.plan import ExperimentPlan, PlannedArm
from napari_backsplit.backend.jobs import JobStatus, State
from napari_backsplit.backend.study import Part, parts_of

FAILED = ("failed", "diverged", "not run")
_WORST = ("done", "to do", "broken off", "running", *FAILED)
_DIVERGED = re.compile(r"loss became \S+ in epoch (\d+)")


@dataclass(frozen=True)
class Outcome:
    """How an arm stands on a draw.

    Attributes
    ----------
    state : str
        "done", "running", "broken off", "to do", "diverged", "failed", or "not run" where the
        arm that it starts from failed.
    reason : str
        Why it failed or was not run; "epoch 3" where it diverged.
    hours : float
        Of its training, all attempts together; not a number while it is not done.
    """

    state: str
    reason: str = ""
    hours: float = nan

    @property
    def text(self) -> str:
        """The state with its reason, for a cell of a table."""
        return f"{self.state} ({self.reason})" if self.reason else self.state


@dataclass(frozen=True)
class DrawResult:
    """What became of a draw.

    Attributes
    ----------
    seed : int
    outcomes : mapping of str to Outcome
        By the arms' names.
    summary : mapping or None
        The comparison's summary.json; None while there is none.
    reason : str
        Why there is none.
    cases : sequence of mapping
        The comparison's rows, one a case, target and arm, as cases.csv holds them.
    fold_of : mapping of str to int
        Which fold held a case out, in a cross-validation.
    parameters : mapping of str to int
        Parameters of the arms' networks, where they are known.
    quality : mapping of str to mapping
        "7 clicks" or a source -> support -> Dice of its masks against the project's own.
    """

    seed: int
    outcomes: Mapping[str, Outcome]
    summary: Mapping[str, Any] | None = None
    reason: str = ""
    cases: Sequence[Mapping[str, str]] = ()
    fold_of: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)
    quality: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def outcomes_of(
    plan: ExperimentPlan, draw: Draw, statuses: Mapping[str, JobStatus]
) -> dict[str, Outcome]:
    """Return how each arm stands on a draw, from the statuses of the steps that had a job."""
    outcomes: dict[str, Outcome] = {}
    for arm in plan.arms:
        outcomes[arm.name] = _outcome(plan, arm, draw, statuses, outcomes)
    return outcomes


def why_not(
    plan: ExperimentPlan, outcomes: Mapping[str, Outcome], compared: JobStatus | None
) -> str:
    """Say why a draw has no comparison."""
    if compared is not None:
        return f"the comparison {_standing(compared).text}"
    if not plan.arms:
        return "it trains nothing"
    baseline = outcomes[plan.baseline]
    if baseline.state != "done":
        return f"{plan.baseline} {baseline.text}"
    return "no other arm is done"


def _outcome(
    plan: ExperimentPlan,
    arm: PlannedArm,
    draw: Draw,
    statuses: Mapping[str, JobStatus],
    before: Mapping[str, Outcome],
) -> Outcome:
    """Return how an arm stands: as the worst of its folds, in the hours of all."""
    parts = [_part(draw, part, statuses) for part in parts_of(arm.name, plan.folds)]
    worst = max(parts, key=lambda outcome: _WORST.index(outcome.state))
    hours = sum(outcome.hours for outcome in parts)
    if worst.state == "to do":
        worst = _waiting(plan, arm, draw, statuses, before)
    return replace(worst, hours=hours if isfinite(hours) else nan)


def _part(draw: Draw, part: Part, statuses: Mapping[str, JobStatus]) -> Outcome:
    trained = statuses.get(draw.step(part.train))
    if trained is None:
        return Outcome("to do")
    if trained.state is not State.SUCCEEDED:
        return _standing(trained)
    predicted = statuses.get(draw.step(part.predict))
    state = Outcome("to do") if predicted is None else _standing(predicted)
    if state.reason:
        state = replace(state, reason=f"prediction: {state.reason}")
    return replace(state, hours=training_hours(trained))


def _waiting(
    plan: ExperimentPlan,
    arm: PlannedArm,
    draw: Draw,
    statuses: Mapping[str, JobStatus],
    before: Mapping[str, Outcome],
) -> Outcome:
    """Return how an arm stands that has to wait: what it needs may have failed."""
    if arm.start and before[arm.start].state in FAILED:
        return Outcome("not run", f"{arm.start} failed")
    name = plan.plan_set(arm).name
    needs = ["plan" if name == plan.plan.name else f"plan {name}"]
    needs += [f"{arm.clicks} clicks"] if arm.clicks else []
    for step in needs:
        status = statuses.get(draw.step(step))
        if status is not None and status.state is State.FAILED:
            return Outcome("not run", f"the {step} failed: {line(status.error)}")
    return Outcome("to do")


def _standing(status: JobStatus) -> Outcome:
    if status.state is State.SUCCEEDED:
        return Outcome("done")
    if status.state is not State.FAILED:
        return Outcome("broken off" if status.resumable else "running")
    diverged = _DIVERGED.search(status.error)
    if diverged:
        return Outcome("diverged", f"epoch {diverged[1]}")
    return Outcome("failed", line(status.error))


def line(error: str) -> str:
    """Return an error in one line without a full stop."""
    return " ".join(error.removeprefix("The task failed: ").split()).rstrip(".")


def training_hours(status: JobStatus) -> float:
    """Return the hours that a job took, earlier attempts that ended included."""
    spans = [(status.started, status.ended), *((a.started, a.ended) for a in status.attempts)]
    return sum((end - begin).total_seconds() for begin, end in spans if begin and end) / 3600
