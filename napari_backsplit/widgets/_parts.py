"""What is laid over the image: the seven parts as a legend that toggles them, and ways to look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QLabel, QSlider, QWidget

from napari_backsplit.backend.comparison.agreement import (
    CLASSES,
    CLASSES_WITHOUT_REFERENCE,
    OUTLINE_COLOURS,
    Who,
)
from napari_backsplit.widgets._layout import (
    Wheel,
    bold,
    fill_column,
    in_column,
    in_row,
    narrow,
    short,
    swatch,
)
from napari_backsplit.widgets._lesion_rows import Pair, volume
from napari_backsplit.widgets._painted import Entry, PaintedLegend
from napari_backsplit.widgets._tools import LOOKING

NO_REFERENCE = "There is no reference: it shows where the two agree, not which of them is right."
_STEPS = 1000
_LINES: dict[Who, Qt.PenStyle] = {
    "reference": Qt.PenStyle.SolidLine,
    "baseline": Qt.PenStyle.DashLine,
    "new": Qt.PenStyle.SolidLine,
}
"""How the outlines are drawn on the image."""


class PartsBox(QWidget):
    """The legend and the ways to look. It shows what it is given and tells what is wanted.

    Attributes
    ----------
    part_wanted : Signal
        Emits the number of a part, and whether it is to be seen.
    outlines_wanted, blink_wanted, side_wanted : Signal
        Emit whether that way of looking is on.
    swipe_wanted : Signal
        Emits the share of the width that the baseline has; None for no line.
    probability_wanted : Signal
        Emits the arm whose probability map is to be seen; None for none.
    """

    part_wanted = Signal(int, bool)
    outlines_wanted = Signal(bool)
    blink_wanted = Signal(bool)
    side_wanted = Signal(bool)
    swipe_wanted = Signal(object)
    probability_wanted = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._wheel = Wheel(self)
        self.title = bold("")
        self.title.setMinimumWidth(40)
        self.said = QLabel()
        self.said.setWordWrap(True)
        self.lines = PaintedLegend("")
        fill_column(
            self, self.title, self.lines, self.said, self._build_legend(), self._build_ways()
        )
        self._connect()
        self.show_case("", None, {})

    # ------------------------------------------------------------------ build

    def _build_legend(self) -> QWidget:
        self.parts: dict[int, QCheckBox] = {}
        self.volumes: dict[int, QLabel] = {}
        box = QWidget()
        grid = QGridLayout(box)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(2)
        grid.setVerticalSpacing(1)
        grid.setColumnStretch(0, 1)
        for place, part in enumerate(CLASSES):
            tick, ml = QCheckBox(), QLabel()
            tick.setIcon(swatch(part.colour))
            tick.setChecked(True)
            tick.toggled.connect(lambda on, n=part.number: self.part_wanted.emit(n, on))
            ml.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            ml.setMinimumWidth(ml.fontMetrics().horizontalAdvance("0000 ml"))
            self.parts[part.number], self.volumes[part.number] = tick, ml
            grid.addWidget(tick, place, 0)
            grid.addWidget(ml, place, 1)
        return box

    def _build_ways(self) -> QWidget:
        self.outlines = _tick("Outlines", "Outlines of the reference and of both predictions")
        self.outlines.setChecked(True)
        key = LOOKING["blink"][0]
        self.blink = _tick("Blink", f"Let the two predictions take turns ({key})")
        self.side = _tick("Side by side", "The new model in a second view, which follows the first")
        self.swipe = _tick("Swipe", "The baseline left of a line, the new model right of it")
        self.share = QSlider(Qt.Orientation.Horizontal)
        self.share.setRange(0, _STEPS)
        self.share.setValue(_STEPS // 2)
        self.share.setEnabled(False)
        self.share.setMinimumWidth(50)
        self.share.setAccessibleName("Where the line of the swipe stands")
        self.share.setToolTip("Where the line stands; arrow keys move it")
        self.probability = narrow(QComboBox())
        self.probability.setMinimumContentsLength(6)
        self.probability.setAccessibleName("Probability map")
        self.probability.setToolTip("Show how sure a model is, where maps were written")
        self.probability.installEventFilter(self._wheel)
        self.probability.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.set_pair(Pair("", ""))
        ticks = in_row(self.outlines, self.blink, self.side, self.swipe)
        ticks.layout().setSpacing(2)
        return in_column(ticks, in_row(self.share, self.probability))

    def _connect(self) -> None:
        self.outlines.toggled.connect(self.outlines_wanted)
        self.blink.toggled.connect(self.blink_wanted)
        self.side.toggled.connect(self.side_wanted)
        self.swipe.toggled.connect(self.share.setEnabled)
        self.swipe.toggled.connect(lambda _: self._tell_swipe())
        self.share.valueChanged.connect(lambda _: self._tell_swipe())
        self.probability.activated.connect(
            lambda _: self.probability_wanted.emit(self.probability.currentData())
        )

    # ------------------------------------------------------------------ shown

    def set_pair(self, pair: Pair) -> None:
        """Offer the probability maps of two models."""
        self.probability.clear()
        self.probability.addItem("No map", None)
        for words, arm in (("baseline", pair.baseline), ("new model", pair.new)):
            if arm:
                self.probability.addItem(f"p: {words}", arm)

    def show_case(self, case: str, loaded: Any, volumes: Mapping[int, float]) -> None:
        """Show the parts of a case and their volumes in ml; `loaded` is None before it is read."""
        has_reference = loaded is None or loaded.has_reference
        classes = CLASSES if has_reference else CLASSES_WITHOUT_REFERENCE
        known = {part.number: part for part in classes}
        self.title.setText(f"On the image: {short(case, 34)}" if case else "On the image")
        self.title.setToolTip(case)
        self.said.setText("" if has_reference else NO_REFERENCE)
        self.said.setVisible(not has_reference)
        drawn = [who for who in _LINES if has_reference or who != "reference"]
        self.lines.show_entries(
            [Entry(OUTLINE_COLOURS[who], _LINES[who], who, "") for who in drawn]
        )
        for number, tick in self.parts.items():
            part = known.get(number)
            for widget in (tick, self.volumes[number]):
                widget.setVisible(part is not None)
            if part is not None:
                ml = f"{volume(volumes[number])} ml" if number in volumes else ""
                tick.setText(part.name)
                tick.setToolTip(f"{part.words} Show or hide it")
                tick.setAccessibleName(f"{part.name} {ml}".strip())
                self.volumes[number].setText(ml)

    def take_side_back(self) -> None:
        """Show that the second view was closed; told to nobody."""
        self.side.blockSignals(True)
        self.side.setChecked(False)
        self.side.blockSignals(False)

    def _tell_swipe(self) -> None:
        on = self.swipe.isChecked()
        self.swipe_wanted.emit(self.share.value() / _STEPS if on else None)


def _tick(title: str, tip: str) -> QCheckBox:
    box = QCheckBox(title)
    box.setToolTip(tip)
    return box
