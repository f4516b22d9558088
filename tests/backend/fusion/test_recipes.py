"""What recipes do to voxels, against a plain reference made of sets of voxels."""

from __future__ import annotations

from itertools import product
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_backsplit.backend.fusion.recipes import (
    GAP_MM,
    HOLDS,
    grown,
    lesion_regions,
    make_supports,
)
from napari_backsplit.backend.project.recipes import Recipe, fused_supports, known_supports
from napari_backsplit.backend.project.schema import coloured

SHAPE = (2, 3, 4)
TARGETS = ("lesion",)
SOURCES = ("left", "right", "liver", "cyst")
NAMES = TARGETS + SOURCES
STRUCTURES = coloured(SOURCES, ["#d55e00"])
MM = (5.0, 4.0, 3.0)


def merge(support, *sources):
    return Recipe(kind="merge", support=support, sources=sources)


def subtract(support, *sources):
    return Recipe(kind="subtract", support=support, sources=sources)


def grow(support):
    return Recipe(kind="grow", support=support)


def unchanged(mask):
    return mask


def box(*pairs, shape):
    result = np.zeros(shape, bool)
    result[tuple(slice(*pair) for pair in pairs)] = True
    return result


# --- the reference: sets of voxels, one sentence a recipe


def voxels(mask):
    return set(map(tuple, np.argwhere(mask).tolist()))


def plain(masks, recipes, grow=unchanged):
    """Make the supports of masks that are all known."""
    result = {name: voxels(mask) for name, mask in masks.items()}
    for recipe in recipes:
        if recipe.kind == "merge":
            result[recipe.support] = set().union(*[result.pop(name) for name in recipe.sources])
        elif recipe.kind == "subtract":
            result[recipe.support] = result[recipe.support].difference(
                *[result[name] for name in recipe.sources]
            )
        else:
            result[recipe.support] = grow(result[recipe.support])
    return result


STEPS = [step for step in product((-1, 0, 1), repeat=3) if any(step)]
FACES = [step for step in STEPS if sum(map(abs, step)) == 1]


def moved(voxel, step):
    return tuple(a + b for a, b in zip(voxel, step, strict=True))


def parts(found, steps):
    """Return the components of a set of voxels."""
    found, result = set(found), []
    while found:
        part = edge = {found.pop()}
        while edge:
            edge = {moved(v, s) for v in edge for s in steps} & found
            found -= edge
            part = part | edge
        result.append(part)
    return result


def plain_grown(organ, lesions, shape, spacing_mm):
    """Take each lesion that the organ holds, and the background that the two lock in near it."""
    result = set(organ)
    for lesion in parts(lesions, STEPS):
        reach = [ceil(GAP_MM / mm) for mm in spacing_mm]
        low = [max(min(axis) - n, 0) for axis, n in zip(zip(*lesion), reach)]  # noqa: B905
        high = [
            min(max(axis) + n, size - 1)
            for axis, n, size in zip(zip(*lesion), reach, shape)  # noqa: B905
        ]
        near = set(product(*[range(a, b + 1) for a, b in zip(low, high, strict=True)]))
        shell = {moved(v, s) for v in lesion for s in FACES} & near - lesion
        share = max(len(organ & some) / len(some) if some else 0 for some in (lesion, shell))
        if share >= HOLDS:
            result |= lesion
            for gap in parts(near - organ - lesion, FACES):
                touches = any(moved(v, s) in lesion for v in gap for s in FACES)
                open_ = any(v[axis] in (low[axis], high[axis]) for v in gap for axis in range(3))
                if touches and not open_:
                    result |= gap
    return result


# --- recipes, whatever they are


@st.composite
def recipe_lists(draw, most=4):
    """Draw recipes that fit, each after the ones before it."""
    recipes = []
    for number in range(draw(st.integers(0, most))):
        there = [s.name for s in fused_supports(STRUCTURES, TARGETS, recipes)]
        support = draw(st.sampled_from(there))
        kind = draw(st.sampled_from(["merge", "subtract", "grow"]))
        if kind == "merge":
            sources = draw(st.lists(st.sampled_from(there), min_size=1, max_size=3, unique=True))
            name = draw(st.sampled_from([f"made{number}", sources[0]]))
            recipes.append(merge(name, *sources))
        elif kind == "grow":
            recipes.append(grow(support))
        else:
            others = [*TARGETS, *(name for name in there if name != support)]
            sources = draw(st.lists(st.sampled_from(others), min_size=1, max_size=2, unique=True))
            recipes.append(subtract(support, *sources))
    return tuple(recipes)


MASKS = st.fixed_dictionaries({name: arrays(bool, SHAPE) for name in NAMES})


def known_of(names):
    return {name: "whole" if name in names else "none" for name in NAMES}


