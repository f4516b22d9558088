"""The weights against their definition, on components that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from napari_backsplit.backend.training.losses.inverse_weights import inverse_weights

Bool = NDArray[np.bool_]


def of(shape: tuple[int, ...], *voxels: tuple[int | slice, ...]) -> Bool:
    target = np.zeros(shape, bool)
    for at in voxels:
        target[at] = True
    return target


def test_each_component_weighs_the_same() -> None:
    cube = (slice(1, 4), slice(1, 4), slice(1, 4))
    target = of((10, 10, 10), cube, (7, 7, slice(2, 5)))

    weights = inverse_weights(target)

    assert weights.dtype == np.float32
    assert weights[cube] == pytest.approx(1000 / (3 * 27))
    assert weights[7, 7, 2:5] == pytest.approx(1000 / (3 * 3))
    assert (weights[~target] == 1).all(), "1000 / (3 * 970) is below the least weight"
    assert weights[cube].sum() == pytest.approx(weights[7, 7, 2:5].sum())


def test_voxels_that_touch_at_a_corner_are_one_component() -> None:
    diagonal = inverse_weights(of((8, 8, 8), (1, 1, 1), (2, 2, 2), (3, 3, 3)))
    assert diagonal.max() == pytest.approx(512 / (2 * 3))
    flat = inverse_weights(of((8, 8), (1, 1), (2, 2), (5, 5)))
    assert flat[1, 1] == flat[2, 2] == pytest.approx(64 / (3 * 2))
    assert flat[5, 5] == pytest.approx(64 / 3)


def test_a_target_of_one_voxel() -> None:
    weights = inverse_weights(of((6, 5, 4), (0, 4, 3)))
    assert weights[0, 4, 3] == 60
    assert (weights == 1).sum() == 119


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5), (1, 1, 1)])
def test_without_a_target_every_voxel_weighs_one(shape: tuple[int, ...]) -> None:
    weights = inverse_weights(np.zeros(shape, bool))
    assert (weights == 1).all()
    assert weights.shape == shape
    assert weights.dtype == np.float32


def test_the_weights_end_at_both_sides() -> None:
    weights = inverse_weights(of((80, 80, 80), (9, 9, 9)))
    assert weights[9, 9, 9] == np.float32(2e5), "not 256,000"
    assert weights[0, 0, 0] == 1

    most = inverse_weights(of((10, 10, 10), (slice(0, 9),)))
    assert (most[:9] == 1).all(), "not 1000 / (2 * 900)"
    assert most[9] == pytest.approx(5), "the background is the smaller one here"


def test_a_patch_that_is_all_target() -> None:
    assert (inverse_weights(np.ones((4, 4, 4), bool)) == 1).all()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 3, 1), (3, 1, 1), (1, 3)])
def test_thin_patches(shape: tuple[int, ...]) -> None:
    target = np.array([True, False, True]).reshape(shape)
    np.testing.assert_allclose(inverse_weights(target).ravel(), [1, 1, 1])
    longer = np.array([True, False, False, True, True, False, False, False, False])
    axis = int(np.argmax(shape))
    longer = longer.reshape([9 if k == axis else 1 for k in range(len(shape))])
    expected = [3, 1, 1, 1.5, 1.5, 1, 1, 1, 1]
    np.testing.assert_allclose(inverse_weights(longer).ravel(), expected)


def test_any_layout_of_memory_will_do() -> None:
    target = of((6, 7, 8), (1, 2, 3), (1, 2, 4), (4, 4, 4))
    expected = inverse_weights(target)
    np.testing.assert_array_equal(inverse_weights(np.asfortranarray(target)), expected)
    np.testing.assert_array_equal(inverse_weights(target[::-1])[::-1], expected)
    np.testing.assert_array_equal(inverse_weights(target.transpose(2, 0, 1)),
                                  expected.transpose(2, 0, 1))  # fmt: skip


def by_definition(target: Bool) -> NDArray[Any]:
    """Flood each component by hand, then w = N / ((K + 1) |component|), within 1 and 2e5."""
    rest = {tuple(at) for at in np.argwhere(target)}
    parts = [[tuple(at) for at in np.argwhere(~target)]]
    while rest:
        part, front = [], [rest.pop()]
        while front:
            at = front.pop()
            part.append(at)
            near = {o for o in rest if max(abs(a - b) for a, b in zip(at, o, strict=True)) <= 1}
            rest -= near
            front += near
        parts.append(part)
    weights = np.ones(target.shape)
    for part in parts:
        for at in part:
            weights[at] = min(max(target.size / (len(parts) * len(part)), 1), 2e5)
    return weights


shapes = st.one_of(st.tuples(*[st.integers(1, 5)] * 3), st.tuples(*[st.integers(1, 8)] * 2))


@given(target=arrays.arrays(bool, shapes))
@settings(max_examples=150, deadline=None)
def test_any_mask_against_the_definition(target: Bool) -> None:
    np.testing.assert_allclose(inverse_weights(target), by_definition(target), rtol=1e-6)


@given(target=arrays.arrays(bool, (4, 5, 6)), axes=st.permutations(range(3)), flip=st.booleans())
@settings(max_examples=50, deadline=None)
def test_the_orientation_does_not_matter(target: Bool, axes: list[int], flip: bool) -> None:
    def turned(array: NDArray[Any]) -> NDArray[Any]:
        array = array.transpose(axes)
        return array[::-1] if flip else array

    np.testing.assert_array_equal(inverse_weights(turned(target)), turned(inverse_weights(target)))
