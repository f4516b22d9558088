"""Checks before a training: the model that it starts from, and what the run asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from napari_backsplit.backend.errors import BackSplitError, InputError
from napari_backsplit.backend.prediction.compatibility import compatibility
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.adoption import adopt
from napari_backsplit.backend.training.architectures import require_architecture
from napari_backsplit.backend.training.budget import STOCK_ITERATIONS, iterations_of, warnings
from napari_backsplit.backend.training.checks import (
    Check,
    Wanted,
    passed,
    refused,
    seconds_left,
    some,
    warned,
)
from napari_backsplit.backend.training.label_names import renamed_labels
from napari_backsplit.backend.training.readiness import require_same_network, require_same_outputs
from napari_backsplit.backend.training.run_scheme import supports_of
from napari_backsplit.backend.training.schedule import require_all_to_join
from napari_backsplit.backend.training.space import duration_text
from napari_backsplit.backend.training.spec import MANY_SUPPORTS, WITH_SUPPORTS, RunSpec
from napari_backsplit.backend.training.workload import (
    known_plans,
    named_model,
    plan_set_of,
    plans_of_run,
)

LEAST_S = 600.0
"""A budget below this hardly trains anything."""

_NOT_IN_FOLDS = ("hours", "until", "patience", "same_epochs_as")
"""Budgets by which a fold's own cases, or the machine, would decide how long it is trained."""

INSTALLED = {"mlflow": "pip install mlflow", "wandb": "pip install wandb"}


def model_checks(project: Project, wanted: Wanted) -> list[Check]:
    """Look at the model: whether it is whole and to be trusted, and fits the project."""
    try:
        with named_model(project.folder, wanted) as model:
            return [_whole(model), *_fits(project, wanted, model)]
    except BackSplitError as error:
        return [refused("model", error.problem, error.remedy)]


def _whole(model: ModelFolder) -> Check:
    folds = ", ".join(model.checkpoints)
    files = " and ".join(sorted({file.name for file in model.checkpoints.values()}))
    text = f"{model.trainer_name}, {model.configuration}, fold {folds}, {files}; it runs no code."
    return passed("model", text)


def _fits(project: Project, wanted: Wanted, model: ModelFolder) -> Iterator[Check]:
    yield from _channels(project, wanted, model)
    yield _labels(project, wanted, model)
    yield from _network(wanted, model)
    yield from _plans(project, wanted, model)


def _channels(project: Project, wanted: Wanted, model: ModelFolder) -> Iterator[Check]:
    """Compare channels, normalisation and spacing, as the adoption will."""
    channels = project.schema.channels
    ours = [channel.name for channel in channels]
    if len(channels) != len(model.channels):
        yield refused(
            "channels",
            f"The model takes {len(model.channels)} channels ({', '.join(model.channels)}), the "
            f"project has {len(channels)} ({', '.join(ours)}).",
            "Choose a model trained on these channels.",
        )
        return
    if _swapped(ours, model.channels) or _swapped([c.modality for c in channels], model.channels):
        yield refused(
            "channels",
            f"The model takes {', '.join(model.channels)} in this order, the project has "
            f"{', '.join(ours)}.",
            "Make the project with its channels in the model's order.",
        )
        return
    yield _notes(project, wanted, model)


def _swapped(ours: list[str], theirs: tuple[str, ...]) -> bool:
    """Whether the names are the same ones in another order."""
    names = [[name.casefold() for name in group] for group in (ours, theirs)]
    return names[0] != names[1] and sorted(names[0]) == sorted(names[1])


def _notes(project: Project, wanted: Wanted, model: ModelFolder) -> Check:
    cases = project.training_cases() or project.case_ids()
    unfit = compatibility(
        model,
        channels=[channel.modality for channel in project.schema.channels],
        spacing_mm=project.geometry(cases[0]).spacing_mm if cases else None,
    )
    spacing = " x ".join(f"{mm:.2g}" for mm in model.spacing_mm)
    if not unfit:
        text = f"{', '.join(model.channels)} at {spacing} mm: as the project's images."
        return passed("channels", text)
    remedy = "If you are sure that it fits, accept it (--accept-unfit)."
    settled = wanted.plan is None or wanted.plan.accept_unfit
    say = warned if settled else refused
    return say("channels", " ".join(unfit), "" if settled else remedy, "" if settled else
               "accept unfit")  # fmt: skip


def _labels(project: Project, wanted: Wanted, model: ModelFolder) -> Check:
    """Compare label names: rows of the output layer are carried over by name, never by number."""
    targets = list(project.schema.target_names)
    try:
        old = renamed_labels(model.labels, targets, wanted.run)
        supports = supports_of(project, wanted.run)
    except InputError as error:
        return refused("labels", error.problem, error.remedy)
    foreground = {name: label for name, label in old.items() if name != "background"}
    unknown = sorted(set(foreground) - {*targets, *supports})
    missing = [name for name in targets if name not in foreground]
    if unknown or missing:
        return refused(
            "labels",
            f"The model predicts {', '.join(model.targets)}, the project's targets are "
            f"{', '.join(targets)}.",
            "Say which of its labels is which target (--label-mapping NAME=TARGET).",
        )
    moved = [name for label, name in enumerate(targets, 1) if foreground[name] != label]
    if moved:
        text = (
            f"Mapped by name: {some(moved)} has another number in the model, which changes nothing."
        )
        return passed("labels", text)
    return passed("labels", f"The model predicts {', '.join(targets)}, as the project does.")


