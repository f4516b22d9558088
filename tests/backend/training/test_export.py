from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.prediction.model_folder import ModelFolder, unpack_zip
from napari_backsplit.backend.prediction.wanted import Wanted
from napari_backsplit.backend.volume import read_label_map

torch = pytest.importorskip("torch")

from napari_backsplit.backend.prediction.checkpoint import load_checkpoint  # noqa: E402
from napari_backsplit.backend.prediction.predictor import Predictor, Settings  # noqa: E402
from napari_backsplit.backend.training.export import export_model  # noqa: E402
from tests.backend.prediction import tiny_model as tiny  # noqa: E402

CARD = {
    "arm": "backsplit",
    "targets": ["lesion"],
    "supports": ["liver"],
    "data": {"training": {"case_001": "a" * 64, "case_002": "b" * 64}, "validation": {}},
    "licences": {"liver": "CC BY-NC-SA 4.0"},
    "figures": {"Dice": 0.71},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's model folder, as a job leaves it."""
    torch.set_num_threads(1)
    written: Path = tiny.write_model(
        tmp_path_factory.mktemp("job") / "model",
        {"lesion": 1, "liver": 2},
        name="checkpoint_best.pth",
        trainer_name="BackSplitTrainer",
        backsplit=CARD,
        dataset={"case_001": {"images": ["../../images/case_001_0000.nii.gz"], "label": "x"}},
    )
    return written


def _export(run: Path, destination: Path, **more: Any) -> Path:
    return export_model(run, destination, checkpoint="checkpoint_best.pth", **more)


def test_an_export_is_a_plain_model(run: Path, tmp_path: Path) -> None:
    folder = _export(run, tmp_path / "exported")
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        "plans.json",
        "dataset.json",
        "MODEL_CARD.md",
        "fold_0/checkpoint_final.pth",
    }
    source = load_checkpoint(run / "fold_0" / "checkpoint_best.pth")
    written = load_checkpoint(folder / "fold_0" / "checkpoint_final.pth")
    assert written["trainer_name"] == "nnUNetTrainer"
    assert "optimizer_state" not in written
    assert "images/case_001" not in (folder / "dataset.json").read_text()
    for name, value in source["network_weights"].items():
        torch.testing.assert_close(written["network_weights"][name], value, rtol=0, atol=0)
    dataset = json.loads((folder / "dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "lesion": 1, "liver": 2}
    assert dataset["backsplit"]["data"] == CARD["data"]
    assert ModelFolder.open(folder).targets == ("lesion",)


def _labels(run: Path, image: Path) -> Any:
    predictor = Predictor(ModelFolder.open(run), Settings())
    return predictor.predict([image], Wanted(("lesion",), labels=True)).exported.labels


def test_stock_nnunet_predicts_the_same_from_an_export(run: Path, tmp_path: Path) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    image = tiny.write_image(tmp_path / "case_001_0000.nii.gz")
    ours = _labels(run, image)
    stock = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(_export(run, tmp_path / "exported")), (0,))
    (theirs,) = stock.predict_from_files_sequential([[str(image)]], None)
    assert len(np.unique(ours)) == 3
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.training
def test_stock_nnunet_installs_the_zip_and_predicts(run: Path, tmp_path: Path) -> None:
    archive = _export(run, tmp_path / "model.zip", zip=True)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "nnUNet_def_n_proc": "1",
        "nnUNet_results": str(tmp_path / "results"),
    }
    scripts = Path(sys.executable).parent
    image = tiny.write_image(tmp_path / "in" / "case_001_0000.nii.gz")
    where = ["-d", "777", "-c", "3d_fullres", "-p", "tinyPlans", "-f", "0"]
    for command in (
        ["nnUNetv2_install_pretrained_model_from_zip", archive],
        ["nnUNetv2_predict", "-i", image.parent, "-o", tmp_path / "out", *where, "-device", "cpu"],
    ):
        subprocess.run(
            [str(scripts / command[0]), *map(str, command[1:])],
            env=environment,
            check=True,
            capture_output=True,
            timeout=250,
        )
    assert (tmp_path / "out" / "case_001.nii.gz").exists()


STOCK = """
import importlib.util, sys
assert importlib.util.find_spec("napari_backsplit") is None, "the package is there"
import torch
torch.set_num_threads(1)
from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder
if __name__ == "__main__":
    predict_entry_point_modelfolder()
"""


