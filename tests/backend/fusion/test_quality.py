import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from napari_backsplit.backend.fusion import quality
from napari_backsplit.backend.fusion.components import islands
from napari_backsplit.backend.fusion.findings import Limits
from napari_backsplit.backend.geometry import Geometry

SHAPE = (6, 7, 8)
LIMITS = Limits()
EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
TURNED = ((0.0, 0.0, -1.0), (1.0, 0.0, 0.0), (0.0, -1.0, 0.0))


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


def border(mask, direction=EYE):
    grid = Geometry(mask.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), direction)
    return quality.check_border("c", "lesion", mask, grid, "warning")


def test_each_edge_that_a_lesion_reaches():
    assert border(box((1, 5), (1, 6), (1, 7))) == []
    (finding,) = border(box((1, 6), (1, 4), (1, 4)))
    assert "last plane toward the head" in finding.message
    assert finding.position_zyx == (5, 2, 2)
    front, back = border(box((0, 1), (6, 7), (3, 4)))
    assert [f.position_zyx for f in (front, back)] == [(0, 6, 3), (0, 6, 3)]
    assert "toward the feet" in front.message
    assert "toward the back" in back.message
    assert border(np.zeros(SHAPE, bool)) == []


def test_an_edge_is_named_as_the_file_lies():
    # x runs to the back, y to the feet, z to the right
    assert "toward the patient's right" in border(box((5, 6), (3, 4), (3, 4)), TURNED)[0].message
    assert "toward the head" in border(box((3, 4), (0, 1), (3, 4)), TURNED)[0].message
    assert "toward the front" in border(box((3, 4), (3, 4), (0, 1)), TURNED)[0].message


def test_a_single_plane_has_no_edges():
    assert border(box((0, 1), (1, 2), (1, 2), shape=(1, 4, 4))) == []


def holes(mask, targets=(), others=(), voxel_ml=1.0):
    return quality.check_holes("c", "liver", mask, targets, others, voxel_ml, LIMITS)


SHELL = box((1, 5), (1, 6), (1, 7))
CAVITY = box((2, 3), (2, 4), (2, 4))


def test_a_hole_is_background_that_a_mask_encloses():
    assert holes(SHELL) == []
    (finding,) = holes(SHELL & ~CAVITY)
    assert (finding.severity, finding.code) == ("warning", "hole")
    assert "hole of 4 ml with" in finding.message
    assert CAVITY[finding.position_zyx]
    assert codes(holes(SHELL & ~CAVITY, voxel_ml=0.1)) == [("info", "small_hole")]
    two = CAVITY | box((3, 4), (4, 5), (4, 5))
    (finding,) = holes(SHELL & ~two)
    assert "hole of 4 ml and 1 more" in finding.message


def test_a_hole_that_is_open_to_the_image_s_edge_is_none():
    assert holes(box((0, 6), (0, 7), (0, 8)) & ~box((0, 3), (2, 4), (2, 4))) == []
    assert holes(SHELL & ~box((1, 3), (2, 4), (2, 4))) == []


def test_a_hole_that_a_lesion_fills_wants_the_organ_to_grow():
    half = box((2, 3), (2, 4), (2, 3))
    (finding,) = holes(SHELL & ~CAVITY, [half])
    assert (finding.severity, finding.code) == ("info", "lesion_hole")
    assert "Grow liver over its lesion" in finding.message
    quarter = box((2, 3), (2, 3), (2, 3))
    assert codes(holes(SHELL & ~CAVITY, [quarter])) == [("warning", "hole")]


def test_a_hole_may_hold_another_structure_but_not_what_is_around_the_mask():
    assert holes(SHELL & ~CAVITY, others=[CAVITY]) == []
    assert codes(holes(SHELL & ~CAVITY, others=[SHELL])) == [("warning", "hole")]


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
    assert quality.check_outside("c", "lesion", inside, kidney, (), LIMITS) == []
    (finding,) = quality.check_outside("c", "lesion", partly, kidney, (), LIMITS)
    assert (finding.severity, finding.position_zyx) == ("info", (3, 0, 0))
    assert finding.message.startswith("1 of 2 voxels")
    (finding,) = quality.check_outside("c", "lesion", beside, kidney, (), LIMITS)
    assert finding.severity == "info"
    assert "touches" in finding.message
    (finding,) = quality.check_outside("c", "lesion", inside | apart, kidney, (), LIMITS)
    assert finding.severity == "warning"
    assert apart[finding.position_zyx]
    (finding,) = quality.check_outside("c", "lesion", apart, kidney, ("liver",), LIMITS)
    assert finding.severity == "info"
    assert "liver" in finding.message
    assert quality.check_outside("c", "lesion", apart, {}, ("liver",), LIMITS) == []


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


