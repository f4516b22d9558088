"""Share maps and soft masks of a project, as a comparison and the overlays find them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_backsplit.backend.comparison.arms import Arm, ArmFolder
from napari_backsplit.backend.comparison.case_reader import CaseReader
from napari_backsplit.backend.comparison.compare import compare
from napari_backsplit.backend.comparison.overlays import load_probability, overlay_of
from napari_backsplit.backend.comparison.results import ComparisonSettings
from napari_backsplit.backend.files import write_json
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Volume, write_volume
from tests.backend.structures.drawing import make_project

CASE = "case_001"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A case with a soft mask; `old` wrote probabilities, `ours` shares."""
    project = make_project(tmp_path)
    shares = np.zeros(project.geometry(CASE).shape, np.float32)
    shares[1, 2, 3:5] = [1, 0.25]
    mask = Volume((shares > 0.5).astype(np.uint8), project.geometry(CASE))
    project.set_mask(CASE, "lesion", mask, {"engine": "test"})
    project.set_soft_mask(CASE, "lesion", shares, {"engine": "test"})
    for arm, end, factor in (("old", "probability", 1.0), ("ours", "share", 0.5)):
        folder = project.folder / arm / "predictions"
        write_json(folder / "predictions.json", {"cases": {CASE: {"seen": "verified"}}})
        _write(project, folder / f"{CASE}.nii.gz", (shares > 0.5).astype(np.uint8))
        _write(project, folder / f"{CASE}_{end}.nii.gz", factor * shares)
    return project


def _write(project: Project, path: Path, array: Any) -> None:
    write_volume(Volume(array, project.geometry(CASE)), path)


def _reader(project: Project) -> CaseReader:
    arms = tuple(Arm.open(name, [project.folder / name]) for name in ("old", "ours"))
    return CaseReader(project, arms)


def test_a_case_is_measured_against_its_soft_mask(project: Project) -> None:
    case = _reader(project).read(CASE)
    assert case.shares == {"ours"}
    np.testing.assert_array_equal(case.soft["lesion"], project.soft_mask(CASE, "lesion"))
    rows = {row.arm: row for row in compare([case], ComparisonSettings(baseline="old")).rows}
    assert rows["old"].soft.soft_absolute_error == 0
    assert rows["old"].soft.soft_prediction == "probability"
    assert rows["ours"].soft.soft_absolute_error == pytest.approx((0.5 + 0.125) / 2)
    assert rows["ours"].soft.soft_prediction == "share"
    assert rows["ours"].soft.soft_reference == "soft"
    assert rows["ours"].average_precision == 1, "shares make an average precision too"
    assert rows["ours"].measures.dice == 1


def test_a_picture_needs_no_shares(project: Project) -> None:
    case = _reader(project).read(CASE, for_figure=True)
    assert not case.soft
    assert not case.probabilities


def test_looking_whether_there_is_a_map_reads_none(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = _reader(project).read(CASE)

    def never(*_: Any) -> None:
        raise AssertionError("read")

    monkeypatch.setattr("napari_backsplit.backend.comparison.case_reader.read_volume", never)
    assert "lesion" in case.probabilities["ours"]
    assert "lesion" in case.soft
    assert "kidney" not in case.soft


def test_a_share_map_is_shown_as_a_probability_is(project: Project) -> None:
    folders = {"old": (Path("old"),), "ours": (Path("ours"),)}
    overlay = overlay_of(project, folders, CASE, "lesion", "old", "ours")
    assert overlay.probabilities["ours"].name == f"{CASE}_share.nii.gz"
    per_cent = load_probability(overlay, "ours")
    assert per_cent is not None
    assert sorted(np.unique(per_cent)) == [0, 12, 50]


def test_a_share_map_beside_a_mask_is_no_case_of_its_own(project: Project) -> None:
    folder = project.folder / "ours" / "predictions"
    (folder / "predictions.json").unlink()
    plain = ArmFolder.open("ours", folder)
    assert plain.cases == (CASE,)
    assert plain.has_shares(CASE, "lesion", ["lesion"])
    assert not ArmFolder.open("old", project.folder / "old").has_shares(CASE, "lesion", ["lesion"])
