"""The order of the queue: jobs/queue.json names the jobs that are left to the supervisor."""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.files import write_json, writing
from napari_backsplit.backend.jobs.folder import JobFolder

LOCK_S = 60.0
_NAME = re.compile(r"\d+-[a-z][a-z0-9_]{,99}")  # never a way out of the folder
_LOG = logging.getLogger(__name__)


@contextmanager
def locked(jobs: Path) -> Iterator[None]:
    """Hold the lock of a project's jobs folder: for new numbers and for the order.

    Raises
    ------
    JobError
        Another process holds it for too long.
    """
    jobs.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(jobs / ".lock", timeout=LOCK_S):
            yield
    except Timeout:
        raise JobError(
            f"Another program holds the queue of {jobs.parent.name} for {LOCK_S:.0f} s.",
            "Try again; if it stays so, end that program.",
        ) from None


def read_order(jobs: Path) -> list[str]:
    """Return the ids in the order, those without a folder left out; none where there is no file.

    A torn file is set aside and made anew from the jobs' own marks.
    """
    order = _read(jobs / "queue.json")
    if order is None:
        with locked(jobs):
            order = _read_or_mend(jobs)
    return [job for job in order if (jobs / job / "job.json").exists()]


@contextmanager
def changing(jobs: Path) -> Iterator[list[str]]:
    """Give the order to change in place; what it is after the block is kept.

    Raises
    ------
    ProjectError
        It cannot be written; the old one stays.
    JobError
        Another process holds the lock for too long.
    """
    with locked(jobs):
        before = _read_or_mend(jobs)
        order = list(before)
        yield order
        order[:] = dict.fromkeys(order)
        if order != before:
            _write(jobs, before, order)


def _write(jobs: Path, before: list[str], order: list[str]) -> None:
    # Marked before it is listed and unmarked after: a torn list is mended from the marks.
    with writing("The order of the queue"):
        for job in set(order) - set(before):
            _mark(jobs, job).touch()
        write_json(jobs / "queue.json", {"order": order})
    for job in set(before) - set(order):
        with suppress(OSError):
            _mark(jobs, job).unlink(missing_ok=True)


def _mark(jobs: Path, job: str) -> Path:
    return JobFolder(jobs / job).queued_file


def _read(file: Path) -> list[str] | None:
    """Return what is listed, or None where the file is torn."""
    try:
        order = json.loads(file.read_text(encoding="utf-8"))["order"]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        return None
    whole = isinstance(order, list) and all(isinstance(job, str) for job in order)
    return [job for job in order if _NAME.fullmatch(job)] if whole else None


def _read_or_mend(jobs: Path) -> list[str]:
    order = _read(jobs / "queue.json")
    return _mend(jobs) if order is None else order


def _mend(jobs: Path) -> list[str]:
    """Set a torn file aside; the order is that of the jobs' numbers again."""
    aside = jobs / f"queue.torn-{secrets.token_hex(4)}.json"
    order = sorted(mark.parent.parent.name for mark in jobs.glob("[0-9]*/control/queued"))
    with writing("The order of the queue"):
        (jobs / "queue.json").replace(aside)
        write_json(jobs / "queue.json", {"order": order})
    _LOG.warning(
        "The order of the queue was torn: it is kept as %s. %d jobs are queued anew, oldest first.",
        aside.name,
        len(order),
    )
    return order
