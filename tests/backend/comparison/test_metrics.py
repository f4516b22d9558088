from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_backsplit.backend.comparison.metrics import (
    Segmentation,
    SurfaceDistances,
    measure,
)
from napari_backsplit.backend.comparison.policy import EmptyMaskPolicy
from napari_backsplit.backend.errors import GeometryError
from napari_backsplit.backend.volume import read_volume
from tests.backend.comparison.lesion_support import label

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
    assert (result.iou, result.assd_mm) == (1, 0)
    assert result.difference_ml == result.volume_difference_percent == 0


def test_a_shifted_cube():
    """Two of ten planes leave the cube: overlap 8 of 10; every far face is 2 planes away."""
    reference, prediction = cube((5, 5, 5), (15, 15, 15)), cube((7, 5, 5), (17, 15, 15))
    result = measured(reference, prediction, (3, 1, 1))
    assert result.dice == result.precision == result.sensitivity == pytest.approx(0.8)
    assert distances(reference, prediction, (3, 1, 1)).percentile_mm(100) == 6
    assert result.iou == pytest.approx(8 / 12)
    assert result.reference_ml == pytest.approx(3.0)
    assert result.volume_difference_percent == 0


def test_the_surfaces_of_a_shifted_cube():
    """Worked out by hand: 10 x 10 x 10 voxels of 3 x 1 x 1 mm, shifted by two planes.

    The surface passes the corners of voxels: of a face in steps of 1 or 3 mm2; along its edges
    and at its vertices it is cut off.
    """
    edge, upright, vertex = np.sqrt(10) / 2, np.sqrt(18) / 2, np.sqrt(19) / 8
    total = 2 * 81 + 4 * 81 * 3 + 72 * edge + 36 * upright + 8 * vertex
    # Far from the other cube: the face outside it with its rim, and a row of corners beside it.
    outside, beside = 81 + 36 * edge + 4 * vertex, 36 * 3 + 4 * upright
    # The face inside the other cube: 9 x 9 corners, 1 to 5 mm from its sides; 25 beyond 2 mm.
    inside_mm = 32 * 1 + 24 * 2 + 16 * 3 + 8 * 4 + 1 * 5
    masks = cube((5, 5, 5), (15, 15, 15)), cube((7, 5, 5), (17, 15, 15))
    result = measured(*masks, (3, 1, 1), tolerance_mm=2.0)
    assert result.nsd == pytest.approx(1 - (outside + beside + 25) / total)
    assert result.assd_mm == pytest.approx((6 * outside + 3 * beside + inside_mm) / total)
    assert result.hd95_mm == 6  # what is outside is a tenth of the surface
    assert distances(*masks, (3, 1, 1)).average_mm == pytest.approx((result.assd_mm,) * 2)


def test_a_grown_slab_is_measured_in_millimetres():
    """Its upper face rises by two planes of 2.5 mm; the other faces stay where they are."""
    reference, prediction = cube((5, 0, 0), (9, 20, 20)), cube((5, 0, 0), (11, 20, 20))
    far = distances(reference, prediction, (2.5, 1, 1))
    assert far.percentile_mm(100) == 5.0
    result = measured(reference, prediction, (2.5, 1, 1))
    assert result.volume_difference_percent == pytest.approx(50)
    assert result.iou == result.precision == pytest.approx(4 / 6)
    there, back = far.average_mm
    assert 0 < there < back < 5  # the sides reach past the reference, and are near it


def test_the_average_distance_weighs_surfaces_by_their_area():
    """Single voxels: eight corners of equal area each, four at 1.5 mm and four at 2 mm."""
    far = distances(cube((1, 1, 1), (2, 2, 2)), cube((1, 1, 5), (2, 2, 6)), (2, 2, 0.5))
    assert far.average_mm == pytest.approx((1.75, 1.75))
    assert far.assd_mm == pytest.approx(1.75)


