"""Models of soft labels: shares are what is averaged, written and compared with a half."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from napari_backsplit.backend.comparison.arms import decided
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.prediction.asked import check_asked
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.outputs import outputs_of
from napari_backsplit.backend.prediction.tasks import predict_files, run_predict
from napari_backsplit.backend.prediction.wanted import Wanted
from napari_backsplit.backend.project import Project

torch = pytest.importorskip("torch")

from napari_backsplit.backend.prediction.predictor import Predictor, Settings, stock_trainer  # noqa: E402
from napari_backsplit.backend.prediction.shares import SharesNetwork  # noqa: E402
from napari_backsplit.backend.training.export import export_model  # noqa: E402
from napari_backsplit.backend.training.losses.soft import deciding  # noqa: E402

ACTIVATIONS = ("sigmoid", "normalised-relu")


@pytest.fixture(scope="module")
def image(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    written: Path = tiny.write_image(tmp_path_factory.mktemp("image") / "case_001_0000.nii.gz")
    return written


def _soft(tiny: Any, folder: Path, activation: str, bias: float = 0.0) -> Path:
    """A model of two folds whose card says that it learnt soft labels."""
    card = {
        "targets": ["lesion"],
        "supports": ["liver"],
        "run": {"labels": "soft", "activation": activation},
    }
    made: Path = tiny.write_model(folder, {"lesion": 1, "liver": 2}, folds=(0, 1), backsplit=card)
    for file in made.glob("fold_*/*.pth") if bias else ():
        checkpoint = torch.load(file, weights_only=False)
        for name, value in checkpoint["network_weights"].items():
            if "seg_layers" in name and name.endswith("bias"):
                value.fill_(bias)
        torch.save(checkpoint, file)
    return made


@pytest.fixture(scope="module", params=ACTIVATIONS)
def soft(tiny: Any, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Path:
    torch.set_num_threads(1)
    return _soft(tiny, tmp_path_factory.mktemp("soft") / "model", request.param)


def _stock_shares(folder: Path, image: Path, **settings: Any) -> Any:
    """The shares by nnU-Net's own window and export, its network given the activation."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    stock = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, **settings)
    stock.initialize_from_trained_model_folder(str(folder), None)
    activation = json.loads((folder / "dataset.json").read_text())["backsplit"]["run"]["activation"]
    stock.network.register_forward_hook(lambda _, __, outputs: deciding(outputs, activation))
    stock.label_manager.inference_nonlin = lambda values: values
    return stock.predict_from_files_sequential([[str(image)]], None, save_probabilities=True)[0][1]


@pytest.mark.parametrize("mirroring", [True, False])
def test_shares_are_averaged_over_tiles_mirrored_tiles_and_folds(
    soft: Path, image: Path, mirroring: bool
) -> None:
    """Zero voxels differ from nnU-Net's own averages of shares, above a half or not."""
    expected = _stock_shares(soft, image, use_mirroring=mirroring, tile_step_size=0.7)
    settings = Settings(mirroring=mirroring, step_size=0.7)
    wanted = Wanted(("lesion",), probabilities=True, labels=True)
    ours = Predictor(ModelFolder.open(soft), settings).predict([image], wanted).exported
    np.testing.assert_array_equal(ours.probabilities[0], np.clip(expected[1], 0, 1))
    np.testing.assert_array_equal(ours.mask == 1, expected[1] > 0.5)
    by_hand = np.select([expected[1] > 0.5, expected[2] > 0.5], [1, 2])
    np.testing.assert_array_equal(ours.labels, by_hand)
    assert 0 < expected[1].max() <= 1.001
    assert len(np.unique(expected[1])) > 100


def test_it_is_not_the_activation_of_averaged_outputs(soft: Path, image: Path) -> None:
    """Else the test above could not tell one from the other."""
    card = json.loads((soft / "dataset.json").read_text())
    hard = {**card, "backsplit": {"targets": ["lesion"]}}
    ours = Predictor(ModelFolder.open(soft), Settings(mirroring=False))
    shares = ours.predict([image], Wanted(("lesion",), probabilities=True)).exported
    try:
        (soft / "dataset.json").write_text(json.dumps(hard))
        other = Predictor(ModelFolder.open(soft), Settings(mirroring=False))
    finally:
        (soft / "dataset.json").write_text(json.dumps(card))
    classes = other.predict([image], Wanted(("lesion",), probabilities=True)).exported
    assert np.abs(classes.probabilities[0] - shares.probabilities[0]).max() > 0.05
    assert (classes.mask != shares.mask).any()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_tile_without_a_target_is_zero_and_a_number(activation: str) -> None:
    outputs = -torch.rand(1, 3, 4, 4, 4) - 0.1
    shares = SharesNetwork(torch.nn.Identity(), activation)(outputs)
    assert torch.isfinite(shares).all()
    assert (shares[:, 0] == 0.5).all()
    assert (shares[:, 1:] < 0.5).all()
    if activation == "normalised-relu":
        assert not shares[:, 1:].any()


