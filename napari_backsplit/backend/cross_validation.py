"""Cross-validation as one chain: folds x arms, each fold's network on the cases it was not taught.

Validation cases choose the best checkpoint, so the last one predicts; see
docs/adr/0014-cross-validation.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_backsplit.backend.cluster_consent import require_consent
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.improvement_chain import (
    BASELINE,
    CONTROL,
    OURS,
    beginning,
    compare,
    prediction,
    require_new,
    training,
)
from napari_backsplit.backend.links import Links
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.roles import FINAL, held_out, role_of, says_all
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.study import StudyArm
from napari_backsplit.backend.training.readiness import (
    Splits,
    keep_test_set,
    require_ready,
    splits_of,
)
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec

if TYPE_CHECKING:
    from napari_backsplit.backend.improvement import Improvement

NO_MODELS: Mapping[str, str] = {}


def cross_validate(
    project: Project | Path,
    runs: Sequence[StudyArm],
    plan: PlanSpec | None,
    folds: Sequence[int],
    *,
    models: Mapping[str, str] = NO_MODELS,
    devices: Sequence[str] = (),
    where: str = "",
    declare_unseen: bool = False,
) -> str:
    """Queue a cross-validation as one chain of jobs, and keep the test set and the folds.

    Parameters
    ----------
    project : Project or Path
        Open, or its folder.
    runs : sequence of StudyArm
        Trained once a fold; the first arm is what the others are compared with. One with a start
        begins from that arm's network of the same fold.
    plan : PlanSpec, optional
        The runs' plan set, where it is to be made first.
    folds : sequence of int
        Each names the cases that its networks are measured on.
    models : mapping of str to str
        Arms that are not trained: name -> model folder, relative to the project, that has these
        folds. They stand before the others.
    devices : sequence of str
        Devices that the folds go to in turn; by default each run's own.
    declare_unseen : bool
        The person declares that no fold of a foreign model was trained on the cases of that fold.

    Returns
    -------
    str
        The name of the chain.

    Raises
    ------
    InputError, ProjectError
        A fold is not there or a run is impossible, a setting would let validation cases guide a
        training, or a model that an arm starts from was trained on cases that it is measured on.
    JobError
        The same is queued or runs already.
    """
    with beginning(project) as opened:
        require_consent(opened, where)
        splits = _splits(opened, runs, plan, folds)
        for fold in folds:
            for arm in runs:
                _require_honest(arm)
                require_ready(opened, _of_fold(arm.run, fold), plan)
            _require_unseen(opened, runs, models, fold, splits[fold]["val"], declare_unseen)
        first = _of_fold(runs[0].run, folds[0], _device(devices, 0))
        require_new(opened.folder, training(first))
        keep_test_set(opened, None if plan is None else plan.folds)
        with Links(opened.folder, where) as links:
            planned = _plan(links, plan)
            arms: dict[str, list[str]] = {name: [] for name in (*models, *(a.name for a in runs))}
            for turn, fold in enumerate(folds):
                work = _Fold(links, fold, splits[fold]["val"], _device(devices, turn))
                predicted = work.predict_with(models, runs[0].run, declare_unseen)
                predicted |= work.train(runs, planned, declare_unseen)
                for name, job in predicted.items():
                    arms[name].append(f"jobs/{job}")
            jobs = [folder.partition("/")[2] for folders in arms.values() for folder in folders]
            compare(links, arms, jobs)
            return links.name


def _splits(
    project: Project, runs: Sequence[StudyArm], plan: PlanSpec | None, folds: Sequence[int]
) -> Splits:
    """Return the folds of the runs' plan set; refuse what cannot be cross-validated."""
    if not runs or not folds or len(set(folds)) < len(folds):
        raise InputError("A cross-validation needs an arm, and folds that differ.")
    names = [arm.name for arm in runs]
    if len(set(names)) < len(names):
        raise InputError(f"Two of the arms {', '.join(names)} have one name.", "Rename one.")
    plan_set = runs[0].run.plan_set
    others = sorted({arm.run.plan_set for arm in runs} - {plan_set})
    if others:
        raise InputError(f"The arms are of the plan sets {plan_set}, {', '.join(others)}.")
    require_ready(project, _of_fold(runs[0].run, folds[0]), plan)
    splits = splits_of(project, plan_set, plan)
    empty = [fold for fold in folds if not splits[fold]["val"]] if max(folds) < len(splits) else []
    if empty:
        raise InputError(f"Fold {empty[0]} holds out no case.", "Choose another fold.")
    return splits


def _require_honest(arm: StudyArm) -> None:
    """Refuse settings by which the cases that a fold is measured on would guide its training."""
    run = arm.run
    guided = {
        "patience": run.patience is not None,
        "same_epochs_as": run.same_epochs_as is not None,
        "baseline_checkpoint": run.baseline is not None and run.baseline_checkpoint != FINAL,
    }
    chosen = [name for name, is_set in guided.items() if is_set]
    if chosen:
        raise InputError(
            f"{arm.name}: with {chosen[0]} the cases that a fold is measured on have a say in its "
            "training.",
            f"Leave {chosen[0]} out of a cross-validation.",
        )


