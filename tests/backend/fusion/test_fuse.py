import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.fusion.cases import fuse_case
from napari_backsplit.backend.fusion.fuse import (
    LabelScheme,
    PartialCodes,
    bounding_box,
    decode_partial,
    encode_partial,
    fuse,
    partial_codes,
    shared_box,
)
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Geometry, Volume, read_label_map, write_volume

SHAPE = (3, 4, 5)
SCHEME = LabelScheme(("lesion", "scar"), ("kidney", "liver"))
EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def mask(*boxes, shape=SHAPE):
    result = np.zeros(shape, bool)
    for box in boxes:
        result[tuple(slice(*pair) for pair in box)] = True
    return result


def draws(shape=SHAPE):
    return st.fixed_dictionaries({name: arrays(bool, shape) for name in SCHEME.names})


def naive(masks, scheme, shape):
    label_map = np.zeros(shape, int)
    for name in reversed(scheme.names):
        label_map[masks[name]] = scheme.ids[name]
    return label_map


# --- schemes


def test_ids_put_targets_first():
    assert SCHEME.ids == {"background": 0, "lesion": 1, "scar": 2, "kidney": 3, "liver": 4}
    assert SCHEME.count == 5
    assert LabelScheme(("lesion",)).ids == {"background": 0, "lesion": 1}


@pytest.mark.parametrize(
    ("targets", "supports", "word"),
    [
        ((), ("kidney",), "no target"),
        (("lesion",), ("lesion",), "lesion"),
        (("lesion",), ("kidney", "kidney"), "kidney"),
        (("lesion",), ("background",), "background"),
    ],
)
def test_a_wrong_scheme_is_refused(targets, supports, word):
    with pytest.raises(InputError, match=word):
        LabelScheme(targets, supports)


# --- fusion by hand


def test_a_worked_example():
    masks = {
        "lesion": mask([(0, 1), (0, 2), (0, 2)]),  # 4 voxels
        "scar": mask([(0, 1), (1, 3), (0, 2)]),  # 4, of which 2 are lesion
        "kidney": mask([(0, 1), (0, 4), (0, 3)]),  # 12, of which 6 are targets
    }
    fused = fuse(masks, SCHEME, SHAPE)
    assert fused.label_map[0].tolist() == [
        [1, 1, 3, 0, 0],
        [1, 1, 3, 0, 0],
        [2, 2, 3, 0, 0],
        [3, 3, 3, 0, 0],
    ]
    assert not fused.label_map[1:].any()
    assert fused.label_map.dtype == np.uint8
    assert fused.overlaps == {
        ("lesion", "scar"): 2,
        ("lesion", "kidney"): 4,
        ("scar", "kidney"): 4,
    }
    assert fused.voxels == {"lesion": 4, "scar": 2, "kidney": 6}
    assert fused.missing == ("liver",)


def test_an_empty_mask_is_not_missing():
    masks = {name: mask() for name in SCHEME.names}
    fused = fuse(masks, SCHEME, SHAPE)
    assert fused.missing == ()
    assert fused.overlaps == {}
    assert not fused.label_map.any()


def test_no_mask_at_all_gives_background():
    fused = fuse({}, SCHEME, SHAPE)
    assert fused.missing == SCHEME.names
    assert fused.label_map.shape == SHAPE


def test_many_supports_need_uint16():
    supports = tuple(f"s{i}" for i in range(255))
    scheme = LabelScheme(("lesion",), supports)
    fused = fuse({"s254": mask([(0, 1), (0, 1), (0, 1)])}, scheme, SHAPE)
    assert fused.label_map.dtype == np.uint16
    assert fused.label_map[0, 0, 0] == 256
    assert fuse({}, LabelScheme(("lesion",), supports[:254]), SHAPE).label_map.dtype == np.uint8


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="spleen"):
        fuse({"spleen": mask()}, SCHEME, SHAPE)
    with pytest.raises(GeometryError, match=r"\(2, 2, 2\)"):
        fuse({"liver": np.zeros((2, 2, 2), bool)}, SCHEME, SHAPE)
    with pytest.raises(InputError, match="uint8"):
        fuse({"liver": np.zeros(SHAPE, np.uint8)}, SCHEME, SHAPE)


