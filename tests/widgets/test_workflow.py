from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask.array
import numpy as np
import pytest
from napari.layers import Image, Labels
from qtpy.QtCore import Qt

from napari_backsplit.backend.errors import ProjectError
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures import connection
from napari_backsplit.backend.structures.annotation import Annotation
from napari_backsplit.backend.structures.engines import EngineError
from napari_backsplit.backend.structures.prompts import Point
from napari_backsplit.backend.structures.settings import EngineSettings
from napari_backsplit.backend.volume import Volume, write_volume
from napari_backsplit.widgets import _starting
from napari_backsplit.widgets._engine_settings import EngineDialog
from napari_backsplit.widgets._layers import image_layer
from napari_backsplit.widgets._new_project import NewProject
from tests.backend.structures.drawing import SHAPE, make_project
from tests.widgets.conftest import Window, masks
from tests.widgets.display_support import counted, grid

MIDDLE = Point(at=(4, 4, 4))
CORNER = Point(at=(0, 0, 0))


def drag(window: Window, voxels: list[tuple[float, float, float]], *, modifiers: Any = ()) -> None:
    """Press the mouse on the first canonical voxel, move it over the others, let it go."""
    place = window.dock.layers.place
    assert place is not None
    where = [tuple(place.to_world(voxel)) for voxel in voxels]
    for callback in window.viewer.mouse_drag_callbacks:
        event = SimpleNamespace(
            type="mouse_press", button=1, modifiers=modifiers, position=where[0], pos=np.zeros(2)
        )
        steps = callback(window.viewer, event)
        next(steps, None)
        for number, position in enumerate(where[1:], start=1):
            event.type, event.position, event.pos = "mouse_move", position, np.full(2, 10 * number)
            next(steps, None)
        event.type = "mouse_release"
        next(steps, None)


def can_be_written(folder: Path) -> bool:
    with Project.open(folder, fall_back=True) as project:
        return not project.read_only


def slice_of(window: Window) -> int:
    place = window.dock.layers.place
    assert place is not None
    return int(place.to_index(window.viewer.dims.point)[0])


# --- the first minutes --------------------------------------------------------------------------


def test_without_a_project_the_ways_to_one_are_offered(make_window: Callable[[], Window]) -> None:
    window = make_window()
    assert window.dock.pages.currentIndex() == 0
    assert not window.dock.start.isVisibleTo(window.dock)
    window.viewer.add_layer(Image(np.random.default_rng(0).normal(size=(5, 6, 7)), name="scan"))
    assert window.dock.start.isVisibleTo(window.dock)
    assert "scan" in window.dock.start.text()


def test_a_project_opens_with_its_first_unfinished_case(window: Window) -> None:
    assert window.dock.title.text() == "test · 2 cases"
    assert window.work.case == "case_001"
    assert window.desk.structure == "kidney"
    names = [layer.name for layer in window.viewer.layers]
    assert names == ["CT · case_001", "kidney", "liver", "lesion", "prompts", "drawn"]
    cases = window.dock.panel.worklist.cases
    assert [cases.item(row).text()[:8] for row in range(cases.count())] == ["case_001", "case_002"]
    assert window.dock.panel.accept.text() == "Accept kidney →"


def test_two_clicks_and_accept(window: Window, folder: Path) -> None:
    z = slice_of(window)
    drag(window, [(z, 4, 4)])
    drag(window, [(z, 4, 6)])
    window.answered()
    assert window.work.voxels("kidney") == 27 + 18
    layer = window.dock.layers.labels["kidney"]
    assert layer.data.sum() == 45, "the layer shows it"
    row = window.dock.panel.structures.topLevelItem(0)
    assert (row.text(0), row.text(1), row.text(2)) == ("kidney", "0.27 ml", "to accept")
    window.dock.panel.accept.click()
    window.until(lambda: window.desk.structure == "liver")
    window.kept()
    assert masks(folder) == {"kidney": 45}
    assert "kidney ✓" in window.dock.panel.worklist.cases.item(0).text()
    with Project.open(folder, read_only=True) as project:
        record = project.provenance("case_001", "kidney")
    assert record is not None
    assert (record.engine, record.licence, record.review) == ("cubes", "CC0-1.0", "accepted")
    assert len(record.prompts) == 2


