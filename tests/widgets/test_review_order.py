"""The review where things come late, at the same time, or in another order than asked for."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pytest
from napari.qt import get_stylesheet
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication, QMenu, QScrollArea, QStyle

from napari_backsplit.backend.errors import ProjectError
from napari_backsplit.backend.structures import annotation as annotations
from napari_backsplit.backend.structures.prompts import Bounds, slices
from napari_backsplit.widgets import _desk, _reviewing
from napari_backsplit.widgets.review import ReviewPanel
from tests.backend.structures.drawing import make_project
from tests.widgets.conftest import Window
from tests.widgets.test_review import begin, fused, go_to, looked, make_cohort


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_cohort(tmp_path)


@pytest.fixture
def review(window: Window) -> ReviewPanel:
    begin(window)
    return window.dock.review


@pytest.fixture
def survey(monkeypatch: pytest.MonkeyPatch) -> Held:
    """What surveys go through: held back once they have read the files."""
    held = Held(_reviewing.survey)
    monkeypatch.setattr(_reviewing, "survey", held)
    return held


class Held:
    """A function whose result is held back until it is let go, where that is asked for."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._there, self._go = threading.Event(), threading.Event()
        self._go.set()

    def hold(self) -> None:
        self._go.clear()

    def is_held(self) -> bool:
        return self._there.is_set()

    def let_go(self) -> None:
        self._go.set()

    def __call__(self, *given: Any) -> Any:
        result = self._function(*given)
        if not self._go.is_set():
            self._there.set()
            self._go.wait(10)
        return result


# ---------------------------------------------------------------- states of all cases


def test_a_structure_is_added_while_the_review_is_left(window: Window, review: ReviewPanel) -> None:
    window.dock.steps.button(0).click()
    window.desk.add_structure("spleen")
    window.until(lambda: window.desk.structure == "spleen")
    window.dock.steps.button(1).click()
    looked(window)
    assert review.legend.supports() == ["kidney", "liver", "spleen"]


def test_a_late_survey_does_not_take_a_verdict_back(
    survey: Held, window: Window, review: ReviewPanel
) -> None:
    survey.hold()
    window.dock.steps.button(0).click()
    window.dock.steps.button(1).click()
    window.until(survey.is_held)
    review.reviewing.judge("accepted", [])
    window.until(lambda: review.reviewing.states["case_001"].state == "accepted")
    survey.let_go()
    reviewed(window)
    assert review.reviewing.states["case_001"].state == "accepted"


def test_a_verdict_is_seen_that_is_given_before_the_first_survey_is_there(
    survey: Held, window: Window
) -> None:
    survey.hold()
    window.dock.steps.button(1).click()
    window.until(survey.is_held)
    window.dock.review.reviewing.judge("accepted", [])
    for _ in range(3):
        window.kept()
    survey.let_go()
    looked(window)
    assert window.dock.review.reviewing.states[window.work.case].state == "accepted"


def test_a_late_survey_of_another_project_is_dropped(
    survey: Held, window: Window, review: ReviewPanel, tmp_path: Path
) -> None:
    with make_project(tmp_path / "other", cases=2) as project:
        other = project.folder
    survey.hold()
    window.dock.steps.button(0).click()
    window.dock.steps.button(1).click()
    window.until(survey.is_held)
    window.dock.open_project(other)
    window.until(lambda: window.desk.project.folder == other and window.desk.annotation)
    shown: list[set[str]] = []
    review.reviewing.judged.connect(lambda: shown.append(set(review.reviewing.states)))
    survey.let_go()
    looked(window)
    assert shown
    assert all(cases == {"case_001", "case_002"} for cases in shown)


def test_a_verdict_that_cannot_be_written_is_told_in_the_next_case(
    window: Window, review: ReviewPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **more: Any) -> None:
        raise ProjectError("The disk is full.", "Make room.")

    monkeypatch.setattr(window.desk.project, "judge", fail)
    window.dock.tools.actions["accept"]()
    window.until(lambda: window.desk.annotation and window.work.case == "case_002")
    looked(window)
    assert "The disk is full" in window.dock.said.text()
    assert not window.dock.message.isHidden()


# ---------------------------------------------------------------- the fused map


