from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_backsplit.backend.comparison.nearest import Points

spacings = st.sampled_from([(1.0, 1.0, 1.0), (2.5, 0.8, 0.8), (0.7, 3.1, 1.3), (0.3, 0.3, 9.0)])


def corners(high):
    """Sorted corners, each once."""
    drawn = st.integers(1, 40).flatmap(
        lambda count: arrays(np.int64, (count, 3), elements=st.integers(0, high))
    )
    return drawn.map(lambda corner: np.unique(corner, axis=0))


def brute(points, asking, spacing_mm):
    steps = (points[None] - asking[:, None]) * np.array(spacing_mm)
    return np.sqrt((steps**2).sum(axis=2)).min(axis=1)


@given(corners(12), corners(12), spacings)
def test_near_points_are_found_exactly(points, asking, spacing_mm):
    """To the last digit, so that a distance equal to a tolerance stays equal."""
    found = Points(points, spacing_mm).distances_from(asking)
    assert np.array_equal(found, brute(points, asking, spacing_mm))


@given(corners(300), corners(300), spacings)
def test_far_points_are_found_too(points, asking, spacing_mm):
    found = Points(points, spacing_mm).distances_from(asking)
    assert found == pytest.approx(brute(points, asking, spacing_mm), abs=1e-12)


@given(corners(300), corners(12), spacings)
def test_the_tree_alone_finds_the_same(points, asking, spacing_mm):
    """Points on a coarse grid would need a table larger than it is worth."""
    apart = points * (1, 1, 20_000)
    asking = asking * (1, 1, 30_000)
    found = Points(apart, spacing_mm).distances_from(asking)
    assert found == pytest.approx(brute(apart, asking, spacing_mm), abs=1e-9)


def test_some_near_and_some_far():
    """One query beside the row, one beyond its end, one out of reach of any row."""
    points = np.array([[5, 5, x] for x in range(10, 400)])
    asking = np.array([[5, 6, 200], [4, 5, 3], [5, 5, 450], [5, 200, 10], [90, 5, 399], [5, 5, 10]])
    found = Points(points, (2.0, 1.0, 0.5)).distances_from(asking)
    assert found == pytest.approx([1, np.hypot(2, 3.5), 25.5, 195, 170, 0])


def test_nobody_asks():
    assert len(Points(np.array([[1, 2, 3]]), (1, 1, 1)).distances_from(np.empty((0, 3), int))) == 0
