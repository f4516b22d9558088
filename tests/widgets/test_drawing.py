from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image
from scipy.spatial.transform import Rotation

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.structures.prompts import Box, Lasso, Point, Scribble
from napari_backsplit.widgets._drawing import (
    prompt_from_box,
    prompt_from_lasso,
    prompt_from_point,
    prompt_from_scribble,
    sliced_axis,
)
from napari_backsplit.widgets._layers import image_layer, placement, stored
from napari_backsplit.widgets._orientation import PLANES, show_plane
from tests.widgets.display_support import SIGNED_PERMUTATIONS, counted, grid, viewer_with

SHAPE = (10, 12, 14)
quick = settings(deadline=None, max_examples=25)


@pytest.fixture
def viewer() -> ViewerModel:
    return viewer_with(image_layer(counted(grid(SHAPE)), "ct"))


def world(viewer, *indices):
    return placement(viewer.layers[0]).to_world(np.array(indices, float))


# --- a click ------------------------------------------------------------------------------------


@given(
    st.sampled_from(SIGNED_PERMUTATIONS),
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5)),
)
@quick
def test_a_click_on_a_voxel_is_a_prompt_on_it(direction, at):
    volume = counted(grid((4, 5, 6), direction=direction))
    geometry = volume.geometry.canonical()
    at = tuple(min(a, n - 1) for a, n in zip(at, geometry.shape, strict=True))
    layer = viewer_with(image_layer(volume, "any")).layers[0]
    (there,) = np.argwhere(layer.data == volume.canonical().array[at])
    position = layer.data_to_world(there)
    for where in (layer, geometry, volume.geometry):
        assert prompt_from_point(where, position, positive=False) == Point(at=at, positive=False)


def test_a_click_lies_in_the_slice_that_is_seen(viewer):
    layer = viewer.layers[0]
    for plane in PLANES:
        show_plane(viewer, plane)
        for step in range(viewer.dims.nsteps[viewer.dims.order[0]]):
            viewer.dims.set_current_step(viewer.dims.order[0], step)
            seen = np.asarray(layer._slice.image.raw)
            position = np.array(layer.data_to_world((5, 5, 5)))
            axis = viewer.dims.order[0]
            position[axis] = viewer.dims.point[axis]
            point = prompt_from_point(layer, position)
            assert stored(layer.data)[point.at] in seen


def test_a_click_in_an_oblique_volume_is_found_again():
    direction = Rotation.from_euler("xyz", (20, 30, 40), degrees=True).as_matrix()
    geometry = grid(SHAPE, direction=direction)
    position = placement(geometry).to_world((2, 3, 4))
    assert prompt_from_point(geometry, position + 0.4) == Point(at=(2, 3, 4))


def test_a_click_on_a_layer_of_another_reader(viewer):
    layer = Image(np.random.default_rng(0).random((4, 5, 6)), scale=(2, 1, 1), translate=(8, 0, 0))
    assert prompt_from_point(layer, (10.3, 3, 4)) == Point(at=(1, 3, 4))


@pytest.mark.parametrize("outside", [(-1, 5, 5), (10, 5, 5), (5, 12, 5), (5, 5, -1)])
def test_a_click_outside_of_the_image_is_refused(viewer, outside):
    with pytest.raises(InputError, match=r"outside of the image of 10 x 12 x 14") as caught:
        prompt_from_point(viewer.layers[0], world(viewer, outside)[0])
    assert str(outside)[1:-1] in caught.value.problem


# --- in the three planes ------------------------------------------------------------------------

ORDERS = {
    (0, 1, 2): 0, (0, 2, 1): 0, (1, 0, 2): 1, (1, 2, 0): 1, (2, 0, 1): 2, (2, 1, 0): 2,
}  # fmt: skip


@pytest.mark.parametrize(("order", "axis"), ORDERS.items())
def test_a_box_is_one_slice_thick_in_every_plane(viewer, order, axis):
    viewer.dims.order = order
    low, high = [2, 3, 4], [6, 8, 10]
    low[axis] = high[axis] = 5
    corners = world(viewer, high, low)
    box = prompt_from_box(viewer.layers[0], corners, viewer.dims)
    expected = [n + 1 for n in high]
    assert box == Box(low=tuple(low), high=tuple(expected))
    assert expected[axis] - low[axis] == 1


