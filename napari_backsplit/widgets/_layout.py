"""Rows, columns and buttons, as every panel of the dock has them."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)


def scrolling(inside: QWidget) -> QScrollArea:
    """Return a frame that scrolls up and down where there is no room."""
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(inside)
    _Bottom(area)
    return area


class _Bottom(QObject):
    """Keeps the end of what scrolls in view where it was: a message below takes of its room."""

    def __init__(self, area: QScrollArea) -> None:
        super().__init__(area)
        self._area = area
        self._height = 0
        area.viewport().installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Scroll by what the room became less (called by Qt)."""
        if event.type() == QEvent.Type.Resize:
            bar, height = self._area.verticalScrollBar(), self._area.viewport().height()
            lost, self._height = self._height - height, height
            if 0 < bar.maximum() == bar.value() and lost > 0:
                QTimer.singleShot(0, self, lambda: bar.setValue(bar.maximum()))
        return False


def narrow(box: QComboBox) -> QComboBox:
    """Let a choice be narrower than its longest text."""
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(10)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return box


class Wheel(QObject):
    """Lets the wheel scroll the panel rather than change a field that was not clicked."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Leave a turn of the wheel to the panel (called by Qt)."""
        field = isinstance(watched, QComboBox | QAbstractSpinBox)
        scrolls = field and event.type() == QEvent.Type.Wheel and not watched.hasFocus()
        if scrolls:
            event.ignore()
        return scrolls


def swatch(colour: str) -> QIcon:
    """Return a small square of a colour."""
    pixmap = QPixmap(12, 12)
    pixmap.fill(QColor(colour))
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)  # the same colour where its row is chosen
    return icon


def short(name: str, letters: int = 28) -> str:
    """Return a name that is not longer than some letters, its middle left out."""
    half = (letters - 1) // 2
    return name if len(name) <= letters else f"{name[:half]}…{name[-half:]}"


def bold(text: str) -> QLabel:
    """Return a label in bold."""
    label = QLabel(text)
    font = label.font()
    font.setBold(True)
    label.setFont(font)
    return label


def push_button(title: str, tip: str, checkable: bool = False) -> QPushButton:
    """Return a button with a tool tip."""
    button = QPushButton(title)
    button.setToolTip(tip[0].upper() + tip[1:])
    button.setCheckable(checkable)
    return button


def in_row(*parts: QWidget, stretch: bool = True) -> QWidget:
    """Put widgets side by side; without `stretch` they keep their own width."""
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for part in parts:
        layout.addWidget(part)
    if not stretch:
        layout.addStretch(1)
    return row


def in_column(*parts: QWidget) -> QWidget:
    """Put widgets under one another."""
    column = QWidget()
    fill_column(column, *parts)
    return column


def fill_column(column: QWidget, *parts: QWidget) -> None:
    """Fill a widget with others, under one another."""
    layout = QVBoxLayout(column)
    layout.setContentsMargins(0, 0, 0, 4)
    layout.setSpacing(3)
    for part in parts:
        layout.addWidget(part)
