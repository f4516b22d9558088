"""Which supports to train with: the advisor's table, its reasons, and the proposal."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QHeaderView,
    QLabel,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_backsplit.backend.fusion.advice import Advice, SupportAdvice, percent
from napari_backsplit.backend.fusion.advice_inputs import read_baseline
from napari_backsplit.backend.fusion.advisor import advise
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.adopting import prediction_jobs
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._layout import bold, in_row
from napari_backsplit.widgets._threads import Lane

COLUMNS = ("Support", "Holds lesions", "Touches", "Distance", "False positives", "Gap", "Known in")
NONE = "none: from the lesions alone"


class AdviceDialog(QDialog):
    """The advisor, for the project on the desk; it looks again where another baseline is chosen."""

    def __init__(self, desk: Desk, lane: Lane, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        assert desk.project is not None
        self._desk, self._lane, self._project = desk, lane, desk.project
        self.setWindowTitle("Which supports to train with")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.baseline = QComboBox()
        self.baseline.addItem(NONE, "")
        for job, title in prediction_jobs(desk.project):
            self.baseline.addItem(f"{title or job} ({job})", job)
        self.proposed = bold("")
        self.table = QTreeWidget()
        self.table.setHeaderLabels(list(COLUMNS))
        self.table.setAccessibleName("Supports")
        self.table.header().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.notes = QLabel()
        for label in (self.proposed, self.notes):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        column = QVBoxLayout(self)
        column.addWidget(in_row(QLabel("Predictions of a baseline"), self.baseline))
        for part in (self.proposed, self.table, self.notes):
            column.addWidget(part)
        self.resize(720, 460)
        self.baseline.activated.connect(lambda _: self.look())
        self.look()

    def look(self) -> None:
        """Ask the advisor, away from the window's thread."""
        job = self.baseline.currentData()
        self.proposed.setText("Looking at the cases…")
        self._lane.do(
            lambda: _advice(self._project, job),
            lambda advice: self._show(job, advice),
            lambda error: self._cannot(job, error),
        )

    def _show(self, job: str, advice: Advice) -> None:
        if not _alive(self) or job != self.baseline.currentData():
            return
        self.proposed.setText(f"Proposed: {', '.join(advice.proposed)}.")
        self.table.clear()
        for found in advice.supports:
            row = QTreeWidgetItem(_row(found))
            self.table.addTopLevelItem(row)
            for reason in found.reasons:
                child = QTreeWidgetItem([reason[0].upper() + reason[1:]])
                child.setToolTip(0, reason)
                row.addChild(child)
                child.setFirstColumnSpanned(True)
            row.setExpanded(found.support in advice.proposed)
        self.notes.setText(" ".join(advice.notes))

    def _cannot(self, job: str, error: BaseException) -> None:
        if _alive(self) and job == self.baseline.currentData():
            self.proposed.setText(f"▲ {error}")
            self.table.clear()
            self.notes.clear()


def _advice(project: Project, job: str) -> Advice:
    folder = project.folder / "jobs" / job / "predictions"
    return advise(project, baseline=read_baseline(project, folder) if job else None)


def _row(found: SupportAdvice) -> list[str]:
    wrong = "" if found.false_volume is None else f"{percent(found.false_volume)} of their volume"
    gap = "" if found.gap is None else f"{found.gap:.3f}"
    if found.gap is None and found.gap_estimate is not None:
        gap = f"{found.gap_estimate:.3f} (estimate)"
    return [
        found.support,
        f"{found.held} of {found.lesions}",
        f"{found.touched} of {found.lesions}",
        "" if found.distance_mm is None else f"{found.distance_mm:.0f} mm",
        wrong,
        gap,
        f"{found.present + found.absent} of {found.cases} cases",
    ]


def _alive(dialog: QDialog) -> bool:
    """Whether a dialog that was closed, and so deleted, is still there."""
    try:
        return bool(dialog.isVisible())
    except RuntimeError:
        return False