def test_masks_are_left_as_they_are():
    masks = {"lesion": mask([(0, 2), (0, 2), (0, 2)]), "kidney": mask([(0, 3), (0, 3), (0, 3)])}
    before = {name: array.copy() for name, array in masks.items()}
    fuse(masks, SCHEME, SHAPE)
    assert all(np.array_equal(masks[name], before[name]) for name in masks)


# --- fusion, whatever the masks


@given(draws())
@settings(max_examples=60)
def test_it_equals_painting_from_the_lowest_priority_up(masks):
    fused = fuse(masks, SCHEME, SHAPE)
    assert np.array_equal(fused.label_map, naive(masks, SCHEME, SHAPE))


@given(draws())
def test_the_first_target_is_never_lost(masks):
    label_map = fuse(masks, SCHEME, SHAPE).label_map
    assert np.array_equal(label_map == 1, masks["lesion"])
    assert np.array_equal(label_map == 2, masks["scar"] & ~masks["lesion"])


@given(draws())
def test_voxels_and_background_add_up(masks):
    fused = fuse(masks, SCHEME, SHAPE)
    union = np.logical_or.reduce(list(masks.values()))
    assert sum(fused.voxels.values()) == union.sum()
    assert fused.voxels == {n: int((fused.label_map == SCHEME.ids[n]).sum()) for n in masks}


@given(draws())
def test_supports_in_another_order_leave_higher_priorities_alone(masks):
    swapped = LabelScheme(SCHEME.targets, SCHEME.supports[::-1])
    one, other = fuse(masks, SCHEME, SHAPE), fuse(masks, swapped, SHAPE)
    assert np.array_equal(one.label_map <= 2, other.label_map <= 2)
    is_target = one.label_map <= 2
    assert np.array_equal(one.label_map[is_target], other.label_map[is_target])


@given(draws())
def test_new_names_change_no_voxel(masks):
    names = dict(zip(SCHEME.names, ("a", "b", "c", "d"), strict=True))
    scheme = LabelScheme(("a", "b"), ("c", "d"))
    renamed = fuse({names[n]: array for n, array in masks.items()}, scheme, SHAPE)
    assert np.array_equal(renamed.label_map, fuse(masks, SCHEME, SHAPE).label_map)


@given(draws())
def test_overlaps_are_counted_for_each_pair(masks):
    overlaps = fuse(masks, SCHEME, SHAPE).overlaps
    names = SCHEME.names
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            expected = int((masks[one] & masks[other]).sum())
            assert overlaps.get((one, other), 0) == expected
            assert (other, one) not in overlaps


@given(draws())
def test_known_boxes_and_views_change_nothing(masks):
    boxes = {name: bounding_box(array) for name, array in masks.items()}
    plain = fuse(masks, SCHEME, SHAPE)
    boxed = fuse(masks, SCHEME, SHAPE, boxes)
    views = {name: array[::-1].transpose(2, 1, 0) for name, array in masks.items()}
    turned = fuse(views, SCHEME, SHAPE[::-1])
    assert np.array_equal(plain.label_map, boxed.label_map)
    assert np.array_equal(plain.label_map[::-1].transpose(2, 1, 0), turned.label_map)
    assert plain.overlaps == boxed.overlaps == turned.overlaps


@given(arrays(bool, SHAPE))
def test_a_box_is_the_smallest(array):
    box = bounding_box(array)
    if box is None:
        assert not array.any()
    else:
        at = np.argwhere(array)
        assert [s.start for s in box] == at.min(0).tolist()
        assert [s.stop for s in box] == (at.max(0) + 1).tolist()


def test_boxes_that_touch_share_nothing():
    left = (slice(0, 2), slice(0, 2), slice(0, 2))
    right = (slice(0, 2), slice(0, 2), slice(2, 4))
    assert shared_box(left, right) is None
    assert shared_box(left, None) is None
    assert shared_box(left, left) == left


# --- partial cases


