"""One chain of jobs as one thing: where it stands, how it goes, what is wrong, what can be done."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from napari.components import ViewerModel
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import (
    QLabel,
    QListWidgetItem,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from napari_backsplit.backend.jobs import Chain, Job, State
from napari_backsplit.backend.jobs.digest import epoch_seconds
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.training.remedies import Suggestion
from napari_backsplit.widgets._colours import Colours, follow_theme
from napari_backsplit.widgets._curves import Curves
from napari_backsplit.widgets._diagnosis import DiagnosisBox, diagnose
from napari_backsplit.widgets._gauges import EpochTime, GaugeBars
from napari_backsplit.widgets._layout import bold, in_column, in_row, push_button
from napari_backsplit.widgets._log import LogWindow
from napari_backsplit.widgets._numbers import duration
from napari_backsplit.widgets._painted import Words, set_bar
from napari_backsplit.widgets._rows import ID, Rows
from napari_backsplit.widgets._snapshots import PictureWindow, Thumb, said_of
from napari_backsplit.widgets._states import MARKS, WORDS
from napari_backsplit.widgets._threads import Hop, Lane
from napari_backsplit.widgets._watch import ChainView, JobWatch

ASKED = {"pause": "pausing…", "cancel": "cancelling…"}
NOTE_MARKS = {"info": "i", "warning": "▲", "error": "✗"}
_RESUMABLE = (State.FAILED, State.CANCELLED, State.LOST)


class JobMonitor(QWidget):
    """Shows a chain of jobs live, and acts on it.

    Parameters
    ----------
    viewer : ViewerModel
        Its theme colours the curves.

    Attributes
    ----------
    repeat_asked : Signal
        Emits (job, changes): the person wants the job again, with these parameters changed.
    changed : Signal
        Emits the ChainView that is shown from now on; None where there is none.
    told, failed : Signal
        Emit words, and an error, for the person.
    """

    repeat_asked = Signal(object, dict)
    changed = Signal(object)
    told = Signal(str)
    failed = Signal(object)

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.view: ChainView | None = None
        self._closed = False
        self._windows: dict[str, QWidget] = {}
        self.watch = JobWatch(self)
        self._lane = Lane(Hop(self), self.failed.emit, "actions")
        self._build()
        self._connect()
        self._forget_theme = follow_theme(viewer, self._set_colours)
        self.destroyed.connect(self._forget_theme)  # napari does not close what it deletes
        self._show(None)

    # ------------------------------------------------------------------ build

    def _build(self) -> None:
        self.title = bold("")
        self.title.setWordWrap(True)
        self.step, self.words = Words(), Words()
        self.state = QLabel()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(12)
        self.bar.setAccessibleName("Progress of the step")
        self.diagnosis = DiagnosisBox()
        self.links = Rows("Steps", "The steps of this chain; choose one to look at it")
        self.curves = Curves()
        self.time = EpochTime()
        self.gauges_title = bold("This job's machine")
        self.gauges = GaugeBars()
        self.thumb = Thumb()
        self.notes_title = bold("Notes")
        self.notes = Rows("Notes", "What the job said, the newest last")
        head = in_row(self.step, self.state)
        head.layout().setStretch(0, 1)
        head.layout().setAlignment(self.state, Qt.AlignmentFlag.AlignTop)
        self._body = in_column(
            self.title,
            head,
            self.bar,
            self.words,
            self._build_buttons(),
            self.diagnosis,
            self.links,
            self.curves,
            self.time,
            self.gauges_title,
            self.gauges,
            self.thumb,
            self.notes_title,
            self.notes,
        )
        self.empty = QLabel("No job is shown. Begin one above, or choose one in the history.")
        self.empty.setWordWrap(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.empty)
        column.addWidget(self._body)
        column.addStretch(1)

    def _build_buttons(self) -> QWidget:
        self.pause = push_button("Pause", "Hold after the present batch")
        self.cancel = push_button(
            "Cancel", "End it; what is done is kept, and it can be resumed later"
        )
        self.log = push_button("Log…", "What the step printed, in a window of its own")
        return in_row(self.pause, self.cancel, self.log)

    def _connect(self) -> None:
        self.watch.seen.connect(self._show)
        self.watch.failed.connect(self.failed)
        self.pause.clicked.connect(self._press)
        self.cancel.clicked.connect(lambda: self._act(Chain.cancel))
        self.log.clicked.connect(self.show_log)
        self.links.currentItemChanged.connect(self._choose)
        self.diagnosis.taken.connect(self._take)
        self.time.workers_wanted.connect(self._raise_workers)
        self.thumb.wanted.connect(self.show_pictures)

    # ------------------------------------------------------------------ asked from outside

    def show_chain(self, project_folder: Path, name: str) -> None:
        """Show a chain of a project from now on."""
        self._show(None)
        self.watch.watch(project_folder, name)

    def show_nothing(self) -> None:
        """Show no chain."""
        self.watch.stop()
        self._show(None)

    def close_all(self) -> None:
        """Look no more, and close the windows that were opened from here."""
        if self._closed:
            return
        self._closed = True
        self._forget_theme()
        self.watch.close()
        self._lane.close()
        for window in list(self._windows.values()):
            window.close()

    def closeEvent(self, event: Any) -> None:
        """Leave nothing running behind (called by Qt)."""
        self.close_all()
        super().closeEvent(event)

    def sizeHint(self) -> QSize:
        """Return the size it is made for (asked by Qt)."""
        return QSize(380, 640)

    # ------------------------------------------------------------------ what is shown

    def _set_colours(self, colours: Colours) -> None:
        self.curves.set_colours(colours)
        self.time.set_colours(colours)

    def _show(self, view: ChainView | None) -> None:
        self.view = view
        self.empty.setVisible(view is None)
        self._body.setVisible(view is not None)
        if view is not None:
            self._show_head(view)
            self._show_buttons(view)
            self._show_links(view)
            self._show_work(view)
            self._show_notes(view)
            self.diagnosis.show_diagnosis(diagnose(view))
        self.changed.emit(view)

    def _show_head(self, view: ChainView) -> None:
        state = view.job_status.state
        _set(self.title, view.chain.title[:1].upper() + view.chain.title[1:])
        total = len(view.chain.jobs)
        name = title_of(view.chain, view.job)
        self.step.setText(f"Step {view.number} of {total}: {name}" if total > 1 else name)
        words = ASKED.get(view.asked) or WORDS[state]
        _set(self.state, f"{MARKS[state]} {words}")
        self.state.setToolTip(view.job_status.message)
        done, words = progress_of(view)
        self.bar.setVisible(state in (State.RUNNING, State.PAUSED) or done > 0)
        if self.bar.maximum() != (most := 1000 if done >= 0 else 0):
            self.bar.setRange(0, most)
        set_bar(self.bar, round(1000 * max(0.0, done)))
        self.words.setText(words)
        self.words.setVisible(bool(words))

    def _show_buttons(self, view: ChainView) -> None:
        state = view.status.state
        held = state is State.PAUSED or view.asked == "pause"
        words, tip = (
            ("Resume", "Go on from where it ended")
            if state in _RESUMABLE
            else ("Continue", "Let the paused job go on")
            if held
            else ("Pause", "Hold after the present batch; it keeps its memory")
        )
        self.pause.setText(words)
        self.pause.setToolTip(tip)
        self.pause.setEnabled(state in (State.RUNNING, State.PAUSED, *_RESUMABLE))
        self.cancel.setEnabled(
            state in (State.PENDING, State.RUNNING, State.PAUSED, State.LOST)
            and view.asked != "cancel"
        )

    def _show_links(self, view: ChainView) -> None:
        rows = [
            (job.id, f"{MARKS[state]} {number}. {title_of(view.chain, job)}: {WORDS[state]}")
            for number, (job, state) in enumerate(
                zip(view.chain.jobs, view.states, strict=True), start=1
            )
        ]
        self.links.setVisible(len(rows) > 1)
        self.links.show_rows(rows, view.job.id)

    def _show_work(self, view: ChainView) -> None:
        digest, spec = view.digest, view.job.spec
        self.curves.show_curves(digest.curves)
        live = view.job_status.state in (State.RUNNING, State.PAUSED)
        self.time.show_seconds(epoch_seconds(digest), spec.device, workers_of(view), live)
        gauges = view.gauges if live else None
        self.gauges_title.setVisible(gauges is not None)
        self.gauges.show_gauges(gauges, spec.device)
        text = said_of(digest.pictures[-1]) if digest.pictures else ""
        self.thumb.show_picture(view.picture, text)

    def _show_notes(self, view: ChainView) -> None:
        rows = [(str(n.time), f"{NOTE_MARKS[n.level]} {n.text}") for n in view.digest.notes]
        _set(self.notes_title, f"Notes ({len(rows)})")
        for part in (self.notes_title, self.notes):
            part.setVisible(bool(rows))
        if self.notes.show_rows(rows):
            self.notes.scrollToBottom()

    # ------------------------------------------------------------------ what is done

    def _press(self) -> None:
        words = self.pause.text()
        actions: dict[str, Callable[[Chain], object]] = {
            "Pause": Chain.pause,
            "Continue": Chain.unpause,
            "Resume": Chain.go_on,
        }
        self._act(actions[words])

    def _act(self, action: Callable[[Chain], object]) -> None:
        """Ask something of the chain, away from the window's thread."""
        if self.view is None:
            return
        chain = self.view.chain
        self.pause.setEnabled(False)  # until the next look
        self._lane.do(lambda: action(chain), lambda _: self._acted())

    def _acted(self) -> None:
        self.watch.refresh()
        self.watch.look()

    def _take(self, suggestion: Suggestion) -> None:
        if self.view is None:
            return
        if suggestion.changes:
            self.repeat_asked.emit(self.view.job, suggestion.changes)
        else:
            self._act(Chain.go_on)

    def _raise_workers(self, workers: int) -> None:
        if self.view is not None:
            self.repeat_asked.emit(self.view.job, {"run": {"workers": workers}})

    def _choose(self, item: QListWidgetItem | None, before: Any = None) -> None:
        if item is None or self.view is None:
            return
        current = self.view.status.current
        chosen = item.data(ID)
        self.watch.choose("" if current is not None and chosen == current.id else chosen)
        self.watch.look()

    def show_log(self) -> None:
        """Show the log of the step that is looked at, in a window of its own."""
        if self.view is not None:
            job = self.view.job
            title = f"Log of {job.id}: {title_of(self.view.chain, job)}"
            self._open("log", LogWindow(JobFolder(job.folder).log_file, title, self))

    def show_pictures(self) -> None:
        """Show the pictures of the step that is looked at, in a window of its own."""
        if self.view is not None:
            job, pictures = self.view.job, self.view.digest.pictures
            title = title_of(self.view.chain, job)
            self._open("pictures", PictureWindow(job.folder, pictures, title, self))

    def _open(self, kind: str, window: QWidget) -> None:
        if kind in self._windows:
            self._windows[kind].close()
        self._windows[kind] = window
        window.destroyed.connect(partial(self._forget, kind, id(window)))
        window.show()

    def _forget(self, kind: str, which: int, gone: object = None) -> None:
        if kind in self._windows and id(self._windows[kind]) == which:
            del self._windows[kind]


