from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from napari_backsplit.backend import NOTICE
from napari_backsplit.backend.comparison import slices
from napari_backsplit.backend.comparison.compare import compare
from napari_backsplit.backend.comparison.report import ReportInfo, write_report
from napari_backsplit.backend.comparison.results import ComparisonSettings
from napari_backsplit.backend.comparison.tables import read_cases, write_cases
from napari_backsplit.backend.comparison.verdicts import signed
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.geometry import Geometry
from napari_backsplit.backend.volume import Volume


@pytest.fixture(scope="module")
def comparison(cases):
    return compare(cases, ComparisonSettings("baseline"))


@pytest.fixture(scope="module")
def written(comparison, cases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("X_Y") / "comparisons" / "0001"
    by_id = {case.case: case for case in cases}
    write_report(comparison, folder, by_id.__getitem__, ReportInfo("Cysts <em>"))
    return folder


class Addresses(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.open, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.found += [v for k, v in attributes if k in ("src", "href", "srcset", "data", "action")]
        if tag not in ("meta", "img", "source", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def page(written):
    parser = Addresses()
    parser.feed((written / "report.html").read_text())
    return parser


def test_the_report_holds_all_it_needs(page, written):
    html = (written / "report.html").read_text()
    assert page.found
    assert all(address.startswith("data:image/png;base64,") for address in page.found)
    assert not re.search(r"https?:|url\(|<script|<link|@import", html)
    assert page.open == []


def test_the_report_and_tables_hold_no_path(written):
    for file in ("report.html", "summary.json", "cases.csv"):
        text = (written / file).read_text()
        text = re.sub(r"data:image/png;base64,[\w+/=]+", "", text)
        for part in (str(written), "X_Y", "/tmp", "/home", "/Users", ".nii"):
            assert part not in text, (file, part)


def test_the_report_says_what_it_must(page, comparison):
    text = " ".join(page.text)
    assert text.count(NOTICE) >= 3
    for words in (
        comparison.verdicts[0].sentence,
        comparison.settings.policy.text,
        "Lesion cases",
        "Lesion-free cases",
        "24 verified",
        "26-connected",
        "tolerance of 2 mm",
        "Cysts <em>",
    ):
        assert words in text, words


def test_figures_are_kept_as_files_too(written):
    names = {path.name for path in (written / "figures").iterdir()}
    assert {"paired-1-1.png", "forest-1-1.png", "distribution-1.png", "slice-1-1-1.png"} <= names


def test_cases_make_the_round_trip(comparison, tmp_path):
    write_cases(comparison, tmp_path / "cases.csv")
    assert repr(read_cases(tmp_path / "cases.csv")) == repr(list(comparison.rows))


def test_a_torn_table_is_refused(tmp_path):
    (tmp_path / "cases.csv").write_text("case,patient\ncase_001,patient_001\n")
    with pytest.raises(InputError, match=r"cases\.csv"):
        read_cases(tmp_path / "cases.csv")


def test_the_summary_is_strict_json(written, comparison):
    def refuse(constant):
        raise AssertionError(constant)

    text = (written / "summary.json").read_text()
    summary = json.loads(text, parse_constant=refuse)
    assert summary["notice"] == NOTICE
    assert summary["verdicts"][0]["sentence"] == comparison.verdicts[0].sentence
    assert summary["cases"]["case_001"] == "verified"
    assert {d["group"] for d in summary["differences"]} == {"lesion", "lesion-free"}
    assert {d["arm"] for d in summary["differences"]} <= set(summary["arms"])


@pytest.mark.parametrize("kind", ["no image", "one lesion-free case", "long name", "nothing found"])
def test_odd_comparisons_can_be_reported(kind, draw, tmp_path):
    name = "an arm with a name of about sixty characters, as people have"
    one = draw(1, free=kind == "one lesion-free case")
    if kind == "long name":
        one = replace(
            one, predictions={"baseline": one.predictions["baseline"], name: one.reference}
        )
    if kind == "no image":
        one = replace(one, image=None)
    if kind == "nothing found":
        empty = {"lesion": np.zeros_like(one.reference["lesion"])}
        one = replace(one, predictions={"baseline": empty, "backsplit": empty})
    report = write_report(
        compare([one], ComparisonSettings("baseline")), tmp_path / "out", lambda case: one
    )
    assert NOTICE in report.read_text()


def test_telling_cases_are_gain_loss_and_false_positives(comparison):
    chosen = slices.telling_cases(comparison, "lesion", "backsplit", "baseline")
    assert [case.why.split(":")[0] for case in chosen] == [
        "Largest gain",
        "Largest loss",
        "Lesion-free, most false positives",
    ]
    gains = {
        row.case: row.measures.dice for row in comparison.select("lesion", "backsplit", "lesion")
    }
    for row in comparison.select("lesion", "baseline", "lesion"):
        gains[row.case] -= row.measures.dice
    assert chosen[0].case == max(gains, key=gains.get)


def test_the_crop_is_square_in_mm_and_stays_inside():
    mask = np.zeros((100, 200), bool)
    mask[2:6, 195:199] = True
    y, x = slices.crop_box(mask, (2.0, 1.0))
    assert (y, x) == (slice(0, 45), slice(110, 200))


def test_slices_show_the_patients_right_on_the_left():
    """The array runs to the right and anterior (RAS): its canonical view is turned about."""
    geometry = Geometry(
        (2, 4, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ((-1, 0, 0), (0, -1, 0), (0, 0, 1))
    )
    mask = np.zeros((2, 4, 6), bool)
    mask[1, 3, 5] = True  # the most right, the most anterior voxel
    volume = Volume(mask.astype(np.float32), geometry)
    turned = slices._canonical_masks(volume, {"reference": mask})["reference"]
    assert np.argwhere(turned).tolist() == [[1, 0, 0]]


def test_numbers_are_signed():
    assert [signed(v, 2) for v in (0.154, -0.154, 0.001, -0.001)] == [
        "+0.15",
        "−0.15",
        "0.00",
        "0.00",
    ]
