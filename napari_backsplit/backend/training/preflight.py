"""What is looked at before an improvement is begun, in seconds and without torch."""

from __future__ import annotations

from collections.abc import Sequence

from napari_backsplit.backend.jobs.devices import Device, devices
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.checks import Check as Check
from napari_backsplit.backend.training.checks import Level as Level
from napari_backsplit.backend.training.checks import Wanted
from napari_backsplit.backend.training.data_checks import data_checks
from napari_backsplit.backend.training.estimate import Estimate, estimate
from napari_backsplit.backend.training.machine_checks import machine_checks
from napari_backsplit.backend.training.model_checks import model_checks, run_checks


def preflight(
    project: Project,
    improvement: Wanted,
    known: Estimate | None = None,
    *,
    available: Sequence[Device] | None = None,
) -> list[Check]:
    """Look at model, data, run and machine before anything is queued; nothing is written.

    It takes seconds and reads masks: not for the thread of a window.

    Parameters
    ----------
    project : Project
    improvement : Improvement
    known : Estimate, optional
        What it takes, where that was estimated already.
    available : sequence of Device, optional
        What may be trained on; by default what this machine has. Where a job runs elsewhere, it
        is that machine's.

    Returns
    -------
    list of Check
        A line each; nothing may be begun while one is refused.
    """
    found = devices() if available is None else tuple(available)
    takes = known or estimate(project, improvement, available=found)
    return [
        *model_checks(project, improvement),
        *run_checks(project, improvement),
        *data_checks(project, improvement),
        *machine_checks(improvement, takes, found),
    ]


def refusals(checks: Sequence[Check]) -> list[Check]:
    """Return the lines that keep an improvement from being begun."""
    return [check for check in checks if check.level == "refused"]
