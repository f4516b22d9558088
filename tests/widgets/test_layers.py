from __future__ import annotations

import dask.array
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points
from scipy.spatial.transform import Rotation

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.geometry import from_affine
from napari_backsplit.backend.structures.prompts import slices
from napari_backsplit.backend.volume import Volume
from napari_backsplit.widgets._layers import (
    KEY,
    flip_bounds,
    flip_index,
    geometry_of,
    image_layer,
    label_map_layer,
    labels_layer,
    placement,
    refresh_bounds,
    shown,
    stored,
    volume_of_layer,
    widen_range,
    window,
)
from tests.widgets.display_support import SIGNED_PERMUTATIONS, counted, grid, viewer_with

quick = settings(deadline=None, max_examples=25)
OBLIQUE = Rotation.from_euler("xyz", (8, -5, 12), degrees=True).as_matrix()


def layer_of(data) -> Layer:
    return Layer.create(*data)


# --- the flip along z ---------------------------------------------------------------------------


def test_what_is_shown_is_the_same_memory_with_the_head_first():
    array = np.arange(24).reshape(2, 3, 4)
    view = shown(array)
    assert view[0].tolist() == array[1].tolist()
    view[0, 0, 0] = 99
    assert array[1, 0, 0] == 99
    assert np.shares_memory(stored(view), array)
    assert np.array_equal(stored(view), array)


def test_indices_and_bounds_by_hand():
    assert flip_index((0, 1, 2), (5, 6, 7)).tolist() == [4, 1, 2]
    assert flip_index([(4, 0, 0), (1.25, 2, 3)], (5, 6, 7)).tolist() == [[0, 0, 0], [2.75, 2, 3]]
    assert flip_bounds(((0, 2), (1, 3), (2, 4)), (5, 6, 7)) == ((3, 5), (1, 3), (2, 4))


@st.composite
def bounds_within(draw, shape):
    lows = [draw(st.integers(0, n - 1)) for n in shape]
    return tuple((low, draw(st.integers(low + 1, n))) for low, n in zip(lows, shape, strict=True))


@given(bounds_within((4, 5, 6)))
@quick
def test_bounds_of_the_layer_and_of_the_array_hold_the_same_voxels(bounds):
    array = np.arange(120).reshape(4, 5, 6)
    there = flip_bounds(bounds, array.shape)
    assert np.array_equal(shown(array)[slices(there)][::-1], array[slices(bounds)])
    assert flip_bounds(there, array.shape) == bounds


# --- where a layer lies -------------------------------------------------------------------------


def test_the_world_is_inferior_posterior_left_in_mm():
    volume = counted(grid((4, 5, 6), (3.0, 2.0, 1.0), (10.0, -20.0, 30.0)))
    data, place, kind = image_layer(volume, "ct")
    assert (kind, data.shape) == ("image", (4, 5, 6))
    assert place["scale"] == (3.0, 2.0, 1.0)
    assert place["translate"] == (-39.0, -20.0, 10.0)  # the top slice lies at 30 + 3 * 3 mm
    assert layer_of((data, place, kind)).data_to_world((3, 0, 0)) == (-30.0, -20.0, 10.0)


@given(st.sampled_from(SIGNED_PERMUTATIONS))
@quick
def test_every_voxel_lies_where_it_lies_in_the_patient(direction):
    volume = counted(grid(direction=direction))
    layer = layer_of(image_layer(volume, "any"))
    for value in (0, 7, 119):
        (index,) = np.argwhere(volume.array == value)
        (at,) = np.argwhere(layer.data == value)
        x, y, z = volume.geometry.to_lps(index)
        assert np.allclose(layer.data_to_world(at), (-z, y, x))
    assert np.shares_memory(layer.data, volume.array)


def test_parts_of_one_oblique_volume_lie_where_they_belong():
    whole = counted(grid((6, 7, 8), direction=OBLIQUE))
    affine = whole.geometry.affine
    affine[:3, 3] = whole.geometry.to_lps((2, 3, 1))
    part = Volume(whole.array[2:5, 3:6, 1:4], from_affine((3, 3, 3), affine))
    layers = [layer_of(image_layer(each, "mr")) for each in (whole, part)]
    value = part.array[1, 2, 0]
    places = [layer.data_to_world(np.argwhere(layer.data == value)[0]) for layer in layers]
    assert np.allclose(*places)
    assert np.linalg.det(OBLIQUE) == pytest.approx(1)


