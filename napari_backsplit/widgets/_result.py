"""The result that is looked at: which one, the verdict and what is read with it, the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QFrame, QLabel, QMenu, QVBoxLayout, QWidget

from napari_backsplit.backend.headline import headline, name_of
from napari_backsplit.widgets._folding import Folded
from napari_backsplit.widgets._layout import (
    Wheel,
    bold,
    fill_column,
    in_column,
    in_row,
    narrow,
    push_button,
    short,
)
from napari_backsplit.widgets._lesion_rows import Pair

if TYPE_CHECKING:
    from napari_backsplit.backend.comparison.results import Verdict
    from napari_backsplit.backend.shown import Listed, Shown

NONE_YET = "Nothing is compared yet. A fine-tune compares itself; its result comes up here."
LETTERS, LISTED = 34, 30


class ResultBox(QWidget):
    """Choose a result, and read what may be said of it. It shows what it is given.

    Attributes
    ----------
    wanted : Signal
        Emits the id of the result that shall be looked at.
    pair_wanted : Signal
        Emits (target, new model): others of the same result shall be looked at.
    report_wanted, pdf_wanted, folder_wanted : Signal
        The report shall be opened, printed, or its folder shown.
    seg_wanted : Signal
        Emits the arm whose prediction of the case shall be written as DICOM SEG.
    """

    wanted = Signal(str)
    pair_wanted = Signal(str, str)
    report_wanted = Signal()
    pdf_wanted = Signal()
    folder_wanted = Signal()
    seg_wanted = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._wheel = Wheel(self)
        self._has_report = False
        self.results = self._choice("Result", "Earlier comparisons, the newest first")
        self.target = self._choice("Target", "Which target is looked at")
        self.new = self._choice("New model looked at", "Which model is laid over the baseline's")
        self.pair = in_row(QLabel("Show"), self.new, self.target)
        self.empty = QLabel(NONE_YET)
        self.empty.setWordWrap(True)
        top = in_row(bold("Result"), self.results)
        fill_column(self, top, self.empty, self.pair, self._build_verdict(), self._build_buttons())
        self.results.activated.connect(lambda _: self.wanted.emit(self.results.currentData()))
        for box in (self.new, self.target):
            box.activated.connect(self._tell_pair)
        self.show_results(())
        self.show_result(None, "", Pair("", ""))

    # ------------------------------------------------------------------ build

    def _choice(self, name: str, tip: str) -> QComboBox:
        box = narrow(QComboBox())
        box.setAccessibleName(name)
        box.setToolTip(tip)
        box.setPlaceholderText("none chosen")
        box.installEventFilter(self._wheel)
        box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        return box

    def _build_verdict(self) -> QWidget:
        self.frame = QFrame()
        self.frame.setFrameShape(QFrame.Shape.StyledPanel)
        self.head, self.sentence, self.more = bold(""), QLabel(), QLabel()
        self.details = QLabel()
        for label in (self.head, self.sentence, self.more, self.details):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.with_it = Folded("To be read with it", in_column(self.details))
        column = QVBoxLayout(self.frame)
        column.setContentsMargins(6, 4, 6, 4)
        column.setSpacing(3)
        for part in (self.head, self.sentence, self.more, self.with_it):
            column.addWidget(part)
        return self.frame

    def _build_buttons(self) -> QWidget:
        self.report = push_button("Report", "Every case, figures and tables, in the browser")
        self.pdf = push_button("PDF", "Print the report to a PDF beside it, and open that")
        self.folder = push_button("Folder", "The folder of the report: tables as CSV and JSON")
        self.report.clicked.connect(self.report_wanted)
        self.pdf.clicked.connect(self.pdf_wanted)
        self.folder.clicked.connect(self.folder_wanted)
        self.seg = push_button("SEG", "Write a prediction of this case as a DICOM SEG file")
        self.seg.setAccessibleName("DICOM SEG")
        self.seg.setMenu(QMenu(self.seg))
        self.buttons = in_row(self.report, self.pdf, self.folder, self.seg)
        self.offer_seg(())
        return self.buttons

    def offer_seg(self, arms: Sequence[str]) -> None:
        """Offer the predictions of some arms as DICOM SEG; hidden where there is none."""
        menu = self.seg.menu()
        menu.clear()
        for arm in arms:
            action = menu.addAction(f"Prediction of {short(arm, LETTERS)}…")
            action.triggered.connect(partial(self._want_seg, arm))
        self.seg.setVisible(bool(arms))
        self._show_buttons()

    def _want_seg(self, arm: str, checked: bool = False) -> None:
        self.seg_wanted.emit(arm)

    def _show_buttons(self) -> None:
        """Show the buttons of what is there: predictions without a reference have no report."""
        for button in (self.report, self.pdf, self.folder):
            button.setVisible(self._has_report)
        self.buttons.setVisible(self._has_report or bool(self.seg.menu().actions()))

    # ------------------------------------------------------------------ shown

    def show_results(self, results: Sequence[Listed], current: str = "") -> None:
        """List results, the newest first."""
        self.results.clear()
        for each in results:
            when = each.when.astimezone()
            self.results.addItem(f"{short(each.title, LISTED)} · {when:%d %b}", each.id)
            tip = f"{each.title}\n{when:%Y-%m-%d %H:%M}\n{each.id}"
            self.results.setItemData(self.results.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.results.setCurrentIndex(self.results.findData(current))
        self.results.setEnabled(bool(results))
        self.empty.setVisible(not results)

    def show_result(self, shown: Shown | None, target: str, pair: Pair) -> None:
        """Show what may be said of two models of a result; None hides it."""
        self.frame.setVisible(shown is not None)
        self._has_report = shown is not None and shown.report is not None
        self._show_buttons()
        self.pair.setVisible(shown is not None and (len(shown.arms) > 2 or len(shown.targets) > 1))
        if shown is None:
            return
        self.results.setCurrentIndex(self.results.findData(shown.id))
        self._offer(self.new, [(f"{arm} against {shown.baseline}", arm) for arm in shown.arms[1:]])
        self._offer(self.target, [(name, name) for name in shown.targets])
        self.target.setVisible(len(shown.targets) > 1)
        self.new.setCurrentIndex(self.new.findData(pair.new))
        self.target.setCurrentIndex(self.target.findData(target))
        self._show_verdict(shown, target, pair)

    def _offer(self, box: QComboBox, entries: Sequence[tuple[str, str]]) -> None:
        box.clear()
        for words, value in entries:
            box.addItem(short(words, LETTERS), value)
            box.setItemData(box.count() - 1, words, Qt.ItemDataRole.ToolTipRole)

    def _show_verdict(self, shown: Shown, target: str, pair: Pair) -> None:
        own = [v for v in shown.verdicts if (v.target, v.arm) == (target, pair.new)]
        main = next((v for v in own if v.against == pair.baseline), None)
        self.head.setText(headline(shown, target, pair.new))
        if main is None:
            self._say("", "", ())
            return
        others = [v for v in own if v is not main]
        said = "\n".join(f"Against {name_of(v.against)}: {v.sentence}" for v in others)
        self._say(main.sentence, said, details_of([main, *others]))

    def _say(self, sentence: str, more: str, details: Sequence[str]) -> None:
        for label, text in ((self.sentence, sentence), (self.more, more)):
            label.setText(text)
            label.setVisible(bool(text))
        self.details.setText("\n".join(details))
        self.with_it.setVisible(bool(details))

    def _tell_pair(self, _: Any = None) -> None:
        self.pair_wanted.emit(self.target.currentData(), self.new.currentData())


def details_of(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Return what is to be read with some verdicts of one model: each pair's under its name."""
    if len(verdicts) == 1:
        return verdicts[0].details
    found: list[str] = []
    for verdict in verdicts:
        if verdict.details:
            found += [f"{verdict.arm} against {name_of(verdict.against)}:"]
            found += [f"– {text}" for text in verdict.details]
    return tuple(found)
