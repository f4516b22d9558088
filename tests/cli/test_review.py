"""The commands of the review as a person meets them."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import read_label_map
from napari_backsplit.cli import main
from tests.backend.fusion.cohort import make_cohort, put
from tests.cli_support import Answer, Backsplit


@pytest.fixture
def backsplit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Backsplit:
    """Run the command in this process, as its script does."""
    monkeypatch.delenv("BACKSPLIT_PROJECT", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["backsplit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Answer(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three cases with a liver; the first has a lesion and a kidney. And the present folder."""
    with make_cohort(tmp_path, cases=3) as made:
        put(made, "case_001", "lesion", (2, 2, slice(2, 4)))
        put(made, "case_001", "kidney", (6, 6, 6))
        for case in made.case_ids():
            put(made, case, "liver", (slice(2, 4),) * 3)
        put(made, "case_002", "lesion", ())
    monkeypatch.chdir(made.folder)
    return made.folder


def opened(project: Path) -> Project:
    return Project.open(project, read_only=True)


# ---------------------------------------------------------------------- review


def test_the_cohort_as_a_table(backsplit: Backsplit, project: Path) -> None:
    backsplit("verdict", "accepted", "--case", "case_001")
    backsplit("verdict", "needs_work", "--case", "case_001", "--structure", "liver")
    answer = backsplit("review")
    assert answer.code == 0
    head, first, second, *_, last = answer.out.splitlines()
    assert head.split() == ["case", "verdict", "lesion", "liver", "kidney"]
    assert first.split("  ")[0] == "case_001"
    for words in ("✓ accepted", "2 ml ✓ accepted", "8 ml ! needs work", "1 ml ✓ accepted"):
        assert words in first
    for words in ("not judged", "0 ml unreviewed", "no mask"):
        assert words in second
    assert last == "3 case(s), 1 with a verdict."


def test_only_the_cases_that_were_asked_for(backsplit: Backsplit, project: Path) -> None:
    backsplit("verdict", "needs_work", "--case", "case_002", "--structure", "liver")
    backsplit("verdict", "rejected", "--case", "case_003")
    shown = backsplit("review", "--state", "needs_work")
    assert [line[:8] for line in shown.out.splitlines()[1:-1]] == ["case_002"]
    assert shown.out.endswith("1 of 3 case(s), 0 with a verdict.\n")
    both = json.loads(
        backsplit("review", "--state", "needs_work", "--state", "rejected", "--json").out
    )
    assert {row["case"] for row in both} == {"case_002", "case_003"}
    assert backsplit("review", "--state", "accepted").out == "0 of 3 case(s), 0 with a verdict.\n"
    assert backsplit("review", "--state", "good").code == 2


def test_the_table_for_programs(backsplit: Backsplit, project: Path) -> None:
    said = ("verdict", "rejected", "--case", "case_002", "--comment", "=cmd", "--who", "anna")
    backsplit(*said)
    rows = json.loads(backsplit("review", "--json").out)
    assert len(rows) == 12
    rejected = rows[4]
    assert (rejected["case"], rejected["structure"], rejected["verdict"]) == (
        "case_002",
        "",
        "rejected",
    )
    assert (rejected["comment"], rejected["who"]) == ("=cmd", "anna")

    answer = backsplit("review", "--csv", "table.csv")
    assert (answer.code, answer.err) == (0, "Wrote 12 rows to table.csv.\n")
    with Path("table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines[4]["comment"] == "'=cmd"
    assert lines[1]["volume_ml"] == "2"
    again = backsplit("review", "--csv", "table.csv")
    assert (again.code, again.err) == (1, "Error: table.csv exists.\nChoose a new name.\n")


def test_a_report(backsplit: Backsplit, project: Path) -> None:
    answer = backsplit("review", "--report", "report")
    assert answer.code == 0
    assert answer.err == "Wrote the report report/review.html.\n"
    assert sorted(p.name for p in Path("report").iterdir()) == [
        "contact-sheet-01.png", "review.csv", "review.html",
    ]  # fmt: skip
    again = backsplit("review", "--report", "report")
    assert (again.code, again.err) == (1, "Error: report is not empty.\nChoose a new folder.\n")


# ---------------------------------------------------------------------- verdict


def test_a_verdict_on_cases(backsplit: Backsplit, project: Path) -> None:
    answer = backsplit(
        "verdict",
        "rejected",
        "--case",
        "case_001",
        "--case",
        "case_003",
        "--comment",
        "blurred",
        "--who",
        "bea",
    )
    assert (answer.code, answer.out) == (0, "rejected: case_001, case_003.\n")
    judged = opened(project).verdict("case_003")
    assert judged is not None
    assert (judged.verdict, judged.comment, judged.who) == ("rejected", "blurred", "bea")
    assert opened(project).verdict("case_002") is None


def test_a_verdict_on_masks_skips_those_that_are_not_there(
    backsplit: Backsplit, project: Path
) -> None:
    answer = backsplit(
        "verdict", "accepted", "--all", "--structure", "liver", "--structure", "kidney"
    )
    assert answer.code == 0
    assert answer.out == (
        "accepted: 4 mask(s) of liver, kidney in case_001, case_002, case_003; "
        "2 skipped, as there is no mask.\n"
    )
    reader = opened(project)
    record = reader.provenance("case_003", "liver")
    assert record is not None
    assert record.review == "accepted"
    assert reader.verdict("case_001", "kidney") is not None
    assert reader.verdict("case_001") is None


@pytest.mark.parametrize("chosen", [(), ("--all", "--case", "case_001")])
def test_cases_must_be_chosen(backsplit: Backsplit, project: Path, chosen: tuple[str, ...]) -> None:
    answer = backsplit("verdict", "accepted", *chosen)
    assert answer.code == 1
    assert answer.err.startswith("Error: Give either --case or --all.\n")


@pytest.mark.parametrize("more", [("--case", "case_009"), ("--structure", "heart")])
def test_nothing_is_judged_where_a_name_is_wrong(
    backsplit: Backsplit, project: Path, more: tuple[str, ...]
) -> None:
    answer = backsplit("verdict", "accepted", "--case", "case_001", *more)
    assert answer.code == 1
    assert more[1] in answer.err
    assert opened(project).verdicts("case_001") == ()


# ---------------------------------------------------------------------- recipe


def supports(project: Path) -> list[str]:
    return [support.name for support in opened(project).schema.fused_supports]


def test_recipes_are_made_shown_and_taken_away(backsplit: Backsplit, project: Path) -> None:
    made = backsplit("supports", "merge", "organs", "liver", "kidney")
    assert (made.code, made.out) == (0, "1. organs = liver + kidney. Priorities: organs.\n")
    assert backsplit("supports", "subtract", "organs", "lesion").out == (
        "2. organs without lesion. Priorities: organs.\n"
    )
    assert backsplit("supports", "grow", "organs").code == 0
    first, second, third, last = backsplit("supports", "list").out.splitlines()
    assert first.startswith("1. organs = liver + kidney (")
    assert second.startswith("2. organs without lesion")
    assert third.startswith("3. organs grown over its lesions")
    assert last == "Priorities: organs."

    assert backsplit("supports", "undo", "2").out == (
        "Took away 2: organs without lesion. Priorities: organs.\n"
    )
    assert backsplit("supports", "undo").out.startswith("Took away 2: organs grown")
    assert backsplit("supports", "undo").out.endswith("Priorities: liver > kidney.\n")
    assert (
        backsplit("supports", "list").out
        == "Nothing is merged, subtracted or grown.\nPriorities: liver > kidney.\n"
    )
    none = backsplit("supports", "undo")
    assert (none.code, none.err) == (
        1,
        "Error: Nothing is merged, subtracted or grown.\nThere is nothing to undo.\n",
    )


def test_recipes_for_programs(backsplit: Backsplit, project: Path) -> None:
    backsplit("supports", "merge", "organs", "liver", "kidney")
    value = json.loads(backsplit("supports", "list", "--json").out)
    assert value["supports"] == ["organs"]
    assert (value["recipes"][0]["kind"], value["recipes"][0]["sources"]) == (
        "merge",
        ["liver", "kidney"],
    )


def test_recipes_that_cannot_be(backsplit: Backsplit, project: Path) -> None:
    backsplit("supports", "merge", "organs", "liver", "kidney")
    backsplit("supports", "grow", "organs")
    for wrong in (("merge", "x", "heart"), ("grow", "liver"), ("undo", "9"), ("undo", "1")):
        answer = backsplit("supports", *wrong)
        assert (answer.code, answer.out) == (1, ""), wrong
        assert answer.err.startswith("Error: "), wrong
    assert backsplit("supports", "undo", "0").code == 2
    assert len(opened(project).schema.recipes) == 2


def test_priorities(backsplit: Backsplit, project: Path) -> None:
    answer = backsplit("supports", "order", "kidney", "liver")
    assert (answer.code, answer.out) == (0, "Priorities: kidney > liver.\n")
    assert supports(project) == ["kidney", "liver"]
    partly = backsplit("supports", "order", "kidney")
    assert partly.code == 1
    assert "Name each of kidney, liver once." in partly.err


# ---------------------------------------------------------------------- fuse


def test_masks_that_nobody_accepted_can_be_left_out(backsplit: Backsplit, project: Path) -> None:
    backsplit("verdict", "accepted", "--all", "--structure", "liver")
    assert backsplit("fuse", "all").out == "Wrote 3 label maps to all.\n"
    assert backsplit("fuse", "some", "--masks", "accepted").code == 0
    voxels = [
        np.bincount(
            read_label_map(Path(folder) / "case_001.nii.gz").array.ravel(), minlength=4
        ).tolist()
        for folder in ("all", "some")
    ]
    assert voxels == [[503, 2, 6, 1], [504, 2, 6, 0]]
    assert json.loads(Path("some/labels.json").read_text())["masks"] == "accepted"
    again = backsplit("fuse", "all")
    assert (again.code, again.err) == (1, "Error: all is not empty.\nChoose a new folder.\n")


def test_a_dataset(backsplit: Backsplit, project: Path) -> None:
    backsplit("verdict", "accepted", "--all", "--structure", "liver", "--structure", "kidney")
    answer = backsplit("fuse", "raw", "--dataset", "007_Cysts")
    assert answer.code == 0
    assert answer.out == (
        "Wrote Dataset007_Cysts: 2 training case(s), 0 test image(s) without labels, 1 case(s) "
        'left out.\n1 case(s) lack a support: their background is "ignore". README.md of the '
        "dataset says what that means.\n"
    )
    assert Path("raw/Dataset007_Cysts/labelsTr/case_001.nii.gz").exists()
    more = json.loads(backsplit("fuse", "raw", "--dataset", "008_Cysts", "--json").out)
    assert more["missing"] == {"case_002": ["kidney"]}
    assert more["masks"] == "accepted"
    taken = backsplit("fuse", "raw", "--dataset", "008_Other")
    assert taken.code == 1
    assert "number 008 already" in taken.err


def test_an_accepted_case_takes_the_masks_that_nobody_judged_with_it(
    backsplit: Backsplit, project: Path
) -> None:
    backsplit("verdict", "rejected", "--case", "case_001", "--structure", "liver")
    answer = backsplit("verdict", "accepted", "--case", "case_001")
    assert "with them 2 mask(s) that nobody had judged" in answer.out
    with Project.open(project, read_only=True) as opened:
        reviews = {
            n: opened.provenance("case_001", n).review for n in ("lesion", "liver", "kidney")
        }
    assert reviews == {"lesion": "accepted", "liver": "rejected", "kidney": "accepted"}


# ---------------------------------------------------------------------- what cannot be written


def test_what_cannot_be_written_is_one_sentence(backsplit: Backsplit, project: Path) -> None:
    file = project.parent / "file"
    file.write_text("mine")
    refused = {
        "is not empty": ("review", "--report", file),
        "The report cannot be written": ("review", "--report", file / "report"),
        "x.csv cannot be written": ("review", "--csv", file / "x.csv"),
        "maps cannot be written": ("fuse", file / "maps"),
    }
    for words, command in refused.items():
        answer = backsplit(*command)
        assert answer.code == 1
        assert words in answer.err
        assert "Traceback" not in answer.err
    assert file.read_text() == "mine"


def test_maps_are_written_to_the_present_folder(
    backsplit: Backsplit, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = project.parent / "maps"
    here.mkdir()
    monkeypatch.chdir(here)
    assert backsplit("fuse", ".", "--project", project).code == 0
    assert len(list(here.glob("case_*.nii.gz"))) == 3
