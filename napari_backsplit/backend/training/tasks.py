"""The jobs of this room: plan, train, export. nnU-Net is imported only when one runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_backsplit.backend.files import atomic_path, read_json
from napari_backsplit.backend.jobs import JobContext, Metric, Note, Phase, Picture, Progress
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.architectures import features, needs, with_architecture
from napari_backsplit.backend.training.arms import ArmScheme, unknown_supports, what_enters
from napari_backsplit.backend.training.card import (
    baseline_record,
    data_record,
    licences,
    orientations,
    trained_epochs,
)
from napari_backsplit.backend.training.environment import set_environment
from napari_backsplit.backend.training.label_names import renamed_labels
from napari_backsplit.backend.training.readiness import require_same_outputs
from napari_backsplit.backend.training.run_scheme import run_scheme
from napari_backsplit.backend.training.schedule import require_all_to_join
from napari_backsplit.backend.training.spec import MANY_SUPPORTS, PlanSpec, RunSpec
from napari_backsplit.backend.training.support_checks import require_taught
from napari_backsplit.backend.training.time_budget import require_time_left
from napari_backsplit.backend.training.trackers import Trackers, require_tracker

LEARNT = 0.5
"""Dice on validation patches from which a support counts as learnt."""

if TYPE_CHECKING:
    from napari_backsplit.backend.training.trainer import BackSplitTrainer


def run_plan(context: JobContext) -> dict[str, Any]:
    """Make a plan set: params {"plan": PlanSpec}; returns what it holds."""
    from napari_backsplit.backend.training import prepare

    spec = PlanSpec.model_validate(context.params["plan"])
    with _snapshot(context) as project:
        plan_set = prepare.make_plan_set(project, spec, _Steps(context))
        test_cases = len(project.test_cases())
    configuration = plan_set.plans()["configurations"][spec.configuration]
    lost = prepare.vanished_lesions(plan_set)
    if lost:
        text = ", ".join(f"{case}: {count}" for case, count in sorted(lost.items()))
        context.report(
            Note(
                level="warning",
                text=f"{sum(lost.values())} lesion(s) have no voxel left at the planned spacing "
                f"({text}). Plan with a finer spacing to keep them.",
            )
        )
    return {
        "plan_set": spec.name,
        "cases": len(plan_set.cases),
        "test_cases": test_cases,
        "spacing_mm": configuration["spacing"],
        "patch_size": configuration["patch_size"],
        "batch_size": configuration["batch_size"],
        "features": features(configuration),
        "vanished_lesions": lost,
    }


def _snapshot(context: JobContext) -> Project:
    """Open the project as it is at the start of this attempt: masks may be edited meanwhile."""
    return Project.snapshot(context.project_folder, context.folder / f"masks-{context.attempt}")


def run_train(context: JobContext) -> dict[str, Any]:
    """Train one run: params {"run": RunSpec}; the model folder is <job>/model.

    Resumed, it goes on from the last checkpoint with the same schedule.
    """
    spec = _counted(context, RunSpec.model_validate(context.params["run"]))
    require_tracker(spec.tracker)
    set_environment(spec)
    from napari_backsplit.backend.training.trainer import LATEST

    model = context.folder / "model"
    fold = model / f"fold_{spec.fold}"
    if not (fold / "checkpoint_final.pth").exists():
        resumed = (fold / LATEST).exists()
        if not resumed:
            require_time_left(spec)
        plans, dataset_json = _read_model(model) if resumed else _prepared(context, spec)
        trackers = _Curves(context)
        trainer = _trainer(context, spec, plans, dataset_json, trackers)
        _start(context, trainer, spec, fold / LATEST)
        context.report(Phase(name="train"))
        with trackers.opened(spec.tracker, trainer.current_epoch):
            trainer.run_training()
        if spec.arm == "backsplit":
            _name_unlearnt(context, trainer)
    return {"model": f"jobs/{context.folder.name}/model"}


def _counted(context: JobContext, spec: RunSpec) -> RunSpec:
    """Return a run with its number of epochs, where that is another model's."""
    if spec.same_epochs_as is None:
        return spec
    epochs = trained_epochs(context.path(spec.same_epochs_as))
    return RunSpec.model_validate(spec.model_dump() | {"epochs": epochs, "same_epochs_as": None})


def _followed(context: JobContext) -> str | None:
    """Return the model whose number of epochs the job was told to take."""
    return RunSpec.model_validate(context.params["run"]).same_epochs_as


