from __future__ import annotations

import pytest

from napari_backsplit.backend.fusion.review import case_state, survey
from napari_backsplit.backend.volume import Volume, write_volume
from tests.backend.fusion.cohort import GRID, make_cohort, put


@pytest.fixture
def project(tmp_path):
    with make_cohort(tmp_path, cases=2) as project:
        put(project, "case_001", "lesion", ())
        put(project, "case_001", "liver", (slice(2, 4),) * 3)
        yield project


def states_of(project):
    return {mask.structure: mask.state for mask in case_state(project, "case_001").masks}


def test_nothing_is_judged_at_first(project):
    state = case_state(project, "case_001")
    assert (state.state, state.verdict, state.edited) == ("none", None, False)
    assert states_of(project) == {"lesion": "unreviewed", "liver": "unreviewed", "kidney": "none"}
    assert [mask.ml for mask in state.masks] == [0.0, 8.0, None]
    assert not any(mask.edited for mask in state.masks)


@pytest.mark.parametrize("judgement", ["accepted", "needs_work", "rejected"])
def test_the_last_verdict_counts(project, judgement):
    project.judge("case_001", "accepted", "liver")
    project.judge("case_001", judgement, "liver")
    project.judge("case_001", judgement)
    assert states_of(project)["liver"] == judgement
    assert case_state(project, "case_001").state == judgement


def test_a_mask_that_was_edited_is_unreviewed_and_keeps_its_last_verdict(project):
    project.judge("case_001", "accepted", "liver")
    project.judge("case_001", "accepted")
    put(project, "case_001", "liver", (2, 2, 2))
    state = case_state(project, "case_001")
    liver = state.of("liver")
    assert (liver.state, liver.edited, liver.ml) == ("unreviewed", True, 1.0)
    assert liver.verdict.verdict == "accepted"
    assert (state.state, state.edited) == ("accepted", True)


def test_a_mask_that_is_new_or_gone_changes_its_case(project):
    project.judge("case_001", "accepted")
    put(project, "case_001", "kidney", ())
    assert case_state(project, "case_001").edited
    project.remove_mask("case_001", "kidney")
    assert not case_state(project, "case_001").edited
    project.judge("case_001", "accepted", "liver")
    project.remove_mask("case_001", "liver")
    liver = case_state(project, "case_001").of("liver")
    assert (liver.state, liver.edited, liver.ml) == ("none", True, None)


def test_a_verdict_on_one_mask_says_nothing_of_the_case(project):
    project.judge("case_001", "rejected", "liver")
    state = case_state(project, "case_001")
    assert (state.state, state.edited) == ("none", False)
    assert states_of(project)["lesion"] == "unreviewed"


def test_a_mask_that_was_put_there_by_hand_has_no_kept_volume(project):
    path = project.cases_folder / "case_001" / "supports" / "kidney.nii.gz"
    write_volume(Volume(project.mask("case_001", "liver"), GRID), path)
    kidney = case_state(project, "case_001").of("kidney")
    assert (kidney.state, kidney.ml) == ("unreviewed", None)


def test_a_survey_holds_every_case_in_order(project):
    assert list(survey(project)) == ["case_001", "case_002"]
    assert survey(project)["case_001"] == case_state(project, "case_001")
