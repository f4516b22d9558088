import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_backsplit.backend.fusion import checks
from napari_backsplit.backend.fusion.checks import Finding, Limits
from napari_backsplit.backend.geometry import Geometry

SHAPE = (6, 7, 8)
EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
LIMITS = Limits()


def box(*pairs, shape=SHAPE):
    result = np.zeros(shape, bool)
    result[tuple(slice(*pair) for pair in pairs)] = True
    return result


def codes(findings):
    return [(f.severity, f.code) for f in findings]


# --- measuring


def test_islands_touching_at_a_corner_are_one():
    mask = box((0, 2), (0, 2), (0, 2)) | box((2, 3), (2, 3), (2, 3)) | box((4, 5), (4, 6), (4, 5))
    large, small = checks.islands(mask, voxel_ml=0.5)
    assert (large.voxels, large.ml) == (9, 4.5)
    assert (small.voxels, small.ml) == (2, 1.0)
    assert mask[large.position_zyx]
    assert small.position_zyx in [(4, 4, 4), (4, 5, 4)]


def test_an_empty_mask_has_no_islands():
    assert checks.islands(np.zeros(SHAPE, bool), 1.0) == ()


@given(arrays(bool, st.tuples(*[st.integers(1, 6)] * 3)))
def test_islands_of_thin_masks_are_found(mask):
    assert sum(island.voxels for island in checks.islands(mask, 1.0)) == mask.sum()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 3, 1), (3, 1, 1), (1, 1, 7)])
def test_islands_in_one_row(shape):
    mask = np.zeros(shape, bool)
    mask.flat[::2] = True
    assert [island.voxels for island in checks.islands(mask, 1.0)] == [1] * int(mask.sum())


@given(arrays(bool, SHAPE))
@settings(max_examples=50)
def test_islands_add_up_and_lie_in_the_mask(mask):
    found = checks.islands(mask, 0.1)
    assert sum(island.voxels for island in found) == mask.sum()
    labels = cc3d.connected_components(mask, connectivity=26)
    assert sorted(labels[island.position_zyx] for island in found) == list(range(1, len(found) + 1))
    assert [i.voxels for i in found] == sorted((i.voxels for i in found), reverse=True)


def test_a_voxel_is_in_the_middle_of_the_fullest_plane():
    mask = box((2, 3), (1, 4), (1, 4)) | box((3, 4), (1, 2), (1, 2))
    assert checks.a_voxel(mask) == (2, 2, 2)
    crop = (slice(2, 4), slice(1, 4), slice(1, 4))
    assert checks.a_voxel(mask[crop], crop) == (2, 2, 2)


def test_robust_z_by_hand():
    # median 3, deviations 2 1 0 1 97: MAD 1
    values = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    assert checks.robust_z(values) == pytest.approx([-1.349, -0.6745, 0, 0.6745, 65.4265])
    assert not checks.robust_z(np.full(5, 2.0)).any()
    # MAD 0, mean absolute deviation 2: 10 / (1.253314 * 2)
    assert checks.robust_z(np.array([0.0, 0, 0, 0, 10]))[-1] == pytest.approx(3.989423)


@given(st.lists(st.floats(0.1, 1e3), min_size=5, max_size=9), st.floats(0.5, 2))
def test_robust_z_does_not_depend_on_the_unit(values, factor):
    array = np.array(values)
    assert np.allclose(checks.robust_z(array), checks.robust_z(array * factor), atol=1e-3)


# --- one mask


def test_a_mask_on_another_grid():
    image = Geometry(SHAPE, (2.0, 1.0, 1.0), (0.0, 0.0, 0.0), EYE)
    moved = Geometry(SHAPE, (2.0, 1.0, 1.0), (0.5, 0.0, 0.0), EYE)
    (finding,) = checks.check_grid("case_001", "liver", image, moved)
    assert finding.severity == "error"
    assert "origin" in finding.message
    assert checks.check_grid("case_001", "liver", image, image) == []


def test_several_ids_in_a_mask():
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[0] = 1
    assert checks.check_ids("c", "liver", label_map) == []
    assert checks.check_ids("c", "liver", label_map * 7) == []
    label_map[1] = 7
    (finding,) = checks.check_ids("c", "liver", label_map)
    assert "2 ids (1, 7)" in finding.message
    assert checks.check_ids("c", "liver", label_map * 0) == []


def test_missing_and_empty_masks():
    empty, full = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    assert codes(checks.check_target("c", "lesion", None)) == [("warning", "unlabelled")]
    assert codes(checks.check_target("c", "lesion", empty)) == [("info", "lesion_free")]
    assert checks.check_target("c", "lesion", full) == []
    assert codes(checks.check_support("c", "liver", None)) == [("info", "partial")]
    assert codes(checks.check_support("c", "liver", empty)) == [("warning", "empty_support")]
    assert checks.check_support("c", "liver", full) == []


