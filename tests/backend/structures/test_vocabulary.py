from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.project.schema import OKABE_ITO, Structure
from napari_backsplit.backend.structures.vocabulary import (
    ALIKE,
    Term,
    _distance,
    find,
    neutral,
    structure_named,
    vocabulary,
)


def names(text: str) -> list[str]:
    return [term.name for term in find(text)]


def test_every_term_can_be_a_structure_and_has_a_code() -> None:
    terms = vocabulary()
    assert len(terms) == 117 + 4 + 20
    assert len({term.name for term in terms}) == len(terms)
    for term in terms:
        assert Structure(name=term.name, colour=term.colour)
        assert re.fullmatch(r"[1-9][0-9]{5,}", term.code)
        assert term.meaning
        assert term.laterality in ("left", "right", "both", "")


def test_sides_agree_with_their_names() -> None:
    for term in vocabulary():
        for side in ("left", "right"):
            if f"_{side}" in term.name and "lung_middle" not in term.name:
                assert term.laterality == side or "brachiocephalic_trunk" in term.name


def test_the_facts_of_a_few_terms() -> None:
    by_name = {term.name: term for term in vocabulary()}
    assert by_name["kidney_left"] == Term("kidney_left", "64033007", "Kidney", "left", "#2e8ab8")
    assert by_name["spleen"].code == "78961009"
    assert by_name["vertebrae_l1"].meaning == "L1 vertebra"
    assert by_name["gluteus_minimus"].code == by_name["gluteus_minimus_left"].code == "75297007"


@pytest.mark.parametrize("text", ["left kidney", "Kidney LEFT", "kidney_left", " kid  left "])
def test_words_are_found_in_any_order_and_case(text: str) -> None:
    assert names(text) == ["kidney_left", "kidney_cyst_left"]


@pytest.mark.parametrize(
    ("text", "name"),
    [("kidney", "kidney"), ("Adrenal gland", "adrenal_gland"), ("lung", "lung"), ("L1", "_l1")],
)
def test_an_everyday_name_comes_first(text: str, name: str) -> None:
    assert names(text)[0].endswith(name)


def test_whole_words_come_before_parts_and_meanings_count() -> None:
    assert names("rib 1")[:2] == ["rib_left_1", "rib_right_1"]
    assert "rib_left_12" in names("rib 1")
    assert names("left psoas") == ["iliopsoas_left"]
    assert set(names("clavicle")) == {"clavicula", "clavicula_left", "clavicula_right"}


def test_no_text_finds_all_and_nonsense_nothing() -> None:
    assert find("") == find(" !") == vocabulary()
    assert find("flux capacitor") == ()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Left psoas!", "left_psoas"),
        ("  Niere (links) ", "niere_links"),
        ("Größe", "grosse"),
        ("Fémur-2", "femur-2"),
        ("kidney_left", "kidney_left"),
    ],
)
def test_free_text_becomes_a_name(text: str, name: str) -> None:
    assert neutral(text) == name


@pytest.mark.parametrize("text", ["", "!?", "肝臓", "---", "a" * 65])
def test_text_that_makes_no_name_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"no name for a structure|more than 64"):
        neutral(text)


@given(st.text(max_size=80))
def test_what_comes_out_is_a_name_and_stays_so(text: str) -> None:
    try:
        name = neutral(text)
    except InputError:
        return
    assert re.fullmatch(r"[a-z0-9_-]{1,64}", name)
    assert neutral(name) == name


def test_a_structure_has_its_own_colour_unless_one_like_it_is_taken() -> None:
    assert structure_named("spleen").colour == "#32aa3c"
    assert structure_named("spleen", ["#d55e00"]).colour == "#32aa3c"
    other = structure_named("spleen", ["#32aa3d", "#d55e00"]).colour
    assert min(_distance(other, taken) for taken in ("#32aa3d", "#d55e00")) >= ALIKE


def test_a_name_of_ones_own_gets_a_default_colour() -> None:
    assert structure_named("my_organ").colour == OKABE_ITO[0]
    assert structure_named("my_organ", [OKABE_ITO[0]]).colour == OKABE_ITO[1]


def test_many_structures_never_run_out_of_colours() -> None:
    taken: list[str] = []
    for number in range(40):
        taken.append(structure_named(f"organ{number}", taken).colour)
    assert set(taken) == set(OKABE_ITO)


def test_a_bad_name_is_refused() -> None:
    with pytest.raises(InputError, match="Left psoas"):
        structure_named("Left psoas")


@pytest.mark.parametrize(
    ("one", "other", "distance"), [("#000000", "#000000", 0), ("#000000", "#ffffff", 765)]
)
def test_the_distance_of_colours(one: str, other: str, distance: float) -> None:
    assert _distance(one, other) == pytest.approx(distance, abs=0.1)