def _require_unseen(
    project: Project,
    runs: Sequence[StudyArm],
    models: Mapping[str, str],
    fold: int,
    cases: Sequence[str],
    declared: bool,
) -> None:
    """Refuse models that were trained on the cases of a fold, or do not say."""
    starts = {arm.run.baseline: None for arm in runs if arm.run.baseline and not arm.start}
    for folder in {**starts, **dict.fromkeys(models.values())}:
        model = ModelFolder.open(project.folder / str(folder), [fold], FINAL)
        for case in cases:
            images = project.case(case).images.values()
            hashes = {i.sha256 for i in images} | {i.source_sha256 for i in images}
            role = role_of(model.card, hashes - {""})
            if role == "training" or (role == "validation" and not held_out(model.card, hashes)):
                raise InputError(
                    f"Fold {fold} of the baseline has seen {case}, which the fold is measured on.",
                    "Train the baseline in the same cross-validation, once for each fold.",
                )
            if not says_all(model.card) and not declared:
                raise InputError(
                    f"It is not known whether fold {fold} of the baseline was trained on {case}.",
                    "Declare it unseen if you are sure; otherwise train the baseline in the same "
                    "cross-validation.",
                )


def _device(devices: Sequence[str], turn: int) -> str:
    return devices[turn % len(devices)] if devices else ""


def _of_fold(run: RunSpec, fold: int, device: str = "") -> RunSpec:
    return run.model_copy(update={"fold": fold, "device": device or run.device})


def _plan(links: Links, plan: PlanSpec | None) -> list[str]:
    if plan is None:
        return []
    return [
        links.add(
            "plan", {"plan": plan.model_dump(mode="json")}, f"cross-validation: plan {plan.name}"
        )
    ]


class _Fold:
    """The links of one fold: its arms' trainings and predictions, on one device."""

    def __init__(self, links: Links, fold: int, cases: Sequence[str], device: str) -> None:
        self.links, self.fold, self.cases, self.device = links, fold, list(cases), device

    def train(
        self, runs: Sequence[StudyArm], planned: Sequence[str], declared: bool
    ) -> dict[str, str]:
        """Queue the trainings, and return each arm's prediction of the fold's own cases."""
        trained: dict[str, str] = {}
        predicted = {}
        for arm in runs:
            run = _of_fold(arm.run, self.fold, self.device)
            needs = list(planned)
            if arm.start is not None:
                needs.append(trained[arm.start])
                run = run.model_copy(update={"baseline": f"jobs/{trained[arm.start]}/model"})
            title = f"cross-validation: fold {self.fold}, train {arm.name}"
            job = self.links.add("train", training(run), title, needs, run.device)
            trained[arm.name] = job
            predicted[arm.name] = self._predict(arm.name, f"jobs/{job}/model", run, declared, job)
        return predicted

    def predict_with(
        self, models: Mapping[str, str], run: RunSpec, declared: bool
    ) -> dict[str, str]:
        """Queue and return the predictions of models that are there already."""
        run = _of_fold(run, self.fold, self.device)
        return {name: self._predict(name, model, run, declared) for name, model in models.items()}

    def _predict(self, arm: str, model: str, run: RunSpec, declared: bool, *needs: str) -> str:
        params = prediction(model, run, self.cases, FINAL, self.cases if declared else [])
        title = f"cross-validation: fold {self.fold}, predict with {arm}"
        return self.links.add("predict", params, title, needs, run.device)


def cross_validate_improvement(project: Project | Path, improvement: Improvement) -> str:
    """Queue an improvement that is measured in cross-validation, on every case of its folds.

    The fine-tunes of a foreign model start from its own folds. A model of the project is trained
    again for each fold, as it was trained, since its one fold has seen the other folds' cases.
    """
    run = improvement.run
    if run.hours is not None or run.until is not None:
        raise InputError(
            "A cross-validation needs a number of epochs, not hours.", "Set epochs instead."
        )
    control = StudyArm(CONTROL, run.model_copy(update={"arm": "binary"}))
    arms = [*([control] if improvement.control else []), StudyArm(OURS, run)]
    models = {BASELINE: str(run.baseline)}
    if str(run.baseline).startswith("jobs/"):
        models = {}
        again = StudyArm(BASELINE, _as_trained(project, run))
        arms = [again, *(StudyArm(arm.name, _unstarted(arm.run), BASELINE) for arm in arms)]
    return cross_validate(
        project,
        arms,
        improvement.plan,
        improvement.folds,
        models=models,
        devices=improvement.devices,
        where=improvement.where,
        declare_unseen=improvement.declare_unseen,
    )


def _unstarted(run: RunSpec) -> RunSpec:
    return run.model_copy(update={"baseline": None, "baseline_checkpoint": FINAL})


def _as_trained(project: Project | Path, run: RunSpec) -> RunSpec:
    """Return how a run's baseline was trained, for the same device and plan set."""
    folder = project.folder if isinstance(project, Project) else Path(project)
    card = ModelFolder.open(folder / str(run.baseline)).card
    trained = RunSpec.model_validate(card["run"])
    if trained.by_the_clock:  # each fold takes the epochs that it came to
        epochs = (card.get("trained") or card["run"])["epochs"]
        trained = trained.model_copy(update={"hours": None, "until": None, "epochs": epochs})
    if trained.patience is not None or trained.same_epochs_as is not None:
        raise InputError(
            "Validation cases had a say in how long the baseline was trained, and those are the "
            "cases that a fold is measured on.",
            "Choose a model that was trained for a number of epochs, or measure on a test set.",
        )
    if trained.baseline is not None:
        raise InputError(
            "The baseline is a fine-tune itself, which is not trained again for each fold.",
            "Choose the model that it started from, or measure on a test set.",
        )
    same = {name: getattr(run, name) for name in ("plan_set", "device", "threads", "workers")}
    return trained.model_copy(update=same)
