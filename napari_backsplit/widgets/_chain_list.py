"""The list of the history: two lines a chain, with the mark of its state."""

from __future__ import annotations

from datetime import datetime
from functools import cache

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from napari_backsplit.backend.jobs import State
from napari_backsplit.widgets._chain_rows import ChainRow
from napari_backsplit.widgets._layout import short
from napari_backsplit.widgets._states import MARKS

COLOURS = {
    State.PENDING: "#999999",
    State.RUNNING: "#56b4e9",
    State.PAUSED: "#e69f00",
    State.SUCCEEDED: "#009e73",
    State.FAILED: "#d55e00",
    State.CANCELLED: "#999999",
    State.LOST: "#e69f00",
}
LETTERS = 52
"""Letters of a title that the narrow dock has room for; titles often differ in their ends."""

SEEN = 6
"""Rows that are seen at once where the list is given no more room."""

ROW = Qt.ItemDataRole.UserRole


class ChainList(QListWidget):  # type: ignore[misc]
    """Rows of two lines, cut off where the list is narrow."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("History")
        self.setUniformItemSizes(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def refill(self, names: list[str], chosen: str) -> list[QListWidgetItem]:
        """Make the rows anew, the chosen one chosen still; they are empty."""
        scrolled = self.verticalScrollBar().value()
        self.setMinimumHeight(min(max(len(names), 2), SEEN) * self.row_height + 4)
        self.blockSignals(True)
        self.clear()
        items = [QListWidgetItem(self) for _ in names]
        if chosen in names:
            self.setCurrentRow(names.index(chosen))
        self.blockSignals(False)
        self.verticalScrollBar().setValue(scrolled)
        return items

    @property
    def row_height(self) -> int:
        """Pixels of a row."""
        return int(2 * self.fontMetrics().lineSpacing() + 8)

    def sizeHint(self) -> QSize:
        """Return its least size (asked by Qt)."""
        return QSize(200, self.minimumHeight())


def fill(item: QListWidgetItem, row: ChainRow, now: datetime) -> None:
    """Show a row in its item; what is the same is left alone."""
    item.setData(ROW, row)
    told = row.told(now)
    text = f"{short(row.title, LETTERS)}\n{told}"
    if item.text() == text:
        return
    item.setText(text)
    item.setIcon(_icon(row.state))
    numbers = f"{row.name}" + f" and {len(row.chain.jobs) - 1} more" * (len(row.chain.jobs) > 1)
    item.setToolTip(f"{row.title}\n{told}\n{numbers}")
    height = item.listWidget().row_height
    item.setSizeHint(QSize(0, height))  # No wider than the list: the text is elided.


@cache
def _icon(state: State) -> QIcon:
    """Return the mark of a state in its colour, the same where its row is chosen."""
    pixmap = QPixmap(32, 32)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    font = painter.font()
    font.setPixelSize(26)
    font.setBold(True)
    painter.setFont(font)
    painter.setPen(QColor(COLOURS[state]))
    painter.drawText(pixmap.rect(), Qt.AlignmentFlag.AlignCenter, MARKS[state])
    painter.end()
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon
