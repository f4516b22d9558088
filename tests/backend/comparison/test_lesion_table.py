from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_backsplit.backend.comparison.compare import CaseInput, measure_case
from napari_backsplit.backend.comparison.lesion_table import (
    LesionRow,
    lesion_rows,
    read_lesions,
    write_lesions,
)
from napari_backsplit.backend.comparison.matching import LesionSettings
from napari_backsplit.backend.comparison.results import ComparisonSettings
from napari_backsplit.backend.errors import InputError

SETTINGS = ComparisonSettings("old")


def boxes(*intervals):
    """Boxes of 4 x 4 voxels in a row along x."""
    mask = np.zeros((6, 6, 60), np.uint8)
    for start, stop in intervals:
        mask[1:5, 1:5, start:stop] = 1
    return mask


def one_case(reference, supports=None, **arms):
    predictions = {arm: {"lesion": mask} for arm, mask in arms.items()}
    supports = {} if supports is None else supports
    return CaseInput(
        "case_001", "p", (5.0, 5.0, 2.5), {"lesion": reference}, predictions, supports=supports
    )


@pytest.fixture
def rows():
    """A lesion found by both, one by the new alone, one by none; a false positive is shared."""
    reference = boxes((0, 4), (10, 18), (24, 26))
    old = boxes((2, 6), (40, 44), (50, 52))
    new = boxes((0, 4), (12, 16), (43, 46))
    supports = {"liver": boxes((8, 20)), "bowel": boxes((36, 48)), "spleen": boxes((55, 60))}
    return lesion_rows(one_case(reference, supports, old=old, new=new), "lesion", SETTINGS)


def test_every_reference_lesion_has_a_row_the_largest_first(rows):
    lesions = [row for row in rows if row.kind == "reference"]
    assert [(row.lesion, row.ml, row.stratum) for row in lesions] == [
        (1, 8.0, "1 to 10 ml"),
        (2, 4.0, "1 to 10 ml"),
        (3, 2.0, "1 to 10 ml"),
    ]
    assert [row.found_by for row in lesions] == [("new",), ("old", "new"), ()]
    assert lesions[0].dice == {"old": 0, "new": pytest.approx(2 * 4 / (8 + 4))}
    assert lesions[1].dice == {"old": pytest.approx(0.5), "new": 1}
    assert lesions[2].dice == {"old": 0, "new": 0}


def test_false_positives_of_the_arms_that_meet_are_one(rows):
    false = [row for row in rows if row.kind == "false positive"]
    assert [(row.lesion, row.ml, row.found_by) for row in false] == [
        (1, 6.0, ("old", "new")),
        (2, 2.0, ("old",)),
    ]
    assert all(np.isnan(list(row.dice.values())).all() for row in false)


def test_a_row_says_where_the_lesion_lies(rows):
    found, old, missed, shared, far = rows
    assert (found.organ, found.nearest, found.distance_mm) == ("liver", "liver", 0)
    assert (old.organ, old.nearest, old.distance_mm) == ("", "liver", 10.0)
    assert (missed.nearest, missed.distance_mm) == ("liver", 10.0)
    assert shared.organ == "bowel"
    assert (far.nearest, far.distance_mm) == ("bowel", 5.0)
    for row, (start, stop) in zip(
        rows, [(10, 18), (0, 4), (24, 26), (40, 46), (50, 52)], strict=True
    ):
        assert all(1 <= step < 5 for step in row.voxel[:2])
        assert start <= row.voxel[2] < stop


def test_the_table_is_read_back_as_it_was_written(rows, tmp_path):
    write_lesions(rows, tmp_path / "lesions.csv")
    again = read_lesions(tmp_path / "lesions.csv")
    assert repr(again) == repr(rows)


def test_names_of_arms_and_organs_with_commas_and_semicolons(tmp_path):
    row = LesionRow(
        *("case_001", "a, b", 1, "reference", 0.125, "< 1 ml"),
        found_by=("new; better",),
        dice={"old, binary": float("nan"), "new; better": 0.5},
        organ='the "left" kidney, upper',
    )
    write_lesions([row], tmp_path / "lesions.csv")
    assert repr(read_lesions(tmp_path / "lesions.csv")) == repr([row])


def test_no_lesion_no_row(tmp_path):
    case = one_case(boxes(), {"liver": boxes((8, 20))}, old=boxes(), new=boxes())
    assert lesion_rows(case, "lesion", SETTINGS) == []
    write_lesions([], tmp_path / "lesions.csv")
    assert read_lesions(tmp_path / "lesions.csv") == []


def test_without_supports_distances_are_undefined():
    case = one_case(boxes((0, 4)), old=boxes((10, 12)), new=boxes())
    for row in lesion_rows(case, "lesion", SETTINGS):
        assert (row.organ, row.nearest) == ("", "")
        assert np.isnan(row.distance_mm)


def test_a_table_of_something_else_is_refused(tmp_path):
    (tmp_path / "lesions.csv").write_text("case,dice\ncase_001,0.5\n")
    with pytest.raises(InputError, match=r"lesions\.csv is not a table of lesions"):
        read_lesions(tmp_path / "lesions.csv")


@pytest.mark.parametrize("matching", ["any overlap", "IoU", "one-to-one"])
def test_the_table_agrees_with_the_counts(draw, matching):
    settings = replace(SETTINGS, baseline="baseline", lesions=LesionSettings(matching, 0.4))
    for number in range(1, 9):
        case = draw(number)
        rows = lesion_rows(case, "lesion", settings)
        for measured in measure_case(case, settings):
            lesions = [row for row in rows if row.kind == "reference"]
            found = [row for row in lesions if measured.arm in row.found_by]
            assert len(lesions) == measured.measures.reference_lesions
            assert len(found) == measured.measures.found_lesions
            false = [
                row for row in rows if row.kind != "reference" and measured.arm in row.found_by
            ]
            assert bool(false) == bool(measured.measures.false_positives)
