"""Two predictions told apart: swipe, blink, probabilities, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from napari.layers import Image, Labels
from napari.utils._proxies import PublicOnlyProxy

from napari_backsplit.backend.comparison.agreement import part_of
from napari_backsplit.widgets._orientation import PLANES, letters_of, show_plane
from napari_backsplit.widgets._side_by_side import bare
from tests.widgets.comparison_support import CASES, SHAPE, Canvas, drawn, ends, make_compared, seen
from tests.widgets.conftest import Window
from tests.widgets.display_support import on_a_virtual_display


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_compared(tmp_path)


@pytest.fixture
def canvas(window: Window) -> Iterator[Canvas]:
    canvas = Canvas(window)
    canvas.layers.set_active(True)
    yield canvas
    canvas.layers.close()


# --- swipe, blink, probability --------------------------------------------------------------------


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_swipe_shows_one_prediction_on_each_side(
    canvas: Canvas, plane: str, share: float
) -> None:
    loaded = canvas.show()
    show_plane(canvas.viewer, plane)
    canvas.viewer.reset_view()
    place = canvas.window.dock.layers.place
    canvas.viewer.dims.set_point((0, 1, 2), place.to_world((4, 5, 5)))

    canvas.layers.set_swipe(share)

    layer = canvas.viewer.layers["swipe"]
    axis = canvas.viewer.dims.displayed[-1]
    halves = {
        who: np.moveaxis(part_of(loaded.agreement[::-1], who), axis, -1)
        for who in ("baseline", "new")
    }
    cut = round(share * SHAPE[axis])
    want = 2 * halves["new"].astype(np.uint8)
    want[..., :cut] = halves["baseline"][..., :cut]
    assert np.array_equal(np.moveaxis(np.asarray(layer.data), axis, -1), want)
    across = canvas.viewer.dims.not_displayed[0]
    index = int(np.rint(layer.world_to_data(canvas.viewer.dims.point)[across]))
    order = np.argsort(np.argsort(canvas.viewer.dims.displayed))
    assert np.array_equal(drawn(layer), np.take(layer.data[:], index, across).transpose(order))
    assert "agreement" not in canvas.shown()


def test_the_swipe_divides_the_outlines_too(canvas: Canvas) -> None:
    canvas.show()
    show_plane(canvas.viewer, "axial")
    canvas.viewer.reset_view()

    canvas.layers.set_swipe(0.5)

    line = ends(canvas, "line")[..., 1].max()
    assert len(ends(canvas, "baseline"))
    assert len(ends(canvas, "new"))
    assert ends(canvas, "baseline")[..., 1].max() <= line + 1e-6
    width = canvas.viewer.layers["new"].edge_width
    assert ends(canvas, "new")[..., 1].min() >= line - width


def test_moving_the_swipe_copies_no_volume(canvas: Canvas) -> None:
    loaded = canvas.show()
    canvas.layers.set_swipe(0.3)
    data = canvas.viewer.layers["swipe"].data

    canvas.layers.set_swipe(0.6)

    assert canvas.viewer.layers["swipe"].data is data
    assert np.shares_memory(data.agreement, loaded.agreement)
    canvas.layers.set_swipe(None)
    assert canvas.shown() == {"agreement", "reference", "baseline", "new"}


def test_blinking_shows_one_prediction_after_the_other(canvas: Canvas) -> None:
    canvas.show()

    canvas.layers.set_blink(True)

    turns: set[frozenset[str]] = set()
    two = {"baseline", "new"}
    canvas.window.until(lambda: turns.add(frozenset(canvas.shown() & two)) or len(turns) > 1)
    assert turns == {frozenset(["baseline"]), frozenset(["new"])}
    canvas.layers.set_active(False)
    assert not canvas.layers._blink.isActive()


def test_blinking_fills_the_prediction_whose_turn_it_is(canvas: Canvas) -> None:
    loaded = canvas.show()
    agreement = loaded.agreement[::-1]

    canvas.layers.set_blink(True)
    layer = canvas.viewer.layers["swipe"]
    for who, number in (("baseline", 1), ("new", 2), ("baseline", 1)):
        assert "agreement" not in canvas.shown()
        assert "swipe" in canvas.shown()
        want = part_of(agreement, who) * np.uint8(number)
        assert np.array_equal(np.asarray(layer.data), want)
        at = layer.world_to_data(canvas.viewer.dims.point)[0]
        assert np.array_equal(drawn(layer), want[int(np.rint(at))])
        canvas.layers._turn()

    canvas.layers.set_blink(False)
    assert "agreement" in canvas.shown()
    assert "swipe" not in canvas.shown()


def test_a_probability_is_a_layer_over_the_image(canvas: Canvas) -> None:
    loaded = canvas.show()

    canvas.layers.set_probability("new")
    canvas.window.until(lambda: "probability of new, %" in canvas.shown())

    layer = canvas.viewer.layers["probability of new, %"]
    assert layer.data.dtype == np.uint8
    assert np.array_equal(layer.data[::-1] == 50, part_of(loaded.agreement, "new"))
    canvas.layers.set_probability(None)
    assert "probability of new, %" not in canvas.shown()


def test_a_probability_stands_in_the_view_of_its_model(canvas: Canvas) -> None:
    canvas.show()
    second = canvas.layers.second.model
    canvas.layers.set_probability("new")
    canvas.window.until(lambda: "probability of new, %" in canvas.shown())

    canvas.layers.set_side_by_side(True)
    canvas.window.until(
        lambda: "probability of new, %" in [layer.name for layer in second.layers if seen(layer)]
    )
    assert "probability of new, %" not in canvas.shown()
    canvas.layers.set_probability("baseline")
    canvas.window.until(lambda: "probability of baseline, %" in canvas.shown())
    assert "probability of new, %" not in [layer.name for layer in second.layers if seen(layer)]

    canvas.layers.set_probability("new")
    canvas.layers.set_side_by_side(False)
    canvas.window.until(lambda: "probability of new, %" in canvas.shown())


def test_a_probability_that_is_not_there_is_told(canvas: Canvas) -> None:
    (canvas.project.folder / "new" / "predictions" / "case_001_probability.nii.gz").unlink()
    canvas.show()

    canvas.layers.set_probability("new")
    canvas.window.until(lambda: canvas.said)

    assert "no probability map of case_001" in canvas.said[0]


# --- side by side ---------------------------------------------------------------------------------


def test_the_second_view_shows_the_same_image_and_the_new_model(canvas: Canvas) -> None:
    loaded = canvas.show()

    canvas.layers.set_side_by_side(True)

    second = canvas.layers.second.model
    (image,) = canvas.window.dock.layers.images
    assert second.layers["image"].data is image.data
    assert np.shares_memory(second.layers["agreement"].data, loaded.agreement)
    names = {layer.name for layer in second.layers if seen(layer)}
    assert names == {"image", "agreement", "reference", "new"}
    assert canvas.shown() == {"agreement", "reference", "baseline"}


def test_both_views_follow_one_another(canvas: Canvas) -> None:
    canvas.show()
    canvas.layers.set_side_by_side(True)
    first, second = canvas.viewer, canvas.layers.second.model

    show_plane(first, "coronal")
    first.dims.set_point(1, first.dims.range[1].start + 4)
    first.scene.camera.center, first.scene.camera.zoom = (0.0, -3.0, 4.0), 5.0
    assert second.dims.order == first.dims.order
    assert second.dims.point == first.dims.point
    assert second.scene.camera.center == (0.0, -3.0, 4.0)
    assert second.scene.camera.zoom == 5.0

    second.scene.camera.zoom = 6.0
    second.dims.set_point(1, first.dims.range[1].start + 6)
    assert first.scene.camera.zoom == 6.0
    assert first.dims.point == second.dims.point


@pytest.mark.parametrize("plane", PLANES)
def test_the_letters_of_both_views_are_those_of_the_plane(canvas: Canvas, plane: str) -> None:
    canvas.show()
    canvas.layers.set_side_by_side(True)

    show_plane(canvas.viewer, plane)

    left = {"axial": "R", "coronal": "R", "sagittal": "A"}[plane]
    second = canvas.layers.second.model
    assert letters_of(canvas.viewer)["left"] == letters_of(second)["left"] == left
    assert second.canvas.overlays["backsplit_left"].text == left


def test_the_second_view_follows_to_the_next_case_and_its_window(canvas: Canvas) -> None:
    canvas.show()
    canvas.layers.set_side_by_side(True)
    (image,) = canvas.window.dock.layers.images
    image.contrast_limits = (-0.5, 0.5)
    second = canvas.layers.second.model
    assert tuple(second.layers["image"].contrast_limits) == (-0.5, 0.5)

    loaded = canvas.show(CASES[1])

    assert second.layers["image"].data is image.data
    assert np.shares_memory(second.layers["agreement"].data, loaded.agreement)


def test_without_a_second_view_nothing_follows(canvas: Canvas) -> None:
    canvas.show()
    canvas.layers.set_side_by_side(True)
    second = canvas.layers.second.model

    canvas.layers.set_side_by_side(False)
    canvas.viewer.scene.camera.zoom = 9.0

    assert second.scene.camera.zoom != 9.0
    held = [layer.data.size for layer in second.layers if isinstance(layer, Image | Labels)]
    assert max(held) == 1
    assert "new" in canvas.shown()


IN_A_WINDOW = """
from types import SimpleNamespace

