"""backsplit preflight: a table or JSON, and an exit code that a script can go by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.project import Project
from napari_backsplit.cli import app
from tests.backend.training.preflight_support import contents, copy, make_model, make_project

runner = CliRunner()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("good") / "project", 8, 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "nnUNetTrainer__tinyPlans__3d_fullres")


@pytest.fixture
def folder(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BACKSPLIT_CACHE_DIR", str(tmp_path / "cache"))
    return copy(good, tmp_path / "project")


def _preflight(folder: Path, model: Path | str, *options: str) -> Result:
    return runner.invoke(app, ["preflight", str(model), "-p", str(folder), *options])


def test_a_good_fine_tune_may_begin(folder: Path, model: Path) -> None:
    result = _preflight(folder, model)
    assert result.exit_code == 0, result.output
    assert "It can begin." in result.output
    assert "declare it" in result.output.replace("\n", " ")
    declared = json.loads(_preflight(folder, model, "--declare-unseen", "--json").stdout)
    assert {c["level"] for c in declared["checks"] if c["name"] == "unseen"} == {"passed"}
    assert declared["estimate"]["disk_bytes"] > 0


def test_what_is_refused_has_exit_code_1_and_its_remedy(folder: Path, model: Path) -> None:
    result = _preflight(folder, model, "--device", "cuda:7", "--json")
    assert result.exit_code == 1
    refused = [c for c in json.loads(result.stdout)["checks"] if c["level"] == "refused"]
    assert [c["name"] for c in refused] == ["device"]
    assert refused[0]["remedy"]
    assert "nothing can begin" in _preflight(folder, model, "--device", "cuda:7").output


def test_a_model_that_does_not_fit_is_not_taken_over(folder: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "two", channels=2, channel_names={"0": "CT", "1": "PET"})
    before = contents(folder)
    result = _preflight(folder, other, "--json")
    assert result.exit_code == 1
    names = {c["name"] for c in json.loads(result.stdout)["checks"] if c["level"] == "refused"}
    assert names == {"channels"}
    assert contents(folder) == before


def test_no_support_is_a_line_too(folder: Path, model: Path) -> None:
    with Project.open(folder) as project:
        for case in project.case_ids():
            for name in ("kidney", "liver"):
                project.judge(case, "rejected", name)
    result = _preflight(folder, model, "--json")
    assert result.exit_code == 1
    (refused,) = [c for c in json.loads(result.stdout)["checks"] if c["level"] == "refused"]
    assert refused["name"] == "proposal"
    assert refused["remedy"]


def test_epochs_0_are_refused_by_name(folder: Path, model: Path) -> None:
    error = _preflight(folder, model, "--epochs", "0").exception
    assert isinstance(error, InputError)
    assert "--epochs '0'" in str(error) or "--epochs 0" in str(error)