def _set(label: QLabel, text: str) -> None:
    """Set a text; the same again costs no layout."""
    if label.text() != text:
        label.setText(text)


def title_of(chain: Chain, job: Job) -> str:
    """Return what a link is called in its chain: its title without the chain's own."""
    title = job.spec.title or job.spec.task
    own = title.removeprefix(f"{chain.title}:").strip()
    return own or title


def progress_of(view: ChainView) -> tuple[float, str]:
    """Return how much of a step is done, 0 to 1 (-1: unknown), and words with the time left."""
    status, progress = view.job_status, view.digest.progress
    if status.state is State.SUCCEEDED:
        took = (status.ended - status.started) if status.ended and status.started else None
        return 1.0, f"took {duration(took.total_seconds())}" if took else ""
    if status.state is State.PENDING:
        return 0.0, view.status.message
    if progress is None:
        return (-1.0 if status.state is State.RUNNING else 0.0), view.digest.phase
    done = progress.done / progress.total if progress.total else -1.0
    words = [progress.text or view.digest.phase]
    if progress.eta_s is not None and status.state is State.RUNNING:
        words.append(f"{duration(progress.eta_s)} left")
    return min(1.0, done), ", ".join(filter(None, words))


def workers_of(view: ChainView) -> int:
    """Return how many processes prepare the data of a training."""
    run = view.job.spec.params.get("run")
    return int(run.get("workers") or 0) if isinstance(run, dict) else 0
