"""The plots of a comparison: dots with lines between, bars, curves, in the colours of a theme."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, inf
from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QWidget

from napari_backsplit.widgets._colours import Colours
from napari_backsplit.widgets._figure_values import Dot, Share
from napari_backsplit.widgets._layout import fill_column, short

HEIGHT = 210
OLD, NEW = 1, 0
"""Which of the theme's colours is the baseline's, and which the new model's: orange and blue."""
NOTABLE = 0.05
"""Change of Dice from which the line of a case is drawn in the colour of who gains."""
TABS = {
    "Dice": "Dice of each case with lesions, by both models; click a dot, or arrow keys and Enter",
    "By size": "Share of the lesions that both find, by their volume in ml",
    "FROC": "Share of lesions found against false positives a case, at each probability",
    "False positives": "Volume in ml of the false positives of both, by the organ they lie in",
}


class Figure(QWidget):
    """A plot that does not move, in the colours of a theme."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.canvas = pg.PlotWidget()
        self.canvas.setFixedHeight(HEIGHT)
        self.canvas.setMenuEnabled(False)
        self.canvas.hideButtons()
        self.canvas.setMouseEnabled(x=False, y=False)
        self.canvas.setAccessibleName(name)
        self.canvas.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.canvas.getPlotItem().setContentsMargins(0, 8, 8, 0)
        self.colours: Colours | None = None
        self.summary = ""
        fill_column(self, self.canvas)

    @property
    def filled(self) -> bool:
        """Whether there is something to see."""
        raise NotImplementedError

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of a theme."""
        self.colours = colours
        self.canvas.setBackground(colours.ground)
        for side in ("left", "bottom"):
            axis = self.canvas.getAxis(side)
            axis.setPen(colours.faint)
            axis.setTextPen(colours.text)
        self.draw()

    def draw(self) -> None:
        """Draw anew."""
        raise NotImplementedError

    def label(self, side: str, words: str) -> None:
        """Name an axis."""
        colour = self.colours.text if self.colours else "#888888"
        self.canvas.setLabel(side, words, color=colour)


class DotPlot(Figure):
    """The Dice of each case by both models, a line from one to the other.

    Attributes
    ----------
    chosen : Signal
        Emits the case of the dot that was clicked, or on which Enter was pressed.
    pointed : Signal
        Emits words about the dot that is pointed at.
    """

    chosen = Signal(str)
    pointed = Signal(str)

    def __init__(self) -> None:
        super().__init__("Dice of each case: arrow keys go from dot to dot, Enter opens the case")
        self._dots: list[Dot] = []
        self._at = -1
        self._case = ""
        self._ends = ("", "")
        self.canvas.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.canvas.keyPressEvent = self._key
        self.canvas.setXRange(-0.35, 1.35, padding=0)
        self.label("left", "Dice")
        self.faint, self.better, self.worse = (pg.PlotCurveItem() for _ in range(3))
        self.points = pg.ScatterPlotItem(size=9, hoverable=True, tip=None)
        self.ring = pg.ScatterPlotItem(size=16, brush=None)
        for item in (self.faint, self.better, self.worse, self.ring, self.points):
            self.canvas.addItem(item)
        self.points.sigClicked.connect(self._clicked)
        self.points.sigHovered.connect(self._hovered)

    @property
    def filled(self) -> bool:
        """Whether there is a dot."""
        return bool(self._dots)

    def show_dots(self, found: Sequence[Dot], ends: tuple[str, str]) -> None:
        """Show some cases, the largest gain last."""
        self._dots, self._at, self._ends = list(found), -1, ends
        gained = sum(dot.new - dot.old > NOTABLE for dot in found)
        lost = sum(dot.old - dot.new > NOTABLE for dot in found)
        self.summary = (
            f"{len(found)} case{'s' * (len(found) != 1)} with lesions: Dice rose by more than "
            f"{NOTABLE} in {gained}, fell in {lost}. Click a dot, or use the arrow keys and Enter."
        )
        self.draw()

    def mark(self, case: str) -> None:
        """Ring the dots of the case that is open."""
        self._case = case
        self._at = next((n for n, dot in enumerate(self._dots) if dot.case == case), self._at)
        self._ring()

    def draw(self) -> None:
        """Draw anew."""
        self.canvas.getAxis("bottom").setTicks([list(enumerate(self._ends))])
        least = min((min(dot.old, dot.new) for dot in self._dots), default=0.0)
        self.canvas.setYRange(max(0.0, floor(10 * least - 0.5) / 10), 1, padding=0.04)
        if self.colours is None:
            return
        lines, faint = self.colours.lines, self.colours.faint
        parts = (
            (self.better, lines[NEW], (NOTABLE, inf)),
            (self.worse, lines[OLD], (-inf, -NOTABLE)),
            (self.faint, faint, (-NOTABLE, NOTABLE)),
        )
        for item, colour, (low, high) in parts:
            chosen = [dot for dot in self._dots if low < dot.new - dot.old <= high]
            ends = np.array([(dot.old, dot.new) for dot in chosen], float).ravel()
            item.setData(np.tile([0.0, 1.0], len(chosen)), ends, connect="pairs")
            item.setPen(pg.mkPen(colour, width=1))
        y = np.array([dot.old for dot in self._dots] + [dot.new for dot in self._dots], float)
        count = len(self._dots)
        brushes = [pg.mkBrush(lines[OLD])] * count + [pg.mkBrush(lines[NEW])] * count
        places = [*range(count)] * 2
        x = np.repeat([0.0, 1.0], count)
        self.points.setData(x, y, data=places, brush=brushes, pen=None)
        self._ring()

    def _ring(self) -> None:
        dots_ = [dot for dot in self._dots if dot.case == self._case]
        x = [0.0, 1.0] * len(dots_)
        y = [value for dot in dots_ for value in (dot.old, dot.new)]
        colour = self.colours.text if self.colours else "#888888"
        self.ring.setData(x, y, pen=pg.mkPen(colour, width=2))

    def _clicked(self, _: Any, points: Sequence[Any], event: Any = None) -> None:
        if len(points):
            self._at = int(points[0].data())
            self.chosen.emit(self._dots[self._at].case)

    def _hovered(self, _: Any, points: Sequence[Any], event: Any = None) -> None:
        self.pointed.emit(self._dots[int(points[0].data())].words if len(points) else "")

    def _key(self, event: QKeyEvent) -> None:
        """Go from dot to dot with the arrow keys; Enter opens the case (called by Qt)."""
        keys = Qt.Key
        steps = {keys.Key_Up: 1, keys.Key_Right: 1, keys.Key_Down: -1, keys.Key_Left: -1}
        if event.key() in steps and self._dots:
            count = len(self._dots)
            start = self._at if self._at >= 0 else -1 if steps[event.key()] > 0 else count
            self._at = (start + steps[event.key()]) % count
            self._case = self._dots[self._at].case
            self._ring()
            self.pointed.emit(self._dots[self._at].words)
        elif event.key() in (keys.Key_Return, keys.Key_Enter) and self._at >= 0:
            self.chosen.emit(self._dots[self._at].case)
        else:
            event.ignore()


