"""What a task sees of its job."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from napari_backsplit.backend.jobs.events import Event, EventLog
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.spec import JobSpec, State

LOOK_S = 0.2


class Cancelled(BaseException):
    """The job shall end. Not an Exception, so that no `except Exception` swallows it."""


class Stop:
    """Whether the process was told to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def request(self, signal: int) -> None:
        """Remember the first signal."""
        if self.signal is None:
            self.signal = signal


class JobContext:
    """The job, as its task sees it.

    Parameters
    ----------
    folder : JobFolder
        The job's folder.
    stop : Stop, optional
        Set from outside when the process shall end.

    Attributes
    ----------
    folder : Path
        The job's folder; the task writes here and nowhere else.
    project_folder : Path
        What relative paths in `params` start from.
    params : dict
        What was asked for.
    attempt : int
        1, and one more for each time the job was resumed.
    """

    def __init__(self, folder: JobFolder, stop: Stop | None = None) -> None:
        self._files = folder
        self._stop = stop or Stop()
        self._events = EventLog(folder.events_file)
        self._looked = float("-inf")
        self._cancel = self._pause = False
        self.spec: JobSpec = folder.read_spec()
        self.attempt: int = folder.read_record().attempt
        self.folder: Path = folder.path
        self.project_folder: Path = folder.project_folder

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the job."""
        return self.spec.params

    @property
    def resumed(self) -> bool:
        """Whether an earlier attempt may have left something to continue from."""
        return self.attempt > 1

    def path(self, relative: str) -> Path:
        """Return a path of `params` as a whole one."""
        return self.project_folder / relative

    def report(self, event: Event) -> None:
        """Append an event to the job's events."""
        self._events.append(event)

    def cancel_requested(self) -> bool:
        """Whether the job shall end; looks at the disk at most every 0.2 s."""
        self._look()
        return self._cancel or self._stop.signal is not None

    def checkpoint(self) -> None:
        """Call between iterations: holds while the job is paused.

        Raises
        ------
        Cancelled
            The job shall end. Save what a resumed job needs, and let it pass.
        """
        if not self.cancel_requested() and self._pause:
            self._hold()
        if self.cancel_requested():
            raise Cancelled

    def close(self) -> None:
        """Close the events; the runner's business."""
        self._events.close()

    def _look(self) -> None:
        if time.monotonic() - self._looked >= LOOK_S:
            self._cancel = self._files.cancel_file.exists()
            self._pause = self._files.pause_file.exists()
            self._looked = time.monotonic()

    def _hold(self) -> None:
        self._move(State.PAUSED)
        while self._pause and not self.cancel_requested():
            time.sleep(LOOK_S)
        if not self.cancel_requested():
            self._move(State.RUNNING)

    def _move(self, state: State) -> None:
        self._files.write_record(self._files.read_record().moved(state))
