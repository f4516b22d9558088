"""What supports are made of, as a menu: merge, rename, subtract, grow, and take it back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QPushButton,
    QWidget,
)

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.structures.vocabulary import neutral
from napari_backsplit.widgets._reviewing import Reviewing


class RecipeMenu(QPushButton):
    """The recipes of a project: those that are applied, and new ones."""

    def __init__(self, reviewing: Reviewing) -> None:
        super().__init__("Combine")
        self._reviewing = reviewing
        self.setToolTip("Merge, rename, subtract or grow supports; the masks stay as they are")
        self.setMenu(QMenu(self))
        self._grow = QMenu(self.menu())
        self.menu().aboutToShow.connect(self.fill)

    def show_recipes(self) -> None:
        """Show how many there are; the menu is left alone, as it may be open."""
        project = self._reviewing.desk.project
        count = len(project.schema.recipes) if project else 0
        self.setText(f"Combine ({count})" if count else "Combine")

    def fill(self) -> None:
        """Fill the menu with what can be done now."""
        menu, project = self.menu(), self._reviewing.desk.project
        menu.clear()
        if project is None:
            return
        self._grow.deleteLater()  # of a menu that is cleared, the menus inside stay
        self._grow = QMenu("Grow over its lesions", menu)
        supports = self._reviewing.supports()
        menu.addAction("Merge or rename…", self.ask_merge).setEnabled(bool(supports))
        menu.addAction("Subtract…", self.ask_subtract).setEnabled(bool(supports))
        menu.addMenu(self._grow).setEnabled(bool(supports))
        for name in supports:
            self._grow.addAction(name, partial(self._reviewing.add_recipe, "grow", name))
        if project.schema.recipes:
            menu.addSeparator()
        for number, recipe in enumerate(project.schema.recipes):
            menu.addAction(f"Undo: {recipe.words}", partial(self._reviewing.remove_recipe, number))
        for action in menu.actions():
            action.setEnabled(action.isEnabled() and not project.read_only)

    def ask_merge(self) -> None:
        """Ask which supports become one, and its name."""
        dialog = MergeDialog(self._reviewing.supports(), self)
        if dialog.exec():
            self._reviewing.add_recipe("merge", *dialog.value())

    def ask_subtract(self) -> None:
        """Ask what is to be taken away from which support."""
        project = self._reviewing.desk.project
        targets = project.schema.target_names if project else ()
        dialog = SubtractDialog(self._reviewing.supports(), targets, self)
        if dialog.exec():
            self._reviewing.add_recipe("subtract", *dialog.value())


class MergeDialog(QDialog):
    """Asks for the parts of a support and its name; one part is renamed."""

    def __init__(self, supports: Sequence[str], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Merge or rename")
        self.parts = _Ticks(supports)
        self.name = QLineEdit()
        self.name.setPlaceholderText("such as kidney")
        form = QFormLayout(self)
        form.addRow(QLabel("Tick one to rename it, several to make one of them."))
        form.addRow("Parts", self.parts)
        form.addRow("Becomes", self.name)
        self.buttons = _buttons(self)
        form.addRow(self.buttons)
        self.parts.itemChanged.connect(self._check)
        self.name.textChanged.connect(self._check)
        self._check()

    def value(self) -> tuple[str, list[str]]:
        """Return the name and the parts."""
        return _name(self.name.text()), self.parts.ticked()

    def _check(self) -> None:
        ready = bool(self.parts.ticked() and _name(self.name.text()))
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(ready)


class SubtractDialog(QDialog):
    """Asks from what to take what away."""

    def __init__(
        self, supports: Sequence[str], targets: Sequence[str], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Subtract")
        self._names = (*supports, *targets)
        self.support = QComboBox()
        self.support.addItems(list(supports))
        self.parts = _Ticks(())
        form = QFormLayout(self)
        form.addRow("From", self.support)
        form.addRow("Take away", self.parts)
        self.buttons = _buttons(self)
        form.addRow(self.buttons)
        self.support.currentTextChanged.connect(self._offer)
        self.parts.itemChanged.connect(self._check)
        self._offer()

    def value(self) -> tuple[str, list[str]]:
        """Return the support, and what is taken away."""
        return self.support.currentText(), self.parts.ticked()

    def _offer(self) -> None:
        self.parts.offer([name for name in self._names if name != self.support.currentText()])
        self._check()

    def _check(self) -> None:
        ready = bool(self.parts.ticked())
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(ready)


class _Ticks(QListWidget):
    """Names to tick."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.setMaximumHeight(160)
        self.offer(names)

    def offer(self, names: Sequence[str]) -> None:
        self.clear()
        for name in names:
            item = QListWidgetItem(name)
            item.setCheckState(Qt.CheckState.Unchecked)
            self.addItem(item)

    def ticked(self) -> list[str]:
        items = (self.item(row) for row in range(self.count()))
        return [item.text() for item in items if item.checkState() == Qt.CheckState.Checked]


def _name(text: str) -> str:
    """Return a text as the name of a structure, "" where it is none."""
    try:
        return neutral(text)
    except InputError:
        return ""


def _buttons(dialog: QDialog) -> QDialogButtonBox:
    kinds = QDialogButtonBox.StandardButton
    box = QDialogButtonBox(kinds.Ok | kinds.Cancel)
    box.accepted.connect(dialog.accept)
    box.rejected.connect(dialog.reject)
    return box
