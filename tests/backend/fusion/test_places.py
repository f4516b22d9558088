from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion.places import (
    ENOUGH_CASES,
    FEW,
    FREQUENT,
    Cover,
    choose_supports,
    cover_of,
    distances_mm,
    enough_cases,
    holder,
    parts_of,
)
from napari_backsplit.backend.fusion.recipes import HOLDS
from napari_backsplit.backend.training.spec import MANY_SUPPORTS

Mask = NDArray[np.bool_]
WHOLE = slice(None)
SHAPE = (9, 20, 24)
SPACING_MM = (3.0, 1.5, 1.0)


def box(z: Any = WHOLE, y: Any = WHOLE, x: Any = WHOLE, shape: Sequence[int] = SHAPE) -> Mask:
    mask = np.zeros(shape, bool)
    mask[z, y, x] = True
    return mask


KIDNEY = box(slice(1, 8), slice(2, 10), slice(2, 10))


@dataclass(frozen=True)
class At:
    support: str
    holds: float
    touches: float


def covers(organs: Mapping[str, Mask], mask: Mask) -> list[dict[str, Cover]]:
    return [{name: cover_of(organs[name], part) for name in organs} for part in parts_of(mask)]


def far(organ: Mask, mask: Mask) -> list[float]:
    parts = parts_of(mask)
    return distances_mm(organ, parts, [cover_of(organ, part) for part in parts], SPACING_MM)


# ---------------------------------------------------------------------- a component and an organ


def test_a_lesion_at_an_organs_edge_is_covered_by_its_shell_alone() -> None:
    lesion = box(slice(3, 5), slice(10, 12), slice(10, 12))  # the kidney has 4 of its shell's 56
    (cover,) = covers({"kidney": KIDNEY}, lesion)
    assert cover == {"kidney": Cover(4 / 56, 0.0)}
    assert holder(cover) is None


def test_an_organ_covers_its_lesion_whether_its_mask_contains_it() -> None:
    lesion = box(slice(3, 5), slice(4, 6), slice(4, 6))
    assert covers({"kidney": KIDNEY}, lesion) == [{"kidney": Cover(1.0, 1.0)}]
    assert covers({"kidney": KIDNEY & ~lesion}, lesion) == [{"kidney": Cover(1.0, 0.0)}]


def test_an_image_of_one_plane() -> None:
    plane = (1, *SHAPE[1:])
    organ = box(0, slice(2, 10), slice(2, 10), shape=plane)
    lesion = box(0, slice(4, 6), slice(4, 6), shape=plane)
    for mask in (organ, organ & ~lesion):
        assert covers({"kidney": mask}, lesion)[0]["kidney"].share == 1.0


def test_nothing_holds_where_nothing_is_known() -> None:
    assert holder({}) is None


# ---------------------------------------------------------------------- distances


@pytest.mark.parametrize(
    ("lesion", "mm"),
    [
        (box(3, 4, 14), 5.0),  # columns 9 to 14, of 1 mm
        (box(3, 12, 5), 4.5),  # rows 9 to 12, of 1.5 mm
        (box(3, 13, 17), 10.0),  # 6 mm and 8 mm
        (box(3, 11, slice(5, 20)), 3.0),  # the nearest of its voxels counts
        (box(3, 10, 10), 0.0),  # it meets the organ at a corner
        (box(3, 4, 10), 0.0),
        (box(3, 4, 4), 0.0),
    ],
)
def test_distances_are_in_mm_between_voxel_centres(lesion: Mask, mm: float) -> None:
    assert far(KIDNEY, lesion) == [pytest.approx(mm)]


def test_each_lesion_has_a_distance_of_its_own_and_an_empty_organ_none() -> None:
    lesions = box(3, 4, 4) | box(3, 4, 14)
    assert sorted(far(KIDNEY, lesions)) == [0.0, pytest.approx(5.0)]
    assert far(np.zeros(SHAPE, bool), lesions) == [np.inf, np.inf]
    assert far(KIDNEY, np.zeros(SHAPE, bool)) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16))
