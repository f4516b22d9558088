"""A study: arms trained on one project, predicted on its held-out cases, and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from napari_backsplit.backend.jobs.batch import Results, Step
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec


@dataclass(frozen=True)
class StudyArm:
    """A training of a study.

    Attributes
    ----------
    name : str
        Unique in the study, and its name in the report.
    run : RunSpec
    start : str, optional
        Name of the arm whose model it starts from.
    """

    name: str
    run: RunSpec
    start: str | None = None


def study_steps(
    plan: PlanSpec,
    arms: Sequence[StudyArm],
    prediction: Mapping[str, Any],
    comparison: Mapping[str, Any],
) -> list[Step]:
    """Return the jobs of a study: plan, train each arm, predict with each, compare all.

    Parameters
    ----------
    plan : PlanSpec
    arms : sequence of StudyArm
        The first is the baseline of the comparison.
    prediction, comparison : mapping
        Parameters of the predict and compare jobs beside the models.
    """
    steps = [Step("plan", "plan", lambda _: {"plan": plan.model_dump(mode="json")})]
    steps += [_train(arm, plan) for arm in arms]
    steps += [_predict(arm, prediction) for arm in arms]
    needs = tuple(f"predict {arm.name}" for arm in arms)
    steps.append(Step("compare", "compare", lambda done: _compare(arms, done, comparison), needs))
    return steps


def _train(arm: StudyArm, plan: PlanSpec) -> Step:
    def params(done: Results) -> dict[str, Any]:
        start = done[arm.start]["model"] if arm.start else None
        run = arm.run.model_copy(update={"plan_set": plan.name, "baseline": start})
        return {"run": run.model_dump(mode="json")}

    return Step(arm.name, "train", params, ("plan", arm.start) if arm.start else ("plan",))


def _predict(arm: StudyArm, prediction: Mapping[str, Any]) -> Step:
    return Step(
        f"predict {arm.name}",
        "predict",
        lambda done: {"model": done[arm.name]["model"], **prediction},
        (arm.name,),
    )


def _compare(
    arms: Sequence[StudyArm], done: Results, comparison: Mapping[str, Any]
) -> dict[str, Any]:
    folders = {arm.name: done[f"predict {arm.name}"]["predictions"] for arm in arms}
    jobs = {name: folder.rpartition("/")[0] for name, folder in folders.items()}
    return {"arms": jobs, "baseline": arms[0].name, **comparison}
