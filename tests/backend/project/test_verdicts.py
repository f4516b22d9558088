"""What people say of masks and cases, and what follows from it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.backend.files import sha256
from napari_backsplit.backend.fusion.cases import admitted
from napari_backsplit.backend.fusion.review import accept_unjudged, case_state
from napari_backsplit.backend.project import Project, store
from napari_backsplit.backend.project.verdicts import (
    FILE,
    Verdict,
    append_verdict,
    last_of,
    read_verdicts,
)
from napari_backsplit.backend.volume import read_volume


@pytest.fixture
def case(project, make, labels):
    """A case with a lesion of one voxel and a liver of two."""
    case = project.add_case({"CT": make.image("a.nii.gz")}).id
    project.set_mask(case, "lesion", labels(), {})
    project.set_mask(case, "liver", labels((1, 1)), {"engine": "test"})
    return case


def copy_over(project, case, structure, other):
    """Put another structure's file in place of a mask, as a person with a file manager would."""
    path = project.mask_path(case, structure)
    path.unlink()
    shutil.copyfile(project.mask_path(case, other), path)


# ---------------------------------------------------------------- a verdict


def test_a_verdict_says_who_when_what_and_of_which_file(project, case):
    verdict = project.judge(case, "needs_work", "liver", comment="the dome is cut", who="Dr. A")
    assert verdict == project.verdict(case, "liver")
    assert (verdict.structure, verdict.verdict) == ("liver", "needs_work")
    assert (verdict.comment, verdict.who) == ("the dome is cut", "Dr. A")
    assert verdict.when.endswith("+00:00")
    assert verdict.masks == {"liver": sha256(project.mask_path(case, "liver"))}
    record = project.provenance(case, "liver")
    assert (record.review, record.reviewed_by, record.engine) == ("needs_work", "Dr. A", "test")


def test_a_verdict_on_a_case_is_on_all_its_masks(project, case):
    verdict = project.judge(case, "accepted")
    assert verdict.who  # the account's name
    files = {name: project.mask_path(case, name) for name in ("lesion", "liver")}
    assert verdict.masks == {name: sha256(path) for name, path in files.items()}
    assert project.provenance(case, "liver").review == "unreviewed"  # of the case, not of it
    assert project.verdict(case, "liver") is None


def test_the_last_verdict_counts_and_the_others_stay(project, case):
    for judgement in ("rejected", "needs_work", "accepted"):
        project.judge(case, judgement, "liver")
    project.judge(case, "rejected", "lesion")
    assert project.verdict(case, "liver").verdict == "accepted"
    assert [v.verdict for v in project.verdicts(case)] == [
        "rejected", "needs_work", "accepted", "rejected"
    ]  # fmt: skip


def test_a_name_that_looks_like_a_path_is_refused_before_anything_is_written(project, case):
    with pytest.raises(InputError, match="'/home/doe' is a path"):
        project.judge(case, "accepted", "liver", who="/home/doe")
    assert project.verdict(case, "liver") is None
    assert project.provenance(case, "liver").review == "unreviewed"


def test_a_mask_that_is_not_there_gets_no_verdict(project, case):
    with pytest.raises(ProjectError, match="no mask of spleen"):
        project.judge(case, "accepted", "spleen")
    assert project.verdicts(case) == ()
    assert project.verdict(case) is None


def test_a_reader_judges_nothing(project, case):
    with Project.open(project.folder, read_only=True) as reader, pytest.raises(ProjectError):
        reader.judge(case, "accepted", "liver")
    assert project.verdicts(case) == ()
    assert project.provenance(case, "liver").review == "unreviewed"


def test_a_listener_hears_of_a_verdict(project, case):
    heard = []
    project.changed.connect(heard.append)
    project.judge(case, "accepted", "liver")
    assert heard == [case]


