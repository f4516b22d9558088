from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html import escape, unescape
from html.parser import HTMLParser
from math import nan
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_backsplit.backend import NOTICE
from napari_backsplit.backend.comparison import charts, contents, slices
from napari_backsplit.backend.comparison.compare import compare
from napari_backsplit.backend.comparison.definitions import definitions
from napari_backsplit.backend.comparison.lesion_table import LesionRow
from napari_backsplit.backend.comparison.report import ReportInfo, write_report
from napari_backsplit.backend.comparison.results import ComparisonSettings
from napari_backsplit.backend.comparison.sources import Licence, Sources
from napari_backsplit.backend.comparison.tables import read_cases, write_cases
from napari_backsplit.backend.comparison.telling import telling_cases
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
    """Every address of a page, its text, and which elements stay open."""

    def __init__(self):
        super().__init__()
        self.found, self.open, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.found += [v for k, v in attributes if k in ("src", "href", "srcset", "data", "action")]
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found += [v for k, v in attributes if k in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(html):
    parser = Addresses()
    parser.feed(html)
    return parser


@pytest.fixture(scope="module")
def page(written):
    return parse((written / "report.html").read_text())


def test_the_report_holds_all_it_needs(page, written):
    html = (written / "report.html").read_text()
    allowed = ("data:image/jpeg;base64,", "#", "cases.csv", "lesions.csv", "froc.json", "summary")
    assert any(address.startswith("data:image/jpeg") for address in page.found)
    assert all(address.startswith(allowed) for address in page.found)
    assert not re.search(r"https?:|url\((?!#)|<script src|<link|@import", html)
    assert page.open == []


def test_only_the_reports_own_script_may_run(written):
    html = (written / "report.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in unescape(policy)


def test_every_id_is_there_once_and_every_reference_has_one(written):
    html = (written / "report.html").read_text()
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(set(ids)) == len(ids)
    asked = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html)
    assert asked
    assert {one or other for one, other in asked} <= set(ids)


def test_the_report_and_tables_hold_no_path(written):
    for file in ("report.html", "summary.json", "cases.csv", "lesions.csv", "froc.json"):
        text = (written / file).read_text()
        text = re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", text)
        for part in (str(written), "X_Y", "/tmp", "/home", "/Users", ".nii"):
            assert part not in text, (file, part)


def test_the_report_says_what_it_must(page, comparison):
    text = " ".join(page.text)
    assert text.count(NOTICE) >= 3
    for words in (
        comparison.verdicts[0].sentence,
        comparison.settings.policy.text,
        comparison.settings.lesions.text,
        "Lesion cases",
        "Lesion-free cases",
        "24 cases of 24 patients counted: 16 with",
        "24 cases known to be unseen by every model",
        "tolerance",
        "Cysts <em>",
        "Largest gains",
        "Largest losses",
        "Holm",
        "cases.csv",
        *(each.text for each in definitions()),
    ):
        assert words in text, words


def test_the_verdict_comes_before_everything_else(written, comparison):
    html = (written / "report.html").read_text()
    verdict = html.index(escape(comparison.verdicts[0].sentence))
    assert html.index("<h1>") < verdict < html.index("<h2>")
    assert verdict < html.index("<table")


def test_models_versions_and_licences_are_shown(cases, comparison, tmp_path):
    sources = Sources(
        models={"backsplit": {"Supports": "kidney, liver"}},
        versions={"Prediction by backsplit": {"torch": "2.9.1"}},
        licences=(Licence("Masks of kidney (organ)", "nnInteractive v1", "CC BY-NC-SA 4.0"),),
    )
    report = write_report(comparison, tmp_path, info=ReportInfo(sources=sources))
    text = " ".join(parse(report.read_text()).text)
    for words in ("kidney, liver", "2.9.1", "Masks of kidney (organ)", "CC BY-NC-SA 4.0"):
        assert words in text


def test_what_people_name_is_text(cases, tmp_path):
    name = "<script>alert(1)</script>"
    odd = [
        replace(
            case,
            case=f"{name}{case.case}",
            predictions={"baseline": case.predictions["baseline"], name: case.reference},
        )
        for case in cases[:4]
    ]
    by_id = {case.case: case for case in odd}
    compared = compare(odd, ComparisonSettings("baseline"))
    info = ReportInfo(name, {name: name}, (name,))
    report = write_report(compared, tmp_path, by_id.__getitem__, info)
    html = report.read_text()
    assert html.count("<script>") == 1
    assert "".join(parse(html).text).count(name) > 10


def test_figures_are_kept_as_files_too(written):
    names = {path.name for path in (written / "figures").iterdir()}
    assert {"paired-1-1-dice.svg", "forest-1-1.svg", "size-1.svg", "slice-1-1-1.svg"} <= names
    for path in (written / "figures").iterdir():
        text = path.read_text()
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(--" not in text


def test_the_report_is_small(written):
    assert (written / "report.html").stat().st_size < 3e6


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


ODD = ("no image", "one lesion-free case", "long name", "nothing found", "unknown", "one case")


@pytest.mark.parametrize("kind", ODD)
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
    if kind == "unknown":
        one = replace(one, seen="unknown")
    compared = compare([one], ComparisonSettings("baseline"))
    report = write_report(compared, tmp_path / "out", lambda case: one)
    text = " ".join(parse(report.read_text()).text)
    assert NOTICE in text
    assert compared.verdicts[0].sentence in text
    assert "There is no FROC" in text or kind == "one lesion-free case"
    assert ("No verdict" in text) == (kind == "unknown")


def test_without_a_lesion_table_whole_cases_are_shown(comparison, cases, tmp_path):
    by_id = {case.case: case for case in cases}
    bare = replace(comparison, lesions=())
    report = write_report(bare, tmp_path, by_id.__getitem__)
    text = " ".join(parse(report.read_text()).text)
    assert "Every lesion" not in text
    assert "False positives" in text


def test_froc_is_drawn_where_every_arm_has_probabilities(cases, tmp_path):
    def blurred(case):
        maps = {
            arm: {"lesion": np.clip(np.asarray(masks["lesion"]) * 0.8, 0, 1)}
            for arm, masks in case.predictions.items()
        }
        return replace(case, probabilities=maps)

    compared = compare([blurred(case) for case in cases[:4]], ComparisonSettings("baseline"))
    write_report(compared, tmp_path)
    assert (tmp_path / "figures" / "froc-1.svg").exists()


# --- which cases are shown ----------------------------------------------------------------------


def telling(comparison, **options):
    return telling_cases(comparison, "lesion", "backsplit", "baseline", **options)


def test_gains_are_the_largest_first(comparison):
    gains = {
        row.case: row.measures.dice for row in comparison.select("lesion", "backsplit", "lesion")
    }
    for row in comparison.select("lesion", "baseline", "lesion"):
        gains[row.case] -= row.measures.dice
    chosen = telling(comparison)
    best = sorted((c for c in gains if gains[c] > 0), key=gains.get, reverse=True)[:3]
    worst = sorted((c for c in gains if gains[c] < 0), key=gains.get)[:3]
    assert [each.case for each in chosen if each.kind == "gain"] == best
    assert [each.case for each in chosen if each.kind == "loss"] == worst


def test_missed_lesions_and_false_positives_come_with_where_they_lie(comparison):
    rows = (
        LesionRow("case_001", "lesion", 1, "reference", 2.0, "", ("baseline",), voxel=(1, 2, 3)),
        LesionRow("case_001", "lesion", 2, "reference", 1.0, "", (), voxel=(1, 2, 4)),
        LesionRow("case_002", "lesion", 1, "reference", 9.0, "", ("backsplit",)),
        LesionRow(
            "case_003", "lesion", 1, "false positive", 0.5, "", ("backsplit",), {}, "liver", "liver"
        ),
        LesionRow("case_004", "lesion", 1, "false positive", 9.0, "", ("baseline",)),
    )
    chosen = telling(comparison, lesions=rows)
    missed = [each for each in chosen if each.kind == "missed"]
    false = [each for each in chosen if each.kind == "false positive"]
    assert [(each.case, each.voxel) for each in missed] == [("case_001", (1, 2, 3))]
    assert missed[0].why == "2.00 ml: missed by backsplit, found by baseline"
    assert [each.case for each in false] == ["case_003"]
    assert false[0].why == "0.50 ml in the liver: predicted by backsplit, not by baseline"


# --- tables -------------------------------------------------------------------------------------


def test_false_positives_by_organ_add_up():
    rows = [
        LesionRow("a", "lesion", 1, "false positive", 1.0, "", ("x", "y"), organ="liver"),
        LesionRow("b", "lesion", 1, "false positive", 2.0, "", ("x",), organ="liver"),
        LesionRow("b", "lesion", 2, "false positive", 8.0, "", ("y",)),
        LesionRow("b", "lesion", 1, "reference", 99.0, "", ("x",), organ="kidney"),
    ]
    assert charts.false_ml_by_organ(rows, "lesion", ("x", "y")) == [
        ("liver", {"x": 3.0, "y": 1.0}),
        ("elsewhere", {"x": 0.0, "y": 8.0}),
    ]


def test_lesions_found_by_size_add_up_to_all(comparison):
    for arm in comparison.arms:
        sizes = charts.found_by_size(comparison, "lesion", comparison.arms)
        summary = comparison.summary("lesion", arm, "lesion")
        assert sum(each[arm][0] for _, each in sizes) == summary.found_lesions
        assert sum(each[arm][1] for _, each in sizes) == summary.reference_lesions


@pytest.mark.parametrize(("value", "text"), [(0.0004, "< 0.001"), (0.0312, "0.031"), (nan, "–")])
def test_p_values_are_written_with_sense(value, text):
    assert contents.p_value(value).text == text


# --- slices -------------------------------------------------------------------------------------


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_a_traced_outline_holds_the_masks_area(mask):
    """The shoelace area of all loops, holes of the other sense, but for the cut corners."""
    area, corners = 0.0, 0
    for loop in slices.trace(mask).split("Z")[:-1]:
        x, y = np.array([p.split() for p in loop[1:].split("L")], float).T
        area += 0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
        corners += len(x) / 2
    assert abs(abs(area) - mask.sum()) <= corners / 128 + 0.02 * corners


def test_a_picture_shows_the_slice_of_its_voxel(cases):
    case = next(case for case in cases if case.reference["lesion"].any())
    z, y, x = (int(v) for v in np.argwhere(case.reference["lesion"])[0])
    pair = ("lesion", "backsplit", "baseline")
    picture = slices.draw_slice(case, *pair, "name", (z, y, x))
    assert picture.position == f"slice {z + 1} of {case.image.array.shape[0]}"
    assert picture.outlines.count("<path") == 3
    assert picture.parts.count("<image") == 0


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
