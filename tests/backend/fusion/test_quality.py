import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_backsplit.backend.fusion import quality
from napari_backsplit.backend.fusion.components import islands
from napari_backsplit.backend.fusion.findings import Limits

SHAPE = (6, 7, 8)
LIMITS = Limits()


def box(*pairs, shape=SHAPE):
    result = np.zeros(shape, bool)
    result[tuple(slice(*pair) for pair in pairs)] = True
    return result


def codes(findings):
    return [(f.severity, f.code) for f in findings]


# --- one mask


def test_missing_and_empty_masks():
    empty, full = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    assert codes(quality.check_target("c", "lesion", None)) == [("warning", "unlabelled")]
    assert codes(quality.check_target("c", "lesion", empty)) == [("info", "lesion_free")]
    assert quality.check_target("c", "lesion", full) == []
    assert codes(quality.check_support("c", "liver", None)) == [("info", "partial")]
    assert codes(quality.check_support("c", "liver", empty)) == [("warning", "empty_support")]
    assert quality.check_support("c", "liver", full) == []


def test_tiny_islands_are_counted_and_one_is_shown():
    mask = box((0, 2), (0, 4), (0, 4)) | box((4, 5), (4, 5), (4, 6)) | box((4, 5), (0, 1), (7, 8))
    found = islands(mask, voxel_ml=0.02)
    (finding,) = quality.check_islands("c", "liver", found, LIMITS)
    assert finding.message.startswith("2 of 3 islands")
    assert finding.position_zyx == (4, 0, 7)
    coarse = islands(mask, voxel_ml=0.1)  # only the single voxel is tiny now
    assert quality.check_islands("c", "liver", coarse, LIMITS)[0].message.startswith("1 of 3")
    assert quality.check_islands("c", "liver", coarse[:2], LIMITS) == []


def test_each_edge_that_a_lesion_reaches():
    assert quality.check_border("c", "lesion", box((1, 5), (1, 6), (1, 7))) == []
    (finding,) = quality.check_border("c", "lesion", box((1, 6), (1, 4), (1, 4)))
    assert "last plane of the image along z" in finding.message
    assert finding.position_zyx == (5, 2, 2)
    corner = quality.check_border("c", "lesion", box((0, 1), (6, 7), (3, 4)))
    assert [f.position_zyx for f in corner] == [(0, 6, 3), (0, 6, 3)]
    assert quality.check_border("c", "lesion", np.zeros(SHAPE, bool)) == []


# --- several masks


def test_an_overlap_is_measured_against_the_smaller_mask():
    liver, kidney = box((0, 6), (0, 5), (0, 5)), box((0, 1), (4, 5), (4, 8))
    (finding,) = quality.check_overlaps("c", {"liver": liver, "kidney": kidney}, LIMITS)
    assert finding.structure == "liver"
    assert finding.message == "1 voxels are kidney as well, 25 % of the smaller mask; liver wins."
    assert finding.position_zyx == (0, 4, 4)
    lax = Limits(overlap_share=0.25)
    assert quality.check_overlaps("c", {"liver": liver, "kidney": kidney}, lax) == []
    empty = np.zeros(SHAPE, bool)
    assert quality.check_overlaps("c", {"liver": liver, "kidney": empty}, LIMITS) == []


def test_lesions_inside_beside_and_apart_from_supports():
    kidney = {"kidney": box((0, 3), (0, 3), (0, 3))}
    inside = box((0, 2), (0, 2), (0, 2))
    partly = box((2, 4), (0, 1), (0, 1))
    beside = box((3, 4), (3, 4), (3, 4))
    apart = box((4, 6), (5, 7), (5, 8))
    assert quality.check_outside("c", "lesion", inside, kidney, ()) == []
    (finding,) = quality.check_outside("c", "lesion", partly, kidney, ())
    assert (finding.severity, finding.position_zyx) == ("info", (3, 0, 0))
    assert finding.message.startswith("1 of 2 voxels")
    (finding,) = quality.check_outside("c", "lesion", beside, kidney, ())
    assert finding.severity == "info"
    assert "touches" in finding.message
    (finding,) = quality.check_outside("c", "lesion", inside | apart, kidney, ())
    assert finding.severity == "warning"
    assert apart[finding.position_zyx]
    (finding,) = quality.check_outside("c", "lesion", apart, kidney, ("liver",))
    assert finding.severity == "info"
    assert "liver" in finding.message
    assert quality.check_outside("c", "lesion", apart, {}, ("liver",)) == []


# --- several cases


def test_robust_z_by_hand():
    # median 3, deviations 2 1 0 1 97: MAD 1
    values = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    assert quality.robust_z(values) == pytest.approx([-1.349, -0.6745, 0, 0.6745, 65.4265])
    assert not quality.robust_z(np.full(5, 2.0)).any()
    # MAD 0, mean absolute deviation 2: 10 / (1.253314 * 2)
    assert quality.robust_z(np.array([0.0, 0, 0, 0, 10]))[-1] == pytest.approx(3.989423)


@given(st.lists(st.floats(0.1, 1e3), min_size=5, max_size=9), st.floats(0.5, 2))
def test_robust_z_does_not_depend_on_the_unit(values, factor):
    array = np.array(values)
    assert np.allclose(quality.robust_z(array), quality.robust_z(array * factor), atol=1e-3)


def test_a_volume_far_from_the_cohort():
    ml = {f"case_{i}": value for i, value in enumerate([100, 110, 95, 105, 90, 0])}
    assert quality.check_outliers("liver", ml, "warning", LIMITS) == []
    (finding,) = quality.check_outliers("liver", ml | {"odd": 3.0}, "warning", LIMITS)
    assert finding.case == "odd"
    assert "3 ml" in finding.message
    few = dict(list(ml.items())[:3]) | {"odd": 3.0}
    assert quality.check_outliers("liver", few, "warning", LIMITS) == []
