from __future__ import annotations

import cc3d
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_backsplit.backend.comparison.lesions import count_lesions
from napari_backsplit.backend.comparison.runs import common_voxels, decode, encode
from napari_backsplit.backend.errors import InputError

masks = arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=6))
pairs = array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


def lesions(reference, prediction):
    return count_lesions(encode(reference), encode(prediction))


@given(masks)
def test_decode_undoes_encode(mask):
    assert np.array_equal(decode(encode(mask)), mask)


@given(masks)
def test_components_are_those_of_cc3d(mask):
    labels, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    components = encode(mask).components
    assert components.count == count
    assert sorted(components.voxels) == sorted(np.bincount(labels.ravel())[1:])


@given(pairs)
def test_common_voxels_are_counted(pair):
    assert common_voxels(encode(pair[0]), encode(pair[1])) == np.count_nonzero(pair[0] & pair[1])


@given(pairs)
def test_lesions_are_those_found_component_by_component(pair):
    reference, prediction = pair
    labels = cc3d.connected_components(reference, connectivity=26)
    predicted = cc3d.connected_components(prediction, connectivity=26)
    found = [k for k in range(1, labels.max() + 1) if prediction[labels == k].any()]
    false = [k for k in range(1, predicted.max() + 1) if not reference[predicted == k].any()]
    counted = lesions(reference, prediction)
    assert (counted.found, counted.false_positives) == (len(found), len(false))
    assert counted.false_voxels == sum(np.count_nonzero(predicted == k) for k in false)
    assert counted.missed_voxels == np.count_nonzero(reference & ~np.isin(labels, found))


@given(pairs)
def test_swapping_reference_and_prediction_swaps_misses_and_false_positives(pair):
    there, back = lesions(*pair), lesions(*pair[::-1])
    assert there.missed_voxels == back.false_voxels
    assert there.reference - there.found == back.false_positives


def test_corner_neighbours_are_one_lesion_and_a_gap_makes_two():
    mask = np.zeros((3, 3, 6), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert encode(mask).components.count == 1
    mask[1, 1, 3] = True
    assert encode(mask).components.count == 2


def test_rows_do_not_wrap_into_the_next_plane():
    mask = np.zeros((2, 3, 4), bool)
    mask[0, 2, 3] = mask[1, 0, 0] = True
    assert encode(mask).components.count == 2


def test_any_overlap_finds_a_lesion_and_autopet_counts_whole_components():
    reference, prediction = np.zeros((2, 1, 1, 20), bool)
    reference[..., 0:4] = reference[..., 8:10] = True  # 4 and 2 voxels
    prediction[..., 3:6] = prediction[..., 14:17] = True  # touches the first; 3 voxels astray
    counted = lesions(reference, prediction)
    assert (counted.reference, counted.predicted) == (2, 2)
    assert (counted.found, counted.false_positives) == (1, 1)
    assert (counted.missed_voxels, counted.false_voxels) == (2, 3)
    assert counted.sensitivity == 0.5
    assert counted.f1 == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))


def test_one_prediction_across_two_lesions_finds_both():
    reference, prediction = np.zeros((2, 1, 1, 9), bool)
    reference[..., 1] = reference[..., 7] = True
    prediction[..., 1:8] = True
    counted = lesions(reference, prediction)
    assert (counted.found, counted.false_positives, counted.f1) == (2, 0, 1.0)


def test_without_a_lesion_sensitivity_and_f1_are_not_defined():
    counted = lesions(np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool))
    assert np.isnan([counted.sensitivity, counted.f1]).all()
    assert (counted.false_positives, counted.false_voxels) == (1, 8)


def test_a_mask_needs_three_axes():
    with pytest.raises(InputError, match=r"shape \(2, 2\)"):
        encode(np.zeros((2, 2), bool))
