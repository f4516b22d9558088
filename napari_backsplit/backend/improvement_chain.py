"""An improvement as a chain of jobs: made with care, since a person presses a button once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from napari_backsplit.backend.cluster_consent import require_consent
from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs import State, chains, list_jobs
from napari_backsplit.backend.links import Links
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.readiness import held_out_cases, keep_test_set, require_ready
from napari_backsplit.backend.training.spec import RunSpec
from napari_backsplit.backend.words import fine_tune_title

if TYPE_CHECKING:
    from napari_backsplit.backend.improvement import Improvement

BASELINE, CONTROL, OURS = "baseline", "control", "new model"
"""The arms of the comparison that ends an improvement."""

ABOUT = {
    BASELINE: "the model as it was",
    CONTROL: "the same extra training without supports",
    OURS: "the fine-tune with supports",
}

UNDER_WAY = (State.RUNNING, State.PAUSED, State.LOST)

TURN_S = 60.0
"""How long one who begins waits for another."""

CONTROL_TITLE = "the same extra binary training"


def folder_of(project: Project | Path) -> Path:
    """Return the folder of a project."""
    return project.folder if isinstance(project, Project) else Path(project).resolve()


@contextmanager
def reading(project: Project | Path) -> Iterator[Project]:
    """Give a project to read: the open one, or its folder opened for the time being."""
    if isinstance(project, Project):
        yield project
    else:
        with Project.open(project, read_only=True) as opened:
            yield opened


def begin(project: Project | Path, improvement: Improvement) -> str:
    """Queue an improvement as one chain of jobs, and keep the test set from now on.

    Returns
    -------
    str
        The name of the chain.

    Raises
    ------
    InputError, ProjectError
        The run is impossible, no case is held out to measure it on, or another window writes in
        the project whose test set is not kept yet.
    JobError
        The same is queued or runs already.
    """
    if improvement.folds:
        from napari_backsplit.backend.cross_validation import cross_validate_improvement

        return cross_validate_improvement(project, improvement)
    with beginning(project) as opened:
        require_consent(opened, improvement.where)
        require_new(opened.folder, training(improvement.run))
        require_ready(opened, improvement.run, improvement.plan)
        cases = held_out_cases(opened)
        keep_test_set(opened)
        with Links(opened.folder, improvement.where) as links:
            return _queue(links, improvement, cases)


@contextmanager
def beginning(project: Project | Path) -> Iterator[Project]:
    """Give a project in which one person begins at a time: two presses never queue the same."""
    with reading(project) as opened:
        folder = opened.folder
    (folder / "jobs").mkdir(exist_ok=True)
    with _turn(folder / "jobs" / ".begin"):
        if isinstance(project, Project):
            yield project
        else:
            with Project.open(folder, fall_back=True) as opened:
                yield opened


@contextmanager
def _turn(file: Path) -> Iterator[None]:
    lock = FileLock(file, timeout=TURN_S)
    try:
        lock.acquire()
    except Timeout:
        raise JobError("Another window is about to begin.", "Try again in a minute.") from None
    try:
        yield
    finally:
        lock.release()


def training(run: RunSpec) -> dict[str, Any]:
    """Return the parameters of a run's job."""
    return {"run": run.model_dump(mode="json")}


def require_new(folder: Path, params: Mapping[str, Any]) -> None:
    """Refuse a training whose equal is queued or runs.

    Raises
    ------
    JobError
        It names the job.
    """
    for chain in chains(folder):
        same = [j for j in chain.jobs if j.spec.task == "train" and j.spec.params == params]
        if same and chain.status().state in (State.PENDING, *UNDER_WAY):
            raise JobError(
                f"The same is queued or runs already: job {same[0].id} ({same[0].spec.title}).",
                "Wait for it, cancel it, or change a setting.",
            )


def _queue(links: Links, improvement: Improvement, cases: list[str]) -> str:
    run, plan = improvement.run, improvement.plan
    title, planned = fine_tune_title(run), []
    if plan is not None:
        made = {"plan": plan.model_dump(mode="json")}
        planned = [links.add("plan", made, f"{title}: take over the plans of the baseline")]
    tuned = links.add("train", training(run), title, planned, run.device)
    models = {BASELINE: str(run.baseline), OURS: f"jobs/{tuned}/model"}
    needs: dict[str, list[str]] = {BASELINE: [], OURS: [tuned]}
    if improvement.control:
        control, waits = control_of(run, tuned)
        job = links.add("train", training(control), CONTROL_TITLE, [*planned, *waits], run.device)
        models[CONTROL], needs[CONTROL] = f"jobs/{job}/model", [job]
    predicted = {
        arm: _predict(links, improvement, arm, models[arm], needs[arm], cases)
        for arm in (BASELINE, CONTROL, OURS)
        if arm in models
    }
    compare(links, {arm: f"jobs/{job}" for arm, job in predicted.items()}, [*predicted.values()])
    return links.name


def control_of(run: RunSpec, job: str) -> tuple[RunSpec, list[str]]:
    """Return the same extra training without supports, and the jobs it waits for.

    Where time or patience ends the fine-tune, the control takes as many epochs as it came to.
    """
    control = run.model_copy(update={"arm": "binary"})
    if not run.by_the_clock and run.patience is None:
        return control, []
    same = dict.fromkeys(("hours", "until", "patience"))
    same |= {"same_epochs_as": f"jobs/{job}/model"}
    return control.model_copy(update=same), [job]


def _predict(
    links: Links,
    improvement: Improvement,
    arm: str,
    model: str,
    needs: list[str],
    cases: list[str],
) -> str:
    run = improvement.run
    checkpoint = run.baseline_checkpoint if arm == BASELINE else "checkpoint_final.pth"
    declared = cases if improvement.declare_unseen else []
    params = prediction(model, run, cases, checkpoint, declared)
    if arm == BASELINE and (done := _predicted(links.folder, params)):
        return done
    return links.add("predict", params, f"predict with the {arm}", needs, run.device)


def prediction(
    model: str, run: RunSpec, cases: list[str], checkpoint: str, declared: list[str]
) -> dict[str, Any]:
    """Return the parameters of a prediction by one fold's network, on the device of its run."""
    return {
        "model": model,
        "folds": [run.fold],
        "cases": cases,
        "checkpoint": checkpoint,
        "device": run.device,
        "threads": run.threads,
        "declared_unseen": declared,
    }


def _predicted(folder: Path, params: Mapping[str, Any]) -> str:
    """Return the job that has predicted the same already; "" for none."""
    same = (j for j in list_jobs(folder) if j.spec.task == "predict" and j.spec.params == params)
    return next((job.id for job in same if job.status().state is State.SUCCEEDED), "")


def compare(links: Links, arms: Mapping[str, str | list[str]], needs: list[str]) -> str:
    """Queue the comparison of the arms' prediction folders, the first arm being the baseline."""
    params = {
        "arms": dict(arms),
        "baseline": next(iter(arms)),
        "controls": [CONTROL] if CONTROL in arms else [],
        "about": {arm: text for arm, text in ABOUT.items() if arm in arms},
    }
    return links.add("compare", params, "compare", needs)
