"""Follows a chain of jobs: read in a thread of its own, told to the window a few times a second."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtGui import QImage

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.jobs import Chain, ChainStatus, Job, JobStatus, State, chains
from napari_backsplit.backend.jobs.digest import Digest, EventReader
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.gauges import Gauges
from napari_backsplit.backend.training.remedies import Suggestion, remedies_of
from napari_backsplit.widgets._threads import Hop, Lane

LOOK_EVERY_MS = 250
SHARE = 0.02
"""Share of the window's time that showing may take. Where napari is drawn without a GPU, as on a
remote desktop, each change of anything takes 50 ms and more: there it is told less often."""

LONGEST_REST_MS = 3000
_ROUNDS = 3
"""Rounds of the event loop after which what was shown has been laid out and drawn."""

CHAIN_EVERY_S = 1.0
_MISSES = 3
"""Times in a row after which it is told that a chain cannot be read: one that is deleted vanishes
link by link."""

_REST = 20
"""A chain of a project with hundreds of jobs is looked up less often: after this many times what
it took."""


@dataclass(frozen=True, eq=False)
class ChainView:
    """A chain of jobs at a moment; never changed.

    Attributes
    ----------
    status : ChainStatus
        How the chain stands as a whole.
    states : tuple of State or None
        How each link stands; None where its files cannot be read.
    job : Job
        The link that is looked at: the one that was chosen, else the one that the chain is at.
    job_status, digest, gauges
        How that job stands, what it has said, what it takes of its machine.
    asked : str
        "pause" or "cancel" where that was asked and has not happened yet.
    suggestions : tuple of Suggestion
        What may help a training that failed.
    picture : QImage or None
        Its newest picture.
    free_bytes : int
        Space left on the disk of the project.
    """

    chain: Chain
    status: ChainStatus
    states: tuple[State | None, ...]
    job: Job
    job_status: JobStatus
    digest: Digest
    gauges: Gauges | None
    asked: str
    suggestions: tuple[Suggestion, ...]
    picture: QImage | None
    free_bytes: int

    @property
    def number(self) -> int:
        """The place of the link that is looked at, from 1."""
        return [job.id for job in self.chain.jobs].index(self.job.id) + 1


class JobWatch(QObject):
    """Looks at a chain of jobs, and tells what it saw at most four times a second.

    Attributes
    ----------
    seen : Signal
        Emits a ChainView in the window's thread; None where the chain is gone.
    failed : Signal
        Emits an error that reading met; told once until reading works again.
    """

    seen = Signal(object)
    failed = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._hop = Hop(self)
        self._lane = Lane(self._hop, self.failed.emit, "watch")
        self._generation = 0
        self._reader: _Reader | None = None
        self._looking = False
        self._misses = 0
        self._begun = 0.0
        self._rounds = 0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.look)
        self._round = QTimer(self)
        self._round.setSingleShot(True)
        self._round.setInterval(0)
        self._round.timeout.connect(self._rest)

    def watch(self, project_folder: Path, name: str) -> None:
        """Follow a chain from now on, and no other."""
        self.stop()
        self._reader = _Reader(Path(project_folder), name)
        self.look()

    def choose(self, job_id: str) -> None:
        """Look at one link of the chain; "": at the one that it is at, whichever that is."""
        if self._reader is not None:
            self._reader.chosen = job_id

    def refresh(self) -> None:
        """Look the chain up anew at the next look: something was asked of it."""
        if self._reader is not None:
            self._reader.due = 0.0

    def stop(self) -> None:
        """Follow nothing; answers that are on their way are dropped."""
        self._generation += 1
        self._reader, self._looking, self._misses = None, False, 0
        self._timer.stop()
        self._round.stop()

    def look(self) -> None:
        """Look now, unless a look is on its way."""
        if self._reader is None or self._looking:
            return
        self._looking = True
        self._lane.do(
            self._reader.read,
            partial(self._seen, self._generation),
            partial(self._missed, self._generation),
        )

    def close(self) -> None:
        """Look no more; the thread ends on its own."""
        self.stop()
        self._lane.close(drop=True)

    def _seen(self, generation: int, view: ChainView | None) -> None:
        if generation == self._generation:
            self._looking, self._misses = False, 0
            self._begun = time.perf_counter()
            self._rounds = _ROUNDS
            self._round.start()
            self.seen.emit(view)

    def _rest(self) -> None:
        """Wait until what was told is on the screen, and then for long enough."""
        self._rounds -= 1
        if self._rounds > 0:
            self._round.start()
            return
        took_ms = 1e3 * (time.perf_counter() - self._begun)
        self._timer.start(round(min(LONGEST_REST_MS, max(LOOK_EVERY_MS, took_ms / SHARE))))

    def _missed(self, generation: int, error: BaseException) -> None:
        """Look again, and say it once: a shared disk may be away for a moment."""
        if generation != self._generation:
            return
        self._looking = False
        self.refresh()
        self._timer.start(LOOK_EVERY_MS)
        self._misses += 1
        if self._misses == _MISSES:
            self.failed.emit(error)


class _Reader:
    """Reads a chain again and again, in the thread of the lane."""

    def __init__(self, folder: Path, name: str) -> None:
        self.chosen = ""
        self.due = 0.0
        self._folder, self._name = folder, name
        self._chain: Chain | None = None
        self._status: ChainStatus | None = None
        self._states: tuple[State | None, ...] = ()
        self._events: dict[str, EventReader] = {}
        self._helped: tuple[tuple[str, int, State], tuple[Suggestion, ...]] | None = None
        self._shown: tuple[Path, QImage] | None = None

    def read(self) -> ChainView | None:
        if time.monotonic() >= self.due:
            self._look_up()
        job = self._job()
        if job is not None and job.status().state is not self._known(job):
            self._look_up()  # it has just changed: all of it is of one moment
            job = self._job()
        if job is None or self._chain is None or self._status is None:
            return None
        status, digest = job.status(), self._digest(job)
        return ChainView(
            self._chain,
            self._status,
            self._states,
            job,
            status,
            digest,
            None if status.final else job.gauges(),
            _asked(JobFolder(job.folder), status),
            self._help(job, status),
            self._picture(job, digest),
            shutil.disk_usage(self._folder).free,
        )

    def _look_up(self) -> None:
        begun = time.monotonic()
        self.due = float("inf")  # a refresh that is asked for meanwhile counts
        try:
            self._read_chain()
        finally:
            took_s = time.monotonic() - begun
            self.due = min(self.due, begun + took_s + max(CHAIN_EVERY_S, _REST * took_s))

    def _read_chain(self) -> None:
        found = {chain.name: chain for chain in chains(self._folder)}.get(self._name)
        same = found is not None and self._chain is not None and _ids(found) == _ids(self._chain)
        if not same:  # those that are kept know more of their workers
            self._chain = found
        self._status = self._chain.status() if self._chain else None
        self._states = tuple(_state(job) for job in self._chain.jobs) if self._chain else ()

    def _job(self) -> Job | None:
        if self._chain is None or self._status is None:
            return None
        named = {job.id: job for job in self._chain.jobs}
        current = self._status.current.id if self._status.current is not None else ""
        return named.get(self.chosen) or named.get(current) or self._chain.jobs[-1]

    def _known(self, job: Job) -> State | None:
        ids = _ids(self._chain) if self._chain else []
        return self._states[ids.index(job.id)] if job.id in ids else None

    def _digest(self, job: Job) -> Digest:
        if job.id not in self._events:
            self._events[job.id] = EventReader(job.folder / "events.jsonl")
        return self._events[job.id].read()

    def _help(self, job: Job, status: JobStatus) -> tuple[Suggestion, ...]:
        if status.state is not State.FAILED:
            return ()
        key = (job.id, status.attempt, status.state)
        if self._helped is None or self._helped[0] != key:
            try:
                self._helped = key, tuple(remedies_of(job))
            except (BackSplitError, ValueError, KeyError):  # its parameters are not a run's
                self._helped = key, ()
        return self._helped[1]

    def _picture(self, job: Job, digest: Digest) -> QImage | None:
        if not digest.pictures:
            return None
        path = job.folder / digest.pictures[-1].file
        if self._shown is None or self._shown[0] != path:
            image = QImage(str(path))
            if image.isNull():
                return None
            self._shown = path, image
        return self._shown[1]


def _ids(chain: Chain) -> list[str]:
    return [job.id for job in chain.jobs]


def _state(job: Job) -> State | None:
    try:
        return job.status().state
    except BackSplitError:
        return None


def _asked(files: JobFolder, status: JobStatus) -> str:
    if status.final or status.state is State.LOST:
        return ""
    if files.cancel_file.exists():
        return "cancel"
    return "pause" if files.pause_file.exists() and status.state is not State.PAUSED else ""