def test_a_box_is_cut_at_the_edge_of_the_image(viewer):
    corners = world(viewer, (4, -3, 2), (4, 5, 40))
    box = prompt_from_box(viewer.layers[0], corners, viewer.dims, positive=False)
    assert box == Box(low=(4, 0, 2), high=(5, 6, 14), positive=False)


@pytest.mark.parametrize("row", [-9, 20])
def test_a_box_beside_the_image_is_refused(viewer, row):
    with pytest.raises(InputError, match="outside"):
        prompt_from_box(viewer.layers[0], world(viewer, (4, row, 2), (4, row + 3, 4)), viewer.dims)


@pytest.mark.parametrize(("order", "axis"), ORDERS.items())
def test_a_scribble_follows_the_voxels_under_it(viewer, order, axis):
    viewer.dims.order = order
    line = np.array([(3.2, 3.2, 3.2), (4.9, 6.2, 7.8), (6.1, 6.1, 6.1)])
    line[:, axis] = 5
    found = prompt_from_scribble(viewer.layers[0], world(viewer, *line), viewer.dims)
    path = tuple(map(tuple, np.rint(np.delete(line, axis, axis=1)).tolist()))
    assert found == Scribble(axis=axis, index=5, path=path)
    assert found.mask().shape[axis] == 1


@pytest.mark.parametrize(("order", "axis"), ORDERS.items())
def test_a_lasso_holds_what_it_goes_around(viewer, order, axis):
    viewer.dims.order = order
    square = np.array([(2, 2), (2, 6), (6, 6), (6, 2)], float)
    corners = np.insert(square, axis, 4, axis=1)
    lasso = prompt_from_lasso(viewer.layers[0], world(viewer, *corners), viewer.dims)
    assert isinstance(lasso, Lasso)
    assert (lasso.axis, lasso.index) == (axis, 4)
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(a, b) for a, b in lasso.bounds())] = lasso.mask()
    expected = np.zeros(SHAPE, bool)
    expected[tuple(slice(4, 5) if n == axis else slice(2, 7) for n in range(3))] = True
    assert np.array_equal(mask, expected)


def test_one_dab_of_a_scribble_is_one_voxel(viewer):
    found = prompt_from_scribble(viewer.layers[0], world(viewer, (1, 2, 3)), viewer.dims)
    assert found == Scribble(axis=0, index=1, path=((2.0, 3.0),))


@pytest.mark.parametrize("draw", [prompt_from_scribble, prompt_from_lasso])
def test_a_line_that_leaves_the_image_or_is_empty_is_refused(viewer, draw):
    with pytest.raises(InputError, match="outside"):
        draw(viewer.layers[0], world(viewer, (4, 3, 3), (4, 3, 20)), viewer.dims)
    with pytest.raises(InputError, match="Nothing was drawn"):
        draw(viewer.layers[0], [], viewer.dims)


def test_axes_of_other_layers_come_before_ours(viewer):
    viewer.add_image(np.random.default_rng(0).random((2, 4, 5, 6)))
    assert viewer.dims.ndim == 4
    viewer.dims.order = (0, 2, 1, 3)
    assert sliced_axis(viewer.dims) == 1
    position = np.concatenate([[1.0], world(viewer, (1, 2, 3))[0]])
    assert prompt_from_point(viewer.layers[0], position) == Point(at=(1, 2, 3))
    viewer.dims.order = (3, 2, 0, 1)
    with pytest.raises(InputError, match="not a slice"):
        sliced_axis(viewer.dims)


def test_in_3d_there_is_no_slice_to_draw_in(viewer):
    viewer.dims.ndisplay = 3
    with pytest.raises(InputError, match="3 dimensions, not a slice") as caught:
        prompt_from_box(viewer.layers[0], world(viewer, (1, 1, 1), (1, 2, 2)), viewer.dims)
    assert "2D" in caught.value.remedy
