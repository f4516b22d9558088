"""Asks what is to be changed where a job is done again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import BaseModel, ValidationError
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.jobs import Job
from napari_backsplit.backend.training.recipe_defaults import exchanged
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.widgets._folding import Folded
from napari_backsplit.widgets._forms import SpecForm
from napari_backsplit.widgets._layout import scrolling
from napari_backsplit.widgets._recipe_box import SECTIONS, RecipeBox, offered
from napari_backsplit.widgets._run_settings import BUDGET, GROUPS, METHODS, RECIPES
from napari_backsplit.widgets._taken_recipes import words_of

SPECS: dict[str, type[BaseModel]] = {"run": RunSpec, "plan": PlanSpec}
"""Parameter of a job -> what it holds."""

KEPT = ("plan_set", "baseline", "baseline_checkpoint", "same_epochs_as", "name", "label_mapping")
"""What a repetition leaves alone: it would be another comparison."""

OPEN = ("What", "How long", "Plan")
REST = "Head"
NOTHING = "Nothing can be changed; it is done again as it was: "
AS_JSON = "As JSON: a text in quotes, true, false, null, a number or a list."


class RepeatDialog(QDialog):  # type: ignore[misc]
    """A form of what a job was told; its value is what was changed.

    Parameters
    ----------
    title : str
        Of the job.
    params : mapping
        Its parameters. A run and a plan are shown as forms, of anything else each parameter is a
        line.
    """

    def __init__(
        self, title: str, params: Mapping[str, Any], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Repeat with changes")
        self.forms: dict[str, SpecForm[Any]] = {}
        self._before: dict[str, BaseModel] = {}
        self._problem = ""
        self.lines = ParamLines({})
        words = QLabel(f"{title}: change what shall be different." if params else NOTHING + title)
        words.setWordWrap(True)
        words.setTextFormat(Qt.TextFormat.PlainText)
        column = QVBoxLayout(self)
        column.addWidget(words)
        column.addWidget(scrolling(self._build_forms(params)), 1)
        column.addWidget(self._build_buttons())
        self.resize(440, 560 if params else 120)

    def _build_forms(self, params: Mapping[str, Any]) -> QWidget:
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 0, 0)
        for name, spec in SPECS.items():
            if name in params and _fits(spec, params[name]):
                self.forms[name] = form = _form(spec, params[name])
                self._before[name] = before = form.spec()
                form.value_changed.connect(self._show)
                if isinstance(before, RunSpec):
                    column.addWidget(self._build_recipes(before))
                column.addWidget(form.top)
                for title, group in form.groups.items():
                    folded = Folded(title, group)
                    folded.set_open(title in OPEN)
                    column.addWidget(folded)
        if not self.forms:
            self.lines = ParamLines(params)
            self.lines.changed.connect(self._show)
            column.addWidget(self.lines)
        column.addStretch(1)
        return inside

    def _build_recipes(self, run: RunSpec) -> QWidget:
        sections = SECTIONS[2:] if run.baseline is not None else SECTIONS[1:]
        self.recipes = RecipeBox(offered(*sections))
        self.recipes.set_value(run.recipe)
        self.recipes.changed.connect(partial(self._take_recipes, run))
        return Folded(RECIPES, self.recipes, METHODS)

    def _take_recipes(self, run: RunSpec) -> None:
        """Show what other recipes set; what was set beside the old ones stays."""
        self._problem = ""
        try:
            self.forms["run"].set_defaults(exchanged(run, self.recipes.value()))
        except ValueError as error:
            self._problem = words_of(error)
        self.recipes.show_problem(self._problem)
        self._show()

    def _build_buttons(self) -> QDialogButtonBox:
        kinds = QDialogButtonBox.StandardButton
        buttons = QDialogButtonBox(kinds.Ok | kinds.Cancel)
        self.ok = buttons.button(kinds.Ok)
        self.ok.setText("Queue it")
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        return buttons

    def value(self) -> dict[str, Any]:
        """Return the changes, as the parameters of a job hold them.

        Raises
        ------
        InputError
            What is entered cannot be used.
        """
        changes = {name: _changes(form, self._before[name]) for name, form in self.forms.items()}
        return {name: changed for name, changed in changes.items() if changed} | self.lines.value()

    def _show(self) -> None:
        valid = self.lines.valid and all(form.valid for form in self.forms.values())
        self.ok.setEnabled(valid and not self._problem)


class ParamLines(QWidget):  # type: ignore[misc]
    """A line for each parameter of a task that has no form of its own.

    Attributes
    ----------
    changed : Signal
        Something was entered.
    """

    changed = Signal()

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__()
        self._params = dict(params)
        self.lines: dict[str, QLineEdit] = {}
        self.said = QLabel()
        self.said.setWordWrap(True)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for name, value in self._params.items():
            self.lines[name] = line = QLineEdit(_text(value))
            line.setCursorPosition(0)
            line.setToolTip("" if isinstance(value, str) else AS_JSON)
            line.textChanged.connect(self._entered)
            form.addRow(name.replace("_", " ").capitalize(), line)
        form.addRow(self.said)
        self.said.hide()

    @property
    def valid(self) -> bool:
        """Whether what is entered can be used."""
        return not self._problem()

    def value(self) -> dict[str, Any]:
        """Return the parameters that were changed.

        Raises
        ------
        InputError
            A line is no JSON.
        """
        entered = {name: self._value_of(name) for name in self.lines}
        return {name: value for name, value in entered.items() if value != self._params[name]}

    def _value_of(self, name: str) -> Any:
        text = self.lines[name].text().strip()
        if isinstance(self._params[name], str):
            return text
        try:
            return json.loads(text)
        except ValueError:
            raise InputError(f"{name}: {text!r} cannot be read.", AS_JSON) from None

    def _problem(self) -> str:
        try:
            self.value()
        except InputError as error:
            return str(error)
        return ""

    def _entered(self) -> None:
        problem = self._problem()
        self.said.setText(f"▲ {problem}")
        self.said.setVisible(bool(problem))
        self.changed.emit()


def ask_changes(job: Job, parent: QWidget) -> dict[str, Any] | None:
    """Ask what is to be changed in a job; None where the person thinks better of it."""
    dialog = RepeatDialog(job.spec.title or job.id, job.spec.params, parent)
    accepted = dialog.exec() == QDialog.DialogCode.Accepted
    changes = dialog.value() if accepted else None
    dialog.deleteLater()
    return changes


def _fits(spec: type[BaseModel], values: Any) -> bool:
    """Whether parameters still are a spec: those of an older version may not be."""
    try:
        spec.model_validate(values)
    except ValidationError:
        return False
    return True


def _form(spec: type[BaseModel], values: Mapping[str, Any]) -> SpecForm[Any]:
    names = [name for name in spec.model_fields if name not in KEPT]
    if spec is not RunSpec:
        return SpecForm(spec, {"Plan": names}, values)
    known = {"recipe"}.union(*GROUPS.values())
    rest = [name for name in names if name not in known]
    return SpecForm(spec, GROUPS | {REST: rest}, values, either=BUDGET)


def _changes(form: SpecForm[Any], before: BaseModel) -> dict[str, Any]:
    after: BaseModel = form.spec()
    changed = {name for name, value in after if value != getattr(before, name)}
    return after.model_dump(mode="json", include=changed)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
