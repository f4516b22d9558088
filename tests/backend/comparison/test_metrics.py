from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_backsplit.backend.comparison.metrics import (
    Segmentation,
    SurfaceDistances,
    measure,
)
from napari_backsplit.backend.comparison.policy import EmptyMaskPolicy
from napari_backsplit.backend.errors import GeometryError

SPACING = (2.5, 0.8, 1.1)
shapes = st.tuples(*[st.integers(1, 6)] * 3)
pairs = shapes.flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))


def cube(start, stop, shape=(20, 20, 20)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def measured(reference, prediction, spacing_mm=(1, 1, 1), **options):
    return measure(
        Segmentation.of(reference, spacing_mm), Segmentation.of(prediction, spacing_mm), **options
    )


def distances(reference, prediction, spacing_mm=(1, 1, 1)):
    one, other = (Segmentation.of(mask, spacing_mm).surface for mask in (reference, prediction))
    return SurfaceDistances.between(one, other)


def test_equal_masks():
    mask = cube((5, 5, 5), (10, 10, 10))
    result = measured(mask, mask, SPACING)
    assert (result.dice, result.nsd, result.hd95_mm, result.lesion_f1) == (1, 1, 0, 1)
    assert result.difference_ml == 0


def test_a_shifted_cube():
    """Two of ten planes leave the cube: overlap 8 of 10; every far face is 2 planes away."""
    reference, prediction = cube((5, 5, 5), (15, 15, 15)), cube((7, 5, 5), (17, 15, 15))
    result = measured(reference, prediction, (3, 1, 1))
    assert result.dice == result.precision == result.sensitivity == pytest.approx(0.8)
    assert distances(reference, prediction, (3, 1, 1)).percentile_mm(100) == 6
    assert result.reference_ml == pytest.approx(3.0)


def test_the_tolerance_counts_what_is_just_as_far():
    """A slab, one voxel thick, 2 planes of 1.1 mm away: all of it at 2.2 mm, but for the rim."""
    reference, prediction = cube((5, 0, 0), (6, 20, 20)), cube((7, 0, 0), (8, 20, 20))
    far = distances(reference, prediction, (1.1, 1, 1))
    assert far.percentile_mm(100) == pytest.approx(2.2)
    assert far.nsd(2 * 1.1) == 1
    assert far.nsd(2.19) < 0.6


def test_a_single_voxel_surface_is_eight_corners_of_one_triangle():
    surface = Segmentation.of(cube((3, 3, 3), (4, 4, 4)), (1, 1, 1)).surface
    assert len(surface.corner) == 8
    assert surface.area_mm2 == pytest.approx(np.full(8, np.sqrt(3) / 8))


def test_single_voxels_apart():
    reference, prediction = cube((1, 1, 1), (2, 2, 2)), cube((1, 1, 5), (2, 2, 6))
    result = measured(reference, prediction, (2, 2, 0.5), tolerance_mm=1.6)
    assert result.hd95_mm == 2.0
    assert result.nsd == pytest.approx(0.5)  # the near four corners of each are 1.5 mm away
    assert (result.found_lesions, result.false_positives) == (0, 1)
    assert result.false_negative_ml == result.false_positive_ml == pytest.approx(0.002)


def test_a_face_at_the_edge_of_the_volume_is_a_surface():
    inside = Segmentation.of(cube((1, 1, 1), (4, 4, 4), (5, 5, 5)), SPACING).surface
    filling = Segmentation.of(np.ones((3, 3, 3), bool), SPACING).surface
    assert filling.area_mm2.sum() == pytest.approx(inside.area_mm2.sum())


def test_a_lesion_free_case_has_no_dice_but_false_positives():
    empty = np.zeros((20, 20, 20), bool)
    silent, wrong = measured(empty, empty), measured(empty, cube((1, 1, 1), (3, 3, 3)))
    for result in (silent, wrong):
        undefined = (result.dice, result.nsd, result.hd95_mm, result.precision, result.sensitivity)
        assert np.isnan([*undefined, result.lesion_f1]).all()
    assert (silent.false_positives, wrong.false_positives) == (0, 1)
    assert wrong.false_positive_ml == pytest.approx(0.008)


def test_a_missed_case_follows_the_policy():
    lesion, empty = cube((1, 1, 1), (3, 3, 3)), np.zeros((20, 20, 20), bool)
    result = measured(lesion, empty)
    assert (result.dice, result.nsd, result.sensitivity, result.lesion_f1) == (0, 0, 0, 0)
    assert np.isnan([result.hd95_mm, result.precision]).all()
    policy = EmptyMaskPolicy("diagonal")
    penalised = measured(lesion, empty, (3, 4, 0), policy=policy)
    assert penalised.hd95_mm == 100.0
    assert "diagonal" in policy.text
    assert "missed" in EmptyMaskPolicy().text


def test_another_grid_is_refused():
    with pytest.raises(GeometryError, match=r"\(2, 2, 2\).*\(3, 2, 2\)"):
        measured(np.ones((2, 2, 2)), np.ones((3, 2, 2)))
    with pytest.raises(GeometryError):
        measure(
            Segmentation.of(np.ones((2, 2, 2)), (1, 1, 1)),
            Segmentation.of(np.ones((2, 2, 2)), (1, 1, 2)),
        )


@given(pairs)
def test_symmetry(pair):
    there, back = measured(*pair, SPACING), measured(*pair[::-1], SPACING)
    assume(pair[0].any() and pair[1].any())
    assert there.dice == back.dice
    assert there.hd95_mm == back.hd95_mm
    assert there.nsd == pytest.approx(back.nsd)
    assert there.difference_ml == pytest.approx(-back.difference_ml)


@given(pairs, st.sampled_from([0, 1, 2, (0, 1), (0, 1, 2)]))
def test_flips_change_nothing(pair, axes):
    flipped = [np.flip(mask, axes) for mask in pair]
    there, mirrored = measured(*pair, SPACING), measured(*flipped, SPACING)
    for name in vars(there):
        assert getattr(mirrored, name) == pytest.approx(getattr(there, name), nan_ok=True), name


@given(pairs, st.permutations((0, 1, 2)))
def test_permuted_axes_with_their_spacing_change_no_overlap(pair, axes):
    turned = [np.transpose(mask, axes) for mask in pair]
    spacing_mm = tuple(SPACING[axis] for axis in axes)
    there, turned_too = measured(*pair, SPACING), measured(*turned, spacing_mm)
    for name in ("dice", "found_lesions", "false_positive_ml", "false_negative_ml"):
        assert getattr(turned_too, name) == pytest.approx(getattr(there, name), nan_ok=True)


@given(pairs, st.integers(1, 9))
def test_the_value_of_a_label_does_not_matter(pair, value):
    relabelled = [mask.astype(np.uint8) * value for mask in pair]
    assert repr(measured(*relabelled, SPACING)) == repr(measured(*pair, SPACING))


@given(pairs, st.floats(0, 10))
def test_equal_to_surface_distance(pair, tolerance_mm):
    peer = pytest.importorskip("surface_distance")
    assume(pair[0].any() and pair[1].any())
    theirs = peer.compute_surface_distances(*pair, SPACING)
    ours = distances(*pair, SPACING)
    assert ours.percentile_mm(95) == peer.compute_robust_hausdorff(theirs, 95)
    assert ours.nsd(tolerance_mm) == pytest.approx(
        peer.compute_surface_dice_at_tolerance(theirs, tolerance_mm), abs=1e-12
    )
    assert measured(*pair).dice == pytest.approx(peer.compute_dice_coefficient(*pair))
