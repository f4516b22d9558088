"""Editors of a spec's fields: made from the annotation, with the limits and help of the spec."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Protocol, Union, get_args, get_origin

from magicgui.widgets import CheckBox, create_widget
from psygnal import Signal
from pydantic.fields import FieldInfo
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QLabel, QVBoxLayout, QWidget

from napari_backsplit.widgets._layout import narrow, short
from napari_backsplit.widgets._texts import ways

AUTOMATIC = "automatic"
UNITS = {"mm": "mm", "gb": "GB", "s": "s"}
WORDS = {"lr": "learning rate", "tls": "TLS", "ca": "authority", "cert": "certificate"}
"""What a short word in a field's name stands for."""
MOST = 1_000_000_000
SAID = 24
"""Letters that fit into an empty field."""
LETTERS = 34
"""How many letters of a choice are shown; its tool tip has them all."""

Choices = Sequence[str | tuple[str, str]]
"""Values, or values with the words that stand for them."""


class Editor(Protocol):
    """What edits one value."""

    changed: Any
    native: QWidget

    def raw(self) -> Any:
        """Return what is entered, for the spec to check."""

    def show(self, value: Any) -> None:
        """Show a value."""


def title_of(name: str, info: FieldInfo) -> str:
    """Return the label of a field: the spec's title, or its name with the unit in brackets."""
    if info.title:
        return info.title
    *words, last = name.split("_")
    shown = [WORDS.get(word, word) for word in (words if last in UNITS else (*words, last))]
    text = " ".join((shown[0][:1].upper() + shown[0][1:], *shown[1:]))
    return f"{text} ({UNITS[last]})" if last in UNITS else text


def help_of(info: FieldInfo) -> str:
    """Return the description of a field, with its limits."""
    limits = [words for words in map(_limit, _metadata(info)) if words]
    text = " ".join((info.description or "").split())
    return f"{text} ({', '.join(limits)})" if limits else text


def make_editor(info: FieldInfo, choices: Choices | None = None) -> Editor:
    """Return the editor that a field's annotation asks for."""
    kind, optional = _without_none(info.annotation)
    if choices is not None:
        several = get_origin(kind) is tuple
        return Ticks(choices, _said(info, "empty")) if several else Choice(choices, optional)
    if get_origin(kind) is Literal:
        return Choice([str(value) for value in get_args(kind)], optional)
    if kind is bool and optional:
        return Choice([("yes", "yes"), ("no", "no")], True, {"yes": True, "no": False})
    if kind is bool:
        return Tick()
    if kind is int and not optional:
        return Number(info)
    return Text(*ways(kind, optional), (_said(info, "None") or AUTOMATIC) if optional else "")


class Tick:
    """A check box for yes or no."""

    changed = Signal()

    def __init__(self) -> None:
        self._box = create_widget(annotation=bool)
        self._box.changed.connect(lambda _: self.changed.emit())
        self.native = self._box.native

    def raw(self) -> bool:
        """Return whether it is ticked."""
        return bool(self._box.value)

    def show(self, value: bool) -> None:
        """Tick it or not."""
        self._box.value = value


class Number:
    """A spin box for a whole number between the spec's limits."""

    changed = Signal()

    def __init__(self, info: FieldInfo) -> None:
        low, high = _limits(info)
        self._box = create_widget(annotation=int, options={"min": low, "max": high, "step": 1})
        self._box.changed.connect(lambda _: self.changed.emit())
        self.native = self._box.native

    def raw(self) -> int:
        """Return the number."""
        return int(self._box.value)

    def show(self, value: int) -> None:
        """Show a number."""
        self._box.value = value


