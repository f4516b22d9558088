"""The third step: fine-tune a binary model with the supports, by one button, in the background."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from napari.components import ViewerModel
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import (
    QDialog,
    QInputDialog,
    QLabel,
    QMenu,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_backsplit.backend.project import Project
from napari_backsplit.widgets._advice import AdviceDialog
from napari_backsplit.widgets._baseline import BaselineBox, drag, dropped
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._fields import Choices
from napari_backsplit.widgets._folding import Folded
from napari_backsplit.widgets._from_scratch import ScratchDialog
from napari_backsplit.widgets._improving import Improving, Ways
from napari_backsplit.widgets._layout import (
    bold,
    in_column,
    in_row,
    push_button,
    scrolling,
)
from napari_backsplit.widgets._preflight import CheckList
from napari_backsplit.widgets._run_settings import RunSettings
from napari_backsplit.widgets._running import Running
from napari_backsplit.widgets._threads import Lane
from napari_backsplit.widgets._where import WhereBox

BUTTON, PLAIN, EVERY = "Fine-tune with supports", "Fine-tune", "Cross-validate with supports"
PLACES = {
    "fewer folds": "Training",
    "fewer supports": "What",
    "other device": "Device",
    "smaller batch": "Training",
    "more epochs": "How long",
}
"""Where in the settings an action is done by hand."""
CHANGES: dict[str, dict[str, Any]] = {
    "declare unseen": {"declare_unseen": True},
    "include unreviewed": {"masks": "unreviewed"},
    "fewer workers": {"workers": 0},
    "no tracker": {"tracker": "none"},
}
"""What an action changes where it needs no further word."""
TEST_SHARE = 0.2
MEASURING = "Measuring on this machine: some 20 s…"
UNKNOWN = "How long is not known yet."


class TrainingPanel(QWidget):
    """Training, for the project that is on the desk.

    Parameters
    ----------
    viewer : ViewerModel
    desk : Desk
    ways : Ways, optional
        What is asked of the backend.

    Attributes
    ----------
    step_wanted : Signal
        Emits the number of another step that is to be shown.
    """

    step_wanted = Signal(int)

    def __init__(self, viewer: ViewerModel, desk: Desk, ways: Ways | None = None) -> None:
        super().__init__()
        self._desk = desk
        ways = ways or Ways()
        self.improving = Improving(desk, ways)
        self.running = Running(viewer, desk, ways)
        self.baseline = BaselineBox(self.improving)
        self._ways = ways
        self._lane = Lane(desk.hop, desk.failed.emit, "training dialogs")
        self._active = self._showing = False
        self._opened: Any = None
        self._devices: Choices = ("cpu",)
        self.setAcceptDrops(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        inside = in_column(
            self.baseline, self._build_button(), *self._build_settings(), self.running
        )
        inside.layout().addStretch(1)
        inside.setMinimumWidth(1)  # a part that asks for too much is cut off, not all of them
        column.addWidget(scrolling(inside), 1)
        self._connect()

    # ------------------------------------------------------------------ build

    def _build_button(self) -> QWidget:
        self.sentence = bold("")
        self.sentence.setWordWrap(True)
        self.sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.measured = QLabel()
        self.measured.setWordWrap(True)
        self.stop = push_button("Stop", "Begin without knowing how long it takes")
        self.measure = push_button("Measure", "Train for some seconds to see how long it takes")
        self.measuring = in_row(self.measured, self.measure, self.stop)
        self.measuring.layout().setStretch(0, 1)
        self.button = QPushButton(BUTTON)
        self.button.setMinimumHeight(32)
        font = self.button.font()
        font.setBold(True)
        self.button.setFont(font)
        self.button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.more = push_button("Other", "Train from scratch, or in cross-validation")
        menu = QMenu(self.more)
        menu.addAction("Train from scratch…", lambda: self.ask_scratch())
        menu.addAction("Cross-validate the fine-tune…", self.cross_validate)
        menu.addAction("Cross-validate from scratch…", lambda: self.ask_scratch(True))
        self.more.setMenu(menu)
        self.reason = QLabel()
        self.reason.setWordWrap(True)
        self.checks = CheckList()
        row = in_row(self.button, self.more)
        row.layout().setStretch(0, 1)
        return in_column(self.sentence, self.measuring, row, self.reason, self.checks)

    def _build_settings(self) -> tuple[Folded, Folded]:
        self.settings = RunSettings()
        self.settings_part = Folded("Settings", self.settings, "Nothing here needs to be changed")
        self.where = WhereBox(self._desk, self._ways.test_cluster)
        return self.settings_part, Folded("Where to run", self.where, "Here, or on other machines")

    def _connect(self) -> None:
        improving, desk = self.improving, self._desk
        self.baseline.scratch_wanted.connect(self.ask_scratch)
        self.button.clicked.connect(improving.begin)
        self.measure.clicked.connect(improving.measure)
        self.stop.clicked.connect(improving.stop_measuring)
        self.checks.action_wanted.connect(self.act)
        self.settings.changed.connect(self._set)
        self.settings.advice_wanted.connect(self.advise)
        improving.starts_changed.connect(self._show)
        improving.changed.connect(self._show)
        self.where.changed.connect(self._set)
        improving.devices_changed.connect(self._has_devices)
        improving.begun.connect(self._begun)
        self.running.over.connect(self._over)
        desk.project_changed.connect(self._project_changed)
        self._project_changed()

    # ------------------------------------------------------------------ shown or not

    def set_active(self, on: bool) -> None:
        """Look at the project while the step is shown."""
        self._active = on
        if on:
            self._look()

    def close_all(self) -> None:
        """End the threads; jobs go on."""
        self.improving.close()
        self.running.close_all()
        self.where.close_all()
        self._lane.close(drop=True)

    def _project_changed(self) -> None:
        project = self._desk.project
        if self._active or project is None:
            self._look()
        self.settings.set_supports(project.schema.support_names if project else ())

    def _look(self) -> None:
        """Look at the project on the desk: anew, or again where masks or verdicts changed."""
        project = self._desk.project
        if project is self._opened:
            self.improving.again()
            return
        self._opened = project
        self.settings.begin_anew()
        self.where.forget()
        self.improving.open()
        self.running.open(project.folder if project else None)

    # ------------------------------------------------------------------ what is shown

    def _show(self) -> None:
        improving = self.improving
        base, proposal = improving.base, improving.proposal
        if base is not None:
            self._showing = True
            self.settings.set_recommended(base.run)
            self.settings.set_folds(improving.folds)
            self._showing = False
        self.sentence.setText(improving.sentence)
        self.sentence.setVisible(proposal is not None)
        self._show_measuring()
        self.button.setText(_title(proposal))
        if improving.checks is not None or proposal is None:  # else those before, for a moment
            self.checks.show_checks(improving.checks or ())
        self.checks.setEnabled(improving.checks is not None)
        reason = self._reason()
        self.button.setEnabled(not reason)
        self.reason.setText(reason)
        self.reason.setVisible(bool(reason))

    def _show_measuring(self) -> None:
        improving = self.improving
        known = improving.estimate is not None and improving.estimate.seconds
        ready = improving.proposal is not None and improving.checks is not None
        self.measured.setText(
            "Measuring on this machine: some 20 s…"
            if improving.measuring
            else "How long is not known yet."
        )
        self.measure.setVisible(not improving.measuring)
        self.stop.setVisible(improving.measuring)
        self.measuring.setVisible(improving.measuring or (ready and not known))

    def _reason(self) -> str:
        """Return why the button cannot be pressed; "" where it can."""
        improving, project = self.improving, self._desk.project
        if project is None:
            return "Open a project first."
        if project.read_only:
            return "The project is open to read only: another window writes in it."
        if not improving.model:
            return "Choose a baseline first."
        if improving.error:
            return f"▲ {improving.error}"
        if problem := self.settings.problem:
            return f"▲ Settings: {problem}"
        if improving.beginning:
            return "Beginning…"
        if improving.proposal is not None and improving.proposal == improving.begun_as:
            return "Begun: it goes on below."
        if improving.proposal is None or improving.checks is None:
            return "Looking at the model and the project…"
        refused = sum(check.level == "refused" for check in improving.checks)
        return f"▲ {refused} thing{'s' * (refused != 1)} to settle first:" if refused else ""

    # ------------------------------------------------------------------ ask

    def ask_scratch(self, every_fold: bool = False) -> None:
        """Ask what to train from scratch, and begin it."""
        project = self._desk.project
        if project is None or project.read_only:
            self._desk.told.emit(self._reason())
            return
        work = partial(self._ways.plan_sets, project.folder)
        self._lane.do(work, partial(self._ask_scratch, project, every_fold))

    def _ask_scratch(self, project: Project, every_fold: bool, made: Mapping[str, int]) -> None:
        if project is not self._desk.project:
            return
        supports = project.schema.support_names
        dialog = ScratchDialog(supports, self._devices, list(made), every_fold, self)
        if dialog.exec() == QDialog.DialogCode.Accepted:
            folds = made.get(dialog.plan_set, 0)
            self.improving.begin_from_scratch(dialog.value(folds, self.where.address))
        dialog.deleteLater()

    def cross_validate(self) -> None:
        """Let the button cross-validate, every fold; the settings show which."""
        self.settings.every.setChecked(True)
        self.settings_part.set_open(True)
        self.settings.open_at("Training")

    def advise(self) -> None:
        """Show which supports the cohort speaks for."""
        if self._desk.project is not None:
            self._shown = AdviceDialog(self._desk, self._lane, self)
            self._shown.show()

    def act(self, action: str) -> None:
        """Do what a check offers."""
        proposal = self.improving.proposal
        if action in CHANGES:
            self.settings.set_value(self._value() | CHANGES[action])
        elif action in PLACES:
            self.settings_part.set_open(True)
            self.settings.open_at(PLACES[action])
        elif action == "review":
            self.step_wanted.emit(1)
        elif action == "reserve":
            self._ask_reserve()
        elif action == "accept unfit" and proposal is not None and proposal.plan is not None:
            unfit = proposal.plan.model_copy(update={"accept_unfit": True})
            self.improving.change(self.improving.changes | {"plan": unfit})

    def _ask_reserve(self) -> None:
        project = self._desk.project
        if project is None:
            return
        patients = len({case.patient for case in project.schema.cases.values()})
        usual = max(1, round(TEST_SHARE * patients))
        count, given = QInputDialog.getInt(
            self, "Reserve a test set", f"Patients to measure on, of {patients}", usual, 1,
            max(1, patients - 1),
        )  # fmt: skip
        if given:
            reserve = partial(project.reserve_test, count=count)
            self._desk.files.do(reserve, lambda _: self._desk.project_changed.emit())

    def _value(self) -> dict[str, Any]:
        return self.settings.value() if self.settings.valid else {}

    def _set(self) -> None:
        if self._showing:
            return
        if not self.settings.valid:
            self._show()
            return
        plan = {k: v for k, v in self.improving.changes.items() if k == "plan"}
        where = {"where": self.where.address} if self.where.address else {}
        self.improving.change(self.settings.value() | plan | where)

    def _has_devices(self, devices: Any) -> None:
        self._devices = [(device.name, device.title) for device in devices]
        self.settings.set_devices(self._devices)

    # ------------------------------------------------------------------ a model that is dropped

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take a folder or a zip that is dragged over the panel (called by Qt)."""
        drag(event)

    def dropEvent(self, event: QDropEvent) -> None:
        """Start from the model that was dropped (called by Qt)."""
        if path := dropped(event):
            event.acceptProposedAction()
            self.improving.choose(path)

    # ------------------------------------------------------------------ what goes on

    def _begun(self, chain: str) -> None:
        self._desk.told.emit("Begun. It goes on in the background, also when napari is closed.")
        self.running.show_chain(chain)

    def _over(self) -> None:
        """Let it be begun again, and its models be started from."""
        self.improving.let_begin_again()


def _title(proposal: Any) -> str:
    if proposal is not None and proposal.folds:
        return EVERY
    return PLAIN if proposal is not None and proposal.run.arm == "binary" else BUTTON
