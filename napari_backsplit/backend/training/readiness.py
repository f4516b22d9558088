"""Whether a run can be trained, asked before it becomes a job. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.adoption import adopt
from napari_backsplit.backend.training.architectures import require_architecture, require_patch
from napari_backsplit.backend.training.arms import what_enters
from napari_backsplit.backend.training.baseline import ADOPTED, plan_sets, require_plan_set
from napari_backsplit.backend.training.dataset import training_cases
from napari_backsplit.backend.training.recipe_defaults import require_installed
from napari_backsplit.backend.training.run_scheme import run_scheme
from napari_backsplit.backend.training.schedule import require_all_to_join
from napari_backsplit.backend.training.spec import PLANNED, PlanSpec, RunSpec
from napari_backsplit.backend.training.support_checks import require_taught
from napari_backsplit.backend.training.time_budget import require_time_left
from napari_backsplit.backend.training.workload import plan_set_of

Splits = list[dict[str, list[str]]]
"""{"train": case ids, "val": case ids} of each fold."""


def require_ready(project: Project, run: RunSpec, plan: PlanSpec | None = None) -> None:
    """Refuse an impossible run before it becomes a job.

    Parameters
    ----------
    plan : PlanSpec, optional
        The run's plan set, where it is to be made first.

    Raises
    ------
    InputError, ProjectError
        The time is past, a package is missing, the network does not go with the plan set, there
        are too few cases for the folds, a support is not known or not present in any case that
        the fold trains on, soft labels meet label sets, the patch does not fit the network, the
        plan set is of other cases or does not fit, or the baseline has no such fold, another
        network or other outputs.
    """
    require_time_left(run)
    require_installed(run)
    require_architecture(run, configuration_of(project, run.plan_set, plan))
    cases = training_cases(project)
    if plan is None:
        require_plan_set(project.folder, run.plan_set, run.fold)
        require_same_cases(project, run.plan_set)
        _require_patch(project, run)
    elif plan.baseline is not None:
        adopt(project, plan)
    fold = fold_of(project, run, plan)
    scheme = run_scheme(project, run, cases, fold)
    what_enters(project, scheme, fold[0])
    require_taught(project, run, scheme, cases, fold[0])
    require_all_to_join(run, len(scheme.supports))
    if run.baseline is not None:
        model = ModelFolder.open(project.folder / run.baseline, [run.fold], run.baseline_checkpoint)
        require_same_network(run, model.card)
        require_same_outputs(run, model)


def _require_patch(project: Project, run: RunSpec) -> None:
    """Refuse a patch of the run's own that the planned network cannot take."""
    if run.patch_size is None or run.architecture != "planned":
        return
    made = plan_set_of(project.folder, run.plan_set)
    if made is not None and made.plans is not None:
        (configuration,) = made.plans["configurations"].values()
        require_patch({**configuration, "patch_size": run.patch_size})


def require_same_network(run: RunSpec, card: Mapping[str, Any]) -> None:
    """Refuse a fine-tune with another network than its baseline's.

    Parameters
    ----------
    run : RunSpec
    card : mapping
        What the baseline says of itself; of a foreign one nothing. The plans of one from
        elsewhere are adopted, and hold its network.

    Raises
    ------
    InputError
    """
    theirs = card.get("run") or {}
    elsewhere = str(run.baseline).startswith(f"{ADOPTED}/") or run.plan_set != card.get("plan_set")
    adopted = run.architecture == "planned" and elsewhere
    for name in () if adopted else PLANNED:
        own, other = getattr(run, name), theirs.get(name, RunSpec.model_fields[name].default)
        if own != other:
            raise InputError(
                f"The {name} of the fine-tune is {own}, that of its baseline {other}: its weights "
                "do not fit.",
                f"Leave the {name} as it is, or train from scratch.",
            )


def require_same_outputs(run: RunSpec, model: ModelFolder) -> None:
    """Refuse to split an output layer of classes for soft labels, or one of shares for hard ones.

    Raises
    ------
    InputError
    """
    if run.head == "split" and model.soft != (run.labels == "soft"):
        words = {True: "shares of a voxel (soft labels)", False: "classes (hard labels)"}
        raise InputError(
            f"The baseline predicts {words[model.soft]}, the fine-tune learns "
            f"{words[not model.soft]}: its output layer would mean something else, so that its "
            "target is not kept.",
            "Start the output layer anew (--head random), or learn as the baseline did.",
        )


def configuration_of(project: Project, plan_set: str, plan: PlanSpec | None = None) -> str:
    """Return nnU-Net's configuration of a plan set, made or still to be made; "" for neither."""
    made = plan_sets(project.folder).get(plan_set)
    return plan.configuration if plan else str(made["spec"]["configuration"]) if made else ""


def fold_of(
    project: Project, run: RunSpec, plan: PlanSpec | None = None
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the cases that a run trains on, and those that it validates on.

    Raises
    ------
    InputError, ProjectError
        There is no such fold, or there are fewer patients than folds.
    """
    splits = splits_of(project, run.plan_set, plan)
    if run.fold == "all":
        cases = training_cases(project)
        return cases, cases
    if run.fold >= len(splits):
        raise InputError(f"There is no fold {run.fold}.", f"Choose 0 to {len(splits) - 1}, or all.")
    return splits[run.fold]["train"], splits[run.fold]["val"]


def splits_of(project: Project, plan_set: str, plan: PlanSpec | None = None) -> Splits:
    """Return the folds of a plan set: as written down, or as they will be once it is made.

    Raises
    ------
    ProjectError
        There are fewer patients than folds.
    """
    if plan is not None:
        return project.splits(plan.folds)
    splits: Splits = plan_sets(project.folder)[plan_set]["splits"]
    return splits


def changed_cases(project: Project, plan_set: str) -> list[str]:
    """Return the cases that were added or removed since a plan set was made."""
    made = plan_sets(project.folder).get(plan_set)
    return sorted(set(training_cases(project)) ^ set(made["cases"])) if made else []


def require_same_cases(project: Project, plan_set: str) -> None:
    """Refuse a plan set that is of other cases than the project's.

    Raises
    ------
    InputError
    """
    changed = changed_cases(project, plan_set)
    if changed:
        raise InputError(
            f"{len(changed)} case(s) were added or removed since plan set {plan_set!r} "
            f"was made ({', '.join(changed[:5])}).",
            "Make a new plan set (`backsplit plan --name NAME`) and train with --plan-set NAME, so "
            "that runs stay comparable; or take back what was added, removed or rejected.",
        )


def held_out_cases(project: Project) -> list[str]:
    """Return the cases of the test set that a model can be measured on: those with a reference.

    Raises
    ------
    InputError
        No case is held out, or none of them has a reference.
    """
    held_out = project.test_cases()
    if not held_out:
        raise InputError(
            "No case is held out to measure models on.",
            "Reserve a test set (backsplit reserve), or measure in cross-validation.",
        )
    able = [case for case in held_out if not project.problems(case)]
    if not able:
        raise InputError(
            f"None of the {len(held_out)} held-out cases has a reference that may be used.",
            "Draw or import the reference masks of the held-out cases.",
        )
    return able


def keep_test_set(project: Project, folds: int | None = None) -> None:
    """Keep the test set from now on and, with `folds`, the splits.

    Raises
    ------
    ProjectError
        Another window writes in the project, and the test set is not kept yet.
    """
    if project.schema.frozen_test and folds is None:
        return
    if project.read_only:
        raise ProjectError(
            f"{project.notice} A training keeps the test set from then on, which has to be written "
            "down.",
            "Begin it in the window that writes, or close that one.",
        )
    project.freeze_test(folds)
