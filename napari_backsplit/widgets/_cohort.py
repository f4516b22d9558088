"""The cases of a review: verdict and volumes of each, to sort, to filter and to open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHeaderView,
    QLineEdit,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)

from napari_backsplit.backend.fusion.review import CaseState, MaskState, State
from napari_backsplit.widgets._layout import bold, fill_column, in_row, push_button, short
from napari_backsplit.widgets._tools import KEYS

MARKS: dict[State, str] = {
    "none": "–",
    "unreviewed": "…",
    "accepted": "✓",
    "needs_work": "▲",
    "rejected": "✗",
}
WORDS: dict[State, str] = {
    "none": "no verdict",
    "unreviewed": "unreviewed",
    "accepted": "accepted",
    "needs_work": "needs work",
    "rejected": "rejected",
}
SHOWN = ("All", "No verdict", "Needs work", "Edited since", "Accepted", "Rejected")
"""What the list can be narrowed to."""

CASE, VERDICT = 0, 1
NAME = Qt.ItemDataRole.UserRole
SORTED_BY = Qt.ItemDataRole.UserRole + 1
_ORDER = list(MARKS)


class Cohort(QWidget):
    """A table of cases. It shows what it is given and tells which row was chosen."""

    chosen = Signal(str)
    next_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._states: dict[str, CaseState] = {}
        self._heads: list[str] = []
        self._build()
        self.filter.textChanged.connect(self._filter)
        self.shown.currentIndexChanged.connect(self._filter)
        self.next.clicked.connect(self.next_wanted)
        self.table.currentItemChanged.connect(self._chosen)

    def _build(self) -> None:
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("Filter cases, comments")
        self.filter.setClearButtonEnabled(True)
        self.filter.setAccessibleName("Filter cases, comments")
        self.shown = QComboBox()
        self.shown.addItems(list(SHOWN))
        self.shown.setToolTip("Which cases are listed")
        self.shown.setAccessibleName("Which cases are listed")
        tip = f"Open the next case that waits for a verdict ({KEYS['next'][0]})"
        self.next = push_button("Next ›", tip)
        self.table = _Table()
        self.table.setAccessibleName("Cases")
        top = in_row(bold("Cases"), self.filter, self.shown, self.next)
        fill_column(self, top, self.table)

    # ------------------------------------------------------------------ what is shown

    def show_states(self, states: Mapping[str, CaseState], structures: Sequence[str]) -> None:
        """Show every case; rows that are there keep their place, and only what changed is drawn."""
        heads = ["Case", "Verdict", *structures]
        items = {item.data(CASE, NAME): item for item in self._items()}
        same_rows = items.keys() == states.keys() and self._heads == heads
        changed = [c for c, s in states.items() if not same_rows or self._differs(s)]
        self._states, self._heads = dict(states), heads
        if same_rows and not changed:
            return
        self.table.blockSignals(True)
        self.table.setSortingEnabled(False)
        if not same_rows:
            items = self._new_rows(states)
        for case in changed:
            _fill(items[case], states[case], structures)
        self.table.setSortingEnabled(True)
        self.table.blockSignals(False)
        self._filter()

    def _differs(self, state: CaseState) -> bool:
        known = self._states[state.case]
        return known is not state and known != state

    def _new_rows(self, cases: Iterable[str]) -> dict[str, QTreeWidgetItem]:
        self.table.clear()
        items: dict[str, QTreeWidgetItem] = {case: _Row() for case in cases}
        self.table.addTopLevelItems(list(items.values()))
        self.table.setColumnCount(len(self._heads))
        self.table.setHeaderLabels([short(head, 12) for head in self._heads])
        for section, head in enumerate(self._heads[2:], start=2):
            self.table.headerItem().setToolTip(section, f"Volume of {head}, ml, and its review")
        return items

    def mark(self, case: str) -> None:
        """Show which case is open."""
        self.table.blockSignals(True)
        item = next((item for item in self._items() if item.data(CASE, NAME) == case), None)
        self.table.setCurrentItem(item)
        self.table.blockSignals(False)

    def cases(self) -> list[str]:
        """Return the cases that are listed, in the order of the rows."""
        return [item.data(CASE, NAME) for item in self._items() if not item.isHidden()]

    def _items(self) -> list[QTreeWidgetItem]:
        return [self.table.topLevelItem(row) for row in range(self.table.topLevelItemCount())]

    def _filter(self, *_: Any) -> None:
        wanted, text = self.shown.currentText(), self.filter.text().strip().casefold()
        for item in self._items():
            there = text in item.toolTip(CASE).casefold()
            item.setHidden(not (there and _belongs(item, wanted)))

    def _chosen(self, item: QTreeWidgetItem | None, _: Any = None) -> None:
        if item is not None:
            self.chosen.emit(item.data(CASE, NAME))


class _Table(QTreeWidget):
    """A list that asks for a few lines only, and takes what room there is."""

    def __init__(self) -> None:
        super().__init__()
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setAllColumnsShowFocus(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setMinimumHeight(110)
        # Each change of a cell measures its column again: of 500 rows, that took half a second.
        self.header().setResizeContentsPrecision(0)
        self.verticalScrollBar().valueChanged.connect(self._measure)
        self.header().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.header().setStretchLastSection(False)
        self.sortByColumn(CASE, Qt.SortOrder.AscendingOrder)

    def _measure(self) -> None:
        """Make the columns as wide as the rows that are seen need them."""
        self.header().resizeSections(QHeaderView.ResizeMode.ResizeToContents)

    def sizeHint(self) -> QSize:
        """Return its least size (asked by Qt)."""
        return QSize(200, self.minimumHeight())


class _Row(QTreeWidgetItem):
    """A row that sorts by value, not by text."""

    def __lt__(self, other: QTreeWidgetItem) -> bool:
        column = self.treeWidget().sortColumn()
        mine, theirs = (item.data(column, SORTED_BY) for item in (self, other))
        return (
            bool(mine < theirs)
            if mine != theirs
            else self.data(CASE, NAME) < other.data(CASE, NAME)
        )


def _fill(item: QTreeWidgetItem, state: CaseState, structures: Sequence[str]) -> None:
    item.setText(CASE, short(state.case, 24))
    item.setData(CASE, NAME, state.case)
    item.setData(CASE, SORTED_BY, state.case)
    words = f"{MARKS[state.state]} {WORDS[state.state]}" + (", edited" if state.edited else "")
    item.setText(VERDICT, words)
    item.setData(VERDICT, SORTED_BY, (_ORDER.index(state.state), state.edited))
    item.setData(VERDICT, NAME, state)
    item.setToolTip(CASE, _told(state))
    item.setToolTip(VERDICT, _told(state))
    masks = {mask.structure: mask for mask in state.masks}  # in an order of their own
    for section, name in enumerate(structures, start=2):
        mask = masks.get(name, MaskState(name, "none", None, None, False))
        item.setText(section, _volume(mask))
        item.setData(section, SORTED_BY, -1.0 if mask.ml is None else mask.ml)
        item.setTextAlignment(section, int(Qt.AlignmentFlag.AlignRight))
        words = "no mask" if mask.state == "none" else WORDS[mask.state]
        item.setToolTip(section, f"{mask.structure}: {words}" + ", edited since" * mask.edited)


def _volume(mask: MaskState) -> str:
    if mask.state == "none":
        return MARKS["none"]
    ml = "?" if mask.ml is None else f"{mask.ml:.0f}" if mask.ml >= 10 else f"{mask.ml:.2g}"
    return f"{ml} {MARKS[mask.state]}"


def _told(state: CaseState) -> str:
    """Return what is known of a case, for a tool tip and for the filter."""
    lines = [state.case]
    for name, verdict in (("", state.verdict), *((m.structure, m.verdict) for m in state.masks)):
        if verdict is not None:
            comment = f": {verdict.comment}" if verdict.comment else ""
            who = f"{WORDS[verdict.verdict]} by {verdict.who}, {verdict.when[:10]}{comment}"
            lines.append(f"{name} {who}".strip())
    return "\n".join(lines)


def _belongs(item: QTreeWidgetItem, wanted: str) -> bool:
    state: CaseState = item.data(VERDICT, NAME)
    match wanted:
        case "All":
            return True
        case "Edited since":
            return state.edited or any(mask.edited for mask in state.masks)
    return WORDS[state.state] == wanted.lower()
