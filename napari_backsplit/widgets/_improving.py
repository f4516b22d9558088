"""What the button would do, worked out away from the window: the proposal, its cost, its checks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.project import Project
from napari_backsplit.widgets import _asking
from napari_backsplit.widgets._asking import Scratch, Start
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._threads import Lane

if TYPE_CHECKING:
    from napari_backsplit.backend.improvement import Improvement
    from napari_backsplit.backend.jobs.devices import Device
    from napari_backsplit.backend.training.checks import Check
    from napari_backsplit.backend.training.estimate import Estimate

LOOK_AFTER_MS = 300


@dataclass(frozen=True)
class Ways:
    """What is asked of the backend, in a thread; a test gives other answers."""

    starts: Callable[[Path], Sequence[Start]] = _asking.starts
    propose: Callable[[Project, str, Mapping[str, Any]], Improvement] = _asking.propose
    sentence: Callable[[Improvement, Estimate | None], str] = _asking.sentence
    estimate: Callable[[Project, Improvement], Estimate | None] = _asking.estimate
    probe: Callable[[Project, Improvement, threading.Event], Estimate | None] = _asking.probe
    preflight: Callable[[Project, Improvement, Estimate | None], Sequence[Check]] = (
        _asking.preflight
    )
    begin: Callable[[Project, Improvement], str] = _asking.begin
    recommend: Callable[[], Mapping[str, Any]] = _asking.recommend
    folds: Callable[[Project, Improvement], int] = _asking.folds
    plan_sets: Callable[[Path], Mapping[str, int]] = _asking.ready_plan_sets
    is_busy: Callable[[Path], bool] = _asking.is_busy
    devices: Callable[[], Sequence[Device]] = _asking.devices
    newest: Callable[[Path], str] = _asking.newest
    answer: Callable[[Path, str], Any] = _asking.answer
    scratch: Callable[[Project, Scratch], str] = _asking.begin_from_scratch
    test_cluster: Callable[[Any], str] = _asking.test_cluster
    repeat: Callable[[Any, Mapping[str, Any]], Any] = _asking.repeat


@dataclass(frozen=True)
class Looked:
    """What was found of a proposal, and whether it is to be measured now."""

    estimate: Estimate | None
    checks: tuple[Check, ...]
    folds: int
    measure: bool


class Improving(QObject):
    """What would be begun for the project on the desk, and what speaks against it.

    Every change asks anew, a moment after it; an answer that comes late is dropped.

    Attributes
    ----------
    model : str
        What to start from: job, folder or zip; "" for nothing chosen.
    starts : tuple of Start
        The project's own models; `looked` tells whether they were looked for.
    changes : dict
        What the person set.
    base, proposal : Improvement, optional
        As recommended, and with the changes; None until it is worked out.
    error : str
        Why there is no proposal.
    checks : tuple of Check, optional
        None until they are made.
    estimate : Estimate, optional
    folds : int
        Folds of the plan set.
    begun_as : Improvement, optional
        What was begun last and is not over.
    measuring, beginning : bool
    """

    starts_changed = Signal()
    changed = Signal()
    devices_changed = Signal(object)
    begun = Signal(str)

    def __init__(self, desk: Desk, ways: Ways | None = None) -> None:
        super().__init__(desk)
        self._desk, self._ways = desk, ways or Ways()
        self._lane = Lane(desk.hop, desk.failed.emit, "training")
        self._probes = Lane(desk.hop, desk.failed.emit, "probe")
        self._generation = 0
        self._stop = threading.Event()
        self.base: Improvement | None = None
        self.proposal: Improvement | None = None
        self.checks: tuple[Check, ...] | None = None
        self.estimate: Estimate | None = None
        self.error = ""
        self.folds = 0
        self.begun_as: Improvement | None = None
        self.measuring = self.beginning = False
        self._measured: Improvement | None = None
        self.starts: tuple[Start, ...] = ()
        self.looked = False
        self.model = ""
        self.changes: dict[str, Any] = {}
        self._late = QTimer(self)
        self._late.setSingleShot(True)
        self._late.setInterval(LOOK_AFTER_MS)
        self._late.timeout.connect(self._look)

    @property
    def project(self) -> Project | None:
        """The project on the desk."""
        return self._desk.project

    def open(self) -> None:
        """Look at the project on the desk; what was worked out for another is forgotten."""
        self.model, self.changes, self.starts, self.looked = "", {}, (), False
        self.beginning = False
        self._restart()
        project = self.project
        if project is None:
            self.starts_changed.emit()
            return
        self._lane.do(
            partial(self._ways.starts, project.folder), partial(self._has_starts, project)
        )
        self._lane.do(self._ways.devices, self.devices_changed.emit)

    def choose(self, model: str) -> None:
        """Start from another model: the number of a job, a folder or a zip."""
        if model != self.model:
            self.model = model
            self.changes.pop("plan", None)
            self._restart()
            self._look()

    def change(self, changes: Mapping[str, Any]) -> None:
        """Set what differs from the recommended; it is looked at a moment later."""
        if dict(changes) != self.changes:
            self.changes = dict(changes)
            self._generation += 1
            self.checks, self.measuring, self._measured = None, False, None
            self._stop.set()
            self._late.start()
            self.changed.emit()

    def again(self) -> None:
        """Ask again: the project changed, and what was found before may be wrong."""
        self._generation += 1
        self.base = self.checks = None
        self._late.start()
        self.changed.emit()

    def stop_measuring(self) -> None:
        """End the measurement; nothing is known of the time then."""
        self._stop.set()
        self.measuring = False
        self.changed.emit()

    def measure(self) -> None:
        """Measure how fast and large it is, in a process of its own."""
        project, proposal = self.project, self.proposal
        if project is None or proposal is None or self.measuring:
            return
        self._stop = stop = threading.Event()
        self.measuring, self._measured = True, proposal
        self.changed.emit()
        self._probes.do(
            lambda: None if stop.is_set() else self._ways.probe(project, proposal, stop),
            partial(self._has_measured, stop),
            partial(self._not_measured, stop),
        )

    def begin(self) -> None:
        """Begin what is proposed, once: a second press during the first does nothing."""
        proposal = self.proposal
        if proposal is not None:
            self._begin(lambda project: self._ways.begin(project, proposal), proposal)

    def begin_from_scratch(self, scratch: Scratch) -> None:
        """Begin trainings that start from nothing, once."""
        self._begin(lambda project: self._ways.scratch(project, scratch))

    def let_begin_again(self) -> None:
        """Forget what was begun: it is over."""
        self.begun_as = None
        self.changed.emit()
        if (project := self.project) is not None:
            work = partial(self._ways.starts, project.folder)
            self._lane.do(work, partial(self._has_starts, project))

    def _begin(self, work: Callable[[Project], str], asked: Improvement | None = None) -> None:
        project = self.project
        if project is None or self.beginning:
            return
        self.beginning = True
        self.changed.emit()
        self._desk.save()
        self._desk.files.do(
            lambda: work(project),
            partial(self._has_begun, project, asked),
            partial(self._not_begun, project),
        )

    def close(self) -> None:
        """Take no more work; what was begun goes on."""
        self._generation += 1
        self._late.stop()
        self._stop.set()
        for lane in (self._lane, self._probes):
            lane.close(drop=True)

    @property
    def sentence(self) -> str:
        """What would be done, and what it takes as far as that is known."""
        if self.proposal is None:
            return ""
        return self._ways.sentence(self.proposal, self.estimate)

    # ------------------------------------------------------------------ inside

    def _restart(self) -> None:
        self._generation += 1
        self._stop.set()
        self._late.stop()
        self.base = self.proposal = self.checks = self.estimate = self.begun_as = None
        self._measured = None
        self.error = ""
        self.measuring = False
        self.changed.emit()

    def _has_starts(self, project: Project, starts: Sequence[Start]) -> None:
        if project is not self.project:
            return
        self.starts, self.looked = tuple(starts), True
        self.starts_changed.emit()
        if not self.model and self.starts:
            self.choose(self.starts[0].model)

    def _look(self) -> None:
        project, model = self.project, self.model
        if project is None or not model:
            return
        self._generation += 1
        generation, base, changes = self._generation, self.base, dict(self.changes)

        def work() -> tuple[Improvement, Improvement] | None:
            if generation != self._generation:
                return None
            first = base or self._ways.propose(project, model, self._ways.recommend())
            kept: dict[str, Any] = {"device": first.run.device, "workers": first.run.workers}
            kept |= {} if "masks" in changes else {"supports": first.run.supports}
            asked = self._ways.propose(project, model, kept | changes) if changes else first
            return first, asked

        self._lane.do(
            work, partial(self._has_proposal, generation), partial(self._no_proposal, generation)
        )

    def _has_proposal(self, generation: int, found: tuple[Improvement, Improvement] | None) -> None:
        if generation != self._generation or found is None:
            return
        self.base, self.proposal = found
        self.error = ""
        if self.measuring and self.proposal != self._measured:
            self._stop.set()
            self.measuring = False
        self.changed.emit()
        project, proposal = self.project, self.proposal
        assert project is not None

        def work() -> Looked | None:
            if generation != self._generation:
                return None
            estimate = self._ways.estimate(project, proposal)
            checks = tuple(self._ways.preflight(project, proposal, estimate))
            unknown = estimate is not None and estimate.seconds is None and not estimate.problem
            idle = not project.read_only and not self._ways.is_busy(project.folder)
            measure = unknown and idle
            return Looked(estimate, checks, self._ways.folds(project, proposal), measure)

        self._lane.do(
            work, partial(self._has_checks, generation), partial(self._no_proposal, generation)
        )

    def _has_checks(self, generation: int, found: Looked | None) -> None:
        if generation != self._generation or found is None:
            return
        self.estimate, self.checks = found.estimate, found.checks
        self.folds = found.folds
        refused = any(check.level == "refused" for check in found.checks)
        if found.measure and not refused and self.proposal != self._measured:  # once of itself
            self.measure()
        self.changed.emit()

    def _no_proposal(self, generation: int, error: BaseException) -> None:
        if generation != self._generation:
            return
        self.proposal, self.checks = None, None
        self.error = str(error)
        self.changed.emit()
        if not isinstance(error, BackSplitError):
            self._desk.failed.emit(error)

    def _has_measured(self, stop: threading.Event, estimate: Estimate | None) -> None:
        if stop.is_set():
            return
        self.measuring = False
        if estimate is not None:
            self.estimate = estimate
            self._late.start()  # what is known of memory now may refuse it
        self.changed.emit()

    def _not_measured(self, stop: threading.Event, error: BaseException) -> None:
        if not stop.is_set():
            self.measuring = False
            self.changed.emit()
            self._desk.failed.emit(error)

    def _has_begun(self, project: Project, asked: Improvement | None, chain: str) -> None:
        if project is self.project:
            self.beginning, self.begun_as = False, asked
            self.changed.emit()
            self.begun.emit(chain)

    def _not_begun(self, project: Project, error: BaseException) -> None:
        if project is self.project:
            self.beginning = False
            self.changed.emit()
        self._desk.failed.emit(error)
