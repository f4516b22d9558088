"""Recipes as values, and in a project: what they name, what they make, what is left of them."""

from __future__ import annotations

import pytest

from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project.recipes import (
    Recipe,
    fused_supports,
    known_supports,
    owners,
    sources_of,
)
from napari_backsplit.backend.project.schema import coloured

TARGETS = ("lesion",)
SUPPORTS = coloured(["left", "right", "liver", "cyst"], ["#d55e00"])


def merge(support, *sources, colour=""):
    return Recipe(kind="merge", support=support, sources=sources, colour=colour)


def subtract(support, *sources):
    return Recipe(kind="subtract", support=support, sources=sources)


def grow(support):
    return Recipe(kind="grow", support=support)


def names(*recipes):
    return [support.name for support in fused_supports(SUPPORTS, TARGETS, recipes)]


# ---------------------------------------------------------------- one recipe


def test_a_recipe_is_said_in_words():
    assert merge("kidney", "left", "right").words == "kidney = left + right"
    assert subtract("liver", "cyst", "lesion").words == "liver without cyst + lesion"
    assert grow("liver").words == "liver grown over its lesions"


@pytest.mark.parametrize(
    ("kind", "sources", "word"),
    [
        ("merge", (), "merge with 0 sources"),
        ("subtract", (), "subtract with 0 sources"),
        ("grow", ("left",), "grow with 1 sources"),
        ("merge", ("left", "left"), "names a structure twice"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(kind, sources, word):
    with pytest.raises(ValueError, match=word):
        Recipe(kind=kind, support="kidney", sources=sources)


# ---------------------------------------------------------------- what they make


@pytest.mark.parametrize(
    ("sources", "made"),
    [
        (("left", "right"), ["kidney", "liver", "cyst"]),
        (("right", "left"), ["kidney", "liver", "cyst"]),
        (("cyst", "right"), ["left", "kidney", "liver"]),
        (("liver",), ["left", "right", "kidney", "cyst"]),
    ],
)
def test_a_merged_support_stands_where_the_first_of_its_sources_stood(sources, made):
    assert names(merge("kidney", *sources)) == made


def test_a_merged_support_may_have_the_name_of_a_source():
    assert names(merge("liver", "cyst", "liver")) == ["left", "right", "liver"]


def test_a_merged_support_has_its_first_sources_colour_unless_it_has_its_own():
    first = fused_supports(SUPPORTS, TARGETS, [merge("kidney", "right", "left")])[0]
    assert first.colour == SUPPORTS[0].colour
    own = merge("kidney", "left", "right", colour="#123456")
    assert fused_supports(SUPPORTS, TARGETS, [own])[0].colour == "#123456"


def test_a_merged_support_can_be_a_source_again():
    steps = [merge("kidney", "left", "right"), subtract("kidney", "cyst"), merge("all", "kidney")]
    assert names(*steps) == ["all", "liver", "cyst"]
    assert owners([s.name for s in SUPPORTS], steps) == {
        "left": "all", "right": "all", "liver": "liver", "cyst": "cyst"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "word"),
    [
        ([merge("kidney", "left", "spleen")], "no support spleen"),
        ([merge("kidney", "left", "lesion")], "no support lesion"),
        ([merge("liver", "left", "right")], "there is a liver already"),
        ([merge("lesion", "left", "right")], "there is a lesion already"),
        ([merge("kidney", "left"), merge("left", "right")], "there is a left already, or was"),
        ([merge("background", "left")], "there is a background already"),
        ([subtract("spleen", "left")], "no support spleen"),
        ([subtract("lesion", "left")], "no support lesion"),
        ([subtract("liver", "cyst", "spleen")], "no support spleen"),
        ([subtract("liver", "liver")], "no support liver"),
        ([grow("spleen")], "no support spleen"),
        ([grow("lesion")], "no support lesion"),
        ([merge("kidney", "left", "right"), subtract("liver", "left")], "no support left"),
        ([merge("kidney", "left", "right"), merge("both", "left", "liver")], "no support left"),
    ],
)
def test_what_is_not_there_is_named(steps, word):
    with pytest.raises(ValueError, match=word):
        names(*steps)


def test_a_target_can_be_taken_away_from_a_support():
    assert names(subtract("liver", "lesion")) == ["left", "right", "liver", "cyst"]


def test_what_a_support_depends_on():
    steps = [merge("kidney", "left", "right"), grow("kidney"), subtract("kidney", "cyst", "lesion")]
    assert sources_of("kidney", steps) == ("left", "right", "cyst", "lesion")
    assert sources_of("kidney", steps[:2]) == ("left", "right")
    assert sources_of("cyst", steps) == ("cyst",)
    assert sources_of("liver", [merge("kidney", "left"), subtract("liver", "kidney")]) == (
        "liver", "left"
    )  # fmt: skip


# ---------------------------------------------------------------- what is known


@pytest.mark.parametrize(
    ("left", "right", "kidney"),
    [
        ("whole", "whole", "whole"),
        ("whole", "none", "part"),
        ("none", "whole", "part"),
        ("none", "none", "none"),
        ("part", "part", "part"),
        ("part", "none", "part"),
    ],
)
def test_how_much_of_a_union_is_known(left, right, kidney):
    known = known_supports({"left": left, "right": right}, [merge("kidney", "left", "right")])
    assert known == {"kidney": kidney}


@pytest.mark.parametrize(
    ("liver", "cyst", "after"),
    [
        ("whole", "whole", "whole"),
        ("whole", "part", "none"),
        ("whole", "none", "none"),
        ("part", "whole", "part"),
        ("part", "none", "none"),
        ("none", "whole", "none"),
    ],
)
def test_what_an_unknown_structure_is_taken_from_is_unknown(liver, cyst, after):
    known = known_supports({"liver": liver, "cyst": cyst}, [subtract("liver", "cyst")])
    assert known == {"liver": after, "cyst": cyst}


def test_growing_changes_nothing_about_what_is_known():
    for known in ("whole", "part", "none"):
        assert known_supports({"liver": known}, [grow("liver")]) == {"liver": known}


# ---------------------------------------------------------------- in a project


def test_recipes_are_kept_with_who_and_when(project):
    project.add_recipe("merge", "organs", ["liver", "kidney"])
    project.add_recipe("grow", "organs")
    project.close()
    with Project.open(project.folder) as again:
        first, second = again.schema.recipes
    assert (first.words, second.words) == (
        "organs = liver + kidney", "organs grown over its lesions"
    )  # fmt: skip
    assert first.who
    assert first.when
    assert [s.name for s in again.schema.fused_supports] == ["organs", "spleen"]
    assert again.schema.support_names == ("liver", "kidney", "spleen")


@pytest.mark.parametrize(
    ("recipe", "word"),
    [
        (("merge", "organs", ["liver", "bowel"]), "bowel"),
        (("merge", "spleen", ["liver", "kidney"]), "there is a spleen already"),
        (("merge", "Left Kidney", ["kidney"]), "Left Kidney"),
        (("subtract", "liver", ["bowel"]), "bowel"),
        (("grow", "lesion"), "lesion"),
        (("grow", "liver", ["kidney"]), "grow with 1"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_and_not_kept(project, recipe, word):
    before = (project.folder / "project.json").read_bytes()
    with pytest.raises(InputError, match=word):
        project.add_recipe(*recipe)
    assert (project.folder / "project.json").read_bytes() == before
    assert project.schema.recipes == ()


def test_a_recipe_that_a_later_one_needs_stays(project):
    project.add_recipe("merge", "organs", ["liver", "kidney"])
    project.add_recipe("subtract", "spleen", ["organs"])
    with pytest.raises(InputError, match="spleen without organs: there is no support organs"):
        project.remove_recipe(0)
    assert len(project.schema.recipes) == 2
    project.remove_recipe(1)
    project.remove_recipe(0)
    assert project.schema.recipes == ()


@pytest.mark.parametrize("number", [-1, 0, 1])
def test_a_recipe_that_is_not_there_cannot_be_taken_away(project, number):
    if number == 1:
        project.add_recipe("grow", "liver")
    with pytest.raises(InputError, match=f"no recipe {number + 1}"):
        project.remove_recipe(number)


def test_a_reader_writes_no_recipe(project):
    with Project.open(project.folder, read_only=True) as reader, pytest.raises(ProjectError):
        reader.add_recipe("grow", "liver")


def test_a_support_that_a_recipe_needs_is_not_dropped(project):
    project.add_recipe("merge", "organs", ["liver", "kidney"])
    with pytest.raises(InputError, match="no support kidney"):
        project.set_supports(["liver", "spleen"])


def test_a_project_of_the_first_format_has_no_recipes(project):
    project.close()
    file = project.folder / "project.json"
    old = {**read_json(file), "format_version": 1}
    del old["recipes"]
    write_json(file, old)
    with Project.open(project.folder) as again:
        assert again.schema.recipes == ()
        assert again.schema.format_version == 2
    assert read_json(project.folder / "project.v1.json") == old


# ---------------------------------------------------------------- priorities


def test_priorities_are_of_the_fused_supports(project):
    project.add_recipe("merge", "organs", ["liver", "spleen"])
    assert [s.name for s in project.schema.fused_supports] == ["organs", "kidney"]
    project.set_priorities(["kidney", "organs"])
    assert [s.name for s in project.schema.fused_supports] == ["kidney", "organs"]


def test_priorities_survive_the_undoing_of_a_merge(project):
    project.add_recipe("merge", "organs", ["liver", "spleen"])
    project.set_priorities(["kidney", "organs"])
    project.remove_recipe(0)
    assert project.schema.support_names == ("kidney", "liver", "spleen")
    assert [s.name for s in project.schema.fused_supports] == ["kidney", "liver", "spleen"]


def test_priorities_of_what_is_merged_twice(project):
    project.add_recipe("merge", "organs", ["liver", "spleen"])
    project.add_recipe("merge", "rest", ["organs"])
    project.set_priorities(["kidney", "rest"])
    assert [s.name for s in project.schema.fused_supports] == ["kidney", "rest"]


@pytest.mark.parametrize(
    "wrong", [["organs"], ["organs", "liver"], ["organs", "kidney", "kidney"], []]
)
def test_priorities_name_each_fused_support_once(project, wrong):
    project.add_recipe("merge", "organs", ["liver", "spleen"])
    before = project.schema
    with pytest.raises(InputError, match="Name each of organs, kidney once"):
        project.set_priorities(wrong)
    assert project.schema == before
