"""What went wrong with a job, in plain words, with buttons that do something about it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QLabel, QPushButton, QVBoxLayout

from napari_backsplit.backend.jobs import State
from napari_backsplit.backend.jobs.digest import Digest
from napari_backsplit.backend.jobs.spec import Cause
from napari_backsplit.backend.training.remedies import Suggestion
from napari_backsplit.widgets._layout import bold, push_button
from napari_backsplit.widgets._numbers import duration, gigabytes
from napari_backsplit.widgets._watch import ChainView

SILENT_S = 10.0
"""Seconds without a sign of life from which on the person is told; a worker gives one every 2 s."""

STANDSTILL_S = 120.0
STANDSTILL_EPOCHS = 4.0

WORDS: dict[Cause, str] = {
    "gpu memory": "The GPU has too little memory for this patch and batch.",
    "memory": "This machine ran out of memory.",
    "workers died": "The processes that prepare the data died, mostly for want of memory.",
    "not a number": "The training went astray: its loss is not a number any more.",
    "killed": "The system killed the job, as it does when memory runs out.",
    "disk full": "The disk is full.",
    "refused": "What the job was given was not accepted.",
    "stopped": "The job was stopped from outside.",
    "": "The job failed.",
}


@dataclass(frozen=True)
class Diagnosis:
    """What to tell of a job that does not run as it should.

    Attributes
    ----------
    title, text : str
    suggestions : tuple of Suggestion
        What may be done; one without changes resumes the job as it is.
    """

    title: str
    text: str = ""
    suggestions: tuple[Suggestion, ...] = ()


def diagnose(view: ChainView, now: Callable[[], float] = time.time) -> Diagnosis | None:
    """Return what is wrong with the job that is looked at; None where nothing is."""
    status = view.job_status
    match status.state:
        case State.FAILED:
            return _failed(view)
        case State.LOST:
            age_s = status.heartbeat_age_s
            since = f"no sign of life for {duration(age_s)}" if age_s else "no sign of life"
            text = (
                f"Its worker is gone: {since}. Its machine may have been switched off, or sleeps. "
                "It goes on from the last checkpoint."
            )
            return Diagnosis("▲ The job is lost", text, (Suggestion("Resume"),))
        case State.RUNNING:
            return _stalled(view, now())
    return None


def _failed(view: ChainView) -> Diagnosis:
    status = view.job_status
    parts = [status.error, status.remedy]
    if status.cause == "disk full":
        parts.append(f"{gigabytes(view.free_bytes)} GB are free now.")
    suggestions = view.suggestions or (() if status.cause == "refused" else (Suggestion("Resume"),))
    return Diagnosis(f"✗ {WORDS[status.cause]}", " ".join(filter(None, parts)), suggestions)


def _stalled(view: ChainView, now: float) -> Diagnosis | None:
    age_s = view.job_status.heartbeat_age_s
    if age_s is not None and age_s > SILENT_S:
        return Diagnosis(
            f"▲ No sign of life for {duration(age_s)}",
            "Its machine may be busy, asleep, or out of reach. If this lasts, the job is lost.",
        )
    still_s = _standstill_s(view.digest, now)
    if still_s:
        return Diagnosis(
            f"▲ No progress for {duration(still_s)}",
            "The job is alive, and says nothing. The log may say why.",
        )
    return None


def _standstill_s(digest: Digest, now: float) -> float:
    """Return for how long nothing was reported where that is much longer than an epoch, else 0."""
    curve = digest.curves.get("seconds: epoch")
    if curve is None or not digest.last_time:
        return 0.0
    allowed_s = max(STANDSTILL_S, STANDSTILL_EPOCHS * float(curve.values[-1]))
    still_s = now - digest.last_time
    return still_s if still_s > allowed_s else 0.0


class DiagnosisBox(QFrame):
    """Says what is wrong; a button for each thing that can be done about it.

    Attributes
    ----------
    taken : Signal
        Emits the Suggestion that was chosen.
    """

    taken = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.title, self.text, self.again = bold(""), QLabel(), QLabel("Do it anew with:")
        for label in (self.title, self.text):
            label.setWordWrap(True)
        self._diagnosis: Diagnosis | None = None
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(6, 6, 6, 6)
        self._column.addWidget(self.title)
        self._column.addWidget(self.text)
        self._column.addWidget(self.again)
        self.buttons: list[QPushButton] = []
        self.hide()

    def show_diagnosis(self, diagnosis: Diagnosis | None) -> None:
        """Show what is wrong; None hides the box."""
        self.setVisible(diagnosis is not None)
        before, self._diagnosis = self._diagnosis, diagnosis
        if diagnosis is None:
            return
        self.title.setText(diagnosis.title)
        self.text.setText(diagnosis.text)
        self.text.setVisible(bool(diagnosis.text))
        if before is None or before.suggestions != diagnosis.suggestions:  # a press is not lost
            self._make_buttons(diagnosis.suggestions)

    def _make_buttons(self, suggestions: tuple[Suggestion, ...]) -> None:
        for button in self.buttons:
            self._column.removeWidget(button)
            button.deleteLater()
        self.buttons = []
        self.again.setVisible(any(suggestion.changes for suggestion in suggestions))
        for suggestion in suggestions:
            tip = "starts it anew with this change" if suggestion.changes else "goes on as it is"
            button = push_button(suggestion.words, tip)
            button.clicked.connect(partial(self._take, suggestion))
            self._column.addWidget(button)
            self.buttons.append(button)

    def _take(self, suggestion: Suggestion, checked: bool = False) -> None:
        self.taken.emit(suggestion)
