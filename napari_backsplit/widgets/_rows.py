"""A list of a few lines that wrap, as high as they need."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QRect, Qt
from qtpy.QtWidgets import QListWidget, QListWidgetItem

ID = Qt.ItemDataRole.UserRole
_LINES = 7


class Rows(QListWidget):
    """A few lines that wrap. Set from outside it tells nothing."""

    def __init__(self, name: str, tip: str) -> None:
        super().__init__()
        self._rows: list[tuple[str, str]] = []
        self.setAccessibleName(name)
        self.setToolTip(tip)
        self.setWordWrap(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def show_rows(self, rows: list[tuple[str, str]], current: str = "") -> bool:
        """Show rows of (id, text); returns whether they are others than before."""
        new = rows != self._rows
        self.blockSignals(True)
        if new:
            self._fill(rows)
        for row, (name, _) in enumerate(rows):
            if name == current and self.currentRow() != row:
                self.setCurrentRow(row)
        self.blockSignals(False)
        return new

    def _fill(self, rows: list[tuple[str, str]]) -> None:
        self._rows = list(rows)
        self.clear()
        for name, text in rows:
            item = QListWidgetItem(text)
            item.setData(ID, name)
            item.setToolTip(text)
            self.addItem(item)
        self._fit()

    def _fit(self) -> None:
        """Be as high as the rows need, up to some lines; the sizes Qt tells know no wrapping."""
        width = max(80, self.viewport().width() - 12)
        box, how = QRect(0, 0, width, 1 << 16), int(Qt.TextFlag.TextWordWrap)
        metrics = self.fontMetrics()
        high = sum(metrics.boundingRect(box, how, text).height() + 2 for _, text in self._rows)
        most = _LINES * (metrics.height() + 2)
        height = min(high, most) + 2 * self.frameWidth() + 4
        if height != self.height() or self.minimumHeight() != height:
            self.setFixedHeight(height)

    def resizeEvent(self, event: Any) -> None:
        """Fit the rows into another width (called by Qt)."""
        super().resizeEvent(event)
        self._fit()
