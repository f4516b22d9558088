"""What an experiment is: data in several draws, arms, and what they are measured against."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.plan_data import (
    Draws,
    Frozen,
    LabelFolder,
    OwnProject,
    Synthetic,
    twice_in,
)
from napari_backsplit.backend.project.copies import clicked, own_supports
from napari_backsplit.backend.study import StudyArm
from napari_backsplit.backend.training.recipes import plan_settings
from napari_backsplit.backend.training.spec import WITH_SUPPORTS, PlanSpec, RunSpec

Word = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
Column = Annotated[str, Field(pattern=r"^[^|\n]*$")]
Data = Annotated[Synthetic | LabelFolder | OwnProject, Field(discriminator="kind")]
Shown = Literal[
    "parameters", "dice", "hd95_mm", "nsd", "average_precision", "found_lesions", "lesion_f1",
    "false_positives",
]  # fmt: skip

SET_BY_THE_RUNNER = {
    "seed": "the draw's number is the seed",
    "baseline": "name the arm to start from as `start`",
    "plan_set": "name the plan set in [plan], or one of [plans] as the arm's `plan`",
}
GUIDED = ("patience", "same_epochs_as", "hours", "until", "fold")
"""Fields of RunSpec that a cross-validation leaves alone; see ADR 14."""

PREDICTION = ("folds", "checkpoint", "device", "threads", "mirroring", "step_size", "probabilities")
COMPARISON = ("tolerance_mm", "missed_hd95", "matching", "iou_threshold", "connectivity",
              "strata_ml", "resamples", "interval")  # fmt: skip
_STEP = re.compile(r"(plan|compare|predict .*|plan .*|\d+ clicks|.*, fold \d+)$")
_WORDS = {"missing": "is missing", "extra_forbidden": "there is no such field"}


class PlannedArm(Frozen):
    """An arm of an experiment."""

    name: Annotated[str, Field(pattern=r"^[^|\n]+$")]
    start: str | None = None
    """Arm above whose model this one starts from; None: from scratch."""
    against: str | None = None
    """Arm that differs from this one in one thing only: the two get a row of differences."""
    run: dict[str, Any] = {}
    """Fields of RunSpec that differ from those all arms share."""
    project: dict[str, Any] | None = None
    """What takes the place of `run` on a project of one's own; None: the same."""
    plan: Word | None = None
    """Plan set of [plans]; None: the one that its recipe needs, or [plan]."""
    clicks: Annotated[int, Field(ge=1)] | None = None
    """Learn what an engine made of so many clicks in each support, not the supports."""
    source: Word | None = None
    """Learn the supports from this source, named kidney-SOURCE in the project."""
    row: Column = ""
    """Its row in the layout; {target} stands for the target."""
    column: Column = ""
    """Its group of columns in the layout."""


class Layout(Frozen):
    """One table in a paper's layout: the arms by their `row` and `column`."""

    published: str = ""
    """Published numbers to show beside, by the name of their file."""
    head: str = "Method"
    """Head of the first column."""
    metrics: Annotated[tuple[Shown, ...], Field(min_length=1)] = ("dice", "hd95_mm", "nsd")
    """Columns of each group."""


