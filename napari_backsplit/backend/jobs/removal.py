"""Jobs that are deleted, for a while in a way that can be taken back."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.job import Job
from napari_backsplit.backend.jobs.order import locked
from napari_backsplit.backend.jobs.queue import take

DELETED = ".deleted-"
LEFT_S = 600.0
"""Nobody takes back what was deleted so long ago: its window is gone."""


@dataclass(frozen=True)
class Removal:
    """Job folders that were put aside: where each was, and where it is."""

    moved: tuple[tuple[Path, Path], ...]

    def undo(self) -> None:
        """Put the jobs back where they were."""
        for folder, aside in self.moved:
            if aside.exists():
                aside.rename(folder)

    def finish(self) -> None:
        """Remove them for good; their space is free afterwards."""
        for _, aside in self.moved:
            shutil.rmtree(aside, ignore_errors=True)


def put_aside(jobs: Sequence[Job]) -> Removal:
    """Take jobs out of their project and of its queue; `Removal.finish` frees their space.

    Raises
    ------
    JobError
        A worker holds one of them, or another job needs one; then all stay.
    """
    place = jobs[0].folder.parent
    moved: list[tuple[Path, Path]] = []
    with locked(place):  # A supervisor starts nothing meanwhile.
        for job in jobs:
            job.require_unused()
            job.require_unneeded({job.id for job in jobs})
        try:
            for job in jobs:
                moved.append((job.folder, _aside(job)))
        except (OSError, JobError):
            Removal(tuple(moved)).undo()
            raise
    take(place.parent, [job.id for job in jobs])
    for _, aside in moved:  # So that an undone removal is not taken for a queued job.
        JobFolder(aside).queued_file.unlink(missing_ok=True)
    return Removal(tuple(moved))


def _aside(job: Job) -> Path:
    aside = job.folder.with_name(f"{DELETED}{job.id}-{secrets.token_hex(4)}")
    with JobFolder(job.folder).hold(5.0):
        pass
    return job.folder.rename(aside)


def remove_left(project_folder: Path) -> None:
    """Remove for good what was deleted in a window that ended before it could do so."""
    for aside in (project_folder / "jobs").glob(f"{DELETED}*"):
        # A change of its name changes this time, on Windows it is when the folder was made.
        if abs(time.time() - aside.stat().st_ctime) > LEFT_S:
            shutil.rmtree(aside, ignore_errors=True)
