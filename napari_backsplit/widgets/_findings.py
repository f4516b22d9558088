"""The list of what a check found in the open case; a row leads to its place."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import QLabel, QListWidget, QListWidgetItem, QWidget

from napari_backsplit.backend.fusion.findings import Finding, Severity
from napari_backsplit.widgets._layout import bold, fill_column, in_row, push_button
from napari_backsplit.widgets._tools import KEYS

MARKS: dict[Severity, str] = {"error": "✗", "warning": "▲", "info": "i"}
WORDS: dict[Severity, str] = {"error": "must be mended", "warning": "look at it", "info": "to know"}


class Findings(QWidget):
    """What was found, the gravest first.

    Attributes
    ----------
    chosen : Signal
        Emits the Finding to jump to.
    """

    chosen = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._found: tuple[Finding, ...] = ()
        self.title = bold("Findings")
        self.next = push_button("Jump to next", f"{KEYS['finding'][1]} ({KEYS['finding'][0]})")
        self.none = QLabel()
        self.list = _List()
        self.list.setAccessibleName("Findings")
        fill_column(self, in_row(self.title, self.next), self.none, self.list)
        self.list.itemClicked.connect(lambda item: self._choose(self.list.row(item)))
        self.list.itemActivated.connect(lambda item: self._choose(self.list.row(item)))
        self.next.clicked.connect(self.jump)

    def show_findings(self, found: Sequence[Finding], searched: bool) -> None:
        """Show what was found; `searched` is False while the search goes on."""
        row = self.list.currentRow()
        same = self._found[row] if 0 <= row < len(self._found) else None
        self._found = tuple(found)
        self.list.clear()
        for finding in self._found:
            about = f"{finding.structure}: " if finding.structure else ""
            item = QListWidgetItem(f"{MARKS[finding.severity]} {about}{finding.message}")
            place = "" if finding.position_zyx is None else "\nClick to go there."
            item.setToolTip(f"{WORDS[finding.severity].capitalize()}: {finding.message}{place}")
            self.list.addItem(item)
        if same in self._found:
            self.list.setCurrentRow(self._found.index(same))
        count = f" ({len(self._found)})" if self._found else ""
        self.title.setText(f"Findings{count}")
        self.none.setText("Nothing to look at." if searched else "Looking…")
        self.none.setVisible(not self._found)
        self.list.setVisible(bool(self._found))
        self.next.setEnabled(any(f.position_zyx is not None for f in self._found))

    def jump(self) -> None:
        """Go to the next finding that has a place, after the current one."""
        count = len(self._found)
        for step in range(1, count + 1):
            row = (self.list.currentRow() + step) % count
            if self._found[row].position_zyx is not None:
                self._choose(row)
                return

    def _choose(self, row: int) -> None:
        self.list.setCurrentRow(row)
        self.chosen.emit(self._found[row])


class _List(QListWidget):
    """A list of sentences: they wrap, and a few are seen at once."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setSpacing(1)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumHeight(96)

    def sizeHint(self) -> QSize:
        """Return its least size (asked by Qt)."""
        return QSize(200, self.minimumHeight())
