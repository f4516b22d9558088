"""One button: a binary model, fine-tuned with supports and measured against what it was.

`propose` says what would be done, `begin` queues it as one chain of jobs (plan, fine-tune, the same
extra binary training, three predictions of the held-out cases, a comparison), and `answer.answer`
says what came of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion.advisor import advise
from napari_backsplit.backend.improvement_chain import begin, folder_of, reading
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project.schema import explain
from napari_backsplit.backend.training import baseline
from napari_backsplit.backend.training.checks import some
from napari_backsplit.backend.training.readiness import changed_cases
from napari_backsplit.backend.training.recipe_defaults import require_installed, tuning_values
from napari_backsplit.backend.training.spec import (
    MANY_SUPPORTS,
    WITH_SUPPORTS,
    PlanSpec,
    RunSpec,
)
from napari_backsplit.backend.words import sentence

__all__ = ["Improvement", "begin", "propose", "sentence"]

FOLDS = PlanSpec().folds
NOTHING: Mapping[str, Any] = MappingProxyType({})
ADOPTED: Mapping[str, Any] = MappingProxyType({"architecture": "planned", "width": None})
"""The network of a run whose plan set has its baseline's plans: they hold it."""


@dataclass(frozen=True)
class Improvement:
    """What the button would do.

    Attributes
    ----------
    model : str
        The model as the person named it: number of a job, folder or zip.
    run : RunSpec
        The fine-tune.
    plan : PlanSpec, optional
        The plan set that is made first; None where it exists.
    control : bool
        Also train the same extra epochs without supports: without it nothing shows that it was
        the supports that helped.
    declare_unseen : bool
        The person declares that the model was not trained on the cases that it is measured on.
    folds : tuple of int
        Folds to measure in cross-validation, each fold's network on the cases that it was not
        trained on; (): one fine-tune, measured on the test set.
    devices : tuple of str
        In cross-validation, devices that the folds go to in turn; (): the run's.
    where : str
        Address of the scheduler that runs it; "" for this machine.
    name : str
        What to call the model: "binary model of job 2", or the name of its folder or zip.
    notes : tuple of str
        What was chosen for the person, and why.
    """

    model: str
    run: RunSpec
    plan: PlanSpec | None = None
    control: bool = True
    declare_unseen: bool = False
    folds: tuple[int, ...] = ()
    devices: tuple[str, ...] = ()
    where: str = ""
    name: str = ""
    notes: tuple[str, ...] = ()


def propose(
    project: Project | Path, model: str, changes: Mapping[str, Any] = NOTHING
) -> Improvement:
    """Return how a model would be fine-tuned; a foreign one is adopted, its folder left as it is.

    It learns as its baseline did, with the plans of its baseline, and with the supports that hold
    the lesions.

    Parameters
    ----------
    project : Project or Path
        Open, or its folder, which is then opened to read only.
    model : str
        Number or id of a training job, a path in the project, or any nnU-Net model folder or zip.
    changes : mapping
        Fields of `RunSpec` and of `Improvement` that the person sets.

    Raises
    ------
    InputError, UntrustedModelError
        There is no such model, a change is not what its field takes, or no support is known.
    """
    folder = folder_of(project)
    own, changed = _sorted_out(changes)
    start = baseline.start_of(folder, model)
    learnt = baseline.learning_of(folder, start["baseline"])
    values = tuning_values(changed, {**start, **learnt})
    plan, notes = (own["plan"], ()) if "plan" in own else _plan(project, values)
    if plan is not None:
        values |= {"plan_set": plan.name, **(ADOPTED if plan.baseline else {})}
    run = _run(values)
    require_installed(run)
    if run.arm in WITH_SUPPORTS and not run.supports:
        supports, reason = _supports(project, run)
        run = run.model_copy(update={"supports": supports})
        notes = (*notes, reason)
    name, said = _called(folder, model, start["baseline"], own.get("folds") or (run.fold,))
    proposed = Improvement(model=model, run=run, plan=plan, name=name, notes=(*said, *notes))
    return replace(proposed, **own)


