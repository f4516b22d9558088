"""The line at the bottom of the dock: what is said, with the remedy as a button."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QToolButton, QWidget

SAID_FOR_MS = 12_000


class MessageBar(QFrame):
    """Says one thing at a time; hidden while there is nothing to say."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.said = QLabel()
        self.said.setWordWrap(True)
        self.said.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.remedy = QPushButton()
        close = QToolButton()
        close.setText("×")
        close.setToolTip("Hide this message")
        close.setAccessibleName("Hide this message")
        close.clicked.connect(self.hide)
        row = QHBoxLayout(self)
        row.addWidget(self.said, 1)
        row.addWidget(self.remedy)
        row.addWidget(close, 0, Qt.AlignmentFlag.AlignTop)
        self.hide()
        self._forget = QTimer(self)
        self._forget.setSingleShot(True)
        self._forget.setInterval(SAID_FOR_MS)
        self._forget.timeout.connect(self.hide)
        self._remedy: Callable[[], object] = lambda: None
        self.remedy.clicked.connect(lambda: self._remedy())

    def say(self, words: str) -> None:
        """Say something for a while; no words hide what was said."""
        self.keep(words)
        self._forget.start()

    def keep(self, words: str) -> None:
        """Say something until it is hidden, or something else is said."""
        self._forget.stop()
        self.said.setText(words)
        self.remedy.hide()
        self.setVisible(bool(words))

    def offer(self, title: str, remedy: Callable[[], object]) -> None:
        """Offer a remedy as a button; what is said stays until then."""
        self._forget.stop()
        self._remedy = remedy
        self.remedy.setText(title)
        self.remedy.show()