def test_an_image_without_a_target_has_no_lesion_and_no_nan(
    tiny: Any, image: Path, tmp_path: Path
) -> None:
    folder = _soft(tiny, tmp_path / "model", "normalised-relu", bias=-1e4)
    wanted = Wanted(("lesion",), probabilities=True, labels=True)
    ours = Predictor(ModelFolder.open(folder)).predict([image], wanted).exported
    assert not ours.mask.any()
    assert ours.labels is not None
    assert not ours.labels.any()
    np.testing.assert_array_equal(ours.probabilities[0], np.zeros(ours.mask.shape, np.float32))


def test_the_files_are_called_shares_and_the_mask_says_its_rule(
    soft: Path, image: Path, tmp_path: Path
) -> None:
    notes: list[str] = []
    written = predict_files(
        soft,
        [image],
        tmp_path / "out.nii.gz",
        probabilities=True,
        settings=Settings(mirroring=False),
        note=notes.append,
    )
    assert written["share of lesion"] == tmp_path / "out_share.nii.gz"
    assert set(written) == {"mask", "share of lesion"}
    mask = sitk.ReadImage(str(written["mask"]))
    assert mask.GetMetaData("ITK_FileNotes") == "mask, share > 0.5"
    share = sitk.GetArrayFromImage(sitk.ReadImage(str(written["share of lesion"])))
    np.testing.assert_array_equal(share > 0.5, sitk.GetArrayFromImage(mask) == 1)
    assert any("soft labels" in note for note in notes)


def test_what_a_job_asks_for_becomes_the_models_own_rule(soft: Path) -> None:
    model = ModelFolder.open(soft)
    assert outputs_of(model, ["lesion"], {}).rule == "share > 0.5"
    assert outputs_of(model, ["lesion"], {"rule": "argmax"}).rule == "share > 0.5"
    with pytest.raises(InputError, match="no probabilities"):
        outputs_of(model, ["lesion"], {"rule": "p > 0.5"})


def test_a_hard_model_keeps_its_rules(model: Path) -> None:
    opened = ModelFolder.open(model)
    assert not opened.soft
    assert opened.activation == ""
    assert outputs_of(opened, ["lesion"], {}).rule == "argmax"
    with pytest.raises(InputError, match="soft labels"):
        outputs_of(opened, ["lesion"], {"rule": "share > 0.5"})


def test_stock_nnunet_refuses_an_exported_model_and_we_predict_the_same(
    soft: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its softmax would be wrong; what it says names what is needed."""
    exported = export_model(soft, tmp_path / "exported")
    # nnU-Net looks for the trainer by importing all that it has, and some need other packages
    monkeypatch.setattr(
        "nnunetv2.utilities.find_objects.recursive_find_python_class",
        lambda folder, name, *_, **__: stock_trainer(name),
    )
    with pytest.raises(RuntimeError, match="soft_labels_need_napari_backsplit"):
        _stock_shares(exported, image)
    wanted = Wanted(("lesion",), probabilities=True)
    ours, theirs = (
        Predictor(ModelFolder.open(folder), Settings(mirroring=False))
        for folder in (soft, exported)
    )
    assert not theirs.notes
    np.testing.assert_array_equal(
        ours.predict([image], wanted).exported.probabilities[0],
        theirs.predict([image], wanted).exported.probabilities[0],
    )
    card = (exported / "MODEL_CARD.md").read_text()
    assert "shares of a voxel (soft labels)" in card
    assert "Stock nnU-Net would take a softmax, which is wrong" in card
    assert "To load it: napari-backsplit" in card


class _Context:
    """A job's context without a job."""

    def __init__(self, project: Path, **params: Any) -> None:
        self.project_folder, self.folder = project, project / "jobs" / "0002-predict"
        self.params = {"model": "jobs/0001-train/model", "mirroring": False, **params}

    def path(self, relative: str) -> Path:
        return self.project_folder / relative

    def report(self, event: object) -> None:
        pass

    def checkpoint(self) -> None:
        pass


def test_a_job_writes_shares_and_records_its_rule(tiny: Any, soft: Path, tmp_path: Path) -> None:
    """Also where "argmax" was asked for, as a comparison of several models does."""
    folder = tmp_path / "project"
    with Project.create(folder, "p", ["MR"], ["lesion"], ["liver"]) as made:
        made.add_case({"MR": tiny.write_image(tmp_path / "image.nii.gz")}, test=True)
    shutil.copytree(soft, folder / "jobs" / "0001-train" / "model")
    context = _Context(folder, probabilities=True, rule="argmax")
    run_predict(context)  # type: ignore[arg-type]
    written = context.folder / "predictions"
    assert {file.name for file in written.iterdir()} == {
        "predictions.json",
        "case_001.nii.gz",
        "case_001_share.nii.gz",
    }
    record = json.loads((written / "predictions.json").read_text())
    assert record["settings"]["rule"] == "share > 0.5"
    assert decided(record)["rule"] == "share > 0.5"
    asked = {"model": "jobs/0001-train/model", "cases": ["case_001"]}
    check_asked(folder, asked)
    for what, why in (({"rule": "p > 0.5"}, "no probabilities"), ({"gap": True}, "information")):
        with pytest.raises(InputError, match=why):
            check_asked(folder, asked | what)
