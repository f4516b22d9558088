from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from napari_backsplit.backend.errors import InputError, JobError
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.tasks import predict_files
from napari_backsplit.backend.prediction.wanted import Wanted
from napari_backsplit.backend.prediction.written import write_array

torch = pytest.importorskip("torch")

from napari_backsplit.backend.prediction import predictor as room  # noqa: E402
from napari_backsplit.backend.prediction.predictor import Predictor, Settings  # noqa: E402


@pytest.fixture(scope="module")
def image(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    written: Path = tiny.write_image(tmp_path_factory.mktemp("image") / "case_001_0000.nii.gz")
    return written


def _stock(
    folder: Path, images: list[Path], *, mirroring: bool = True, folds: Any = None, **more: Any
) -> Any:
    """nnU-Net's own predictor, in this process, loading as it always does."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    stock = nnUNetPredictor(
        use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False, **more
    )
    stock.initialize_from_trained_model_folder(str(folder), folds)
    return stock.predict_from_files_sequential([[str(image) for image in images]], None)[0]


def _labels(predictor: Predictor, images: list[Path]) -> Any:
    """All classes, with nnU-Net's values."""
    wanted = Wanted(predictor.model.targets, labels=True)
    return predictor.predict(images, wanted).exported.labels


def _read(path: Path) -> Any:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def _same_grid(one: Path, other: Path) -> bool:
    a, b = sitk.ReadImage(str(one)), sitk.ReadImage(str(other))
    return all(
        getattr(a, get)() == getattr(b, get)()
        for get in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection")
    )


@pytest.mark.parametrize("mirroring", [None, False])
def test_where_stock_says_target_so_do_we(
    model: Path, image: Path, tmp_path: Path, mirroring: bool | None
) -> None:
    expected = _stock(model, [image], mirroring=mirroring is not False)
    written = predict_files(
        model,
        [image],
        tmp_path / "out.nii.gz",
        settings=Settings(mirroring=mirroring),
        full_label_map=True,
    )
    assert 0.001 < (expected == 1).mean() < 0.999
    assert len(np.unique(expected)) == 4
    np.testing.assert_array_equal(_read(written["labels"]), expected)
    np.testing.assert_array_equal(_read(written["mask"]), (expected == 1).astype(np.uint8))
    assert _same_grid(written["mask"], image)


def test_step_size_and_folds_as_stock(model: Path, image: Path) -> None:
    ours = Predictor(ModelFolder.open(model), Settings(step_size=0.9, mirroring=False))
    expected = _stock(model, [image], mirroring=False, tile_step_size=0.9)
    np.testing.assert_array_equal(_labels(ours, [image]), expected)
    one_fold = Predictor(ModelFolder.open(model, [0]), Settings(step_size=0.9, mirroring=False))
    assert (_labels(one_fold, [image]) != expected).any()


def test_probabilities_are_the_softmax_of_the_target(model: Path, image: Path) -> None:
    predictor = Predictor(ModelFolder.open(model), Settings(mirroring=False))
    names = ("background", "lesion", "liver", "spleen")
    exported = predictor.predict([image], Wanted(names, probabilities=True, labels=True)).exported
    maps = np.stack(exported.probabilities)
    np.testing.assert_allclose(maps.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(maps.argmax(0), exported.labels)
    assert maps.dtype == np.float32


def test_a_probability_file_is_on_the_images_grid(model: Path, image: Path, tmp_path: Path) -> None:
    written = predict_files(
        model,
        [image],
        tmp_path / "out.nii.gz",
        probabilities=True,
        settings=Settings(mirroring=False),
    )
    path = tmp_path / "out_probability.nii.gz"
    assert written["probability of lesion"] == path
    assert _same_grid(path, image)
    assert (_read(path)[_read(written["mask"]) == 1] >= 0.25).all()


def test_a_binary_model(tiny: Any, image: Path, tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "m", mirroring=None)
    predictor = Predictor(ModelFolder.open(folder), Settings(mirroring=True))
    exported = predictor.predict([image], Wanted(("lesion",), probabilities=True)).exported
    np.testing.assert_array_equal(exported.mask, _stock(folder, [image]))
    np.testing.assert_array_equal(exported.probabilities[0] > 0.5, exported.mask == 1)
    assert predictor.notes == ["The model was trained without mirroring, so none is used."]


def test_a_region_model(tiny: Any, image: Path, tmp_path: Path) -> None:
    labels = {"whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    folder = tiny.write_model(tmp_path / "m", labels, regions_class_order=[1, 2, 3])
    opened = ModelFolder.open(folder)
    wanted = Wanted(("core",), probabilities=True, labels=True)
    exported = Predictor(opened).predict([image], wanted).exported
    expected = _stock(folder, [image])
    np.testing.assert_array_equal(exported.labels, expected)
    assert exported.probabilities[0].shape == expected.shape
    written = predict_files(folder, [image], tmp_path / "core.nii.gz", targets=["core"])
    np.testing.assert_array_equal(_read(written["mask"]), 2 * np.isin(expected, (2, 3)))


@pytest.mark.parametrize(
    "reader", ["SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient"]
)
def test_other_readers_write_as_nnunet_does(
    tiny: Any, model: Path, image: Path, tmp_path: Path, reader: str
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "m"))
    plans = json.loads((folder / "plans.json").read_text()) | {"image_reader_writer": reader}
    (folder / "plans.json").write_text(json.dumps(plans))
    predictor = Predictor(ModelFolder.open(folder, [0]), Settings(mirroring=False))
    prediction = predictor.predict([image])
    mask = prediction.exported.mask
    predictor._plans.image_reader_writer_class().write_seg(
        mask, str(tmp_path / "theirs.nii.gz"), prediction.grid
    )
    write_array(mask, tmp_path / "ours.nii.gz", prediction.grid)
    np.testing.assert_array_equal(
        _read(tmp_path / "ours.nii.gz"), _read(tmp_path / "theirs.nii.gz")
    )
    assert _same_grid(tmp_path / "ours.nii.gz", tmp_path / "theirs.nii.gz")
    assert _read(tmp_path / "ours.nii.gz").shape == _read(image).shape


def test_two_channels_and_a_wrong_number(tiny: Any, image: Path, tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "m", channels=2)
    second = tiny.write_image(tmp_path / "case_001_0001.nii.gz", seed=1)
    predictor = Predictor(ModelFolder.open(folder), Settings(mirroring=False))
    expected = _stock(folder, [image, second], mirroring=False)
    np.testing.assert_array_equal(_labels(predictor, [image, second]), expected)
    with pytest.raises(InputError, match="takes 2 channels"):
        predictor.predict([image])
    other = tiny.write_image(tmp_path / "case_001_0002.nii.gz", shape=(9, 9, 9))
    with pytest.raises(InputError, match="differ in grid"):
        predictor.predict([image, other])


def test_a_bad_image_is_refused(model: Path, image: Path, tmp_path: Path) -> None:
    predictor = Predictor(ModelFolder.open(model, [0]), Settings(mirroring=False))
    with pytest.raises(InputError, match="is missing"):
        predictor.predict([tmp_path / "nowhere.nii.gz"])
    (tmp_path / "torn.nii.gz").write_bytes(image.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged or cut short"):
        predictor.predict([tmp_path / "torn.nii.gz"])
    volume = sitk.ReadImage(str(image))
    volume[3, 3, 3] = float("nan")
    sitk.WriteImage(volume, str(tmp_path / "nan.nrrd"))
    with pytest.raises(InputError, match="NaN"):
        predictor.predict([tmp_path / "nan.nrrd"])


def test_channels_that_lie_elsewhere_are_refused(tiny: Any, image: Path, tmp_path: Path) -> None:
    """nnU-Net prints a warning and predicts; the mask would be the first channel's only."""
    folder = tiny.write_model(tmp_path / "m", channels=2)
    moved = sitk.ReadImage(str(image))
    moved.SetOrigin((0.0, 0.0, 0.0))
    sitk.WriteImage(moved, str(tmp_path / "moved.nii.gz"))
    predictor = Predictor(ModelFolder.open(folder), Settings(mirroring=False))
    with pytest.raises(InputError, match=r"zscore0 and zscore1 differ in grid.*origins"):
        predictor.predict([image, tmp_path / "moved.nii.gz"])


def test_channels_in_one_file_are_counted(model: Path, image: Path, tmp_path: Path) -> None:
    volume = sitk.ReadImage(str(image))
    sitk.WriteImage(sitk.JoinSeries([volume, volume]), str(tmp_path / "both.nii.gz"))
    predictor = Predictor(ModelFolder.open(model, [0]), Settings(mirroring=False))
    with pytest.raises(InputError, match="not one 3D volume"):
        predictor.predict([tmp_path / "both.nii.gz"])


@pytest.mark.parametrize("reader", ["NaturalImage2DIO", "Tiff3DIO"])
def test_a_model_for_pictures_is_refused_at_once(
    tiny: Any, model: Path, tmp_path: Path, reader: str
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "m"))
    plans = json.loads((folder / "plans.json").read_text()) | {"image_reader_writer": reader}
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(InputError, match=rf"reads pictures \({reader}\), not volumes"):
        Predictor(ModelFolder.open(folder, [0]))


def test_an_image_of_zeros_and_a_single_slice(model: Path, image: Path, tmp_path: Path) -> None:
    predictor = Predictor(ModelFolder.open(model, [0]), Settings(mirroring=False))
    volume = sitk.ReadImage(str(image))
    sitk.WriteImage(volume * 0, str(tmp_path / "zero.nii.gz"))
    sitk.WriteImage(volume[:, :, 3:4], str(tmp_path / "slice.nii.gz"))
    for name in ("zero.nii.gz", "slice.nii.gz"):
        file = tmp_path / name
        expected = _stock(model, [file], mirroring=False, folds=(0,))
        np.testing.assert_array_equal(_labels(predictor, [file]), expected)


class Stopped(BaseException):
    pass


def test_tiles_are_reported_and_can_stop(model: Path, image: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def tile(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) > 5:
            raise Stopped

    out = tmp_path / "out.nii.gz"
    with pytest.raises(Stopped):
        predict_files(model, [image], out, tile=tile, settings=Settings(mirroring=False))
    assert [done for done, _ in told] == list(range(6))
    assert len({total for _, total in told}) == 1
    assert not list(tmp_path.iterdir())


def test_all_tiles_are_counted(model: Path, image: Path) -> None:
    told: list[tuple[int, int]] = []
    predictor = Predictor(
        ModelFolder.open(model),
        Settings(mirroring=False),
        lambda done, total: told.append((done, total)),
    )
    predictor.predict([image])
    assert told[-1][0] + 1 == told[-1][1] == len(told)


def test_a_device_that_does_not_exist(model: Path) -> None:
    opened = ModelFolder.open(model)
    with pytest.raises(InputError, match=r"no device 'cuda:99'.*cpu"):
        Predictor(opened, Settings(device="cuda:99"))
    with pytest.raises(InputError, match="Step size"):
        Predictor(opened, Settings(step_size=0))
    with pytest.raises(InputError, match="threads"):
        Predictor(opened, Settings(threads=0))


def test_out_of_memory_says_what_to_lower(
    model: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(ModelFolder.open(model, [0]))

    def full(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(predictor._window, "predict", full)
    with pytest.raises(JobError, match=r"more memory than cpu.*Leave out probabilities"):
        predictor.predict([image])


def test_trainers_are_found_in_nnunet_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "planted.py"
    mark = tmp_path / "ran"
    planted.write_text(f"open({str(mark)!r}, 'w')\nclass nnUNetTrainerPlanted(object): pass\n")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    assert room.stock_trainer("nnUNetTrainerPlanted") is None
    assert not mark.exists()
    found = room.stock_trainer("nnUNetTrainerBN")
    assert found is not None
    assert found.__name__ == "nnUNetTrainerBN"


def test_an_unknown_trainer_is_said(tiny: Any, image: Path, tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "m", trainer_name="nnUNetTrainerOfSomebody")
    predictor = Predictor(ModelFolder.open(folder), Settings(mirroring=False))
    assert "nnUNetTrainerOfSomebody is not part of nnU-Net" in predictor.notes[0]
    assert _labels(predictor, [image]).shape == _read(image).shape


def test_weights_of_another_network_are_refused(tiny: Any, tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "m")
    tiny.write_json_files(folder, tiny.plans(), tiny.dataset({"a": 1, "b": 2}))
    with pytest.raises(InputError, match="do not fit the network"):
        Predictor(ModelFolder.open(folder))


def test_a_cascade_is_refused(tiny: Any, tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "m")
    plans = tiny.plans(previous_stage="3d_lowres")
    tiny.write_json_files(folder, plans, tiny.dataset({"lesion": 1}))
    with pytest.raises(InputError, match="cascade"):
        Predictor(ModelFolder.open(folder))


@pytest.mark.training
def test_the_stock_command_agrees(model: Path, image: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "Dataset777_Tiny" / model.name)
    folders = {f"nnUNet_{name}": str(tmp_path) for name in ("raw", "preprocessed", "results")}
    environment = os.environ | folders | {"OMP_NUM_THREADS": "1", "nnUNet_def_n_proc": "1"}
    command = Path(sys.executable).with_name("nnUNetv2_predict")
    which = ["-d", 777, "-p", "tinyPlans", "-c", "3d_fullres", "-f", 0, 1, "-device", "cpu"]
    alone = ["--disable_tta", "-npp", 0, "-nps", 0]  # without processes of its own: import once
    where = ["-i", image.parent, "-o", tmp_path / "stock"]
    subprocess.run(
        [str(x) for x in (command, *where, *which, *alone)],
        env=environment,
        check=True,
        capture_output=True,
        timeout=280,
    )
    expected = _read(tmp_path / "stock" / "case_001.nii.gz")
    settings = Settings(mirroring=False)
    written = predict_files(model, [image], tmp_path / "ours.nii.gz", settings=settings)
    np.testing.assert_array_equal(_read(written["mask"]), (expected == 1).astype(np.uint8))
    assert _same_grid(written["mask"], tmp_path / "stock" / "case_001.nii.gz")