class OnProject(Frozen):
    """What an experiment is on a project of one's own, in place of what it is on its own data."""

    draws: Draws = (0,)
    """Seeds of the trainings."""
    plan: PlanSpec = PlanSpec()
    plans: dict[Word, PlanSpec] = {}
    run: dict[str, Any] = {}
    prediction: dict[str, Any] = {}
    folds: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Folds of a cross-validation: each case is predicted by the network that was not taught it,
    and all are pooled. None: one fold is trained, and the test set is predicted."""
    engine: str = "nninteractive"
    quality: dict[Word, Column] = {}


class ExperimentPlan(Frozen):
    """An experiment, as its TOML file holds it."""

    name: Word
    title: str
    group: str = ""
    """Under what it is listed."""
    about: str = ""
    """Text for the page."""
    data: Data
    plan: PlanSpec = PlanSpec()
    plans: dict[Word, PlanSpec] = {}
    """Further plan sets, for arms that name them."""
    run: dict[str, Any] = {}
    """Fields of RunSpec that all arms share."""
    arms: tuple[PlannedArm, ...] = ()
    """The first is the baseline. None: masks of clicks or of other sources alone are measured."""
    controls: tuple[str, ...] = ()
    """Arms that every other arm is measured against too."""
    prediction: dict[str, Any] = {}
    """Parameters of the predict job beside the model."""
    comparison: dict[str, Any] = {}
    """Parameters of the compare job beside the arms."""
    folds: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """As in [project]."""
    clicks: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Numbers of clicks that an engine is given in each support."""
    engine: str = "seeded"
    """Engine that answers the clicks."""
    quality: dict[Word, Column] = {}
    """Sources whose supports are measured against the project's own -> head of their column."""
    layout: Layout | None = None
    """A table in a paper's layout."""
    project: OnProject | None = None
    """What is different on a project of one's own; None: nothing."""

    @model_validator(mode="after")
    def _check(self) -> ExperimentPlan:
        names = [arm.name for arm in self.arms]
        if len(names) < 2 and (names or not (self.clicks or self.quality)):
            raise ValueError("arms: there should be at least 2 items")
        _check_names(names, self.controls)
        for place, arm in enumerate(self.arms):
            _check_start(arm, names, names[:place])
            _check_against(arm, names)
            self._check_arm(arm)
        self._check_alike()
        _check_known("prediction", self.prediction, PREDICTION)
        _check_known("comparison", self.comparison, COMPARISON)
        if twice := twice_in(self.folds):
            raise ValueError(f"fold {twice[0]} is there twice")
        return self

    def _check_alike(self) -> None:
        """Refuse arms that differ by name alone: they would share one training."""
        runs = [
            (arm.start, self.plan_set(arm), arm.clicks, arm.source, self.spec(arm, 0))
            for arm in self.arms
        ]
        for arm, run in zip(self.arms, runs, strict=True):
            other = self.arms[runs.index(run)]
            if other is not arm:
                raise ValueError(f"the arms {other.name!r} and {arm.name!r} are the same run")

    def _check_arm(self, arm: PlannedArm) -> None:
        for name, reason in SET_BY_THE_RUNNER.items():
            if name in self.run or name in arm.run:
                raise ValueError(f"{name} cannot be set for a run: {reason}")
        for name in GUIDED if self.folds else ():
            if name in self.run or name in arm.run:
                raise ValueError(f"{name} cannot be set for a run in a cross-validation")
        if arm.plan is not None and arm.plan not in self.plans:
            raise ValueError(f"the arm {arm.name!r} is of the plan {arm.plan!r}, none of [plans]")
        if arm.clicks is not None and arm.source is not None:
            raise ValueError(f"the arm {arm.name!r} has both clicks and a source")
        if arm.clicks is not None and arm.clicks not in self.clicks:
            raise ValueError(f"the arm {arm.name!r} has {arm.clicks} clicks, which clicks lacks")
        try:
            self.spec(arm, 0)
            self.plan_set(arm)
        except ValidationError as error:
            raise ValueError(f"the run of the arm {arm.name!r}: {sentence(error)}") from None

    @property
    def baseline(self) -> str:
        """Name of the arm that all others are measured against; "" without arms."""
        return self.arms[0].name if self.arms else ""

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources of supports that arms name, those of clicks too."""
        named = [clicked(count) for count in self.clicks]
        named += [arm.source for arm in self.arms if arm.source]
        return tuple(dict.fromkeys([*named, *self.quality]))

    @property
    def tells_supports_apart(self) -> bool:
        """Whether a project may hold copies of its supports that not every arm learns."""
        return bool(self.sources) or isinstance(self.data, OwnProject)

    def plan_set(self, arm: PlannedArm) -> PlanSpec:
        """Return the plan set of an arm: that which it names, its recipe's, or [plan]."""
        needed = plan_settings(self.spec(arm, 0).recipe)
        name = arm.plan or str(needed.get("name", ""))
        if not name:
            return self.plan
        same = {"folds": self.plan.folds, "workers": self.plan.workers}
        known = self.plans[name].model_dump(exclude_unset=True) if name in self.plans else {}
        own = name if self.plan.name == "own" else f"{self.plan.name}-{name}"
        return PlanSpec.model_validate({**same, **needed, **known, "name": own})

    def spec(self, arm: PlannedArm, seed: int) -> RunSpec:
        """Return an arm's run, but for its baseline and plan set."""
        return RunSpec.model_validate({**self.run, **arm.run, "seed": seed})

    def study_arms(self, seed: int, known: Sequence[str] = ()) -> list[StudyArm]:
        """Return the arms of a draw.

        Parameters
        ----------
        seed : int
        known : sequence of str
            The project's supports, of which an arm that names none takes its source's, or those
            that are no copies of others: a project that another plan gave kidney-7-clicks still
            has its own supports alone in this one.
        """
        return [
            StudyArm(
                arm.name,
                self._with_supports(arm, self.spec(arm, seed), known),
                arm.start,
                self._other_plan(arm),
                f"{arm.clicks} clicks" if arm.clicks else "",
            )
            for arm in self.arms
        ]

    def _other_plan(self, arm: PlannedArm) -> PlanSpec | None:
        plan = self.plan_set(arm)
        return None if plan == self.plan else plan

    def _with_supports(self, arm: PlannedArm, run: RunSpec, known: Sequence[str]) -> RunSpec:
        """Name the supports of an arm's source, where a project may have several sources."""
        if run.arm not in WITH_SUPPORTS or not self.tells_supports_apart:
            return run
        if run.supports and not self.sources:
            return run
        source = clicked(arm.clicks) if arm.clicks else arm.source
        own = own_supports(known, self.sources)
        named = [name for name in own if not run.supports or name in run.supports]
        wanted = tuple(f"{name}-{source}" if source else name for name in named)
        return run.model_copy(update={"supports": wanted})

    def with_draws(self, draws: tuple[int, ...]) -> ExperimentPlan:
        """Return the experiment on other draws."""
        values = self.model_dump(exclude_unset=True)
        return validated({**values, "data": {**values["data"], "draws": draws}})

    def with_run(self, **fields: Any) -> ExperimentPlan:
        """Return the experiment with other fields of RunSpec, but for arms that set their own."""
        values = self.model_dump(exclude_unset=True)
        return validated({**values, "run": {**self.run, **fields}})

    def for_supports(self, count: int) -> tuple[ExperimentPlan, tuple[str, ...]]:
        """Return the experiment without arms that ask for more supports, and their names."""
        values = self.model_dump(exclude_unset=True)
        asked = {arm.name: self.spec(arm, 0).support_count or 0 for arm in self.arms}
        left_out = tuple(name for name in asked if asked[name] > count)
        arms = [arm for arm in values.get("arms", ()) if arm["name"] not in left_out]
        return validated({**values, "arms": arms}), left_out

    def on_project(self, folder: Path) -> ExperimentPlan:
        """Return the experiment on a project that exists.

        Its plan set gets the experiment's name, unless the plan names one.
        """
        values = self.model_dump(exclude_unset=True)
        own = values.pop("project", None)
        draws = self.data.draws if self.project is None else self.project.draws
        if own is not None:
            kept = {name: values[name] for name in values if name not in OnProject.model_fields}
            arms = [_on_project(arm) for arm in values.get("arms", ())]
            values = {"engine": "nninteractive", **kept, **own, "arms": arms}
            values.pop("draws", None)
        data = {"kind": "project", "folder": str(folder), "draws": draws}
        plan = {"name": self.name, **values.get("plan", {})}
        return validated({**values, "data": data, "plan": plan})


