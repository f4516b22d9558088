from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.structures.clicks import draw_clicks

CUBE = np.zeros((6, 7, 8), bool)
CUBE[1:4, 2:5, 3:6] = True  # 27 voxels


def places(*args: object, reference: np.ndarray = CUBE) -> list[tuple[int, int, int]]:
    count, seed, case, structure = args
    return [c.at for c in draw_clicks(reference, count, seed, case, structure)]  # type: ignore[arg-type]


@given(st.integers(1, 40), st.integers(0, 2**40))
def test_clicks_lie_in_the_mask_and_none_twice(count: int, seed: int) -> None:
    clicks = draw_clicks(CUBE, count, seed, "case_001", "kidney")
    assert all(CUBE[click.at] and click.positive for click in clicks)
    assert len({click.at for click in clicks}) == len(clicks) == min(count, 27)


def test_the_same_question_has_the_same_answer_and_another_has_another() -> None:
    first = places(7, 0, "case_001", "kidney")
    assert first == places(7, 0, "case_001", "kidney")
    assert first != places(7, 1, "case_001", "kidney")
    assert first != places(7, 0, "case_002", "kidney")
    assert first != places(7, 0, "case_001", "liver")


def test_fewer_clicks_are_the_first_of_more() -> None:
    assert places(10, 3, "case_001", "kidney")[:7] == places(7, 3, "case_001", "kidney")


def test_these_clicks_stay_these_clicks() -> None:
    line = np.ones((1, 1, 100), np.uint8)
    assert places(5, 0, "case_001", "kidney", reference=line) == FIXED


FIXED = [(0, 0, 67), (0, 0, 5), (0, 0, 31), (0, 0, 47), (0, 0, 66)]


def test_every_voxel_is_as_likely_as_any_other() -> None:
    two_parts = np.zeros((1, 1, 12), bool)
    two_parts[..., :1] = two_parts[..., 3:12] = True  # 1 voxel and 9 voxels
    small = sum(
        places(1, seed, "case_001", "kidney", reference=two_parts) == [(0, 0, 0)]
        for seed in range(2000)
    )
    assert 150 < small < 250  # 1 in 10 of 2000; 3.7 standard deviations either side


def test_an_empty_mask_gets_no_clicks() -> None:
    assert draw_clicks(np.zeros((2, 2, 2)), 7, 0, "case_001", "kidney") == ()


@pytest.mark.parametrize("count", [0, -3])
def test_less_than_one_click_is_refused(count: int) -> None:
    with pytest.raises(InputError, match=f"{count} clicks are too few"):
        draw_clicks(CUBE, count, 0, "case_001", "kidney")
