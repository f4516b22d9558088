"""A list of names to tick."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem

_SEEN = 6
_NAME = Qt.ItemDataRole.UserRole


class Checks(QListWidget):
    """Names to tick; as high as a few of them.

    Attributes
    ----------
    many : Signal
        Several were ticked at once.
    """

    many = Signal()

    def __init__(self, name: str) -> None:
        super().__init__()
        self._names: list[tuple[str, str]] = []
        self.setAccessibleName(name)
        self.setUniformItemSizes(True)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def show_names(self, names: Sequence[tuple[str, str]], ticked: Sequence[str]) -> None:
        """Show (name, words), some of them ticked; set from outside it tells nothing."""
        self.blockSignals(True)
        if list(names) != self._names:
            self._names = list(names)
            self.clear()
            for name, words in names:
                item = QListWidgetItem(words)
                item.setData(_NAME, name)
                item.setToolTip(words)
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                self.addItem(item)
            self.setFixedHeight(self._height())
        wanted = set(ticked)
        for item in self._items():
            on = item.data(_NAME) in wanted
            item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)
        self.blockSignals(False)

    def ticked(self) -> list[str]:
        """Return the names that are ticked, in their order."""
        every = self._items()
        return [i.data(_NAME) for i in every if i.checkState() == Qt.CheckState.Checked]

    def narrow(self, text: str) -> None:
        """List only the names that hold a text."""
        for item in self._items():
            item.setHidden(text.strip().casefold() not in item.text().casefold())

    def tick_seen(self, on: bool) -> None:
        """Tick all that is listed, or none of it."""
        self.blockSignals(True)
        for item in self._items():
            if not item.isHidden():
                item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)
        self.blockSignals(False)
        self.many.emit()

    def _items(self) -> list[QListWidgetItem]:
        return [self.item(row) for row in range(self.count())]

    def _height(self) -> int:
        row = int(self.sizeHintForRow(0)) if self.count() else 20
        seen = min(max(int(self.count()), 1), _SEEN)
        return row * seen + 2 * int(self.frameWidth()) + 2

    def sizeHint(self) -> QSize:
        """Return its size (asked by Qt)."""
        return QSize(200, self.height())
