"""The legend of the fused map: what wins over what, how much there is of it, what is edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_backsplit.widgets._layout import short, swatch

NAME = Qt.ItemDataRole.UserRole
ROW = 20


@dataclass(frozen=True)
class Entry:
    """A row of the legend.

    Attributes
    ----------
    name, colour : str
    volume, state : str
        As they are shown.
    sources : tuple of Entry
        What a recipe made it of; none for a mask that is fused as it is.
    movable : bool
        A support; targets always win.
    """

    name: str
    colour: str
    volume: str
    state: str
    sources: tuple[Entry, ...] = ()
    movable: bool = True


class Legend(QTreeWidget):
    """The structures in order of priority; rows of supports are dragged.

    Attributes
    ----------
    chosen : Signal
        Emits the name of the mask to edit.
    reordered : Signal
        Emits the names of the supports in their new order.
    """

    chosen = Signal(str)
    reordered = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Fused label map")
        self.setHeaderLabels(["Priority", "In the map", "Review"])
        self.setUniformRowHeights(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setDragDropMode(QAbstractItemView.DragDropMode.InternalMove)
        self.setToolTip("Where masks overlap, the upper row wins. Drag a support to change that.")
        header = self.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for section in (1, 2):
            header.setSectionResizeMode(section, QHeaderView.ResizeMode.ResizeToContents)
        self.currentItemChanged.connect(self._chosen)

    def show_entries(self, entries: Sequence[Entry]) -> None:
        """Show these rows; the same row stays current."""
        current = self.current()
        self.blockSignals(True)
        self.clear()
        for entry in entries:
            item = _item(entry)
            for source in entry.sources:
                item.addChild(_item(source, child=True))
            self.addTopLevelItem(item)
        self.expandAll()
        self.setRootIsDecorated(any(entry.sources for entry in entries))
        self.blockSignals(False)
        self.mark(current)
        rows = sum(1 + len(entry.sources) for entry in entries)
        self.setFixedHeight(self.header().sizeHint().height() + ROW * min(max(rows, 3), 9) + 6)

    def mark(self, name: str) -> None:
        """Show which mask is edited; a support that is made of it and was chosen stays so."""
        item = next((item for item in self._all() if item.data(0, NAME) == name), None)
        if item is not None and item.parent() is not None and item.parent() is self.currentItem():
            return
        self.blockSignals(True)
        self.setCurrentItem(item)
        self.blockSignals(False)

    def current(self) -> str:
        """Return the name of the current row, "" for none."""
        item = self.currentItem()
        return item.data(0, NAME) if item else ""

    def supports(self) -> list[str]:
        """Return the supports as the rows stand."""
        rows = (self.topLevelItem(row) for row in range(self.topLevelItemCount()))
        return [row.data(0, NAME) for row in rows if row.flags() & Qt.ItemFlag.ItemIsDragEnabled]

    def move(self, step: int) -> None:
        """Move the current support one row up (-1) or down (1)."""
        names, current = self.supports(), self.current()
        if current not in names:
            return
        here = names.index(current)
        there = min(max(here + step, 0), len(names) - 1)
        names.insert(there, names.pop(here))
        if there != here:
            self.reordered.emit(names)

    def dropEvent(self, event: Any) -> None:
        """Tell the new order (called by Qt); the rows are shown anew once it holds."""
        before = self.supports()
        super().dropEvent(event)
        after = self.supports()
        if sorted(after) == sorted(before):
            self.reordered.emit(after)

    def _all(self) -> list[QTreeWidgetItem]:
        rows = [self.topLevelItem(row) for row in range(self.topLevelItemCount())]
        return rows + [row.child(number) for row in rows for number in range(row.childCount())]

    def _chosen(self, item: QTreeWidgetItem | None, _: Any = None) -> None:
        if item is not None:
            self.chosen.emit(item.data(0, NAME))


def _item(entry: Entry, child: bool = False) -> QTreeWidgetItem:
    item = QTreeWidgetItem([short(entry.name, 22), entry.volume, entry.state])
    item.setData(0, NAME, entry.name)
    item.setIcon(0, swatch(entry.colour))
    item.setTextAlignment(1, int(Qt.AlignmentFlag.AlignRight))
    item.setToolTip(0, entry.name)
    flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
    item.setFlags(flags | Qt.ItemFlag.ItemIsDragEnabled if entry.movable and not child else flags)
    return item