def test_tiny_islands_are_counted_and_one_is_shown():
    mask = box((0, 2), (0, 4), (0, 4)) | box((4, 5), (4, 5), (4, 6)) | box((4, 5), (0, 1), (7, 8))
    found = checks.islands(mask, voxel_ml=0.02)
    (finding,) = checks.check_islands("c", "liver", found, LIMITS)
    assert finding.message.startswith("2 of 3 islands")
    assert finding.position_zyx == (4, 0, 7)
    coarse = checks.islands(mask, voxel_ml=0.1)  # only the single voxel is tiny now
    assert checks.check_islands("c", "liver", coarse, LIMITS)[0].message.startswith("1 of 3")
    assert checks.check_islands("c", "liver", coarse[:2], LIMITS) == []


def test_each_edge_that_a_lesion_reaches():
    assert checks.check_border("c", "lesion", box((1, 5), (1, 6), (1, 7))) == []
    (finding,) = checks.check_border("c", "lesion", box((1, 6), (1, 4), (1, 4)))
    assert "last plane of the image along z" in finding.message
    assert finding.position_zyx == (5, 2, 2)
    corner = checks.check_border("c", "lesion", box((0, 1), (6, 7), (3, 4)))
    assert [f.position_zyx for f in corner] == [(0, 6, 3), (0, 6, 3)]
    assert checks.check_border("c", "lesion", np.zeros(SHAPE, bool)) == []


# --- several masks


def test_an_overlap_is_measured_against_the_smaller_mask():
    liver, kidney = box((0, 6), (0, 5), (0, 5)), box((0, 1), (4, 5), (4, 8))
    (finding,) = checks.check_overlaps("c", {"liver": liver, "kidney": kidney}, LIMITS)
    assert finding.structure == "liver"
    assert finding.message == "1 voxels are kidney as well, 25 % of the smaller mask; liver wins."
    assert finding.position_zyx == (0, 4, 4)
    lax = Limits(overlap_share=0.25)
    assert checks.check_overlaps("c", {"liver": liver, "kidney": kidney}, lax) == []
    empty = np.zeros(SHAPE, bool)
    assert checks.check_overlaps("c", {"liver": liver, "kidney": empty}, LIMITS) == []


def test_lesions_inside_beside_and_apart_from_supports():
    kidney = {"kidney": box((0, 3), (0, 3), (0, 3))}
    inside = box((0, 2), (0, 2), (0, 2))
    partly = box((2, 4), (0, 1), (0, 1))
    beside = box((3, 4), (3, 4), (3, 4))
    apart = box((4, 6), (5, 7), (5, 8))
    assert checks.check_outside("c", "lesion", inside, kidney, ()) == []
    (finding,) = checks.check_outside("c", "lesion", partly, kidney, ())
    assert (finding.severity, finding.position_zyx) == ("info", (3, 0, 0))
    assert finding.message.startswith("1 of 2 voxels")
    (finding,) = checks.check_outside("c", "lesion", beside, kidney, ())
    assert finding.severity == "info"
    assert "touches" in finding.message
    (finding,) = checks.check_outside("c", "lesion", inside | apart, kidney, ())
    assert finding.severity == "warning"
    assert apart[finding.position_zyx]
    (finding,) = checks.check_outside("c", "lesion", apart, kidney, ("liver",))
    assert finding.severity == "info"
    assert "liver" in finding.message
    assert checks.check_outside("c", "lesion", apart, {}, ("liver",)) == []


def test_an_image_with_nan():
    array = np.zeros(SHAPE, np.float32)
    assert checks.check_finite("c", "CT", array) == []
    array[2, 3, 4] = np.nan
    array[5, 0, 0] = np.inf
    (finding,) = checks.check_finite("c", "CT", array)
    assert finding.position_zyx == (2, 3, 4)
    assert finding.message.startswith("2 voxels")


# --- several cases


def test_duplicates_name_the_first_case():
    found = checks.check_duplicates({"a": "1", "b": "2", "c": "1", "d": "1"})
    assert [f.case for f in found] == ["c", "d"]
    assert all("those of a" in f.message for f in found)


def test_a_volume_far_from_the_cohort():
    ml = {f"case_{i}": value for i, value in enumerate([100, 110, 95, 105, 90, 0])}
    assert checks.check_outliers("liver", ml, "warning", LIMITS) == []
    (finding,) = checks.check_outliers("liver", ml | {"odd": 3.0}, "warning", LIMITS)
    assert finding.case == "odd"
    assert "3 ml" in finding.message
    few = dict(list(ml.items())[:3]) | {"odd": 3.0}
    assert checks.check_outliers("liver", few, "warning", LIMITS) == []


def test_a_finding_reads_as_a_line():
    finding = Finding("case_001", "liver", "info", "partial", "There is no mask.")
    assert str(finding) == "info: case_001 liver: There is no mask."


def test_a_case_with_other_axes_is_named():
    codes = {"case_001": "LPS", "case_002": "RAS", "case_003": "LPS"}
    (finding,) = checks.check_orientations(codes)
    assert (finding.case, finding.severity, finding.code) == ("case_002", "warning", "orientation")
    assert "RAS" in finding.message
    assert "LPS" in finding.message
    assert checks.check_orientations({}) == []
    assert checks.check_orientations(dict.fromkeys(codes, "RAS")) == []
