from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from napari_backsplit.backend.comparison.compare import compare
from napari_backsplit.backend.comparison.opened import OpenedComparison, comparisons
from napari_backsplit.backend.comparison.results import ComparisonSettings
from napari_backsplit.backend.comparison.tables import read_cases, write_cases, write_tables
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import write_json

FOLDERS = {"baseline": ("jobs/0001-predict",), "backsplit": ("jobs/2", "jobs/3")}
VERSION_1 = {"iou", "assd_mm", "volume_difference_percent"}


@pytest.fixture(scope="module")
def comparison(cases):
    with_maps = [
        replace(
            case,
            probabilities={
                arm: {"lesion": masks["lesion"] * 0.8} for arm, masks in case.predictions.items()
            },
        )
        for case in cases[:9]
    ]
    done = compare(with_maps, ComparisonSettings("baseline"))
    return replace(done, title="New against old", folders=FOLDERS)


@pytest.fixture
def project(comparison, tmp_path):
    folder = tmp_path / "comparisons" / "0004-compare"
    write_tables(comparison, folder)
    (folder / "report.html").write_text("<html></html>")
    return tmp_path


def downgrade(folder):
    """Make of a comparison what version 1 wrote."""
    for name in ("lesions.csv", "froc.json"):
        (folder / name).unlink()
    lines = [line.split(",") for line in (folder / "cases.csv").read_text().splitlines()]
    kept = [k for k, name in enumerate(lines[0]) if name not in VERSION_1 and ": " not in name]
    text = "\n".join(",".join(line[k] for k in kept) for line in lines)
    (folder / "cases.csv").write_text(text + "\n")
    summary = json.loads((folder / "summary.json").read_text())
    for name in ("title", "folders", "strata", "primary_metrics"):
        del summary[name]
    for each in summary["differences"]:
        for name in ("stratum", "wilcoxon_p", "holm_p", "method", "coverage", "hedged"):
            del each[name]
    write_json(folder / "summary.json", {**summary, "format_version": 1})


def test_what_was_compared_is_read_back(project, comparison):
    opened = OpenedComparison.open(project, "0004-compare")
    assert (opened.id, opened.title) == ("0004-compare", "New against old")
    assert (opened.baseline, opened.controls) == ("baseline", ())
    assert (opened.arms, opened.targets) == (comparison.arms, comparison.targets)
    assert opened.verdicts == comparison.verdicts
    assert opened.folders == FOLDERS
    assert opened.report.exists()
    assert opened.froc == comparison.froc["lesion"]
    assert opened.froc["backsplit"][0].cases == 9
    without_maps = [replace(row, by_threshold=()) for row in comparison.rows]
    assert repr(opened.rows) == repr(tuple(without_maps))
    assert [row.voxel for row in opened.lesions] == [row.voxel for row in comparison.lesions]


def test_a_comparison_of_version_1_opens_with_less(project, comparison):
    downgrade(project / "comparisons" / "0004-compare")
    job = project / "jobs" / "0004-compare"
    params = {"arms": {"baseline": "jobs/0001-predict", "backsplit": ["jobs/2", "jobs/3"]}}
    write_json(job / "job.json", {"params": params})
    opened = OpenedComparison.open(project, "0004-compare")
    assert (opened.lesions, dict(opened.froc)) == ((), {})
    assert opened.folders == FOLDERS
    assert opened.title == "Comparison"
    assert opened.verdicts == comparison.verdicts
    assert [r.measures.dice for r in opened.rows] == pytest.approx(
        [r.measures.dice for r in comparison.rows], nan_ok=True
    )
    assert np.isnan([row.measures.iou for row in opened.rows]).all()
    assert {row.measures.by_stratum for row in opened.rows} == {()}


def test_without_a_job_its_folders_are_not_known(project):
    downgrade(project / "comparisons" / "0004-compare")
    assert OpenedComparison.open(project, "0004-compare").folders == {}


def test_the_newest_comes_first_and_unfinished_ones_do_not_come(project, comparison):
    newer, begun = (project / "comparisons" / name for name in ("0002-compare", "0005-compare"))
    write_tables(comparison, newer)
    os.utime(newer / "summary.json", (2e9, 2e9))
    begun.mkdir()
    assert comparisons(project) == ("0002-compare", "0004-compare")
    assert comparisons(project / "elsewhere") == ()


def test_one_that_is_not_there_is_refused_with_those_that_are(project):
    with pytest.raises(InputError, match=r"0009-compare[\s\S]*0004-compare"):
        OpenedComparison.open(project, "0009-compare")


def test_a_torn_table_is_refused(project):
    path = project / "comparisons" / "0004-compare" / "cases.csv"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(InputError, match=r"cases\.csv"):
        OpenedComparison.open(project, "0004-compare")


def test_sizes_make_the_round_trip(comparison, tmp_path):
    write_cases(comparison, tmp_path / "cases.csv")
    read = read_cases(tmp_path / "cases.csv")
    assert [row.measures.by_stratum for row in read] == [
        row.measures.by_stratum for row in comparison.rows
    ]
    assert any(size.reference for row in read for size in row.measures.by_stratum)


@pytest.mark.parametrize(
    ("name", "content"),
    [("summary.json", "{}"), ("summary.json", "[1]"), ("cases.csv", None), ("froc.json", "{}")],
)
def test_one_that_another_program_changed_is_refused_in_a_sentence(project, name, content):
    path = project / "comparisons" / "0004-compare" / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match="0004-compare cannot be read") as caught:
        OpenedComparison.open(project, "0004-compare")
    assert str(project) not in str(caught.value)
