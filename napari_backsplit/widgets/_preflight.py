"""What speaks for a training and against it: one line each, with the remedy as a button."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_backsplit.widgets._folding import Folded

if TYPE_CHECKING:
    from napari_backsplit.backend.training.checks import Check

MARKS = {"passed": "✓", "warned": "▲", "refused": "✗"}
LEVELS = {"passed": "passed", "warned": "warning", "refused": "refused"}
REMEDIES = {
    "reserve": "Reserve…",
    "declare unseen": "It never saw them",
    "include unreviewed": "Use them all",
    "accept unfit": "Use it anyway",
    "fewer folds": "Folds…",
    "fewer supports": "Supports…",
    "fewer workers": "No workers",
    "other device": "Device…",
    "smaller batch": "Batch…",
    "more epochs": "Longer…",
    "no tracker": "No tracker",
    "review": "Review",
}
"""What the button of an action reads."""


class CheckList(QWidget):
    """The checks before a training; those that refuse it are always seen.

    Attributes
    ----------
    action_wanted : Signal
        Emits the action of a check whose button was pressed.
    """

    action_wanted = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._grave, self._rest = QWidget(), QWidget()
        for part in (self._grave, self._rest):
            column = QVBoxLayout(part)
            column.setContentsMargins(0, 0, 0, 0)
            column.setSpacing(2)
        self.folded = Folded("", self._rest, "Everything that was looked at before it begins")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(self._grave)
        column.addWidget(self.folded)
        self._shown: tuple[Check, ...] | None = None
        self.show_checks(())

    def show_checks(self, checks: Sequence[Check]) -> None:
        """Show some checks; none hide the list."""
        if tuple(checks) == self._shown:
            return
        self._shown = tuple(checks)
        grave = [check for check in checks if check.level == "refused"]
        rest = [check for check in checks if check.level != "refused"]
        rest.sort(key=lambda check: check.level == "passed")
        self._fill(self._grave, grave)
        self._fill(self._rest, rest)
        self._grave.setVisible(bool(grave))
        self.folded.set_title(summary(checks))
        self.folded.setVisible(bool(rest))

    def _fill(self, part: QWidget, checks: Sequence[Check]) -> None:
        layout = part.layout()
        while layout.count():
            old = layout.takeAt(0).widget()
            old.hide()
            old.deleteLater()
        for check in checks:
            layout.addWidget(self._line(check))

    def _line(self, check: Check) -> QWidget:
        line = QWidget()
        row = QHBoxLayout(line)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        mark = QLabel(MARKS[check.level])
        mark.setAccessibleName(LEVELS[check.level])
        mark.setToolTip(LEVELS[check.level])
        name = check.name[:1].upper() + check.name[1:]
        text = QLabel(f"{name}: {check.text} {_spoken(check.remedy)}".strip())
        text.setWordWrap(True)
        text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        row.addWidget(mark, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(text, 1)
        if check.action in REMEDIES and check.level != "passed":
            button = QPushButton(REMEDIES[check.action])
            button.setToolTip(_spoken(check.remedy))
            button.clicked.connect(lambda: self.action_wanted.emit(check.action))
            row.addWidget(button, 0, Qt.AlignmentFlag.AlignTop)
        return line


def summary(checks: Sequence[Check]) -> str:
    """Say how many checks came out how: "9 checks passed, 2 warnings"."""
    counts = Counter(check.level for check in checks)
    parts = [f"{counts['passed']} check{'s' * (counts['passed'] != 1)} passed"]
    if counts["warned"]:
        parts.append(f"{counts['warned']} warning{'s' * (counts['warned'] != 1)}")
    return ", ".join(parts)


def _spoken(remedy: str) -> str:
    """Return a remedy without what is typed in a terminal."""
    return re.sub(r":\s*backsplit [^.;]*(?:\d\.\d+)?$", ".", re.sub(r"\s*\(--[^)]*\)", "", remedy))
