"""A snapshot of a project is what the project was when it was taken."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from napari_backsplit.backend.files import remove_torn
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project import snapshot as room
from napari_backsplit.backend.project.snapshot import keep_snapshot


@pytest.fixture
def case(project, make, labels):
    case = project.add_case({"CT": make.image("a.nii.gz")}).id
    project.set_mask(case, "lesion", labels((1, 1)), {})
    project.set_mask(case, "liver", labels((1, 1, 1)), {})
    project.judge(case, "accepted", "liver")
    return case


def seen(project, case):
    """What a job reads of a project."""
    return {
        "voxels": {name: int(mask.sum()) for name, mask in project.masks(case).items()},
        "reviews": [project.provenance(case, name).review for name in project.masks(case)],
        "verdicts": project.verdicts(case),
        "contents": project.contents(case),
        "cases": project.case_ids(),
        "training": project.training_cases(),
        "recipes": project.schema.recipes,
        "supports": [support.name for support in project.schema.fused_supports],
    }


def test_it_is_what_the_project_is(project, case, tmp_path):
    shot = Project.snapshot(project.folder, tmp_path / "job" / "masks-1")
    assert seen(shot, case) == seen(project, case)
    assert shot.read_only
    assert shot.image_paths(case) == project.image_paths(case)


CHANGES = {
    "an edit": lambda p, case, labels: p.set_mask(case, "liver", labels(), {}, replace=True),
    "a new mask": lambda p, case, labels: p.set_mask(case, "spleen", labels(), {}),
    "a removal": lambda p, case, labels: p.remove_mask(case, "liver"),
    "a removed target": lambda p, case, labels: p.remove_mask(case, "lesion"),
    "a verdict": lambda p, case, labels: p.judge(case, "rejected", "liver"),
    "a verdict on the case": lambda p, case, labels: p.judge(case, "rejected"),
    "a recipe": lambda p, case, labels: p.add_recipe("merge", "organs", ["liver", "spleen"]),
    "priorities": lambda p, case, labels: p.set_priorities(["spleen", "kidney", "liver"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_comes_after_it_is_not_seen(project, case, labels, tmp_path, change):
    before = seen(project, case)
    shot = Project.snapshot(project.folder, tmp_path / "masks-1")
    CHANGES[change](project, case, labels)
    assert seen(project, case) != before
    assert seen(shot, case) == before
    again = Project.snapshot(project.folder, tmp_path / "masks-1")  # the kept one, not a new one
    assert seen(again, case) == before
    assert seen(Project.snapshot(project.folder, tmp_path / "masks-2"), case) != before


def test_a_new_case_is_not_seen(project, case, make, tmp_path):
    shot = Project.snapshot(project.folder, tmp_path / "masks-1")
    project.add_case({"CT": make.image("b.nii.gz")})
    assert shot.case_ids() == (case,)


def test_masks_of_several_targets_and_of_supports_are_kept(make, labels, tmp_path):
    with Project.create(tmp_path / "p", "p", ["CT"], ["lesion", "scar"], ["liver"]) as project:
        case = project.add_case({"CT": make.image("a.nii.gz")}).id
        for number, name in enumerate(("lesion", "scar", "liver"), start=1):
            project.set_mask(case, name, labels((1,) * number), {})
        shot = Project.snapshot(project.folder, tmp_path / "masks-1")
        for name in ("lesion", "scar", "liver"):
            project.set_mask(case, name, labels(()), {}, replace=True)
    assert {name: mask.sum() for name, mask in shot.masks(case).items()} == {
        "lesion": 1, "scar": 2, "liver": 3
    }  # fmt: skip
    assert all(shot.is_as_written(case, name) for name in shot.masks(case))


def test_masks_are_linked_and_what_grows_is_copied(project, case, tmp_path):
    Project.snapshot(project.folder, tmp_path / "masks-1")
    ours, theirs = project.folder / "cases" / case, tmp_path / "masks-1" / "cases" / case
    mask = "supports/liver.nii.gz"
    assert (ours / mask).stat().st_ino == (theirs / mask).stat().st_ino
    assert (ours / "verdicts.jsonl").stat().st_ino != (theirs / "verdicts.jsonl").stat().st_ino


def test_without_hard_links_masks_are_copied(project, case, labels, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    shot = Project.snapshot(project.folder, tmp_path / "masks-1")
    before = seen(shot, case)
    assert before == seen(project, case)
    project.set_mask(case, "liver", labels(), {}, replace=True)
    assert seen(shot, case) == before


def test_trash_journals_and_what_a_writer_has_not_finished_are_left_out(
    project, case, labels, tmp_path
):
    project.set_mask(case, "liver", labels(), {}, replace=True)
    folder = project.folder / "cases" / case
    assert (folder / "trash").exists()
    (folder / "journal.jsonl").write_text("{}\n")
    for name in (".whole-kidney.nii.gz", ".tmp-1234-kidney.nii.gz", ".tmp-1234-kidney.json"):
        (folder / "supports" / name).write_text("half")
    keep_snapshot(project.folder, tmp_path / "masks-1")
    kept = {p.relative_to(tmp_path / "masks-1").as_posix()
            for p in (tmp_path / "masks-1").rglob("*") if p.is_file()}  # fmt: skip
    inside = f"cases/{case}"
    assert kept == {
        "project.json", f"{inside}/target.nii.gz", f"{inside}/target.json",
        f"{inside}/supports/liver.nii.gz", f"{inside}/supports/liver.json",
        f"{inside}/verdicts.jsonl",
    }  # fmt: skip


def test_a_mask_that_goes_meanwhile_is_left_out(project, case, tmp_path, monkeypatch):
    link = room.link_or_copy

    def gone_first(file, place):
        if file.name == "liver.nii.gz":
            project.remove_mask(case, "liver")
        return link(file, place)

    monkeypatch.setattr(room, "link_or_copy", gone_first)
    shot = Project.snapshot(project.folder, tmp_path / "masks-1")
    assert list(shot.masks(case)) == ["lesion"]
    assert shot.provenance(case, "liver") is None


def test_a_project_without_cases_can_be_kept(project, tmp_path):
    assert Project.snapshot(project.folder, tmp_path / "masks-1").case_ids() == ()


KILLED = """
import os, signal, sys
from pathlib import Path
from napari_backsplit.backend.project import snapshot
link, left = snapshot.link_or_copy, [2]
def die_soon(file, place):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return link(file, place)
snapshot.link_or_copy = die_soon
snapshot.keep_snapshot(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_kill_in_the_middle_leaves_no_half_snapshot(project, case, labels, tmp_path):
    job, before = tmp_path / "job", seen(project, case)
    job.mkdir()
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(project.folder), str(job / "masks-1")], check=False
    )
    assert child.returncode == -signal.SIGKILL
    assert not (job / "masks-1").exists()
    left = [path for path in job.iterdir() if path.is_dir()]
    assert left, "the kill came before anything was written"

    remove_torn(job)  # as a job does that goes on after a kill
    project.set_mask(case, "kidney", labels(), {})
    shot = Project.snapshot(project.folder, job / "masks-2")
    assert seen(shot, case)["voxels"] == {**before["voxels"], "kidney": 1}
    assert [path.name for path in job.iterdir()] == ["masks-2"]


def test_a_project_that_is_moved_away_can_still_be_read(project, case, tmp_path):
    """Only the images are the project's own; masks were kept."""
    shot = Project.snapshot(project.folder, tmp_path / "masks-1")
    expected = project.mask(case, "liver")
    shutil.rmtree(project.folder / "cases")
    assert np.array_equal(shot.mask(case, "liver"), expected)
