from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.checks import Check
from napari_backsplit.backend.training.run_scheme import run_scheme
from napari_backsplit.backend.training.spec import RunSpec
from napari_backsplit.backend.training.support_checks import require_taught, support_checks
from napari_backsplit.backend.volume import Volume
from tests.backend.training.arm_support import GRID, WHOLE, make_project, row

SOFT = {"labels": "soft", "activation": "sigmoid", "loss": "adaptive-wing"}


def checks_of(
    project: Project, training: Sequence[str] | None = None, **run: Any
) -> dict[str, Check]:
    """Return what is said of a run, by name; each once."""
    cases, spec = project.case_ids(), RunSpec(**run)
    fold = (cases if training is None else training, ())
    scheme = run_scheme(project, spec, cases, fold)
    found = list(support_checks(project, spec, scheme, cases, fold[0]))
    assert len({check.name for check in found}) == len(found)
    return {check.name: check for check in found}


def test_supports_that_are_everywhere_pass(tmp_path: Path) -> None:
    with make_project(tmp_path / "p", [WHOLE] * 3) as project:
        (check,) = checks_of(project).values()
        assert (check.level, check.text) == ("passed", "Known of 3 cases: left in 3, right in 3.")
        assert checks_of(project, arm="binary") == {}
        assert checks_of(project, arm="virtual-set") == {}


def test_a_support_that_is_empty_wherever_it_is_known_is_refused(tmp_path: Path) -> None:
    empty = [(0, "right"), (1, "right"), (2, "left")]
    with make_project(tmp_path / "p", [WHOLE, WHOLE, WHOLE[:2]], empty=empty) as project:
        check = checks_of(project)["support masks"]
        assert check.level == "refused"
        assert "masks of right are empty wherever they are known (right in 2 of 3" in check.text
        assert "--supports" in check.remedy
        spec, cases = RunSpec(), project.case_ids()
        scheme = run_scheme(project, spec, cases, (cases, ()))
        with pytest.raises(InputError, match="right are empty"):
            require_taught(project, spec, scheme, cases, cases)
        assert checks_of(project, supports=["left"])["support masks"].level == "passed"


def test_a_support_that_is_empty_in_the_cases_of_a_fold_is_refused_there(tmp_path: Path) -> None:
    with make_project(tmp_path / "p", [WHOLE] * 4, empty=[(0, "left"), (1, "left")]) as project:
        cases = project.case_ids()
        assert checks_of(project, cases[:2])["support masks"].level == "refused"
        assert checks_of(project, cases[1:3])["support masks"].level == "warned"
        assert checks_of(project, cases[2:])["support masks"].level == "passed"


def test_what_recipes_make_is_present_where_what_it_is_made_of_is(tmp_path: Path) -> None:
    empty = [(0, "left"), (1, "left"), (2, "left")]
    with make_project(tmp_path / "p", [WHOLE] * 3, empty=empty) as project:
        project.add_recipe("subtract", "left", ["right"])
        assert "left are empty" in checks_of(project)["support masks"].text
        project.remove_recipe(0)
        project.add_recipe("merge", "organ", ["left", "right"])
        assert checks_of(project)["support masks"].level == "passed"


def test_a_support_in_one_case_only_is_warned_of(tmp_path: Path) -> None:
    known, empty = [WHOLE, WHOLE, WHOLE[:2]], [(0, "left"), (1, "left"), (1, "right")]
    with make_project(tmp_path / "p", known, empty=empty) as project:
        check = checks_of(project)["support masks"]
        assert check.level == "warned"
        assert "left, right: present in one case only" in check.text
        project.judge(project.case_ids()[1], "rejected", "right")
        check = checks_of(project)["support masks"]
        assert "right: known in one case only; left: present in one case only" in check.text


def test_an_empty_mask_that_was_never_counted_is_read(tmp_path: Path) -> None:
    with make_project(tmp_path / "p", [WHOLE] * 2) as project:
        for case in project.case_ids():
            nothing = project.mask_path(case, "right")
            assert nothing
            project.set_mask(case, "right", Volume(row("right") & False, GRID), {}, replace=True)
            nothing.with_name("right.json").unlink()
        check = checks_of(project, masks="unreviewed")["support masks"]
        assert "right are empty" in check.text


def test_a_support_that_no_case_of_the_share_knows_is_refused(tmp_path: Path) -> None:
    with make_project(tmp_path / "p", [WHOLE, *[WHOLE[:2]] * 5]) as project:
        assert checks_of(project)["support masks"].level == "warned"
        levels = {
            seed: checks_of(project, support_cases=0.2, seed=seed)["support masks"]
            for seed in range(6)
        }
        refused = [check for check in levels.values() if check.level == "refused"]
        assert refused
        assert (
            "No mask of right may enter in any of 6 cases, of which the supports of 1 are used"
            in (refused[0].text)
        )
        assert "--support-cases" in refused[0].remedy


def test_where_each_case_lacks_a_support_nothing_is_plain_background(tmp_path: Path) -> None:
    known = [("lesion", "left"), ("lesion", "right")] * 2
    with make_project(tmp_path / "p", known) as project:
        check = checks_of(project)["partial cases"]
        assert check.level == "warned"
        assert "Each of 4 cases lacks a support (left in 2, right in 2)" in check.text
        assert "plain background" in check.text
        assert checks_of(project)["support masks"].level == "passed"
        assert "partial cases" not in checks_of(project, missing="background")
        assert "partial cases" not in checks_of(project, supports=["left"])


def test_soft_labels_are_refused_where_a_case_lacks_a_support(tmp_path: Path) -> None:
    with make_project(tmp_path / "p", [WHOLE, WHOLE, WHOLE, WHOLE[:2]]) as project:
        training = project.case_ids()[:3]
        check = checks_of(project, training, **SOFT)["soft labels"]
        assert check.level == "refused"
        assert "of 4 cases some lack a mask that may enter: right in 1" in check.text
        assert "--missing background" in check.remedy
        for changes in ({"missing": "background"}, {"supports": ["left"]}, {"arm": "binary"}):
            check = checks_of(project, training, **SOFT, **changes)["soft labels"]
            assert check.level == "passed"
            assert "No case has a soft mask of lesion" in check.text
            assert "resampling and augmentation alone" in check.text


def test_soft_masks_are_counted(tmp_path: Path) -> None:
    with make_project(tmp_path / "p", [WHOLE] * 3) as project:
        case = project.case_ids()[1]
        shares = np.where(row("lesion"), np.float32(0.5), np.float32(0))
        project.set_soft_mask(case, "lesion", Volume(shares, GRID), {})
        check = checks_of(project, arm="binary", **SOFT)["soft labels"]
        assert check.text == "Soft masks of 3 cases: lesion in 1; the others are resampled."
