import numpy as np
import pytest

from napari_backsplit.backend.fusion.findings import Limits
from napari_backsplit.backend.fusion.sides import Pair, check_sides, describe_shift, pairs
from napari_backsplit.backend.geometry import Geometry

LIMITS = Limits()
SHAPE = (10, 40, 40)
LPS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
RAS = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
TURNED = ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))  # y runs to the left, x to the back


def grid(direction=LPS):
    return Geometry(SHAPE, (5.0, 5.0, 5.0), (0.0, 0.0, 0.0), direction)


def at(x, width=4):
    mask = np.zeros(SHAPE, bool)
    mask[3:6, 18:22, x : x + width] = True
    return mask


def body(start=4, stop=36):
    image = np.full(SHAPE, -1000.0)
    image[:, 8:32, start:stop] = 40
    return image


def sides(masks, direction=LPS, image=None):
    return [
        (f.structure, f.message.split(".")[0])
        for f in check_sides("c", masks, grid(direction), image, LIMITS)
    ]


def test_names_of_pairs():
    assert pairs(["kidney_left", "liver", "kidney_right"]) == (Pair("kidney_left", "kidney_right"),)
    assert pairs(["left-kidney"]) == (Pair("left-kidney", None),)
    assert pairs(["rib_left_7", "rib_right_8"]) == (
        Pair("rib_left_7", None),
        Pair(None, "rib_right_8"),
    )
    assert pairs(["lung_l", "lung_r"]) == (Pair("lung_l", "lung_r"),)
    assert pairs(["lung_l", "cleft_palate", "vertebrae_l2", "leftover"]) == ()


@pytest.mark.parametrize("direction", [LPS, RAS, TURNED])
def test_a_pair_that_was_swapped(direction):
    low, high = at(6), at(30)
    left, right = (low, high) if direction is RAS else (high, low)
    if direction is TURNED:
        left, right = np.swapaxes(left, 1, 2), np.swapaxes(right, 1, 2)
    assert sides({"kidney_left": left, "kidney_right": right}, direction) == []
    (found,) = sides({"kidney_left": right, "kidney_right": left}, direction)
    assert found == ("kidney_left", "It lies to the right of kidney_right")


def test_a_finding_shows_the_left_mask():
    (found,) = check_sides("c", {"a_left": at(6), "a_right": at(30)}, grid(), None, LIMITS)
    assert at(6)[found.position_zyx]


def test_a_pair_near_the_midline_is_left_alone():
    assert sides({"atrium_left": at(20), "atrium_right": at(20)}) == []
    assert sides({"atrium_left": at(19), "atrium_right": at(20)}) == []  # 5 mm, the limit
    assert len(sides({"atrium_left": at(18), "atrium_right": at(20)})) == 1


def test_one_of_a_pair_is_held_against_the_middle_of_the_body():
    wrong = [("kidney_left", "It lies in the right half of the patient")]
    assert sides({"kidney_left": at(6)}, image=body()) == wrong
    assert sides({"kidney_left": at(30)}, image=body()) == []
    assert sides({"kidney_right": at(30)}, image=body())[0][0] == "kidney_right"
    assert sides({"kidney_right": at(6)}, image=body()) == []
    assert sides({"kidney_left": at(15)}, image=body()) == []  # 15 mm beyond the middle at 20


def test_without_a_midline_one_of_a_pair_is_left_alone():
    assert sides({"kidney_left": at(6)}) == []
    assert sides({"kidney_left": at(6)}, image=body(0, 36)) == []
    assert sides({"kidney_left": at(6)}, image=np.zeros(SHAPE)) == []


def test_other_pairs_tell_the_midline_where_the_image_does_not():
    pair = {"lung_left": at(28), "lung_right": at(8)}
    assert [f[0] for f in sides(pair | {"kidney_left": at(6)})] == ["kidney_left"]
    assert sides(pair | {"kidney_left": at(28)}) == []


def test_empty_masks_have_no_side():
    assert sides({"kidney_left": np.zeros(SHAPE, bool), "kidney_right": at(6)}) == []


def test_a_shift_in_words():
    words = describe_shift((2, 0, -1), grid())
    assert words == "2 voxels (10 mm) toward the head and 1 voxel (5 mm) toward the patient's right"
    assert describe_shift((0, 0, -1), grid(RAS)) == "1 voxel (5 mm) toward the patient's left"