@pytest.mark.training
def test_the_stock_command_agrees_where_this_package_is_not(run: Path, tmp_path: Path) -> None:
    """In an environment of its own: the same site-packages, without our editable install."""
    import venv

    venv.create(tmp_path / "bare", with_pip=False, symlinks=os.name != "nt")
    folder = "Scripts" if os.name == "nt" else "bin"
    python = tmp_path / "bare" / folder / "python"
    (site,) = (tmp_path / "bare").rglob("site-packages")
    (site / "others.pth").write_text(str(Path(np.__file__).parents[1]))
    script = tmp_path / "stock.py"
    script.write_text(STOCK)
    image = tiny.write_image(tmp_path / "in" / "case_001_0000.nii.gz")
    model = _export(run, tmp_path / "exported")
    where = ["-i", image.parent, "-o", tmp_path / "out", "-m", model, "-f", "0", "-device", "cpu"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    subprocess.run(
        [str(x) for x in (python, script, *where, "-npp", 1, "-nps", 1)],
        env=environment | {"OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "1"},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=250,
    )

    ours = _labels(run, image)
    theirs = read_label_map(tmp_path / "out" / "case_001.nii.gz").array
    assert (ours == 1).any()
    np.testing.assert_array_equal(theirs == 1, ours == 1)


def test_a_zip_has_nnunets_layout_and_comes_back(run: Path, tmp_path: Path) -> None:
    archive = _export(run, tmp_path / "model.zip", zip=True)
    inner = "Dataset777_Tiny/nnUNetTrainer__tinyPlans__3d_fullres"
    assert set(zipfile.ZipFile(archive).namelist()) == {
        f"{inner}/{name}"
        for name in ("plans.json", "dataset.json", "MODEL_CARD.md", "fold_0/checkpoint_final.pth")
    }
    assert ModelFolder.open(unpack_zip(archive, tmp_path / "out")).targets == ("lesion",)
    assert not list(tmp_path.glob(".tmp-*"))


def test_nothing_is_overwritten(run: Path, tmp_path: Path) -> None:
    folder = _export(run, tmp_path / "exported")
    before = (folder / "plans.json").stat().st_mtime_ns
    with pytest.raises(InputError, match="exists already"):
        _export(run, folder)
    assert (folder / "plans.json").stat().st_mtime_ns == before
    for name, packed in (("folder", True), ("file.zip", False)):
        with pytest.raises(InputError, match="does not fit"):
            _export(run, tmp_path / name, zip=packed)


def test_a_failed_export_leaves_nothing(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint_final"):
        export_model(run, tmp_path / "exported")
    with pytest.raises(InputError, match="Fold 3"):
        _export(run, tmp_path / "exported", folds=[3])
    assert not list(tmp_path.iterdir())


def test_labels_with_gaps_become_what_the_network_writes(tmp_path: Path) -> None:
    run = tiny.write_model(tmp_path / "m", {"liver": 7, "lesion": 1, "ignore": 8})
    # nnU-Net's label manager refuses an ignore label that is not the next after the last head.
    folder = export_model(run, tmp_path / "exported")
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "lesion": 1, "liver": 2, "ignore": 3}


def test_a_dataset_of_another_network_is_refused(tmp_path: Path) -> None:
    run = tiny.write_model(tmp_path / "m")
    tiny.write_json_files(run, tiny.plans(), tiny.dataset({"a": 1, "b": 2}))
    with pytest.raises(InputError, match=r"predicts 2 classes, dataset\.json has 3"):
        export_model(run, tmp_path / "exported")


def test_half_precision_weights_become_whole(tmp_path: Path) -> None:
    run = tiny.write_model(tmp_path / "m")
    path = run / "fold_0" / "checkpoint_final.pth"
    checkpoint = load_checkpoint(path)
    weights = checkpoint["network_weights"]
    checkpoint["network_weights"] = {name: value.half() for name, value in weights.items()}
    torch.save(checkpoint, path)
    folder = export_model(run, tmp_path / "exported")
    written = load_checkpoint(folder / "fold_0" / "checkpoint_final.pth")["network_weights"]
    assert {value.dtype for value in written.values()} == {torch.float32}


def test_a_stock_variant_keeps_its_name(tmp_path: Path) -> None:
    run = tiny.write_model(tmp_path / "m", trainer_name="nnUNetTrainer_5epochs")
    folder = export_model(run, tmp_path / "exported")
    assert ModelFolder.open(folder).trainer_name == "nnUNetTrainer_5epochs"


def test_the_model_card(run: Path, tmp_path: Path) -> None:
    card = (_export(run, tmp_path / "exported") / "MODEL_CARD.md").read_text()
    for line in (
        "For research use only. Not a medical device.",
        "- Targets: lesion",
        "- Supports (classes that divide the background): liver",
        "- Cases for training: 2",
        "- liver: CC BY-NC-SA 4.0",
        "- Dice: 0.71",
        "- Spacing (mm, z y x): 2 x 1 x 1",
        "## Versions\n\nNot recorded.",
    ):
        assert line in card
