"""Checks before a training: device, memory, cores and disk."""

from __future__ import annotations

from collections.abc import Sequence

import psutil

from napari_backsplit.backend.jobs.devices import Device, cores
from napari_backsplit.backend.training.checks import Check, Wanted, passed, refused, warned
from napari_backsplit.backend.training.estimate import Estimate
from napari_backsplit.backend.training.space import size_text

TIGHT = 0.9
"""Share of a memory from which a training is said to be tight in it."""

MEASURE = "Measure it, which takes about 20 s."


def machine_checks(wanted: Wanted, estimate: Estimate, available: Sequence[Device]) -> list[Check]:
    """Look at the machine: whether the training finds its device, memory, cores and space.

    Of another machine only the disk is known, which it shares.
    """
    if wanted.where:
        text = f"It runs by the scheduler {wanted.where}: that machine was not looked at."
        return [warned("device", text, "Its workers need this device, and the memory."),
                _disk(estimate)]  # fmt: skip
    device = _device(wanted, available)
    gpu = [_gpu(wanted, estimate)] if wanted.run.device != "cpu" else []
    checks = [device] if device.level == "refused" else [device, *gpu]
    return [*checks, _ram(wanted, estimate), _cores(wanted), _disk(estimate)]


def _device(wanted: Wanted, available: Sequence[Device]) -> Check:
    name = "cuda:0" if wanted.run.device == "cuda" else wanted.run.device
    found = next((device for device in available if device.name == name), None)
    others = ", ".join(device.name for device in available)
    if found is None:
        return refused(
            "device",
            f"This machine has no {wanted.run.device}.",
            f"Choose one of {others} (--device).",
            "other device",
        )
    gpu = next((device for device in available if device.name != "cpu"), None)
    if name == "cpu" and gpu is not None:
        text = f"{found.title}, although there is {gpu.title}: many times slower."
        return warned("device", text, f"Train on {gpu.name} (--device).", "other device")
    return passed("device", f"{found.title}.")


def _gpu(wanted: Wanted, estimate: Estimate) -> Check:
    total = estimate.gpu_total_bytes or 0
    if estimate.problem == "gpu memory":
        text = f"A batch does not fit into the {size_text(total)} of {estimate.device_title}."
        remedy = "Take a smaller batch or patch (--batch-size, --patch-size)."
        return refused("GPU memory", text, remedy, "smaller batch")
    if estimate.gpu_bytes is None:
        return warned("GPU memory", "Not measured yet for this patch and batch.", MEASURE)
    said = f"{size_text(estimate.gpu_bytes)} of {size_text(total)}"
    if total and estimate.gpu_bytes > TIGHT * total:
        remedy = "Close other programs, or take a smaller batch (--batch-size)."
        return warned("GPU memory", f"{said}: tight.", remedy, "smaller batch")
    return passed("GPU memory", f"{said}.")


def _ram(wanted: Wanted, estimate: Estimate) -> Check:
    free = psutil.virtual_memory().available
    if estimate.problem == "memory":
        text = f"The training does not fit into the memory ({size_text(free)} are free)."
        return refused("memory", text, "Take a smaller patch or batch.", "smaller batch")
    if estimate.ram_bytes is None:
        return warned("memory", "Not measured yet.", MEASURE)
    workers = wanted.run.workers
    said = f"{size_text(estimate.ram_bytes)} with {workers} workers, {size_text(free)} are free"
    if estimate.ram_bytes > free:
        remedy = "Take fewer workers (--workers), or close other programs."
        return warned("memory", f"{said}.", remedy, "fewer workers" if workers else "smaller batch")
    return passed("memory", f"{said}.")


def _cores(wanted: Wanted) -> Check:
    have, workers, threads = cores(), wanted.run.workers, wanted.run.threads
    busy = workers + (threads if wanted.run.device == "cpu" else 1)
    said = f"{workers} workers and {threads} threads on {have} cores"
    if busy > have + 1:
        remedy = f"Take at most {max(0, have - 1)} workers (--workers)."
        return warned("cores", f"{said}: they wait for one another.", remedy, "fewer workers")
    return passed("cores", f"{said}.")


def _disk(estimate: Estimate) -> Check:
    need, free = estimate.disk_bytes, estimate.free_bytes
    said = f"About {size_text(need)} for images and checkpoints, {size_text(free)} are free"
    if need > free:
        return refused("space", f"{said}.", "Free some space, or delete old jobs.")
    if need > TIGHT * free:
        return warned("space", f"{said}: tight.", "Free some space, or delete old jobs.")
    return passed("space", f"{said}.")
