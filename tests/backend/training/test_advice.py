from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training import advice
from napari_backsplit.backend.training.advice import (
    ENOUGH_CASES,
    FREQUENT,
    HOLDS,
    Place,
    choose_supports,
    enough_cases,
    places,
)
from napari_backsplit.backend.training.spec import MANY_SUPPORTS
from napari_backsplit.backend.volume import Geometry, Volume, read_mask, write_volume

Mask = NDArray[np.bool_]
AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
SHAPE = (9, 20, 24)
WHOLE = slice(None)


def box(z: Any = WHOLE, y: Any = WHOLE, x: Any = WHOLE, shape: Sequence[int] = SHAPE) -> Mask:
    mask = np.zeros(shape, bool)
    mask[z, y, x] = True
    return mask


NOTHING = box(slice(0), slice(0), slice(0))
KIDNEY = box(slice(1, 8), slice(2, 10), slice(2, 10))
LIVER = box(slice(1, 8), slice(2, 10), slice(12, 22))
IN_KIDNEY = box(slice(3, 5), slice(4, 6), slice(4, 6))
IN_LIVER = box(slice(3, 5), slice(4, 6), slice(16, 18))
OUTSIDE = box(slice(3, 5), slice(16, 18), slice(4, 6))

Make = Callable[..., Project]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make a project whose cases have these masks; the target is called lesion."""
    projects = []

    def project(
        *cases: Mapping[str, Mask],
        supports: Sequence[str] = ("kidney", "liver"),
        targets: Sequence[str] = ("lesion",),
    ) -> Project:
        made = Project.create(tmp_path / "project", "places", ["CT"], targets, supports)
        projects.append(made)
        for index, masks in enumerate(cases):
            shape = next(iter(masks.values())).shape
            grid = Geometry(shape, (3.0, 1.5, 1.0), (0.0, 0.0, 0.0), AXES)
            image = np.full(shape, index, np.float32)
            file = tmp_path / f"image_{index}.nii.gz"
            write_volume(Volume(image, grid), file)
            case = made.add_case({"CT": file}, patient=f"patient {index}")
            for name, mask in masks.items():
                made.set_mask(case.id, name, Volume(mask.astype(np.uint8), grid), {})
        return made

    yield project
    for made in projects:
        made.close()


def found(
    project: Project, predicted: Mapping[str, Mask] | None = None
) -> dict[str, tuple[float, float, int]]:
    """Return what is found in every case: support -> held, touched, false positives."""
    every = places(project, project.case_ids(), predicted)
    return {place.support: (place.holds, place.touches, place.false_positives) for place in every}


# ---------------------------------------------------------------------- what holds a lesion


@pytest.mark.parametrize("kidney", [KIDNEY, KIDNEY & ~IN_KIDNEY], ids=["contains", "leaves out"])
def test_an_organ_holds_its_lesion_whether_its_mask_contains_it(make: Make, kidney: Mask) -> None:
    project = make({"lesion": IN_KIDNEY, "kidney": kidney, "liver": LIVER})
    assert found(project) == {"kidney": (1, 1, 0), "liver": (0, 0, 0)}


@pytest.mark.parametrize("radius", [2, 6, 16])
def test_an_organ_that_leaves_its_lesion_out_holds_it_whatever_its_size(
    make: Make, radius: int
) -> None:
    """Of a large lesion and its shell together the shell is but a small part."""
    size = 2 * radius + 9
    zyx = np.indices((size, size, size)) - size // 2
    distance = np.sqrt(np.square(zyx).sum(axis=0))
    lesion = distance <= radius
    organ = (distance <= radius + 4) & ~lesion
    organ[:, :, : size // 2] = False  # the other half bulges out of the organ
    project = make({"lesion": lesion, "kidney": organ, "liver": np.zeros_like(lesion)})
    assert found(project)["kidney"] == (1, 1, 0)


def test_a_lesion_outside_every_organ_is_held_by_none(make: Make) -> None:
    project = make({"lesion": OUTSIDE, "kidney": KIDNEY, "liver": LIVER})
    assert found(project) == {"kidney": (0, 0, 0), "liver": (0, 0, 0)}


def test_a_lesion_at_an_organs_edge_touches_it_and_is_not_held(make: Make) -> None:
    lesion = box(slice(3, 5), slice(10, 12), slice(10, 12))  # the kidney has 4 of its shell's 56
    assert advice._covers([("kidney", KIDNEY)], advice._parts(lesion)) == [{"kidney": 4 / 56}]
    assert HOLDS > 4 / 56
    project = make({"lesion": lesion, "kidney": KIDNEY})
    assert found(project) == {"kidney": (0, 1, 0)}


def test_of_two_organs_the_one_with_most_of_the_lesion_holds_it(make: Make) -> None:
    lesion = box(slice(3, 5), slice(4, 6), slice(8, 13))  # two columns in the kidney, one in the
    project = make({"lesion": lesion, "kidney": KIDNEY, "liver": LIVER})  # liver, two in neither
    assert found(project) == {"kidney": (1, 1, 0), "liver": (0, 1, 0)}


@pytest.mark.parametrize("supports", [("kidney", "liver"), ("liver", "kidney")])
def test_the_projects_first_support_wins_a_tie(make: Make, supports: tuple[str, ...]) -> None:
    both = {"kidney": KIDNEY, "liver": KIDNEY}
    project = make({"lesion": IN_KIDNEY, **both}, supports=supports)
    first, second = supports
    assert found(project) == {first: (1, 1, 0), second: (0, 1, 0)}
    assert list(found(project)) == list(supports)
    project.close()


def test_two_supports_hold_lesions_and_the_one_with_more_comes_first(make: Make) -> None:
    project = make(
        {"lesion": IN_KIDNEY | IN_LIVER, "kidney": KIDNEY, "liver": LIVER},
        {"lesion": IN_LIVER | OUTSIDE, "kidney": KIDNEY, "liver": LIVER},
    )
    assert found(project) == {"liver": (0.5, 0.5, 0), "kidney": (0.25, 0.25, 0)}
    assert list(found(project)) == ["liver", "kidney"]
    assert choose_supports(places(project, project.case_ids())) == ("liver", "kidney")


def test_the_lesions_of_all_targets_count(make: Make) -> None:
    masks = {"lesion": IN_KIDNEY, "cyst": IN_LIVER, "kidney": KIDNEY, "liver": LIVER}
    project = make(masks, targets=("lesion", "cyst"))
    assert found(project) == {"kidney": (0.5, 0.5, 0), "liver": (0.5, 0.5, 0)}


def test_an_image_of_one_plane(make: Make) -> None:
    plane = (1, *SHAPE[1:])
    organ = box(0, slice(2, 10), slice(2, 10), shape=plane)
    lesion = box(0, slice(4, 6), slice(4, 6), shape=plane)
    for mask in (organ, organ & ~lesion):
        covered = advice._covers([("kidney", mask)], advice._parts(lesion))
        assert covered == [{"kidney": 1.0}]
    project = make({"lesion": lesion, "kidney": organ & ~lesion}, supports=("kidney",))
    assert found(project) == {"kidney": (1, 1, 0)}


def test_a_lesion_that_fills_the_image(make: Make) -> None:
    project = make({"lesion": ~NOTHING, "kidney": KIDNEY, "liver": ~NOTHING})
    assert found(project) == {"liver": (1, 1, 0), "kidney": (0, 1, 0)}


# ---------------------------------------------------------------------- what a case lacks


def test_a_case_without_a_supports_mask_says_nothing_of_it(make: Make) -> None:
    project = make(
        {"lesion": IN_KIDNEY, "kidney": KIDNEY, "liver": LIVER},
        {"lesion": IN_KIDNEY, "liver": LIVER},
    )
    assert found(project) == {"kidney": (0.5, 0.5, 0), "liver": (0, 0, 0)}


def test_a_support_that_no_case_has_a_mask_of_is_left_out(make: Make) -> None:
    project = make({"lesion": OUTSIDE, "liver": LIVER})
    assert list(found(project)) == ["liver"]


def test_cases_without_lesion_change_no_share(make: Make) -> None:
    project = make(
        {"lesion": NOTHING, "kidney": KIDNEY, "liver": LIVER},
        {"lesion": IN_KIDNEY, "kidney": KIDNEY, "liver": LIVER},
        {"kidney": KIDNEY, "liver": LIVER},  # no mask of the target at all
    )
    assert found(project) == {"kidney": (1, 1, 0), "liver": (0, 0, 0)}


def test_without_any_lesion_the_first_supports_are_chosen(make: Make) -> None:
    project = make({"lesion": NOTHING, "kidney": KIDNEY, "liver": LIVER})
    assert found(project) == {"kidney": (0, 0, 0), "liver": (0, 0, 0)}
    assert choose_supports(places(project, project.case_ids())) == ("kidney", "liver")
    assert places(project, []) == []


# ---------------------------------------------------------------------- false positives


def test_false_positives_are_placed_and_found_lesions_are_not(make: Make) -> None:
    kidney, liver = KIDNEY & ~IN_KIDNEY, LIVER
    project = make(
        {"lesion": IN_KIDNEY, "kidney": kidney, "liver": liver},
        {"lesion": NOTHING, "kidney": kidney, "liver": liver},
        {"kidney": kidney, "liver": liver},
    )
    wide = box(slice(3, 5), slice(4, 9), slice(4, 6))  # meets the lesion, and more beside it
    other = box(6, 8, slice(4, 7))
    first, second, third = project.case_ids()
    predicted = {first: wide | other | IN_LIVER | OUTSIDE, second: IN_LIVER, third: IN_LIVER}
    assert found(project, predicted) == {"kidney": (1, 1, 1), "liver": (0, 0, 3)}
    assert found(project, {first: IN_KIDNEY}) == {"kidney": (1, 1, 0), "liver": (0, 0, 0)}


# ---------------------------------------------------------------------- the choice


def test_frequent_supports_are_chosen_in_their_order_and_not_too_many() -> None:
    many = [Place(f"organ{index}", FREQUENT, 1.0) for index in range(MANY_SUPPORTS + 2)]
    rare = Place("rare", FREQUENT / 2, 1.0)
    assert choose_supports([many[0], rare]) == ("organ0",)
    assert choose_supports(many) == tuple(place.support for place in many[:MANY_SUPPORTS])


def test_where_none_holds_them_the_most_touched_are_chosen() -> None:
    rare, beside = Place("rare", FREQUENT / 2, FREQUENT / 2), Place("beside", 0.0, 0.9)
    far = Place("far", 0.0, 0.0)
    assert choose_supports([rare, beside, far]) == ("beside", "rare")
    assert choose_supports([far]) == ("far",)


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


# ---------------------------------------------------------------------- memory and time


def test_one_mask_is_in_memory_at_a_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make(
        *({"lesion": IN_KIDNEY, "kidney": KIDNEY, "liver": LIVER} for _ in range(4)),
        {"lesion": NOTHING, "kidney": KIDNEY, "liver": LIVER},
    )
    alive: list[ref[Mask]] = []
    most: list[int] = []

    def counted(path: Path, geometry: Geometry) -> Volume:
        most.append(sum(mask() is not None for mask in alive))
        volume = read_mask(path, geometry)
        alive.append(ref(volume.array))
        return volume

    monkeypatch.setattr(advice, "read_mask", counted)
    places(project, project.case_ids())
    assert max(most) <= 1, "beside the one that is read"
    assert len(alive) == 4 * 3 + 1, "no support is read where there is no lesion"


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

    ours = advice._covers(organs.items(), advice._parts(mask))

    assert sorted(map(sorted, map(dict.items, ours))) == sorted(
        map(sorted, map(dict.items, _plain(mask, organs)))
    )
    for covered in ours:
        best = max(covered.values())
        assert advice._holder(covered) == [n for n in covered if covered[n] == best >= HOLDS][:1]