@given(MASKS, recipe_lists())
@settings(max_examples=150)
def test_masks_that_are_all_known_become_what_the_reference_makes(masks, recipes):
    before = {name: mask.copy() for name, mask in masks.items()}
    made = make_supports(masks, known_of(NAMES), recipes, unchanged)
    expected = plain(masks, recipes)
    assert {name: voxels(mask) for name, mask in made.items()} == expected
    supports = {support.name for support in fused_supports(STRUCTURES, TARGETS, recipes)}
    assert set(made) == {*TARGETS, *supports}
    assert np.array_equal(made["lesion"], masks["lesion"])
    assert all(np.array_equal(masks[name], before[name]) for name in NAMES)


@given(MASKS, recipe_lists(), st.sets(st.sampled_from(SOURCES)))
@settings(max_examples=150)
def test_what_is_told_holds_whatever_the_unknown_masks_are(masks, recipes, unknown):
    """Every way to fill what is unknown agrees with what is said to be known."""
    known = known_of(set(NAMES) - unknown)
    given_masks = {name: mask for name, mask in masks.items() if name not in unknown}
    made = make_supports(given_masks, known, recipes, unchanged)
    after = known_supports(known, recipes)
    for fill in product([False, True], repeat=len(unknown)):
        guess = {n: np.full(SHAPE, f) for n, f in zip(sorted(unknown), fill, strict=True)}
        truth = plain({**given_masks, **guess}, recipes)
        for name, how in after.items():
            if how == "whole":
                assert voxels(made[name]) == truth[name]
            elif how == "part":
                assert voxels(made[name]) <= truth[name]
            else:
                assert name not in made


@given(MASKS, recipe_lists())
def test_a_box_of_the_masks_gives_a_box_of_the_supports(masks, recipes):
    part = (slice(0, 2), slice(1, 3), slice(1, 4))
    whole = make_supports(masks, known_of(NAMES), recipes, unchanged)
    cut = {name: mask[part] for name, mask in masks.items()}
    made = make_supports(cut, known_of(NAMES), recipes, unchanged)
    assert made.keys() == whole.keys()
    assert all(np.array_equal(made[name], whole[name][part]) for name in whole)


# --- masks of which some are not known


def test_of_a_union_the_known_part_stays():
    left = box((0, 1), (0, 1), (0, 2), shape=SHAPE)
    recipes = [merge("kidney", "left", "right")]
    known = known_of({"lesion", "left"})
    made = make_supports({"left": left}, known, recipes, unchanged)
    assert np.array_equal(made["kidney"], left)
    assert known_supports(known, recipes)["kidney"] == "part"


def test_from_what_an_unknown_structure_was_taken_nothing_is_told():
    masks = {"liver": box((0, 2), (0, 2), (0, 2), shape=SHAPE)}
    recipes = [subtract("liver", "cyst")]
    known = known_of({"lesion", "liver"})
    assert make_supports(masks, known, recipes, unchanged) == {}
    assert known_supports(known, recipes)["liver"] == "none"


def test_the_order_of_recipes_counts():
    masks = {name: np.zeros(SHAPE, bool) for name in NAMES}
    masks["left"][0, 0, :2] = True
    masks["cyst"][0, 0, 1:3] = True
    taken_first = [subtract("left", "cyst"), merge("both", "left", "cyst")]
    taken_last = [merge("both", "left", "right"), subtract("both", "cyst")]
    known = known_of(NAMES)
    assert make_supports(masks, known, taken_first, unchanged)["both"].sum() == 3
    assert make_supports(masks, known, taken_last, unchanged)["both"].sum() == 1


# --- growing

ROOM = (9, 9, 15)


def organ_with_lesion():
    """A block of 7 x 7 x 7 with a lesion of 3 x 3 x 3 in it and a gap one voxel wide around."""
    organ = box((1, 8), (1, 8), (1, 8), shape=ROOM) & ~box((2, 7), (2, 7), (2, 7), shape=ROOM)
    return organ, box((3, 6), (3, 6), (3, 6), shape=ROOM)


def grow_over(organ, *lesions, spacing_mm=(1.0, 1.0, 1.0)):
    return grown(organ, lesion_regions(lesions, spacing_mm))


