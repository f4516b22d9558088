"""The log of a job, in a window of its own: its newest part at once, and any words found in it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QFontDatabase, QKeySequence, QShortcut, QTextCursor
from qtpy.QtWidgets import QCheckBox, QLabel, QLineEdit, QPlainTextEdit, QVBoxLayout, QWidget

from napari_backsplit.backend.jobs.log import PIECE_BYTES, LogPiece, find, line_end, read_piece
from napari_backsplit.widgets._layout import in_row, push_button
from napari_backsplit.widgets._threads import Hop, Lane

FOLLOW_EVERY_MS = 1000


class LogWindow(QWidget):
    """Shows a piece of a log; the pieces before it and the words in it are a button away.

    Parameters
    ----------
    path : Path
        The log; it may not be there yet.
    title : str
        Of the window.
    parent : QWidget, optional
        Whose style it has.
    """

    def __init__(self, path: Path, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent, Qt.WindowType.Window)
        self.setWindowTitle(title)
        self.resize(760, 520)
        self._path = path
        self._hop = Hop(self)
        self._lane = Lane(self._hop, self._failed, "log")
        self._piece = LogPiece()
        self._busy = self._closed = False
        self._build()
        self._connect()
        self.refresh()

    def _build(self) -> None:
        self.text = QPlainTextEdit()
        self.text.setReadOnly(True)
        self.text.setUndoRedoEnabled(False)
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.text.setAccessibleName("Log")
        self.words = QLineEdit()
        self.words.setPlaceholderText("Find in the whole log")
        self.words.setAccessibleName("Find in the whole log")
        self.words.setClearButtonEnabled(True)
        self.next = push_button("Find next", "The next place with these words (Enter, F3)")
        self.earlier = push_button("Earlier", "The part of the log before the one shown")
        self.again = push_button("Refresh", "The newest part of the log, as it is now (F5)")
        self.follow = QCheckBox("Follow")
        self.follow.setToolTip("Show the newest lines as they come, once a second")
        self.follow.setChecked(True)
        self.said = QLabel()
        column = QVBoxLayout(self)
        column.addWidget(in_row(self.words, self.next, self.earlier, self.again, self.follow))
        column.addWidget(self.text, 1)
        column.addWidget(self.said)

    def _connect(self) -> None:
        self.words.returnPressed.connect(self.find_next)
        self.next.clicked.connect(self.find_next)
        self.again.clicked.connect(self.refresh)
        self.earlier.clicked.connect(self.show_earlier)
        self._timer = QTimer(self)
        self._timer.setInterval(FOLLOW_EVERY_MS)
        self._timer.timeout.connect(self._follow)
        self._timer.start()
        keys = {"F3": self.find_next, "F5": self.refresh, "Esc": self.close}
        for key, action in keys.items():
            QShortcut(QKeySequence(key), self, activated=action)
        find_key = QShortcut(QKeySequence(QKeySequence.StandardKey.Find), self)
        find_key.activated.connect(self.words.setFocus)

    # ------------------------------------------------------------------ pieces

    def refresh(self) -> None:
        """Show the newest part."""
        self._do(partial(read_piece, self._path), self._show_end)

    def show_earlier(self) -> None:
        """Show the part before the one that is shown."""
        self.follow.setChecked(False)
        begin = self._piece.begin
        self._do(lambda: read_piece(self._path, begin), self._show_end)

    def _follow(self) -> None:
        if self.follow.isChecked() and self.isVisible() and not self._busy:
            self._do(partial(_newer, self._path, self._piece), self._followed)

    def _followed(self, piece: LogPiece | None) -> None:
        if piece is not None and self.follow.isChecked():
            self._show_end(piece)

    def _show_end(self, piece: LogPiece) -> None:
        self._show(piece)
        self.text.moveCursor(QTextCursor.MoveOperation.End)
        self.text.moveCursor(QTextCursor.MoveOperation.StartOfLine)

    def _show(self, piece: LogPiece) -> None:
        self._piece = piece
        self.text.setPlainText(piece.text)
        self.earlier.setEnabled(piece.begin > 0)
        self.said.setText(_place(piece))

    # ------------------------------------------------------------------ find

    def find_next(self) -> None:
        """Go to the next place with the words; past the end, on from the begin."""
        words = self.words.text()
        if not words:
            return
        self.follow.setChecked(False)
        if self.text.find(words):
            self.said.setText(_place(self._piece))
            return
        self.said.setText("Searching the whole log…")
        after = self._piece.end
        self._do(lambda: _found(self._path, words, after), partial(self._show_found, words))

    def _show_found(self, words: str, piece: LogPiece | None) -> None:
        if piece is None:
            self.said.setText(f"“{words}” is nowhere in the log.")
            return
        self._show(piece)
        if piece.end < self._piece.size or not self.text.find(words):
            self.text.moveCursor(QTextCursor.MoveOperation.End)
            self.text.find(words, self.text.document().FindFlag.FindBackward)

    # ------------------------------------------------------------------ thread

    def _do(self, work: Any, then: Any) -> None:
        if self._closed:
            return
        self._busy = True

        def done(result: Any) -> None:
            self._busy = False
            if not self._closed:
                then(result)

        self._lane.do(work, done)

    def _failed(self, error: BaseException) -> None:
        self._busy = False
        self.said.setText(f"The log cannot be read: {error}.")

    def closeEvent(self, event: Any) -> None:
        """Read no more (called by Qt)."""
        self._closed = True
        self._timer.stop()
        self._lane.close(drop=True)
        super().closeEvent(event)
        self.deleteLater()


def _newer(path: Path, shown: LogPiece) -> LogPiece | None:
    """Return the newest piece; None where nothing was written since."""
    size = path.stat().st_size if path.exists() else 0
    return None if size == shown.size and shown.end == size else read_piece(path)


def _found(path: Path, words: str, after: int) -> LogPiece | None:
    """Return the piece whose last line has the words next."""
    at = find(path, words, after)
    return None if at is None else read_piece(path, line_end(path, at), PIECE_BYTES)


def _place(piece: LogPiece) -> str:
    if not piece.size:
        return "Nothing has been written yet."
    if piece.begin == 0 and piece.end == piece.size:
        return f"All of it: {_size(piece.size)}"
    return f"{_size(piece.begin)} to {_size(piece.end)} of {_size(piece.size)}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.0f} kB"
