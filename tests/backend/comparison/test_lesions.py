from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_backsplit.backend.comparison.lesions import count_lesions
from napari_backsplit.backend.comparison.matching import LesionSettings, match, pair_components
from napari_backsplit.backend.comparison.runs import encode
from napari_backsplit.backend.comparison.strata import strata_names, stratum_of
from napari_backsplit.backend.errors import InputError
from tests.backend.comparison.lesion_support import matched, pieces

pairs = array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)
rules = st.builds(
    LesionSettings,
    matching=st.sampled_from(["any overlap", "IoU", "one-to-one"]),
    iou_threshold=st.sampled_from([0.01, 0.1, 0.25, 0.5, 1.0]),
    connectivity=st.sampled_from([6, 18, 26]),
)


def lesions(reference, prediction, settings=None, voxel_ml=None):
    return count_lesions(encode(reference), encode(prediction), settings, voxel_ml)


def line(*intervals, length=30):
    """A volume of one row."""
    mask = np.zeros((1, 1, length), bool)
    for start, stop in intervals:
        mask[..., start:stop] = True
    return mask


@given(pairs, rules)
def test_lesions_are_those_found_component_by_component(pair, settings):
    ours, theirs = (pieces(mask, settings.connectivity) for mask in pair)
    assume(min(len(ours), len(theirs)) <= 5 and max(len(ours), len(theirs)) <= 7)
    chosen = matched(ours, theirs, settings)
    counted = lesions(*pair, settings)
    assert (counted.reference, counted.predicted) == (len(ours), len(theirs))
    assert counted.found == len({i for i, _ in chosen})
    assert counted.false_positives == len(theirs) - len({j for _, j in chosen})
    assert counted.missed_voxels == sum(one.sum() for one in ours if not (one & pair[1]).any())
    assert counted.false_voxels == sum(one.sum() for one in theirs if not (one & pair[0]).any())


@given(pairs, rules)
def test_the_pairs_are_the_best_there_are(pair, settings):
    ours, theirs = (pieces(mask, settings.connectivity) for mask in pair)
    assume(min(len(ours), len(theirs)) <= 5 and max(len(ours), len(theirs)) <= 7)
    found = match(pair_components(*map(encode, pair), settings.connectivity), settings)
    expected = matched(ours, theirs, settings)
    sums = [
        sum(
            np.count_nonzero(ours[i] & theirs[j]) / np.count_nonzero(ours[i] | theirs[j])
            for i, j in expected
        ),
        float(found.iou.sum()),
    ]
    assert len(found.common) == len(expected)
    assert sums[0] == pytest.approx(sums[1])


@given(pairs, rules)
def test_swapping_reference_and_prediction_swaps_misses_and_false_positives(pair, settings):
    there, back = lesions(*pair, settings), lesions(*pair[::-1], settings)
    assert there.missed_voxels == back.false_voxels
    assert there.reference - there.found == back.false_positives


@given(pairs, rules, st.sampled_from([0, 1, 2, (0, 1), (0, 1, 2)]))
def test_flips_change_nothing(pair, settings, axes):
    flipped = [np.flip(mask, axes) for mask in pair]
    assert lesions(*flipped, settings, 0.3) == lesions(*pair, settings, 0.3)


@given(pairs, rules)
def test_the_sizes_add_up_to_the_whole(pair, settings):
    counted = lesions(*pair, settings, voxel_ml=0.5)
    sizes = counted.by_stratum
    assert [size.name for size in sizes] == list(strata_names())
    for name in ("reference", "predicted", "found", "false_positives"):
        assert sum(getattr(size, name) for size in sizes) == getattr(counted, name)
    assert sum(size.false_negative_ml for size in sizes) == counted.missed_voxels * 0.5
    assert sum(size.false_positive_ml for size in sizes) == counted.false_voxels * 0.5
    assert sum(size.reference_ml for size in sizes) == np.count_nonzero(pair[0]) * 0.5


def test_any_overlap_finds_a_lesion_and_autopet_counts_whole_components():
    reference, prediction = line((0, 4), (8, 10)), line((3, 6), (14, 17))
    counted = lesions(reference, prediction)
    assert (counted.reference, counted.predicted) == (2, 2)
    assert (counted.found, counted.false_positives) == (1, 1)
    assert (counted.missed_voxels, counted.false_voxels) == (2, 3)
    assert counted.sensitivity == 0.5
    assert counted.f1 == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))


def test_one_prediction_across_two_lesions():
    """By overlap it finds both, one-to-one the one it covers best, by an IoU of a half none."""
    reference, prediction = line((1, 4), (6, 8)), line((1, 8))
    assert found(reference, prediction, LesionSettings()) == (2, 0)
    assert found(reference, prediction, LesionSettings("one-to-one", 0.1)) == (1, 0)
    assert found(reference, prediction, LesionSettings("IoU", 0.1)) == (2, 0)
    assert found(reference, prediction, LesionSettings("IoU", 0.5)) == (0, 1)