def test_a_structure_is_added_by_any_name(window: Window) -> None:
    window.dock.panel.name.setText("Left psoas!")
    window.dock.panel.add.click()
    window.until(lambda: window.desk.structure == "left_psoas")
    assert "left_psoas" in window.dock.layers.labels
    window.dock.panel.name.setText("kidney")
    window.dock.panel.add.click()
    assert window.desk.structure == "kidney", "one that is there is taken up"
    window.dock.panel.name.setText("!!!")
    window.dock.panel.add.click()
    assert "is no name" in window.dock.said.text()


# --- tools ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["box", "scribble", "lasso"])
def test_what_is_drawn_becomes_a_prompt(window: Window, tool: Any) -> None:
    window.dock.tools.choose(tool)
    assert not window.viewer.scene.camera.mouse_pan, "dragging draws, and does not move the image"
    z = slice_of(window)
    drag(window, [(z, 2, 2), (z, 2, 6), (z, 5, 6), (z, 5, 2)])
    window.answered()
    (prompt,) = (step.prompt for step in window.work.steps("kidney"))
    assert prompt is not None
    assert prompt.kind == tool
    assert prompt.bounds()[0] == (z, z + 1)
    assert window.work.voxels("kidney") > 0
    window.dock.tools.choose("point")
    assert window.viewer.scene.camera.mouse_pan


def test_dragging_with_the_point_tool_moves_the_image_and_prompts_nothing(window: Window) -> None:
    z = slice_of(window)
    drag(window, [(z, 2, 2), (z, 2, 6)])
    window.answered()
    assert not window.work.can_undo("kidney")


def test_minus_and_control_turn_the_sign_over(window: Window) -> None:
    z = slice_of(window)
    drag(window, [(z, 4, 4)])
    drag(window, [(z, 4, 4)], modifiers=("Control",))
    window.answered()
    assert window.work.voxels("kidney") == 0
    window.dock.panel.minus.click()
    drag(window, [(z, 4, 4)])
    window.answered()
    signs = [step.prompt.positive for step in window.work.steps("kidney") if step.prompt]
    assert signs == [True, False, False]
    window.desk.select("liver")
    assert window.dock.tools.positive, "a structure begins with +"


def test_a_click_outside_of_the_image_says_so(window: Window) -> None:
    drag(window, [(slice_of(window), 4, 400)])
    assert "outside of the image" in window.dock.said.text()
    assert window.dock.message.isVisibleTo(window.dock)


def test_a_brush_stroke_is_a_step_and_can_be_undone(window: Window) -> None:
    layer = window.dock.layers.labels["kidney"]
    window.dock.tools.choose("paint")
    assert layer.mode == "paint"
    layer.brush_size = 3
    layer.paint((2, 4, 4), 1)
    layer.selected_label = 7
    assert layer.selected_label == 1, "a mask has one label"
    window.kept()
    painted = window.work.voxels("kidney")
    assert painted == layer.data.sum() > 0
    assert [step.tool for step in window.work.steps("kidney")] == ["paint"]
    window.desk.turn("undo")
    window.kept()
    assert layer.data.sum() == window.work.voxels("kidney") == 0
    window.desk.turn("redo")
    window.kept()
    assert layer.data.sum() == painted


def test_a_click_refines_what_was_painted(window: Window) -> None:
    layer = window.dock.layers.labels["kidney"]
    layer.fill((0, 0, 0), 1)
    window.kept()
    window.desk.ask(Point(at=(4, 4, 4), positive=False))
    window.answered()
    assert [step.tool for step in window.work.steps("kidney")] == ["paint", "cubes"]
    assert window.work.voxels("kidney") == layer.data.sum()
    assert not window.work.mask("kidney")[3:6, 3:6, 3:6].any()


def test_the_keys_work_on_the_viewer_and_on_our_layers(window: Window) -> None:
    for target in (window.viewer, window.dock.layers.labels["kidney"]):
        bound = {str(key): action for key, action in target.keymap.items()}
        bound["B"](target)
        assert window.dock.tools.tool == "box"
        bound["P"](target)
        assert window.dock.tools.tool == "point"
    window.dock.panel.keys.click()
    assert "undo" in window.dock.sheet.text()
    window.dock.sheet.close()


