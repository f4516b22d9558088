"""Fixtures of this room: a real, tiny model of nnInteractive, and settings of our own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_backsplit.backend.structures.settings import FOLDER


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """Return a model that scripts/tiny_nninteractive.py trained; not to be changed."""
    return Path(__file__).parents[2] / "models" / "nninteractive-tiny"


@pytest.fixture(scope="session")
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep settings, logs and the store of models away from the user's."""
    folder = tmp_path_factory.mktemp("settings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(folder))
        patch.setenv("NNINTERACTIVE_MODEL_DIR", str(folder / "store"))
        yield folder
