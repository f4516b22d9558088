"""A form made from a typed spec: labels, limits, units and help are written once, in the spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QFormLayout,
    QLabel,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_backsplit.backend.errors import InputError
from napari_backsplit.widgets._fields import (
    Choice,
    Choices,
    Editor,
    Text,
    Ticks,
    help_of,
    make_editor,
    settle,
    title_of,
)
from napari_backsplit.widgets._layout import Wheel

Spec = TypeVar("Spec", bound=BaseModel)
_SAID = {
    "greater_than_equal": "At least {ge:g}.",
    "greater_than": "More than {gt:g}.",
    "less_than_equal": "At most {le:g}.",
    "less_than": "Less than {lt:g}.",
    "int_parsing": "A whole number, please.",
    "int_from_float": "A whole number, please.",
    "float_parsing": "A number, please.",
    "finite_number": "A number, please.",
    "missing": "Needed.",
}


class SpecForm(QWidget, Generic[Spec]):
    """Edits some fields of a spec, and says beside each what is wrong with it.

    Parameters
    ----------
    spec_type : type
        A pydantic model.
    names : sequence of str, or mapping of title to sequence of str
        The fields to edit, in order; a mapping puts them in groups.
    defaults : mapping, optional
        Where they differ from the spec's own.
    choices : mapping of str to sequence, optional
        Field -> what can be chosen, as values or as pairs of value and words.
    either : mapping of str to str
        Fields of which only one counts, each with an example: a radio button stands before it.
    """

    value_changed = Signal()

    def __init__(
        self,
        spec_type: type[Spec],
        names: Sequence[str] | Mapping[str, Sequence[str]],
        defaults: Mapping[str, Any] | None = None,
        *,
        choices: Mapping[str, Choices] | None = None,
        either: Mapping[str, str] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._type, self._either = spec_type, dict(either or {})
        self._default = spec_type.model_validate(dict(defaults or {}))
        self._editors: dict[str, Editor] = {}
        self._errors: dict[str, QLabel] = {}
        self._radios: dict[str, QRadioButton] = {}
        self._touched: set[str] = set()
        self._wheel = Wheel(self)
        self._setting = False
        groups = names if isinstance(names, Mapping) else {"": names}
        self.top = _error_label()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.top)
        self.groups: dict[str, QWidget] = {}
        for title, fields in groups.items():
            self.groups[title] = self._build_group(fields, choices or {})
            column.addWidget(self.groups[title])
        self.set_value({})

    # ------------------------------------------------------------------ build

    def _build_group(self, fields: Sequence[str], choices: Mapping[str, Choices]) -> QWidget:
        group = QWidget()
        form = QFormLayout(group)
        form.setContentsMargins(0, 0, 0, 4)
        form.setVerticalSpacing(4)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for name in fields:
            self._build_field(form, name, choices.get(name))
        return group

    def _build_field(self, form: QFormLayout, name: str, choices: Choices | None) -> None:
        info = self._type.model_fields[name]
        editor = make_editor(info, choices)
        title, tip = title_of(name, info), help_of(info)
        label = self._build_radio(name, title) if name in self._either else QLabel(title)
        for part in (label, editor.native):
            part.setToolTip(tip)
        editor.native.setAccessibleName(title)
        editor.native.setMinimumWidth(60)
        if isinstance(editor, Text) and name in self._either:
            editor.native.setPlaceholderText(self._either[name])
        settle(editor.native)
        for part in (editor.native, *editor.native.findChildren(QWidget)):
            part.installEventFilter(self._wheel)
        self._errors[name] = _error_label()
        form.addRow(label, editor.native)
        form.addRow(self._errors[name])
        self._editors[name] = editor
        editor.changed.connect(partial(self._touch, name))

    def _build_radio(self, name: str, title: str) -> QRadioButton:
        radio = QRadioButton(title)
        self._radios[name] = radio
        radio.setAutoExclusive(True)
        radio.toggled.connect(lambda on: self._touch(name) if on else None)
        return radio

    # ------------------------------------------------------------------ value

    @property
    def valid(self) -> bool:
        """Whether what is entered is a spec."""
        return not self._problems()

    @property
    def problem(self) -> str:
        """What is wrong first, with the name of its field; "" for nothing."""
        for name, words in self._problems().items():
            return f"{self._title(name)}: {words}" if name else words
        return ""

    def spec(self) -> Spec:
        """Return the whole spec that is entered.

        Raises
        ------
        InputError
            A field cannot be used, or fields do not go together.
        """
        if problem := self.problem:
            raise InputError(problem)
        return self._type.model_validate(self._entered())

    def value(self) -> dict[str, Any]:
        """Return the fields that differ from the defaults.

        Raises
        ------
        InputError
            A field cannot be used, or fields do not go together.
        """
        spec = self.spec()
        return {
            name: getattr(spec, name)
            for name in self._editors
            if getattr(spec, name) != getattr(self._default, name)
        }

    def set_value(self, value: Mapping[str, Any]) -> None:
        """Show other values; a field that is not named shows its default."""
        self._touched = set(value)
        self._show({n: value.get(n, getattr(self._default, n)) for n in self._editors}, True)

    def set_defaults(self, defaults: Mapping[str, Any]) -> None:
        """Show other defaults; what a person changed stays as it is, right or wrong."""
        changed = set(self.value()) if self.valid else self._touched
        self._default = self._type.model_validate(dict(defaults))
        self._touched &= changed
        rest = self._editors.keys() - self._touched
        chooses = not self._touched.intersection(self._radios)
        self._show({name: getattr(self._default, name) for name in rest}, chooses)

    def set_choices(self, name: str, choices: Choices) -> None:
        """Offer other choices for a field."""
        editor = self._editors[name]
        if isinstance(editor, Choice | Ticks):
            editor.set_choices(choices)
            for part in editor.native.findChildren(QWidget):
                part.installEventFilter(self._wheel)

    def is_touched(self, name: str) -> bool:
        """Whether a person changed a field, or was shown another value than the default."""
        return name in self._touched

    def editor(self, name: str) -> QWidget:
        """Return what edits a field."""
        return self._editors[name].native

    def editor_value(self, name: str) -> Any:
        """Return what is entered in a field, right or wrong."""
        return self._editors[name].raw()

    # ------------------------------------------------------------------ inside

    def _show(self, values: Mapping[str, Any], chooses: bool) -> None:
        self._setting = True
        for name, value in values.items():
            self._editors[name].show(value)
        if chooses and self._radios:
            self._radios[self._chosen(values)].setChecked(True)
        self._setting = False
        self._edited()

    def _chosen(self, values: Mapping[str, Any]) -> str:
        """Return which of the fields that exclude each other counts: the first means no other."""
        first, *others = self._either
        return next((name for name in others if values.get(name) is not None), first)

    def _touch(self, name: str) -> None:
        if not self._setting:
            self._touched.add(name)
            self._edited()

    def _raw(self, name: str) -> Any:
        """Return what is entered; the default where another of its kind was chosen."""
        if name in self._radios and not self._radios[name].isChecked():
            first = name == next(iter(self._either))
            return getattr(self._default, name) if first else self._type.model_fields[name].default
        raw = self._editors[name].raw()
        if raw is None and name in self._radios:
            raise ValueError("Enter it, or choose another.")
        return raw

    def _entered(self) -> dict[str, Any]:
        entered = {name: getattr(self._default, name) for name in self._type.model_fields}
        return entered | {name: self._raw(name) for name in self._editors}

    def _problems(self) -> dict[str, str]:
        """Return field -> what is wrong with it; "" -> which fields do not go together."""
        found: dict[str, str] = {}
        for name in self._editors:
            try:
                self._raw(name)
            except ValueError as error:
                found[name] = str(error)
        if found:
            return found
        try:
            self._type.model_validate(self._entered())
        except ValidationError as error:
            for item in error.errors():
                name = str(item["loc"][0]) if item["loc"] else ""
                found.setdefault(name if name in self._editors else "", self._words(name, item))
        return found

    def _words(self, name: str, item: Any) -> str:
        if item["type"] in _SAID:
            return _SAID[item["type"]].format(**item.get("ctx", {}))
        if item["type"] == "string_pattern_mismatch" and name:
            return help_of(self._type.model_fields[name])
        words = str(item["msg"]).removeprefix("Value error, ")
        return words[:1].upper() + words[1:]

    def _title(self, name: str) -> str:
        return title_of(name, self._type.model_fields[name])

    def _edited(self) -> None:
        problems = self._problems()
        _say(self.top, problems.get("", ""))
        for name, label in self._errors.items():
            _say(label, problems.get(name, ""))
        for name, radio in self._radios.items():
            self._editors[name].native.setEnabled(radio.isChecked())
        self.value_changed.emit()


def _error_label() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    label.hide()
    return label


def _say(label: QLabel, words: str) -> None:
    label.setText(f"▲ {words}")
    label.setVisible(bool(words))