import napari
import numpy as np
from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication

from napari_backsplit.widgets._side_by_side import SideBySide


def settle():
    for _ in range(3):
        QApplication.processEvents()
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


viewer = napari.Viewer(show=False)
viewer.window.show()
layer = viewer.add_image(np.zeros((4, 5, 6)))
parent = QObject()
second = SideBySide(viewer, SimpleNamespace(images=(layer,)), parent)
second.closed.connect(second.leave)
second.closed.connect(lambda: print("closed"))
for button in ("close_button", "hide_button"):
    second.open()
    settle()
    print(second._dock.isVisible(), second._dock.name)
    getattr(second._dock.title, button).click()
    settle()
    print(second.is_open)
second.open()
settle()
second.close()
settle()
print([dock for dock in viewer.window.dock_widgets])
viewer.close()
"""


def test_a_second_view_that_a_person_closes_comes_back_when_asked_for(tmp_path: Path) -> None:
    said = on_a_virtual_display(IN_A_WINDOW, tmp_path).split("\n")

    once = ["True New model", "closed", "False"]
    assert [line for line in said if line] == [*once, *once, "[]"]


def test_a_dock_that_napari_wraps_for_plugins_is_given_to_qt_bare() -> None:
    dock = SimpleNamespace()
    assert bare(PublicOnlyProxy(dock)) is dock
    assert bare(dock) is dock
    assert bare(None) is None
