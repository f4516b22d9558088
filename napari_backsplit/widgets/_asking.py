"""What the training panel asks of the backend, loaded when it is asked: never in its thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.jobs import Job, State, list_jobs
from napari_backsplit.backend.jobs.spec import FINAL
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.baseline import ADOPTED, plan_sets
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec

if TYPE_CHECKING:
    from napari_backsplit.backend.cluster_settings import ClusterSettings
    from napari_backsplit.backend.improvement import Improvement
    from napari_backsplit.backend.jobs.devices import Device
    from napari_backsplit.backend.training.checks import Check
    from napari_backsplit.backend.training.estimate import Estimate


@dataclass(frozen=True)
class Start:
    """A model that a fine-tune can start from: how it is named, and how it is shown."""

    model: str
    words: str


@dataclass(frozen=True)
class Scratch:
    """Trainings from scratch: the plan set, where it is to be made, and the arms by name."""

    runs: Mapping[str, RunSpec]
    plan: PlanSpec | None
    folds: tuple[int, ...] = ()
    where: str = ""


def starts(project_folder: Path) -> list[Start]:
    """Return the binary models of a project: its own from scratch, adopted ones, the controls.

    Of its own trainings the newest come first. A control is what a fine-tune was measured against:
    nobody means it who does not choose it.
    """
    own = [job for job in reversed(list_jobs(project_folder)) if _is_binary(job)]
    scratch = [Start(job.id, _words(job)) for job in own if not _is_control(job)]
    controls = [Start(job.id, f"control ({_number(job)})") for job in own if _is_control(job)]
    paths = sorted((project_folder / ADOPTED).glob("[!.]*"))
    adopted = [Start(f"{ADOPTED}/{path.name}", f"adopted: {path.name}") for path in paths]
    return [*scratch, *adopted, *controls]


def _is_control(job: Job) -> bool:
    return job.spec.params["run"].get("baseline") is not None


def _is_binary(job: Job) -> bool:
    try:
        run = job.spec.params.get("run", {}) if job.spec.task == "train" else {}
        return run.get("arm") == "binary" and job.status().state is State.SUCCEEDED
    except BackSplitError:  # deleted meanwhile, or half written
        return False


def _words(job: Job) -> str:
    return f"{job.spec.title or 'binary training'} ({_number(job)})"


def _number(job: Job) -> str:
    return f"job {int(job.id.partition('-')[0])}"


def propose(project: Project, model: str, changes: Mapping[str, Any]) -> Improvement:
    """Return what would be done; see `improvement.propose`."""
    from napari_backsplit.backend import improvement

    return improvement.propose(project, model, changes)


def sentence(improvement: Improvement, estimate: Estimate | None) -> str:
    """Say it in one sentence."""
    from napari_backsplit.backend.words import sentence

    return sentence(improvement, estimate)


def estimate(project: Project, improvement: Improvement) -> Estimate | None:
    """Return what it would take, as far as that is known without measuring."""
    from napari_backsplit.backend.training import estimate

    return estimate.estimate(project, improvement)


def probe(project: Project, improvement: Improvement, stop: threading.Event) -> Estimate | None:
    """Measure what it takes, in a process of its own; None where it was stopped."""
    from napari_backsplit.backend.training import estimate

    return estimate.probe(project, improvement, stop=stop)


def is_busy(project_folder: Path) -> bool:
    """Whether a job runs: what is measured beside it would be wrong, and slow it down."""
    return any(_is_running(job) for job in list_jobs(project_folder))


def _is_running(job: Job) -> bool:
    try:
        return job.status().state is State.RUNNING
    except BackSplitError:
        return False


def preflight(
    project: Project, improvement: Improvement, estimate: Estimate | None
) -> Sequence[Check]:
    """Return what speaks for it and against it."""
    from napari_backsplit.backend.training.preflight import preflight

    return preflight(project, improvement, known=estimate)


def begin(project: Project, improvement: Improvement) -> str:
    """Queue it, and return the name of its chain."""
    from napari_backsplit.backend.improvement_chain import begin

    return begin(project, improvement)


def begin_from_scratch(project: Project, scratch: Scratch) -> str:
    """Queue trainings from scratch, or their cross-validation; return the name of the chain."""
    from napari_backsplit.backend.cross_validation import cross_validate
    from napari_backsplit.backend.from_scratch import begin_from_scratch
    from napari_backsplit.backend.study import StudyArm

    if not scratch.folds:
        return begin_from_scratch(project, scratch.runs, scratch.plan, where=scratch.where)
    arms = [StudyArm(name, run) for name, run in scratch.runs.items()]
    return cross_validate(project, arms, scratch.plan, scratch.folds, where=scratch.where)


def recommend() -> dict[str, Any]:
    """Return what this machine speaks for: its fastest device, with processes that feed it."""
    from napari_backsplit.backend.jobs.devices import cores, devices

    fastest = devices()[0].name
    return {} if fastest == "cpu" else {"device": fastest, "workers": min(8, max(1, cores() - 2))}


def folds(project: Project, improvement: Improvement) -> int:
    """Return how many folds the plan set of a proposal has."""
    if improvement.plan is not None:
        return improvement.plan.folds
    made = plan_sets(project.folder).get(improvement.run.plan_set, {})
    return len(made.get("splits", ()))


def ready_plan_sets(project_folder: Path) -> dict[str, int]:
    """Return the plan sets of a project that can be trained with, and their numbers of folds."""
    made = plan_sets(project_folder)
    return {name: len(found["splits"]) for name, found in made.items() if found["ready"]}


def test_cluster(settings: ClusterSettings) -> str:
    """Say in words what answers at the address of a scheduler."""
    from napari_backsplit.backend.jobs.cluster import connect

    client = connect(settings.address, settings)
    try:
        workers = client.scheduler_info(n_workers=-1)["workers"]
    finally:
        client.close(timeout=2)
    count = len(workers)
    return f"Connected: {count} worker{'s' * (count != 1)}."


def devices() -> Sequence[Device]:
    """Return what this machine can train on."""
    from napari_backsplit.backend.jobs.devices import devices

    return devices()


def newest(project_folder: Path) -> str:
    """Return the chain to show: the newest that is not over, else the newest; "" for none."""
    from napari_backsplit.backend.jobs import chains

    known = chains(project_folder)
    going = [chain for chain in known if chain.status().state not in FINAL]
    return next((chain.name for chain in reversed(going or known)), "")


def answer(project_folder: Path, chain: str) -> Any:
    """Return what came of a chain; None where it is not over or no improvement."""
    from napari_backsplit.backend.answer import answer

    return answer(project_folder, chain)


def repeat(job: Job, changes: Mapping[str, Any]) -> Job:
    """Queue a job again, with some of its parameters changed."""
    from napari_backsplit.backend.jobs import repeat

    return repeat(job, changes)


def supervise(project_folder: Path) -> None:
    """Let the jobs go on that were queued before."""
    from napari_backsplit.backend.jobs import ensure_supervisor, queued

    if queued(project_folder):
        ensure_supervisor(project_folder)
