from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

from tests.backend.prediction import tiny_model

for variable in ("OMP_NUM_THREADS", "nnUNet_def_n_proc"):
    os.environ.setdefault(variable, "1")


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The builder of tiny nnU-Net models (tiny_model.py)."""
    return tiny_model


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