def test_background_of_a_partial_case_holds_the_code_of_its_set():
    codes = PartialCodes(SCHEME, (("kidney",), ("kidney", "liver")))
    label_map = np.array([[[0, 1, 4]]], np.uint8)
    assert codes.codes == (5, 6)
    assert codes.label_sets == (frozenset({0, 3}), frozenset({0, 3, 4}))
    assert encode_partial(label_map, ("kidney",), codes).tolist() == [[[5, 1, 4]]]
    assert encode_partial(label_map, ("liver", "kidney"), codes).tolist() == [[[6, 1, 4]]]
    assert encode_partial(label_map, (), codes) is label_map


def test_a_set_without_a_code_and_a_missing_target_are_refused():
    codes = PartialCodes(SCHEME, (("kidney",),))
    with pytest.raises(InputError, match="liver"):
        encode_partial(np.zeros(SHAPE, np.uint8), ("liver",), codes)
    with pytest.raises(InputError, match="lesion"):
        encode_partial(np.zeros(SHAPE, np.uint8), ("lesion",), codes)
    for sets in [(("spleen",),), ((),), (("kidney", "liver"), ("liver", "kidney"))]:
        with pytest.raises(InputError):
            PartialCodes(SCHEME, sets)


def test_codes_do_not_depend_on_the_order_of_cases():
    missing = {"a": ("liver", "kidney"), "b": (), "c": ("liver",), "d": ("kidney", "liver")}
    codes = partial_codes(SCHEME, missing)
    assert codes.missing_sets == (("kidney", "liver"), ("liver",))
    assert codes == partial_codes(SCHEME, dict(reversed(missing.items())))
    assert partial_codes(SCHEME, {"a": ()}).codes == ()


def test_codes_beyond_255_widen_the_label_map():
    scheme = LabelScheme(("lesion",), tuple(f"s{i}" for i in range(254)))
    codes = PartialCodes(scheme, (("s0",),))
    encoded = encode_partial(np.zeros(SHAPE, np.uint8), ("s0",), codes)
    assert encoded.dtype == np.uint16
    assert (encoded == 256).all()


@given(draws(), st.sets(st.sampled_from(SCHEME.supports)))
def test_codes_touch_background_only_and_decode(masks, missing):
    known = {name: array for name, array in masks.items() if name not in missing}
    fused = fuse(known, SCHEME, SHAPE)
    codes = partial_codes(SCHEME, {"case": fused.missing})
    encoded = encode_partial(fused.label_map, fused.missing, codes)
    assert encoded.dtype == np.uint8
    assert np.array_equal(decode_partial(encoded, SCHEME), fused.label_map)
    if missing:
        assert np.array_equal(encoded == SCHEME.count, fused.label_map == 0)
        assert codes.label_sets == (frozenset({0} | {SCHEME.ids[n] for n in missing}),)


# --- cases of a project


@pytest.fixture
def project(tmp_path):
    geometry = Geometry(SHAPE, (2.0, 1.0, 1.0), (5.0, 6.0, 7.0), EYE)
    image = tmp_path / "scan.nii.gz"
    write_volume(Volume(np.arange(60, dtype=np.int16).reshape(SHAPE), geometry), image)
    with Project.create(tmp_path / "p", "p", ["CT"], ["lesion"], ["kidney", "liver"]) as project:
        case = project.add_case({"CT": image}).id
        for name, box in {"lesion": (0, 1), "kidney": (0, 2)}.items():
            array = mask([box, (0, 4), (0, 5)])
            project.set_mask(case, name, Volume(array, geometry), {"engine": "test"})
        yield project


def test_a_case_is_fused_on_its_grid(project, tmp_path):
    (case,) = project.case_ids()
    result = fuse_case(project, case)
    assert result.fused.voxels == {"lesion": 20, "kidney": 20}
    assert result.fused.overlaps == {("lesion", "kidney"): 20}
    assert result.fused.missing == ("liver",)
    result.write(tmp_path / "map.nii.gz")
    back = read_label_map(tmp_path / "map.nii.gz")
    assert np.array_equal(back.array, result.fused.label_map)
    assert back.geometry.difference(project.geometry(case)) is None


def test_a_scheme_with_fewer_structures_leaves_the_others_out(project):
    (case,) = project.case_ids()
    fused = fuse_case(project, case, LabelScheme(("lesion",))).fused
    assert fused.voxels == {"lesion": 20}
    assert fused.missing == ()
