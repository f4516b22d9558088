from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from napari_backsplit.backend import NOTICE
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion.audit import Audit, examine
from napari_backsplit.backend.fusion.findings import Finding
from napari_backsplit.backend.fusion.review_report import write_review
from tests.backend.fusion.cohort import make_cohort, put

FINDINGS = (  # the third says of another case what the first says
    Finding("case_001", "liver", "error", "grid", "The mask is <not> on the grid."),
    Finding("case_002", "liver", "warning", "volume", "Its volume is far off."),
    Finding("case_003", "liver", "error", "grid", "The mask is <not> on the grid."),
    Finding("", "", "info", "other", "Something of the project."),
)


def fill(project):
    put(project, "case_001", "lesion", (2, 2, slice(2, 4)))
    for case in project.case_ids():
        put(project, case, "liver", (slice(2, 4),) * 3)
    put(project, "case_001", "kidney", (6, 6, 6))
    project.judge("case_001", "needs_work", "liver", comment="leaks <b>left</b>", who="anna")
    project.judge("case_001", "accepted", who="bea")
    put(project, "case_001", "kidney", (6, 6, slice(5, 7)))
    project.add_recipe("merge", "organs", ["liver", "kidney"])
    project.add_recipe("grow", "organs")
    project.reserve_test(ids=["case_003"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("X_Y")
    with make_cohort(place, cases=3) as project:
        fill(project)
        path = project.image_paths("case_003")[0]
        path.unlink()
        path.write_bytes(b"nothing")
        audit = Audit(FINDINGS, examine(project).measures, examine(project).summary)
        write_review(project, audit, place / "report", created=datetime(2030, 1, 2, tzinfo=UTC))
    return place / "report"


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.addresses, self.ids, self.open, self.text = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.addresses += [v for k, v in attributes if k in ("src", "href", "srcset", "action")]
        self.ids += [v for k, v in attributes if k == "id"]
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def html(folder):
    return (folder / "review.html").read_text()


@pytest.fixture(scope="module")
def page(html):
    parser = Page()
    parser.feed(html)
    assert parser.open == []
    return parser


def test_the_page_needs_no_other_file_and_no_network(page, html):
    pictures = [address for address in page.addresses if not address.startswith("#")]
    assert pictures
    assert all(address.startswith("data:image/png;base64,") for address in pictures)
    assert not re.search(r"https?:|url\(|<script|<link|@import", html)
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)


def test_nothing_names_a_path_or_a_patient(folder):
    for file in ("review.html", "review.csv"):
        text = re.sub(r"data:image/png;base64,[\w+/=]+", "", (folder / file).read_text())
        for part in (str(folder), "X_Y", "DOE", "/tmp", "/home", ".nii"):
            assert part not in text, (file, part)


def test_the_page_says_what_it_must(page):
    assert page.words.count(NOTICE) >= 3
    for words in (
        "2030-01-02 00:00 UTC",
        "3 cases",
        "organs = liver + kidney",
        "organs grown over its lesions",
        "reserved for the test",
        "✓ accepted, edited since",
        "! needs work",
        "leaks <b>left</b>",
        "anna",
        "bea",
        "slice 3 of 8: most lesion",
        "The image cannot be read.",
        "The mask is <not> on the grid.",
        "2 errors, 1 warning",
    ):
        assert words in page.words, words


def test_findings_come_in_the_order_of_the_audit(page):
    places = [page.words.index(FINDINGS[k].message) for k in (0, 1, 3)]
    assert places == sorted(places)
    assert page.words.count(FINDINGS[0].message) == 1
    assert "✗ error case_001 , case_003 liver" in page.words


def test_every_case_has_a_place_and_every_structure_a_plot(page, html):
    assert page.ids == ["case_001", "case_002", "case_003"]
    assert html.count('<figure class="plot">') == 3
    assert html.count('<div class="picture">') == 2


def test_sheets_and_table_lie_beside_it(folder):
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["contact-sheet-01.png", "review.csv", "review.html"]
    assert "leaks <b>left</b>" in (folder / "review.csv").read_text()


def test_a_project_without_a_case_can_be_reported(tmp_path):
    with make_cohort(tmp_path, cases=0) as project:
        told = []
        report = write_review(
            project, examine(project), tmp_path / "out", progress=lambda *now: told.append(now)
        )
    assert "The project has no case." in report.read_text()
    assert told == []


def test_progress_is_told_after_each_case(tmp_path):
    with make_cohort(tmp_path, cases=2) as project:
        told = []
        write_review(
            project, examine(project), tmp_path / "out", progress=lambda *now: told.append(now)
        )
    assert told == [(1, 2), (2, 2)]


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with make_cohort(tmp_path, cases=1) as project:
        audit = Audit((), (), ())
        with pytest.raises(InputError, match="is not empty"):
            write_review(project, audit, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
