from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from experiment_support import BINARY, OURS, arm, plan_of, result, summary

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.outcomes import DrawResult, Outcome
from napari_backsplit.backend.experiments.report import (
    marks,
    new_page,
    plain_results,
    report_text,
    write_page,
    write_results,
)
from napari_backsplit.backend.experiments.tables import notes, tables

PLAN = plan_of()
LESION, FREE = "Lesion cases: mean", "Lesion-free cases: mean"
DIFFERENCE, FREE_DIFFERENCE = "Lesion cases: difference", "Lesion-free cases: difference"
MATCHED, BY_DRAW = "False positives in all cases", "Dice in lesion cases by draw"


def figures(dice: float, fp: float = 1.0, free: float = 2.0, **more: Any) -> dict[str, Any]:
    own = {"dice": dice, "false_positives": fp, "free_false_positives": free}
    return {**own, "free_any_false_positive": 0.5, **more}


def draw(seed: int, binary: dict[str, Any], ours: dict[str, Any], *matched: Any) -> DrawResult:
    return result(seed, summary({"binary": binary, "ours": ours}, matched))


def rows(results: list[DrawResult], title: str) -> dict[str, dict[str, str]]:
    """Return the table of a title as row -> column -> text."""
    (table,) = [table for table in tables(PLAN, results) if table.title.startswith(title)]
    return {cells[0]: dict(zip(table.head[1:], cells[1:], strict=True)) for cells in table.rows}


def test_means_over_draws_with_a_t_interval() -> None:
    results = [draw(1, figures(0.7), figures(0.8)), draw(2, figures(0.6), figures(0.9))]
    shown = rows(results, LESION)
    half = 12.7062 * 0.0707107 / 2**0.5  # Student's t, 1 degree of freedom
    assert shown["binary"]["Dice"] == f"0.650 ± {half:.3f}"
    assert shown["binary"]["AP"] == "–"
    assert shown["ours"]["draws"] == "2"
    assert rows(results, FREE)["ours"]["FP/case"] == "2.00 ± 0.00"


def test_differences_and_strict_wins() -> None:
    results = [
        draw(1, figures(0.7, fp=2, free=1), figures(0.8, fp=1, free=1)),
        draw(2, figures(0.6, fp=2, free=1), figures(0.6, fp=1, free=3)),
    ]
    shown = rows(results, DIFFERENCE)["ours"]
    assert shown["Dice"] == "+0.050 ± 0.635 (1/2)", "an equal draw is no win"
    assert shown["FP/case"] == "−1.00 ± 0.00 (2/2)", "fewer is better"
    assert rows(results, FREE_DIFFERENCE)["ours"]["FP/case"].endswith(" (0/2)")


def test_every_control_has_its_differences() -> None:
    plan = plan_of(BINARY, OURS, arm("longer", "binary", arm="binary"), controls=["longer"])
    made = summary({name: figures(0.5) for name in ("binary", "ours", "longer")})
    one = result(1, made, longer=Outcome("done", hours=1.0))
    compared = [table for table in tables(plan, [one]) if table.title.startswith(DIFFERENCE)]
    assert [table.title.split('"')[1] for table in compared] == ["longer", "binary"]
    assert [[cells[0] for cells in t.rows] for t in compared] == [["ours"], ["ours", "longer"]]
    (dice,) = [table for table in tables(plan, [one], brief=True) if '"' in "".join(table.head)]
    assert dice.head == ("arm", 'to "longer"', 'to "binary"')
    assert dice.rows == (("ours", "0.000 (0/1)", "0.000 (0/1)"), ("longer", "", "0.000 (0/1)"))


def test_an_arm_has_its_differences_to_the_one_it_names() -> None:
    plan = plan_of(BINARY, OURS, arm("longer", "binary", arm="binary") | {"against": "ours"})
    results = [
        result(
            seed,
            summary({"binary": figures(0.5), "ours": figures(dice), "longer": figures(0.8)}),
            longer=Outcome("done", hours=1.0),
        )
        for seed, dice in ((1, 0.6), (2, 0.9))
    ]
    title = "Lesion cases: A − B, and in favour of A in how many draws"
    (pairs,) = [table for table in tables(plan, results) if table.title == title]
    assert pairs.head[:3] == ("A", "B", "Dice")
    (cells,) = pairs.rows
    assert cells[:3] == ("longer", "ours", "+0.050 ± 1.906 (1/2)")
    (brief,) = [t for t in tables(plan, results, brief=True) if "A − B" in t.title]
    assert brief.rows == (cells[:3],)


def test_one_draw_has_no_interval_and_says_so() -> None:
    one = [draw(1, figures(0.7), figures(0.8))]
    assert rows(one, "Lesion cases: one draw")["binary"]["Dice"] == "0.700"
    assert rows(one, DIFFERENCE)["ours"]["Dice"] == "+0.100 (1/1)"
    assert any("There is one draw" in note for note in notes(PLAN, one))


def test_an_arm_that_diverged_is_shown_and_the_mean_is_over_the_rest() -> None:
    lost = DrawResult(
        2,
        {"binary": Outcome("done"), "ours": Outcome("diverged", "epoch 3")},
        reason="no other arm is done",
    )
    results = [draw(1, figures(0.7), figures(0.8)), lost, draw(3, figures(0.5), figures(0.7))]
    assert rows(results, LESION)["ours"]["draws"] == "2/3"
    assert rows(results, LESION)["ours"]["Dice"].startswith("0.750 ")
    by_draw = rows(results, BY_DRAW)
    assert by_draw["ours"]["2"] == "diverged"
    assert by_draw["binary"]["2"] == "–"
    assert by_draw["ours"]["training h"] == "2.00"
    said = notes(PLAN, results)
    assert "ours, draw 2: diverged (epoch 3)." in said
    assert "Draw 2 was not compared: no other arm is done." in said


