import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_backsplit.backend.fusion.components import (
    a_voxel,
    components,
    islands,
    label_components,
    label_holes,
)

SHAPE = (6, 7, 8)


def box(*pairs, shape=SHAPE):
    result = np.zeros(shape, bool)
    result[tuple(slice(*pair) for pair in pairs)] = True
    return result


def test_islands_touching_at_a_corner_are_one():
    mask = box((0, 2), (0, 2), (0, 2)) | box((2, 3), (2, 3), (2, 3)) | box((4, 5), (4, 6), (4, 5))
    large, small = islands(mask, voxel_ml=0.5)
    assert (large.voxels, large.ml) == (9, 4.5)
    assert (small.voxels, small.ml) == (2, 1.0)
    assert mask[large.position_zyx]
    assert small.position_zyx in [(4, 4, 4), (4, 5, 4)]


def test_an_empty_mask_has_no_islands():
    assert islands(np.zeros(SHAPE, bool), 1.0) == ()


@given(arrays(bool, st.tuples(*[st.integers(1, 6)] * 3)))
def test_islands_of_thin_masks_are_found(mask):
    assert sum(island.voxels for island in islands(mask, 1.0)) == mask.sum()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 3, 1), (3, 1, 1), (1, 1, 7)])
def test_islands_in_one_row(shape):
    mask = np.zeros(shape, bool)
    mask.flat[::2] = True
    assert [island.voxels for island in islands(mask, 1.0)] == [1] * int(mask.sum())


@given(arrays(bool, SHAPE))
@settings(max_examples=50)
def test_islands_add_up_and_lie_in_the_mask(mask):
    found = islands(mask, 0.1)
    assert sum(island.voxels for island in found) == mask.sum()
    labels = cc3d.connected_components(mask, connectivity=26)
    assert sorted(labels[island.position_zyx] for island in found) == list(range(1, len(found) + 1))
    assert [i.voxels for i in found] == sorted((i.voxels for i in found), reverse=True)


def test_a_voxel_is_in_the_middle_of_the_fullest_plane():
    mask = box((2, 3), (1, 4), (1, 4)) | box((3, 4), (1, 2), (1, 2))
    assert a_voxel(mask) == (2, 2, 2)
    crop = (slice(2, 4), slice(1, 4), slice(1, 4))
    assert a_voxel(mask[crop], crop) == (2, 2, 2)


@given(arrays(bool, st.tuples(*[st.integers(1, 6)] * 3)))
@settings(max_examples=50)
def test_holes_are_what_a_filled_mask_has_more(mask):
    filled = ndimage.binary_fill_holes(mask)
    holes = label_holes(mask)
    assert holes.voxels.sum() == filled.sum() - mask.sum()
    assert all((filled & ~mask)[tuple(at)] for at in holes.positions())


@given(arrays(bool, SHAPE), arrays(bool, SHAPE))
@settings(max_examples=50)
def test_parts_are_counted_and_found_in_another_mask(mask, where):
    parts = label_components(mask)
    crop = where[parts.box]
    counted = parts.count(crop)
    assert counted.sum() == (mask & where).sum()
    for count, at in zip(counted, parts.positions(crop), strict=True):
        assert (mask & where)[tuple(at)] if count else (at == -1).all()


def test_an_empty_mask_has_no_parts():
    empty = np.zeros(SHAPE, bool)
    assert len(label_components(empty).voxels) == len(label_holes(empty).voxels) == 0
    assert list(components(empty)) == []


def test_an_island_is_shown_near_its_middle():
    (island,) = islands(box((1, 4), (1, 4), (1, 4)), 1.0)
    assert island.position_zyx == (2, 2, 2)