# ---------------------------------------------------------------- the file


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path):
    first, second = Verdict(structure="liver", verdict="accepted"), Verdict(verdict="rejected")
    append_verdict(tmp_path, first)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"structure": "liver", "verdict": "rej')
    assert read_verdicts(tmp_path) == (first,)
    append_verdict(tmp_path, second)
    assert read_verdicts(tmp_path) == (first, second)
    assert len((tmp_path / FILE).read_text().splitlines()) == 2


def test_no_file_is_no_verdict(tmp_path):
    assert read_verdicts(tmp_path) == ()
    assert last_of((), "liver") is None


def test_a_line_that_does_not_fit_is_said_with_the_case(tmp_path):
    folder = tmp_path / "case_007"
    append_verdict(folder, Verdict(verdict="accepted"))
    line = json.loads((folder / FILE).read_text()) | {"verdict": "splendid"}
    (folder / FILE).write_text(json.dumps(line) + "\n")
    with pytest.raises(ProjectError, match=r"case_007.*splendid") as error:
        read_verdicts(folder)
    assert str(tmp_path) not in str(error.value)
    (folder / FILE).write_text("nonsense\n")
    with pytest.raises(InputError, match="Line 1"):
        read_verdicts(folder)


# ---------------------------------------------------------------- edited since


def test_a_mask_that_was_changed_is_edited_since_its_verdict(project, case, labels):
    verdict = project.judge(case, "accepted", "liver")
    whole = project.judge(case, "accepted")
    assert not project.edited_since(case, verdict)
    assert not project.edited_since(case, whole)

    project.set_mask(case, "lesion", labels((1, 1, 1)), {}, replace=True)
    assert not project.edited_since(case, verdict)
    assert project.edited_since(case, whole)

    project.set_mask(case, "liver", labels((1,)), {}, replace=True)
    assert project.edited_since(case, verdict)
    assert project.provenance(case, "liver").review == "unreviewed"


def test_a_mask_that_came_or_went_is_edited_too(project, case, labels):
    verdict = project.judge(case, "accepted")
    project.set_mask(case, "spleen", labels(), {})
    assert project.edited_since(case, verdict)
    project.remove_mask(case, "spleen")
    assert not project.edited_since(case, verdict)
    project.remove_mask(case, "liver")
    assert project.edited_since(case, verdict)


def test_the_same_mask_again_has_its_verdict_again(project, case, labels):
    verdict = project.judge(case, "accepted", "liver")
    project.set_mask(case, "liver", labels((1, 1)), {"engine": "again"}, replace=True)
    state = case_state(project, case).of("liver")
    assert (state.state, state.edited, state.verdict) == ("accepted", False, verdict)


def test_a_mask_replaced_by_hand_is_not_accepted_any_more(project, case):
    project.judge(case, "accepted", "liver")
    assert admitted(project, case, "liver", "accepted")
    copy_over(project, case, "liver", "lesion")
    assert not project.is_as_written(case, "liver")
    assert not admitted(project, case, "liver", "accepted")


def test_a_mask_replaced_by_hand_is_shown_so_and_accepted_with_its_case(project, case):
    project.judge(case, "accepted", "lesion")
    project.judge(case, "accepted", "liver")
    on_case = project.judge(case, "accepted")
    copy_over(project, case, "liver", "lesion")
    state = case_state(project, case)
    liver = state.of("liver")
    assert (liver.state, liver.edited, liver.ml) == ("unreviewed", True, None)
    assert state.edited
    assert project.edited_since(case, on_case)
    assert accept_unjudged(project, case) == ("liver",)
    assert admitted(project, case, "liver", "accepted")


def test_a_rejected_mask_replaced_by_hand_stays_rejected(project, case):
    project.judge(case, "rejected", "liver")
    copy_over(project, case, "liver", "lesion")
    assert case_state(project, case).of("liver").state == "rejected"
    assert not admitted(project, case, "liver", "unreviewed")