def _on_project(arm: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in arm.items() if name != "project"}
    return kept if arm.get("project") is None else {**kept, "run": arm["project"]}


def _check_names(names: Sequence[str], controls: Sequence[str]) -> None:
    if twice := twice_in(names):
        raise ValueError(f"the arm {twice[0]!r} is there twice")
    for name in names:
        if _STEP.match(name):
            raise ValueError(f"an arm cannot be named {name!r}, as a step is")
    if twice := twice_in(controls):
        raise ValueError(f"the control {twice[0]!r} is there twice")
    for control in controls:
        if control not in names[1:]:
            raise ValueError(f"the control {control!r} is none of the arms {_list(names[1:])}")


def _check_against(arm: PlannedArm, names: list[str]) -> None:
    others = [name for name in names if name != arm.name]
    if arm.against is not None and arm.against not in others:
        raise ValueError(
            f"{arm.name!r} is compared with {arm.against!r}, none of the arms {_list(others)}"
        )


def _check_start(arm: PlannedArm, names: list[str], before: list[str]) -> None:
    if arm.start is None or arm.start in before:
        return
    if arm.start not in names:
        raise ValueError(f"{arm.name!r} starts from {arm.start!r}, none of the arms {_list(names)}")
    raise ValueError(f"{arm.name!r} starts from {arm.start!r}, which has to stand above it")


def _check_known(what: str, values: Mapping[str, Any], known: Sequence[str]) -> None:
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{what} has no {unknown[0]!r}, only {_list(known)}")


def validated(values: Mapping[str, Any], name: str = "The plan") -> ExperimentPlan:
    """Return a plan from what its file holds.

    Raises
    ------
    InputError
        It says something that cannot be.
    """
    try:
        return ExperimentPlan.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{name}: {sentence(error)}.", "Mend the plan.") from None


def sentence(error: ValidationError) -> str:
    """Return the first thing wrong, as a place, the value and what is wrong with it."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        text = str(first["ctx"]["error"])
        return f"{place}: {text}" if place else text
    if first["type"] in _WORDS:
        return f"{place}: {_WORDS[first['type']]}"
    return f"{place} {first['input']!r}: {first['msg'].lower()}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
