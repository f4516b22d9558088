"""What an experiment is: data in several draws, arms, and what they are measured against."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.phantom import STRUCTURES, SUPPORTS, PhantomSpec
from napari_backsplit.backend.study import StudyArm
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec

Word = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
Draws = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]

SET_BY_THE_RUNNER = {
    "seed": "the draw's number is the seed",
    "baseline": "name the arm to start from as `start`",
    "plan_set": "name the plan set in [plan]",
}
PREDICTION = ("folds", "checkpoint", "device", "threads", "mirroring", "step_size", "probabilities")
_WORDS = {"missing": "is missing", "extra_forbidden": "there is no such field"}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _Data(_Frozen):
    draws: Draws = (0,)
    """Numbers of the draws, each the seed of its data and of its runs."""

    @field_validator("draws")
    @classmethod
    def _once(cls, draws: tuple[int, ...]) -> tuple[int, ...]:
        if twice := _twice(draws):
            raise ValueError(f"draw {twice[0]} is named twice")
        return draws


class Synthetic(_Data):
    """Phantoms, new ones for every draw."""

    kind: Literal["synthetic"] = "synthetic"
    train: Annotated[int, Field(ge=2)] = 16
    """Cases to train on."""
    test: Annotated[int, Field(ge=1)] = 24
    """Cases held out."""
    phantom: dict[str, Any] = {}
    """Fields of PhantomSpec; `lesion_free` is the share of cases without a lesion."""
    supports: dict[str, tuple[str, ...]] = dict(SUPPORTS)
    """Support -> structures fused under it, in order of priority."""

    @field_validator("phantom")
    @classmethod
    def _fields(cls, phantom: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(phantom) - {field.name for field in fields(PhantomSpec)})
        if unknown:
            raise ValueError(f"a phantom has no {unknown[0]!r}")
        _ = TypeAdapter(PhantomSpec).validate_python(phantom)
        return phantom

    @field_validator("supports")
    @classmethod
    def _structures(cls, supports: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        named = {structure for structures in supports.values() for structure in structures}
        if unknown := sorted(named - set(STRUCTURES)):
            raise ValueError(f"a phantom has no {unknown[0]!r}, only {', '.join(STRUCTURES)}")
        return supports

    @property
    def spec(self) -> PhantomSpec:
        """What the phantoms are drawn from."""
        return TypeAdapter(PhantomSpec).validate_python(self.phantom)


class LabelFolder(_Data):
    """Images and label maps of many ids; every draw holds out other patients."""

    kind: Literal["labels"]
    folder: str
    """Folder in $BACKSPLIT_TEST_DATA with `images/` and `labels/`."""
    channel: str
    pattern: str = "{case}.nii.gz"
    """Names of the files in both folders."""
    ids: dict[int, str]
    """Label id -> structure."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    supports: tuple[str, ...] = ()
    test: Annotated[int, Field(ge=1)]
    """Patients held out."""


class OwnProject(_Data):
    """A project that exists; a draw is a seed of the trainings alone."""

    kind: Literal["project"]
    folder: str


Data = Annotated[Synthetic | LabelFolder | OwnProject, Field(discriminator="kind")]


class PlannedArm(_Frozen):
    """An arm of an experiment."""

    name: Annotated[str, Field(pattern=r"^[^|\n]+$")]
    start: str | None = None
    """Arm above whose model this one starts from; None: from scratch."""
    run: dict[str, Any] = {}
    """Fields of RunSpec that differ from those all arms share."""