def test_what_a_person_put_there_by_hand_can_be_accepted(project, case):
    copy_over(project, case, "liver", "lesion")
    verdict = project.judge(case, "accepted", "liver")
    assert admitted(project, case, "liver", "accepted")
    assert verdict.masks["liver"] == sha256(project.mask_path(case, "lesion"))
    assert project.provenance(case, "liver").voxels == 1  # no longer two


def test_a_mask_without_provenance_can_be_accepted(project, case):
    path = project.folder / "cases" / case / "supports" / "spleen.nii.gz"
    shutil.copyfile(project.mask_path(case, "liver"), path)
    assert not admitted(project, case, "spleen", "accepted")
    project.judge(case, "accepted", "spleen")
    assert admitted(project, case, "spleen", "accepted")


def test_a_verdict_changes_no_voxel(project, case):
    path = project.mask_path(case, "liver")
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    project.judge(case, "rejected", "liver")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, stamp)
    assert np.count_nonzero(read_volume(path).array) == 2


# ---------------------------------------------------------------- what is trained on


def test_a_rejected_target_keeps_its_case_out(project, case):
    assert project.training_cases() == (case,)
    project.judge(case, "rejected", "lesion")
    assert project.training_cases() == ()
    assert project.problems(case) == ("has a mask of lesion that was rejected in review",)
    project.judge(case, "needs_work", "lesion")
    assert project.training_cases() == (case,)
    assert project.problems(case) == ()


def test_a_rejected_case_is_kept_out(project, case):
    project.judge(case, "rejected")
    assert project.training_cases() == ()
    assert project.problems(case) == ("was rejected in review",)
    project.judge(case, "accepted")
    assert project.training_cases() == (case,)


def test_a_rejected_support_keeps_no_case_out(project, case):
    project.judge(case, "rejected", "liver")
    assert project.training_cases() == (case,)


def test_every_reason_is_said(project, case):
    project.remove_mask(case, "lesion")
    project.judge(case, "rejected")
    assert project.problems(case) == ("has no mask of lesion", "was rejected in review")


def test_a_new_mask_in_place_of_a_rejected_one_brings_the_case_back(project, case, labels):
    project.judge(case, "rejected", "lesion")
    project.set_mask(case, "lesion", labels((1, 1)), {}, replace=True)
    assert project.training_cases() == (case,)


def test_a_mask_that_is_again_what_was_judged_has_its_verdict_back(filled, labels):
    filled.judge("case_001", "accepted", "lesion", who="Dr. A")
    judged = filled.facts("case_001", "lesion")
    filled.set_mask("case_001", "lesion", labels((0, 1)), {}, replace=True)
    assert filled.facts("case_001", "lesion").review == "unreviewed"
    filled.set_mask("case_001", "lesion", labels((1,)), {}, replace=True)
    assert filled.facts("case_001", "lesion") == judged
    assert filled.provenance("case_001", "lesion").model_dump()["reviewed_by"] == "Dr. A"


def test_a_rejected_case_and_one_with_a_rejected_reference_are_rejected(filled):
    assert not filled.rejected("case_001")
    filled.judge("case_001", "rejected", "lesion")
    assert filled.rejected("case_001")
    filled.judge("case_001", "accepted", "lesion")
    filled.judge("case_001", "rejected")
    assert filled.rejected("case_001")


@pytest.mark.parametrize("kept", ["[]", '{"review": "perhaps"}'])
def test_a_list_of_cases_survives_a_provenance_that_does_not_fit(filled, kept):
    path = filled.mask_path("case_001", "lesion")
    path.with_name("target.json").write_text(kept)
    assert filled.facts("case_001", "lesion").review == "unreviewed"
    with pytest.raises(ProjectError, match="does not fit"):
        filled.provenance("case_001", "lesion")


def test_a_verdict_that_cannot_be_kept_accepts_nothing(filled, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "append_verdict", refuse)
    with pytest.raises(ProjectError, match="No space left"):
        filled.judge("case_001", "accepted", "lesion")
    assert filled.facts("case_001", "lesion").review == "unreviewed"