def _run(values: Mapping[str, Any]) -> RunSpec:
    try:
        return RunSpec.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(f"The fine-tune: {explain(error)}.", "Correct it.") from None


def _sorted_out(changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the changes of the improvement itself, and those of its run."""
    names = {field.name for field in fields(Improvement)} - {"model", "run"}
    own = {name: value for name, value in changes.items() if name in names}
    return own, {name: value for name, value in changes.items() if name not in names}


def _plan(
    project: Project | Path, values: Mapping[str, Any]
) -> tuple[PlanSpec | None, tuple[str, ...]]:
    """Return the plan set to make first, if any, and a word about it where it replaces another."""
    folder, wanted = folder_of(project), values["plan_set"]
    made = baseline.plan_sets(folder)
    if wanted in made:
        if not made[wanted]["ready"]:
            return PlanSpec.model_validate(made[wanted]["spec"]), ()
        with reading(project) as opened:
            changed = changed_cases(opened, wanted)
        if not changed:
            return None, ()
        note = (
            f"{some(changed)} were added or removed since plan set {wanted} was made: another one "
            "takes over its plans."
        )
        folds = len(made[wanted]["splits"])
        return _adopting(project, values["baseline"], wanted, folds, made), (note,)
    if wanted:  # named, not there: `begin` refuses it
        return None, ()
    name = values["baseline"].rpartition("/")[2]
    return _adopting(project, values["baseline"], name, FOLDS, made), ()


def _adopting(
    project: Project | Path, model: str, name: str, folds: int, made: Mapping[str, Any]
) -> PlanSpec:
    """Return a plan set with a model's plans, under a name that is free."""
    opened = ModelFolder.open(folder_of(project) / model)
    names = (name if i == 1 else f"{name}-{i}" for i in count(1))
    free = next(each for each in names if each not in made)
    with reading(project) as reader:
        patients = {reader.case(case).patient for case in reader.training_cases()}
    folds = max(2, min(folds, len(patients)))
    return PlanSpec(name=free, baseline=model, configuration=_configuration(opened), folds=folds)


def _configuration(model: ModelFolder) -> Any:
    """Return nnU-Net's configuration that a model is of, whatever suffix its name has."""
    for known in ("3d_fullres", "3d_lowres", "2d"):
        if model.configuration.startswith(known):
            return known
    return "2d" if len(model.settings["patch_size"]) == 2 else "3d_fullres"


def _supports(project: Project | Path, run: RunSpec) -> tuple[tuple[str, ...], str]:
    """Choose the supports of a fine-tune from where the lesions lie; return them and the reason."""
    with reading(project) as opened:
        known = opened.training_cases()
        advice = advise(opened, admit=run.masks, most=MANY_SUPPORTS)
    usable = [found for found in advice.supports if found.usable]
    held = ", ".join(f"{found.support} {found.holds:.0%}" for found in usable)
    some = len(advice.cases) < len(known)
    seen = f" ({len(advice.cases)} of {len(known)} cases)" if some else ""
    chosen = ", ".join(advice.proposed)
    none = "" if any(found.holds for found in usable) else " None holds a lesion: is one missing?"
    return advice.proposed, f"Supports: {chosen}. Lesions that lie in each: {held}{seen}.{none}"


def _called(
    folder: Path, model: str, start: str, folds: Sequence[int | str]
) -> tuple[str, tuple[str, ...]]:
    """Return what to call a model, never by the folders above it, and a word about its folds."""
    opened = ModelFolder.open(folder / start)
    if start.startswith("jobs/"):
        number = int(start.split("/")[1].partition("-")[0])
        return f"{opened.card.get('arm', '')} model of job {number}".lstrip(), ()
    count = len(opened.checkpoints)
    note = f"The model has {count} folds: fold {folds[0]} is fine-tuned and measured, as if alone."
    return Path(model).name, (note,) if count > 1 == len(folds) else ()
