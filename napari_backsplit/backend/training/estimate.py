"""How long an improvement takes, and how much memory and disk: measured, or not said.

A training is measured by its own kind: by earlier runs of the project, or by a probe, a process
that trains the very network for some seconds on random images (`probe.py`). Needs no torch.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil, prod
from statistics import median
from typing import Any, Literal

from napari_backsplit.backend.errors import BackSplitError, JobError
from napari_backsplit.backend.jobs import Job, Metric, list_jobs
from napari_backsplit.backend.jobs.devices import Device, cores, devices
from napari_backsplit.backend.project import ProjectReader
from napari_backsplit.backend.training import space
from napari_backsplit.backend.training.architectures import about_checkpoint_bytes
from napari_backsplit.backend.training.checks import Wanted, seconds_left
from napari_backsplit.backend.training.measurement import (
    LIMIT_S,
    Measurement,
    Problem,
    cached,
    measure,
)
from napari_backsplit.backend.training.spec import RunSpec
from napari_backsplit.backend.training.workload import (
    Workload,
    named_model,
    plan_set_of,
    workload,
)

duration_text = space.duration_text
size_text = space.size_text

MEASURE = "Measure it: a probe trains this network for some seconds on random images."
EARLIER_RUNS = 5
STARTS_S = 15.0
"""Seconds in which a job of the chain starts: nnU-Net is imported, a network built."""
RESAMPLE_S = 1.2e-6
"""Seconds of one core for a voxel to be resampled, cubic, and written."""
PLANNING_S = 10.0

HARD_MEASURED = "measured with hard labels: soft ones take somewhat more"

Source = Literal["", "probe", "earlier run"]


@dataclass(frozen=True)
class Estimate:
    """What an improvement takes, as far as it is known.

    Attributes
    ----------
    seconds : float or None
        Of the whole chain; None where nothing was measured.
    device_title : str
    gpu_bytes, gpu_total_bytes : int or None
        Memory of the GPU that the training takes, and that there is; None on a CPU.
    ram_bytes : int or None
        Of the training with its workers.
    disk_bytes : int
        Of preprocessed images and checkpoints that are still to be written.
    free_bytes : int
        On the project's disk.
    source : Source
        What the time is from: "probe", "earlier run", or "" where it is not known.
    parts : tuple of (str, float)
        The steps of the chain and the seconds of each.
    problem : Problem
        Why a training of this size is not going to run, as the probe found.
    note : str
        What to do for what is not known.
    caveat : str
        What was measured is not quite the training that is asked for: how, and how far off.
    """

    seconds: float | None
    device_title: str
    gpu_bytes: int | None
    gpu_total_bytes: int | None
    ram_bytes: int | None
    disk_bytes: int
    free_bytes: int
    source: Source
    parts: tuple[tuple[str, float], ...] = ()
    problem: Problem = ""
    note: str = ""
    caveat: str = ""

    @property
    def text(self) -> str:
        """One line: "about 3 h 10 min on NVIDIA A, 6.2 GB of 11 GB; free space 18 GB"."""
        least = "at least" if self.problem == "slow" else "about"
        said = "time not measured yet"
        if self.seconds is not None:
            said = f"{least} {duration_text(self.seconds)}{self.caveat and f' ({self.caveat})'}"
        memory = ""
        if self.gpu_bytes is not None and self.gpu_total_bytes:
            memory = f", {size_text(self.gpu_bytes)} of {size_text(self.gpu_total_bytes)}"
        free = f"{size_text(self.disk_bytes)} of {size_text(self.free_bytes)} free space"
        return f"{said} on {self.device_title}{memory}; {free}"


# ---------------------------------------------------------------------- the estimate


def estimate(
    project: ProjectReader, wanted: Wanted, *, available: Sequence[Device] | None = None
) -> Estimate:
    """Return what an improvement takes, from what was measured before; at once.

    Parameters
    ----------
    project : ProjectReader
    wanted : Improvement
    available : sequence of Device, optional
        By default what this machine has; asking takes up to some seconds.
    """
    load = _workload(project, wanted)
    device = device_of(wanted.run, devices() if available is None else available)
    known = cached(load, device) if load else None
    load = load.at_patch(known.patch_size) if load and known else load
    epoch_s, source = _epoch_seconds(project, wanted, load, known)
    parts = _parts(project, wanted, load, known, epoch_s)
    gpu = device.name != "cpu"
    slow = known is not None and known.problem == "slow"
    return Estimate(
        seconds=sum(seconds for _, seconds in parts) if parts else None,
        device_title=device.title,
        gpu_bytes=known.peak_gpu_bytes if known and gpu else None,
        gpu_total_bytes=device.total_bytes if gpu else None,
        ram_bytes=_ram(load, known) if load else None,
        disk_bytes=_disk(project, wanted, load, known),
        free_bytes=shutil.disk_usage(project.folder).free,
        source=source,
        parts=tuple(parts),
        problem=known.problem if known and (source != "earlier run" or not slow) else "",
        note="" if parts else MEASURE if load else "It is known once the images are planned.",
        caveat=_caveat(wanted.run, source),
    )


def _caveat(run: RunSpec, source: Source) -> str:
    soft = run.labels == "soft" and not run.by_the_clock
    return HARD_MEASURED if soft and source == "probe" else ""


def _workload(project: ProjectReader, wanted: Wanted) -> Workload | None:
    """Return what is to be computed; what is wrong with the model is the preflight's to say."""
    with suppress(BackSplitError, KeyError, ValueError):
        return workload(project, wanted)
    return None


