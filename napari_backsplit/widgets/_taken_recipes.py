"""What recipes set, shown in a form as its defaults: what a person changed there stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from qtpy.QtCore import QObject, Signal

from napari_backsplit.backend.training.recipe_defaults import with_recipes
from napari_backsplit.backend.training.spec import RunSpec
from napari_backsplit.widgets._forms import SpecForm
from napari_backsplit.widgets._layout import short
from napari_backsplit.widgets._recipe_box import RecipeBox

LETTERS = 40


class TakenRecipes(QObject):
    """Keeps the defaults of a form in step with the recipes that are chosen.

    Attributes
    ----------
    changed : Signal
        Other recipes are chosen, and the form shows what they set.
    problem : str
        Why they do not go together; "" where they do.
    """

    changed = Signal()

    def __init__(self, box: RecipeBox, form: SpecForm[RunSpec]) -> None:
        super().__init__(box)
        self._box, self._form = box, form
        self._defaults: dict[str, Any] = {}
        self._shown: tuple[tuple[str, ...], str | None] = ((), None)
        self.problem = ""
        box.changed.connect(self._choose)
        form.value_changed.connect(self._follow)

    def value(self) -> dict[str, Any]:
        """Return the recipes as a field of a run; nothing where none is chosen."""
        names = self._box.value()
        return {"recipe": names} if names else {}

    def title(self, words: str) -> str:
        """Return a title with the chosen recipes behind it."""
        names = self._box.value()
        return f"{words}: {short(', '.join(names), LETTERS)}" if names else words

    def set_defaults(self, defaults: Mapping[str, Any]) -> None:
        """Take other defaults, on top of which the recipes come."""
        self._defaults = {name: defaults[name] for name in defaults if name != "recipe"}
        self._take()

    def _choose(self) -> None:
        self._take()
        self.changed.emit()

    def _follow(self) -> None:
        """Take the defaults that go with the loss that a person chose."""
        if (self._box.value(), self._loss()) != self._shown:
            self._take()

    def _loss(self) -> str | None:
        return str(self._form.editor_value("loss")) if self._form.is_touched("loss") else None

    def _take(self) -> None:
        names, loss = self._box.value(), self._loss()
        self._shown = (names, loss)
        try:
            defaults = with_recipes(self._defaults, names, loss) | {"recipe": names}
            self._form.set_defaults(defaults)
            self.problem = ""
        except ValueError as error:
            self.problem = words_of(error)
        self._box.show_problem(self.problem)


def words_of(error: ValueError) -> str:
    """Return what recipes, or the spec they lead to, refuse: the sentence alone."""
    said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    words = str(said).removeprefix("Value error, ")
    return words[:1].upper() + words[1:]
