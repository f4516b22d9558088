"""A study: arms trained on one project, predicted on its held-out cases, and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from napari_backsplit.backend.jobs.batch import Params, Results, Step
from napari_backsplit.backend.prediction.roles import FINAL
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec

Folds = Mapping[int, Sequence[str]]
"""Fold of a cross-validation -> the cases that its networks are not taught, and predict."""

NO_FOLDS: Folds = {}


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
    plan : PlanSpec, optional
        Its plan set; None: the study's.
    after : str
        Step that makes what it learns from; "" for none.
    """

    name: str
    run: RunSpec
    start: str | None = None
    plan: PlanSpec | None = None
    after: str = ""


@dataclass(frozen=True)
class Part:
    """One training of an arm with its prediction: all of it, or a fold of it."""

    arm: str
    fold: int | None = None

    @property
    def train(self) -> str:
        """Name of the step that trains."""
        return self.arm if self.fold is None else f"{self.arm}, fold {self.fold}"

    @property
    def predict(self) -> str:
        """Name of the step that predicts."""
        return f"predict {self.train}"


def parts_of(arm: str, folds: Sequence[int] = ()) -> list[Part]:
    """Return the trainings of an arm: one, or one for each fold."""
    return [Part(arm, fold) for fold in folds] or [Part(arm)]


def study_steps(
    plan: PlanSpec,
    arms: Sequence[StudyArm],
    prediction: Mapping[str, Any],
    comparison: Mapping[str, Any],
    folds: Folds = NO_FOLDS,
) -> list[Step]:
    """Return the jobs of a study: plan, train each arm, predict with each, compare all.

    Where a batch keeps going, the baseline is compared with those arms that succeeded.

    Parameters
    ----------
    plan : PlanSpec
        Of the arms that name no other one.
    arms : sequence of StudyArm
        The first is the baseline of the comparison.
    prediction, comparison : mapping
        Parameters of the predict and compare jobs beside the models. Controls that failed are
        left out.
    folds : mapping of int to sequence of str
        Folds of a cross-validation with the cases that each holds out, whose predictions are
        pooled; none: a run's own fold is trained, and the test set is predicted.
    """
    plans = {spec.name: spec for spec in (arm.plan or plan for arm in arms)}
    parts = [(arm, part) for arm in arms for part in parts_of(arm.name, list(folds))]
    steps = [_plan(spec, plan) for spec in plans.values()]
    steps += [_train(arm, part, plan) for arm, part in parts]
    steps += [_predict(part, prediction, folds) for _, part in parts]
    return [*steps, _compare(arms, comparison, list(folds))]


def _plan(spec: PlanSpec, first: PlanSpec) -> Step:
    planned = {"plan": spec.model_dump(mode="json")}
    return Step(_plan_step(spec, first), "plan", lambda _: planned, same=_same("plan", PlanSpec))


def _plan_step(spec: PlanSpec, first: PlanSpec) -> str:
    return "plan" if spec.name == first.name else f"plan {spec.name}"


def _train(arm: StudyArm, part: Part, plan: PlanSpec) -> Step:
    spec = arm.plan or plan
    start = Part(arm.start, part.fold).train if arm.start else None
    own = {} if part.fold is None else {"fold": part.fold}

    def params(done: Results) -> dict[str, Any]:
        model = done[start]["model"] if start else None
        run = arm.run.model_copy(update={"plan_set": spec.name, "baseline": model, **own})
        return {"run": run.model_dump(mode="json")}

    needs = tuple(name for name in (_plan_step(spec, plan), start, arm.after) if name)
    return Step(part.train, "train", params, needs, same=_same("run", RunSpec))


def _same(key: str, spec: type[BaseModel]) -> Callable[[Params, Params], bool]:
    """Compare parameters as specs: a job from before a field existed has the field's default."""

    def same(old: Params, new: Params) -> bool:
        try:
            return spec.model_validate(old[key]) == spec.model_validate(new[key])
        except ValidationError:
            return False

    return same


def _predict(part: Part, prediction: Mapping[str, Any], folds: Folds) -> Step:
    """Return a prediction: of the test set, or with the last checkpoint of what a fold held out."""
    cases = {}
    if part.fold is not None:
        cases = {"folds": [part.fold], "cases": list(folds[part.fold]), "checkpoint": FINAL}
    return Step(
        part.predict,
        "predict",
        lambda done: {"model": done[part.train]["model"], **prediction, **cases},
        (part.train,),
    )


def _compare(arms: Sequence[StudyArm], comparison: Mapping[str, Any], folds: Sequence[int]) -> Step:
    def params(done: Results) -> dict[str, Any]:
        jobs = dict(_predicted(arms, folds, done))
        there = [control for control in comparison.get("controls", ()) if control in jobs]
        return {"arms": jobs, "baseline": arms[0].name, **comparison, "controls": there}

    baseline, *others = ([p.predict for p in parts_of(arm.name, folds)] for arm in arms)
    wants = tuple(name for names in others for name in names)
    least = min(max(1, len(folds)), len(wants))
    return Step("compare", "compare", params, tuple(baseline), wants, least=least)


def _predicted(
    arms: Sequence[StudyArm], folds: Sequence[int], done: Results
) -> Iterator[tuple[str, str | list[str]]]:
    """Yield the arms that are predicted in full, with their job or the jobs of their folds."""
    for arm in arms:
        results = [done.get(part.predict) for part in parts_of(arm.name, folds)]
        jobs = [r["predictions"].rpartition("/")[0] for r in results if r is not None]
        if len(jobs) == len(results):
            yield arm.name, jobs if folds else jobs[0]