def test_a_stroke_is_in_the_map_that_is_made_while_it_is_painted(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    fusion = Held(_reviewing._fusion_of)
    monkeypatch.setattr(_reviewing, "_fusion_of", fusion)
    go_to(window, "case_001")
    fusion.hold()
    window.dock.steps.button(1).click()
    window.until(fusion.is_held)
    window.desk.select("liver")
    paint(window, "liver", ((7, 8), (5, 9), (7, 9)))
    fusion.let_go()
    looked(window)
    reviewed(window)
    assert fused(window)("liver") == 64 - 4 * 2 * 4 + 8


def test_what_was_fused_ahead_is_not_shown_after_edits_in_the_first_step(
    window: Window, review: ReviewPanel
) -> None:
    for case in ("case_003", "case_001"):
        go_to(window, case)
        looked(window)
    window.until(lambda: is_ahead(window, "case_002"))
    window.dock.steps.button(0).click()
    go_to(window, "case_002")
    window.desk.select("liver")
    paint(window, "liver", ((7, 8), (5, 9), (7, 9)))
    window.dock.steps.button(1).click()
    looked(window)
    assert fused(window)("liver") == 64 - 4 * 2 * 4 + 8


# ---------------------------------------------------------------- paging


def test_of_cases_that_were_paged_past_nothing_is_read_or_examined(
    window: Window, review: ReviewPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, examined = Told(_desk.load_case), Told(_reviewing.findings_of)
    monkeypatch.setattr(_desk, "load_case", read)
    monkeypatch.setattr(_reviewing, "findings_of", examined)
    busy = threading.Event()
    for lane in (window.desk.files, review.reviewing.examiner):
        lane.do(lambda: busy.wait(10))
    for case in ("case_002", "case_001", "case_003"):
        window.desk.open_case(case)
    busy.set()
    window.until(lambda: window.desk.annotation and window.work.case == "case_003")
    looked(window)
    assert [case for _, case in read.given] == ["case_003"]
    assert {annotation.case for annotation, _ in examined.given} == {"case_003"}


def test_cases_that_were_left_are_not_held(window: Window, review: ReviewPanel) -> None:
    left = []
    gc.collect()
    gc.disable()  # arrays are large, and objects few: it would come late
    try:
        for case in ("case_002", "case_003", "case_001") * 2:
            go_to(window, case)
            looked(window)
            reviewed(window)
            left.append(ref(window.work))
        assert sum(annotation() is not None for annotation in left) <= 2
    finally:
        gc.enable()


def test_a_mask_of_a_new_structure_is_not_read_in_the_windows_thread(
    window: Window, review: ReviewPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for case in ("case_003", "case_001"):
        go_to(window, case)
        looked(window)
    window.until(lambda: is_ahead(window, "case_002"))
    threads: list[str] = []
    real = annotations.load_sheet

    def load(*given: Any) -> Any:
        threads.append(threading.current_thread().name)
        return real(*given)

    monkeypatch.setattr(annotations, "load_sheet", load)
    window.desk.add_structure("spleen")
    window.until(lambda: window.desk.structure == "spleen")
    go_to(window, "case_002")
    looked(window)
    assert threads
    assert "MainThread" not in threads


class Told:
    """A function that notes what it is given."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.given: list[tuple[Any, ...]] = []

    def __call__(self, *given: Any) -> Any:
        self.given.append(given)
        return self._function(*given)


# ---------------------------------------------------------------- strokes and other supports


def test_a_stroke_that_is_refused_is_no_step(window: Window, review: ReviewPanel) -> None:
    window.desk.select("liver")
    paint(window, "liver", ((7, 8), (5, 9), (7, 9)))
    window.desk.turn("undo")
    window.kept()
    paint(window, "liver", ((2, 3), (2, 3), (2, 3)))
    assert not window.work.mask("liver")[2, 2, 2], "the window shows what is kept"
    assert not window.work.can_undo("liver")
    assert window.work.can_redo("liver")


def test_undo_takes_back_what_was_kept_of_a_stroke(window: Window, review: ReviewPanel) -> None:
    before = window.work.kept("liver").copy()
    window.desk.select("liver")
    paint(window, "liver", ((2, 3), (0, 10), (0, 11)))
    window.desk.turn("undo")
    window.kept()
    np.testing.assert_array_equal(window.work.kept("liver"), before)
    np.testing.assert_array_equal(window.work.mask("liver"), before)


def test_a_rejected_mask_locks_nothing(window: Window, review: ReviewPanel) -> None:
    review.reviewing.judge("rejected", ["kidney"])
    window.until(lambda: "kidney" in review.reviewing.fusion.missing)
    window.desk.select("liver")
    paint(window, "liver", ((2, 3), (2, 3), (2, 3)))
    assert window.work.kept("liver")[2, 2, 2]


# ---------------------------------------------------------------- what is chosen


def test_what_a_verdict_is_about_stays_while_masks_come(
    window: Window, review: ReviewPanel
) -> None:
    go_to(window, "case_003")
    looked(window)
    for name, low in (("kidney", 1), ("liver", 5)):
        window.desk.select(name)
        paint(window, name, ((low, low + 1), (1, 3), (1, 3)))
        window.desk.save()
        window.until(lambda name=name: review.verdict.on.findData(name) > 0)
        if name == "kidney":
            review.verdict.on.setCurrentIndex(review.verdict.on.findData("kidney"))
    assert review.verdict.on.currentData() == "kidney"
    go_to(window, "case_002")
    assert review.verdict.on.currentData() == ""


def test_the_row_of_a_merged_support_can_be_chosen_and_moved(
    window: Window, review: ReviewPanel
) -> None:
    window.desk.add_structure("spleen")
    window.until(lambda: window.desk.structure == "spleen")
    review.reviewing.add_recipe("merge", "both", ["kidney", "liver"])
    window.until(lambda: review.legend.supports() == ["both", "spleen"])
    review.legend.setCurrentItem(review.legend.topLevelItem(1))
    assert window.desk.structure == "kidney", "the first of its masks is taken up"
    assert review.legend.current() == "both"
    review.legend.move(1)
    window.until(lambda: review.legend.supports() == ["spleen", "both"])
    reviewed(window)
    assert review.legend.current() == "both"


def test_menus_are_not_kept_when_they_are_filled_anew(window: Window, review: ReviewPanel) -> None:
    for _ in range(5):
        review.recipes.menu().aboutToShow.emit()
    open_now = review.recipes.menu().actions()
    review.reviewing.judged.emit()
    assert review.recipes.menu().actions() == open_now, "a menu that is open is left alone"
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    assert len(review.recipes.menu().findChildren(QMenu)) == 1


def test_long_names_leave_the_panel_narrow(window: Window, review: ReviewPanel) -> None:
    window.dock.setStyleSheet(get_stylesheet("dark"))
    name = "a_structure_with_a_name_of_forty_letters"
    window.desk.add_structure(name)
    window.until(lambda: window.desk.structure == name)
    paint(window, name, ((7, 8), (1, 3), (1, 3)))
    window.desk.save()
    window.until(lambda: review.verdict.on.findData(name) > 0)
    review.verdict.on.setCurrentIndex(review.verdict.on.findData(name))
    inside = review.findChild(QScrollArea).widget()
    bar = review.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
    assert inside.minimumSizeHint().width() + bar <= 348
    assert review.verdict.minimumSizeHint().width() <= 348


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize("step", [0, 1])
def test_the_step_is_changed_while_a_case_is_opened(
    window: Window, review: ReviewPanel, step: int
) -> None:
    window.dock.steps.button(1 - step).click()
    opening = threading.Event()
    window.desk.files.do(lambda: opening.wait(10))
    window.desk.open_case("case_002")
    window.until(lambda: not window.viewer.layers["kidney"].visible)
    window.until(lambda: not window.viewer.layers["fused"].visible)
    window.dock.steps.button(step).click()
    opening.set()
    window.until(lambda: window.desk.annotation)
    if step == 1:
        looked(window)
        assert shown_masks(window) == {window.desk.structure}
        assert window.viewer.layers["fused"].visible
        window.dock.steps.button(0).click()
    assert shown_masks(window) == {"lesion", "kidney", "liver"}
    assert not window.viewer.layers["fused"].visible


def shown_masks(window: Window) -> set[str]:
    layers = window.viewer.layers
    return {name for name in ("lesion", "kidney", "liver") if layers[name].visible}


def test_no_layer_stays_of_a_project_that_is_closed(window: Window, review: ReviewPanel) -> None:
    review.cross.setChecked(True)
    window.desk.close_project()
    assert not list(window.viewer.layers)
    assert not window.dock.layers.guests


def test_layers_that_a_person_takes_away_are_forgotten(window: Window, review: ReviewPanel) -> None:
    review.cross.setChecked(True)
    for name in ("fused", "conflicts", "cross-hair"):
        window.viewer.layers.remove(window.viewer.layers[name])
    assert not window.dock.layers.guests
    go_to(window, "case_002")
    looked(window)
    guests = window.dock.layers.guests
    assert {layer.name for layer in guests} == {"fused", "conflicts", "cross-hair"}
    assert all(layer in window.viewer.layers for layer in guests)


def test_the_cross_hair_is_there_again_with_the_review(window: Window, review: ReviewPanel) -> None:
    review.cross.setChecked(True)
    window.dock.steps.button(0).click()
    assert not window.viewer.layers["cross-hair"].visible
    window.dock.steps.button(1).click()
    assert window.viewer.layers["cross-hair"].visible


def test_the_map_says_of_which_case_it_is(window: Window, review: ReviewPanel) -> None:
    go_to(window, "case_002")
    looked(window)
    assert window.viewer.layers["fused"].metadata["backsplit"]["case"] == "case_002"


def paint(window: Window, name: str, bounds: Bounds) -> None:
    """Paint a box into a mask, and wait until it is kept."""
    box = window.work.mask(name)[slices(bounds)]
    new = box == 0
    box[:] = 1
    window.desk.record(name, bounds, new)
    window.kept()


def is_ahead(window: Window, case: str) -> bool:
    known = window.desk._ahead._annotation
    return known is not None and known.case == case


def reviewed(window: Window) -> None:
    """Wait until what the review's threads were given is done."""
    reviewing = window.dock.review.reviewing
    for lane in (reviewing.fuser, reviewing.examiner):
        done: list[bool] = []
        lane.do(lambda: None, lambda _, done=done: done.append(True))
        window.until(lambda done=done: done)
    window.kept()