def test_distances_are_those_of_all_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    organ, mask = (random.random((5, 8, 9)) < share for share in (0.03, 0.05))
    for part, mm in zip(parts_of(mask), far(organ, mask), strict=True):
        start = [side.start for side in part.box]
        steps = (np.argwhere(part.inside) + start)[:, None] - np.argwhere(organ)[None]
        if not organ.any():
            assert mm == np.inf
        elif np.abs(steps).max(axis=2).min() <= 1:
            assert mm == 0
        else:
            away = np.linalg.norm(steps * np.asarray(SPACING_MM), axis=2).min()
            assert mm == pytest.approx(away)


# ---------------------------------------------------------------------- the choice


def test_many_for_a_choice_are_many_for_a_fine_tune() -> None:
    assert FEW == MANY_SUPPORTS


def test_frequent_supports_are_chosen_in_their_order_and_not_too_many() -> None:
    many = [At(f"organ{index}", FREQUENT, 1.0) for index in range(FEW + 2)]
    rare = At("rare", FREQUENT / 2, 1.0)
    assert choose_supports([many[0], rare]) == ("organ0",)
    assert choose_supports(many) == tuple(place.support for place in many[:FEW])


def test_where_none_holds_them_the_most_touched_are_chosen() -> None:
    rare, beside = At("rare", FREQUENT / 2, FREQUENT / 2), At("beside", 0.0, 0.9)
    far = At("far", 0.0, 0.0)
    assert choose_supports([rare, beside, far]) == ("beside", "rare")
    assert choose_supports([far]) == ("far",)


@pytest.mark.parametrize("most", [1, 2])
def test_a_caller_may_want_fewer(most: int) -> None:
    many = [At(f"organ{index}", FREQUENT, 1.0) for index in range(4)]
    assert choose_supports(many, most) == tuple(place.support for place in many[:most])


def test_nothing_to_choose_from_is_said_with_its_remedy() -> None:
    with pytest.raises(InputError, match="support") as error:
        choose_supports([])
    assert "Import or click" in error.value.remedy


@pytest.mark.parametrize("count", [0, 1, ENOUGH_CASES, ENOUGH_CASES + 1, 5 * ENOUGH_CASES])
def test_enough_cases_are_spread_over_all(count: int) -> None:
    cases = [f"case_{index:03d}" for index in range(count)]
    some = enough_cases(cases)
    steps = {cases.index(after) - cases.index(before) for before, after in pairwise(some)}
    assert len(some) <= ENOUGH_CASES
    assert len(steps) <= 1
    assert some[:1] == tuple(cases[:1])
    if count <= ENOUGH_CASES:
        assert some == tuple(cases)


# ---------------------------------------------------------------------- against a plain count

Voxel = tuple[int, ...]


def _around(voxels: set[Voxel], shape: Sequence[int]) -> set[Voxel]:
    steps = list(product((-1, 0, 1), repeat=3))
    near = {
        tuple(p + s for p, s in zip(voxel, step, strict=True)) for voxel in voxels for step in steps
    }
    return {voxel for voxel in near if all(0 <= p < n for p, n in zip(voxel, shape, strict=True))}


def _plain(mask: Mask, organs: Mapping[str, Mask]) -> list[dict[str, float]]:
    """Return the shares of each organ, one voxel after the other."""
    left, shares = {tuple(map(int, voxel)) for voxel in np.argwhere(mask)}, []
    while left:
        part = {min(left)}
        while (grown := _around(part, mask.shape) & left) != part:
            part = grown
        left -= part
        regions = [part, _around(part, mask.shape) - part]
        shares.append(
            {
                name: max(
                    sum(bool(organ[voxel]) for voxel in region) / max(len(region), 1)
                    for region in regions
                )
                for name, organ in organs.items()
            }
        )
    return shares


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6)),
    st.sampled_from([0.05, 0.2, 0.6]),
    st.integers(0, 2**16),
)
def test_the_shares_are_those_of_a_plain_count(
    shape: tuple[int, int, int], density: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    mask = random.random(shape) < density
    organs = {"kidney": random.random(shape) < 0.5, "liver": random.random(shape) < 0.5}

    ours = covers(organs, mask)
    shares = [{name: cover.share for name, cover in each.items()} for each in ours]

    assert sorted(map(sorted, map(dict.items, shares))) == sorted(
        map(sorted, map(dict.items, _plain(mask, organs)))
    )
    for each, share in zip(ours, shares, strict=True):
        best = max(share.values())
        assert [holder(each)] == ([n for n in share if share[n] == best >= HOLDS] or [None])[:1]
