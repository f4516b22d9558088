"""How a training goes, as curves: losses, Dice on patches, and the learning rate on demand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_backsplit.backend.jobs.digest import Curve, thinned
from napari_backsplit.widgets._colours import Colours
from napari_backsplit.widgets._layout import bold, fill_column
from napari_backsplit.widgets._numbers import figure
from napari_backsplit.widgets._painted import Entry, PaintedLegend

RATE = "learning rate"
TARGET = "target Dice"
_SUPPORT = "Dice of "
_STYLES = (Qt.PenStyle.SolidLine, Qt.PenStyle.DashLine, Qt.PenStyle.DotLine)
_HEIGHT = 112
_DRAWN = 700
"""Points that a curve is drawn with: two for each pixel of the widest dock."""

_WIDE = 120
"""Points up to which a dashed line is two pixels wide: Qt strokes a long noisy one of that width in
40 ms, of one pixel in 2 ms."""


def losses_of(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Return the curves of the losses, by the words of a legend."""
    return {n.removesuffix(" loss"): c for n, c in curves.items() if n.endswith(" loss")}


def dice_of(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Return the curves of the Dice on patches, the target first, by the words of a legend."""
    target = {"lesion": curves[TARGET]} if TARGET in curves else {}
    supports = {n.removeprefix(_SUPPORT): c for n, c in curves.items() if n.startswith(_SUPPORT)}
    return {**target, **supports}


class Curves(QWidget):
    """The curves of one training. It shows what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.losses = Plot("Loss by epoch", "Loss over the epochs: lower is better (no unit)")
        self.dice = Plot(
            "Dice on patches by epoch",
            "Overlap on random patches of the held-out cases, 0 to 1: tells how the training "
            "goes, not how good whole predictions are",
            (0.0, 1.0),
        )
        self.rate = Plot("Learning rate by epoch", "Learning rate over the epochs (no unit)")
        self.show_rate = QCheckBox("Learning rate")
        self.show_rate.setToolTip("Show how the learning rate falls over the epochs")
        self._rated = False
        fill_column(self, self.losses, self.dice, self.show_rate, self.rate)
        self.show_rate.toggled.connect(lambda _: self._show_rate())
        self._show_rate()

    def show_curves(self, curves: Mapping[str, Curve]) -> None:
        """Show what a job has said of itself; plots without a curve are hidden."""
        self.losses.show_curves(losses_of(curves))
        self.dice.show_curves(dice_of(curves))
        self.rate.show_curves({RATE: curves[RATE]} if RATE in curves else {})
        self._rated = RATE in curves
        for plot in (self.losses, self.dice):
            plot.setVisible(plot.filled)
        self._show_rate()
        self.setVisible(self.losses.filled or self.dice.filled or self._rated)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of a theme."""
        for plot in (self.losses, self.dice, self.rate):
            plot.set_colours(colours)

    def _show_rate(self) -> None:
        self.show_rate.setVisible(self._rated)
        self.rate.setVisible(self._rated and self.show_rate.isChecked())


class _Epochs(pg.AxisItem):  # type: ignore[misc]
    """An axis without ticks between two epochs."""

    def tickSpacing(self, low: float, high: float, size: float) -> list[tuple[float, float]]:
        """Return the distances of ticks that are whole (asked by pyqtgraph)."""
        found = [t for t in super().tickSpacing(low, high, size) if t[0] == int(t[0])]
        return found or [(1.0, 0.0)]


class Plot(QWidget):
    """A few curves over the epochs, with a legend that says their newest values.

    Parameters
    ----------
    title, tip : str
    limits : tuple of float, optional
        The range of the values; fitted to the curves by default.
    """

    def __init__(self, title: str, tip: str, limits: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.title = bold(title)
        self.legend = PaintedLegend("-0.0000")
        self.canvas = pg.PlotWidget(axisItems={"bottom": _Epochs("bottom")})
        self.canvas.setFixedHeight(_HEIGHT)
        self.canvas.setMenuEnabled(False)
        self.canvas.hideButtons()
        self.canvas.setMouseEnabled(x=False, y=False)
        self.canvas.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.canvas.getAxis("left").setWidth(42)
        # Half of the topmost number stands above the axis.
        self.canvas.getPlotItem().setContentsMargins(0, 8, 8, 0)
        if limits:
            self.canvas.setYRange(*limits, padding=0.08)
        for part in (self.title, self.legend, self.canvas):
            part.setToolTip(tip)
        self.canvas.setAccessibleName(title)
        self._items: dict[str, pg.PlotCurveItem] = {}
        self._curves: dict[str, Curve] = {}
        self._pens: list[tuple[str, Qt.PenStyle, int]] = []
        self._colours: Colours | None = None
        fill_column(self, self.title, self.canvas, self.legend)

    @property
    def filled(self) -> bool:
        """Whether there is a curve to show."""
        return bool(self._curves)

    def values(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the epochs, from 1, and the values that a curve is drawn with."""
        epochs, values = self._items[name].getData()
        return epochs, values

    def show_curves(self, curves: Mapping[str, Curve]) -> None:
        """Show some curves; those that are the same as before are not drawn again."""
        if list(curves) != list(self._curves):
            self._make_items(list(curves))
        changed = [n for n, c in curves.items() if self._curves.get(n) is not c]
        for name in changed:
            self._items[name].setData(*_drawn(curves[name]), connect="finite")
        self._curves = dict(curves)
        if changed:
            self._set_pens()
            self._write_legend()
            # Fitted and asked for now, all plots are drawn at once, not one after another.
            self.canvas.getViewBox().prepareForPaint()
            self.canvas.viewport().update()

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of a theme."""
        self._colours = colours
        self.canvas.setBackground(colours.ground)
        for side in ("left", "bottom"):
            axis = self.canvas.getAxis(side)
            axis.setPen(colours.faint)
            axis.setTextPen(colours.text)
        self._pens = []
        self._set_pens()
        self._write_legend()

    def _make_items(self, names: list[str]) -> None:
        self.canvas.clear()
        self._curves = {}
        self._items, self._pens = {}, []
        for name in names:
            self._items[name] = pg.PlotCurveItem()
            self.canvas.addItem(self._items[name])

    def _look(self, number: int) -> tuple[str, Qt.PenStyle]:
        """Return colour and style of a curve: no two of the first eighteen have the same."""
        lines = self._colours.lines if self._colours else ("#888888",)
        style = _STYLES[(number + number // len(lines)) % len(_STYLES)]
        return lines[number % len(lines)], style

    def _set_pens(self) -> None:
        longest = max((len(curve.steps) for curve in self._curves.values()), default=0)
        looks = [self._look(number) for number in range(len(self._items))]
        pens = [(c, s, 2 if s is _STYLES[0] or longest <= _WIDE else 1) for c, s in looks]
        if pens == self._pens:
            return
        self._pens = pens
        for item, (colour, style, width) in zip(self._items.values(), pens, strict=True):
            item.setPen(pg.mkPen(colour, width=width, style=style))

    def _write_legend(self) -> None:
        self.legend.show_entries(
            [
                Entry(*self._look(number), name, figure(float(curve.values[-1])))
                for number, (name, curve) in enumerate(self._curves.items())
            ]
        )


def _drawn(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Return epochs, from 1, and values to draw; the only point of a curve becomes a short line."""
    thin = thinned(curve, _DRAWN)
    values = np.where(np.isfinite(thin.values), thin.values, np.nan)
    if len(values) == 1:
        return thin.steps[0] + 1 + np.array([-0.2, 0.2]), values.repeat(2)
    return thin.steps + 1, values
