"""What came of a training, in plain words, with the report one press away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFrame, QLabel, QVBoxLayout

from napari_backsplit.widgets._layout import bold, in_row, push_button

HEADS = {True: "✓ Better", False: "▲ Not shown to be better", None: "● No verdict"}
PROBABLY = "✓ Probably better"


class AnswerBox(QFrame):
    """The answer of a chain that is over; hidden while there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._report = Path()
        self.head, self.words = bold(""), QLabel()
        self.words.setWordWrap(True)
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.open = push_button("Open the report", "Every case, figures and tables, in the browser")
        self.open.clicked.connect(self.open_report)
        column = QVBoxLayout(self)
        kept = QLabel("The report shows the predictions case by case; they stay in the project.")
        kept.setWordWrap(True)
        kept.setEnabled(False)
        for part in (self.head, self.words, in_row(self.open, stretch=False), kept):
            column.addWidget(part)
        self.hide()

    def show_answer(self, answer: Any) -> None:
        """Show an answer; None hides the box."""
        self.setVisible(answer is not None)
        if answer is not None:
            probably = answer.better and answer.hedged
            self.head.setText(PROBABLY if probably else HEADS[answer.better])
            self.words.setText(answer.text)
            self._report = Path(answer.report)

    def open_report(self) -> None:
        """Show the report in the browser."""
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._report)))