# --- never freeze, never lose ---------------------------------------------------------------------


def test_prompts_queue_while_one_is_answered_and_each_is_filed_under_its_own(
    window: Window, folder: Path
) -> None:
    window.engine.gate.clear()
    window.desk.ask(MIDDLE)
    window.desk.ask(CORNER)
    window.desk.select("liver")
    window.desk.ask(MIDDLE)
    window.desk.open_case("case_002")
    window.until(lambda: window.desk.annotation and window.work.case == "case_002")
    window.desk.ask(CORNER)
    assert len(window.desk.driver.orders) == 4
    window.engine.gate.set()
    window.answered()
    window.kept()
    assert masks(folder) == {"kidney": 35, "liver": 27}
    assert window.work.voxels("liver") == 8
    assert window.work.voxels("kidney") == 0


def test_cancel_drops_the_prompt_and_those_that_wait(window: Window) -> None:
    window.engine.gate.clear()
    window.desk.ask(MIDDLE)
    window.desk.ask(CORNER)
    window.until(lambda: window.dock.panel.busy_row.isVisibleTo(window.dock.panel))
    window.until(lambda: "1 waiting" in window.dock.panel.busy.text())
    assert "kidney…" in window.viewer.canvas.overlays["backsplit_busy"].text
    window.dock.panel.cancel.click()
    window.answered()
    assert window.work.voxels("kidney") == 0
    assert "cancelled" in window.dock.said.text()
    assert not window.dock.panel.busy_row.isVisibleTo(window.dock.panel)
    assert not window.viewer.canvas.overlays["backsplit_busy"].visible


def test_undo_while_a_prompt_runs_cancels_it(window: Window) -> None:
    window.desk.ask(CORNER)
    window.answered()
    window.engine.gate.clear()
    window.desk.ask(MIDDLE)
    window.desk.turn("undo")
    window.answered()
    assert window.work.voxels("kidney") == 8


def test_an_engine_that_fails_is_said_and_can_be_asked_again(window: Window) -> None:
    window.engine.error = EngineError("The server went away.", "Start it again.")
    window.desk.ask(MIDDLE)
    window.answered()
    assert "The server went away. Start it again." in window.dock.said.text()
    assert window.desk.driver.light == "failed"
    window.engine.error = None
    window.desk.ask(MIDDLE)
    window.answered()
    assert window.work.voxels("kidney") == 27
    assert window.desk.driver.light == "ready"


def test_what_was_done_is_there_when_the_project_is_opened_again(
    window: Window, folder: Path, make_window: Callable[[], Window]
) -> None:
    window.desk.ask(MIDDLE)
    window.desk.ask(CORNER)
    window.answered()
    before = window.work.mask("kidney").copy()
    window.dock.close_all()
    again = make_window()
    again.until(lambda: can_be_written(folder))
    again.open(folder)
    assert np.array_equal(again.work.mask("kidney"), before)
    again.desk.turn("undo")
    again.kept()
    assert again.work.voxels("kidney") == 27


def test_closing_the_dock_ends_the_engine_and_lets_another_writer_in(
    window: Window, folder: Path
) -> None:
    window.desk.ask(MIDDLE)
    window.dock.close()
    window.until(lambda: window.engine.closed == 1)
    window.until(lambda: can_be_written(folder))


def test_a_stroke_right_before_the_end_is_kept(window: Window, folder: Path) -> None:
    layer = window.dock.layers.labels["kidney"]
    layer.brush_size = 1
    with layer.block_history():
        layer.paint((2, 4, 4), 1)
    window.dock.close_all()
    window.until(lambda: can_be_written(folder))
    assert masks(folder) == {"kidney": 1}


def test_a_case_that_is_left_and_taken_up_again_while_a_prompt_runs(
    window: Window, folder: Path
) -> None:
    first = window.work
    window.engine.gate.clear()
    window.desk.ask(MIDDLE)
    for case in ("case_002", "case_001"):
        window.desk.open_case(case)
        window.until(lambda case=case: window.desk.annotation and window.work.case == case)
    assert window.work is first, "one case has one annotation"
    window.engine.gate.set()
    window.answered()
    assert window.work.voxels("kidney") == 27
    assert window.dock.layers.labels["kidney"].data.sum() == 27
    window.desk.ask(CORNER)
    window.answered()
    window.desk.close_case()
    window.kept()
    assert masks(folder) == {"kidney": 35}


