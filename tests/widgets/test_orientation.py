from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Layer
from scipy.spatial.transform import Rotation

from napari_backsplit.widgets._layers import image_layer
from napari_backsplit.widgets._orientation import PLANES, letters_of, orient, show_plane
from napari_backsplit.widgets.reader import read_layers
from tests.widgets.display_support import (
    ANTERIOR,
    CENTRE,
    HEAD,
    RIGHT,
    SIGNED_PERMUTATIONS,
    counted,
    grid,
    landmarks,
    on_a_virtual_display,
    viewer_with,
)

OBLIQUE = Rotation.from_euler("xyz", (8, -5, 12), degrees=True).as_matrix()
UPRIGHT = {"axial": "APRL", "coronal": "HFRL", "sagittal": "HFAP"}
"""The letters at the top, bottom, left and right of each plane."""


def edges(viewer) -> str:
    letters = orient(viewer).letters
    return "".join(letters[edge] or "-" for edge in ("top", "bottom", "left", "right"))


@pytest.fixture
def viewer() -> ViewerModel:
    return viewer_with(image_layer(counted(grid()), "ct"))


# --- where the patient is on the screen ---------------------------------------------------------


def on_screen(viewer, value) -> tuple[float, float]:
    """Return how far below and right of the centre voxel another one is drawn, in mm."""
    layer = viewer.layers[0]
    world = [
        np.array(layer.data_to_world(np.argwhere(layer.data == v)[0])) for v in (CENTRE, value)
    ]
    down, right = (world[1] - world[0])[list(viewer.dims.displayed)]
    return float(down), float(right)


def assert_upright(viewer) -> None:
    assert viewer.scene.camera.orientation2d == ("down", "right")
    show_plane(viewer, "axial")
    assert on_screen(viewer, RIGHT)[1] < 0 == on_screen(viewer, RIGHT)[0]
    assert on_screen(viewer, ANTERIOR)[0] < 0 == on_screen(viewer, ANTERIOR)[1]
    show_plane(viewer, "coronal")
    assert on_screen(viewer, RIGHT)[1] < 0 == on_screen(viewer, RIGHT)[0]
    assert on_screen(viewer, HEAD)[0] < 0 == on_screen(viewer, HEAD)[1]
    show_plane(viewer, "sagittal")
    assert on_screen(viewer, ANTERIOR)[1] < 0 == on_screen(viewer, ANTERIOR)[0]
    assert on_screen(viewer, HEAD)[0] < 0 == on_screen(viewer, HEAD)[1]


@pytest.mark.parametrize("number", range(48))
def test_right_is_left_and_anterior_and_head_are_up_in_all_48_orientations(number):
    volume = landmarks(SIGNED_PERMUTATIONS[number])
    assert sorted(volume.array[volume.array > 0]) == [CENTRE, RIGHT, ANTERIOR, HEAD]
    assert_upright(viewer_with(image_layer(volume, "any")))


def test_the_eight_files_of_one_image_are_drawn_alike(real_data):
    files = sorted((real_data / "orientations").glob("*.nii.gz"))
    layers = [Layer.create(*data) for data in read_layers([str(f) for f in files])]
    assert len(layers) == 8
    corner = np.array(layers[0].data.shape) - 1
    for layer in layers:
        assert np.array_equal(layer.data, layers[0].data)
        assert np.allclose(layer.data_to_world(corner), layers[0].data_to_world(corner))


# --- the letters --------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("direction", [SIGNED_PERMUTATIONS[0], SIGNED_PERMUTATIONS[29], OBLIQUE])
def test_letters_of_each_plane(plane, direction):
    viewer = viewer_with(image_layer(counted(grid(direction=direction)), "any"))
    show_plane(viewer, plane)
    assert edges(viewer) == UPRIGHT[plane]


def test_letters_follow_what_is_displayed(viewer):
    assert edges(viewer) == "APRL"
    viewer.dims.transpose()
    assert edges(viewer) == "RLAP"
    viewer.dims.transpose()
    viewer.scene.camera.orientation2d = ("up", "right")
    assert edges(viewer) == "PARL"
    viewer.scene.camera.orientation2d = ("up", "left")
    assert edges(viewer) == "PALR"


OPPOSITE = dict(zip("RLAPHF", "LRPAFH", strict=True))


@given(
    st.permutations(range(3)), st.sampled_from(["up", "down"]), st.sampled_from(["left", "right"])
)
@settings(deadline=None, max_examples=40)
def test_a_letter_is_where_that_side_of_the_patient_is_drawn(order, vertical, horizontal):
    viewer = viewer_with(image_layer(landmarks(SIGNED_PERMUTATIONS[0]), "ct"))
    viewer.dims.order = tuple(order)
    viewer.scene.camera.orientation2d = (vertical, horizontal)
    drawn = letters_of(viewer)
    assert OPPOSITE[drawn["top"]] == drawn["bottom"]
    assert OPPOSITE[drawn["left"]] == drawn["right"]
    for value, letter in {RIGHT: "R", ANTERIOR: "A", HEAD: "H"}.items():
        down, right = on_screen(viewer, value)
        down, right = (
            down * (1 if vertical == "down" else -1),
            right * (1 if horizontal == "right" else -1),
        )
        edge = {(-1, 0): "top", (1, 0): "bottom", (0, -1): "left", (0, 1): "right"}.get(
            (int(np.sign(down)), int(np.sign(right)))
        )
        assert [e for e, found in drawn.items() if found == letter] == ([edge] if edge else [])


