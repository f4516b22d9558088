"""What is laid over the image of a case in the Compare step, in napari's model of a viewer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest

from napari_backsplit.backend.comparison import overlays
from napari_backsplit.backend.comparison.agreement import CLASSES, part_of
from napari_backsplit.backend.comparison.overlays import Loaded, Overlay
from napari_backsplit.backend.geometry import from_parts
from napari_backsplit.backend.volume import Volume, write_volume
from napari_backsplit.widgets import _comparison_layers
from napari_backsplit.widgets._layers import placement, world_of
from napari_backsplit.widgets._orientation import PLANES, show_plane
from tests.widgets.comparison_support import CASES, SHAPE, Canvas, ends, make_compared
from tests.widgets.conftest import Window


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_compared(tmp_path)


@pytest.fixture
def canvas(window: Window) -> Iterator[Canvas]:
    canvas = Canvas(window)
    canvas.layers.set_active(True)
    yield canvas
    canvas.layers.close()


# --- what is shown --------------------------------------------------------------------------------


def test_the_overlay_takes_the_place_of_the_masks(canvas: Canvas) -> None:
    loaded = canvas.show()

    assert canvas.shown() == {"agreement", "reference", "baseline", "new"}
    assert np.shares_memory(canvas.viewer.layers["agreement"].data, loaded.agreement)
    for part in CLASSES:
        colour = canvas.viewer.layers["agreement"].colormap.map(part.number)
        rgb = [int(part.colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        assert np.allclose(colour, [*rgb, 1], atol=0.01)


def test_leaving_shows_the_masks_again_and_nothing_of_ours(canvas: Canvas) -> None:
    names = {layer.name: layer.visible for layer in canvas.viewer.layers}
    canvas.layers.set_active(False)
    before = canvas.shown()
    canvas.layers.set_active(True)
    canvas.show()
    own = canvas.viewer.add_points(np.zeros((1, 3)), name="mine")

    canvas.layers.set_active(False)

    assert canvas.shown() == before | {"mine"}
    canvas.layers.close()
    assert {layer.name for layer in canvas.viewer.layers} == names.keys() | {"mine"}
    assert own.visible


def test_nothing_is_shown_unless_the_step_is(canvas: Canvas) -> None:
    canvas.layers.set_active(False)
    canvas.layers.show(canvas.overlay(CASES[0]))
    canvas.settled()
    assert "agreement" not in canvas.viewer.layers

    canvas.layers.set_active(True)

    canvas.window.until(lambda: "agreement" in canvas.shown())


def test_a_part_is_hidden_by_its_colour_alone(canvas: Canvas) -> None:
    canvas.show()
    layer = canvas.viewer.layers["agreement"]
    data = layer.data

    canvas.layers.set_part(1, False)

    assert layer.data is data
    assert layer.colormap.map(1)[3] == 0
    assert layer.colormap.map(2)[3] == 1
    canvas.layers.set_part(1, True)
    assert layer.colormap.map(1)[3] == 1


def test_no_part_at_all_hides_the_layer(canvas: Canvas) -> None:
    canvas.show()
    for part in CLASSES:
        canvas.layers.set_part(part.number, False)

    assert "agreement" not in canvas.shown()


@pytest.mark.parametrize("plane", PLANES)
def test_outlines_run_along_the_edges_of_the_masks(canvas: Canvas, plane: str) -> None:
    loaded = canvas.show()
    show_plane(canvas.viewer, plane)
    place = canvas.window.dock.layers.place
    mask = part_of(loaded.agreement, "reference")
    canvas.viewer.dims.set_point((0, 1, 2), place.to_world(np.argwhere(mask).mean(0).round()))

    inside = np.argwhere(mask)
    low = place.to_world(inside.min(0))[list(canvas.viewer.dims.displayed)]
    high = place.to_world(inside.max(0))[list(canvas.viewer.dims.displayed)]
    half = np.array(place.scale)[list(canvas.viewer.dims.displayed)] / 2
    found = ends(canvas, "reference").reshape(-1, 2)
    width = canvas.viewer.layers["reference"].edge_width * min(2 * half)
    assert np.allclose(found.min(0), np.minimum(low, high) - half, atol=width)
    assert np.allclose(found.max(0), np.maximum(low, high) + half, atol=width)


def test_outlines_follow_the_slice_and_end_with_the_mask(canvas: Canvas) -> None:
    loaded = canvas.show()
    place = canvas.window.dock.layers.place
    first, last = np.flatnonzero(part_of(loaded.agreement, "baseline").any((1, 2)))[[0, -1]]

    lines = {}
    for z in (first, last + 1):
        canvas.viewer.dims.set_point(0, place.to_world((z, 0, 0))[0])
        lines[z] = len(canvas.viewer.layers["baseline"].data)

    assert lines[first] > 0
    assert lines[last + 1] == 0


def test_outlines_stay_as_wide_on_the_screen(canvas: Canvas) -> None:
    canvas.show()
    canvas.viewer.scene.camera.zoom = 4.0
    canvas.window.until(lambda: not canvas.layers._late.isActive())
    wide = canvas.viewer.layers["new"].edge_width

    canvas.viewer.scene.camera.zoom = 8.0
    canvas.window.until(lambda: not canvas.layers._late.isActive())

    assert canvas.viewer.layers["new"].edge_width == pytest.approx(wide / 2, rel=0.05)


def test_outlines_can_be_hidden(canvas: Canvas) -> None:
    canvas.show()

    canvas.layers.set_outlines(False)

    assert canvas.shown() == {"agreement"}


def test_a_case_without_a_reference_has_no_outline_of_one(canvas: Canvas) -> None:
    loaded = canvas.show(CASES[2])

    assert not loaded.has_reference
    assert len(canvas.viewer.layers["reference"].data) == 0
    assert set(np.unique(loaded.agreement)) == {0, 4, 5, 6}


# --- from case to case ----------------------------------------------------------------------------


def test_the_layers_stay_from_case_to_case(canvas: Canvas) -> None:
    canvas.show()
    canvas.layers.set_swipe(0.5)
    canvas.layers.set_swipe(None)
    before = list(canvas.viewer.layers)

    loaded = canvas.show(CASES[1])

    assert set(before) == set(canvas.viewer.layers)
    assert np.shares_memory(canvas.viewer.layers["agreement"].data, loaded.agreement)


def test_a_late_answer_is_dropped(canvas: Canvas, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, asked = threading.Event(), threading.Event()

    def slow(overlay: Overlay) -> Loaded:
        asked.set()
        assert gate.wait(10)
        return overlays.load(overlay)

    shown: list[Loaded | None] = []
    canvas.layers.shown.connect(shown.append)
    monkeypatch.setattr(_comparison_layers, "load", slow)
    canvas.layers.show(canvas.overlay(CASES[0]))
    assert asked.wait(10)
    canvas.layers.show(None)
    gate.set()
    canvas.settled()

    assert canvas.layers.loaded is None
    assert not shown
    assert "agreement" not in canvas.viewer.layers


def test_while_a_case_is_read_nothing_of_the_one_before_is_shown(
    canvas: Canvas, monkeypatch: pytest.MonkeyPatch
) -> None:
    canvas.show()
    gate = threading.Event()

    def slow(overlay: Overlay) -> Loaded:
        assert gate.wait(10)
        return overlays.load(overlay)

    monkeypatch.setattr(_comparison_layers, "load", slow)
    canvas.desk.open_case(CASES[1])
    canvas.layers.show(canvas.overlay(CASES[1]))
    canvas.window.until(lambda: canvas.desk.annotation and canvas.window.work.case == CASES[1])

    assert canvas.layers.loaded is None
    assert canvas.shown() == set()
    gate.set()
    canvas.window.until(lambda: canvas.layers.loaded)
    assert "agreement" in canvas.shown()


def test_an_overlay_waits_for_the_image_of_its_case(canvas: Canvas) -> None:
    canvas.layers.show(canvas.overlay(CASES[1]))
    canvas.settled()
    assert canvas.layers.loaded is None

    canvas.desk.open_case(CASES[1])

    canvas.window.until(lambda: canvas.layers.loaded)
    assert canvas.layers.loaded.overlay.case == CASES[1]


def test_the_next_case_is_read_ahead(canvas: Canvas, monkeypatch: pytest.MonkeyPatch) -> None:
    canvas.show()
    canvas.layers.look_ahead(canvas.overlay(CASES[1]))
    canvas.settled()
    monkeypatch.setattr(_comparison_layers, "load", lambda overlay: pytest.fail("read again"))

    canvas.show(CASES[1])

    assert not canvas.errors


def test_a_missing_prediction_is_told_and_the_rest_shown(canvas: Canvas) -> None:
    (canvas.project.folder / "new" / "predictions" / "case_001.nii.gz").unlink()

    canvas.show()

    assert canvas.said == ["new has no prediction of case_001: the rest is shown."]
    assert "agreement" not in canvas.shown()
    assert len(canvas.viewer.layers["baseline"].data)
    assert not len(canvas.viewer.layers["new"].data)


def test_a_prediction_on_another_grid_is_refused_in_words(canvas: Canvas) -> None:
    file = canvas.project.folder / "new" / "predictions" / "case_001.nii.gz"
    geometry = replace(canvas.project.geometry("case_001"), shape=(3, 3, 3))
    write_volume(Volume(np.ones((3, 3, 3), np.uint8), geometry), file)

    canvas.show()

    (error,) = canvas.errors
    assert "by new of case_001 is on another grid" in str(error)
    assert "agreement" not in canvas.shown()


def test_a_layer_that_a_person_removes_comes_with_the_next_case(canvas: Canvas) -> None:
    canvas.show()
    canvas.viewer.layers.remove("agreement")

    canvas.show(CASES[1])

    assert "agreement" in canvas.shown()


def test_closing_the_project_takes_the_layers_away(canvas: Canvas) -> None:
    canvas.show()

    canvas.desk.close_project()

    assert not {"agreement", "reference"} & {layer.name for layer in canvas.viewer.layers}


def test_what_was_read_ahead_of_another_result_is_not_shown(canvas: Canvas) -> None:
    canvas.show()
    canvas.layers.look_ahead(canvas.overlay(CASES[1]))
    canvas.settled()
    other = canvas.overlay(CASES[1])
    swapped = {
        arm: other.predictions[name] for arm, name in zip(other.arms, other.arms[::-1], strict=True)
    }
    other = replace(other, predictions=swapped)
    canvas.layers.show(other)

    canvas.desk.open_case(CASES[1])
    canvas.window.until(
        lambda: canvas.layers.loaded and canvas.layers.loaded.overlay.case == CASES[1]
    )

    assert canvas.layers.loaded.overlay == other


def test_what_was_read_ahead_is_forgotten(canvas: Canvas) -> None:
    canvas.show()
    canvas.layers.look_ahead(canvas.overlay(CASES[1]))
    canvas.layers.look_ahead(None)
    canvas.settled()
    canvas.desk.open_case(CASES[1])
    canvas.window.until(lambda: canvas.desk.annotation is not None)
    assert canvas.layers.loaded is None


def test_a_probability_map_takes_the_place_of_the_filled_parts(canvas: Canvas) -> None:
    canvas.show()
    canvas.layers.set_probability("new")
    canvas.window.until(lambda: "probability of new, %" in canvas.shown())
    assert "agreement" not in canvas.shown(), "colours that shine through another mean nothing"
    canvas.layers.set_probability(None)
    assert "agreement" in canvas.shown()


# --- where it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", PLANES)
def test_a_jump_shows_the_voxel_in_the_middle(canvas: Canvas, plane: str) -> None:
    canvas.show()
    show_plane(canvas.viewer, plane)
    canvas.viewer.scene.camera.zoom = 7.0
    stored = canvas.project.geometry(CASES[0])

    canvas.layers.go_to((6, 2, 3))

    place = canvas.window.dock.layers.place
    at = stored.canonical().to_lps(place.to_voxel(canvas.viewer.dims.point))
    assert np.allclose(at, stored.to_lps((6, 2, 3)))
    displayed = list(canvas.viewer.dims.displayed)
    world = np.array(canvas.viewer.dims.point)[displayed]
    assert np.allclose(canvas.viewer.scene.camera.center[-2:], world)
    assert canvas.viewer.scene.camera.zoom == 7.0


@pytest.mark.parametrize("axes", permutations(range(3)))
def test_a_voxel_as_stored_is_found_in_every_orientation(axes: tuple[int, ...]) -> None:
    for signs in product((1, -1), repeat=3):
        direction = np.eye(3)[list(axes)] * signs
        stored = from_parts((4, 5, 6), (3.0, 2.0, 1.0), (5.0, 6.0, 7.0), direction)
        marked = np.zeros(stored.shape, np.uint8)
        marked[1, 3, 4] = 1
        place = placement(stored)

        world = world_of(stored, place, (1, 3, 4))

        canonical = Volume(marked, stored).canonical().array
        assert canonical[tuple(place.to_voxel(world))] == 1


def test_a_case_is_opened_at_the_place_that_is_gone_to(canvas: Canvas) -> None:
    canvas.show()
    points: list[tuple[float, ...]] = []
    canvas.viewer.dims.events.point.connect(lambda event: points.append(canvas.viewer.dims.point))

    canvas.layers.go_to((7, 8, 9), CASES[1])
    assert not points, "the case before stays where it is"
    canvas.desk.open_case(CASES[1])
    canvas.window.until(lambda: canvas.desk.annotation is not None)

    assert len(points) == 1, "not by way of its middle: napari slices all layers each time"


def test_a_place_of_a_case_that_was_not_opened_is_forgotten(canvas: Canvas) -> None:
    canvas.show()
    canvas.layers.go_to((7, 8, 9), CASES[1])
    canvas.show(CASES[2])
    canvas.show(CASES[1])

    place = canvas.window.dock.layers.place
    assert place.to_voxel(canvas.viewer.dims.point).tolist() == [n // 2 for n in SHAPE]


def test_the_controls_are_those_of_the_image(canvas: Canvas) -> None:
    canvas.show()
    assert canvas.viewer.layers.selection.active in canvas.window.dock.layers.images

    canvas.viewer.layers.selection.active = canvas.viewer.layers["agreement"]
    canvas.show(CASES[1])

    assert canvas.viewer.layers.selection.active.name == "agreement"


def test_a_jump_waits_for_its_case(canvas: Canvas) -> None:
    canvas.show()
    canvas.desk.open_case(CASES[1])
    canvas.layers.show(canvas.overlay(CASES[1]))

    canvas.layers.go_to((7, 8, 9))

    stored = canvas.project.geometry(CASES[1])
    canvas.window.until(lambda: canvas.layers.loaded.overlay.case == CASES[1])
    place = canvas.window.dock.layers.place
    at = stored.canonical().to_lps(place.to_voxel(canvas.viewer.dims.point))
    assert np.allclose(at, stored.to_lps((7, 8, 9)))


# --- keys and clicks on our layers ----------------------------------------------------------------


def test_no_layer_of_ours_can_be_painted(canvas: Canvas) -> None:
    canvas.show()
    canvas.layers.set_swipe(0.5)
    canvas.layers.set_probability("new")
    canvas.settled()
    canvas.show(CASES[1])  # other arrays: napari would let them be changed
    ours = canvas.layers.overlay.layers
    assert {"agreement", "swipe", "reference", "new", "baseline"} <= {x.name for x in ours}
    assert len(ours) > 5
    for layer in ours:
        assert not layer.editable, layer.name
    agreement = canvas.viewer.layers["agreement"]
    canvas.viewer.layers.selection.active = agreement
    agreement.mode = "paint"
    assert agreement.mode == "pan_zoom"


def test_keys_of_the_step_come_before_those_of_our_layers(canvas: Canvas) -> None:
    canvas.show()
    done: list[str] = []
    tools = canvas.window.dock.tools
    tools.active = False
    tools.looking = {"false": lambda: done.append("F"), "missed": lambda: done.append("M")}
    for layer in canvas.layers.overlay.layers:
        for key in ("F", "M"):
            bound = {str(k): act for k, act in layer.keymap.items()}
            bound[key](layer)
    assert done == ["F", "M"] * len(canvas.layers.overlay.layers)


def test_what_was_selected_is_selected_again(canvas: Canvas) -> None:
    canvas.layers.set_active(False)
    selection = canvas.viewer.layers.selection
    own = canvas.viewer.add_labels(np.ones((2, 2, 2), int), name="own")
    selection.active = own
    canvas.layers.set_active(True)
    assert selection.active in canvas.window.dock.layers.images
    canvas.layers.set_active(False)
    assert selection.active is own