def test_undo_cancels_the_newest_prompt_of_its_structure_only(window: Window) -> None:
    window.engine.gate.clear()
    window.desk.ask(MIDDLE)
    window.desk.ask(CORNER)
    window.desk.select("liver")
    window.desk.ask(MIDDLE)
    window.desk.select("kidney")
    window.desk.turn("undo")
    window.engine.gate.set()
    window.answered()
    assert (window.work.voxels("kidney"), window.work.voxels("liver")) == (27, 27)


def test_a_stroke_on_what_is_being_accepted_is_not_possible(window: Window) -> None:
    layer = window.dock.layers.labels["kidney"]
    window.desk.ask(MIDDLE)
    window.answered()
    window.desk.accept()
    assert not layer.editable
    window.desk.select("lesion")
    window.until(lambda: window.work.locked("kidney"))
    window.kept()
    assert window.desk.structure == "lesion", "the person had gone on already"


def test_what_was_begun_in_another_case_or_in_3d_prompts_nothing(window: Window) -> None:
    window.viewer.dims.ndisplay = 3
    drag(window, [(4, 4, 4)])
    assert "not a slice of the volume" in window.dock.said.text()
    window.viewer.dims.ndisplay = 2
    place = window.dock.layers.place
    assert place is not None
    where = tuple(place.to_world((slice_of(window), 4, 4)))
    (callback,) = (c for c in window.viewer.mouse_drag_callbacks if c == window.dock.tools._drag)
    event = SimpleNamespace(
        type="mouse_press", button=1, modifiers=(), position=where, pos=np.zeros(2)
    )
    steps = callback(window.viewer, event)
    next(steps)
    window.desk.open_case("case_002")
    window.until(lambda: window.desk.annotation and window.work.case == "case_002")
    event.type = "mouse_release"
    next(steps, None)
    window.answered()
    assert window.work.voxels("kidney") == 0


def test_what_a_crash_left_in_the_journal_is_written_and_listed(
    folder: Path, window: Window
) -> None:
    window.desk.close_project()
    window.until(lambda: can_be_written(folder))
    with Project.open(folder) as project:
        work = Annotation(project, "case_002")
        work.edit("kidney", ((0, 1),) * 3, np.ones((1, 1, 1), bool))  # and no save: a crash
    window.dock.open_project(folder)
    window.until(lambda: window.desk.annotation is not None)
    assert window.desk.standings["case_002"]["kidney"] == "none"
    window.desk.open_case("case_002")
    window.until(lambda: window.desk.annotation and window.work.case == "case_002")
    window.kept()
    assert masks(folder, "case_002") == {"kidney": 1}
    assert window.desk.standings["case_002"]["kidney"] == "editing"


def test_a_second_opening_waits_and_a_closed_dock_lets_go(
    folder: Path, make_window: Callable[[], Window]
) -> None:
    window = make_window()
    window.dock.open_project(folder)
    window.dock.open_project(folder)
    window.until(lambda: window.desk.annotation is not None)
    assert not window.desk.project.read_only
    window.dock.close_all()
    window.until(lambda: can_be_written(folder))
    hasty = make_window()
    hasty.dock.open_project(folder)
    hasty.dock.close_all()
    hasty.until(lambda: can_be_written(folder))