def test_napari_rolls_through_the_three_planes_upright(viewer):
    seen = [edges(viewer)]
    for _ in range(3):
        viewer.dims.roll()
        seen.append(edges(viewer))
    assert seen == [UPRIGHT[p] for p in ("axial", "sagittal", "coronal", "axial")]


def test_without_letters_napari_rolls_as_it_always_does(viewer):
    viewer.dims.roll()
    viewer.dims.roll()
    assert viewer.dims.order == (1, 2, 0)


def test_letters_in_3d_are_along_the_camera(viewer):
    show_plane(viewer, "coronal")
    viewer.dims.ndisplay = 3
    assert edges(viewer) == "HFRL"
    viewer.scene.camera.set_view_direction((1, 0, 0), (0, 1, 0))  # from the front, head down
    assert edges(viewer)[:2] == "FH"
    viewer.scene.camera.angles = (0, 0, 45)
    assert edges(viewer)[:2] == "--", "45 degrees is neither"
    viewer.dims.ndisplay = 2
    assert edges(viewer) == "HFRL"


def test_there_are_no_letters_without_a_patient():
    viewer = ViewerModel()
    assert edges(viewer) == "----"
    viewer.add_image(np.random.default_rng(0).random((4, 5, 6)))
    assert edges(viewer) == "----"
    layer = viewer.add_layer(Layer.create(*image_layer(counted(grid()), "ct")))
    assert edges(viewer) == "APRL"
    viewer.layers.remove(layer)
    assert edges(viewer) == "----"


def test_an_added_image_has_a_wide_contrast_slider(viewer):
    orient(viewer)
    volume = counted(grid())
    data = image_layer(volume.with_array(volume.array * 30 - 1000), "ct")
    layer = viewer.add_layer(Layer.create(*data))
    assert layer.contrast_limits == [-160, 240]
    assert layer.contrast_limits_range == [-1000, 2570]


def test_an_axis_of_another_layer_has_no_letters(viewer):
    viewer.add_image(np.random.default_rng(0).random((2, 4, 5, 6)))
    assert edges(viewer) == "APRL"
    viewer.dims.order = (1, 2, 0, 3)
    assert edges(viewer) == "--RL"
    show_plane(viewer, "sagittal")
    assert viewer.dims.order == (0, 3, 1, 2)
    assert edges(viewer) == "HFAP"


def test_a_viewer_has_one_set_of_letters_that_lives_as_long_as_it(viewer):
    before = set(viewer.canvas.overlays)
    orient(viewer)
    gc.collect()
    show_plane(viewer, "coronal")
    assert orient(viewer) is orient(viewer)
    added = {name: viewer.canvas.overlays[name] for name in set(viewer.canvas.overlays) - before}
    assert sorted(overlay.text for overlay in added.values()) == sorted("HFRL")


def test_closing_leaves_nothing_behind(viewer):
    before = set(viewer.canvas.overlays)
    first = orient(viewer)
    first.close()
    assert set(viewer.canvas.overlays) == before
    viewer.dims.roll()
    viewer.dims.roll()
    assert viewer.dims.order == (1, 2, 0)
    assert orient(viewer) is not first
    assert edges(viewer) == "RLHF"


# --- on a real canvas ---------------------------------------------------------------------------

SCREENSHOTS = """
import numpy as np
import napari
from napari.layers import Layer
from qtpy.QtWidgets import QApplication

from napari_backsplit.backend.geometry import from_parts
from napari_backsplit.backend.volume import Volume
from napari_backsplit.widgets._layers import image_layer
from napari_backsplit.widgets._orientation import PLANES, orient, show_plane

geometry = from_parts((20, 20, 20), (1, 1, 1), (0, 0, 0), np.eye(3))
array = np.zeros((20, 20, 20), np.float32)
array[12:, :8, :8] = 1  # head, anterior, right
viewer = napari.Viewer()  # a canvas that is not shown draws nothing
viewer.add_layer(Layer.create(*image_layer(Volume(array, geometry), "corner")))

def shot():
    for _ in range(5):
        QApplication.instance().processEvents()
    return viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(float).mean(2)

for plane in PLANES:
    show_plane(viewer, plane)
    viewer.dims.set_current_step(viewer.dims.order[0], 2)
    viewer.reset_view()
    plain = shot()
    rows, columns = np.nonzero(plain > 200)
    high, wide = plain.shape
    letters = orient(viewer)
    changed = np.abs(shot() - plain) > 60
    middle = slice(wide // 2 - 40, wide // 2 + 40), slice(high // 2 - 40, high // 2 + 40)
    edges = changed[:60, middle[0]], changed[-60:, middle[0]], changed[middle[1], :60], changed[middle[1], -60:]
    print(plane, round(rows.mean() / high, 2), round(columns.mean() / wide, 2), *(bool(e.any()) for e in edges))
    letters.close()
    print(plane, "closed", int((np.abs(shot() - plain) > 60).sum()))
viewer.close()
"""  # noqa: E501


def test_a_bright_corner_and_the_letters_on_a_real_canvas(tmp_path):
    lines = [line.split() for line in on_a_virtual_display(SCREENSHOTS, tmp_path).splitlines()]
    assert [line[0] for line in lines[::2]] == list(PLANES)
    for plane, down, right, *edges_with_a_letter in lines[::2]:
        assert float(down) < 0.45, f"{plane}: anterior and head are up"
        assert float(right) < 0.45, f"{plane}: right and anterior are left"
        assert edges_with_a_letter == ["True"] * 4
    assert [line[2] for line in lines[1::2]] == ["0"] * 3, "no letter stays"
