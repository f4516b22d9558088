from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

for variable in ("OMP_NUM_THREADS", "nnUNet_def_n_proc"):
    os.environ.setdefault(variable, "1")


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The builder of tiny nnU-Net models (tiny_model.py)."""
    path = Path(__file__).with_name("tiny_model.py")
    spec = importlib.util.spec_from_file_location("tiny_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def model(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two folds: lesion, and two supports. Never written to."""
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model") / "nnUNetTrainer__tinyPlans__3d_fullres"
    card = {"targets": ["lesion"], "supports": ["liver", "spleen"]}
    labels = {"lesion": 1, "liver": 2, "spleen": 3}
    written: Path = tiny.write_model(folder, labels, folds=(0, 1), backsplit=card)
    return written