def test_a_reason_cannot_break_the_table() -> None:
    failed = result(1, None, ours=Outcome("failed", "a | b"))
    (table,) = tables(PLAN, [failed])
    assert {line.count("|") for line in table.markdown().splitlines()[2:]} == {4}
    assert "ours, draw 1: failed (a | b)." in notes(PLAN, [failed])


def test_an_arm_that_finds_nothing_gains_nothing_by_its_silence() -> None:
    results = [
        draw(1, figures(0.7, fp=2, free=3), figures(0.0, fp=0, free=0, missed=4)),
        draw(2, figures(0.7, fp=2, free=3), figures(0.8, fp=1, free=2)),
    ]
    assert rows(results, BY_DRAW)["ours"]["1"] == "0.000"
    shown = rows(results, DIFFERENCE)["ours"]
    assert shown["FP/case"] == "−1.00 (1/1)"
    assert rows(results, FREE_DIFFERENCE)["ours"]["FP/case"] == "−1.00 (1/1)"
    assert shown["Dice"].endswith(" (1/2)")
    said = "ours, draw 1: finds nothing, so its false positives are left out."
    assert said in notes(PLAN, results)


def test_a_draw_without_lesion_cases_has_no_dice_but_counts() -> None:
    nothing = summary(
        {"binary": figures(0, free=4), "ours": figures(0, free=1)}, lesion_cases=0, free_cases=6
    )
    results = [result(1, nothing), draw(2, figures(0.7, free=2), figures(0.8, free=1))]
    assert rows(results, LESION)["ours"]["draws"] == "1/2"
    assert rows(results, LESION)["ours"]["Dice"] == "0.800"
    assert rows(results, FREE)["ours"]["draws"] == "2"
    assert rows(results, FREE_DIFFERENCE)["ours"]["FP/case"].endswith(" (2/2)")
    assert rows(results, BY_DRAW)["ours"]["1"] == "–"
    assert any("Draw 1 has no lesion cases" in note for note in notes(PLAN, results))
    titles = [table.title for table in tables(PLAN, results[:1])]
    assert not any(title.startswith("Lesion cases") for title in titles)
    brief = [table.title for table in tables(PLAN, results[:1], brief=True)]
    assert brief == ["Lesion-free cases: one draw", "Dice in lesion cases by draw"]


def test_false_positives_at_matched_sensitivity() -> None:
    pair = ("ours", "binary")
    results = [
        draw(1, figures(0.7), figures(0.8), (*pair, 9, 12, 5)),
        draw(2, figures(0.7), figures(0.8), (*pair, 9, 10, 7)),
        draw(3, figures(0.7), figures(0.8), (*pair, 9, 11, None)),
        draw(4, figures(0.7), figures(0.8), (*pair, 0, 0, 0)),
        draw(5, figures(0.7), figures(0.8)),
    ]
    shown = rows(results, MATCHED)["ours"]
    assert shown["draws reached"] == "2/3", "a baseline that finds nothing is left out"
    assert shown["FP of B"].startswith("11.0 ")
    assert shown["FP of A"].startswith("6.0 ")
    assert shown["A − B"].startswith("−5.0 ")
    assert shown["A − B"].endswith(" (2/2)")
    (none,) = [draw(1, figures(0.7), figures(0.8), (*pair, 9, 11, None))]
    assert rows([none], MATCHED)["ours"]["draws reached"] == "0/1"
    assert rows([none], MATCHED)["ours"]["A − B"] == "–"


def test_plain_results_are_strict_json(tmp_path: Path) -> None:
    results = [draw(1, figures(0.7), figures(0.0, missed=4)), result(2, None)]
    plain = write_results(PLAN, results, [], tmp_path)
    text = (tmp_path / f"{PLAN.name}-results.json").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == plain
    assert plain == json.loads(json.dumps(plain_results(PLAN, results)))
    figures_of = plain["targets"]["lesion"]["figures"]
    (dice,) = [f for f in figures_of if (f["arm"], f["metric"]) == ("binary", "dice")]
    assert dice["values"] == [0.7, None]
    assert dice["over_draws"]["low"] is None
    assert plain["draws"][0]["arms"]["ours"] == {"state": "done", "reason": "", "hours": 2.0}
    assert (tmp_path / "tiny.md").read_text() == new_page(PLAN, report_text(PLAN, results, []))


def test_undefined_is_a_dash() -> None:
    text = report_text(PLAN, [draw(1, figures(0.7), figures(0.8))], [])
    assert "nan" not in text
    assert "None" not in text


def test_a_page_keeps_all_but_what_is_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write_page(page, PLAN, "one")
    assert page.read_text() == new_page(PLAN, "one")
    begin, end = marks("tiny")
    page.write_text(f"Before.\n\n{begin}\nold\n{end}\nAfter.\n")
    write_page(page, PLAN, "two\n")
    assert page.read_text() == f"Before.\n\n{begin}\n\ntwo\n\n{end}\nAfter.\n"


@pytest.mark.parametrize(
    "text", ["No marks.", "{0}", "{1}", "{1} {0}", "{0} {0} {1}", "{0} {1} {1}"]
)
def test_a_page_without_its_marks_is_refused(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text.format(*marks("tiny")))
    before = page.read_text()
    with pytest.raises(InputError, match="no place for the tables of 'tiny'"):
        write_page(page, PLAN, "new")
    assert page.read_text() == before


def test_a_page_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.md").write_bytes(b"\xff\xfe\x00")
    for page in (tmp_path, tmp_path / "image.md"):
        with pytest.raises(InputError, match="cannot be read"):
            write_page(page, PLAN, "new")
