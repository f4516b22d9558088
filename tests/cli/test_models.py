from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.spec import RunSpec
from napari_backsplit.cli import app, jobs, models

runner = CliRunner()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The parameters of every job that would have been started."""
    params: list[dict[str, Any]] = []
    monkeypatch.setattr(models, "_run", lambda p, task, asked, *_: params.append(asked) or {})
    monkeypatch.setattr(models, "_begin_training", lambda project, spec: None)
    monkeypatch.setattr(jobs, "find_job", lambda p, n, task: SimpleNamespace(id=f"000{n}-predict"))
    return params


def test_a_control_is_measured_against_too(asked: list[dict[str, Any]]) -> None:
    command = ["compare", "binary=5", "tuned=6", "longer=7", "--control", "longer"]
    assert runner.invoke(app, command).exit_code == 0
    assert asked[0]["baseline"] == "binary"
    assert asked[0]["controls"] == ["longer"]
    assert asked[0]["arms"]["tuned"] == "jobs/0006-predict"


def test_a_control_that_is_no_arm_is_refused(asked: list[dict[str, Any]]) -> None:
    result = runner.invoke(app, ["compare", "binary=5", "tuned=6", "--control", "longer"])
    assert isinstance(result.exception, InputError)
    assert not asked


def test_what_is_said_wins_over_what_the_baseline_says(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from napari_backsplit.backend.training import baseline

    found = {"baseline": "jobs/0002-train/model", "plan_set": "own", "fold": 0}
    monkeypatch.setattr(baseline, "find_baseline", lambda folder, model: found)
    for command in ("train", "finetune"):
        runner.invoke(app, [command, "--from", "2", "--fold", "1", "-p", str(tmp_path)])
    specs = [RunSpec.model_validate(each["run"]) for each in asked]
    assert [(spec.arm, spec.fold) for spec in specs] == [
        ("backsplit", 1),
        ("backsplit", 1),
        ("binary", 1),
    ]
    assert [spec.initial_lr for spec in specs] == [1e-2, 1e-3, 1e-3]