def device_of(run: RunSpec, available: Sequence[Device]) -> Device:
    """Return the device that a run names; one without memory where it is not there."""
    name = "cuda:0" if run.device == "cuda" else run.device
    return next((d for d in available if d.name == name), Device(name, run.device, 0))


def epoch_seconds(load: Workload, known: Measurement) -> float | None:
    """Return the seconds of an epoch that a measurement makes for a run, checkpoint included.

    Workers draw batches while the network computes; without any the two follow each other. On a
    CPU all of it shares the cores.
    """
    spec = load.spec
    step = _side_by_side(spec, known.seconds_per_iteration, known.seconds_per_batch)
    judge = _side_by_side(spec, known.seconds_per_validation, known.seconds_per_validation_batch)
    if step is None:
        return None
    saved = (known.seconds_per_checkpoint or 0.0) * (0.5 + 1 / spec.checkpoint_every)
    return spec.iterations * step + spec.validation_iterations * (judge or step / 3) + saved


def _side_by_side(spec: RunSpec, network_s: float | None, data_s: float | None) -> float | None:
    if network_s is None:
        return None
    data_s = data_s or 0.0
    if not spec.workers:
        return network_s + data_s
    on_cpu = network_s * spec.threads if spec.device == "cpu" else 0.0
    return max(network_s, data_s / spec.workers, (on_cpu + data_s) / cores())


def _epoch_seconds(
    project: ProjectReader, wanted: Wanted, load: Workload | None, known: Measurement | None
) -> tuple[float | None, Source]:
    if load is None:
        return None, ""
    earlier = _earlier_epoch(project, wanted.run)
    if earlier is not None:
        return earlier, "earlier run"
    measured = epoch_seconds(load, known) if known else None
    return measured, "" if measured is None else "probe"


_PACE = ("plan_set", "batch_size", "patch_size", "device", "precision", "compile", "workers",
         "threads", "optimiser", "architecture", "width", "deep_supervision", "loss", "labels",
         "inverse_weighting")  # fmt: skip


def _earlier_epoch(project: ProjectReader, run: RunSpec) -> float | None:
    """Return the seconds of an epoch in the latest run of the same pace; None without one."""
    trainings = (job for job in reversed(list_jobs(project.folder)) if job.spec.task == "train")
    for job in list(trainings)[:EARLIER_RUNS]:
        with suppress(BackSplitError, ValueError, KeyError, OSError):
            other = RunSpec.model_validate(job.spec.params["run"])
            if all(getattr(other, name) == getattr(run, name) for name in _PACE):
                seconds = _epochs_of(job)
                if seconds:
                    return median(seconds) * _batches(run) / _batches(other)
    return None


