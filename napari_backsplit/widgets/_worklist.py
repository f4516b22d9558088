"""The list of cases: how far each is, which one is open, and which is next."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._layout import bold, in_row, push_button, short
from napari_backsplit.widgets._tools import KEYS

MARKS = {
    "none": "–",
    "editing": "…",
    "reference": "●",
    "accepted": "✓",
    "needs_work": "▲",
    "rejected": "✗",
}


class Worklist(QWidget):
    """Cases with their marks, a filter, and the way to the next that is not done."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk
        self._build()
        self.filter.textChanged.connect(self._filter)
        self.next.clicked.connect(self.open_next)
        self.cases.currentItemChanged.connect(self._chosen)
        desk.project_changed.connect(self._show)
        desk.standings_changed.connect(self._show)
        desk.case_changed.connect(self._mark)
        self._show()

    def open_next(self) -> None:
        """Open the next case with something left to do."""
        case = self._desk.next_undone()
        if case is None:
            self._desk.told.emit("All cases are done.")
        else:
            self._desk.open_case(case)

    def _build(self) -> None:
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("Filter cases")
        self.filter.setClearButtonEnabled(True)
        tip = f"Open the next case with something left to do ({KEYS['next'][0]})"
        self.next = push_button("Next undone ›", tip)
        self.cases = _Cases()
        self.cases.setAccessibleName("Cases")
        self.cases.setMinimumHeight(92)
        self.cases.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.cases.setUniformItemSizes(True)
        marks = ("– empty", "… to accept", "● reference", "✓ accepted", "▲ needs work")
        legend = QLabel("  ".join(mark.replace(" ", "\u00a0") for mark in marks))
        legend.setEnabled(False)
        legend.setWordWrap(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 4)
        column.setSpacing(3)
        for part in (in_row(bold("Cases"), self.filter, self.next), self.cases, legend):
            column.addWidget(part)

    def _show(self) -> None:
        """Show every case with its marks; the list is made anew only where cases came or went."""
        standings = self._desk.standings
        items = [self.cases.item(row) for row in range(self.cases.count())]
        self.cases.blockSignals(True)
        if [item.data(Qt.ItemDataRole.UserRole) for item in items] != list(standings):
            self.cases.clear()
            for case in standings:
                item = QListWidgetItem()
                item.setData(Qt.ItemDataRole.UserRole, case)
                self.cases.addItem(item)
        for row, (case, states) in enumerate(standings.items()):
            marks = [(n, MARKS[word_of(self._desk, n, s)]) for n, s in states.items()]
            shown = "   ".join(f"{short(n, 14)} {mark}" for n, mark in marks)
            self.cases.item(row).setText(f"{case}   {shown}")
            self.cases.item(row).setToolTip("\n".join((case, *(f"{n} {m}" for n, m in marks))))
        self.cases.blockSignals(False)
        self._mark()
        self._filter(self.filter.text())

    def _mark(self) -> None:
        annotation = self._desk.annotation
        cases = list(self._desk.standings)
        if annotation is not None and annotation.case in cases:
            self.cases.blockSignals(True)
            self.cases.setCurrentRow(cases.index(annotation.case))
            self.cases.blockSignals(False)

    def _filter(self, text: str) -> None:
        for row in range(self.cases.count()):
            item = self.cases.item(row)
            item.setHidden(text.strip().casefold() not in item.text().casefold())

    def _chosen(self, item: QListWidgetItem | None, _: Any = None) -> None:
        case = item.data(Qt.ItemDataRole.UserRole) if item else None
        if case and (self._desk.annotation is None or case != self._desk.annotation.case):
            self._desk.open_case(case)


class _Cases(QListWidget):
    """A list that asks for a few lines only, and takes what room there is."""

    def sizeHint(self) -> QSize:
        """Return its least size (asked by Qt)."""
        return QSize(200, self.minimumHeight())


def word_of(desk: Desk, name: str, state: str) -> str:
    """Return how a standing is shown: a lesion's mask is a reference, reviewed or not."""
    targets = desk.project.schema.target_names if desk.project else ()
    return "reference" if state == "editing" and name in targets else state
