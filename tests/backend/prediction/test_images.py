"""Files that nnU-Net's readers would take for something else are refused before they see them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.prediction import images
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.trained_on import orientations_of
from napari_backsplit.backend.project import Project


def _write(path: Path, array: np.ndarray, spacing: float = 1.0) -> Path:
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(20, 21, 22)).astype(np.float32)


@pytest.fixture(scope="module")
def preparation(model: Path) -> Any:
    pytest.importorskip("torch")
    from napari_backsplit.backend.prediction.predictor import Predictor

    return Predictor(ModelFolder.open(model, [0]))._preparation


def test_a_file_cut_in_half_is_refused(preparation: Any, noise: np.ndarray, tmp_path: Path) -> None:
    from napari_backsplit.backend.prediction.wanted import Wanted

    whole = _write(tmp_path / "whole.nii.gz", noise)
    half = tmp_path / "half.nii.gz"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert images.grid_of({"CT": half}).shape == (22, 21, 20), "its header is whole"
    with pytest.raises(InputError, match=r"^half\.nii\.gz is damaged or cut short"):
        preparation.prepare([half], Wanted(("lesion",)))
    preparation.prepare([whole], Wanted(("lesion",)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["i.nii.gz", "i.nii"])
def test_a_number_that_is_none_is_refused_with_its_place(
    preparation: Any, noise: np.ndarray, tmp_path: Path, name: str, value: float
) -> None:
    from napari_backsplit.backend.prediction.wanted import Wanted

    noise[3, 4, 5] = value
    with pytest.raises(InputError, match=r"1 voxels that are NaN .* \(5, 4, 3\)"):
        preparation.prepare([_write(tmp_path / name, noise)], Wanted(("lesion",)))


@pytest.mark.parametrize("shape", [(60, 60), (20, 21, 22, 2)])
def test_what_is_not_one_volume_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    file = _write(tmp_path / "i.nii.gz", np.zeros(shape, np.float32))
    with pytest.raises(GeometryError, match="not one 3D volume"):
        images.grid_of({"CT": file})


def test_one_slice_is_predicted_and_said(
    preparation: Any, noise: np.ndarray, tmp_path: Path
) -> None:
    from napari_backsplit.backend.prediction.wanted import Wanted

    file = _write(tmp_path / "i.nii.gz", noise[:, :, :1])
    notes = preparation.prepare([file], Wanted(("lesion",))).notes
    assert "single slice" in notes[-1]
    assert not images.slice_notes((1, 20, 20), (16, 16)), "a 2D model looks at slices"


@pytest.mark.parametrize(("spacing", "word"), [(999.0, "coarser"), (0.001, "finer")])
def test_a_spacing_that_makes_absurd_work_is_refused(
    preparation: Any, noise: np.ndarray, tmp_path: Path, spacing: float, word: str
) -> None:
    from napari_backsplit.backend.prediction.wanted import Wanted

    with pytest.raises(GeometryError, match=word):
        preparation.prepare([_write(tmp_path / "i.nii.gz", noise, spacing)], Wanted(("lesion",)))


def test_a_kind_that_only_nnunet_knows_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "image.gipl").write_bytes(b"any")
    assert images.grid_of({"CT": tmp_path / "image.gipl"}) is None
    images.check_voxels([tmp_path / "image.gipl"])


def test_an_older_model_knows_by_its_project_which_way_its_images_lie(
    model: Path, noise: np.ndarray, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    with Project.create(folder, "p", ["MR"], ["lesion"]) as project:
        for number in range(2):
            project.add_case({"MR": _write(tmp_path / f"{number}.nii.gz", noise + number)})
        digest = next(iter(project.case("case_001").images.values())).sha256
    inside = folder / "jobs" / "0001-train" / "model"
    shutil.copytree(model, inside)
    dataset = json.loads((inside / "dataset.json").read_text())
    taught = {"case_001": digest, "case_002": "another image"}
    dataset["backsplit"]["data"] = {"training": taught, "validation": {}}
    (inside / "dataset.json").write_text(json.dumps(dataset))
    assert orientations_of(ModelFolder.open(inside)) == {"LPS": 1}
    outside = shutil.copytree(inside, tmp_path / "model")
    assert orientations_of(ModelFolder.open(outside)) == {}
