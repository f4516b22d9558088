from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.geometry import from_parts
from napari_backsplit.backend.training.arms import _donors, blob, stretch, transplant
from napari_backsplit.backend.training.spec import arm_name

LPS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
RAS = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))


def test_left_stays_left_in_another_cases_supports() -> None:
    there = from_parts((4, 6, 8), (1, 1, 1), (0, 0, 0), LPS)
    here = from_parts((8, 6, 4), (1, 1, 2), (7, 5, 0), RAS)
    organ = np.zeros(there.shape, bool)
    organ[:, :, 6:] = True  # toward the patient's left

    moved = transplant(organ, there, here)

    assert moved.shape == here.shape
    left = here.to_lps(np.argwhere(moved))[:, 0]
    others = here.to_lps(np.argwhere(~moved))[:, 0]
    assert left.min() > others.max()
    assert moved.mean() == organ.mean()


@given(st.integers(0, 2**16), st.floats(0, 1))
def test_a_blob_has_exactly_the_volume_of_its_mask(seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((5, 6, 7)) < share
    region = blob(mask, [seed])
    assert region.sum() == mask.sum()
    assert np.array_equal(region, blob(mask, [seed]))


@given(st.integers(2, 40), st.integers(0, 2**16))
def test_no_case_gets_its_own_supports(count: int, seed: int) -> None:
    cases = [f"case_{index:03d}" for index in range(count)]
    donors = _donors(cases, seed)
    assert sorted(donors) == sorted(donors.values()) == cases
    assert all(case != donor for case, donor in donors.items())


def test_stretching_to_the_same_shape_changes_nothing() -> None:
    mask = np.random.default_rng(0).random((4, 5, 6)) < 0.5
    assert np.array_equal(stretch(mask, mask.shape), mask)


def test_arms_have_names_of_their_own() -> None:
    assert arm_name("binary", ("kidney",)) == "binary"
    names = {arm_name("backsplit", supports) for supports in (("a",), ("b",), ("a", "b"))}
    assert len(names) == 3
    with pytest.raises(InputError, match="at least one support"):
        arm_name("backsplit", ())