def test_accepting_that_fails_leaves_everything_as_it_was(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.desk.ask(MIDDLE)
    window.answered()

    def full(*arguments: Any, **options: Any) -> None:
        raise ProjectError("kidney cannot be written: No space left on device.", "Make space.")

    with monkeypatch.context() as disk:
        disk.setattr(window.work.project, "set_mask", full)
        window.desk.accept()
        window.until(lambda: "No space left" in window.dock.said.text())
        window.kept()
    assert window.dock.panel.accept.isEnabled()
    assert window.dock.layers.labels["kidney"].editable
    window.desk.accept()
    window.until(lambda: window.work.locked("kidney"))


def test_undo_can_be_pressed_during_the_first_prompt(window: Window) -> None:
    window.engine.gate.clear()
    window.desk.ask(MIDDLE)
    window.until(window.dock.panel.undo.isEnabled)
    window.dock.panel.undo.click()
    window.answered()
    assert window.work.voxels("kidney") == 0


def test_accepting_waits_for_a_prompt_on_its_way(window: Window) -> None:
    window.engine.gate.clear()
    window.desk.ask(MIDDLE)
    window.desk.accept()
    assert "on its way" in window.dock.said.text()
    window.engine.gate.set()
    window.answered()
    assert not window.work.locked("kidney")
    window.desk.accept()
    window.until(lambda: window.work.locked("kidney"))


# --- layers come and go ---------------------------------------------------------------------------


def test_a_layer_that_is_removed_comes_back_and_its_mask_is_safe(window: Window) -> None:
    window.desk.ask(MIDDLE)
    window.answered()
    window.viewer.layers.remove(window.dock.layers.labels["kidney"])
    assert "its mask is safe" in window.dock.said.text()
    window.desk.ask(CORNER)
    window.answered()
    assert window.work.voxels("kidney") == 35
    window.desk.select("liver")
    window.desk.select("kidney")
    assert window.dock.layers.labels["kidney"].data.sum() == 35


@pytest.mark.parametrize("how", ["clear", "remove_selected", "pop"])
def test_layers_taken_away_in_any_way_come_back_with_the_next_prompt(
    window: Window, how: str
) -> None:
    window.desk.ask(MIDDLE)
    window.answered()
    layers = window.viewer.layers
    if how == "remove_selected":
        layers.selection = set(layers)
    getattr(layers, how)(*((1,) if how == "pop" else ()))
    assert "its mask is safe" in window.dock.said.text()
    window.desk.ask(CORNER)
    window.answered()
    assert window.dock.layers.labels["kidney"] in layers
    assert window.dock.layers.labels["kidney"].data.sum() == 35
    layers.clear()
    window.dock.panel.structures.itemClicked.emit(window.dock.panel.structures.topLevelItem(0), 0)
    assert window.dock.layers.labels["kidney"] in layers


def test_a_click_into_an_empty_viewer_says_so(window: Window) -> None:
    window.viewer.layers.clear()
    event = SimpleNamespace(
        type="mouse_press", button=1, modifiers=(), position=(1.0, 2.0), pos=np.zeros(2)
    )
    next(window.dock.tools._drag(window.viewer, event), None)
    assert "no volume in the view" in window.dock.said.text()


def test_renaming_layers_and_removing_the_image_do_no_harm(window: Window) -> None:
    window.dock.layers.labels["kidney"].name = "something else"
    window.viewer.layers.remove("CT · case_001")
    window.viewer.layers.remove("prompts")
    window.desk.ask(MIDDLE)
    window.answered()
    assert window.dock.layers.labels["kidney"].data.sum() == 27
    window.desk.open_case("case_002")
    window.until(lambda: window.desk.annotation and window.work.case == "case_002")
    assert "CT · case_002" in window.viewer.layers
    assert "something else" not in window.viewer.layers


def test_exchanged_data_are_replaced_by_the_mask(window: Window) -> None:
    window.desk.ask(MIDDLE)
    window.answered()
    layer = window.dock.layers.labels["kidney"]
    layer.data = layer.data.astype(np.int32) * 0
    assert layer.data.sum() == 27
    assert layer.data.dtype == np.uint8
    assert "exchanged" in window.dock.said.text()


def test_other_layers_are_left_alone(window: Window) -> None:
    other = window.viewer.add_layer(Labels(np.zeros(SHAPE, int), name="mine"))
    window.desk.open_case("case_002")
    window.until(lambda: window.desk.annotation and window.work.case == "case_002")
    window.desk.close_project()
    assert list(window.viewer.layers) == [other]


def test_locked_structures_are_not_editable_and_unlocking_says_how(window: Window) -> None:
    window.desk.ask(MIDDLE)
    window.answered()
    window.desk.accept()
    window.until(lambda: window.desk.structure == "liver")
    layer = window.dock.layers.labels["kidney"]
    assert not layer.editable
    window.desk.select("kidney")
    assert not layer.editable
    assert "locked" in window.dock.panel.hint.text()
    assert not window.dock.panel.accept.isEnabled()
    row = window.dock.panel.structures.topLevelItem(0)
    row.setCheckState(4, Qt.CheckState.Unchecked)
    window.until(lambda: layer.editable)
    assert window.dock.panel.accept.isEnabled()


def test_hiding_a_structure(window: Window) -> None:
    row = window.dock.panel.structures.topLevelItem(1)
    row.setCheckState(3, Qt.CheckState.Unchecked)
    assert not window.dock.layers.labels["liver"].visible


def test_every_channel_is_a_layer_and_one_is_clicked_on(
    make_window: Callable[[], Window], tmp_path: Path
) -> None:
    files = {}
    for number, channel in enumerate(("CT", "PET")):
        files[channel] = tmp_path / f"{channel}.nii.gz"
        volume = counted(grid((8, 9, 10)))
        write_volume(volume.with_array(volume.array + number), files[channel])
    with Project.create(tmp_path / "p", "both", ["CT", "PET"], ["lesion"], ["kidney"]) as project:
        project.add_case(files)
    window = make_window()
    window.open(tmp_path / "p")
    shown = {n: window.viewer.layers[f"{n} · case_001"] for n in ("CT", "PET")}
    assert [layer.visible for layer in shown.values()] == [True, False]
    panel = window.dock.panel
    assert panel.channel_row.isVisibleTo(panel)
    panel.channel.setCurrentText("PET")
    panel.channel.activated.emit(1)
    assert [layer.visible for layer in shown.values()] == [False, True]
    seen: list[float] = []
    window.engine.segment = _noting(window.engine.segment, seen)
    window.desk.ask(MIDDLE)
    window.answered()
    assert seen == [window.work.scene("PET").image[0, 0, 0]]


def _noting(segment: Any, seen: list[float]) -> Any:
    def noted(engine: Any, request: Any, cancelled: Any) -> Any:
        seen.append(request.scene.image[0, 0, 0])
        return segment(engine, request, cancelled)

    return noted


# --- projects -------------------------------------------------------------------------------------


def test_a_second_window_reads_only_and_says_who_writes(
    window: Window, folder: Path, make_window: Callable[[], Window]
) -> None:
    second = make_window()
    second.open(folder)
    assert "open for writing in process" in second.dock.said.text()
    assert "read only" in second.dock.title.text()
    assert "Nothing can be changed" in second.dock.panel.hint.text()
    assert not second.dock.panel.accept.isEnabled()
    assert not second.dock.layers.labels["kidney"].editable
    second.desk.ask(MIDDLE)
    second.answered()
    assert "Nothing can be changed" in second.dock.said.text()


def test_another_project_takes_the_place_of_the_first(window: Window, tmp_path: Path) -> None:
    first = window.desk.project
    window.desk.ask(MIDDLE)
    window.answered()
    (tmp_path / "other").mkdir()
    with make_project(tmp_path / "other") as other:
        folder = other.folder
    window.dock.open_project(folder)
    window.until(lambda: window.desk.project and window.desk.project.folder == folder)
    assert first is not None
    window.until(lambda: first.read_only)
    assert masks(first.folder) == {"kidney": 27}


def test_no_project_is_said_and_the_present_one_stays(window: Window, tmp_path: Path) -> None:
    project = window.desk.project
    window.dock.open_project(tmp_path)
    window.until(lambda: "is no project" in window.dock.said.text())
    assert window.desk.project is project
    assert project is not None
    window.dock.open_project(project.folder)
    window.kept()
    assert not window.desk.project.read_only, "it is open, and not opened once more"


def test_a_mask_on_another_grid_is_said_and_left_alone(window: Window, folder: Path) -> None:
    file = folder / "cases" / "case_002" / "target.nii.gz"
    write_volume(Volume(np.ones((3, 3, 3), np.uint8), grid((3, 3, 3))), file)
    before = file.read_bytes()
    window.desk.open_case("case_002")
    window.until(lambda: "lies on another grid" in window.dock.said.text())
    assert window.work.case == "case_002"
    assert not window.desk.can_change("lesion")
    assert window.desk.can_change("kidney")
    window.desk.close_case()
    window.kept()
    assert file.read_bytes() == before


@pytest.fixture
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_starting, "user_documents_path", lambda: tmp_path / "documents")
    return tmp_path / "documents"


