"""The process that predicts an image outside a project, and what it leaves behind."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from napari_backsplit.backend.prediction.outside import Request, predict_outside

pytest.importorskip("torch")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the process unpacks."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def request_(tiny: Any, model: Path, tmp_path: Path) -> Request:
    zipped = shutil.make_archive(str(tmp_path / "model"), "zip", model.parent, model.name)
    image = tiny.write_image(tmp_path / "image.nii.gz")
    settings = {"mirroring": False, "step_size": 1.0}
    return Request(zipped, (str(image),), str(tmp_path / "mask.nii.gz"), settings, {"folds": [0]})


def test_a_zip_is_predicted_with_and_nothing_is_left_of_it(
    request_: Request, temporary: Path
) -> None:
    told: list[tuple[int, int]] = []
    files = predict_outside(request_, lambda done, total: told.append((done, total)))
    assert files["mask"].is_file()
    assert told[-1][0] + 1 == told[-1][1]
    assert not list(temporary.iterdir())


def test_who_stops_it_leaves_nothing(request_: Request, temporary: Path) -> None:
    seen: list[list[Path]] = []

    def stop(done: int, total: int) -> None:
        seen.append(list(temporary.glob("backsplit-model-*")))
        raise KeyboardInterrupt

    slow = replace(request_, settings={"step_size": 0.05})
    with pytest.raises(KeyboardInterrupt):
        predict_outside(slow, stop)
    assert len(seen[0]) == 1, "it was unpacked"
    assert not list(temporary.iterdir())
    assert not Path(request_.output).exists()


def test_a_folder_is_unpacked_nowhere(request_: Request, model: Path, temporary: Path) -> None:
    """So that a process that is killed leaves no empty folder."""
    seen: list[list[Path]] = []

    def look(done: int, total: int) -> None:
        seen.append(list(temporary.iterdir()))

    predict_outside(replace(request_, model=str(model)), look)
    assert seen
    assert not any(seen)
