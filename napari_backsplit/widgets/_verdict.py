"""The verdict bar: accept, needs work, reject, for the case or one structure, with a comment."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QLabel, QLineEdit, QPushButton, QWidget

from napari_backsplit.backend.project.schema import Judgement
from napari_backsplit.widgets._layout import fill_column, in_row, narrow, push_button, short
from napari_backsplit.widgets._tools import KEYS

CASE = ""


class VerdictBar(QWidget):
    """What a person says of the open case.

    Attributes
    ----------
    given : Signal
        Emits (judgement, structure or "" for the case, comment).
    """

    given = Signal(str, str, str)

    def __init__(self) -> None:
        super().__init__()
        self._case = ""
        self.last = QLabel()
        self.last.setWordWrap(True)
        self.on = narrow(QComboBox())
        self.on.setToolTip("What the verdict is about")
        self.on.setAccessibleName("Verdict on")
        self.comment = QLineEdit()
        self.comment.setAccessibleName("Comment")
        self.comment.setPlaceholderText("Comment")
        self.comment.setMaxLength(500)
        self.accept = QPushButton("Accept")
        self.accept.setMinimumSize(90, 32)
        font = self.accept.font()
        font.setBold(True)
        self.accept.setFont(font)
        self.accept.setToolTip(
            "The case: accept it and every mask of it that nobody judged, and go on "
            f"({KEYS['accept'][0]})"
        )
        self.needs_work = push_button(
            "Needs work", f"It is to be mended before it is used ({KEYS['needs_work'][0]})"
        )
        self.reject = push_button("Reject", f"It is never used ({KEYS['reject'][0]})")
        fill_column(
            self,
            self.last,
            in_row(QLabel("Verdict on"), self.on, self.comment),
            in_row(self.accept, self.needs_work, self.reject),
        )
        buttons: dict[Judgement, QPushButton] = {
            "accepted": self.accept,
            "needs_work": self.needs_work,
            "rejected": self.reject,
        }
        for judgement, button in buttons.items():
            button.clicked.connect(lambda _, judgement=judgement: self.give(judgement))
        self.on.currentIndexChanged.connect(lambda _: self._name())

    def show_case(self, case: str, structures: Sequence[str], last: str, enabled: bool) -> None:
        """Show the open case, "" for none, what it holds, and what was said of it last."""
        if case != self._case:
            self.comment.clear()
        if case != self._case or self._structures() != list(structures):
            chosen = self.on.currentData() if case == self._case else CASE
            self.on.clear()
            self.on.addItem("the case", CASE)
            for name in structures:
                self.on.addItem(short(name, 16), name)
            self.on.setCurrentIndex(max(0, self.on.findData(chosen)))
        self._case = case
        self.last.setText(last)
        self.last.setVisible(bool(last))
        for part in (self.on, self.comment, self.accept, self.needs_work, self.reject):
            part.setEnabled(enabled and bool(case))
        self._name()

    def give(self, judgement: Judgement) -> None:
        """Give a verdict, as the buttons and keys do."""
        if self.accept.isEnabled():
            self.given.emit(judgement, self.on.currentData() or CASE, self.comment.text().strip())
            self.comment.clear()

    def _structures(self) -> list[str]:
        return [self.on.itemData(row) for row in range(1, self.on.count())]

    def _name(self) -> None:
        what = self.on.currentData() or self._case
        onward = "" if self.on.currentData() else " →"
        self.accept.setText(f"Accept {short(what, 16)}{onward}" if what else "Accept")
