"""Figures of a comparison: Dice by case, sensitivity by size, FROC, false positives by organ."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QButtonGroup, QLabel, QStackedWidget, QWidget

from napari_backsplit.backend.shown import Shown
from napari_backsplit.widgets._colours import Colours
from napari_backsplit.widgets._figure_values import (
    by_size,
    curve,
    dots,
    false_by_organ,
)
from napari_backsplit.widgets._layout import fill_column, in_row, push_button, short
from napari_backsplit.widgets._lesion_rows import Pair
from napari_backsplit.widgets._painted import Entry, PaintedLegend
from napari_backsplit.widgets._plots import NEW, OLD, TABS, Bars, DotPlot, Figure, Froc

NONE = {
    "Dice": "No case with a lesion to draw.",
    "By size": "The lesions of this comparison are not listed: compare again to list them.",
    "FROC": "No FROC: probability maps were not written. Tick “Probability maps” in the settings.",
    "False positives": "No false positive.",
}

AnyFigure = TypeVar("AnyFigure", bound=Figure)


class Figures(QWidget):
    """Four figures, one at a time. They show what they are given.

    Attributes
    ----------
    chosen : Signal
        Emits the case whose dot was chosen.
    """

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.plots: dict[str, Figure] = {}  # each is made when it is turned to: it takes long
        self.pages = QStackedWidget()
        self.tabs: dict[str, Any] = {}
        self._group = QButtonGroup(self)
        for number, (title, tip) in enumerate(TABS.items()):
            button = push_button(title, tip, checkable=True)
            self._group.addButton(button, number)
            self.tabs[title] = button
        self.tabs["Dice"].setChecked(True)
        self.legend = PaintedLegend("")
        self.said = QLabel()
        self.said.setWordWrap(True)
        fill_column(self, in_row(*self.tabs.values()), self.pages, self.said, self.legend)
        self._shown: tuple[Shown, str, Pair] | None = None
        self._names = ("", "")
        self._case = ""
        self._stale: set[str] = set()
        self._colours: Colours | None = None
        self._group.idClicked.connect(lambda _: self._turn())

    @cached_property
    def dice(self) -> DotPlot:
        """The Dice of each case."""
        plot = self._made("Dice", DotPlot())
        plot.pointed.connect(self._say)
        plot.chosen.connect(self.chosen)
        plot.mark(self._case)
        return plot

    @cached_property
    def sizes(self) -> Bars:
        """The share that is found, by volume."""
        return self._made("By size", Bars(True))

    @cached_property
    def froc(self) -> Froc:
        """Sensitivity against false positives."""
        return self._made("FROC", Froc())

    @cached_property
    def organs(self) -> Bars:
        """The false positives, by organ."""
        return self._made("False positives", Bars(False))

    def _made(self, title: str, plot: AnyFigure) -> AnyFigure:
        plot.canvas.setToolTip(TABS[title])
        if self._colours is not None:
            plot.set_colours(self._colours)
        self.plots[title] = plot
        self.pages.addWidget(plot)
        return plot

    def show_result(self, shown: Shown, target: str, pair: Pair) -> None:
        """Show the figures of a result, for one target and two models."""
        self._shown = (shown, target, pair)
        self._names = pair.baseline, pair.new
        self._stale = set(TABS)
        self._write_legend()
        self._turn()

    def mark_case(self, case: str) -> None:
        """Show which case is open."""
        self._case = case
        if "Dice" in self.plots:
            self.dice.mark(case)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of a theme."""
        self._colours = colours
        for plot in self.plots.values():
            plot.set_colours(colours)
        self._write_legend()

    @property
    def _title(self) -> str:
        return list(TABS)[int(self._group.checkedId())]

    def _turn(self) -> None:
        self._bring_up_to_date(self._title)
        if self._title in self.plots:
            self.pages.setCurrentWidget(self.plots[self._title])
        self._say("")

    def _bring_up_to_date(self, title: str) -> None:
        """Draw a figure when it is turned to: no one waits for those that are not seen."""
        if self._shown is None or title not in self._stale:
            return
        self._stale.discard(title)
        if title == "Dice":
            self.dice.show_dots(dots(*self._shown), ("baseline", "new"))
        elif title == "By size":
            self.sizes.show_shares(by_size(*self._shown))
        elif title == "FROC":
            shown, target, _ = self._shown
            self.froc.show_curves(*(curve(shown, target, arm) for arm in self._names))
        else:
            self.organs.show_shares(false_by_organ(*self._shown))

    def _say(self, words: str) -> None:
        title = self._title
        if title not in self.plots:
            return
        empty = not self.plots[title].filled
        self.pages.setVisible(not empty)
        self.said.setText(NONE[title] if empty else words or self.plots[title].summary)

    def _write_legend(self) -> None:
        if self._colours is None or self._shown is None:
            return
        square = Qt.PenStyle.NoPen
        lines, roles = self._colours.lines, ("baseline: {}", "new: {}")
        pairs = zip((lines[OLD], lines[NEW]), roles, self._names, strict=True)
        self.legend.show_entries(
            [
                Entry(colour, square, role.format(short(name, 30)), "")
                for colour, role, name in pairs
            ]
        )
        self.legend.setToolTip("\n".join(map(str.format, roles, self._names)))
