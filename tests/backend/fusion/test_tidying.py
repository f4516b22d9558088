from __future__ import annotations

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion.tidying import (
    TOOLS,
    fill_holes,
    keep_largest,
    remove_islands,
    smooth,
)

SHAPE = (6, 7, 8)
MM = (2.0, 1.0, 1.0)
MASKS = arrays(bool, SHAPE)
FLIPS = st.tuples(*[st.sampled_from([1, -1])] * 3)
ALL = {
    name: lambda mask, tool=tool: tool.apply(mask, MM, tool.usual) for name, tool in TOOLS.items()
}
ALL["remove_islands"] = lambda mask: remove_islands(mask, 3.0, voxel_ml=1.0)


def box(*pairs, shape=SHAPE):
    result = np.zeros(shape, bool)
    result[tuple(slice(*pair) for pair in pairs)] = True
    return result


def ball(radius_mm, spacing_mm, room_mm=4.0):
    axes = [np.arange(-radius_mm - room_mm, radius_mm + room_mm + 1e-9, mm) for mm in spacing_mm]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius_mm**2


LARGE = box((0, 2), (0, 2), (0, 2))  # 8 voxels
SMALL = box((4, 5), (4, 6), (4, 5))  # 2
CORNER = box((2, 3), (2, 3), (2, 3))  # touches LARGE at a corner


# --- the largest part


def test_the_largest_part_is_what_touches_at_corners_too():
    assert np.array_equal(keep_largest(LARGE | CORNER | SMALL), LARGE | CORNER)


def test_of_two_equal_parts_the_first_stays():
    first, second = box((0, 1), (6, 7), (7, 8)), box((3, 4), (0, 1), (0, 1))
    assert np.array_equal(keep_largest(second | first), first)


@given(MASKS)
def test_one_part_stays_and_none_is_larger(mask):
    kept = keep_largest(mask)
    names, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = [int((names == name).sum()) for name in range(1, count + 1)]
    assert kept.sum() == max(sizes, default=0)
    assert ndimage.label(kept, np.ones((3, 3, 3)))[1] == min(count, 1)


# --- islands


@pytest.mark.parametrize(
    ("below_ml", "stays"),
    [
        (0.0, LARGE | SMALL),
        (1.0, LARGE | SMALL),  # SMALL has exactly 2 x 0.5 ml
        (1.1, LARGE),
        (4.0, LARGE),
        (4.1, LARGE | SMALL),  # all are smaller: an empty mask would say something else
    ],
)
def test_islands_below_a_volume_go(below_ml, stays):
    assert np.array_equal(remove_islands(LARGE | SMALL, below_ml, voxel_ml=0.5), stays)


@given(MASKS, st.integers(0, 12))
def test_what_goes_is_smaller_than_what_stays(mask, below):
    kept = remove_islands(mask, float(below), voxel_ml=1.0)
    names, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = {name: int((names == name).sum()) for name in range(1, count + 1)}
    stay = [name for name in sizes if sizes[name] >= below] or list(sizes)
    assert np.array_equal(kept, np.isin(names, stay))


@pytest.mark.parametrize("amount", [-0.1, float("nan"), float("inf")])
def test_an_amount_that_is_none_is_refused(amount):
    with pytest.raises(InputError, match=str(amount)):
        remove_islands(LARGE, amount, voxel_ml=0.5)
    with pytest.raises(InputError, match=str(amount)):
        smooth(LARGE, amount, MM)


# --- holes


def test_a_cavity_is_filled_and_a_tunnel_is_not():
    block = box((1, 6), (1, 6), (1, 6))
    cavity, tunnel = block.copy(), block.copy()
    cavity[3, 3, 3] = False
    tunnel[1:4, 3, 3] = False  # open toward z = 0
    assert np.array_equal(fill_holes(cavity), block)
    assert np.array_equal(fill_holes(tunnel), tunnel)


def test_what_is_closed_in_each_plane_along_z_alone_stays_open():
    tube = box((0, 6), (1, 6), (1, 6)) & ~box((0, 6), (3, 4), (3, 4))
    assert np.array_equal(fill_holes(tube), tube)


def test_a_way_over_a_corner_is_no_way_out():
    block = box((1, 5), (1, 6), (1, 7))
    leaky = block.copy()
    leaky[2, 2, 2] = leaky[1, 1, 1] = False  # the second is outside; they touch at a corner
    assert np.array_equal(fill_holes(leaky), block & ~box((1, 2), (1, 2), (1, 2)))


def test_background_at_the_border_of_the_image_is_no_hole():
    mask = np.ones(SHAPE, bool)
    mask[0, 3, 3] = mask[3, 3, 3] = False
    filled = fill_holes(mask)
    assert not filled[0, 3, 3]
    assert filled.sum() == filled.size - 1


@given(MASKS)
def test_holes_are_what_the_border_does_not_reach(mask):
    assert np.array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))


# --- a smooth surface


def test_a_bump_goes_and_the_flat_surface_stays():
    flat = np.zeros((16, 16, 16), bool)
    flat[:8] = True
    bumpy = flat.copy()
    bumpy[8, 8, 8], bumpy[7, 3, 3] = True, False
    assert np.array_equal(smooth(bumpy, 3.0, (1.0, 1.0, 1.0)), flat)


