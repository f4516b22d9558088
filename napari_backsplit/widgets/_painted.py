"""Texts that change several times a second: they are painted anew, nothing is laid out anew.

A QLabel asks for a new layout with every text, and each level of a dock that answers draws once
more. In napari's window each of those takes all of it through OpenGL: up to 50 ms where that runs
on the CPU, as it does on a remote desktop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QPointF, QRect, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QProgressBar, QSizePolicy, QWidget

_GAP, _SAMPLE = 12, 18
_MARGIN = 5
"""As the labels of napari's theme have it."""


def set_bar(bar: QProgressBar, value: int) -> None:
    """Set a bar that is drawn with all else: on its own it would draw the window at once."""
    if bar.value() != value:
        bar.setUpdatesEnabled(False)
        bar.setValue(value)
        bar.setUpdatesEnabled(True)


class Words(QWidget):
    """One line of text; what does not fit is left out, and told by the tool tip.

    Parameters
    ----------
    sample : str
        The text whose width it asks for.
    """

    def __init__(self, sample: str = "") -> None:
        super().__init__()
        self._text = ""
        self._sample = sample
        how = QSizePolicy.Policy.Fixed if sample else QSizePolicy.Policy.Expanding
        self.setSizePolicy(how, QSizePolicy.Policy.Fixed)

    def text(self) -> str:
        """Return the text, all of it."""
        return self._text

    def setText(self, text: str) -> None:
        """Show a text (named as a QLabel's)."""
        if text != self._text:
            self._text = text
            self.setAccessibleName(text)
            if not self._sample:
                self.setToolTip(text)
            self.update()

    def sizeHint(self) -> QSize:
        """Return the size of the sample (asked by Qt)."""
        width = self.fontMetrics().horizontalAdvance(self._sample) + 2 * _MARGIN
        return QSize(width, self.fontMetrics().height() + 2)

    def minimumSizeHint(self) -> QSize:
        """Return the least size (asked by Qt)."""
        return self.sizeHint()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the text (called by Qt)."""
        painter = QPainter(self)
        box = self.rect().adjusted(_MARGIN, 0, 0, 0)
        metrics = painter.fontMetrics()
        shown = metrics.elidedText(self._text, Qt.TextElideMode.ElideRight, box.width())
        painter.drawText(box, int(Qt.AlignmentFlag.AlignVCenter), shown)
        painter.end()


@dataclass(frozen=True)
class Entry:
    """A row of a legend: how its thing is drawn, what it is, and its value now.

    Attributes
    ----------
    style : PenStyle
        Of a line; NoPen for a thing that is a coloured square.
    """

    colour: str
    style: Qt.PenStyle
    name: str
    value: str


class PaintedLegend(QWidget):
    """Entries after one another, in as many lines as they need.

    Parameters
    ----------
    widest : str
        The widest value: each gets as much room, so that a new value moves nothing.
    """

    def __init__(self, widest: str) -> None:
        super().__init__()
        self._widest = widest
        self._entries: tuple[Entry, ...] = ()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._fit()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What is shown."""
        return self._entries

    def show_entries(self, entries: Sequence[Entry]) -> None:
        """Show some entries."""
        if tuple(entries) == self._entries:
            return
        moved = [e.name for e in entries] != [e.name for e in self._entries]
        self._entries = tuple(entries)
        self.setAccessibleName(", ".join(f"{e.name} {e.value}" for e in entries))
        if moved:
            self._fit()
        self.update()

    def _line(self) -> int:
        return int(self.fontMetrics().height()) + 3

    def _places(self) -> Iterator[tuple[Entry, QRect]]:
        x, y = _MARGIN, 0
        for entry in self._entries:
            words = f"{entry.name} {self._widest}"
            width = _sample(entry) + 4 + self.fontMetrics().horizontalAdvance(words)
            if x > _MARGIN and x + width > self.width():
                x, y = _MARGIN, y + self._line()
            yield entry, QRect(x, y, width, self._line())
            x += width + _GAP

    def _fit(self) -> None:
        lowest = max((box.bottom() + 1 for _, box in self._places()), default=self._line())
        if lowest != self.height() or self.minimumHeight() != lowest:
            self.setFixedHeight(lowest)

    def resizeEvent(self, event: Any) -> None:
        """Fit the entries into another width (called by Qt)."""
        super().resizeEvent(event)
        self._fit()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the entries (called by Qt)."""
        painter = QPainter(self)
        text = painter.pen()
        for entry, box in self._places():
            _draw_sample(painter, entry, box)
            painter.setPen(text)
            words = box.adjusted(_sample(entry) + 4, 0, 0, 0)
            shown = f"{entry.name} {entry.value}"
            painter.drawText(words, int(Qt.AlignmentFlag.AlignVCenter), shown)
        painter.end()


def _sample(entry: Entry) -> int:
    return 10 if entry.style is Qt.PenStyle.NoPen else _SAMPLE


def _draw_sample(painter: QPainter, entry: Entry, box: QRect) -> None:
    middle = box.center().y() + 0.5
    if entry.style is Qt.PenStyle.NoPen:
        painter.fillRect(QRect(box.left(), round(middle) - 5, 10, 10), QColor(entry.colour))
        return
    painter.setPen(QPen(QColor(entry.colour), 2, entry.style))
    painter.drawLine(QPointF(box.left(), middle), QPointF(box.left() + _SAMPLE, middle))
