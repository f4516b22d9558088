"""Images that lie otherwise than the training images: left stays left."""

from __future__ import annotations

import json
import shutil
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from napari_backsplit.backend.errors import GeometryError
from napari_backsplit.backend.geometry import axis_codes
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.orientation import Turn, turn_between
from napari_backsplit.backend.prediction.tasks import predict_files
from napari_backsplit.backend.prediction.written import write_array
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.card import orientations
from napari_backsplit.backend.volume import read_geometry

ALL = [
    "".join(pair[side] for pair, side in zip(order, sides, strict=True))
    for order in permutations(["LR", "PA", "SI"])
    for sides in product((0, 1), repeat=3)
]


@pytest.mark.parametrize("own", ALL)
def test_a_turn_is_what_itk_does_and_is_undone_exactly(own: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.normal(size=(3, 4, 5)).astype(np.float32))
    image.SetSpacing((1.0, 2.0, 3.0))
    image = sitk.DICOMOrient(image, own)
    array = sitk.GetArrayFromImage(image)
    for model in ("LPS", "RAS", "PIR"):
        expected = sitk.DICOMOrient(image, model)
        turn = turn_between(own, model)
        np.testing.assert_array_equal(turn.turn(array[None])[0], sitk.GetArrayFromImage(expected))
        assert turn.spacing(image.GetSpacing()[::-1]) == list(expected.GetSpacing()[::-1])
        np.testing.assert_array_equal(turn.undo(turn.turn(array)), array)
        assert turn.is_none == (own == model)


@pytest.mark.parametrize("codes", ["LLS", "LP", "", "XYZ"])
def test_what_is_no_orientation_is_refused(codes: str) -> None:
    with pytest.raises(GeometryError, match="no orientation"):
        turn_between(codes, "LPS")
    assert Turn().is_none


@pytest.fixture(scope="module")
def image(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An oblique image without any symmetry."""
    written: Path = tiny.write_image(tmp_path_factory.mktemp("image") / "own.nii.gz", (13, 20, 18))
    return written


def _model(model: Path, folder: Path, **card: Any) -> Path:
    pytest.importorskip("torch")
    shutil.copytree(model, folder)
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["backsplit"] |= card
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


def _mask(model: Path, image: Path, out: Path) -> Any:
    from napari_backsplit.backend.prediction.predictor import Settings

    predict_files(model, [image], out, folds=[0], settings=Settings(mirroring=False))
    return sitk.ReadImage(str(out))


def test_a_turned_image_is_predicted_as_the_same_patient(
    model: Path, image: Path, tmp_path: Path
) -> None:
    own = axis_codes(read_geometry(image))
    trained = _model(model, tmp_path / "m", orientations={own: 3, "ASL": 1})
    expected = sitk.GetArrayFromImage(_mask(trained, image, tmp_path / "own.nii.gz"))
    assert 0 < (expected == 1).sum() < expected.size
    assert (expected != expected[:, :, ::-1]).any()
    for codes in ("RAS", "PIR"):
        turned = tmp_path / f"{codes}.nii.gz"
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(image)), codes), str(turned))
        mask = _mask(trained, turned, tmp_path / f"{codes}_mask.nii.gz")
        grid = read_geometry(tmp_path / f"{codes}_mask.nii.gz")
        assert read_geometry(turned).difference(grid) is None
        assert axis_codes(grid) == codes
        back = sitk.GetArrayFromImage(sitk.DICOMOrient(mask, own))
        np.testing.assert_array_equal(back, expected)


def test_what_is_done_is_said(model: Path, image: Path, tmp_path: Path) -> None:
    from napari_backsplit.backend.prediction.predictor import Predictor, Settings

    own = axis_codes(read_geometry(image))
    other = "RAS" if own != "RAS" else "LPS"
    said = {}
    for name, card in (("same", {own: 1}), ("other", {other: 9, "ASL": 2}), ("unknown", {})):
        folder = _model(model, tmp_path / name, orientations=card)
        predictor = Predictor(ModelFolder.open(folder, [0]), Settings(mirroring=False))
        said[name] = predictor.prepare([image]).notes
    assert said["same"] == ()
    assert f"axes {own}) than the training images ({other}): it was turned" in said["other"][0]
    assert "not known which way the model's training images lie" in said["unknown"][0]
    assert "Bring it to the orientation of its training images" in said["unknown"][0]


@pytest.mark.parametrize("said", [{"LLS": 3}, {"LPS": "a"}, ["LPS"], "LPS", {"": 1}])
def test_a_card_without_sense_is_no_card(
    said: Any, model: Path, image: Path, tmp_path: Path
) -> None:
    from napari_backsplit.backend.prediction.predictor import Predictor

    folder = _model(model, tmp_path / "m", orientations=said)
    notes = Predictor(ModelFolder.open(folder, [0])).prepare([image]).notes
    assert "not known which way" in notes[0]


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
@pytest.mark.parametrize("codes", ALL)
def test_what_is_written_lies_on_the_grid_of_the_file_that_was_read(
    codes: str, reader: str, image: Path, tmp_path: Path
) -> None:
    pytest.importorskip("nnunetv2")
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    own = tmp_path / "own.nii.gz"
    sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(image)), codes), str(own))
    array, grid = recursive_find_reader_writer_by_name(reader)().read_images([str(own)])
    write_array((array[0] > 0).astype(np.uint8), tmp_path / "mask.nii.gz", grid)
    read, written = nibabel.load(own), nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(written.affine, read.affine, rtol=0, atol=1e-6)  # float32's step
    np.testing.assert_array_equal(np.asarray(written.dataobj) == 1, np.asarray(read.dataobj) > 0)


def test_a_training_keeps_which_way_its_images_lie(tiny: Any, tmp_path: Path) -> None:
    with Project.create(tmp_path / "p", "p", ["MR"], ["lesion"]) as project:
        for seed, codes in enumerate(["LPS", "LPS", "RAS"]):
            path = tiny.write_image(tmp_path / f"{seed}.nii.gz", seed=seed)
            sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), codes), str(path))
            project.add_case({"MR": path})
        kept = orientations(project, list(project.schema.cases))
    assert kept == {"LPS": 2, "RAS": 1}