def _prepared(context: JobContext, spec: RunSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return plans and dataset.json of the run, its arm prepared from the masks as they are."""
    from napari_backsplit.backend.training import prepare

    with _snapshot(context) as project:
        plan_set = prepare.open_plan_set(project, spec.plan_set)
        fold = prepare.folds_of(plan_set, spec.fold)
        scheme = run_scheme(project, spec, plan_set.cases, fold)
        _require_taught(context, project, spec, scheme, plan_set.cases, fold[0])
        soft = spec.labels == "soft"
        plan_set, name = prepare.prepare_arm(project, plan_set, scheme, _Steps(context), soft=soft)
        record = {
            "data": data_record(project, plan_set.cases, fold),
            "licences": licences(project, scheme, plan_set.cases),
            "masks": read_json(plan_set.raw(name) / "sources.json"),
            "orientations": orientations(project, plan_set.cases),
            "told_background": _told_background(project, scheme, plan_set.cases),
        }
    plans, notes = with_architecture(
        plan_set.plans(name), plan_set.spec.configuration, spec, plan_set.spec
    )
    for text in notes:
        context.report(Note(level="info", text=text))
    dataset_json = read_json(plan_set.preprocessed(name) / "dataset.json")
    dataset_json.pop("dataset")
    dataset_json["backsplit"] |= {
        "run": spec.model_dump(mode="json") | {"same_epochs_as": _followed(context)},
        "plan_set": spec.plan_set,
        **record,
        "versions": context.spec.versions,
        "baseline": baseline_record(context, spec),
    }
    return plans, dataset_json


def _require_taught(
    context: JobContext,
    project: Project,
    spec: RunSpec,
    scheme: ArmScheme,
    cases: Sequence[str],
    training: Sequence[str],
) -> None:
    """Refuse supports that cannot be learnt; tell who follows the run what they should know."""
    for text in what_enters(project, scheme, cases):
        context.report(Note(level="warning", text=text))
    require_all_to_join(spec, len(scheme.supports))
    for check in require_taught(project, spec, scheme, cases, training):
        level: Literal["info", "warning"] = "warning" if check.level == "warned" else "info"
        context.report(Note(level=level, text=check.text))


def _told_background(project: Project, scheme: ArmScheme, cases: Sequence[str]) -> list[str]:
    """Return the supports that some case is told to be background of, though nobody knows."""
    if scheme.missing == "label-set":
        return []
    return sorted({name for case in cases for name in unknown_supports(project, scheme, case)})


def _read_model(model: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a run began with: resumed, it goes on with the same labels."""
    return read_json(model / "plans.json"), read_json(model / "dataset.json")


def _name_unlearnt(context: JobContext, trainer: BackSplitTrainer) -> None:
    """Warn of supports that the network did not learn: those cannot have helped.

    Nothing is said of one that some cases are told to be background of: there a voxel that is
    rightly found counts as false, so that its Dice says nothing.
    """
    dice = trainer.logger.get_value("dice_per_class_or_region", step=-1)
    scheme = trainer.dataset_json["backsplit"]
    wrong = scheme.get("told_background", ())
    labels = {
        name: trainer.dataset_json["labels"][name]
        for name in scheme["supports"]
        if name not in wrong
    }
    figures = {name: float(dice[label - 1]) for name, label in labels.items()}
    unlearnt = [f"{name} {value:.2f}" for name, value in figures.items() if value < LEARNT]
    if unlearnt:
        text = (
            f"Hardly learnt (Dice on validation patches): {', '.join(unlearnt)}. Supports help "
            "once they are learnt: train longer, or at a higher learning rate."
        )
        context.report(Note(level="warning", text=text))


def run_export(context: JobContext) -> dict[str, Any]:
    """Export a run into <job>/export: params {"model", "zip", "checkpoint"}."""
    from napari_backsplit.backend.training.export import export_model

    params = context.params
    destination = context.folder / ("export.zip" if params["zip"] else "export")
    export_model(
        context.path(params["model"]),
        destination,
        zip=params["zip"],
        checkpoint=params["checkpoint"],
    )
    needed = needs(ModelFolder.open(context.path(params["model"])).settings)
    if needed:
        context.report(Note(level="warning", text=needed))
    return {"export": f"jobs/{context.folder.name}/{destination.name}"}


class _Steps:
    """Turns the steps of a preparation into events, and lets the job be stopped between them."""

    def __init__(self, context: JobContext) -> None:
        self.context = context
        self.phase = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        self.context.checkpoint()
        if what != self.phase:
            self.phase = what
            self.context.report(Phase(name=what))
        self.context.report(Progress(done=done, total=total, text=what))


class _Curves:
    """Reports the points of curves as events, and to trackers once they are opened."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._trackers: Trackers | None = None

    @contextmanager
    def opened(self, tracker: str, first_epoch: int) -> Iterator[None]:
        """Also send the points to the trackers meanwhile."""
        context = self._context

        def warn(text: str) -> None:
            context.report(Note(level="warning", text=text))

        with Trackers(tracker, context.folder, first_epoch, warn) as self._trackers:
            yield

    def add(self, name: str, epoch: int, value: float) -> None:
        """Report a point."""
        self._context.report(Metric(name=name, step=epoch, value=value))
        if self._trackers is not None:
            self._trackers.add(name, epoch, value)


def _trainer(
    context: JobContext,
    spec: RunSpec,
    plans: dict[str, Any],
    dataset_json: dict[str, Any],
    curves: _Curves,
) -> BackSplitTrainer:
    from napari_backsplit.backend.training import nnunet
    from napari_backsplit.backend.training.run import Run
    from napari_backsplit.backend.training.standing_aside import StandingAside
    from napari_backsplit.backend.training.trainer import trainer_for

    ((name, configuration),) = plans["configurations"].items()
    nnunet.check_patch(configuration)
    folder = context.project_folder / "nnunet"
    nnunet.set_folders(folder)
    arrays = folder / "preprocessed" / plans["dataset_name"] / configuration["data_identifier"]
    nnunet.check_arrays(arrays)
    kind = spec.device.partition(":")[0]  # the one GPU that this process sees
    run = Run(
        spec=spec,
        folder=context.folder / "model",
        check=StandingAside(context.checkpoint, kind if spec.yield_to_clicks else ""),
        metric=curves.add,
        progress=lambda done, total, text, eta_s: context.report(
            Progress(done=done, total=total, text=text, eta_s=eta_s)
        ),
        note=lambda level, text: context.report(Note(level=level, text=text)),
        picture=lambda image, epoch, text: _keep_picture(context, image, epoch, text),
    )
    return trainer_for(run, plans, name, dataset_json)


def _keep_picture(context: JobContext, image: bytes, epoch: int, text: str) -> None:
    """Write a picture into <job>/pictures and report it."""
    name = f"pictures/epoch_{epoch + 1:04d}.png"
    with atomic_path(context.folder / name) as temporary:
        temporary.write_bytes(image)
    context.report(Picture(file=name, step=epoch, text=text))


def _start(context: JobContext, trainer: BackSplitTrainer, spec: RunSpec, latest: Path) -> None:
    """Put the weights of the last checkpoint, or of the baseline, into the network."""
    from napari_backsplit.backend.prediction.checkpoint import load_checkpoint

    if latest.exists():
        trainer.resume(load_checkpoint(latest))
        of = "" if spec.by_the_clock else f" of {spec.epochs}"
        text = f"Resumed after epoch {trainer.current_epoch}{of}."
        context.report(Note(level="info", text=text))
    elif spec.baseline is not None:
        _load_baseline(context, trainer, spec)


def _load_baseline(context: JobContext, trainer: BackSplitTrainer, spec: RunSpec) -> None:
    from napari_backsplit.backend.prediction.checkpoint import load_checkpoint
    from napari_backsplit.backend.training.head_split import is_head, split_head

    model = ModelFolder.open(
        context.path(str(spec.baseline)), folds=[spec.fold], checkpoint=spec.baseline_checkpoint
    )
    require_same_outputs(spec, model)  # one that was still to be trained is seen here first
    (checkpoint,) = model.checkpoints.values()
    old = renamed_labels(model.labels, trainer.dataset_json["backsplit"]["targets"], spec)
    new = trainer.dataset_json["labels"]
    weights = load_checkpoint(checkpoint, state=False)["network_weights"]
    own = getattr(trainer.network, "_orig_mod", trainer.network).state_dict()
    if spec.head == "random":
        weights = {**weights, **{key: value for key, value in own.items() if is_head(key)}}
    else:
        fresh = own if spec.labels == "soft" else None
        weights = split_head(weights, old, new, spec.split_offset, spec.split_noise, fresh)
    trainer.start_from(weights)
    added = len(new) - len(old)
    if added > MANY_SUPPORTS:
        text = f"{added} new supports: with many, a short fine-tune may not beat its baseline."
        context.report(Note(level="warning", text=text))