def test_the_border_of_the_image_is_no_surface():
    mask = np.ones((5, 5, 5), bool)
    assert smooth(mask, 6.0, (1.0, 1.0, 1.0)).all()


def test_no_radius_changes_nothing():
    mask = LARGE | SMALL
    assert np.array_equal(smooth(mask, 0.0, MM), mask)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)])
def test_a_ball_loses_what_is_said(spacing_mm):
    organ = ball(20.0, spacing_mm)
    lost = 1 - smooth(organ, 6.0, spacing_mm).sum() / organ.sum()
    assert lost == pytest.approx(0.75 * (6 / 20) ** 2, rel=0.15)


def test_the_surface_is_as_smooth_in_mm_along_each_axis():
    """A peg 2 mm thick goes along every axis, whatever its voxels."""
    spacing_mm = (2.0, 1.0, 0.5)
    organ = np.zeros((20, 40, 80), bool)
    organ[5:15, 10:30, 20:60] = True  # 20 mm each way
    pegged = organ.copy()
    pegged[15:17, 19:21, 38:42] = True
    pegged[9:10, 30:34, 38:42] = True
    pegged[9:10, 19:21, 60:68] = True
    tidy = smooth(pegged, 6.0, spacing_mm)
    assert not tidy[15:].any()
    assert not tidy[:, 30:].any()
    assert not tidy[:, :, 60:].any()
    assert tidy[5:15, 20, 40].all()  # the flat faces stay
    assert tidy[10, 10:30, 40].all()
    assert tidy[10, 20, 20:60].all()


def test_a_part_that_would_vanish_is_kept_as_it_is():
    organ = ball(12.0, (1.0, 1.0, 1.0), room_mm=12.0)
    lesion = box((1, 3), (1, 2), (1, 2), shape=organ.shape)
    tidy = smooth(organ | lesion, 6.0, (1.0, 1.0, 1.0))
    assert np.array_equal(tidy[:5, :5, :5], lesion[:5, :5, :5])
    assert 0 < tidy.sum() < (organ | lesion).sum()
    assert np.array_equal(smooth(lesion, 6.0, (1.0, 1.0, 1.0)), lesion)


@given(MASKS, st.sampled_from([0.5, 2.0, 5.0]))
@settings(max_examples=60)
def test_every_part_has_something_left(mask, radius_mm):
    tidy = smooth(mask, radius_mm, MM)
    names, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert set(names[tidy & mask].tolist()) == set(range(1, count + 1))


# --- all of them


@pytest.mark.parametrize("name", ALL)
def test_an_empty_mask_stays_empty(name):
    empty = np.zeros(SHAPE, bool)
    assert not ALL[name](empty).any()


@pytest.mark.parametrize("name", ALL)
@given(mask=MASKS)
@settings(max_examples=40)
def test_the_given_mask_is_left_alone_and_none_becomes_empty(name, mask):
    before = mask.copy()
    tidy = ALL[name](mask)
    assert tidy.dtype == bool
    assert tidy.shape == mask.shape
    assert tidy.any() == mask.any()
    tidy[:] = True
    assert np.array_equal(mask, before)


@pytest.mark.parametrize(
    ("name", "adds"), [("keep_largest", False), ("remove_islands", False), ("fill_holes", True)]
)
@given(mask=MASKS)
@settings(max_examples=40)
def test_once_is_enough_and_nothing_else_changes(name, adds, mask):
    tidy = ALL[name](mask)
    assert np.array_equal(ALL[name](tidy), tidy)
    small, large = (mask, tidy) if adds else (tidy, mask)
    assert not (small & ~large).any()


@pytest.mark.parametrize("name", ["remove_islands", "fill_holes", "smooth"])
@given(mask=MASKS, flips=FLIPS)
@settings(max_examples=40)
def test_a_mirrored_mask_is_tidied_alike(name, mask, flips):
    mirror = tuple(slice(None, None, step) for step in flips)
    assert np.array_equal(ALL[name](mask[mirror]), ALL[name](mask)[mirror])


@given(mask=MASKS, flips=FLIPS)
def test_a_mirrored_largest_part_is_as_large(mask, flips):
    mirror = tuple(slice(None, None, step) for step in flips)
    assert keep_largest(mask[mirror]).sum() == keep_largest(mask).sum()
    sizes = np.sort(cc3d.statistics(cc3d.connected_components(np.pad(mask, 1)))["voxel_counts"][1:])
    if len(sizes) == 1 or (len(sizes) > 1 and sizes[-1] > sizes[-2]):
        assert np.array_equal(keep_largest(mask[mirror]), keep_largest(mask)[mirror])


def test_the_table_hands_the_amount_on():
    mask, mm = LARGE | SMALL, (10.0, 10.0, 5.0)  # 0.5 ml a voxel
    assert np.array_equal(TOOLS["remove_islands"].apply(mask, mm, 1.1), LARGE)
    assert np.array_equal(TOOLS["remove_islands"].apply(mask, mm, 1.0), mask)
    assert np.array_equal(TOOLS["smooth"].apply(mask, MM, 0.0), mask)
    assert TOOLS["smooth"].apply(LARGE, MM, 2.0).sum() < LARGE.sum() + 1
