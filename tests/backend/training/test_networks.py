"""Each architecture for real: trained, stopped, resumed, built again by the predictor, exported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.phantom import PhantomSpec, sample_project
from napari_backsplit.backend.prediction.checkpoint import load_checkpoint
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.predictor import Predictor, Settings
from napari_backsplit.backend.prediction.wanted import Wanted
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.architectures import with_architecture
from napari_backsplit.backend.training.arms import arm_scheme
from napari_backsplit.backend.training.export import export_model
from napari_backsplit.backend.training.prepare import make_plan_set, open_plan_set, prepare_arm
from napari_backsplit.backend.training.recipes import MONAI_COMMAND
from napari_backsplit.backend.training.run import Run
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.backend.training.trainer import LATEST, BackSplitTrainer, trainer_for
from tests.backend.prediction import tiny_model
from tests.backend.training.interrupting import Stopped, stop_after

pytestmark = pytest.mark.training

SETTINGS: dict[str, dict[str, Any]] = {
    "no-deep-supervision": {"deep_supervision": False, "optimiser": "adam"},
    "resenc-m": {"recipe": ("resenc-m",), "width": 4},
    "segresnet": {"recipe": ("segresnet",), "width": 8, "freeze_encoder_epochs": 1},
    "swinunetr": {"recipe": ("swinunetr",), "width": 12},
}
Start = Callable[..., BackSplitTrainer]


def starter(project_folder: Path, plan_set: str) -> Start:
    """Return what makes a trainer of a run on a planned project."""

    def make(folder: Path, check: Callable[[], None] = lambda: None, **run: Any) -> Any:
        spec = RunSpec.model_validate(
            {"epochs": 2, "iterations": 1, "validation_iterations": 1, "supports": ("kidney",)}
            | {"seed": 7, "plan_set": plan_set, **run}
        )
        with Project.open(project_folder, read_only=True) as project:
            planned = open_plan_set(project, plan_set)
            scheme = arm_scheme(project, spec.arm, spec.supports, planned.cases)
            planned, name = prepare_arm(project, planned, scheme, lambda what, done, total: None)
        dataset_json = read_json(planned.preprocessed(name) / "dataset.json")
        configuration = planned.spec.configuration
        plans, _ = with_architecture(planned.plans(name), configuration, spec, planned.spec)
        return trainer_for(Run(spec, folder, check=check), plans, configuration, dataset_json)

    return make


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    torch.set_num_threads(1)


@pytest.fixture
def start(planned: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Make a trainer on the small project."""
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", str(planned / "nnunet" / kind))
    return starter(planned, "own")


def run_broken(start: Start, folder: Path, **run: Any) -> BackSplitTrainer:
    """Train with a stop in the second epoch, and go on from the checkpoint."""
    broken = start(folder, check=stop_after(2), **run)
    with pytest.raises(Stopped):
        broken.run_training()
    again = start(folder, **run)
    again.resume(load_checkpoint(Path(again.output_folder) / LATEST))
    assert again.current_epoch == 1
    again.run_training()
    return again


def networks_of(folder: Path) -> list[Any]:
    """Return the networks that our predictor builds from a model folder."""
    predictor: Any = Predictor(ModelFolder.open(folder), Settings(mirroring=False))
    return list(predictor._window.networks)


def logits(network: Any, patch: Any) -> torch.Tensor:
    torch.manual_seed(3)
    image = torch.randn(1, 1, *patch)
    with torch.no_grad():
        found: torch.Tensor = network.eval()(image)
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_a_network_is_trained_resumed_and_built_again_by_the_predictor(
    start: Start, tmp_path: Path, name: str
) -> None:
    run = SETTINGS[name]
    whole = start(tmp_path / "whole", **run)
    initial = {key: value.clone() for key, value in whole.network.state_dict().items()}
    whole.run_training()
    again = run_broken(start, tmp_path / "broken", **run)
    after = again.network.state_dict()
    for key, value in whole.network.state_dict().items():
        assert torch.equal(after[key], value), key
    assert any(not torch.equal(after[key], value) for key, value in initial.items())

    (built,) = networks_of(tmp_path / "whole")
    again.set_deep_supervision_enabled(False)
    patch = again.configuration_manager.patch_size
    found = logits(built, patch)
    assert found.shape == (1, 3, *patch)
    assert torch.equal(found, logits(again.network, patch))
    assert type(built) is type(again.network)


def exported_model(start: Start, folder: Path, name: str) -> Path:
    """Train a network for an iteration, and export it."""
    run = start(folder / "model", **{**SETTINGS[name], "epochs": 1, "freeze_encoder_epochs": 0})
    run.run_training()
    return export_model(folder / "model", folder / "exported")


