"""The table of lesions: sorted, narrowed, thousands of rows; a row leads to its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSize, Qt, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHeaderView,
    QLabel,
    QLineEdit,
    QTableView,
    QWidget,
)

from napari_backsplit.backend.shown import TableRow
from napari_backsplit.widgets._layout import bold, fill_column, in_row, narrow, push_button
from napari_backsplit.widgets._lesion_rows import (
    COLUMNS,
    FILTERS,
    Pair,
    Wanted,
    following,
    is_disagreement,
    is_false,
    is_listed,
    is_missed,
)
from napari_backsplit.widgets._tools import LOOKING

JUMPS: dict[str, tuple[Wanted, str, str]] = {
    "disagreement": (is_disagreement, "disagreement", "Differs"),
    "missed": (is_missed, "missed lesion", "Missed"),
    "false": (is_false, "false positive", "False pos."),
}
"""What can be gone to: which rows, its words, and those on its button."""

_MARGIN = 10
"""Pixels of a cell that hold no text."""
_LEAST, _MOST, _SHARE = 150, 260, 0.4
"""Pixels the table is high at least, and at most; or a share of the panel where that is more."""
_NOBODY = Pair("", "")


class LesionModel(QAbstractTableModel):
    """Rows, sorted and narrowed here: a proxy would ask Python for each comparison."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = _NOBODY
        self._rows: list[TableRow] = []  # by case
        self.ordered: list[TableRow] = []
        self.shown: list[TableRow] = []
        self._by, self._down = 0, False
        self._filter, self._text = "All", ""

    # ------------------------------------------------------------------ asked by Qt

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return how many rows are shown (asked by Qt)."""
        return 0 if parent is not None and parent.isValid() else len(self.shown)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return how many columns there are (asked by Qt)."""
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows (asked by Qt)."""
        row, column = self.shown[index.row()], COLUMNS[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return column.text(row, self.pair)
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{(column.words or column.text)(row, self.pair)}\n{column.tip}"
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if column.right else Qt.AlignmentFlag.AlignLeft
            return int(side | Qt.AlignmentFlag.AlignVCenter)
        return None

    def headerData(
        self, section: int, way: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return the head of a column (asked by Qt)."""
        if way != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return COLUMNS[section].head
        return f"{COLUMNS[section].tip}. Click to sort." if _is_tip(role) else None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column (asked by Qt)."""
        self._by, self._down = max(0, column), order == Qt.SortOrder.DescendingOrder
        self._arrange()

    # ------------------------------------------------------------------ set

    def set_rows(self, rows: Sequence[TableRow], pair: Pair) -> None:
        """Show other rows, for two models."""
        self.pair = pair
        self._rows = sorted(rows, key=lambda row: COLUMNS[0].key(row, pair))
        self._arrange()

    def narrow(self, title: str, text: str) -> None:
        """Show only the rows of a filter whose case or organ holds a text."""
        self._filter, self._text = title, text.strip().casefold()
        self._arrange()

    def row_of(self, row: TableRow | None) -> int:
        """Return where a row is shown; -1 where it is not."""
        return next((n for n, shown in enumerate(self.shown) if shown is row), -1)

    def _arrange(self) -> None:
        self.beginResetModel()
        key = COLUMNS[self._by].key
        self.ordered = self._rows
        if self._by or self._down:
            self.ordered = sorted(
                self._rows, key=lambda row: key(row, self.pair), reverse=self._down
            )
        wanted = FILTERS[self._filter][0]
        self.shown = [row for row in self.ordered if wanted(row, self.pair) and self._says(row)]
        self.endResetModel()

    def _says(self, row: TableRow) -> bool:
        found = f"{row.case} {row.organ} {row.nearest} {row.target}".casefold()
        return self._text in found if self._text else True


class LesionTable(QWidget):
    """The table with its filters and jumps. It shows what it is given.

    Attributes
    ----------
    chosen : Signal
        Emits the TableRow to go to.
    told : Signal
        Emits words for the person.
    """

    chosen = Signal(object)
    told = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.model = LesionModel()
        self._here: TableRow | None = None
        self._motion: tuple[str, int] = ("row", 1)  # how the person went on last
        self._setting = False
        self._build()
        self.filter.currentIndexChanged.connect(lambda _: self._narrow())
        self.search.textChanged.connect(lambda _: self._narrow())
        self.table.selectionModel().currentRowChanged.connect(self._current)
        self.model.modelReset.connect(self._mark)
        self.show_rows((), _NOBODY)

    # ------------------------------------------------------------------ build

    def _build(self) -> None:
        self.title = bold("Lesions")
        self.filter = narrow(QComboBox())
        self.filter.setAccessibleName("Which lesions are listed")
        self.filter.setToolTip("Which lesions are listed")
        for title, (_, tip) in FILTERS.items():
            self.filter.addItem(title)
            self.filter.setItemData(self.filter.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.search = QLineEdit()
        self.search.setPlaceholderText("Case, organ")
        self.search.setClearButtonEnabled(True)
        self.search.setAccessibleName("Search cases and organs")
        self.none = QLabel("No lesion is of this kind.")
        self.table = _Table()
        self.table.setModel(self.model)
        for number, width in enumerate(self.table.widths):
            self.table.setColumnWidth(number, width)
        self.table.horizontalHeader().setSortIndicator(0, Qt.SortOrder.AscendingOrder)
        self.table.setSortingEnabled(True)
        top = in_row(self.title, self.filter, self.search)
        fill_column(self, top, self.none, self.table, self._build_jumps())

    def _build_jumps(self) -> QWidget:
        rows = []
        self.jumps: dict[tuple[str, int], Any] = {}
        for what, (_, words, title) in JUMPS.items():
            for step, mark in ((-1, "‹"), (1, "›")):
                key = LOOKING[what if step > 0 else f"{what} before"][0]
                way = "Next" if step > 0 else "Previous"
                text = mark if step < 0 else f"{title} {mark}"
                button = push_button(text, f"{way} {words}, also in other cases ({key})")
                button.setAccessibleName(f"{way} {words}")
                if step < 0:
                    button.setMaximumWidth(24)
                button.clicked.connect(lambda _=False, w=what, s=step: self.jump(w, s))
                self.jumps[what, step] = button
                rows.append(button)
        row = in_row(*rows)
        for number in (1, 3, 5):
            row.layout().setStretch(number, 1)
        return row

    # ------------------------------------------------------------------ shown

    def show_rows(self, rows: Sequence[TableRow], pair: Pair) -> None:
        """Show the rows of a result for two models."""
        if self._here not in rows:
            self._here = None
        self.model.set_rows(rows, pair)
        for what, (wanted, *_) in JUMPS.items():
            there = any(wanted(row, pair) for row in rows)
            for step in (-1, 1):
                self.jumps[what, step].setEnabled(there)

    @property
    def here(self) -> TableRow | None:
        """The row that is gone to."""
        return self._here

    def mark(self, row: TableRow | None) -> None:
        """Show which row is looked at; told to nobody."""
        self._here = row
        self._mark()

    def mark_case(self, case: str) -> None:
        """Show the first row of a case, unless one of its rows is looked at."""
        if self._here is None or self._here.case != case:
            of_case = (row for row in self.model.ordered if row.case == case)
            self.mark(next(of_case, None))

    def jump(self, what: str, step: int = 1) -> None:
        """Go to the next disagreement, missed lesion or false positive, or the one before."""
        self._motion = what, step
        wanted, words, _ = JUMPS[what]
        row, anew = following(self.model.ordered, self._here, wanted, self.model.pair, step)
        if row is None:
            only = self._here is not None and wanted(self._here, self.model.pair)
            self.told.emit(f"There is no {'other ' * only}{words}.")
            return
        if anew and self._here is not None:
            self.told.emit("From the other end of the table again.")
        self.go(row)

    def step_case(self, step: int) -> None:
        """Go to the first row of the next case of the table, or of the one before."""
        self._motion = "case", step
        row = self._of_case(step)
        if row is not None:
            self.go(row)

    def _of_case(self, step: int) -> TableRow | None:
        """Return the first row of the next case, or of the one before, of those that are listed."""
        first: dict[str, TableRow] = {}
        for row in self.model.shown:
            first.setdefault(row.case, row)
        cases, here = list(first), self._here.case if self._here else ""
        place = cases.index(here) + step if here in first else 0
        return first[cases[place % len(cases)]] if cases else None

    def next_case(self) -> str:
        """Return the case that going on in the same way leads to; "" for none."""
        (what, step), here, model = self._motion, self._here, self.model
        case = here.case if here else ""
        if what == "case":
            row = self._of_case(step)
        else:
            rows = model.ordered if what in JUMPS else model.shown
            wanted = JUMPS[what][0] if what in JUMPS else is_listed

            def elsewhere(row: TableRow, pair: Pair) -> bool:
                return row.case != case and wanted(row, pair)

            row, _ = following(rows, here, elsewhere, model.pair, step)
        return row.case if row is not None and row.case != case else ""

    def go(self, row: TableRow) -> None:
        """Go to a row; where the filter hides it, all are listed again."""
        if self.model.row_of(row) < 0:
            self.search.clear()
            self.filter.setCurrentIndex(0)
        self.mark(row)
        self.chosen.emit(row)

    def set_room(self, height: int) -> None:
        """Let the table be higher in a panel that is high."""
        self.table.most = max(_MOST, round(_SHARE * height))
        self.table.fit()

    # ------------------------------------------------------------------ inside

    def _narrow(self) -> None:
        self.model.narrow(self.filter.currentText(), self.search.text())

    def _mark(self) -> None:
        """Show the row that is looked at, wherever sorting put it."""
        self._setting = True
        number = self.model.row_of(self._here)
        if number >= 0:
            self.table.selectRow(number)
            self.table.scrollTo(self.model.index(number, 0))
        else:
            self.table.clearSelection()
            self.table.setCurrentIndex(QModelIndex())
        self._setting = False
        count, every = len(self.model.shown), len(self.model.ordered)
        self.title.setText(f"Lesions ({count})" if count else "Lesions")
        self.none.setVisible(not count and every > 0)
        self.table.rows = max(count, 3)
        self.table.fit()

    def _current(self, index: QModelIndex, before: QModelIndex) -> None:
        if not self._setting and index.isValid():
            self._motion = "row", -1 if index.row() < before.row() else 1
            self._here = self.model.shown[index.row()]
            self.chosen.emit(self._here)


class _Table(QTableView):
    """One line a row, whole rows chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Lesions")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setWordWrap(False)
        self.setShowGrid(False)
        self.setTabKeyNavigation(False)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + 6)
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.horizontalHeader().setHighlightSections(False)
        self.horizontalHeader().setMinimumSectionSize(24)
        self.horizontalHeader().setStretchLastSection(True)
        self.rows, self.most = 3, _MOST
        advance = self.fontMetrics().horizontalAdvance
        self.widths = [advance(max(c.sample, c.head, key=advance)) + _MARGIN for c in COLUMNS]

    def fit(self) -> None:
        """Be as high as the rows need, within limits."""
        needed = self.rows * self.verticalHeader().defaultSectionSize() + 44
        height = min(max(needed, _LEAST), self.most)
        if height != self.minimumHeight():
            self.setFixedHeight(height)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Show more of the cases' names where there is room (called by Qt)."""
        super().resizeEvent(event)
        spare = max(0, event.size().width() - sum(self.widths) - 30)
        self.setColumnWidth(0, self.widths[0] + min(spare // 2, 150))

    def sizeHint(self) -> QSize:
        """Return its size (asked by Qt)."""
        return QSize(300, self.minimumHeight())


def _is_tip(role: int) -> bool:
    return bool(role == Qt.ItemDataRole.ToolTipRole)
