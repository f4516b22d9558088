"""backsplit import soft: float masks, or the mean of several raters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.geometry import Geometry
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Volume, write_volume
from napari_backsplit.cli import app

GRID = Geometry((4, 6, 8), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3).tolist())
runner = CliRunner()


def _write(path: Path, array: np.ndarray, grid: Geometry = GRID) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(array, grid), path)
    return path.parent


def _lesion(share: float) -> np.ndarray:
    array = np.zeros(GRID.shape, np.float32)
    array[1:3, 2:4, 2:6] = share
    return array


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of two cases; the second has no mask of the lesion."""
    with Project.create(tmp_path / "project", "x", ["CT"], ["lesion"]) as project:
        for name in "ab":
            seed = np.random.default_rng(ord(name))
            image = tmp_path / "images" / f"{name}.nii.gz"
            _write(image, seed.normal(size=GRID.shape).astype(np.float32))
            project.add_case({"CT": image}, name=name)
        project.set_mask("case_001", "lesion", Volume(_lesion(1) > 0, GRID), {})
    return tmp_path / "project"


def _soft(folder: Path, *arguments: str | Path) -> Result:
    return runner.invoke(app, ["import", "soft", "-p", str(folder), *map(str, arguments)])


def _shares(folder: Path, case: str) -> np.ndarray | None:
    with Project.open(folder, read_only=True) as project:
        return project.soft_mask(case, "lesion")


def test_two_raters_are_averaged(folder: Path, tmp_path: Path) -> None:
    one = _write(tmp_path / "one" / "a.nii.gz", _lesion(1))
    two = _write(tmp_path / "two" / "a.nii.gz", _lesion(0.5))
    result = _soft(folder, one, two, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["masks"] == {"case_001": ["soft lesion"]}
    np.testing.assert_array_equal(_shares(folder, "case_001"), _lesion(0.75))


def test_a_percentage_is_refused_with_value_file_and_remedy(folder: Path, tmp_path: Path) -> None:
    result = _soft(folder, _write(tmp_path / "r" / "a.nii.gz", _lesion(40)))
    assert result.exit_code == 1
    said = result.output
    assert "a.nii.gz" in said
    assert "(1, 2, 2): 40" in said
    assert "divide percentages by 100" in said
    assert _shares(folder, "case_001") is None


def test_another_grid_is_refused_until_resampling_is_asked_for(
    folder: Path, tmp_path: Path
) -> None:
    fine = Geometry((4, 12, 16), (3.0, 0.5, 0.5), (-0.25, -0.25, 0.0), GRID.direction)
    raters = _write(
        tmp_path / "r" / "a.nii.gz", _lesion(0.75).repeat(2, axis=1).repeat(2, axis=2), fine
    )
    refused = _soft(folder, raters)
    assert refused.exit_code == 1
    assert "--resample" in refused.output
    assert _soft(folder, raters, "--resample").exit_code == 0
    np.testing.assert_allclose(_shares(folder, "case_001"), _lesion(0.75), atol=1e-5)


def test_nothing_is_overwritten_without_replace(folder: Path, tmp_path: Path) -> None:
    raters = _write(tmp_path / "r" / "a.nii.gz", _lesion(0.75))
    assert _soft(folder, raters).exit_code == 0
    _write(tmp_path / "r" / "a.nii.gz", _lesion(0.625))
    refused = _soft(folder, raters)
    assert refused.exit_code == 1
    assert "--replace" in refused.output
    np.testing.assert_array_equal(_shares(folder, "case_001"), _lesion(0.75))
    assert _soft(folder, raters, "--replace").exit_code == 0
    np.testing.assert_array_equal(_shares(folder, "case_001"), _lesion(0.625))


def test_a_case_with_only_a_soft_mask_gets_its_target_when_asked(
    folder: Path, tmp_path: Path
) -> None:
    raters = _write(tmp_path / "r" / "b.nii.gz", _lesion(0.75))
    told = _soft(folder, raters)
    assert told.exit_code == 0, "a warning is no failure"
    assert "--make-target" in told.output
    assert _soft(folder, raters, "--replace", "--make-target").exit_code == 0
    with Project.open(folder, read_only=True) as project:
        np.testing.assert_array_equal(project.mask("case_002", "lesion"), _lesion(1) > 0)
        assert project.training_cases() == ("case_001", "case_002")


def test_a_rater_without_a_file_is_named(folder: Path, tmp_path: Path) -> None:
    one = _write(tmp_path / "one" / "a.nii.gz", _lesion(1))
    two = _write(tmp_path / "two" / "b.nii.gz", _lesion(1))
    result = _soft(folder, one, two)
    assert result.exit_code == 1
    assert "case_001: Rater 2 of 2 has no file" in result.output
    assert "case_002: Rater 1 of 2 has no file" in result.output
    assert _soft(folder, one, two, "--fewer-raters").exit_code == 0


def test_an_unknown_target_is_refused(folder: Path, tmp_path: Path) -> None:
    raters = _write(tmp_path / "r" / "a.nii.gz", _lesion(1))
    error = _soft(folder, raters, "--target", "kidney").exception
    assert isinstance(error, InputError)
    assert "no target 'kidney'" in error.problem