@pytest.mark.parametrize(("walls", "held"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_lesion_and_the_gap_around_it_are_taken_where_the_organ_holds_it(walls, held):
    """Each wall has 9 of the 54 voxels next to the lesion's faces; 25 % are enough."""
    organ, lesion = organ_with_lesion()
    side, middle = (2, 3), (3, 6)
    for pairs in [(side, middle, middle), (middle, side, middle), (middle, middle, side)][:walls]:
        organ |= box(*pairs, shape=ROOM)
    whole = box((1, 8), (1, 8), (1, 8), shape=ROOM)
    assert np.array_equal(grow_over(organ, lesion), whole if held else organ)


def test_a_lesion_in_the_middle_of_an_organ_is_taken():
    organ = box((1, 8), (1, 8), (1, 8), shape=ROOM)
    lesion = box((3, 6), (3, 6), (3, 6), shape=ROOM)
    assert np.array_equal(grow_over(organ & ~lesion, lesion), organ)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_neighbours_lesion_is_left_although_it_lies_flat_on_the_organ(size):
    organ = box((1, 8), (1, 8), (1, 6), shape=ROOM)
    neighbours = box((2, 2 + size), (2, 2 + size), (6, 6 + size), shape=ROOM)
    assert np.array_equal(grow_over(organ, neighbours), organ)


def test_each_lesion_goes_to_the_organ_that_holds_it():
    left, right = box((1, 8), (1, 8), (0, 6), shape=ROOM), box((1, 8), (1, 8), (8, 15), shape=ROOM)
    own = box((3, 5), (3, 5), (2, 4), shape=ROOM)
    other = box((3, 5), (3, 5), (10, 12), shape=ROOM)
    lesions = own | other
    assert np.array_equal(grow_over(left & ~own, lesions), left)
    assert np.array_equal(grow_over(right & ~other, lesions), right)


def test_a_cavity_that_no_lesion_touches_stays():
    organ = box((0, 9), (0, 9), (0, 14), shape=ROOM)
    lesion = box((3, 6), (3, 6), (2, 5), shape=ROOM)
    cavity = box((4, 5), (4, 5), (9, 11), shape=ROOM)
    assert np.array_equal(grow_over(organ & ~lesion & ~cavity, lesion), organ & ~cavity)


@pytest.mark.parametrize(("end", "filled"), [(12, True), (15, False)])
def test_a_gap_that_reaches_far_from_its_lesion_is_none(end, filled):
    """A vessel that begins at the lesion and leaves its surroundings of 10 mm stays."""
    organ = np.ones((9, 9, 20), bool)
    lesion = box((4, 6), (4, 6), (3, 5), shape=organ.shape)
    vessel = box((4, 5), (4, 5), (5, end), shape=organ.shape)
    made = grow_over(organ & ~lesion & ~vessel, lesion)
    assert np.array_equal(made, organ if filled else organ & ~vessel)


def test_lesions_of_several_targets_are_taken_in_any_order():
    organ = box((1, 8), (1, 8), (1, 8), shape=ROOM)
    first, second = box((2, 4), (2, 4), (2, 4), shape=ROOM), box((5, 7), (5, 7), (5, 7), shape=ROOM)
    hollow = organ & ~first & ~second
    assert np.array_equal(grow_over(hollow, first, second), organ)
    assert np.array_equal(grow_over(hollow, second, first), organ)


def test_what_an_organ_took_of_one_target_holds_no_lesion_of_another():
    organ = box((1, 8), (1, 8), (1, 8), shape=ROOM)
    notch = box((4, 5), (4, 5), (8, 10), shape=ROOM)  # in the lesion, open to the outside
    lesion = box((3, 6), (3, 6), (4, 10), shape=ROOM) & ~notch
    hollow = organ & ~lesion
    for lesions in [(lesion, notch), (notch, lesion)]:
        assert np.array_equal(grow_over(hollow, *lesions), organ | lesion)


def test_no_lesion_and_no_organ():
    organ = box((1, 8), (1, 8), (1, 8), shape=ROOM)
    empty = np.zeros(ROOM, bool)
    assert grow_over(organ, empty) is organ
    assert not grow_over(empty, organ).any()


@st.composite
def scenes(draw):
    """Draw an organ with dents and a few lesions."""
    shape = (6, 7, 9)
    noise = draw(arrays(np.uint8, shape, elements=st.integers(0, 9)))
    organ = noise < draw(st.integers(3, 9))
    lesions = np.zeros(shape, bool)
    for _ in range(draw(st.integers(0, 3))):
        at = [draw(st.integers(0, n - 1)) for n in shape]
        size = [draw(st.integers(1, 3)) for _ in shape]
        lesions[tuple(slice(a, a + n) for a, n in zip(at, size, strict=True))] = True
    return organ & ~lesions if draw(st.booleans()) else organ, lesions


@given(scenes(), st.sampled_from([MM, (10.0, 10.0, 10.0), (2.0, 5.0, 12.0)]))
@settings(max_examples=120, deadline=None)
def test_growing_is_what_the_reference_makes(scene, spacing_mm):
    organ, lesions = scene
    before = organ.copy()
    made = grow_over(organ, lesions, spacing_mm=spacing_mm)
    expected = plain_grown(voxels(organ), voxels(lesions), organ.shape, spacing_mm)
    assert voxels(made) == expected
    assert np.array_equal(organ, before)


def test_what_is_grown_first_is_grown_before_it_is_taken_away():
    masks = {name: np.zeros(ROOM, bool) for name in NAMES}
    masks["liver"] = box((1, 8), (1, 8), (1, 8), shape=ROOM)
    masks["lesion"] = box((3, 6), (3, 6), (3, 6), shape=ROOM)
    masks["liver"] &= ~masks["lesion"]
    regions = lesion_regions([masks["lesion"]], (1.0, 1.0, 1.0))
    known = known_of(NAMES)
    steps = [grow("liver"), subtract("liver", "lesion")]
    forward = make_supports(masks, known, steps, lambda mask: grown(mask, regions))
    backward = make_supports(masks, known, steps[::-1], lambda mask: grown(mask, regions))
    assert np.array_equal(forward["liver"], masks["liver"])
    assert np.array_equal(backward["liver"], masks["liver"] | masks["lesion"])
