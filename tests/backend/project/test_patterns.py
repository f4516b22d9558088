from __future__ import annotations

import re

import pytest

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.project.patterns import find


def _found(folder, pattern, **known):
    matches = find(folder, pattern, known, folder / "project")
    return [dict(match.fields) for match in matches]


@pytest.fixture
def files(tmp_path):
    def touch(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return touch


def test_a_case_may_have_the_separator_in_its_name(files):
    folder = files("a_b_0000.nii.gz", "a_b_T1_post.nii.gz")
    found = _found(folder, "{case}_{channel}.nii.gz", channel=["0000", "t1_post"])
    assert found == [
        {"case": "a_b", "channel": "0000"},
        {"case": "a_b", "channel": "T1_post"},
    ]


def test_a_word_that_is_not_known_is_found_all_the_same(files):
    found = _found(files("a_PET.nii.gz"), "{case}_{channel}.nii.gz", channel=["0000"])
    assert found == [{"case": "a", "channel": "PET"}]


def test_a_place_named_twice_holds_the_same_text(files):
    folder = files("x/x_t1.nii.gz", "x/y_t1.nii.gz")
    assert _found(folder, "{case}/{case}_t1.nii.gz") == [{"case": "x"}]


def test_stars_stand_for_names_and_folders(files):
    folder = files("one/two/a-123.nii.gz", "b-4.nii.gz", "b.txt")
    assert _found(folder, "**/{case}-*.nii.gz") == [{"case": "b"}, {"case": "a"}]


def test_cases_of_different_patients_may_have_one_name(files):
    folder = files("p/baseline.nii.gz", "q/baseline.nii.gz")
    matches = find(folder, "{patient}/{case}.nii.gz", {}, folder / "project")
    assert [match.case for match in matches] == ["p/baseline", "q/baseline"]


def test_a_slash_at_the_end_finds_folders(files):
    folder = files("series1/0.dcm", "notes.txt")
    assert _found(folder, "{case}/") == [{"case": "series1"}]


def test_a_regular_expression_may_be_given(files):
    folder = files("sub-01_ses-2.nii.gz", "other.nii.gz")
    assert _found(folder, re.compile(r"sub-(?P<case>\d+)_.*")) == [{"case": "01"}]


def test_hidden_files_and_the_project_itself_are_left_out(files):
    folder = files("._a.nii.gz", ".x/b.nii.gz", "project/c.nii.gz", "d.nii.gz")
    assert _found(folder, "**/{case}.nii.gz") == [{"case": "d"}]


def test_dots_and_brackets_are_plain_letters(files):
    assert _found(files("a(1)+.nii.gz", "bniiXgz"), "{case}(1)+.nii.gz") == [{"case": "a"}]


@pytest.mark.parametrize(
    ("pattern", "said"), [("a.nii.gz", "no place for the case"), ("{cas}.nii", "{cas} is no place")]
)
def test_a_pattern_that_cannot_be_used_is_refused(tmp_path, pattern, said):
    with pytest.raises(InputError, match=re.escape(said)):
        _found(tmp_path, pattern)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        _found(tmp_path / "nowhere", "{case}")


def test_an_umlaut_is_the_same_however_the_file_system_writes_it(files):
    folder = files("gro\u0308\u00dfe ä 1.nii.gz", "b\u00f6se.nii.gz")
    assert _found(folder, "{case}.nii.gz") == [
        {"case": "b\u00f6se"},
        {"case": "gr\u00f6\u00dfe ä 1"},
    ]
    assert _found(folder, "bo\u0308{case}.nii.gz") == [{"case": "se"}]
