"""What goes on and what went before: the answer, the monitor of a chain, the history."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.components import ViewerModel
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_backsplit.backend.jobs import State
from napari_backsplit.backend.jobs.spec import FINAL
from napari_backsplit.widgets._answer import AnswerBox
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._history import History
from napari_backsplit.widgets._jobs import JobMonitor
from napari_backsplit.widgets._layout import fill_column
from napari_backsplit.widgets._repeating import ask_changes
from napari_backsplit.widgets._threads import Lane

if TYPE_CHECKING:
    from napari_backsplit.widgets._improving import Ways
    from napari_backsplit.widgets._watch import ChainView


class Running(QWidget):
    """The jobs of the project on the desk.

    Parameters
    ----------
    viewer : ViewerModel
    desk : Desk
    ways : Ways
        What is asked of the backend.

    Attributes
    ----------
    over : Signal
        The chain that is shown has ended.
    """

    over = Signal()

    def __init__(self, viewer: ViewerModel, desk: Desk, ways: Ways) -> None:
        super().__init__()
        self._desk, self._ways = desk, ways
        self._folder: Path | None = None
        self._chain = ""
        self._over: tuple[str, State] | None = None
        self._lane = Lane(desk.hop, desk.failed.emit, "jobs")
        self.answer = AnswerBox()
        self.monitor = JobMonitor(viewer)
        self.history = History()
        fill_column(self, self.answer, self.monitor, self.history)
        for part in (self.monitor, self.history):
            part.told.connect(desk.told)
            part.failed.connect(desk.failed)
        self.monitor.changed.connect(self._seen)
        self.monitor.repeat_asked.connect(self.repeat)
        self.history.chosen.connect(self.show_chain)
        self.history.repeat_asked.connect(self._ask_changes)

    def open(self, folder: Path | None) -> None:
        """Show the jobs of a project folder, the chain that goes on first; None for no project."""
        self._folder, self._chain = folder, ""
        self.answer.show_answer(None)
        self.monitor.show_nothing()
        self.history.show_project(folder)
        if folder is not None:
            self._lane.do(partial(self._ways.newest, folder), partial(self._has_newest, folder))

    def show_chain(self, chain: str) -> None:
        """Show a chain of the project."""
        if self._folder is None or not chain:
            return
        self._chain, self._over = chain, None
        self.answer.show_answer(None)
        self.monitor.show_chain(self._folder, chain)
        self.history.choose(chain)
        self.history.refresh()

    def repeat(self, job: Any, changes: dict[str, Any]) -> None:
        """Queue a job again with some parameters changed, and show it."""
        work = partial(self._ways.repeat, job, changes)
        self._lane.do(work, partial(self._has_repeated, self._folder))

    def close_all(self) -> None:
        """Look no more; the jobs go on."""
        self.monitor.close_all()
        self.history.close_all()
        self._lane.close(drop=True)

    def _ask_changes(self, job: Any) -> None:
        changes = ask_changes(job, self)
        if changes is not None:
            self.repeat(job, changes)

    def _has_newest(self, folder: Path, chain: str) -> None:
        if folder == self._folder and not self._chain:
            self.show_chain(chain)

    def _has_repeated(self, folder: Path | None, job: Any) -> None:
        if folder != self._folder:
            return
        self._desk.told.emit(f"Queued again, with changes: {job.spec.title or job.id}.")
        self.show_chain(job.spec.chain or job.id)

    def _seen(self, view: ChainView | None) -> None:
        """Ask for the answer once a chain is over."""
        if view is None or self._folder is None or view.chain.name != self._chain:
            return
        over = (self._chain, view.status.state)
        if over == self._over:
            return
        self._over = over
        if view.status.state in FINAL:
            self.over.emit()
        if view.status.state is State.SUCCEEDED:
            folder, chain = self._folder, self._chain
            self._lane.do(
                lambda: self._ways.answer(folder, chain),
                lambda answer: self._has_answer(folder, chain, answer),
            )

    def _has_answer(self, folder: Path, chain: str, answer: Any) -> None:
        if (folder, chain) == (self._folder, self._chain):
            self.answer.show_answer(answer)
            QTimer.singleShot(0, self.history.refresh)
