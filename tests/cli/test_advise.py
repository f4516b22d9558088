from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from napari_backsplit.backend.errors import InputError, JobError
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Geometry, Volume, write_volume
from napari_backsplit.cli import app, console, jobs

runner = CliRunner()
SHAPE = (4, 10, 24)
GRID = Geometry(SHAPE, (1.0, 1.0, 1.0), (0, 0, 0), ((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)))


def box(left: int, right: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:3, 2:8, left:right] = 1
    return mask


MASKS = {"lesion": box(8, 10), "liver": box(14, 22), "kidney": box(6, 12)}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """Three cases, the last one reserved; each has its lesion in the kidney."""
    folder = tmp_path / "project"
    with Project.create(folder, "advised", ["CT"], ["lesion"], ["liver", "kidney"]) as made:
        for index in range(3):
            file = tmp_path / f"image_{index}.nii.gz"
            write_volume(Volume(np.full(SHAPE, index, np.float32), GRID), file)
            case = made.add_case({"CT": file}, test=index == 2)
            for name, mask in MASKS.items():
                made.set_mask(case.id, name, Volume(mask, GRID), {})
    return folder


def write_predictions(folder: Path, cases: tuple[str, ...], model: str = "") -> Path:
    """Each case's prediction is the lesion, and a false one in the liver."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        mask = MASKS["lesion"] | box(16, 18)
        write_volume(Volume(mask, GRID), folder / f"{case}.nii.gz")
    said = {case: {"role": "training"} for case in cases}
    (folder / "predictions.json").write_text(json.dumps({"model": {"path": model}, "cases": said}))
    return folder


def run(project: Path, *options: Any) -> Result:
    return runner.invoke(app, ["advise", "-p", str(project), *map(str, options)])


def test_without_predictions_the_organ_that_holds_the_lesions_is_proposed(project: Path) -> None:
    result = run(project)
    assert result.exit_code == 0, result.output
    assert "2 cases: 2 lesions." in result.stdout
    assert "kidney: holds 2 of 2 lesions;" in result.stdout
    assert "2 masks are not accepted yet" in result.stdout
    assert "Proposed: kidney." in result.stdout
    assert result.stdout.endswith("backsplit finetune --from MODEL --supports kidney\n")
    assert "FP" not in result.stdout


def test_with_a_folder_of_predictions_errors_count(project: Path, tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "seen", ("case_001", "case_002"))
    result = run(project, "--baseline", folder)
    assert "2 cases, 2 with a prediction: 2 lesions, 2 false positives." in result.stdout
    assert "holds 2 of 2 false positives of the baseline" in result.stdout
    assert "100 % of the baseline's false-positive volume lies in it" in result.stdout
    assert "Proposed: kidney, liver." in result.stdout
    assert "The baseline was trained on, or chosen by, 2 of the 2 cases" in result.stdout
    assert "ESTIMATE" in result.stdout


def test_a_job_tells_which_model_to_start_from(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = project / "jobs" / "0005-predict"
    write_predictions(job / "predictions", ("case_001", "case_002"), "jobs/0002-train/model")
    asked: list[Any] = []
    monkeypatch.setattr(
        jobs, "find_job", lambda *given: asked.append(given) or SimpleNamespace(folder=job)
    )
    result = run(project, "--baseline", 5)
    assert asked == [(project, "5", "predict")]
    assert result.stdout.endswith("backsplit finetune --from 2 --supports kidney,liver\n")
    (job / "predictions" / "predictions.json").unlink()
    refused = run(project, "--baseline", 5)
    assert isinstance(refused.exception, InputError)
    assert "has not finished" in str(refused.exception)


def test_what_is_no_job_and_no_folder_is_refused(project: Path) -> None:
    for option in ("--baseline", "--run"):
        assert isinstance(run(project, option, "nowhere").exception, JobError)


def test_reserved_cases_are_looked_at_when_asked_and_that_is_said(
    project: Path, tmp_path: Path
) -> None:
    folder = write_predictions(tmp_path / "seen", ("case_003",))
    refused = run(project, "--baseline", folder)
    assert isinstance(refused.exception, InputError)
    result = run(project, "--baseline", folder, "--all-cases")
    assert "3 cases, 1 with a prediction" in result.stdout
    assert "Of the cases looked at 1 is reserved" in result.stdout


def test_a_run_with_class_probabilities(project: Path, tmp_path: Path) -> None:
    classes = {"background": 0, "lesion": 1, "kidney": 2}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": classes}))
    eta = np.full((3, *SHAPE), 1 / 3, np.float32)  # 2/3 x 1/2 x 1/2
    np.savez_compressed(tmp_path / "case_001.npz", probabilities=eta)
    result = run(project, "--run", tmp_path)
    assert result.exit_code == 0, result.output
    assert "has 0.167 of the run's information gap" in result.stdout


def test_json_has_every_figure(project: Path, tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "seen", ("case_001", "case_002"))
    told = json.loads(run(project, "--baseline", folder, "--json").stdout)
    assert told["proposed"] == ["kidney", "liver"]
    assert told["command"] == "backsplit finetune --from MODEL --supports kidney,liver"
    kidney, liver = told["supports"]
    assert (kidney["support"], kidney["held"], kidney["lesions"]) == ("kidney", 2, 2)
    assert (liver["false_positives"], liver["wrong"], liver["distance_mm"]) == (2, 2, 5.0)
    assert liver["review"] == {"unreviewed": 2}
    assert liver["reasons"]
    assert any("trained on" in note for note in told["notes"])


def test_the_table_fits_100_columns(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = {"background": 0, "lesion": 1, "kidney": 2, "liver": 3}
    folder = write_predictions(tmp_path / "seen", ("case_001", "case_002"))
    (folder / "dataset.json").write_text(json.dumps({"labels": classes}))
    eta = np.full((4, *SHAPE), 0.25, np.float32)
    np.savez_compressed(folder / "case_001.npz", probabilities=eta)
    (folder / "case_001.nii.gz").unlink()
    with Project.open(project) as opened:
        opened.remove_mask("case_002", "liver")
    printed = Console(width=100, record=True)
    monkeypatch.setattr(console, "out", printed)
    assert run(project, "--baseline", folder, "--run", folder).exit_code == 0
    rows = printed.export_text().splitlines()
    header = next(row for row in rows if row.startswith("support"))
    for name in ("volume inside", "away mm", "FP volume", "gap ESTIMATE", "missing"):
        assert name in header, "in one line"
    assert any(row.startswith("kidney") and "2/2" in row for row in rows)