def test_of_many_lesions_outside_the_first_are_told_and_the_rest_is_counted():
    kidney = {"kidney": box((0, 1), (0, 1), (0, 1))}
    mask = np.zeros((6, 40, 40), bool)
    mask[3, ::4, ::4] = True
    supports = {"kidney": np.pad(kidney["kidney"], ((0, 0), (0, 33), (0, 32)))}
    found = quality.check_outside("c", "lesion", mask, supports, (), LIMITS)
    assert len(found) == LIMITS.lesions + 1
    assert all(mask[finding.position_zyx] for finding in found[:-1])
    assert found[-1].message.startswith("80 more lesions")


def test_within_twice_the_median_no_volume_stands_out():
    ml = {f"case_{i}": 100.0 for i in range(6)}
    assert quality.check_outliers("liver", ml | {"odd": 190.0}, "warning", LIMITS) == []
    (finding,) = quality.check_outliers("liver", ml | {"odd": 210.0}, "warning", LIMITS)
    assert finding.case == "odd"


def test_a_volume_far_from_the_cohort():
    ml = {f"case_{i}": value for i, value in enumerate([100, 110, 95, 105, 90, 0])}
    assert quality.check_outliers("liver", ml, "warning", LIMITS) == []
    (finding,) = quality.check_outliers("liver", ml | {"odd": 3.0}, "warning", LIMITS)
    assert finding.case == "odd"
    assert "3 ml" in finding.message
    few = dict(list(ml.items())[:3]) | {"odd": 3.0}
    assert quality.check_outliers("liver", few, "warning", LIMITS) == []


# --- shifts


def scene(contrast=60.0, noise=10.0, shape=(24, 40, 40)):
    """An ellipsoid in noise: image and mask."""
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    mask = ((z - 12) / 6) ** 2 + ((y - 20) / 9) ** 2 + ((x - 20) / 11) ** 2 <= 1
    rng = np.random.default_rng(0)
    return rng.normal(0, noise, shape) + contrast * mask, mask


def shift_of(image, mask, direction=EYE):
    grid = Geometry(mask.shape, (2.0, 1.0, 1.0), (0.0, 0.0, 0.0), direction)
    return quality.check_shift("c", "liver", mask, image, grid, LIMITS)


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ((3, 0, 0), "moved 3 voxels (6 mm) toward the feet"),
        ((0, -4, 0), "moved 4 voxels (4 mm) toward the back"),
        ((0, 0, 3), "moved 3 voxels (3 mm) toward the patient's right"),
    ],
)
def test_a_mask_that_was_moved(shift, words):
    image, mask = scene()
    assert shift_of(image, mask) == []
    mask = np.roll(mask, shift, (0, 1, 2))
    (finding,) = shift_of(image, mask)
    assert words in finding.message
    assert mask[finding.position_zyx]
    assert shift_of(-image, mask)[0].message == finding.message


def test_a_shift_that_is_not_clear_is_not_told():
    image, mask = scene()
    assert shift_of(image, np.roll(mask, 1, 2)) == []  # one voxel
    noise, _ = scene(contrast=0.0)
    assert shift_of(noise, np.roll(mask, 3, 2)) == []  # no edge anywhere
    assert shift_of(np.zeros_like(image), mask) == []
    assert shift_of(image, np.zeros_like(mask)) == []
    crumb = np.zeros_like(mask)
    crumb[10:13, 10:13, 10:13] = True
    assert shift_of(image, crumb) == []  # a small surface


def test_a_mask_too_large_or_too_small_is_not_moved():
    image, mask = scene()
    for changed in (ndimage.binary_dilation(mask), ndimage.binary_erosion(mask)):
        assert shift_of(image, changed) == []


def test_voxels_that_are_not_finite_are_no_edge():
    image, mask = scene()
    image[0] = np.nan
    assert shift_of(image, mask) == []
    assert len(shift_of(image, np.roll(mask, 3, 2))) == 1


@pytest.mark.parametrize(
    "limit",
    [{"shift_vox": 4}, {"shift_peak": 1e6}, {"shift_gain": 1.1}, {"shift_lead": 1.1}],
)
def test_each_limit_of_a_shift_counts(limit):
    image, mask = scene()
    mask, grid = np.roll(mask, 3, 2), Geometry(mask.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), EYE)
    assert quality.check_shift("c", "liver", mask, image, grid, LIMITS)
    assert quality.check_shift("c", "liver", mask, image, grid, Limits(**limit)) == []
