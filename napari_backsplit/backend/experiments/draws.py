"""The draws of an experiment: a project each, made from the plan's data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.masks import add_noisy
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.experiments.plan_data import LabelFolder, OwnProject, Synthetic
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.fusion.cases import project_scheme
from napari_backsplit.backend.phantom import sample_project
from napari_backsplit.backend.project import LabelMaps, Project, import_folder
from napari_backsplit.backend.project.copies import own_supports
from napari_backsplit.backend.study import Folds
from napari_backsplit.backend.training.arms import arm_scheme, what_enters
from napari_backsplit.backend.training.run_scheme import supports_of

DATA_FOLDER = "BACKSPLIT_TEST_DATA"
DATA_FILE = "data.json"


@dataclass(frozen=True)
class Draw:
    """A draw of an experiment: its number and its project."""

    seed: int
    project: Path

    def quality_file(self, folder: Path) -> Path:
        """Return where an experiment's folder keeps the quality of the draw's masks."""
        return folder / f"quality-{self.seed}.json"

    def step(self, name: str) -> str:
        """Return the name of one of the draw's steps among those of all draws."""
        return f"draw {self.seed}: {name}"


def draws_of(plan: ExperimentPlan, folder: Path) -> list[Draw]:
    """Return the draws of an experiment and where their projects are or will be."""
    data = plan.data
    if isinstance(data, OwnProject):
        return [Draw(seed, Path(data.folder)) for seed in data.draws]
    return [Draw(seed, folder / f"draw-{seed}") for seed in data.draws]


def require_same_data(plan: ExperimentPlan, folder: Path) -> None:
    """Keep what the projects are made of; draws may be added, nothing else may change.

    Raises
    ------
    InputError
        The folder's projects were made of something else.
    """
    if isinstance(plan.data, OwnProject):
        return
    file, data = folder / DATA_FILE, _without_draws(plan.data)
    made = file.exists() and any(folder.glob("draw-*/project.json"))
    if not made:
        write_json(file, data)
    elif _stored(file, type(plan.data)) != data:
        raise InputError(
            f"{folder} holds an experiment on other data.", "Choose another folder for this plan."
        )


def _stored(file: Path, kind: type[Synthetic | LabelFolder]) -> dict[str, Any] | None:
    """Return what data.json holds, a field that it lacks by its default; None of another kind."""
    try:
        return _without_draws(kind.model_validate(read_json(file)))
    except ValidationError:
        return None


def _without_draws(data: Synthetic | LabelFolder) -> dict[str, Any]:
    return data.model_dump(mode="json", exclude={"draws"})


def make_project(
    plan: ExperimentPlan, draw: Draw, source: Path | None, say: Callable[[str], None]
) -> None:
    """Make a draw's project if it is missing, and keep its test set from now on."""
    if not (draw.project / "project.json").is_file():
        say(f"Making {draw.project.name}.")
        _make(plan, draw, source)
    with Project.open(draw.project, fall_back=True) as project:
        _require_fit(plan, project)
        if not project.read_only:
            dealt = plan.folds or not isinstance(plan.data, OwnProject)
            project.freeze_test(plan.plan.folds if dealt else None)


@dataclass(frozen=True)
class Facts:
    """What the jobs of a draw depend on beside the plan.

    Attributes
    ----------
    supports : tuple of str
        The project's, where it may hold copies of them.
    cases : tuple of str
        Those to train on.
    folds : mapping of int to sequence of str
        The cases that each fold of a cross-validation holds out.
    """

    supports: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    folds: Folds = field(default_factory=dict)


def facts_of(plan: ExperimentPlan, draw: Draw) -> Facts:
    """Return what a draw's jobs depend on; of a project that is not there yet, nothing is known.

    Raises
    ------
    InputError
        The project has no such fold.
    """
    if not plan.folds and not plan.tells_supports_apart:
        return Facts()
    if not (draw.project / "project.json").is_file():
        return Facts(folds=dict.fromkeys(plan.folds, ()))
    with Project.open(draw.project, read_only=True) as project:
        splits = project.splits(plan.plan.folds) if plan.folds else []
        if plan.folds and max(plan.folds) >= len(splits):
            raise InputError(f"There is no fold {max(plan.folds)} of {len(splits)}.")
        folds = {fold: tuple(splits[fold]["val"]) for fold in plan.folds}
        return Facts(project_scheme(project).supports, tuple(project.training_cases()), folds)


def _make(plan: ExperimentPlan, draw: Draw, source: Path | None) -> None:
    """Make the project under another name, so that one that was broken off is not taken for it."""
    folder = draw.project.with_name(f".making-{draw.project.name}")
    if folder.exists():
        shutil.rmtree(folder)
    match plan.data:
        case Synthetic() as data:
            spec, supports = data.spec, data.supports
            made = sample_project(folder, draw.seed, data.train, data.test, spec, supports)
            with made as project:
                for name, voxels in data.noisy.items():
                    add_noisy(project, tuple(supports), name, voxels, draw.seed)
        case LabelFolder() as data:
            _import(folder, plan.name, draw.seed, data, source or _test_data(data))
        case OwnProject():
            raise InputError(f"{draw.project} is no project.", "Name one that holds project.json.")
    folder.rename(draw.project)


def _import(folder: Path, name: str, seed: int, data: LabelFolder, source: Path) -> None:
    labels = LabelMaps(source / "labels", data.pattern, data.ids)
    with Project.create(
        folder, name, [data.channel], data.targets, data.supports, seed=seed
    ) as project:
        report = import_folder(project, source / "images", data.pattern, [labels], accepted=True)
        if report.errors:
            text = "; ".join(f"{e.source.name}: {e.message}" for e in report.errors[:3])
            raise InputError(f"{len(report.errors)} file(s) cannot be used: {text}.", "Mend them.")
        project.reserve_test(count=data.test)


def _test_data(data: LabelFolder) -> Path:
    folder = os.environ.get(DATA_FOLDER)
    if not folder:
        raise InputError(
            f"The plan's data {data.folder!r} is not here.",
            f"Name its folder with --data, or the one that holds it with {DATA_FOLDER}.",
        )
    return Path(folder) / data.folder


def _require_fit(plan: ExperimentPlan, project: Project) -> None:
    """Refuse a plan whose arms the project cannot train, before anything runs."""
    if not plan.folds and not project.test_cases():
        raise InputError(
            f"{project.folder.name} has no held-out case to compare the arms on.",
            "Reserve some with: backsplit reserve",
        )
    cases, known = project.training_cases(), project_scheme(project).supports
    _require_sources(plan, known)
    for arm in plan.study_arms(0, known):
        run = arm.run
        if not arm.after:  # its supports are made first
            supports = supports_of(project, run)
            what_enters(project, arm_scheme(project, run.arm, supports, cases, run.masks), cases)


def _require_sources(plan: ExperimentPlan, known: Sequence[str]) -> None:
    """Refuse to measure a source of which the project has no mask."""
    own = own_supports(known, plan.sources)
    for source in plan.quality:
        if not any(f"{name}-{source}" in known for name in own):
            raise InputError(
                f"The project has no support of the source {source!r}, as "
                f"{own[0] if own else 'liver'}-{source}.",
                "Import masks of it under such names, beside the project's own.",
            )
    if plan.clicks and not own:
        raise InputError("The project has no support to click in.", "Import masks of one.")