def _network(wanted: Wanted, model: ModelFolder) -> Iterator[Check]:
    try:
        require_same_network(wanted.run, model.card)
        require_same_outputs(wanted.run, model)
    except InputError as error:
        yield refused("network", error.problem, error.remedy)


def _plans(project: Project, wanted: Wanted, model: ModelFolder) -> Iterator[Check]:
    """Look at the plan set: the one that is there, or the one to be made of the model's plans."""
    made = plan_set_of(project.folder, wanted.run.plan_set)
    if wanted.plan is None and (made is None or not made.ready):
        yield refused(
            "plans",
            f"The project has no plan set {wanted.run.plan_set!r}.",
            "Make it with: backsplit plan --adopt MODEL",
        )
        return
    if wanted.plan is not None and wanted.plan.baseline and _inside(project.folder, wanted):
        try:
            adopt(project, wanted.plan.model_copy(update={"accept_unfit": True}))
        except BackSplitError as error:
            yield refused("plans", error.problem, error.remedy)
            return
    yield from _patch(project, wanted)


def _inside(folder: Path, wanted: Wanted) -> bool:
    return wanted.plan is not None and (folder / str(wanted.plan.baseline)).is_dir()


def _patch(project: Project, wanted: Wanted) -> Iterator[Check]:
    """Look whether the network goes with the plans and the patch, as far as those are known."""
    run, plans = wanted.run, None
    with suppress(BackSplitError):
        plans = known_plans(project.folder, wanted)
    if plans is None:
        return
    try:
        (name,) = plans["configurations"]
        require_architecture(run, name)
        trained, notes = plans_of_run(plans, run)
    except InputError as error:
        yield refused("plans", error.problem, error.remedy)
        return
    (configuration,) = trained["configurations"].values()
    sizes = " x ".join(map(str, configuration["patch_size"]))
    text = f"Patch {sizes}, {configuration['batch_size']} in a batch."
    if notes:
        yield warned("plans", " ".join([text, *notes]))
    else:
        yield passed("plans", text)


# ---------------------------------------------------------------------- the run


def run_checks(project: Project, wanted: Wanted) -> list[Check]:
    """Look at what the run asks for: supports, budget, tracker."""
    run = wanted.run
    return [*_supports(project, run), *_budget(project, wanted), *_tracker(run)]


def _supports(project: Project, run: RunSpec) -> Iterator[Check]:
    if run.arm not in WITH_SUPPORTS:
        return
    try:
        chosen = supports_of(project, run)
        if not chosen:
            raise InputError("The project has no support.", "Import or click a support first.")
        require_all_to_join(run, len(chosen))
    except InputError as error:
        yield refused("supports", error.problem, error.remedy)
        return
    if len(chosen) > MANY_SUPPORTS:
        yield warned(
            "supports",
            f"{len(chosen)} supports are many for a fine-tune; one to three work best.",
            "Choose those that the lesions lie in.",
            "fewer supports",
        )
    else:
        yield passed("supports", f"{', '.join(chosen)}.")


def _budget(project: Project, wanted: Wanted) -> Iterator[Check]:
    run = wanted.run
    if wanted.folds and (
        kept := [name for name in _NOT_IN_FOLDS if getattr(run, name) is not None]
    ):
        text = f"A cross-validation takes a number of epochs, without {', '.join(kept)}."
        yield refused("budget", text, "Set epochs instead.")
        return
    if run.until is not None and seconds_left(run.until) <= 0:
        when = run.until.strftime("%Y-%m-%d %H:%M")
        yield refused("budget", f"{when} is past.", "Choose a later time, or a number of epochs.")
        return
    hours = run.hours * 3600 if run.hours is not None else None
    limit = seconds_left(run.until) if run.until is not None else hours
    if limit is not None:
        said = f"{duration_text(limit)} for the fine-tune"
        if limit < LEAST_S:
            yield warned("budget", f"{said} are hardly enough to learn anything.", "Give it hours.",
                         "more epochs")  # fmt: skip
        else:
            yield passed("budget", f"{said}; the learning rate falls to its end within it.")
        return
    short = [text for text in warnings(run, _trained(project, wanted)) if "iterations" in text]
    if short:
        said, _, remedy = short[0].partition(" Take ")
        yield warned("budget", said, f"Take {remedy}.", "more epochs")
    else:
        yield passed("budget", f"{run.epochs} epochs of {run.iterations} batches.")


def _trained(project: Project, wanted: Wanted) -> int:
    """Return for how many batches the model was trained, as far as it says."""
    with suppress(BackSplitError), named_model(project.folder, wanted) as model:
        return iterations_of(model.card)
    return STOCK_ITERATIONS


def _tracker(run: RunSpec) -> Iterator[Check]:
    if run.tracker != "none" and find_spec(run.tracker) is None:
        yield refused(
            "tracker",
            f"The curves are to go to {run.tracker}, which is not installed.",
            f"Install it ({INSTALLED[run.tracker]}), or switch the tracker off: TensorBoard "
            "files are written anyway.",
            "no tracker",
        )
