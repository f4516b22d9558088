"""What became of an experiment: how each arm stands on each draw."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import nan
from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.draws import Draw
from napari_backsplit.backend.experiments.plan import ExperimentPlan, PlannedArm
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.jobs import JobStatus, State

FAILED = ("failed", "diverged", "not run")
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
    """

    seed: int
    outcomes: Mapping[str, Outcome]
    summary: Mapping[str, Any] | None = None
    reason: str = ""


def draw_result(plan: ExperimentPlan, draw: Draw, statuses: Mapping[str, JobStatus]) -> DrawResult:
    """Return how a draw stands, from the statuses of the steps that have had a job."""
    outcomes: dict[str, Outcome] = {}
    for arm in plan.arms:
        outcomes[arm.name] = _outcome(arm, draw, statuses, outcomes)
    compared = statuses.get(draw.step("compare"))
    if compared is None or compared.state is not State.SUCCEEDED:
        return DrawResult(draw.seed, outcomes, reason=_reason(plan, outcomes, compared))
    report = draw.project / str((compared.result or {})["report"])
    try:
        return DrawResult(draw.seed, outcomes, read_json(report.with_name("summary.json")))
    except InputError as error:
        return DrawResult(draw.seed, outcomes, reason=_line(error.problem))


def _reason(
    plan: ExperimentPlan, outcomes: Mapping[str, Outcome], compared: JobStatus | None
) -> str:
    """Say why a draw has no comparison."""
    if compared is not None:
        return f"the comparison {_standing(compared).text}"
    baseline = outcomes[plan.baseline]
    if baseline.state != "done":
        return f"{plan.baseline} {baseline.text}"
    return "no other arm is done"


def _outcome(
    arm: PlannedArm, draw: Draw, statuses: Mapping[str, JobStatus], before: Mapping[str, Outcome]
) -> Outcome:
    trained = statuses.get(draw.step(arm.name))
    if trained is None:
        start = before.get(arm.start or "")
        unable = start is not None and start.state in FAILED
        return Outcome("not run", f"{arm.start} failed") if unable else _missing(draw, statuses)
    if trained.state is not State.SUCCEEDED:
        return _standing(trained)
    predicted = statuses.get(draw.step(f"predict {arm.name}"))
    state = Outcome("to do") if predicted is None else _standing(predicted)
    if state.reason:
        state = replace(state, reason=f"prediction: {state.reason}")
    return replace(state, hours=training_hours(trained))


def _missing(draw: Draw, statuses: Mapping[str, JobStatus]) -> Outcome:
    planned = statuses.get(draw.step("plan"))
    if planned is None or planned.state is not State.FAILED:
        return Outcome("to do")
    return Outcome("not run", f"the plan failed: {_line(planned.error)}")


def _standing(status: JobStatus) -> Outcome:
    if status.state is State.SUCCEEDED:
        return Outcome("done")
    if status.state is not State.FAILED:
        return Outcome("broken off" if status.resumable else "running")
    diverged = _DIVERGED.search(status.error)
    if diverged:
        return Outcome("diverged", f"epoch {diverged[1]}")
    return Outcome("failed", _line(status.error))


def _line(error: str) -> str:
    """Return an error as one line without a full stop."""
    return " ".join(error.removeprefix("The task failed: ").split()).rstrip(".")


def training_hours(status: JobStatus) -> float:
    """Return the hours that a job took, earlier attempts that ended included."""
    spans = [(status.started, status.ended), *((a.started, a.ended) for a in status.attempts)]
    return sum((end - begin).total_seconds() for begin, end in spans if begin and end) / 3600
