"""What enters, what is missing, and recipes on a project: undone exactly, no mask file changed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion.cases import (
    admitted,
    apply_recipes,
    case_masks,
    fuse_case,
    missing_supports,
    project_scheme,
)
from napari_backsplit.backend.fusion.fuse import LabelScheme, encode_partial, partial_codes
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Geometry, Volume, write_volume

SHAPE = (6, 8, 10)
EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
GEOMETRY = Geometry(SHAPE, (5.0, 4.0, 4.0), (5.0, 6.0, 7.0), EYE)
BOXES = {
    "lesion": [(2, 4), (3, 5), (2, 4)],
    "left": [(1, 5), (1, 7), (0, 5)],
    "right": [(1, 5), (1, 7), (6, 10)],
    "liver": [(0, 4), (2, 8), (4, 9)],
    "cyst": [(1, 3), (3, 6), (5, 8)],
}
SOURCES = tuple(BOXES)[1:]
SHARED = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def box(name):
    result = np.zeros(SHAPE, bool)
    result[tuple(slice(*pair) for pair in BOXES[name])] = True
    return result


@pytest.fixture
def project(tmp_path):
    """A case with masks that all overlap somebody; nobody reviewed them."""
    image = tmp_path / "scan.nii.gz"
    write_volume(Volume(np.arange(480, dtype=np.int16).reshape(SHAPE), GEOMETRY), image)
    with Project.create(tmp_path / "p", "p", ["CT"], ["lesion"], SOURCES) as project:
        case = project.add_case({"CT": image}).id
        for name in BOXES:
            project.set_mask(case, name, Volume(box(name), GEOMETRY), {"engine": "test"})
        yield project


@pytest.fixture
def case(project):
    (case,) = project.case_ids()
    return case


def masks_on_disk(project):
    files = sorted((project.folder / "cases").rglob("*.nii.gz"))
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def accept(project, case, *names):
    for name in names:
        project.judge(case, "accepted", name)


# --- what enters


@pytest.mark.parametrize(
    ("state", "accepted_only", "with_unreviewed"),
    [
        ("no mask", False, False),
        ("unreviewed", False, True),
        ("needs_work", False, True),
        ("rejected", False, False),
        ("accepted", True, True),
    ],
)
def test_which_masks_of_supports_enter(project, case, state, accepted_only, with_unreviewed):
    if state == "no mask":
        project.remove_mask(case, "liver")
    elif state != "unreviewed":
        project.judge(case, state, "liver")
    assert admitted(project, case, "liver", "accepted") is accepted_only
    assert admitted(project, case, "liver", "unreviewed") is with_unreviewed


@pytest.mark.parametrize("admit", ["accepted", "unreviewed"])
def test_a_target_enters_unless_it_was_rejected(project, case, admit):
    assert admitted(project, case, "lesion", admit)
    project.judge(case, "needs_work", "lesion")
    assert admitted(project, case, "lesion", admit)
    project.judge(case, "rejected", "lesion")
    assert not admitted(project, case, "lesion", admit)


def test_what_does_not_enter_is_missing_and_never_background(project, case):
    accept(project, case, "left", "right", "liver")
    project.judge(case, "rejected", "cyst")
    assert missing_supports(project, case, "accepted") == ("cyst",)
    assert missing_supports(project, case, "unreviewed") == ("cyst",)
    assert set(case_masks(project, case, "accepted")) == {"lesion", "left", "right", "liver"}
    fused = fuse_case(project, case, admit="accepted").fused
    assert fused.missing == ("cyst",)
    codes = partial_codes(project_scheme(project), {case: fused.missing})
    encoded = encode_partial(fused.label_map, fused.missing, codes)
    assert not (encoded == 0).any()
    assert codes.label_sets == (frozenset({0, project_scheme(project).ids["cyst"]}),)


def test_an_empty_mask_is_known_and_not_missing(project, case):
    empty = Volume(np.zeros(SHAPE, bool), GEOMETRY)
    project.set_mask(case, "cyst", empty, {}, replace=True)
    accept(project, case, *SOURCES)
    assert missing_supports(project, case, "accepted") == ()
    assert not case_masks(project, case, "accepted")["cyst"].any()


def test_a_person_sees_masks_that_nobody_reviewed(project, case):
    assert fuse_case(project, case).fused.missing == ()
    assert fuse_case(project, case, admit="accepted").fused.missing == SOURCES


def test_a_scheme_with_a_support_that_is_not_there_is_refused(project, case):
    project.add_recipe("merge", "kidney", ["left", "right"])
    with pytest.raises(InputError, match="no support left"):
        fuse_case(project, case, LabelScheme(("lesion",), ("left", "liver")))
    fused = fuse_case(project, case, LabelScheme(("lesion",), ("kidney",))).fused
    assert set(fused.voxels) == {"lesion", "kidney"}


# --- recipes and what is known in part


def test_a_union_with_an_unknown_mask_keeps_its_voxels_and_is_missing(project, case):
    accept(project, case, "left", "liver", "cyst")
    project.add_recipe("merge", "kidney", ["left", "right"])
    fused = fuse_case(project, case, admit="accepted").fused
    assert fused.missing == ("kidney",)
    kidney = project_scheme(project).ids["kidney"]
    assert np.array_equal(fused.label_map == kidney, box("left") & ~box("lesion"))


def test_what_an_unknown_mask_was_taken_from_has_no_voxel(project, case):
    accept(project, case, "left", "right", "liver")
    project.add_recipe("subtract", "liver", ["cyst"])
    fused = fuse_case(project, case, admit="accepted").fused
    assert fused.missing == ("liver", "cyst")
    assert set(fused.voxels) == {"lesion", "left", "right"}
    accept(project, case, "cyst")
    fused = fuse_case(project, case, admit="accepted").fused
    assert fused.missing == ()
    free = ~(box("lesion") | box("left") | box("right"))
    assert np.array_equal(fused.label_map == 4, box("liver") & ~box("cyst") & free)


def test_growing_takes_the_lesions_of_the_case(project, case):
    hollow = box("left") & ~box("lesion")
    project.set_mask(case, "left", Volume(hollow, GEOMETRY), {}, replace=True)
    project.add_recipe("grow", "left")
    made = case_masks(project, case, "unreviewed")
    assert np.array_equal(made["left"], box("left"))
    assert np.array_equal(made["right"], box("right"))
    assert fuse_case(project, case).fused.overlaps[("lesion", "left")] == 8


ONES = [
    ("merge", "kidney", ["left", "right"]),
    ("merge", "organ", ["liver"]),
    ("subtract", "liver", ["cyst"]),
    ("subtract", "right", ["lesion", "liver"]),
    ("subtract", "kidney", ["cyst"]),
    ("grow", "left"),
    ("grow", "kidney"),
    ("grow", "liver"),
    ("merge", "left", ["left", "cyst"]),
    ("merge", "all", ["kidney", "organ"]),
]


@SHARED
@given(st.data())
def test_only_the_masks_that_are_needed_give_the_same_supports(project, case, data):
    reset(project)
    for recipe in data.draw(st.lists(st.sampled_from(ONES), max_size=3)):
        try_to_add(project, recipe)
    for name in data.draw(st.sets(st.sampled_from(SOURCES))):
        accept(project, case, name)
    for name in data.draw(st.sets(st.sampled_from(SOURCES), max_size=2)):
        project.judge(case, "rejected", name)
    whole = case_masks(project, case, "accepted")
    for name in project_scheme(project).names:
        alone = case_masks(project, case, "accepted", [name])
        assert alone.keys() == whole.keys() & {name}
        assert all(np.array_equal(alone[n], whole[n]) for n in alone)


# --- recipes are undone exactly


def reset(project):
    while project.schema.recipes:
        project.remove_recipe(len(project.schema.recipes) - 1)
    project.set_supports(SOURCES)


def try_to_add(project, recipe):
    """Add a recipe; one that does not fit is refused by its name and changes nothing."""
    before, refusal = project.schema, ""
    try:
        project.add_recipe(*recipe)
    except InputError as error:
        refusal = str(error)
    if refusal:
        assert recipe[1] in refusal
        assert project.schema == before


def outcome(project, case):
    fused = fuse_case(project, case).fused
    return (
        project_scheme(project),
        fused.label_map.tobytes(),
        fused.label_map.dtype,
        tuple(sorted(fused.overlaps.items())),
        fused.missing,
    )


@pytest.mark.parametrize("recipe", [ONES[n] for n in (0, 1, 2, 3, 5, 7, 8)])
def test_a_recipe_that_is_taken_away_leaves_nothing_behind(project, case, recipe):
    before, files, schema = outcome(project, case), masks_on_disk(project), project.schema
    project.add_recipe(*recipe)
    during = outcome(project, case)
    project.remove_recipe(0)
    assert outcome(project, case) == before
    assert masks_on_disk(project) == files
    assert project.schema == schema
    project.add_recipe(*recipe)
    assert outcome(project, case) == during


@SHARED
@given(st.data())
def test_recipes_are_undone_in_any_order_that_is_allowed(project, case, data):
    """The same recipes always give the same fusion, whatever was done and undone before."""
    reset(project)
    first, files = outcome(project, case), masks_on_disk(project)
    found = {(): first}
    for recipe in data.draw(st.lists(st.sampled_from(ONES), min_size=1, max_size=4)):
        try_to_add(project, recipe)
        remember(found, project, case)
    while project.schema.recipes:
        number = data.draw(st.integers(0, len(project.schema.recipes) - 1))
        before = project.schema
        try:
            project.remove_recipe(number)
        except InputError:
            assert project.schema == before
            project.remove_recipe(len(before.recipes) - 1)
        remember(found, project, case)
    assert outcome(project, case) == first
    assert masks_on_disk(project) == files


def remember(found, project, case):
    words = tuple(recipe.words for recipe in project.schema.recipes)
    now = outcome(project, case)
    assert found.setdefault(words, now) == now
    lesion = np.frombuffer(now[1], now[2]).reshape(SHAPE) == 1
    assert np.array_equal(lesion, box("lesion"))  # the target survives every recipe


def test_priorities_reorder_fused_supports_and_survive_the_undoing_of_a_merge(project, case):
    project.add_recipe("merge", "kidney", ["left", "right"])
    assert project_scheme(project).supports == ("kidney", "liver", "cyst")
    project.set_priorities(["cyst", "liver", "kidney"])
    assert project_scheme(project).supports == ("cyst", "liver", "kidney")
    fused = fuse_case(project, case).fused
    assert np.array_equal(fused.label_map == 2, box("cyst") & ~box("lesion"))
    assert np.array_equal(fused.label_map == 3, box("liver") & ~box("cyst") & ~box("lesion"))
    project.remove_recipe(0)
    assert project_scheme(project).supports == ("cyst", "liver", "left", "right")
    fused = fuse_case(project, case).fused
    assert np.array_equal(fused.label_map == 2, box("cyst") & ~box("lesion"))


def test_recipes_of_masks_in_memory_are_those_of_a_project(project, case):
    project.add_recipe("merge", "kidney", ["left", "right"])
    project.add_recipe("subtract", "kidney", ["liver"])
    made = apply_recipes(project.schema, {n: box(n) for n in BOXES}, GEOMETRY.spacing_mm)
    stored = case_masks(project, case, "unreviewed")
    assert made.keys() == stored.keys()
    assert all(np.array_equal(made[name], stored[name]) for name in made)
    assert np.array_equal(made["kidney"], (box("left") | box("right")) & ~box("liver"))
