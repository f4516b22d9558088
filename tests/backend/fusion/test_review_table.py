from __future__ import annotations

import csv
import io
import json

import pytest

from napari_backsplit.backend.fusion.audit import Measure
from napari_backsplit.backend.fusion.components import Island
from napari_backsplit.backend.fusion.review import CaseState, MaskState, survey
from napari_backsplit.backend.fusion.review_table import (
    COLUMNS,
    case_words,
    csv_text,
    mask_words,
    plain_rows,
    review_rows,
    volume_words,
    volumes_ml,
)
from napari_backsplit.backend.project.verdicts import Verdict
from tests.backend.fusion.cohort import make_cohort, put


@pytest.fixture
def project(tmp_path):
    with make_cohort(tmp_path, cases=2) as project:
        put(project, "case_001", "lesion", (2, 2, slice(2, 4)))
        put(project, "case_001", "liver", (slice(2, 4),) * 3)
        project.judge("case_001", "accepted", "liver", comment="fine", who="anna")
        project.judge("case_001", "needs_work", comment="=1+1", who="@bob")
        project.reserve_test(ids=["case_002"])
        yield project


def rows_of(project):
    return {
        (row.case, row.structure): row for row in review_rows(project, survey(project).values())
    }


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row_for_each_case_and_each_of_its_structures(project):
    rows = rows_of(project)
    assert list(rows) == [
        (case, structure)
        for case in ("case_001", "case_002")
        for structure in ("", "lesion", "liver", "kidney")
    ]
    case, liver, kidney = (rows["case_001", name] for name in ("", "liver", "kidney"))
    assert (case.state, case.volume_ml, case.comment, case.who) == (
        "needs_work",
        None,
        "=1+1",
        "@bob",
    )
    assert (liver.state, liver.volume_ml, liver.verdict, liver.who) == (
        "accepted",
        8.0,
        "accepted",
        "anna",
    )
    assert liver.when_utc.endswith("+00:00")
    assert (kidney.state, kidney.volume_ml, kidney.verdict) == ("none", None, "")
    assert [rows[c, ""].reserved_for_test for c in ("case_001", "case_002")] == [False, True]


def test_what_was_edited_since_its_verdict_is_told(project):
    assert not rows_of(project)["case_001", ""].edited_since_verdict
    put(project, "case_001", "liver", (2, 2, 2))
    rows = rows_of(project)
    assert rows["case_001", ""].edited_since_verdict
    assert rows["case_001", "liver"].edited_since_verdict
    assert (rows["case_001", "liver"].state, rows["case_001", "liver"].verdict) == (
        "unreviewed",
        "accepted",
    )
    assert not rows["case_001", "lesion"].edited_since_verdict


def test_measured_volumes_win_over_those_that_were_kept(project):
    states = survey(project)
    measured = Measure("case_001", "liver", (Island(3, 3.0, (0, 0, 0)), Island(1, 1.0, (5, 5, 5))))
    volumes = volumes_ml(states.values(), [measured])
    assert volumes == {"lesion": {"case_001": 2.0}, "liver": {"case_001": 4.0}}
    rows = review_rows(project, states.values(), volumes)
    assert [row.volume_ml for row in rows[:4]] == [None, 2.0, 4.0, None]


def test_the_table_as_csv(project):
    lines = read(csv_text(review_rows(project, survey(project).values())))
    assert tuple(lines[0]) == COLUMNS
    assert len(lines) == 8
    assert (lines[2]["structure"], lines[2]["volume_ml"], lines[2]["comment"]) == (
        "liver",
        "8",
        "fine",
    )
    assert (lines[3]["volume_ml"], lines[3]["verdict"]) == ("", "")
    assert (lines[0]["reserved_for_test"], lines[4]["reserved_for_test"]) == ("no", "yes")


@pytest.mark.parametrize("comment", ["=SUM(A1)", "+1", "-1", "@x", "\tx", "\rx"])
def test_no_cell_is_a_formula(project, comment):
    project.judge("case_001", "rejected", comment=comment, who=comment)
    line = read(csv_text(review_rows(project, survey(project).values())))[0]
    cell = comment.replace("\r", "\n")
    assert (line["comment"], line["who"]) == (f"'{cell}", f"'{cell}")


def test_a_comment_with_commas_quotes_and_lines_stays_one_cell(project):
    comment = 'a, "b"\nc;\ré'
    project.judge("case_001", "rejected", comment=comment)
    lines = read(csv_text(review_rows(project, survey(project).values())))
    assert lines[0]["comment"] == 'a, "b"\nc;\né'
    assert len(lines) == 8


def test_the_table_as_json_keeps_a_comment_as_it_is(project):
    values = json.loads(json.dumps(plain_rows(review_rows(project, survey(project).values()))))
    assert values[0]["comment"] == "=1+1"
    assert values[2]["volume_ml"] == 8.0
    assert values[3]["volume_ml"] is None


def mask(state, edited=False):
    verdict = Verdict(structure="liver", verdict="accepted") if edited else None
    return MaskState("liver", state, 1.0, verdict, edited)


def test_a_state_is_told_in_words():
    states = ("none", "unreviewed", "accepted", "needs_work", "rejected")
    said = [mask_words(mask(state)) for state in states]
    assert said == ["no mask", "unreviewed", "✓ accepted", "! needs work", "✗ rejected"]
    assert mask_words(mask("unreviewed", edited=True)) == "unreviewed, edited since"
    assert case_words(CaseState("case_001", None, False, ())) == "not judged"
    judged = CaseState("case_001", Verdict(verdict="rejected"), True, ())
    assert case_words(judged) == "✗ rejected, edited since"


@pytest.mark.parametrize(
    ("ml", "words"),
    [
        (None, ""),
        (0.0, "0 ml"),
        (0.01234, "0.0123 ml"),
        (12.34, "12.3 ml"),
        (99.96, "100 ml"),
        (1234.5, "1234 ml"),
    ],
)
def test_volumes_are_told_with_three_digits(ml, words):
    assert volume_words(ml) == words
