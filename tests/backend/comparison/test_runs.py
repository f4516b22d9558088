from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_backsplit.backend.comparison.runs import common_voxels, decode, encode, split, union
from napari_backsplit.backend.errors import InputError
from tests.backend.comparison.lesion_support import label

masks = arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=6))
pairs = array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


connectivities = st.sampled_from([6, 18, 26])


@given(masks)
def test_decode_undoes_encode(mask):
    assert np.array_equal(decode(encode(mask)), mask)


@given(masks, connectivities)
def test_components_are_those_of_cc3d(mask, connectivity):
    labels, count = label(mask, connectivity)
    components = encode(mask).components(connectivity)
    assert components.count == count
    assert sorted(components.voxels) == sorted(np.bincount(labels.ravel())[1:])


@given(masks, connectivities)
def test_splitting_gives_each_component_and_union_all_of_them(mask, connectivity):
    runs = encode(mask)
    parts = split(runs, connectivity)
    assert [part.size for part in parts] == runs.components(connectivity).voxels.tolist()
    assert all(part.components(connectivity).count == 1 for part in parts)
    assert np.array_equal(decode(union(parts, runs.shape)), mask)


@given(pairs)
def test_the_union_is_what_is_in_either(pair):
    one, other = (encode(mask) for mask in pair)
    both = union([one, other], one.shape)
    assert np.array_equal(decode(both), pair[0] | pair[1])
    # No run is left in pieces.
    assert np.array_equal(both.start, encode(pair[0] | pair[1]).start)


@given(pairs)
def test_common_voxels_are_counted(pair):
    assert common_voxels(encode(pair[0]), encode(pair[1])) == np.count_nonzero(pair[0] & pair[1])


def test_corner_neighbours_are_one_lesion_and_a_gap_makes_two():
    mask = np.zeros((3, 3, 6), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert encode(mask).components().count == 1
    mask[1, 1, 3] = True
    assert encode(mask).components().count == 2


def test_edges_connect_from_18_neighbours_on_and_corners_from_26():
    edge, corner = np.zeros((2, 2, 2, 2), bool)
    edge[0, 0, 0] = edge[1, 1, 0] = corner[0, 0, 0] = corner[1, 1, 1] = True
    counts = [
        [encode(mask).components(connectivity).count for connectivity in (6, 18, 26)]
        for mask in (edge, corner)
    ]
    assert counts == [[2, 1, 1], [2, 2, 1]]


def test_a_volume_of_many_planes_is_encoded_as_a_whole():
    """Planes are read a block at a time; runs and rows must not notice."""
    mask = np.zeros((70, 2, 3), bool)
    mask[[0, 31, 32, 69], 1, 2] = mask[40] = True
    assert np.array_equal(decode(encode(mask)), mask)
    assert encode(mask).components().count == 4


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_what_is_not_zero_is_foreground(dtype):
    values = np.array([[[0, 1, 5], [0, 0, 3]]], dtype)
    assert np.array_equal(decode(encode(values)), values != 0)
    assert np.array_equal(decode(encode(np.asfortranarray(values))), values != 0)


def test_rows_do_not_wrap_into_the_next_plane():
    mask = np.zeros((2, 3, 4), bool)
    mask[0, 2, 3] = mask[1, 0, 0] = True
    assert encode(mask).components().count == 2


def test_a_mask_needs_three_axes():
    with pytest.raises(InputError, match=r"shape \(2, 2\)"):
        encode(np.zeros((2, 2), bool))