def _batches(run: RunSpec) -> float:
    """Return the batches of an epoch, one that judges counted as a third."""
    return run.iterations + run.validation_iterations / 3


def _epochs_of(job: Job) -> list[float]:
    """Return the seconds of a job's epochs, without its first one, which starts the processes."""
    events, _ = job.events()
    return [
        event.value
        for event in events
        if isinstance(event, Metric) and event.name == "seconds: epoch" and event.step > 0
    ]


# ---------------------------------------------------------------------- the chain


def _parts(
    project: ProjectReader,
    wanted: Wanted,
    load: Workload | None,
    known: Measurement | None,
    epoch_s: float | None,
) -> list[tuple[str, float]]:
    """Return the steps of the chain with their seconds; [] where a training's are not known."""
    training = _training_seconds(wanted.run, epoch_s)
    if training is None or load is None:
        return []
    times = max(1, len(wanted.folds))
    parts = (
        [("plan", _plan_seconds(project, wanted, load))] if not _is_ready(project, wanted) else []
    )
    if again := _trained_again(project, wanted):
        parts.append(("baseline", times * (_epochs_seconds(again, wanted.run, epoch_s) + STARTS_S)))
    parts.append(("fine-tune", times * training))
    if wanted.control:
        parts.append(("control", times * training))
    predicted = _prediction_seconds(project, wanted, load, known)
    return [*parts, ("predictions", predicted), ("comparison", STARTS_S)]


def _trained_again(project: ProjectReader, wanted: Wanted) -> dict[str, Any]:
    """Return the card of the project's own baseline, which each fold trains again; {} for none."""
    if wanted.folds and str(wanted.run.baseline).startswith("jobs/"):
        with suppress(BackSplitError), named_model(project.folder, wanted) as model:
            return model.card
    return {}


def _epochs_seconds(card: Mapping[str, Any], run: RunSpec, epoch_s: float | None) -> float:
    trained = RunSpec.model_validate(card["run"])
    epochs = (card.get("trained") or card["run"])["epochs"]
    return float(epochs * (epoch_s or 0.0) * _batches(trained) / _batches(run))


def _training_seconds(run: RunSpec, epoch_s: float | None) -> float | None:
    if run.hours is not None:
        return run.hours * 3600 + STARTS_S
    if run.until is not None:
        return max(0.0, seconds_left(run.until))
    return None if epoch_s is None else run.epochs * epoch_s + STARTS_S


def _is_ready(project: ProjectReader, wanted: Wanted) -> bool:
    made = plan_set_of(project.folder, wanted.run.plan_set)
    return made is not None and made.ready


def _plan_seconds(project: ProjectReader, wanted: Wanted, load: Workload) -> float:
    workers = wanted.plan.workers if wanted.plan else 1
    voxels = sum(
        prod(project.geometry(case).shape) + _voxels(project, case, load)
        for case in project.training_cases()
    )
    return PLANNING_S + STARTS_S + voxels * (load.channels + 1) * RESAMPLE_S / max(1, workers)


def _voxels(project: ProjectReader, case: str, load: Workload) -> int:
    grid = project.geometry(case)
    return space.resampled_voxels(grid.shape, grid.spacing_mm, load.spacing_mm)


def _prediction_seconds(
    project: ProjectReader, wanted: Wanted, load: Workload, known: Measurement | None
) -> float:
    """Return the seconds in which all models predict the cases that are held out."""
    models = 2 + wanted.control
    cases = project.training_cases() if wanted.folds else project.test_cases()
    patch_s = (known.seconds_per_validation or 0.0) / load.batch if known else 0.0
    flips = float(2 ** len(load.patch))
    each = [
        _tiles(project, case, load) * flips * patch_s
        + (prod(project.geometry(case).shape) + _voxels(project, case, load)) * RESAMPLE_S
        for case in cases
    ]
    return models * (STARTS_S * max(1, len(wanted.folds)) + sum(each))


