from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_backsplit.backend.comparison.curves import (
    THRESHOLDS,
    check_probability,
    froc,
    lesions_by_threshold,
)
from napari_backsplit.backend.comparison.lesions import count_lesions
from napari_backsplit.backend.comparison.matching import LesionSettings
from napari_backsplit.backend.comparison.runs import encode
from napari_backsplit.backend.errors import GeometryError, InputError

cases = array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(
        arrays(bool, shape), arrays(np.float32, shape, elements=st.floats(0, 1, width=32))
    )
)
rules = st.sampled_from([LesionSettings(), LesionSettings("IoU", 0.2, 6)])


def line(**values):
    """A row of probabilities: name -> (start, stop, value)."""
    probability = np.zeros((1, 1, 40), np.float32)
    for start, stop, value in values.values():
        probability[..., start:stop] = value
    return probability


@given(cases, rules)
def test_each_threshold_counts_what_is_at_least_as_probable(case, settings):
    reference, probability = encode(case[0]), case[1]
    counted = lesions_by_threshold(reference, probability, settings)
    for count, threshold in zip(counted, THRESHOLDS, strict=True):
        mask = encode(probability >= threshold)
        assert count == count_lesions(reference, mask, settings)


def two_cases():
    """A lesion at 0.9 and one at 0.25, a false positive at 0.6; a lesion-free case with two."""
    lesion = line(a=(2, 4, 1), b=(10, 30, 1)) > 0
    first = line(a=(2, 4, 0.25), b=(10, 30, 0.9), false=(35, 36, 0.6))
    second = line(a=(5, 7, 0.6), b=(20, 22, 0.25))
    return [
        lesions_by_threshold(encode(lesion), first),
        lesions_by_threshold(encode(np.zeros_like(lesion)), second),
    ]


def at(points, threshold):
    return points[THRESHOLDS.index(threshold)]


def test_froc_counts_false_positives_per_case_lesion_free_ones_too():
    points = froc(two_cases())
    assert [(p.sensitivity, p.false_positives_per_case) for p in points if p.threshold == 0.2] == [
        (1.0, 1.5)
    ]
    assert at(points, 0.5).sensitivity == 0.5
    assert at(points, 0.5).false_positives_per_case == 1.0
    assert at(points, 0.7).false_positives_per_case == 0
    assert at(points, 0.95).sensitivity == 0


def test_without_lesions_or_cases_a_point_is_undefined():
    assert np.isnan([p.sensitivity for p in froc(two_cases()[1:])]).all()
    assert np.isnan([p.false_positives_per_case for p in froc([])]).all()


@given(cases)
def test_found_lesions_never_grow_with_the_threshold(case):
    """By overlap: what is found at a threshold is found at every lower one."""
    found = [c.found for c in lesions_by_threshold(encode(case[0]), case[1])]
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 1.1, 37.0, 255])
def test_what_is_no_probability_is_refused(value):
    with pytest.raises(InputError, match="The map of a"):
        check_probability(line(a=(2, 3, value)), (1, 1, 40), "The map of a")


def test_a_map_on_another_grid_is_refused_and_rounding_is_not():
    check_probability(line(a=(2, 3, 1.0000001), b=(5, 6, -1e-7)), (1, 1, 40), "a")
    with pytest.raises(GeometryError, match=r"\(1, 1, 40\)"):
        check_probability(line(), (1, 40, 1), "a")
