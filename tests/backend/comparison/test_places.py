from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from napari_backsplit.backend.comparison.places import Places, gap_mm, grow, middle
from napari_backsplit.backend.comparison.runs import decode, encode

SPACING = (2.5, 0.8, 1.1)
masks = arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=6))
pairs = array_shapes(min_dims=3, max_dims=3, max_side=7).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


def box(start, stop, shape=(12, 12, 12)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def find(lesion, spacing_mm=(1.0, 1.0, 1.0), **supports):
    place = Places.of(supports, spacing_mm).find(encode(lesion))
    return place["organ"], place["nearest"], place["distance_mm"]


@given(masks)
def test_growing_adds_every_neighbour(mask):
    grown = ndimage.binary_dilation(mask, np.ones((3, 3, 3)))
    assert np.array_equal(decode(grow(encode(mask))), grown)


@given(pairs)
def test_the_gap_is_that_of_the_nearest_two_voxels(pair):
    one, other = (np.argwhere(mask) for mask in pair)
    assume(len(one) and len(other))
    apart = np.maximum(np.abs(one[:, None] - other[None]) - 1, 0) * np.array(SPACING)
    expected = np.sqrt((apart**2).sum(axis=2)).min()
    one, other = map(encode, pair)
    assert gap_mm(one, other, SPACING) == pytest.approx(expected)
    assert gap_mm(one, other, SPACING) == pytest.approx(gap_mm(other, one, SPACING))
    if expected:
        assert gap_mm(one, other, SPACING, at_most=expected / 2) == np.inf


def test_the_gap_of_two_large_masks_takes_little_memory():
    """As of a false positive of the size of an organ: each has 10 000 runs."""
    shape = (100, 100, 40)
    one, other = (encode(box((0, 0, x), (100, 100, x + 3), shape)) for x in (0, 20))
    tracemalloc.start()
    try:
        assert gap_mm(one, other, SPACING) == pytest.approx(17 * 1.1)
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()


def test_the_nearest_of_several_supports_is_found_whatever_their_order():
    near, far = box((0, 0, 6), (12, 1, 7)), box((0, 11, 11), (12, 12, 12))
    lesion = box((5, 0, 0), (6, 1, 1))
    for supports in ({"near": near, "far": far}, {"far": far, "near": near}):
        assert find(lesion, SPACING, **supports) == ("", "near", pytest.approx(5 * 1.1))


def test_the_gap_to_a_large_mask():
    """Many runs, the nearest of which is not the first looked at."""
    ball = sum((axis - 30) ** 2 for axis in np.ogrid[:60, :60, :60]) <= 25**2
    lesion = box((0, 0, 0), (2, 2, 2), (60, 60, 60))
    gap = gap_mm(encode(lesion), encode(ball), (1, 1, 1))
    away = ndimage.distance_transform_edt(~ball)[1, 1, 1]
    assert away - 2 < gap < away


@given(masks)
def test_the_middle_is_a_voxel_of_the_lesion(mask):
    assume(mask.any())
    assert mask[middle(encode(mask), SPACING)]


def test_the_middle_of_a_ring_is_on_the_ring_and_that_of_a_box_in_its_centre():
    ring = box((5, 2, 2), (6, 9, 9)) & ~box((5, 3, 3), (6, 8, 8))
    assert middle(encode(box((2, 3, 4), (5, 8, 11))), SPACING) == (3, 5, 7)
    assert ring[middle(encode(ring), SPACING)]


def test_a_lesion_inside_an_organ():
    liver, kidney = box((0, 0, 0), (8, 8, 8)), box((9, 9, 9), (12, 12, 12))
    assert find(box((2, 2, 2), (4, 4, 4)), liver=liver, kidney=kidney) == ("liver", "liver", 0)


def test_a_lesion_that_the_organ_leaves_out_still_lies_in_it():
    lesion = box((2, 2, 2), (5, 5, 5))
    liver = box((0, 0, 0), (8, 8, 8)) & ~lesion
    assert find(lesion, liver=liver) == ("liver", "liver", 0)


def test_a_lesion_that_lies_mostly_outside_touches_the_nearest():
    lesion, liver = box((5, 2, 2), (9, 4, 4)), box((0, 0, 0), (6, 8, 8))
    assert find(lesion, liver=liver) == ("", "liver", 0)


def test_touching_is_no_distance_and_a_gap_is_measured_in_mm():
    liver, bowel = box((0, 0, 0), (4, 12, 12)), box((11, 0, 0), (12, 12, 12))
    assert find(box((4, 4, 4), (6, 6, 6)), liver=liver, bowel=bowel)[1:] == ("liver", 0)
    lesion = box((6, 4, 4), (8, 6, 6))
    assert find(lesion, SPACING, liver=liver, bowel=bowel) == ("", "liver", 5.0)
    assert find(lesion, SPACING, bowel=bowel)[1:] == ("bowel", 7.5)


def test_of_supports_that_overlap_the_lesion_the_one_with_most_of_it_is_nearest():
    lesion = box((2, 2, 2), (6, 4, 4))
    assert find(lesion, bowel=box((5, 2, 2), (6, 3, 3)), liver=box((2, 2, 2), (3, 4, 4)))[:2] == (
        "",
        "liver",
    )


def test_without_supports_there_is_no_place():
    lesion = box((2, 2, 2), (4, 4, 4))
    assert find(lesion) == ("", "", pytest.approx(np.nan, nan_ok=True))
    assert find(lesion, liver=np.zeros((12, 12, 12), bool))[1] == ""