class Choice:
    """A list to choose one of."""

    changed = Signal()

    def __init__(
        self, choices: Choices, optional: bool, meaning: Mapping[str, Any] | None = None
    ) -> None:
        self._optional, self._meaning = optional, dict(meaning or {})
        self._box: QComboBox = narrow(QComboBox())
        self.native = self._box
        self.set_choices(choices)
        self._box.currentIndexChanged.connect(lambda _: self.changed.emit())

    def set_choices(self, choices: Choices) -> None:
        """Offer other choices; the present one stays."""
        present = self._box.currentData() if self._box.count() else None
        blocked = self._box.blockSignals(True)
        self._box.clear()
        if self._optional:
            self._box.addItem(AUTOMATIC, None)
        for value, words in _pairs(choices):
            self._box.addItem(short(words, LETTERS), value)
            tip = words if len(words) > LETTERS else None
            self._box.setItemData(self._box.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self._box.blockSignals(blocked)
        if present is not None:
            self._select(present)

    def raw(self) -> Any:
        """Return the value that is chosen."""
        chosen = self._box.currentData()
        return self._meaning.get(chosen, chosen)

    def show(self, value: Any) -> None:
        """Choose a value; one that is not offered is added."""
        words = {self._meaning[key]: key for key in self._meaning}
        self._select(words.get(value, value))

    def _select(self, value: Any) -> None:
        if self._box.findData(value) < 0:
            self._box.addItem(str(value), value)
        self._box.setCurrentIndex(self._box.findData(value))


class Text:
    """A line to type in; what is typed stays, whether it can be used or not.

    Parameters
    ----------
    read : callable
        Turns the text into what the spec checks.
    write : callable
        Turns a value into text.
    empty : str
        What an empty line means.
    """

    changed = Signal()

    def __init__(
        self, read: Callable[[str], Any], write: Callable[[Any], str], empty: str = ""
    ) -> None:
        self._read, self._write = read, write
        self._line = create_widget(annotation=str)
        self._line.changed.connect(lambda _: self.changed.emit())
        self.native = self._line.native
        self.native.setPlaceholderText(empty)

    def raw(self) -> Any:
        """Return what is typed."""
        return self._read(str(self._line.value))

    def show(self, value: Any) -> None:
        """Show a value."""
        self._line.value = self._write(value)


class Ticks:
    """A check box for each of some names; the value is the names that are ticked, in order.

    Parameters
    ----------
    choices : sequence
        What can be ticked.
    empty : str
        What it means that nothing is.
    """

    changed = Signal()

    def __init__(self, choices: Choices, empty: str = "") -> None:
        self._empty = empty
        self.native = QWidget()
        self._column = QVBoxLayout(self.native)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(1)
        self._boxes: dict[str, Any] = {}
        self._value: tuple[str, ...] = ()
        self.none = QLabel()
        self.none.setEnabled(False)
        self._column.addWidget(self.none)
        self.set_choices(choices)

    def set_choices(self, choices: Choices) -> None:
        """Offer other names; those that are ticked stay."""
        for box in self._boxes.values():
            self._column.removeWidget(box.native)
            box.native.hide()
            box.native.deleteLater()
        self._boxes = {}
        for name, words in _pairs(choices):
            self._add(name, words)
        self.show(self._value)

    def raw(self) -> tuple[str, ...]:
        """Return the names that are ticked."""
        return self._value

    def show(self, value: Sequence[str]) -> None:
        """Tick some names; one that is not offered is added."""
        self._value = tuple(value)
        for name in self._value:
            if name not in self._boxes:
                self._add(name, name)
        for name, box in self._boxes.items():
            with box.changed.blocked():
                box.value = name in self._value
        self._show_none()
        self.changed.emit()

    def _add(self, name: str, words: str) -> None:
        box: Any = create_widget(annotation=bool, widget_type=CheckBox, options={"text": words})
        box.changed.connect(lambda _: self._ticked())
        box.native.setAccessibleName(words)
        self._boxes[name] = box
        self._column.addWidget(box.native)

    def _ticked(self) -> None:
        self._value = tuple(name for name, box in self._boxes.items() if box.value)
        self._show_none()
        self.changed.emit()

    def _show_none(self) -> None:
        """Say what it means that nothing is ticked."""
        self.none.setText(f"none ticked: {self._empty}" if self._boxes else "none there yet")
        self.none.setVisible(not self._boxes or (not self._value and bool(self._empty)))


def settle(widget: QWidget) -> None:
    """Keep a turn of the wheel over a field for the panel that scrolls, not for the value."""
    for part in (widget, *widget.findChildren(QWidget)):
        if isinstance(part, QComboBox | QAbstractSpinBox):
            part.setFocusPolicy(Qt.FocusPolicy.StrongFocus)


# ---------------------------------------------------------------------- annotations


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """Return an annotation without its None and limits, and whether None was there."""
    if get_origin(annotation) in (Union, UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        optional = len(rest) < len(get_args(annotation))
        return (_bare(rest[0]), optional) if len(rest) == 1 else (annotation, optional)
    return _bare(annotation), False


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _metadata(info: FieldInfo) -> list[Any]:
    """Return the limits of a field, also those that stand beside a None."""
    found = list(info.metadata)
    for part in get_args(info.annotation):
        for item in getattr(part, "__metadata__", ()):
            found += item.metadata if isinstance(item, FieldInfo) else [item]
    return found


def _limit(item: Any) -> str:
    for name, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most")):
        value = getattr(item, name, None)
        if value is not None:
            return f"{words} {value:g}"
    return ""


def _limits(info: FieldInfo) -> tuple[int, int]:
    low, high = -MOST, MOST
    for item in _metadata(info):
        low = max(low, getattr(item, "ge", low), getattr(item, "gt", low - 1) + 1)
        high = min(high, getattr(item, "le", high))
    return low, high


def _said(info: FieldInfo, value: str) -> str:
    """Return what the description says that None, or empty, means: "as planned", "all"."""
    text = " ".join((info.description or "").split())
    found = re.search(rf"\b{value}: ([^.;]+)", text)
    said = found.group(1) if found else ""
    return said if len(said) <= SAID else said.partition(",")[0]


def _pairs(choices: Choices) -> list[tuple[str, str]]:
    return [(item, item) if isinstance(item, str) else item for item in choices]