def test_a_placement_is_that_of_the_layer_and_goes_both_ways():
    volume = counted(grid(direction=SIGNED_PERMUTATIONS[13]))
    layer = layer_of(image_layer(volume, "any"))
    by_layer, by_geometry = placement(layer), placement(volume.geometry)
    assert by_layer.flipped == by_geometry.flipped == (True, False, False)
    assert np.allclose(by_layer.translate, by_geometry.translate)
    assert np.allclose(by_layer.scale, by_geometry.scale)
    world = by_layer.to_world((1, 2, 3))
    assert np.allclose(world, layer.data_to_world(flip_index((1, 2, 3), layer.data.shape)))
    assert by_layer.to_index(world) == pytest.approx((1, 2, 3))
    assert by_layer.to_voxel(world + 0.3).tolist() == [1, 2, 3]


# --- the window ---------------------------------------------------------------------------------


def test_ct_opens_in_the_soft_tissue_window():
    body = np.full((20, 20, 20), -1000, np.int16)
    body[5:15, 5:15, 5:15] = 40
    body[9:11] = 700
    assert window(body) == window(body, "CT") == (-160, 240)
    assert window(body, "MR") == (-1000, 700)
    assert window(body + 1024, "CT") == (24, 1724), "CT stored without a rescale is not in HU"


def test_other_images_open_from_the_lowest_percent_to_almost_the_highest():
    ramp = np.arange(10_000, dtype=np.float32).reshape(10, 20, 50)
    assert window(ramp) == pytest.approx((99.99, 9949.005))


@pytest.mark.parametrize(
    ("voxels", "expected"),
    [([3.0] * 8, (3, 4)), ([np.nan] * 8, (0, 1)), ([0] * 7 + [np.inf], (0, 1))],
)
def test_a_window_has_a_width_whatever_the_voxels(voxels, expected):
    assert window(np.reshape(np.array(voxels, np.float32), (2, 2, 2))) == expected


def test_the_contrast_slider_reaches_what_the_window_leaves_out():
    volume = counted(grid())
    layer = layer_of(image_layer(volume.with_array(volume.array * 30 - 1000), "ct"))
    assert layer.contrast_limits == layer.contrast_limits_range == [-160, 240]
    widen_range(layer)
    assert layer.contrast_limits == [-160, 240]
    assert layer.contrast_limits_range == [-1000, 2570]
    other = Image(ramp(4, 5, 6))
    widen_range(other)
    assert other.contrast_limits_range == [0, 119]


# --- masks --------------------------------------------------------------------------------------


@pytest.fixture
def mask_layer():
    mask = np.zeros((4, 5, 6), np.uint8)
    viewer = viewer_with(labels_layer(mask, grid(), "kidney", "#009E73"))
    return mask, viewer, viewer.layers[0]


def test_a_mask_is_shown_in_its_colour_and_nothing_else(mask_layer):
    _, _, layer = mask_layer
    assert layer.get_color(1) == pytest.approx((0, 158 / 255, 115 / 255, 1), abs=1e-3)
    assert layer.colormap.map(0)[3] == layer.colormap.map(2)[3] == 0
    assert layer.selected_label == 1


def test_painting_in_napari_changes_the_mask_and_undo_takes_it_back(mask_layer):
    mask, _, layer = mask_layer
    assert np.shares_memory(layer.data, mask)
    layer.brush_size = 1
    layer.paint((0, 2, 3), 1)
    assert np.argwhere(mask).tolist() == [[3, 2, 3]]
    layer.undo()
    assert not mask.any()


def test_a_bool_mask_is_shared_as_well():
    mask = np.zeros((4, 5, 6), bool)
    layer = layer_of(labels_layer(mask, grid(), "lesion", "red"))
    layer.data[0, 0, 0] = 1
    assert mask[3, 0, 0]


def test_a_change_of_the_mask_is_drawn_when_it_is_told(mask_layer):
    mask, viewer, layer = mask_layer
    drawn = []
    layer.events.set_data.connect(lambda event: drawn.append(layer._slice.image.view.copy()))
    viewer.dims.point = placement(layer).to_world((3, 0, 0))
    drawn.clear()
    mask[3, 1, 2] = 1
    refresh_bounds(layer, ((3, 4), (1, 2), (2, 3)))
    assert len(drawn) == 1
    assert np.argwhere(drawn[0]).tolist() == [[1, 2]]
    refresh_bounds(layer, ((0, 0), (0, 0), (0, 0)))
    assert len(drawn) == 1, "nothing changed, nothing is drawn"


def test_a_label_map_keeps_its_ids_and_what_is_known_of_it():
    ids = np.arange(120, dtype=np.uint8).reshape(4, 5, 6)
    layer = layer_of(label_map_layer(ids, grid(), "organs", labels={"liver": 5}))
    assert isinstance(layer, Labels)
    assert layer.data[0, 0, 0] == 90
    assert layer.metadata[KEY]["labels"] == {"liver": 5}
    assert geometry_of(layer) is not None


