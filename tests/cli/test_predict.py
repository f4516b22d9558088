from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from napari_backsplit.backend.errors import InputError, JobError
from napari_backsplit.backend.jobs import devices
from napari_backsplit.backend.prediction import asked as asking
from napari_backsplit.backend.prediction import outside
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training import baseline
from napari_backsplit.backend.volume import read_label_map, read_volume
from napari_backsplit.cli import app, models, predicting
from tests.backend.prediction import tiny_model

runner = CliRunner()
LABELS = {"lesion": 1, "liver": 2, "spleen": 3}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The parameters of every job that would have been run."""
    params: list[dict[str, Any]] = []

    def run(project: Path, task: str, asked: dict[str, Any], *_: Any) -> dict[str, Any]:
        params.append({"task": task, **asked})
        return {}

    monkeypatch.setattr(models, "_run", run)
    monkeypatch.setattr(baseline, "model_path", lambda folder, model: f"jobs/{model}/model")
    monkeypatch.setattr(asking, "check_asked", lambda *_: ())
    return params


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "nnUNetTrainer__tinyPlans__3d_fullres"
    card = {"targets": ["lesion"], "supports": ["liver", "spleen"]}
    tiny_model.write_model(folder, LABELS, folds=(0, 1), backsplit=card)
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write_image(tmp_path_factory.mktemp("image") / "image.nii.gz")


def predict(*arguments: object) -> Result:
    return runner.invoke(app, ["predict", *map(str, arguments)])


# --- the cases of a project -----------------------------------------------------------------------


def test_what_is_said_reaches_the_job(asked: list[dict[str, Any]]) -> None:
    options = ["--rule", "p > 0.5", "--gap", "--folds", "0,2", "--device", "cpu", "--no-mirroring"]
    result = predict("3", "--case", "case_001", *options, "--step-size", "0.75")
    assert result.exit_code == 0, result.output
    said = {
        "task": "predict",
        "model": "jobs/3/model",
        "cases": ["case_001"],
        "rule": "p > 0.5",
        "gap": True,
        "folds": ["0", "2"],
        "device": "cpu",
        "mirroring": False,
        "step_size": 0.75,
        "declared_unseen": [],
        "threads": 1,
    }
    assert asked[0] | said == asked[0]


def test_nothing_said_is_as_nnunet_does_it(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "fastest", lambda: "cuda:0")
    predict("3", "--case", "case_001", "--declare-unseen")
    said = {
        "rule": "argmax",
        "mirroring": None,
        "step_size": 0.5,
        "folds": None,
        "device": "cuda:0",
    }
    assert asked[0] | said == asked[0]
    assert asked[0]["declared_unseen"] == ["case_001"]


def test_no_thread_is_refused_not_taken_for_nothing_said(
    asked: list[dict[str, Any]], model: Path, image: Path, tmp_path: Path
) -> None:
    predict("3", "--case", "case_001", "--device", "cpu", "--threads", "0")
    assert asked[0]["threads"] == 0, "which is refused, below"
    where = ["--image", image, "-o", tmp_path / "mask.nii.gz", "--device", "cpu"]
    assert "0 threads cannot work" in str(predict(model, *where, "--threads", "0").exception)


@pytest.fixture
def project(model: Path, tmp_path: Path) -> Path:
    """A project of two cases; the model of its first job was trained on one of them."""
    folder = tmp_path / "project"
    with Project.create(folder, "p", ["MR"], ["lesion"], ["liver", "spleen"]) as made:
        for seed in range(2):
            file = tiny_model.write_image(tmp_path / f"image{seed}.nii.gz", seed=seed)
            made.add_case({"MR": file})
        digest = next(iter(made.case("case_001").images.values())).sha256
    run = folder / "jobs" / "0001-train" / "model"
    shutil.copytree(model, run)
    dataset = json.loads((run / "dataset.json").read_text())
    dataset["backsplit"]["data"] = {"training": {"case_001": digest}, "validation": {}}
    (run / "dataset.json").write_text(json.dumps(dataset))
    return folder


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--case", "case_999"], "no case 'case_999'"),
        (["--folds", "4"], "Fold 4 is not in"),
        (["--step-size", "2"], "Step size 2.0 is not in"),
        (["--device", "cuda:77"], "no device 'cuda:77'"),
        (["--device", "gpu"], "no device 'gpu'"),
        (["--threads", "0"], "0 threads cannot work"),
    ],
)
def test_what_a_job_would_refuse_becomes_none(
    project: Path, options: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cpu")
    chosen = [] if "--case" in options else ["--case", "case_002"]
    device = [] if "--device" in options else ["--device", "cpu"]
    place = "jobs/0001-train/model"
    result = predict(place, "-p", project, *chosen, *device, *options, "--detach")
    assert words in str(result.exception)
    assert [job.name for job in (project / "jobs").iterdir()] == ["0001-train"]


def test_the_gap_of_a_binary_model_becomes_no_job(project: Path) -> None:
    shutil.rmtree(project / "jobs" / "0001-train" / "model")
    tiny_model.write_model(project / "jobs" / "0001-train" / "model")
    options = ["--case", "case_002", "--device", "cpu", "--gap", "--detach"]
    result = predict("jobs/0001-train/model", "-p", project, *options)
    assert "with two the information gap is zero" in str(result.exception)
    assert len(list((project / "jobs").iterdir())) == 1


def test_a_case_that_was_trained_on_is_said(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_run", lambda *_: {})
    options = ["-p", project, "--device", "cpu", "--case"]
    said = predict("jobs/0001-train/model", *options, "case_001", "--case", "case_002").stderr
    assert "case_001 was seen in training" in " ".join(said.split())
    assert "case_002" not in said
    assert predict("jobs/0001-train/model", *options, "case_002").stderr == ""


@pytest.mark.parametrize(("tool", "allowed"), [(None, True), ("nvidia-smi", False)])
def test_a_gpu_that_nvidias_tool_cannot_tell_of_is_left_to_torch(
    tool: str | None, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "version", lambda name: "2.13.0")
    monkeypatch.setattr(asking, "devices", lambda: (devices.Device("cpu", "a CPU", 1),))
    monkeypatch.setattr(asking.shutil, "which", lambda name: tool)
    with nullcontext() if allowed else pytest.raises(InputError, match="no device 'cuda'"):
        asking.check_device("cuda")


@pytest.mark.parametrize(("torch", "device"), [("2.13.0+cpu", "cpu"), ("2.13.0+cu128", "cuda:0")])
def test_the_fastest_device_is_one_that_torch_can_use(
    monkeypatch: pytest.MonkeyPatch, torch: str, device: str
) -> None:
    gpu = devices.Device("cuda:0", "a GPU", 1)
    monkeypatch.setattr(devices, "devices", lambda: (gpu,))
    monkeypatch.setattr("importlib.metadata.version", lambda name: torch)
    assert predicting.fastest() == device


# --- an image outside a project -------------------------------------------------------------------


def test_an_image_is_predicted_as_the_library_does_it(
    model: Path, image: Path, tmp_path: Path
) -> None:
    from napari_backsplit.backend.prediction.tasks import predict_files

    mask = tmp_path / "lesion.nii.gz"
    options = ["--probabilities", "--full-label-map", "--folds", "1", "--device", "cpu"]
    result = predict(model, "--image", image, "-o", mask, *options, "--json")
    assert result.exit_code == 0, result.output
    files = json.loads(result.stdout)
    assert set(files) == {"mask", "labels", "probability of lesion"}
    assert "taken as it lies" in result.stderr, "what is to be known is said aside"
    ours = predict_files(model, [image], tmp_path / "ours.nii.gz", folds=["1"], probabilities=True)
    assert np.array_equal(read_label_map(mask).array, read_label_map(ours["mask"]).array)
    theirs = read_volume(files["probability of lesion"]).array
    assert np.array_equal(theirs, read_volume(ours["probability of lesion"]).array)


@pytest.mark.parametrize("taken", ["lesion.nii.gz", "lesion_labels.nii.gz"])
def test_nothing_is_overwritten(model: Path, image: Path, tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    where = ["-o", tmp_path / "lesion.nii.gz", "--full-label-map", "--device", "cpu"]
    result = predict(model, "--image", image, *where)
    assert isinstance(result.exception, InputError)
    assert "exists" in str(result.exception)
    assert (tmp_path / taken).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_mask_goes_beside_an_image_with_nnunets_name(
    model: Path, image: Path, tmp_path: Path
) -> None:
    named = tmp_path / "case_0000.nii.gz"
    named.write_bytes(image.read_bytes())
    result = predict(model, "--image", named, "-o", tmp_path / "case.nii.gz", "--folds", "0")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "case.nii.gz").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--image", "gone.nii.gz", "-o", "mask.nii.gz"], "gone.nii.gz does not exist"),
        (["-o", "mask.nii.gz"], "--image is missing"),
        (["--image", "gone.nii.gz"], "--output is missing"),
        (["--image", "gone.nii.gz", "-o", "mask.nii.gz", "--case", "a"], "--case is for"),
        (["--image", "gone.nii.gz", "-o", "mask.png"], "does not end in .nii.gz"),
    ],
)
def test_half_a_request_is_refused(model: Path, more: list[str], words: str) -> None:
    assert words in str(predict(model, *more).exception)


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_predicted(
    model: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "_MODULE", "napari_backsplit.no_such_module")
    what = [model, "--image", image, "--device", "cpu", "-o"]
    assert "no folder" in str(predict(*what, tmp_path / "nodir" / "mask.nii.gz").exception)
    assert not (tmp_path / "nodir").exists()
    if Path("/proc").is_dir():
        result = predict(*what, "/proc/mask.nii.gz")
        assert "Nothing can be written in /proc" in str(result.exception)


def test_a_damaged_image_is_named_by_its_name(model: Path, image: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.nii.gz"
    half.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    result = predict(model, "--image", half, "-o", tmp_path / "mask.nii.gz", "--device", "cpu")
    assert isinstance(result.exception, InputError)
    assert result.exception.problem.startswith("half.nii.gz is damaged or cut short")
    assert not (tmp_path / "mask.nii.gz").exists()


def test_what_the_model_refuses_is_said(model: Path, image: Path, tmp_path: Path) -> None:
    images = ["--image", image, "--image", image]
    result = predict(model, *images, "-o", tmp_path / "mask.nii.gz", "--device", "cpu")
    assert isinstance(result.exception, InputError)
    assert "takes 1 channels" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_process_that_dies_is_no_success(
    model: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "_MODULE", "napari_backsplit.no_such_module")
    result = predict(model, "--image", image, "-o", tmp_path / "mask.nii.gz", "--device", "cpu")
    assert isinstance(result.exception, JobError)
    assert "no_such_module" in str(result.exception)
