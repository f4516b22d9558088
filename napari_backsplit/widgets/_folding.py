"""A part of a panel that is folded until it is asked for."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QSizePolicy, QToolButton, QVBoxLayout, QWidget

SHUT, OPEN = "▸", "▾"


class Folded(QWidget):
    """A title that opens and shuts what is under it."""

    def __init__(self, title: str, inside: QWidget, tip: str = "", indent: int = 10) -> None:
        super().__init__()
        self._title = title
        self.inside = inside
        self.head = QToolButton()
        self.head.setCheckable(True)
        self.head.setAutoRaise(True)
        self.head.setToolTip(tip)
        self.head.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.head.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(self.head)
        inside.setContentsMargins(indent, 0, 0, 0)
        column.addWidget(inside)
        self.head.toggled.connect(self.set_open)
        self.set_open(False)

    @property
    def is_open(self) -> bool:
        """Whether what is under the title is shown."""
        return bool(self.head.isChecked())

    def set_open(self, on: bool) -> None:
        """Open or shut it."""
        self.head.setChecked(on)
        self.inside.setVisible(on)
        self._show_title()

    def set_title(self, title: str) -> None:
        """Show another title."""
        self._title = title
        self._show_title()

    def _show_title(self) -> None:
        self.head.setText(f"{self._title} {OPEN if self.is_open else SHUT}")
        self.head.setAccessibleName(self._title)