@pytest.mark.parametrize("name", ["segresnet", "swinunetr"])
def test_beside_this_package_nnunet_predicts_the_same_from_an_exported_model_of_monai(
    start: Start, tmp_path: Path, name: str
) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    exported = exported_model(start, tmp_path, name)
    card = (exported / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "needs the packages napari-backsplit and MONAI" in card
    assert MONAI_COMMAND in card
    assert load_checkpoint(exported / "fold_0" / "checkpoint_final.pth")["trainer_name"] == (
        "nnUNetTrainer"
    )
    image = tiny_model.write_image(tmp_path / "case_0000.nii.gz")
    predictor = Predictor(ModelFolder.open(exported), Settings(mirroring=False))
    ours = predictor.predict([image], Wanted(("lesion",), labels=True)).exported.labels
    stock = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
    stock.initialize_from_trained_model_folder(str(exported), (0,))
    (theirs,) = stock.predict_from_files_sequential([[str(image)]], None)
    np.testing.assert_array_equal(ours, theirs)


def test_without_the_packages_an_exported_model_of_monai_says_what_is_missing(
    start: Start, tmp_path: Path
) -> None:
    exported = exported_model(start, tmp_path, "segresnet")
    stopped = _stock_without_us(exported)
    assert stopped.returncode != 0
    missing = "napari_backsplit.backend.training.monai_networks.MonaiSegResNet"
    assert f"Network class {missing} not found" in stopped.stderr  # said before it gives up
    stopped = _ours_without_monai(exported)
    assert stopped.stdout.startswith("segresnet needs the package monai, which is not installed. ")
    assert MONAI_COMMAND in stopped.stdout


def _child(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )


HIDDEN = """
import sys, torch

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "napari_backsplit":
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hidden())
"""
"""What makes this package look as if it were not installed."""


def _stock_without_us(folder: Path) -> subprocess.CompletedProcess[str]:
    return _child(
        f"{HIDDEN}"
        "from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor\n"
        "stock = nnUNetPredictor(device=torch.device('cpu'), allow_tqdm=False)\n"
        f"stock.initialize_from_trained_model_folder({str(folder)!r}, (0,))\n"
    )


def _ours_without_monai(folder: Path) -> subprocess.CompletedProcess[str]:
    return _child(
        "import sys\n"
        "from pathlib import Path\n"
        "sys.modules['monai'] = None\n"
        "from napari_backsplit.backend.errors import InputError\n"
        "from napari_backsplit.backend.prediction.model_folder import ModelFolder\n"
        "from napari_backsplit.backend.prediction.predictor import Predictor\n"
        f"try: Predictor(ModelFolder.open(Path({str(folder)!r})))\n"
        "except InputError as error: print(error)\n"
    )


def test_deep_supervision_of_an_adopted_network_without_it_is_refused(
    start: Start, tmp_path: Path
) -> None:
    """The plan set's network may itself be one of MONAI: a baseline's, adopted."""
    run = start(tmp_path / "one", **SETTINGS["segresnet"])
    assert run.enable_deep_supervision is False
    plans = {**run.plans_manager.plans}
    spec = RunSpec(deep_supervision=True)
    with pytest.raises(InputError, match="no coarser outputs"):
        with_architecture(plans, "3d_fullres", spec)


# ---------------------------------------------------------------------- configurations


@pytest.fixture(scope="module")
def flat(small_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small project, planned for slices."""
    folder = tmp_path_factory.mktemp("flat") / "project"
    shutil.copytree(small_sample, folder)
    spec = PlanSpec(
        name="2d", configuration="2d", features=(4, 8), patch_size=(32, 32), batch_size=2, folds=3
    )
    with Project.open(folder, read_only=True) as project:
        make_plan_set(project, spec, lambda what, done, total: None)
    return folder


@pytest.mark.parametrize("name", ["planned", "resenc-m"])
def test_slices_are_trained_resumed_and_predicted(
    flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", str(flat / "nnunet" / kind))
    run = {} if name == "planned" else SETTINGS[name]
    ended = run_broken(starter(flat, "2d"), tmp_path / "model", **run)
    (built,) = networks_of(tmp_path / "model")
    ended.set_deep_supervision_enabled(False)
    assert torch.equal(logits(built, (32, 32)), logits(ended.network, (32, 32)))

    image = tiny_model.write_image(tmp_path / "case_0000.nii.gz")
    predictor = Predictor(ModelFolder.open(tmp_path / "model"), Settings(mirroring=False))
    wanted = Wanted(("lesion",), labels=True)
    assert predictor.predict([image], wanted).exported.labels.shape == (13, 27, 22)


@pytest.mark.soak
def test_a_coarser_grid_is_planned_trained_resumed_and_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3d_lowres, which nnU-Net plans for images much larger than a patch: of a small GPU here."""
    folder = tmp_path / "project"
    phantom = PhantomSpec(shape=(28, 40, 40), lesion_radius_mm=(14.0, 22.0))
    with sample_project(folder, 3, train=6, test=2, spec=phantom):
        pass
    spec = PlanSpec(
        name="low", configuration="3d_lowres", gpu_memory_gb=0.006, features=(4, 8), folds=3
    )
    with Project.open(folder, read_only=True) as project:
        planned = make_plan_set(project, spec, lambda what, done, total: None)
    configuration = planned.plans()["configurations"]["3d_lowres"]
    assert min(configuration["spacing"]) > 1.5 * max(phantom.spacing_mm)
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", str(folder / "nnunet" / kind))

    for name, run in {"planned": {}, "segresnet": SETTINGS["segresnet"]}.items():
        ended = run_broken(starter(folder, "low"), tmp_path / name, **run)
        patch = ended.configuration_manager.patch_size
        (built,) = networks_of(tmp_path / name)
        ended.set_deep_supervision_enabled(False)
        assert torch.equal(logits(built, patch), logits(ended.network, patch))
        image = tiny_model.write_image(tmp_path / "case_0000.nii.gz")
        predictor = Predictor(ModelFolder.open(tmp_path / name), Settings(mirroring=False))
        wanted = Wanted(("lesion",), labels=True)
        assert predictor.predict([image], wanted).exported.labels.shape == (13, 27, 22)