# --- any layer as a volume ----------------------------------------------------------------------


@given(st.sampled_from([*SIGNED_PERMUTATIONS, OBLIQUE]))
@quick
def test_a_layer_of_ours_gives_back_its_volume(direction):
    volume = counted(grid(direction=direction))
    found = volume_of_layer(layer_of(image_layer(volume, "any")))
    assert np.array_equal(found.array, volume.canonical().array)
    assert found.geometry.difference(volume.geometry.canonical()) is None
    assert found.notes == ()


def test_notes_of_the_file_stay_with_its_layer():
    volume = Volume(counted(grid()).array, grid(), ("The tilt was corrected.",))
    layer = layer_of(image_layer(volume, "any"))
    assert volume_of_layer(layer).notes == ("The tilt was corrected.",)


def test_another_layer_is_assumed_to_be_axis_aligned_and_says_so():
    array = np.random.default_rng(0).random((4, 5, 6))
    volume = volume_of_layer(Image(array, scale=(3, 2, 1), translate=(30, -20, 10)))
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, array.astype(np.float32))
    assert volume.geometry.difference(grid(origin=(10, -20, 30))) is None
    assert "assumed" in volume.notes[0]


def test_a_negative_scale_is_a_flip():
    array = np.arange(120).reshape(4, 5, 6)
    layer = Image(array, scale=(-3, 2, 1), translate=(39, -20, 10))
    volume = volume_of_layer(layer)
    assert np.array_equal(volume.array, array[::-1])
    assert volume.geometry.difference(grid(origin=(10, -20, 30))) is None
    assert placement(layer).to_voxel(layer.data_to_world((0, 1, 2))).tolist() == [3, 1, 2]


@pytest.mark.parametrize("kind", ["dask", "multiscale", "int", "bool"])
def test_other_arrays_are_computed(kind):
    array = np.arange(120).reshape(4, 5, 6)
    layer = {
        "dask": lambda: Image(dask.array.from_array(array, chunks=2)),
        "multiscale": lambda: Image([array, array[::2, ::2, ::2]], multiscale=True),
        "int": lambda: Image(array),
        "bool": lambda: Image(array > 60),
    }[kind]()
    volume = volume_of_layer(layer)
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, array > 60 if kind == "bool" else array)


def ramp(*shape):
    return np.arange(np.prod(shape), dtype=float).reshape(shape)


def with_value(value):
    array = ramp(4, 5, 6)
    array[1, 2, 3] = value
    return array


BAD_LAYERS = {
    "4D": (lambda: Image(ramp(2, 4, 5, 6)), r"4 axes, of shape \(2, 4, 5, 6\)"),
    "2D": (lambda: Image(ramp(5, 6)), r"2 axes, of shape \(5, 6\)"),
    "RGB": (lambda: Image(ramp(4, 5, 6, 3) / 360, rgb=True), "RGB"),
    "constant": (lambda: Image(np.full((4, 5, 6), 7.0)), "All voxels of the layer are 7"),
    "zero": (lambda: Image(np.zeros((4, 5, 6))), "All voxels of the layer are 0"),
    "NaN": (lambda: Image(with_value(np.nan)), r"1 voxels .* \(1, 2, 3\): nan"),
    "inf": (lambda: Image(with_value(np.inf)), r"\(1, 2, 3\): inf"),
    "too large": (lambda: Image(with_value(1e300)), r"\(1, 2, 3\): inf"),
    "labels": (lambda: Labels(np.ones((4, 5, 6), int)), "Labels layer"),
    "points": (lambda: Points(np.zeros((1, 3))), "Points layer"),
    "rotated": (lambda: Image(ramp(4, 5, 6), rotate=(10, 0, 0)), "rotated or sheared"),
    "sheared": (lambda: Image(ramp(4, 5, 6), shear=(0.2, 0, 0)), "rotated or sheared"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BAD_LAYERS)
def test_a_layer_that_is_no_volume_is_refused_with_a_remedy(name):
    make, message = BAD_LAYERS[name]
    with pytest.raises(InputError, match=message) as caught:
        volume_of_layer(make())
    assert caught.value.remedy


def test_a_layer_whose_data_were_exchanged_is_refused():
    layer = layer_of(image_layer(counted(grid()), "any"))
    layer.data = ramp(2, 5, 6)
    with pytest.raises(InputError, match=r"\(2, 5, 6\), its grid \(4, 5, 6\)"):
        volume_of_layer(layer)


def test_layers_need_no_window():
    assert isinstance(viewer_with(image_layer(counted(grid()), "any")), ViewerModel)