class Bars(Figure):
    """Two bars for each class, with what they stand for in words.

    Parameters
    ----------
    shares : bool
        Shares from 0 to 1; volumes in ml otherwise.
    """

    def __init__(self, shares: bool) -> None:
        super().__init__(TABS["By size" if shares else "False positives"])
        self._limits = shares
        self._shares: list[Share] = []
        self.label("left", "share found" if shares else "ml")

    @property
    def filled(self) -> bool:
        """Whether there is a bar."""
        return bool(self._shares)

    def show_shares(self, shares: Sequence[Share]) -> None:
        """Show some classes, from left to right; of many the first."""
        self._shares = list(shares[:_CLASSES])
        words = [f"{s.name}: {s.said[0]} → {s.said[1]}" for s in self._shares]
        more = len(shares) - len(self._shares)
        self.summary = "; ".join(words) + (f"; and {more} more" if more else "")
        self.draw()

    def draw(self) -> None:
        """Draw anew."""
        self.canvas.clear()
        if self.colours is None or not self._shares:
            return
        top = 1.0 if self._limits else max(max(s.old, s.new) for s in self._shares)
        for which, side, colour in ((0, -0.2, OLD), (1, 0.2, NEW)):
            heights = [(share.old, share.new)[which] for share in self._shares]
            x = np.arange(len(heights)) + side
            brush = self.colours.lines[colour]
            self.canvas.addItem(
                pg.BarGraphItem(x=x, height=heights, width=0.36, brush=brush, pen=None)
            )
            for place, height, share in zip(x, heights, self._shares, strict=True):
                text = pg.TextItem(share.said[which], color=self.colours.text, anchor=(0.5, 1))
                text.setPos(place, height)
                self.canvas.addItem(text)
        names = [short(share.name, _letters(len(self._shares))) for share in self._shares]
        self.canvas.getAxis("bottom").setTicks([list(enumerate(names))])
        self.canvas.setYRange(0, 1.15 * top, padding=0)
        self.canvas.setXRange(-0.5, max(len(self._shares), 2) - 0.5, padding=0.02)


_CLASSES = 6


def _letters(classes: int) -> int:
    return max(7, 44 // classes)


class Froc(Figure):
    """Sensitivity against false positives a case, of both models."""

    def __init__(self) -> None:
        super().__init__(TABS["FROC"])
        self._curves: tuple[Sequence[tuple[float, float]], ...] = ((), ())
        self.label("left", "sensitivity")
        self.label("bottom", "false positives a case")
        self.summary = "Up and to the left is better. Each dot is a probability threshold."

    @property
    def filled(self) -> bool:
        """Whether there is a curve."""
        return any(self._curves)

    def show_curves(
        self, old: Sequence[tuple[float, float]], new: Sequence[tuple[float, float]]
    ) -> None:
        """Show the points of both models, (false positives a case, sensitivity)."""
        self._curves = (old, new)
        self.draw()

    def draw(self) -> None:
        """Draw anew."""
        self.canvas.clear()
        if self.colours is None or not self.filled:
            return
        looks = ((OLD, Qt.PenStyle.DashLine, "s"), (NEW, Qt.PenStyle.SolidLine, "o"))
        for points, (colour, style, symbol) in zip(self._curves, looks, strict=True):
            if points:
                x, y = np.array(points, float).T
                line = self.colours.lines[colour]
                pen = pg.mkPen(line, width=2, style=style)
                self.canvas.plot(
                    x, y, pen=pen, symbol=symbol, symbolSize=7, symbolBrush=line, symbolPen=None
                )
        most = max((x for points in self._curves for x, _ in points), default=1.0)
        self.canvas.setXRange(0, max(most, 0.1), padding=0.04)
        self.canvas.setYRange(0, 1.02, padding=0)
