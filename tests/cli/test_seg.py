from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Volume, write_volume
from napari_backsplit.cli import app, jobs
from tests.backend.prediction.dicom_series import NAME, write_series

runner = CliRunner()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A case that came as DICOM, and a job that predicted it."""
    folder = tmp_path / "project"
    with Project.create(folder, "x", ["CT"], ["lesion"]) as made:
        case = made.add_case({"CT": write_series(tmp_path / NAME)}, name=NAME).id
        grid = made.geometry(case)
    job = SimpleNamespace(folder=folder / "jobs" / "0001-predict")
    write_volume(Volume(np.ones(grid.shape, np.uint8), grid), job.folder / f"{case}.nii.gz")
    monkeypatch.setattr(jobs, "find_job", lambda project, number, task: job)
    return folder


def test_a_prediction_becomes_a_seg(project: Path, tmp_path: Path) -> None:
    seg = tmp_path / "lesion.dcm"
    command = ["export-seg", "case_001", "1", str(seg), "-p", str(project)]
    result = runner.invoke(app, command)
    assert result.exit_code == 0, result.output
    assert NAME not in result.output
    assert pydicom.dcmread(seg).Modality == "SEG"
    assert isinstance(runner.invoke(app, command).exception, InputError), "it exists"


def test_a_series_that_moved_can_be_named(project: Path, tmp_path: Path) -> None:
    moved = (tmp_path / NAME).rename(tmp_path / "moved")
    command = ["export-seg", "case_001", "1", str(tmp_path / "s.dcm"), "-p", str(project)]
    assert isinstance(runner.invoke(app, command).exception, InputError)
    assert runner.invoke(app, [*command, "--series", str(moved)]).exit_code == 0