def test_a_project_starts_with_a_layer(make_window: Callable[[], Window], documents: Path) -> None:
    window = make_window()
    data, look, _ = image_layer(counted(grid((8, 9, 10))), "scan")
    window.viewer.add_layer(Image(data, **look))
    window.dock.start.click()
    window.until(lambda: window.desk.annotation is not None)
    assert window.desk.project is not None
    assert window.desk.project.folder == documents / "BackSplit" / "project-001"
    assert window.work.grid.shape == (8, 9, 10)
    assert "Add a structure" in window.dock.panel.hint.text() or window.desk.structure == "lesion"
    window.dock.panel.name.setText("kidney")
    window.dock.panel.add.click()
    window.until(lambda: window.desk.structure == "kidney")
    window.until(lambda: window.desk.driver.light == "ready")
    window.desk.ask(MIDDLE)
    window.answered()
    assert window.work.voxels("kidney") == 27


BAD = {
    "4D": (np.zeros((2, 3, 4, 5)), {}, "4 axes"),
    "colour": (np.zeros((3, 4, 5, 3), np.uint8), {"rgb": True}, "colour"),
    "constant": (np.full((3, 4, 5), 2.0), {}, "are 2"),
    "all zero": (np.zeros((3, 4, 5)), {}, "are 0"),
    "NaN": (np.full((3, 4, 5), np.nan), {}, "NaN"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_layer_that_is_no_grey_volume_is_refused(
    make_window: Callable[[], Window], documents: Path, kind: str
) -> None:
    window = make_window()
    data, options, words = BAD[kind]
    window.viewer.add_layer(Image(data, contrast_limits=(0, 1), **options))
    window.dock.start.click()
    window.until(lambda: words in window.dock.said.text())
    assert window.desk.project is None
    assert not documents.exists()


@pytest.mark.parametrize("kind", ["float64", "dask", "multiscale"])
def test_other_kinds_of_arrays_are_taken(
    make_window: Callable[[], Window], documents: Path, kind: str
) -> None:
    window = make_window()
    array = np.random.default_rng(0).normal(size=(8, 9, 10))
    data = {"float64": array, "dask": dask.array.from_array(array), "multiscale": [array, array]}
    options = {"multiscale": True} if kind == "multiscale" else {}
    window.viewer.add_layer(Image(data[kind], **options))
    window.dock.start.click()
    window.until(lambda: window.desk.annotation is not None)
    np.testing.assert_array_equal(window.work.scene().image, array.astype(np.float32))
    assert "Check left and right" in window.dock.said.text()
    assert window.desk.project is not None
    assert "assumed" in window.desk.project.case("case_001").notes[0]


def test_a_new_project_is_what_was_entered(qtbot: Any, tmp_path: Path) -> None:
    with make_project(tmp_path) as source:
        image = source.folder / source.case("case_001").images["CT"].file
    dialog = NewProject()
    qtbot.addWidget(dialog)
    dialog.folder.setText(str(tmp_path / "new"))
    dialog.lesion.setText("Renal cyst")
    dialog.supports.setText("kidney, Left psoas, ")
    dialog.files = [image]
    with dialog.make() as project:
        assert project.schema.target_names == ("renal_cyst",)
        assert project.schema.support_names == ("kidney", "left_psoas")
        assert project.case_ids() == ("case_001",)


def test_a_form_with_an_error_stays_open(qtbot: Any, tmp_path: Path) -> None:
    dialog = NewProject()
    qtbot.addWidget(dialog)
    dialog.folder.setText(str(tmp_path / "new"))
    for field, text, words in (
        (dialog.supports, "kidney; lesion", "lesion is there twice"),
        (dialog.supports, "background", "no name for a structure"),
        (dialog.folder, "", "has no name"),
        (dialog.folder, str(Path(__file__).parent), "is not empty"),
    ):
        before = field.text()
        field.setText(text)
        dialog._check()
        assert words in dialog.said.text()
        assert dialog.result() == 0
        field.setText(before)
    dialog._check()
    assert dialog.result() == 1


# --- engines --------------------------------------------------------------------------------------


def test_the_settings_are_what_was_entered(window: Window) -> None:
    dialog = EngineDialog(window.desk)
    window.bot.addWidget(dialog)
    wanted = EngineSettings(
        where="elsewhere", model_folder="m", device="cuda:1", threads=3, url="https://a:1", key="k"
    )
    dialog.set_value(wanted)
    assert dialog.value() == wanted
    dialog.test.click()
    window.until(lambda: "▲" in dialog.said.text())
    dialog.device.setCurrentText("abacus")
    dialog._keep()
    assert "device" in dialog.said.text()


def test_a_connection_that_works_says_with_what(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = connection.Reached("https://a:1", "2.6.0", "CC0-1.0")
    monkeypatch.setattr(connection, "test_connection", lambda settings: reached)
    dialog = EngineDialog(window.desk)
    window.bot.addWidget(dialog)
    dialog.elsewhere.setChecked(True)
    dialog.device.setCurrentText("abacus")
    dialog._test()
    assert "device" in dialog.said.text()
    dialog.device.setCurrentText("cpu")
    dialog._test()
    assert not dialog.test.isEnabled(), "one at a time"
    window.until(lambda: "nnInteractive 2.6.0, licence CC0-1.0" in dialog.said.text())
    assert dialog.test.isEnabled()


def test_a_server_elsewhere_is_asked_for_once(window: Window, folder: Path) -> None:
    from napari_backsplit.backend.structures import consent

    settings = EngineSettings(where="elsewhere", url="https://segment.example:1527")
    window.desk.driver.settings = settings
    window.desk.driver.name = "nninteractive"
    with pytest.raises(consent.ConsentMissing, match=r"would be sent to segment\.example:1527"):
        window.desk.ask(MIDDLE)
    drag(window, [(slice_of(window), 4, 4)])
    assert window.dock.remedy.text() == "Agree for this project"
    window.desk.driver.settings = settings.model_copy(update={"url": "https://other.example"})
    window.dock.remedy.click()
    with pytest.raises(consent.ConsentMissing, match=r"would be sent to other\.example"):
        window.desk.ask(MIDDLE)
    window.desk.driver.settings = settings
    drag(window, [(slice_of(window), 4, 4)])
    window.answered()
    assert window.work.voxels("kidney") == 27
    with Project.open(folder, read_only=True) as project:
        consent.allows_elsewhere(project, "nninteractive", settings)


# --- the lesion from a prediction -----------------------------------------------------------------


def test_a_prediction_is_taken_over_as_a_step(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_backsplit.backend.structures.engines import About
    from napari_backsplit.widgets import _adopting

    mask = np.zeros(SHAPE, bool)
    mask[2:4, 2:4, 2:4] = True
    answer = (mask, About("prediction", "model of job 3"))
    monkeypatch.setattr(_adopting, "predicted_mask", lambda *asked: answer)
    _adopting.take_over(window.desk, "3")
    window.until(lambda: window.work.voxels("lesion") == 8)
    assert window.dock.layers.labels["lesion"].data.sum() == 8
    window.kept()
    window.desk.turn("undo")
    window.until(lambda: window.work.voxels("lesion") == 0)


def test_worklist_filter_and_next(window: Window) -> None:
    panel = window.dock.panel.worklist
    panel.filter.setText("002")
    assert [panel.cases.item(row).isHidden() for row in range(2)] == [True, False]
    panel.filter.clear()
    panel.next.click()
    window.until(lambda: window.desk.annotation and window.work.case == "case_002")
    assert panel.cases.currentRow() == 1
    panel.cases.setCurrentRow(0)
    window.until(lambda: window.desk.annotation and window.work.case == "case_001")


def test_an_annotation_opened_elsewhere_sees_the_same(window: Window) -> None:
    window.desk.ask(MIDDLE)
    window.answered()
    with Project.open(window.desk.project.folder, read_only=True) as reader:
        assert Annotation(reader, "case_001").voxels("kidney") == 27