def found(reference, prediction, settings):
    counted = lesions(reference, prediction, settings)
    return counted.found, counted.false_positives


def test_an_iou_that_equals_the_threshold_is_enough():
    """3 of 10 voxels in common: 0.3, which no binary fraction is."""
    reference, prediction = line((0, 6)), line((3, 10))
    assert found(reference, prediction, LesionSettings("IoU", 0.3)) == (1, 0)
    assert found(reference, prediction, LesionSettings("IoU", 0.3001)) == (0, 1)


def test_one_to_one_takes_the_most_pairs_not_the_best_one():
    """The best pair alone, (0, 10) with (4, 12), would leave both others without a partner."""
    reference, prediction = line((0, 10), (11, 14)), line((0, 3), (4, 12))
    settings = LesionSettings("one-to-one", 0.05)
    assert found(reference, prediction, settings) == (2, 0)
    pairs = match(pair_components(encode(reference), encode(prediction)), settings)
    assert pairs.iou == pytest.approx([3 / 10, 1 / 10])


def test_connectivity_decides_how_many_lesions_there_are():
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    counts = [lesions(mask, mask, LesionSettings(connectivity=n)).reference for n in (6, 18, 26)]
    assert counts == [2, 2, 1]


@pytest.mark.parametrize("matching", ["any overlap", "IoU", "one-to-one"])
def test_each_combination_of_empty_masks(matching):
    empty, lesion = line(), line((2, 6))
    rules = LesionSettings(matching)
    nothing, missed = lesions(empty, empty, rules, 0.5), lesions(lesion, empty, rules, 0.5)
    false, both = lesions(empty, lesion, rules, 0.5), lesions(lesion, lesion, rules, 0.5)
    assert [c.found for c in (nothing, missed, false, both)] == [0, 0, 0, 1]
    assert [c.false_positives for c in (nothing, missed, false, both)] == [0, 0, 1, 0]
    assert [c.missed_voxels for c in (nothing, missed, false, both)] == [0, 4, 0, 0]
    assert [c.false_voxels for c in (nothing, missed, false, both)] == [0, 0, 4, 0]
    assert np.isnan([nothing.f1, nothing.sensitivity, false.f1, false.sensitivity]).all()
    assert (missed.f1, missed.sensitivity, both.f1, both.sensitivity) == (0, 0, 1, 1)
    assert [size.reference for size in false.by_stratum] == [0, 0, 0]


def test_lesions_count_in_the_class_of_their_own_size():
    """Voxels of 0.5 ml: lesions of 0.5, 1 and 10 ml; the false positive of 1.5 ml is small too."""
    reference, prediction = line((0, 1), (2, 4), (5, 25)), line((2, 8), (26, 29), length=30)
    small, middle, large = lesions(reference, prediction, voxel_ml=0.5).by_stratum
    assert (small.reference, middle.reference, large.reference) == (1, 1, 1)
    assert (small.found, middle.found, large.found) == (0, 1, 1)
    assert (small.predicted, middle.predicted, large.predicted) == (0, 2, 0)
    assert (middle.false_positives, middle.false_positive_ml) == (1, 1.5)
    assert (small.false_negative_ml, large.reference_ml) == (0.5, 10.0)


def test_strata_have_names_that_say_where_a_limit_belongs():
    assert strata_names() == ("< 1 ml", "1 to 10 ml", ">= 10 ml")
    assert strata_names((0.5,)) == ("< 0.5 ml", ">= 0.5 ml")
    assert strata_names(()) == ("any size",)
    assert [stratum_of(ml) for ml in (0.999, 1.0, 9.99, 10.0)] == [
        "< 1 ml",
        "1 to 10 ml",
        "1 to 10 ml",
        ">= 10 ml",
    ]
    assert stratum_of(10 * 0.1) == stratum_of(sum([0.1] * 10)) == "1 to 10 ml"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"matching": "Dice"}, "Dice"),
        ({"connectivity": 8}, "8"),
        ({"iou_threshold": 0}, "0"),
        ({"iou_threshold": 1.5}, "1.5"),
        ({"strata_ml": (10.0, 1.0)}, "10, 1 ml"),
        ({"strata_ml": (0.0,)}, "0 ml"),
        ({"strata_ml": (1.0, float("inf"))}, "inf"),
        ({"strata_ml": (1.0, 1.0000001)}, "1, 1 ml"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, told):
    with pytest.raises(InputError, match=told):
        LesionSettings(**wrong)


def test_the_settings_say_in_words_what_they_do():
    assert "any voxel" in LesionSettings().text
    assert "at least 0.3" in LesionSettings("IoU", 0.3, 6).text
    assert "(6 neighbours)" in LesionSettings("IoU", 0.3, 6).text
    assert "one predicted lesion at most" in LesionSettings("one-to-one").text


def test_sizes_are_counted_only_where_the_volume_of_a_voxel_is_known():
    counted = lesions(line((0, 3)), line((0, 3)))
    assert counted.by_stratum == ()
