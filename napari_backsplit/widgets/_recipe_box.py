"""Recipes to tick: the methods of the papers, by kind, and in words what those ticked set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QButtonGroup,
    QCheckBox,
    QGridLayout,
    QLabel,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_backsplit.backend.training.recipe_defaults import what_it_sets
from napari_backsplit.backend.training.recipes import RECIPES, Recipe
from napari_backsplit.widgets._layout import bold

SECTIONS = ("Plans", "Network", "Loss", "Labels", "Controls")
PLAIN = {"Plans": "as planned", "Network": "as planned", "Loss": "Dice + cross-entropy"}
"""Sections of which one recipe is chosen, and what none of them is."""
NONE = "None ticked: nnU-Net's U-Net, its loss, labels of whole voxels."


def section_of(recipe: Recipe) -> str:
    """Return where a recipe is offered."""
    if recipe.plan:
        return "Plans"
    return {"network": "Network", "loss": "Loss", "labels": "Labels"}.get(recipe.kind, "Controls")


def excludes(recipe: Recipe) -> bool:
    """Whether a recipe takes the place of the others of its section."""
    section = section_of(recipe)
    return section in ("Plans", "Network") or (section == "Loss" and "loss" in recipe.run)


def offered(*sections: str) -> list[Recipe]:
    """Return the recipes of some sections; never those that choose the arm: a window does."""
    return [r for r in RECIPES.values() if section_of(r) in sections and "arm" not in r.run]


class RecipeBox(QWidget):
    """Recipes to choose from. It shows what is wrong with them, and does not judge it itself.

    Parameters
    ----------
    recipes : iterable of Recipe
        Those that can be chosen; others that it is told to show stay in its value.

    Attributes
    ----------
    changed : Signal
        Other recipes were chosen.
    """

    changed = Signal()

    def __init__(self, recipes: Iterable[Recipe]) -> None:
        super().__init__()
        self._recipes = {recipe.name: recipe for recipe in recipes}
        self._names: tuple[str, ...] = ()
        self._showing = False
        self.buttons: dict[str, QAbstractButton] = {}
        self.plain: dict[str, QRadioButton] = {}
        self._groups: list[QButtonGroup] = []
        self.said = _wrapped()
        self.wrong = _wrapped()
        self.missing: dict[str, QLabel] = {}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 4)
        column.setSpacing(4)
        for part in (self.said, self.wrong, self._build_sections()):
            column.addWidget(part)
        self.show_problem("")
        self._tell()

    # ------------------------------------------------------------------ build

    def _build_sections(self) -> QWidget:
        inside = QWidget()
        grid = QGridLayout(inside)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(1, 1)
        for section in SECTIONS:
            recipes = [r for r in self._recipes.values() if section_of(r) == section]
            if recipes:
                self._build_section(grid, section, recipes)
        return inside

    def _build_section(self, grid: QGridLayout, section: str, recipes: Sequence[Recipe]) -> None:
        grid.addWidget(bold(section), grid.rowCount(), 0, 1, 2)
        group = QButtonGroup(self)
        self._groups.append(group)
        if section in PLAIN:
            plain = QRadioButton(PLAIN[section])
            plain.setChecked(True)
            plain.setAccessibleName(f"{section}: {PLAIN[section]}")
            group.addButton(plain)
            self.plain[section] = plain
            plain.toggled.connect(self._chosen)
            grid.addWidget(plain, grid.rowCount(), 0, 1, 2)
        for recipe in sorted(recipes, key=excludes, reverse=True):
            self._build_recipe(grid, recipe, group)
        if lacking := _lacking(recipes):
            self.missing[section] = said = _wrapped(lacking)
            said.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            grid.addWidget(said, grid.rowCount(), 0, 1, 2)

    def _build_recipe(self, grid: QGridLayout, recipe: Recipe, group: QButtonGroup) -> None:
        alone = excludes(recipe)
        button: QAbstractButton = QRadioButton(recipe.name) if alone else QCheckBox(recipe.name)
        if alone:
            group.addButton(button)
        button.setAccessibleName(f"{recipe.name}: {recipe.title}")
        title = _Title(recipe.title, button)
        for part in (button, title):
            part.setToolTip(tip_of(recipe))
            part.setEnabled(not recipe.unavailable)
        row = grid.rowCount()
        grid.addWidget(button, row, 0, Qt.AlignmentFlag.AlignTop)
        grid.addWidget(title, row, 1)
        button.toggled.connect(self._chosen)
        self.buttons[recipe.name] = button

    # ------------------------------------------------------------------ value

    def value(self) -> tuple[str, ...]:
        """Return the recipes that are chosen, in the order of the list."""
        return self._names

    def set_value(self, names: Sequence[str]) -> None:
        """Choose recipes."""
        self._showing = True
        for plain in self.plain.values():
            plain.setChecked(True)
        for name, button in self.buttons.items():
            if name in names or isinstance(button, QCheckBox):
                button.setChecked(name in names)
        self._showing = False
        hidden = tuple(name for name in names if name not in self.buttons)
        self._take((*hidden, *self._ticked()))

    def show_problem(self, words: str) -> None:
        """Say why the recipes do not go together; "" where they do."""
        self.wrong.setText(f"▲ {words}")
        self.wrong.setVisible(bool(words))

    # ------------------------------------------------------------------ inside

    def _ticked(self) -> tuple[str, ...]:
        return tuple(name for name, button in self.buttons.items() if button.isChecked())

    def _chosen(self) -> None:
        if not self._showing:
            hidden = tuple(name for name in self._names if name not in self.buttons)
            self._take((*hidden, *self._ticked()))

    def _take(self, names: tuple[str, ...]) -> None:
        if names != self._names:
            self._names = names
            self._tell()
            self.changed.emit()

    def _tell(self) -> None:
        """Say what the chosen recipes set."""
        settings = what_it_sets(*(RECIPES[name] for name in self._names if name in RECIPES))
        self.said.setText(f"They set: {settings}." if settings else NONE)


class _Title(QLabel):
    """What a recipe is, beside its box; a click on it is one on the box."""

    def __init__(self, text: str, button: QAbstractButton) -> None:
        super().__init__(text)
        self.setWordWrap(True)
        self.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.setIndent(0)  # which would move it down as well
        self._button = button

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Tick the recipe (called by Qt)."""
        if event.button() == Qt.MouseButton.LeftButton and self.rect().contains(event.pos()):
            self._button.click()


def tip_of(recipe: Recipe) -> str:
    """Return what a recipe is, where it is from, what it sets, and why it cannot be used."""
    lines = (recipe.title, recipe.source, f"Sets: {what_it_sets(recipe)}", recipe.unavailable)
    return "\n".join(line for line in lines if line)


def _lacking(recipes: Iterable[Recipe]) -> str:
    """Say what is not installed, once for all recipes that need it."""
    lacking: dict[str, list[str]] = {}
    for recipe in recipes:
        if recipe.unavailable:
            lacking.setdefault(recipe.unavailable, []).append(recipe.name)
    return "\n".join(f"{' and '.join(names)}: {why}" for why, names in lacking.items())


def _wrapped(text: str = "") -> QLabel:
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    return label
