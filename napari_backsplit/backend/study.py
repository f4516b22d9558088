"""A study: arms trained on one project, predicted on its held-out cases, and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from napari_backsplit.backend.jobs.batch import Params, Results, Step
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

    Where a batch keeps going, the baseline is compared with those arms that succeeded.

    Parameters
    ----------
    plan : PlanSpec
    arms : sequence of StudyArm
        The first is the baseline of the comparison.
    prediction, comparison : mapping
        Parameters of the predict and compare jobs beside the models. Controls that failed are
        left out.
    """
    planned = {"plan": plan.model_dump(mode="json")}
    steps = [Step("plan", "plan", lambda _: planned, same=_same("plan", PlanSpec))]
    steps += [_train(arm, plan) for arm in arms]
    steps += [_predict(arm, prediction) for arm in arms]
    baseline, *others = (f"predict {arm.name}" for arm in arms)
    compare = Step(
        "compare",
        "compare",
        lambda done: _compare(arms, done, comparison),
        (baseline,),
        tuple(others),
        least=min(1, len(others)),
    )
    return [*steps, compare]


def _train(arm: StudyArm, plan: PlanSpec) -> Step:
    def params(done: Results) -> dict[str, Any]:
        start = done[arm.start]["model"] if arm.start else None
        run = arm.run.model_copy(update={"plan_set": plan.name, "baseline": start})
        return {"run": run.model_dump(mode="json")}

    needs = ("plan", arm.start) if arm.start else ("plan",)
    return Step(arm.name, "train", params, needs, same=_same("run", RunSpec))


def _same(key: str, spec: type[BaseModel]) -> Callable[[Params, Params], bool]:
    """Compare parameters as specs: a job from before a field existed has the field's default."""

    def same(old: Params, new: Params) -> bool:
        try:
            return spec.model_validate(old[key]) == spec.model_validate(new[key])
        except ValidationError:
            return False

    return same


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
    predicted = {arm.name: done.get(f"predict {arm.name}") for arm in arms}
    jobs = {n: r["predictions"].rpartition("/")[0] for n, r in predicted.items() if r is not None}
    there = [control for control in comparison.get("controls", ()) if control in jobs]
    return {"arms": jobs, "baseline": arms[0].name, **comparison, "controls": there}
