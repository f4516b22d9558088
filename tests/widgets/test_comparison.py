"""The comparison panel: what is compared, what is begun, what is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from napari_backsplit.backend.answer import CONTROL_WORDS
from napari_backsplit.backend.comparison.agreement import CLASSES, CLASSES_WITHOUT_REFERENCE
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.jobs import State, submit
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.spec import Record, now
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.shown import TableRow
from napari_backsplit.backend.volume import Volume
from napari_backsplit.widgets import _result_files
from napari_backsplit.widgets._case_layers import CaseLayers
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._result import NONE_YET
from napari_backsplit.widgets._tools import LOOKING, Tools
from napari_backsplit.widgets.comparison import ComparisonPanel
from tests.backend.structures.drawing import SHAPE, make_project
from tests.widgets.comparing_support import (
    BASE,
    CONTROL,
    MODELS,
    OURS,
    TABLE,
    VERDICT,
    Backend,
    Listening,
    result,
)


@dataclass
class Shown:
    """The panel with a project on the desk, the backend that answers it, layers that listen."""

    bot: QtBot
    desk: Desk
    tools: Tools
    panel: ComparisonPanel
    layers: Listening
    backend: Backend
    told: list[str]
    failed: list[Any]

    def until(self, condition: Callable[[], object]) -> None:
        self.bot.waitUntil(lambda: bool(condition()), timeout=10_000)

    def open(self, folder: Path, **options: Any) -> None:
        self.desk.open_project(lambda: Project.open(folder, **options))
        self.until(lambda: self.desk.annotation is not None)
        self.panel.set_active(True)
        self.ready()

    def ready(self) -> None:
        """Wait until what is chosen is worked out."""
        comparing = self.panel.comparing
        self.until(lambda: comparing.proposal is not None or comparing.error)

    def asked_anew(self, act: Callable[[], object]) -> Any:
        """Act, wait until it is asked about, and return what was asked."""
        count = len(self.backend.asked)
        act()
        self.until(lambda: len(self.backend.asked) > count)
        self.ready()
        return self.backend.asked[-1]

    def at(self, case: str) -> bool:
        return self.desk.annotation is not None and self.desk.annotation.case == case

    @property
    def reason(self) -> str:
        return self.panel.choosing.reason.text()


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of four cases, closed."""
    with make_project(tmp_path, cases=4) as project:
        for case in project.case_ids():
            lesion = Volume(np.zeros(SHAPE, bool), project.geometry(case))
            project.set_mask(case, "lesion", lesion, {"engine": "drawn"})
        return project.folder


