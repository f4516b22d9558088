"""How fast an experiment's trainings are: as earlier ones of their kind, or as a probe measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.experiments.draws import Draw
from napari_backsplit.backend.experiments.outcomes import training_hours
from napari_backsplit.backend.jobs import State, list_jobs
from napari_backsplit.backend.jobs.devices import devices
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.study import StudyArm
from napari_backsplit.backend.training.estimate import device_of, epoch_seconds
from napari_backsplit.backend.training.measurement import cached
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.backend.training.workload import workload

_KIND = ("plan_set", "architecture", "width", "batch_size", "patch_size", "precision", "device",
         "deep_supervision", "labels", "inverse_weighting", "workers", "threads")  # fmt: skip

Kind = tuple[Any, ...]


@dataclass(frozen=True)
class Asked:
    """A run as `workload` is asked for it."""

    run: RunSpec
    model: str = ""
    plan: PlanSpec | None = None
    control: bool = False
    declare_unseen: bool = False
    folds: tuple[int, ...] = ()
    where: str = ""


def kind_of(run: RunSpec) -> Kind:
    """Return what decides how long an iteration takes, as far as a run says."""
    return tuple(getattr(run, name) for name in _KIND)


def as_trained(arm: StudyArm, plan: PlanSpec) -> RunSpec:
    """Return an arm's run in its plan set, as its job has it."""
    return arm.run.model_copy(update={"plan_set": (arm.plan or plan).name})


def measured_paces(draws: Sequence[Draw], runs: Sequence[RunSpec]) -> dict[Kind, float]:
    """Return the hours of an iteration, by the kind of training, as far as it was measured.

    Finished trainings in the draws' projects count, and probes. Another plan set or architecture
    is another kind: a small network says nothing of a large one.

    Parameters
    ----------
    draws : sequence of Draw
    runs : sequence of RunSpec
        Those that a probe is looked up for where no training of their kind is done.
    """
    spent: dict[Kind, list[tuple[float, int]]] = {}
    for run, hours in _trained(draws):
        spent.setdefault(kind_of(run), []).append((hours, run.epochs * run.iterations))
    by_kind = {kind: _pace(pairs) for kind, pairs in spent.items()}
    unknown = {kind_of(run): run for run in runs if kind_of(run) not in by_kind}
    probed = {kind: pace for kind, run in unknown.items() if (pace := _probed(draws, run))}
    return {**by_kind, **probed}


def _pace(pairs: Sequence[tuple[float, int]]) -> float:
    return sum(hours for hours, _ in pairs) / sum(iterations for _, iterations in pairs)


def _trained(draws: Sequence[Draw]) -> Iterator[tuple[RunSpec, float]]:
    """Yield the finished trainings of the draws' projects with their hours."""
    for folder in dict.fromkeys(draw.project for draw in draws):
        for job in list_jobs(folder) if (folder / "jobs").is_dir() else ():
            status = job.status() if job.spec.task == "train" else None
            if status is not None and status.state is State.SUCCEEDED:
                with suppress(ValidationError, KeyError):
                    yield RunSpec.model_validate(job.spec.params["run"]), training_hours(status)


def _probed(draws: Sequence[Draw], run: RunSpec) -> float | None:
    """Return the hours of an iteration as a probe measured them on this machine before."""
    folder = draws[0].project
    if not (folder / "project.json").is_file():
        return None
    with suppress(BackSplitError, KeyError, ValueError), Project.open(folder, read_only=True) as p:
        load = workload(p, Asked(run))
        known = cached(load, device_of(run, devices())) if load else None
        seconds = epoch_seconds(load, known) if load and known else None
        return None if seconds is None else seconds / 3600 / run.iterations
    return None