def test_the_larger_surface_weighs_more_in_the_symmetric_average():
    """A voxel inside a block: its mean distance is not that of the block's many points."""
    far = distances(cube((9, 9, 9), (10, 10, 10)), cube((5, 5, 5), (14, 14, 14)))
    there, back = far.average_mm
    areas = far.reference_mm2.sum(), far.prediction_mm2.sum()
    assert far.assd_mm == pytest.approx((there * areas[0] + back * areas[1]) / sum(areas))
    assert abs(far.assd_mm - back) < abs(far.assd_mm - there)


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
        others = (result.iou, result.assd_mm, result.lesion_f1, result.volume_difference_percent)
        assert np.isnan([*undefined, *others]).all()
    assert (silent.false_positives, wrong.false_positives) == (0, 1)
    assert wrong.false_positive_ml == pytest.approx(0.008)


def test_a_missed_case_follows_the_policy():
    lesion, empty = cube((1, 1, 1), (3, 3, 3)), np.zeros((20, 20, 20), bool)
    result = measured(lesion, empty)
    assert (result.dice, result.nsd, result.sensitivity, result.lesion_f1) == (0, 0, 0, 0)
    assert (result.iou, result.volume_difference_percent) == (0, -100)
    assert np.isnan([result.hd95_mm, result.assd_mm, result.precision]).all()
    policy = EmptyMaskPolicy("diagonal")
    penalised = measured(lesion, empty, (3, 4, 0), policy=policy)
    assert penalised.hd95_mm == penalised.assd_mm == 100.0
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
    assert (there.iou, there.assd_mm) == (back.iou, pytest.approx(back.assd_mm))
    assert (there.precision, there.sensitivity) == (back.sensitivity, back.precision)
    assert there.difference_ml == pytest.approx(-back.difference_ml)


@given(pairs, st.sampled_from([0, 1, 2, (0, 1), (0, 1, 2)]))
def test_flips_change_nothing(pair, axes):
    flipped = [np.flip(mask, axes) for mask in pair]
    there, mirrored = measured(*pair, SPACING), measured(*flipped, SPACING)
    assert mirrored.by_stratum == there.by_stratum
    for name in set(vars(there)) - {"by_stratum"}:
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
    assume(pair[0].any() and pair[1].any())
    check_against_surface_distance(pair, tolerance_mm)


@given(st.integers(0, 2**32 - 1), st.floats(0, 10))
@settings(max_examples=20)
def test_equal_to_surface_distance_over_many_planes_and_far_apart(seed, tolerance_mm):
    """Blocks here and there: some overlap, some are far from any other."""
    rng = np.random.default_rng(seed)
    pair = np.zeros((2, 70, 12, 40), bool)
    for mask in (*pair, *pair):
        z, y, x = rng.integers((0, 0, 0), (68, 10, 37))
        mask[z : z + rng.integers(1, 9), y : y + rng.integers(1, 5), x : x + 4] = True
    check_against_surface_distance(tuple(pair), tolerance_mm)


def test_equal_to_surface_distance_on_real_lesions(real_data):
    """Multiple sclerosis in a brain; the prediction is shifted, and lacks a half."""
    lesions = read_volume(real_data / "ms-lesions/lesion.nii.gz").array > 0
    prediction = np.roll(lesions, (1, -1, 2), (0, 1, 2))
    prediction[:, :, : lesions.shape[2] // 2] = False
    check_against_surface_distance((lesions, prediction), 2.0)
    result = measured(lesions, prediction, SPACING)
    assert result.reference_lesions == label(lesions)[1] > 10
    assert 0 < result.found_lesions < result.reference_lesions


def check_against_surface_distance(pair, tolerance_mm):
    peer = pytest.importorskip("surface_distance")
    theirs = peer.compute_surface_distances(*pair, SPACING)
    ours = distances(*pair, SPACING)
    assert ours.percentile_mm(95) == peer.compute_robust_hausdorff(theirs, 95)
    assert ours.average_mm == pytest.approx(
        peer.compute_average_surface_distance(theirs), abs=1e-12
    )
    assert ours.nsd(tolerance_mm) == pytest.approx(
        peer.compute_surface_dice_at_tolerance(theirs, tolerance_mm), abs=1e-12
    )
    assert measured(*pair).dice == pytest.approx(peer.compute_dice_coefficient(*pair))
