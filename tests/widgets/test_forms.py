"""A form made from a spec: what it shows is what it gives back, and what is wrong is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QCheckBox, QLineEdit

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.structures.settings import EngineSettings
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.widgets._forms import SpecForm
from napari_backsplit.widgets._texts import next_time

WORDS = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1)
NAMES = ("kidney", "liver", "spleen", "bowel")
CHOICES = {"supports": NAMES}
BUDGET = {"epochs": "", "hours": "8", "until": "18:00"}
SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    "supports": st.lists(st.sampled_from(NAMES), unique=True).map(tuple),
    "device": st.sampled_from(["cpu", "mps", "cuda", "cuda:3"]),
    "name": st.from_regex(r"[a-z0-9-]+", fullmatch=True),
}


def strategy(annotation: Any) -> st.SearchStrategy[Any]:
    """Return values of an annotation; limits are kept by leaving out what the spec refuses."""
    kind = get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
    parts = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return st.one_of(*(strategy(part) for part in parts))
    if get_origin(kind) is Literal:
        return st.sampled_from(parts)
    if get_origin(kind) is tuple:
        return st.lists(strategy(parts[0]), min_size=1, max_size=3).map(tuple)
    if get_origin(kind) is dict:
        return st.dictionaries(WORDS, WORDS, max_size=3)
    if kind is type(None):
        return st.none()
    plain: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(0, 10_000),
        float: st.floats(0, 1, exclude_min=True),
        str: WORDS,
    }
    if kind in plain:
        return plain[kind]
    zones = st.sampled_from([UTC, datetime.now().astimezone().tzinfo])
    return st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=zones)


def values(spec: type[BaseModel], skip: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, Any]]:
    """Return valid sets of fields of a spec, each unlike its default."""
    fields = {
        name: SPECIAL[name] if name in SPECIAL else strategy(info.annotation)
        for name, info in spec.model_fields.items()
        if name not in skip
    }

    def different(drawn: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in drawn.items() if v != spec.model_fields[k].default}

    return st.fixed_dictionaries({}, optional=fields).map(different).filter(lambda v: fits(spec, v))


def fits(spec: type[BaseModel], value: dict[str, Any]) -> bool:
    try:
        return all(getattr(spec.model_validate(value), k) == v for k, v in value.items())
    except ValidationError:
        return False


@pytest.mark.parametrize("spec", [RunSpec, PlanSpec, EngineSettings])
def test_a_form_gives_back_what_it_was_set_to(qtbot: QtBot, spec: type[BaseModel]) -> None:
    form: SpecForm[BaseModel] = SpecForm(spec, list(spec.model_fields), choices=CHOICES)
    qtbot.addWidget(form)
    some = settings(
        max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much]
    )

    @some
    @given(values(spec))
    def holds(value: dict[str, Any]) -> None:
        form.set_value(value)
        assert form.value() == value

    holds()


@given(st.sampled_from(sorted(BUDGET)), st.data())
@settings(max_examples=50, deadline=None)
def test_of_fields_that_exclude_each_other_one_counts(
    qapp: QApplication, name: str, data: st.DataObject
) -> None:
    form = SpecForm(RunSpec, list(BUDGET), either=BUDGET)
    annotation = RunSpec.model_fields[name].annotation
    chosen = data.draw(strategy(annotation).filter(lambda v: v and fits(RunSpec, {name: v})))
    form.set_value({name: chosen})
    assert form.value() == ({} if chosen == 1000 else {name: chosen})
    form.set_value({})
    assert form.value() == {}
    form.deleteLater()


def make(qtbot: QtBot, *names: str, **options: Any) -> SpecForm[RunSpec]:
    form = SpecForm(RunSpec, names, **options)
    qtbot.addWidget(form)
    form.show()
    return form


def line(form: SpecForm[RunSpec], name: str) -> QLineEdit:
    editor = form.editor(name)
    assert isinstance(editor, QLineEdit)
    return editor


def said(form: SpecForm[RunSpec], name: str) -> str:
    """Return the error that is shown beside a field, "" for none."""
    label = form._errors[name]
    return "" if label.isHidden() else label.text()


def test_labels_help_and_limits_are_the_specs(qtbot: QtBot) -> None:
    form = make(qtbot, "initial_lr", "patience")
    tip = form.editor("patience").toolTip()
    assert "Epochs without a better Dice" in tip
    assert "at least 1" in tip
    assert "more than 0" in form.editor("initial_lr").toolTip()
    assert line(form, "patience").placeholderText() == "it never does"


def test_what_cannot_be_used_is_said_beside_its_field_and_stays(qtbot: QtBot) -> None:
    form = make(qtbot, "initial_lr", "weight_decay")
    line(form, "initial_lr").setText("-1")
    assert "More than 0" in said(form, "initial_lr")
    assert not said(form, "weight_decay")
    assert not form.valid
    with pytest.raises(InputError, match="More than 0"):
        form.value()
    line(form, "initial_lr").setText("a lot")
    assert "number" in said(form, "initial_lr")
    assert line(form, "initial_lr").text() == "a lot"
    line(form, "initial_lr").setText("0.001")
    assert not said(form, "initial_lr")
    assert form.value() == {"initial_lr": 0.001}


def test_fields_that_do_not_go_together_are_said_at_the_top(qtbot: QtBot) -> None:
    form = make(qtbot, "epochs", "warmup_epochs")
    form.set_value({"epochs": 10})
    assert form.top.isHidden()
    form.editor("warmup_epochs").setValue(10)
    assert "10 warmup epochs leave nothing of 10 epochs" in form.top.text()
    assert not form.top.isHidden()
    assert not form.valid


def test_typing_is_never_overwritten_by_new_defaults(qtbot: QtBot) -> None:
    form = make(qtbot, "initial_lr", "patch_size", "epochs")
    line(form, "patch_size").setText("40 x 80 x 80")
    form.set_defaults({"epochs": 250, "initial_lr": 0.003})
    assert line(form, "patch_size").text() == "40 x 80 x 80"
    assert form.value() == {"patch_size": (40, 80, 80)}
    assert form.spec().epochs == 250
    assert line(form, "initial_lr").text() == "0.003"
    line(form, "initial_lr").setText("0.")
    assert line(form, "initial_lr").text() == "0."
    form.set_defaults({"epochs": 300})
    assert line(form, "initial_lr").text() == "0.", "what is half typed is left alone"
    assert line(form, "patch_size").text() == "40 x 80 x 80"


def test_supports_are_ticked_in_the_projects_order(qtbot: QtBot) -> None:
    form = make(qtbot, "supports", choices={"supports": NAMES})
    boxes = {box.text(): box for box in form.editor("supports").findChildren(QCheckBox)}
    assert list(boxes) == list(NAMES)
    boxes["spleen"].click()
    boxes["kidney"].click()
    assert form.value() == {"supports": ("kidney", "spleen")}
    form.set_choices("supports", ("liver", "kidney"))
    assert form.value() == {"supports": ("kidney", "spleen")}, "one that is gone is still seen"


def test_a_change_is_told_once(qtbot: QtBot) -> None:
    form = make(qtbot, "epochs", "initial_lr")
    told: list[bool] = []
    form.value_changed.connect(lambda: told.append(True))
    line(form, "initial_lr").setText("1")
    form.set_value({"epochs": 7, "initial_lr": 0.5})
    assert len(told) == 2


def test_the_wheel_scrolls_the_panel_and_leaves_a_field_that_was_not_clicked(qtbot: QtBot) -> None:
    form = make(qtbot, "epochs", "schedule")
    for name in ("epochs", "schedule"):
        editor = form.editor(name)
        where = QPointF(editor.rect().center())
        turn = QWheelEvent(
            where, editor.mapToGlobal(where), QPoint(), QPoint(0, -240),
            Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase, False,
        )  # fmt: skip
        QApplication.sendEvent(editor, turn)
    assert form.value() == {}


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)), st.times())
def test_a_time_means_its_next_occurrence(now: datetime, at: Any) -> None:
    now = now.replace(tzinfo=UTC)
    meant = next_time(f"{at:%H:%M}", now)
    assert now < meant <= now + timedelta(hours=25)
    assert f"{meant:%H:%M}" == f"{at:%H:%M}"


def test_what_is_no_time_is_said_with_an_example(qtbot: QtBot) -> None:
    form = make(qtbot, "until")
    line(form, "until").setText("tonight")
    assert "18:00" in said(form, "until")
    line(form, "until").setText("7.30")
    assert form.value()["until"] > datetime.now(UTC)
    line(form, "until").setText("")
    assert form.value() == {}