@pytest.fixture
def shown(qtbot: QtBot, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    desk, viewer = Desk(), ViewerModel()
    tools = Tools(viewer, desk, CaseLayers(viewer, desk))
    layers = Listening()
    panel = ComparisonPanel(viewer, desk, tools, backend.ways(), layers)
    qtbot.addWidget(panel)
    panel.show()
    told: list[str] = []
    failed: list[Any] = []
    desk.told.connect(told.append)
    desk.failed.connect(failed.append)
    yield Shown(qtbot, desk, tools, panel, layers, backend, told, failed)
    backend.gate.set()
    panel.close_all()
    desk.close()


# ---------------------------------------------------------------- what is compared


def test_the_suggested_models_and_the_held_out_cases_are_chosen(shown: Shown, folder: Path) -> None:
    shown.open(folder)
    asked = shown.backend.asked[-1]
    assert list(asked.models.items()) == [("base", BASE), ("ours", OURS), ("control", CONTROL)]
    assert (asked.baseline, asked.cases) == ("base", ("case_001", "case_002"))
    box = shown.panel.choosing
    assert (box.baseline.currentData(), box.new.currentData()) == (BASE, OURS)
    assert box.others.ticked() == [CONTROL]
    assert box.cases.currentText() == "Held-out test cases (2)"
    assert "2 cases" in box.sentence.text()
    assert box.button.isEnabled()


def test_other_models_cases_and_settings_are_asked_about(shown: Shown, folder: Path) -> None:
    shown.open(folder)
    box = shown.panel.choosing
    other = box.others.item(0)
    asked = shown.asked_anew(lambda: other.setCheckState(Qt.CheckState.Unchecked))
    assert list(asked.models) == ["base", "ours"]
    asked = shown.asked_anew(lambda: _choose(box.cases, "unlabelled"))
    assert asked.cases == ("case_004",)
    assert "without a reference" in box.sentence.text()
    assert box.button.text() == "Predict"
    asked = shown.asked_anew(lambda: box.form.set_value({"step_size": 0.25}))
    assert asked.settings["step_size"] == 0.25
    assert asked.settings["device"] == "cuda:0"  # the fastest of the machine


def test_cases_are_chosen_one_by_one_from_those_meant_before(shown: Shown, folder: Path) -> None:
    shown.open(folder)
    box = shown.panel.choosing
    asked = shown.asked_anew(lambda: _choose(box.cases, "chosen"))
    assert asked.cases == ("case_001", "case_002")
    shown.until(lambda: box.picked.count() == 4)
    box.filter.setText("004")
    asked = shown.asked_anew(box.all.click)
    assert asked.cases == ("case_001", "case_002", "case_004")
    box.filter.clear()
    shown.backend.error = InputError("No case is chosen.", "Choose cases.")
    shown.asked_anew(box.none.click)
    assert "No case is chosen" in shown.reason


def test_a_model_chosen_twice_changes_places(shown: Shown, folder: Path) -> None:
    shown.open(folder)
    asked = shown.asked_anew(lambda: _choose(shown.panel.choosing.baseline, OURS))
    assert list(asked.models)[:2] == ["ours", "base"]
    assert asked.baseline == "ours"


def test_the_button_says_why_it_cannot_be_pressed(
    shown: Shown, folder: Path, backend: Backend
) -> None:
    backend.error = InputError("ours takes the channels CT, PET.", "Choose another model.")
    shown.open(folder)
    assert "CT, PET" in shown.reason
    assert not shown.panel.choosing.button.isEnabled()


def test_a_project_without_models_says_where_to_get_one(
    shown: Shown, folder: Path, backend: Backend
) -> None:
    backend.choices = ()
    shown.desk.open_project(lambda: Project.open(folder))
    shown.until(lambda: shown.desk.annotation is not None)
    shown.panel.set_active(True)
    shown.until(lambda: "step 3" in shown.reason)
    assert shown.panel.result.empty.text() == NONE_YET


def test_a_project_open_to_read_only_is_looked_at_and_not_changed(
    shown: Shown, folder: Path, backend: Backend
) -> None:
    backend.add(result())
    with Project.open(folder):
        shown.open(folder, read_only=True)
        assert "read only" in shown.reason
        assert not shown.panel.choosing.button.isEnabled()
        shown.until(lambda: shown.panel.comparing.shown is not None)
        shown.until(lambda: shown.layers.last("show") is not None)


def test_what_has_to_be_known_stands_above_the_button(
    shown: Shown, folder: Path, backend: Backend
) -> None:
    backend.notes = ("It is not known whether the models were trained on these cases.",)
    shown.open(folder)
    assert "not known" in shown.panel.choosing.notes.text()
    assert shown.panel.choosing.button.isEnabled()


# ---------------------------------------------------------------- begin


def test_a_second_press_begins_nothing(shown: Shown, folder: Path, backend: Backend) -> None:
    shown.open(folder)
    backend.gate.clear()
    button = shown.panel.choosing.button
    shown.bot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert not button.isEnabled()
    shown.panel.comparing.begin()
    backend.gate.set()
    shown.until(lambda: backend.begun)
    shown.until(lambda: "goes on below" in shown.reason)
    assert len(backend.begun) == 1


def test_the_result_opens_once_the_chain_is_over(
    shown: Shown, folder: Path, backend: Backend
) -> None:
    shown.open(folder)
    job = submit(folder, "predict", {"model": "m"}, "compare base and ours", start=False)
    shown.panel._begun(job.id)
    shown.until(lambda: shown.panel.monitor.view is not None)
    assert shown.panel.monitor.isVisible()
    backend.add(result())
    record = Record(state=State.SUCCEEDED, started=now(), ended=now(), result={})
    JobFolder(job.folder).write_record(record)
    shown.until(lambda: shown.panel.comparing.shown is not None)
    assert not shown.panel.monitor.isVisible()
    shown.until(lambda: shown.panel.choosing.button.isEnabled())


def test_a_chain_that_goes_on_is_shown_on_entering(
    shown: Shown, folder: Path, backend: Backend
) -> None:
    backend.going = submit(folder, "predict", {"model": "m"}, "compare", start=False).id
    shown.open(folder)
    shown.until(lambda: shown.panel.monitor.view is not None)
    assert shown.panel.monitor.isVisible()


def test_predictions_that_are_there_are_shown_at_once(
    shown: Shown, folder: Path, backend: Backend
) -> None:
    backend.todo = False
    shown.open(folder)
    shown.asked_anew(lambda: _choose(shown.panel.choosing.cases, "unlabelled"))
    assert shown.panel.choosing.button.text() == "Show the predictions"
    shown.panel.choosing.button.click()
    shown.until(lambda: shown.panel.comparing.shown is not None)
    assert not backend.begun
    assert "Not measured" in shown.panel.result.head.text()
    assert not shown.panel.result.report.isVisible()


# ---------------------------------------------------------------- the result


@pytest.fixture
def looking(shown: Shown, folder: Path, backend: Backend) -> Shown:
    """The panel with a result on the image."""
    backend.add(result("0005-compare", title="earlier"))
    backend.add(result())
    shown.open(folder)
    shown.until(lambda: shown.layers.last("show") is not None)
    return shown


def test_the_newest_result_opens_by_itself_with_its_verdict(looking: Shown) -> None:
    box = looking.panel.result
    assert box.results.currentData() == "0007-compare"
    assert box.head.text() == "✓ Probably better than base"
    assert "+0.05 [0.02, 0.08]" in box.sentence.text()
    assert box.details.text() == "3 lesion cases."
    assert looking.layers.last("show").arms == ("base", "ours")


def test_an_earlier_result_and_another_model_can_be_looked_at(looking: Shown) -> None:
    _choose(looking.panel.result.results, "0005-compare")
    looking.until(lambda: looking.panel.comparing.shown.id == "0005-compare")
    _choose(looking.panel.result.new, "control")
    looking.until(lambda: looking.layers.last("show").arms == ("base", "control"))
    assert looking.panel.table.model.pair.new == "control"


def test_the_report_its_pdf_and_its_folder_are_a_press_away(
    looking: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(_result_files, "open_path", lambda path: bool(opened.append(path)))
    box = looking.panel.result
    for button in (box.report, box.folder, box.pdf):
        button.click()
    looking.until(lambda: len(opened) == 3)
    assert [path.name for path in opened] == ["report.html", "nowhere", "report.pdf"]
    said = "Printed: report.pdf, in the folder of the report. Nothing here opens it: press Folder."
    looking.until(lambda: looking.told[-1] == said)


def test_details_of_two_pairs_stand_under_their_names(looking: Shown, backend: Backend) -> None:
    against = replace(VERDICT, against="control", details=("2 lesion cases.",))
    backend.add(result("0009-compare", verdicts=(VERDICT, against)))
    looking.panel.comparing.look_for_results(newest=True)
    looking.until(lambda: looking.panel.comparing.shown.id == "0009-compare")
    assert looking.panel.result.details.text().splitlines() == [
        "ours against base:",
        "– 3 lesion cases.",
        f"ours against {CONTROL_WORDS}:",
        "– 2 lesion cases.",
    ]


def test_volumes_that_are_counted_stay_while_the_case_does(looking: Shown) -> None:
    looking.layers.read("case_001")
    ml = looking.panel.parts.volumes[1]
    looking.until(lambda: ml.text() == "1.2 ml")
    looking.panel._look_at(looking.panel.target, "ours")  # the same overlay: it is not read again
    assert ml.text() == "1.2 ml"


def test_volumes_come_where_the_image_shows_the_case_first(looking: Shown) -> None:
    looking.layers.read("case_002")  # read ahead: it is there before the panel hears of its case
    looking.desk.open_case("case_002")
    looking.until(lambda: looking.at("case_002"))
    looking.until(lambda: looking.panel.parts.volumes[1].text() == "1.2 ml")


def test_the_panel_is_made_in_turns(shown: Shown, folder: Path, backend: Backend) -> None:
    backend.add(result())
    shown.desk.open_project(lambda: Project.open(folder))
    shown.until(lambda: shown.desk.annotation is not None)
    shown.panel.set_active(True)
    assert not shown.panel._is_made("choosing")
    shown.until(lambda: shown.panel._is_made("figures"))
    assert not shown.panel._is_made("monitor")  # nothing goes on
    assert list(shown.panel.figures.plots) in ([], ["Dice"])


def test_a_step_that_is_left_at_once_is_not_begun(shown: Shown, folder: Path) -> None:
    shown.desk.open_project(lambda: Project.open(folder))
    shown.until(lambda: shown.desk.annotation is not None)
    shown.panel.set_active(True)
    shown.panel.set_active(False)
    shown.bot.wait(50)
    assert shown.layers.last("set_active") is False
    assert not shown.panel._is_made("choosing")


def test_the_headline_takes_the_control_into_account(looking: Shown, backend: Backend) -> None:
    against = replace(VERDICT, against="control", reading="not shown to differ", sentence="So.")
    backend.add(result("0009-compare", verdicts=(VERDICT, against)))
    looking.panel.comparing.look_for_results(newest=True)
    looking.until(lambda: looking.panel.comparing.shown.id == "0009-compare")
    head = looking.panel.result.head.text()
    assert head == f"▲ Not shown to be better than {CONTROL_WORDS}"


def test_an_overlay_that_comes_after_its_project_was_closed_is_dropped(looking: Shown) -> None:
    number = looking.panel._asked_for
    late = looking.layers.last("show")
    looking.desk.close_project()
    assert looking.layers.last("show") is None
    looking.panel._has_overlay(number, late)
    assert looking.layers.last("show") is None


def test_dicom_seg_is_offered_of_a_case_that_came_as_dicom(
    looking: Shown, backend: Backend, tmp_path: Path
) -> None:
    box, files = looking.panel.result, looking.panel.files
    overlay = SimpleNamespace(
        case="case_001", arms=("base", "ours"), predictions={"ours": tmp_path / "p" / "x.nii.gz"}
    )
    files.show_case(overlay)
    answered: list[bool] = []
    files._lane.do(lambda: None, lambda _: answered.append(True))
    looking.until(lambda: answered)
    assert box.seg.isHidden(), "it came as NIfTI"
    backend.dicom = ("case_001",)
    files.show_case(overlay)
    looking.until(lambda: not box.seg.isHidden())
    files._ask_for_file = lambda name: ""
    (action,) = box.seg.menu().actions()
    action.trigger()
    assert not backend.written, "nothing was chosen"
    files._ask_for_file = lambda name: str(tmp_path / "out")
    action.trigger()
    looking.until(lambda: backend.written)
    assert backend.written == [("case_001", tmp_path / "p", tmp_path / "out.dcm")]
    looking.until(lambda: box.seg.isEnabled())
    files.show_case(None)
    assert box.seg.isHidden()


def test_a_row_opens_its_case_and_moves_the_camera(looking: Shown) -> None:
    row = TABLE[3]
    looking.panel.table.go(row)
    looking.until(lambda: looking.at("case_002"))
    looking.until(lambda: looking.layers.last("go_to") == (row.voxel, row.case))
    assert looking.layers.last("show").case == "case_002"
    looking.panel.table.go(TABLE[4])
    assert looking.layers.last("go_to") == (TABLE[4].voxel, TABLE[4].case)


def test_the_case_that_comes_next_is_read_ahead(looking: Shown) -> None:
    looking.panel.table.go(TABLE[0])
    looking.until(lambda: looking.layers.last("look_ahead") is not None)
    assert looking.layers.last("look_ahead").case == "case_002"


def test_a_case_that_is_no_part_of_the_result_gives_way(looking: Shown) -> None:
    looking.desk.open_case("case_004")
    looking.until(lambda: looking.at("case_001"))


def test_a_dot_opens_its_case(looking: Shown) -> None:
    looking.panel.figures.chosen.emit("case_002")
    looking.until(lambda: looking.at("case_002"))
    assert looking.panel.table.here == TABLE[3]


def test_the_legend_shows_and_hides_parts_and_tells_their_volumes(looking: Shown) -> None:
    parts = looking.panel.parts
    looking.layers.read("case_001")
    looking.until(lambda: parts.volumes[7].text() == "1.2 ml")
    assert [tick.text() for tick in parts.parts.values()] == [part.name for part in CLASSES]
    looking.bot.mouseClick(parts.parts[2], Qt.MouseButton.LeftButton, pos=_box(parts.parts[2]))
    assert looking.layers.last("set_part") == (2, False)


def test_a_case_without_a_reference_is_said_to_have_none(looking: Shown) -> None:
    looking.layers.read("case_001", has_reference=False)
    parts = looking.panel.parts
    seen = [number for number, tick in parts.parts.items() if not tick.isHidden()]
    assert seen == [part.number for part in CLASSES_WITHOUT_REFERENCE]
    assert "no reference" in parts.said.text()


def test_the_ways_to_look_are_passed_on(looking: Shown) -> None:
    parts, heard = looking.panel.parts, looking.layers.last
    parts.outlines.click()
    parts.blink.click()
    parts.side.click()
    assert [heard(f"set_{name}") for name in ("outlines", "blink", "side_by_side")] == [
        False,
        True,
        True,
    ]
    parts.swipe.click()
    parts.share.setValue(250)
    assert heard("set_swipe") == 0.25
    parts.swipe.click()
    assert heard("set_swipe") is None
    _choose(parts.probability, "ours")
    assert heard("set_probability") == "ours"
    looking.layers.side_by_side_closed.emit()
    assert not parts.side.isChecked()


# ---------------------------------------------------------------- keys


def test_keys_jump_only_while_the_step_is_shown(looking: Shown) -> None:
    looking.tools.active = False
    looking.panel.table.mark(TABLE[0])
    press = looking.tools._press
    press(LOOKING["disagreement"][0])
    assert looking.panel.table.here == TABLE[1]
    press(LOOKING["false"][0])
    assert looking.panel.table.here == TABLE[2]
    press(LOOKING["case"][0])
    assert looking.panel.table.here == TABLE[3]
    press(LOOKING["blink"][0])
    assert looking.panel.parts.blink.isChecked()
    looking.panel.set_active(False)
    press(LOOKING["disagreement"][0])
    assert looking.panel.table.here == TABLE[3]
    assert looking.tools.tool == "point"


def test_a_click_asks_no_engine_while_comparing(looking: Shown) -> None:
    assert looking.tools.tool == "look"


# ---------------------------------------------------------------- much, long, none


def test_names_of_sixty_letters_do_not_widen_the_dock(
    shown: Shown, folder: Path, backend: Backend
) -> None:
    long = "a-model-with-a-name-of-sixty-letters-that-somebody-thought-of"
    backend.choices = tuple(
        type(model)(**{**model.__dict__, "title": f"{long}-{model.name}"}) for model in MODELS
    )
    arms = (f"{long}-base", f"{long}-ours")
    backend.add(result(arms=arms, controls=(), title=long))
    shown.open(folder)
    shown.until(lambda: shown.panel.comparing.shown is not None)
    inside = shown.panel.result.parentWidget()
    for part in (shown.panel.choosing, shown.panel.result, shown.panel.parts, shown.panel.table):
        assert part.minimumSizeHint().width() <= 340
    assert inside.minimumWidth() == 1


def test_cases_without_a_place_are_opened(shown: Shown, folder: Path, backend: Backend) -> None:
    rows = tuple(TableRow(f"case_{n:03}", "lesion", "no reference") for n in (3, 4))
    backend.add(result(cases=(), unlabelled=("case_003", "case_004"), table=rows, rows=()))
    shown.open(folder)
    shown.until(lambda: shown.at("case_003"))
    assert not shown.panel.figures.isVisible()
    shown.panel.table.step_case(1)
    shown.until(lambda: shown.at("case_004"))
    assert shown.layers.last("go_to") is None


def _choose(box: Any, value: Any) -> None:
    """Choose an entry of a list, as a person does."""
    box.setCurrentIndex(box.findData(value))
    box.activated.emit(box.currentIndex())


def _box(tick: Any) -> Any:
    """Return where the square of a check box is."""
    from qtpy.QtCore import QPoint

    return QPoint(8, tick.height() // 2)
