from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.structures.prompts import (
    Box,
    Lasso,
    Point,
    Scribble,
    bounds_of,
    check_inside,
    parse_prompt,
    slices,
    union,
)


def test_a_scribble_is_a_connected_line_in_its_slice() -> None:
    prompt = Scribble(axis=0, index=4, path=((1.2, 2.0), (1.0, 6.0), (3.0, 6.0)))
    assert prompt.bounds() == ((4, 5), (1, 4), (2, 7))
    expected = np.zeros((1, 3, 5), bool)
    expected[0, 0, :] = True
    expected[0, :, 4] = True
    np.testing.assert_array_equal(prompt.mask(), expected)


def test_a_lasso_is_filled_with_its_outline() -> None:
    prompt = Lasso(axis=1, index=2, path=((1, 1), (1, 4), (5, 4), (5, 1)))
    assert prompt.bounds() == ((1, 6), (2, 3), (1, 5))
    assert prompt.mask().shape == (5, 1, 4)
    assert prompt.mask().all()


def test_a_lasso_of_one_place_is_one_voxel() -> None:
    prompt = Lasso(axis=2, index=0, path=((3, 3),))
    assert prompt.mask().sum() == 1


PATHS = st.lists(st.tuples(st.floats(0, 8), st.floats(0, 8)), min_size=1, max_size=6).map(tuple)


@given(st.sampled_from([Scribble, Lasso]), st.sampled_from([0, 1, 2]), PATHS)
def test_what_is_drawn_fills_its_bounds_exactly(kind: type, axis: int, path: tuple) -> None:
    prompt = kind(axis=axis, index=3, path=path)
    mask = prompt.mask()
    assert mask.shape == tuple(b - a for a, b in prompt.bounds())
    assert bounds_of(mask) == tuple((0, n) for n in mask.shape)


@pytest.mark.parametrize(
    "prompt",
    [
        Point(at=(1, 2, 3), positive=False),
        Box(low=(0, 1, 2), high=(1, 5, 6)),
        Scribble(axis=2, index=1, path=((0.5, 1), (2, 2))),
        Lasso(axis=1, index=1, path=((0, 1), (2, 2), (0, 3)), positive=False),
    ],
)
def test_a_prompt_is_read_as_it_was_written(prompt: Point | Box | Scribble | Lasso) -> None:
    assert parse_prompt(prompt.model_dump(mode="json")) == prompt


def test_no_prompt_is_refused() -> None:
    with pytest.raises(InputError, match="no prompt"):
        parse_prompt({"kind": "star", "at": [0, 0, 0]})


@pytest.mark.parametrize(
    "prompt",
    [
        Point(at=(4, 0, 0)),
        Point(at=(0, -1, 0)),
        Box(low=(0, 0, 0), high=(1, 2, 7)),
        Box(low=(2, 2, 2), high=(2, 3, 3)),
        Scribble(axis=0, index=4, path=((0, 0), (1, 1))),
    ],
)
def test_a_prompt_outside_of_the_image_is_refused(prompt: Point | Box | Scribble) -> None:
    with pytest.raises(InputError, match=r"outside of the image of 4 x 5 x 6 voxels"):
        check_inside(prompt, (4, 5, 6))


def test_bounds() -> None:
    mask = np.zeros((4, 5, 6), bool)
    assert bounds_of(mask) is None
    mask[1, 2, 3] = mask[2, 2, 5] = True
    bounds = bounds_of(mask)
    assert bounds == ((1, 3), (2, 3), (3, 6))
    assert mask[slices(bounds)].sum() == 2
    assert union([bounds, ((0, 1), (4, 5), (4, 5))]) == ((0, 3), (2, 5), (3, 6))