def _tiles(project: ProjectReader, case: str, load: Workload) -> int:
    """Return the tiles of a case at half a patch's step: about (2 n - 1) along each axis."""
    grid, patch = project.geometry(case), load.patch
    whole = len(grid.shape) - len(patch)
    wanted = [*grid.spacing_mm[:whole], *load.spacing_mm]
    sizes = [n * mm / mm2 for n, mm, mm2 in zip(grid.shape, grid.spacing_mm, wanted, strict=True)]
    along = [max(1, ceil(2 * n / p) - 1) for n, p in zip(sizes[whole:], patch, strict=True)]
    return int(prod(along) * (sizes[0] if whole else 1))


def _ram(load: Workload, known: Measurement | None) -> int | None:
    if known is None or known.peak_rss_bytes is None:
        return None
    own = space.worker_bytes(load.patch, load.batch, load.channels)
    waiting = space.CACHED * space.batch_bytes(load.patch, load.batch, load.channels)
    return known.peak_rss_bytes + load.spec.workers * own + (waiting if load.spec.workers else 0)


def _disk(
    project: ProjectReader, wanted: Wanted, load: Workload | None, known: Measurement | None
) -> int:
    """Return the bytes still to be written: images unless they are there, labels, checkpoints."""
    again = bool(_trained_again(project, wanted))
    runs = (1 + wanted.control + again) * max(1, len(wanted.folds))
    kept = runs * space.CHECKPOINTS * _checkpoint_bytes(project, wanted, known)
    voxels = [
        _voxels(project, case, load) if load else prod(project.geometry(case).shape)
        for case in project.training_cases()
    ]
    images = sum(space.image_bytes(n, len(project.schema.channels)) for n in voxels)
    labels = (1 + wanted.control) * sum(space.label_bytes(n) for n in voxels)
    return kept + labels + (0 if _is_ready(project, wanted) else images)


def _checkpoint_bytes(project: ProjectReader, wanted: Wanted, known: Measurement | None) -> int:
    """Return the size of a checkpoint: as measured, by its architecture, or as the baseline's."""
    if known is not None and known.checkpoint_bytes:
        return known.checkpoint_bytes
    if about := about_checkpoint_bytes(wanted.run):
        return about
    with suppress(BackSplitError, OSError), named_model(project.folder, wanted) as model:
        largest = max(file.stat().st_size for file in model.checkpoints.values())
        return int(largest * (1 if wanted.run.optimiser == "sgd" else 1.5))
    return 0


# ---------------------------------------------------------------------- the probe


def probe(
    project: ProjectReader,
    wanted: Wanted,
    *,
    available: Sequence[Device] | None = None,
    limit_s: float = LIMIT_S,
    again: bool = False,
    stop: threading.Event | None = None,
) -> Estimate | None:
    """Measure a training in a process of its own, unless it was measured before: about 30 s.

    Parameters
    ----------
    project : ProjectReader
    wanted : Improvement
    available : sequence of Device, optional
        By default what this machine has.
    limit_s : float
        Longest that it may take.
    again : bool
        Measure also what was measured before.
    stop : threading.Event, optional
        Set it to end the probe.

    Returns
    -------
    Estimate or None
        With what was measured; a training that does not fit is an estimate too. None where it
        was stopped.

    Raises
    ------
    BackSplitError
        The plans are not known yet, the model cannot be used, or the probe itself failed.
    """
    found = devices() if available is None else available
    load = workload(project, wanted)
    if load is None:
        raise JobError("The network is not known yet.", "Plan first; then it can be measured.")
    device = device_of(wanted.run, found)
    measured = measure(load, device, limit_s=limit_s, again=again, stop=stop)
    if measured is not None and measured.problem == "failed":
        raise JobError(f"The training could not be measured: {measured.text}")
    return None if measured is None else estimate(project, wanted, available=found)
