"""The history of a project: what was trained, predicted and compared, and what waits for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidgetItem,
    QMenu,
    QPushButton,
    QWidget,
)

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs import Chain
from napari_backsplit.backend.jobs.removal import Removal, put_aside, remove_left
from napari_backsplit.backend.training.space import size_text
from napari_backsplit.widgets._chain_list import ROW, ChainList, fill
from napari_backsplit.widgets._chain_rows import ChainRow, ChainRows, put_before
from napari_backsplit.widgets._layout import (
    bold,
    fill_column,
    in_column,
    in_row,
    push_button,
    short,
)
from napari_backsplit.widgets._threads import Hop, Lane

LOOK_EVERY_MS = 2000
UNDO_MS = 60_000
"""How long a deletion can be taken back; it ends earlier with napari."""

NONE_YET = "Nothing was trained, predicted or compared yet. What is will be listed here."
NONE_FOUND = "Nothing in the history has “{}” in its title, number, state or parameters."


class History(QWidget):  # type: ignore[misc]
    """The chains of a project, the newest first. It looks again every two seconds while seen.

    Attributes
    ----------
    chosen : Signal
        Emits the name of a chain that shall be shown.
    repeat_asked : Signal
        Emits the job that shall be repeated with changes.
    told, failed : Signal
        Emit words, or an error, for the person.
    """

    chosen = Signal(str)
    repeat_asked = Signal(object)
    told = Signal(str)
    failed = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: ChainRows | None = None
        self._reading = self._told = False
        self._wanted = ""
        self._sizes: dict[str, int] = {}
        self._removals: list[tuple[str, Removal]] = []
        hop = Hop(self)
        self._reads = Lane(hop, self.failed.emit, "history")
        self._deeds = Lane(hop, self.failed.emit, "history deeds")
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_EVERY_MS)
        self._timer.timeout.connect(self.refresh)
        self._build()
        self._connect()
        self._show_buttons()

    # ------------------------------------------------------------------ build

    def _build(self) -> None:
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("Search titles, numbers, states, parameters")
        self.filter.setClearButtonEnabled(True)
        self.filter.setAccessibleName("Search the history")
        self.list = ChainList()
        self.empty = QLabel(NONE_YET)
        self.empty.setWordWrap(True)
        top = in_row(bold("History"), self.filter)
        self.acts = in_column(*self._build_buttons())
        fill_column(self, top, self.empty, self.list, self.acts, self._build_undo())
        self.layout().setStretchFactor(self.list, 1)
        self.layout().addStretch(0)  # Takes what is left where there is no list.

    def _build_buttons(self) -> tuple[QWidget, QWidget]:
        self.show_it = push_button("Show", "Show curves, log and result (Enter)")
        self.repeat = push_button("Repeat with changes…", "The same again, with other parameters")
        self.up = push_button("▲", "Earlier in the queue (Ctrl+Up)")
        self.down = push_button("▼", "Later in the queue (Ctrl+Down)")
        self.resume = push_button("Resume", "Go on from the last checkpoint")
        self.cancel = push_button("Cancel", "End it; what is done so far is kept")
        self.delete = push_button("Delete", "Delete it")
        for button, name in ((self.up, "Earlier in the queue"), (self.down, "Later in the queue")):
            button.setAccessibleName(name)
            button.setFixedWidth(34)
        first = in_row(self.show_it, self.repeat, self.up, self.down)
        first.layout().setStretch(1, 1)
        return first, in_row(self.resume, self.cancel, self.delete)

    def _build_undo(self) -> QFrame:
        self.undone = QFrame()
        self.undone.setFrameShape(QFrame.Shape.StyledPanel)
        self.removed = QLabel()
        self.removed.setWordWrap(True)
        self.undo = push_button("Undo", "Take the deletion back; for a minute")
        row = QHBoxLayout(self.undone)
        row.setContentsMargins(6, 2, 2, 2)
        row.addWidget(self.removed, 1)
        row.addWidget(self.undo)
        self.undone.hide()
        return self.undone

    def _connect(self) -> None:
        self.filter.textChanged.connect(self._filter)
        self.list.currentItemChanged.connect(self._select)
        self.list.itemActivated.connect(self.show_it.click)
        self.list.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.list.customContextMenuRequested.connect(self._show_menu)
        for button, act in (
            (self.show_it, lambda row: self.chosen.emit(row.name)),
            (self.repeat, lambda row: self.repeat_asked.emit(job_to_repeat(row.chain))),
            (self.up, partial(self._move, step=-1)),
            (self.down, partial(self._move, step=1)),
            (self.resume, lambda row: self._do(row.chain.go_on)),
            (self.cancel, lambda row: self._do(row.chain.cancel)),
            (self.delete, self._delete),
        ):
            button.clicked.connect(partial(self._act, act))
        self.undo.clicked.connect(self._undo)
        self._keys = [
            self._key("Ctrl+Up", self.up),
            self._key("Ctrl+Down", self.down),
            self._key("Delete", self.delete),
        ]

    def _key(self, key: str, button: QPushButton) -> QShortcut:
        shortcut = QShortcut(QKeySequence(key), self.list)
        shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
        shortcut.activated.connect(button.click)
        return shortcut

    # ------------------------------------------------------------------ what is shown

    def show_project(self, folder: Path | None) -> None:
        """Show the history of a project folder; None for no project."""
        self._rows = ChainRows(folder) if folder else None
        self._sizes.clear()
        self._reading, self._wanted = False, ""
        self._show([])
        if folder:
            self._deeds.do(partial(remove_left, folder))
            self.refresh()

    def refresh(self) -> None:
        """Look again, away from the window's thread; once at a time."""
        rows = self._rows
        if rows is None or self._reading:
            return
        self._reading = True
        self._reads.do(
            rows.read, partial(self._has_read, rows), partial(self._could_not_read, rows)
        )

    def choose(self, name: str) -> None:
        """Select a chain, as soon as it is listed."""
        self._wanted = name
        self._select_wanted()

    def _select_wanted(self) -> None:
        for item in self._items():
            if item.data(ROW).name == self._wanted:
                self._wanted = ""
                self.list.setCurrentItem(item)

    @property
    def row(self) -> ChainRow | None:
        """The row that is selected and seen."""
        item = self.list.currentItem()
        row: ChainRow | None = item.data(ROW) if item and not item.isHidden() else None
        return row

    def _items(self) -> list[QListWidgetItem]:
        return [self.list.item(n) for n in range(self.list.count())]

    def _has_read(self, rows: ChainRows, found: list[ChainRow]) -> None:
        if rows is self._rows:
            self._reading = self._told = False
            self._show(found)

    def _could_not_read(self, rows: ChainRows, error: BaseException) -> None:
        """Say it once and look again: a shared disk may be away for a while."""
        if rows is not self._rows:
            return
        self._reading = False
        if not self._told:
            self._told = True
            self.failed.emit(error)

    def _show(self, rows: list[ChainRow]) -> None:
        """Show rows; the list is made anew only where chains came or went."""
        items = self._items()
        if [item.data(ROW).name for item in items] != [row.name for row in rows]:
            items = self.list.refill([row.name for row in rows], self.row.name if self.row else "")
        now = datetime.now().astimezone()
        for item, row in zip(items, rows, strict=True):
            fill(item, row, now)
        self._select_wanted()
        self._filter()

    def _filter(self) -> None:
        text = self.filter.text().strip()
        words = text.casefold().split()
        for item in self._items():
            item.setHidden(not item.data(ROW).matches(words))
        seen = any(not item.isHidden() for item in self._items())
        self.empty.setText(NONE_FOUND.format(text) if self.list.count() else NONE_YET)
        self.empty.setVisible(not seen)
        for part in (self.filter, self.list, self.acts):
            part.setVisible(self.list.count() > 0)
        self._show_buttons()

    def _select(self) -> None:
        self._show_buttons()
        row = self.row
        if row is not None and row.over and row.name not in self._sizes:
            self._reads.do(row.chain.size_bytes, partial(self._has_size, self._rows, row.name))

    def _has_size(self, rows: ChainRows | None, name: str, size: int) -> None:
        if rows is self._rows:
            self._sizes[name] = size
            self._show_buttons()

    def _show_buttons(self) -> None:
        row = self.row
        self.show_it.setEnabled(row is not None)
        self.repeat.setEnabled(row is not None)
        self.resume.setEnabled(row is not None and row.resumable)
        self.cancel.setEnabled(row is not None and row.cancellable)
        self.delete.setEnabled(row is not None and not row.cancellable)
        places = [item.data(ROW).place for item in self._items()]
        self.up.setEnabled(row is not None and row.place > 1)
        self.down.setEnabled(row is not None and 0 < row.place < max(places))
        size = self._sizes.get(row.name) if row else None
        self.delete.setText("Delete" if size is None else f"Delete · {size_text(size)}")
        frees = "" if size is None else f"; frees {size_text(size)}"
        self.delete.setToolTip(f"Delete it{frees}. It can be taken back for a minute (Delete)")

    def _show_menu(self, where: Any) -> None:
        menu = QMenu(self)
        places = (self.up, self.down)
        for button in (self.show_it, self.repeat, self.resume, self.cancel, *places, self.delete):
            title = button.accessibleName() or button.text()
            menu.addAction(title, button.click).setEnabled(button.isEnabled())
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(self.list.mapToGlobal(where))

    # ------------------------------------------------------------------ act

    def _act(self, act: Callable[[ChainRow], object], _: bool = False) -> None:
        if (row := self.row) is not None:
            act(row)

    def _do(self, deed: Callable[[], object]) -> None:
        """Do something to a chain, away from the window's thread, and look again."""
        self._deeds.do(deed, lambda _: self.refresh())

    def _move(self, row: ChainRow, step: int) -> None:
        """Change places in the queue with the chain before or after."""
        rows = [item.data(ROW) for item in self._items()]
        others = [other for other in rows if other.place and other.place == row.place + step]
        if self._rows is not None and row.place and others:
            pair = (row, others[0]) if step < 0 else (others[0], row)
            chains = [moving.chain for moving in pair]
            self._do(partial(put_before, self._rows.folder, *chains))

    def _delete(self, row: ChainRow) -> None:
        others = [item.data(ROW) for item in self._items()]
        needing = [other for other in others if other.name != row.name and other.needs(row)]
        if needing:
            told = f"“{short(needing[0].title)}” still needs “{short(row.title)}”."
            self.failed.emit(JobError(told, "Cancel it first, or let it end."))
            return
        every = (*row.chain.replaced, *row.chain.jobs)
        self._deeds.do(partial(put_aside, every), partial(self._deleted, row))

    def _deleted(self, row: ChainRow, removal: Removal) -> None:
        size = self._sizes.pop(row.name, None)
        frees = f" ({size_text(size)})" if size is not None else ""
        words = f"Deleted: {short(row.title, 40)}{frees}"
        self._removals.append((words, removal))
        QTimer.singleShot(UNDO_MS, self, partial(self._finish, removal))
        self._show_undo()
        self.refresh()

    def _show_undo(self) -> None:
        self.undone.setVisible(bool(self._removals))
        if self._removals:
            self.removed.setText(self._removals[-1][0])

    def _undo(self) -> None:
        if self._removals:
            _, removal = self._removals.pop()
            self._show_undo()
            self._do(removal.undo)

    def _finish(self, removal: Removal) -> None:
        """Free the space of what was deleted, unless that was taken back."""
        kept = [entry for entry in self._removals if entry[1] is not removal]
        if len(kept) < len(self._removals):
            self._removals = kept
            self._show_undo()
            self._deeds.do(removal.finish)

    # ------------------------------------------------------------------ Qt

    def showEvent(self, event: Any) -> None:
        """Look, and go on looking while it is seen (called by Qt)."""
        super().showEvent(event)
        self.refresh()
        self._timer.start()

    def hideEvent(self, event: Any) -> None:
        """Look no more (called by Qt)."""
        self._timer.stop()
        super().hideEvent(event)

    def close_all(self) -> None:
        """Remove for good what was deleted, and look no more; it does not wait."""
        self._timer.stop()
        for _, removal in list(self._removals):
            self._finish(removal)
        self._reads.close(drop=True)
        self._deeds.close()


def job_to_repeat(chain: Chain) -> Any:
    """Return the link of a chain whose parameters a person is likely to change: its training."""
    trainings = [job for job in chain.jobs if job.spec.task == "train"]
    return (trainings or chain.jobs)[0]
