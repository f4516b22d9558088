"""What holds of every fusion: order, targets, and the way back from label map to masks."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_backsplit.backend.fusion.fuse import LabelScheme, bounding_box, fuse

SHAPE = (3, 4, 5)
SUPPORTS = ("kidney", "liver", "spleen", "bowel")
SCHEME = LabelScheme(("lesion", "scar"), SUPPORTS)
IDS = arrays(np.uint8, SHAPE, elements=st.integers(0, len(SCHEME.names)))
ORDERS = st.permutations(SUPPORTS)


def masks_of(label_map, scheme=SCHEME):
    return {name: label_map == scheme.ids[name] for name in scheme.names}


def draws(names=SCHEME.names):
    return st.fixed_dictionaries({name: arrays(bool, SHAPE) for name in names})


@given(IDS)
def test_masks_that_do_not_overlap_come_back_from_the_label_map(ids):
    fused = fuse(masks_of(ids), SCHEME, SHAPE)
    assert np.array_equal(fused.label_map, ids)
    assert fused.overlaps == {}


@given(draws())
def test_outside_of_conflicts_the_label_map_gives_the_masks_back(masks):
    label_map = fuse(masks, SCHEME, SHAPE).label_map
    alone = sum(mask.astype(int) for mask in masks.values()) == 1
    for name, mask in masks.items():
        back = label_map == SCHEME.ids[name]
        assert np.array_equal(back & alone, mask & alone)
        assert not (back & ~mask).any()  # nobody is given a voxel that is not theirs


@given(IDS, ORDERS, st.permutations(SCHEME.names))
def test_priorities_do_not_matter_to_masks_that_do_not_overlap(ids, order, given_as):
    masks = masks_of(ids)
    scheme = LabelScheme(SCHEME.targets, tuple(order))
    fused = fuse({name: masks[name] for name in given_as}, scheme, SHAPE)
    assert fused.voxels == {name: int(mask.sum()) for name, mask in masks.items()}
    assert all(np.array_equal(fused.label_map == scheme.ids[n], masks[n]) for n in masks)


@given(draws(), st.permutations(SCHEME.names))
def test_it_does_not_matter_in_which_order_masks_are_given(masks, order):
    one = fuse(masks, SCHEME, SHAPE)
    other = fuse({name: masks[name] for name in order}, SCHEME, SHAPE)
    assert np.array_equal(one.label_map, other.label_map)
    assert (one.overlaps, one.missing) == (other.overlaps, other.missing)
    assert one.voxels == other.voxels


@given(draws(), ORDERS, st.integers(0, 4))
@settings(max_examples=150)
def test_the_target_survives_whatever_the_supports_are(masks, order, count):
    """Two targets: of one, the voxels that the other claims first are the only ones lost."""
    scheme = LabelScheme(SCHEME.targets, tuple(order[:count]))
    kept = {name: mask for name, mask in masks.items() if name in scheme.names}
    label_map = fuse(kept, scheme, SHAPE).label_map
    assert np.array_equal(label_map == 1, masks["lesion"])
    assert np.array_equal(label_map == 2, masks["scar"] & ~masks["lesion"])


@given(draws())
def test_between_neighbours_in_the_order_only_their_own_conflict_changes(masks):
    swapped = LabelScheme(SCHEME.targets, ("liver", "kidney", "spleen", "bowel"))
    one, other = fuse(masks, SCHEME, SHAPE), fuse(masks, swapped, SHAPE)
    name_of = [np.array(["", *scheme.names]) for scheme in (SCHEME, swapped)]
    changed = name_of[0][one.label_map] != name_of[1][other.label_map]
    targets = masks["lesion"] | masks["scar"]
    assert np.array_equal(changed, masks["kidney"] & masks["liver"] & ~targets)


@given(draws())
def test_the_fusion_of_what_was_fused_is_itself(masks):
    label_map = fuse(masks, SCHEME, SHAPE).label_map
    assert np.array_equal(fuse(masks_of(label_map), SCHEME, SHAPE).label_map, label_map)


@given(draws(), st.tuples(*[st.sampled_from([1, -1])] * 3))
def test_a_mirrored_case_is_fused_alike(masks, flips):
    mirror = tuple(slice(None, None, step) for step in flips)
    mirrored = fuse({name: mask[mirror] for name, mask in masks.items()}, SCHEME, SHAPE)
    assert np.array_equal(mirrored.label_map, fuse(masks, SCHEME, SHAPE).label_map[mirror])


@given(draws())
def test_boxes_that_are_too_large_change_nothing(masks):
    """A box that is kept while a mask is drawn may only be too large, never too small."""
    whole = tuple(slice(0, n) for n in SHAPE)
    boxes = {name: bounding_box(mask) and whole for name, mask in masks.items()}
    one, other = fuse(masks, SCHEME, SHAPE), fuse(masks, SCHEME, SHAPE, boxes)
    assert np.array_equal(one.label_map, other.label_map)
    assert one.overlaps == other.overlaps