class ExperimentPlan(_Frozen):
    """An experiment, as its TOML file holds it."""

    name: Word
    title: str
    about: str = ""
    """Text for the page."""
    data: Data
    plan: PlanSpec = PlanSpec()
    run: dict[str, Any] = {}
    """Fields of RunSpec that all arms share."""
    arms: Annotated[tuple[PlannedArm, ...], Field(min_length=2)]
    """The first is the baseline."""
    controls: tuple[str, ...] = ()
    """Arms that every other arm is measured against too."""
    prediction: dict[str, Any] = {}
    """Parameters of the predict job beside the model."""

    @model_validator(mode="after")
    def _check(self) -> ExperimentPlan:
        names = [arm.name for arm in self.arms]
        if twice := _twice(names):
            raise ValueError(f"the arm {twice[0]!r} is there twice")
        for name in names:
            if name in ("plan", "compare") or name.startswith("predict "):
                raise ValueError(f"an arm cannot be named {name!r}, as a step is")
        if twice := _twice(self.controls):
            raise ValueError(f"the control {twice[0]!r} is there twice")
        for control in self.controls:
            if control not in names[1:]:
                raise ValueError(f"the control {control!r} is none of the arms {_list(names[1:])}")
        for place, arm in enumerate(self.arms):
            _check_start(arm, names, names[:place])
            self._check_run(arm)
        self._check_alike()
        if unknown := sorted(set(self.prediction) - set(PREDICTION)):
            raise ValueError(f"prediction has no {unknown[0]!r}, only {_list(PREDICTION)}")
        return self

    def _check_alike(self) -> None:
        """Refuse arms that differ by name alone: they would share one training."""
        runs = [(arm.start, self.spec(arm, 0)) for arm in self.arms]
        for arm, run in zip(self.arms, runs, strict=True):
            other = self.arms[runs.index(run)]
            if other is not arm:
                raise ValueError(f"the arms {other.name!r} and {arm.name!r} are the same run")

    def _check_run(self, arm: PlannedArm) -> None:
        for name, reason in SET_BY_THE_RUNNER.items():
            if name in self.run or name in arm.run:
                raise ValueError(f"{name} cannot be set for a run: {reason}")
        try:
            self.spec(arm, 0)
        except ValidationError as error:
            raise ValueError(f"the run of the arm {arm.name!r}: {_sentence(error)}") from None

    @property
    def baseline(self) -> str:
        """Name of the arm that all others are measured against."""
        return self.arms[0].name

    def spec(self, arm: PlannedArm, seed: int) -> RunSpec:
        """Return an arm's run, but for its baseline."""
        return RunSpec.model_validate({**self.run, **arm.run, "seed": seed})

    def study_arms(self, seed: int) -> list[StudyArm]:
        """Return the arms of a draw."""
        return [StudyArm(arm.name, self.spec(arm, seed), arm.start) for arm in self.arms]

    def with_draws(self, draws: tuple[int, ...]) -> ExperimentPlan:
        """Return the experiment on other draws."""
        values = self.model_dump(exclude_unset=True)
        return _validated({**values, "data": {**values["data"], "draws": draws}})

    def on_project(self, folder: Path) -> ExperimentPlan:
        """Return the experiment on a project that exists.

        Its plan set gets the experiment's name, unless the plan names one.
        """
        values = self.model_dump(exclude_unset=True)
        data = {"kind": "project", "folder": str(folder), "draws": self.data.draws}
        plan = {"name": self.name, **values.get("plan", {})}
        return _validated({**values, "data": data, "plan": plan})


def _check_start(arm: PlannedArm, names: list[str], before: list[str]) -> None:
    if arm.start is None or arm.start in before:
        return
    if arm.start not in names:
        raise ValueError(f"{arm.name!r} starts from {arm.start!r}, none of the arms {_list(names)}")
    raise ValueError(f"{arm.name!r} starts from {arm.start!r}, which has to stand above it")


def built_in_plans() -> list[ExperimentPlan]:
    """Return the plans that come with the package."""
    return [_parse(text, name) for name, text in _built_in()]


def read_plan(name: str) -> ExperimentPlan:
    """Read a plan: the name of a built-in one, or the path of a TOML file.

    Raises
    ------
    InputError
        There is no such plan, or it says something that cannot be.
    """
    texts = dict(_built_in())
    if name in texts:
        return _parse(texts[name], name)
    path = Path(name)
    if not path.is_file():
        raise InputError(
            f"There is no plan {name!r}.", f"Name a TOML file, or one of {', '.join(texts)}."
        )
    try:
        return _parse(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.", "Give a TOML file.") from None


def _built_in() -> Iterator[tuple[str, str]]:
    folder = resources.files("napari_backsplit.backend.experiments") / "plans"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            yield file.name.removesuffix(".toml"), file.read_text(encoding="utf-8")


def _parse(text: str, name: str) -> ExperimentPlan:
    try:
        return _validated(tomllib.loads(text), name)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name} is not TOML: {error}.", "Mend the file.") from None


def _validated(values: dict[str, Any], name: str = "The plan") -> ExperimentPlan:
    try:
        return ExperimentPlan.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{name}: {_sentence(error)}.", "Mend the plan.") from None


def _sentence(error: ValidationError) -> str:
    """Return the first thing wrong, as a place, the value and what is wrong with it."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        text = str(first["ctx"]["error"])
        return f"{place}: {text}" if place else text
    if first["type"] in _WORDS:
        return f"{place}: {_WORDS[first['type']]}"
    return f"{place} {first['input']!r}: {first['msg'].lower()}"


def _twice(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if values.count(value) > 1]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
