from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from napari_backsplit.backend.comparison.tasks import ArmFolder
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.jobs import Event, Note, Progress, State, submit
from napari_backsplit.backend.prediction import tasks
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import read_geometry, read_label_map

pytest.importorskip("torch")


class Stopped(BaseException):
    pass


class Context:
    """A job's context without a job."""

    def __init__(self, project: Path, name: str = "0002-predict", **params: Any) -> None:
        self.project_folder = project
        self.folder = project / "jobs" / name
        self.params = {"model": "jobs/0001-train/model", "mirroring": False, **params}
        self.events: list[Event] = []
        self.stop_after: int | None = None

    def path(self, relative: str) -> Path:
        return self.project_folder / relative

    def report(self, event: Event) -> None:
        self.events.append(event)

    def checkpoint(self) -> None:
        if self.stop_after is not None and len(self._done()) >= self.stop_after:
            raise Stopped

    def _done(self) -> list[Path]:
        return sorted((self.folder / "predictions").glob("*.nii.gz"))

    @property
    def record(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(
            (self.folder / "predictions" / "predictions.json").read_text()
        )
        return read


@pytest.fixture
def project(tiny: Any, model: Path, tmp_path: Path) -> Path:
    """Three cases, two of them reserved, and a run that trained on the first."""
    folder = tmp_path / "project"
    with Project.create(folder, "p", ["MR"], ["lesion"], ["liver", "spleen"]) as made:
        for seed, test in enumerate([False, True, True]):
            image = tiny.write_image(tmp_path / f"image{seed}.nii.gz", seed=seed)
            made.add_case({"MR": image}, test=test)
        cases = made.schema.cases
        trained_on = next(iter(cases["case_001"].images.values())).sha256
    run = folder / "jobs" / "0001-train" / "model"
    shutil.copytree(model, run)
    dataset = json.loads((run / "dataset.json").read_text())
    dataset["backsplit"]["data"] = {"training": {"case_001": trained_on}, "validation": {}}
    (run / "dataset.json").write_text(json.dumps(dataset))
    return folder


def test_the_test_cases_are_predicted(project: Path) -> None:
    context = Context(project, probabilities=True, full_label_map=True)
    result = tasks.run_predict(context)  # type: ignore[arg-type]
    assert result == {
        "predictions": "jobs/0002-predict/predictions",
        "cases": ["case_002", "case_003"],
    }
    folder = context.folder / "predictions"
    assert {file.name for file in folder.iterdir()} == {"predictions.json"} | {
        f"{case}{end}.nii.gz"
        for case in ("case_002", "case_003")
        for end in ("", "_labels", "_probability")
    }
    with Project.open(project, read_only=True) as opened:
        grid = opened.geometry("case_002")
    mask = read_label_map(folder / "case_002.nii.gz")
    labels = read_label_map(folder / "case_002_labels.nii.gz")
    assert grid.difference(read_geometry(folder / "case_002.nii.gz")) is None
    np.testing.assert_array_equal(mask.array, labels.array == 1)
    probability = sitk.GetArrayFromImage(
        sitk.ReadImage(str(folder / "case_002_probability.nii.gz"))
    )
    assert probability.dtype == np.float32
    assert context.record["targets"] == ["lesion"]
    assert context.record["model"]["path"] == "jobs/0001-train/model"
    assert context.record["cases"]["case_002"] == {"seen": "verified", "role": "unseen"}
    progress = [event for event in context.events if isinstance(event, Progress)]
    assert (progress[-1].done, progress[-1].total) == (2, 2)


def test_chosen_cases_and_what_the_model_has_seen(project: Path) -> None:
    context = Context(project, cases=["case_001"], folds=[0])
    tasks.run_predict(context)  # type: ignore[arg-type]
    assert context.record["cases"] == {"case_001": {"seen": "verified", "role": "training"}}
    assert context.record["model"]["folds"] == ["0"]


def test_a_foreign_model(tiny: Any, project: Path) -> None:
    foreign = tiny.write_model(project.parent / "X_Y" / "m", {"tumor": 1})
    context = Context(
        project,
        model=str(foreign),
        cases=["case_001", "case_002"],
        declared_unseen=["case_002"],
    )
    tasks.run_predict(context)  # type: ignore[arg-type]
    assert context.record["cases"] == {
        "case_001": {"seen": "unknown", "role": None},
        "case_002": {"seen": "declared", "role": "unseen"},
    }
    assert context.record["labels"] == {"lesion": "tumor"}
    assert "X_Y" not in json.dumps(context.record)


def test_a_note_is_passed_on(tiny: Any, project: Path) -> None:
    foreign = tiny.write_model(project.parent / "m", trainer_name="nnUNetTrainerOfSomebody")
    context = Context(project, model=str(foreign), cases=["case_001"])
    tasks.run_predict(context)  # type: ignore[arg-type]
    assert any(isinstance(e, Note) and "OfSomebody" in e.text for e in context.events)


def test_resuming_keeps_finished_cases(project: Path) -> None:
    context = Context(project)
    context.stop_after = 1
    with pytest.raises(Stopped):
        tasks.run_predict(context)  # type: ignore[arg-type]
    (first,) = context._done()
    written = first.stat().st_mtime_ns
    context.stop_after = None
    tasks.run_predict(context)  # type: ignore[arg-type]
    assert len(context._done()) == 2
    assert first.stat().st_mtime_ns == written
    tasks.run_predict(context)  # type: ignore[arg-type]


def test_no_case(project: Path) -> None:
    with pytest.raises(InputError, match="No case"):
        tasks.run_predict(Context(project, cases=[]))  # type: ignore[arg-type]


def test_targets_are_matched_by_name(tiny: Any, tmp_path: Path) -> None:
    opened = ModelFolder.open(tiny.write_model(tmp_path / "m", {"Kidney": 1, "Tumor": 2}))
    assert tasks.match_targets(opened, ["tumor"]) == {"tumor": "Tumor"}
    assert tasks.match_targets(opened, ["lesion"], {"lesion": "Tumor"}) == {"lesion": "Tumor"}
    with pytest.raises(InputError, match="no label for lesion; it knows background, kidney, tumor"):
        tasks.match_targets(opened, ["lesion"])
    with pytest.raises(InputError, match="no label"):
        tasks.match_targets(opened, ["lesion"], {"lesion": "cyst"})


A, B = {"x": "a"}, {"x": "b"}
NOT_A = {"training": B, "validation": {}}


@pytest.mark.parametrize(
    ("card", "role"),
    [
        ({}, None),
        ({"data": {"training": A, "validation": {}}}, "training"),
        ({"data": {"training": B, "validation": A}}, "validation"),
        ({"data": NOT_A}, "unseen"),
        ({"data": {"training": B}}, None),
        ({"data": NOT_A, "baseline": None}, "unseen"),
        ({"data": NOT_A, "baseline": {"model": "m", "data": None}}, None),
        ({"data": NOT_A, "baseline": {"model": "m", "data": {"training": A}}}, "training"),
        ({"data": NOT_A, "baseline": {"model": "m", "data": NOT_A}}, "unseen"),
        ({"data": NOT_A, "baseline": {"data": NOT_A, "baseline": {"data": None}}}, None),
    ],
)
def test_what_a_model_did_with_an_image(card: dict[str, Any], role: str | None) -> None:
    assert tasks.role_of(card, {"a"}) == role


def test_the_record_of_what_was_seen() -> None:
    card = {"data": {"training": {"x": "b", "y": "a"}, "validation": {"z": "c"}}}
    known = {"training": ["a", "b"], "validation": ["c"]}
    assert tasks.seen_record(card) == known | {"complete": True}
    unknown = card | {"baseline": {"data": None}}
    assert tasks.seen_record(unknown) == known | {"complete": False}


@pytest.mark.parametrize(
    ("declared", "role", "seen"),
    [
        ((), "validation", "unknown"),
        (("case_002",), "validation", "declared"),
        (("case_002",), "training", "verified"),
    ],
)
def test_a_fold_of_a_foreign_model_is_held_out_by_its_fine_tune_and_unseen_by_a_word(
    project: Path, declared: tuple[str, ...], role: str, seen: str
) -> None:
    """A fine-tune says what it held out; of the model it started from a person has to say it."""
    file = project / "jobs" / "0001-train" / "model" / "dataset.json"
    with Project.open(project, read_only=True) as opened:
        digest = next(iter(opened.case("case_002").images.values())).sha256
    dataset = json.loads(file.read_text())
    data = {"training": {"case_001": "b"}, "validation": {}} | {role: {"case_002": digest}}
    run = {"patience": None, "baseline_checkpoint": "checkpoint_final.pth"}
    baseline = {"model": "baselines/baseline-1", "data": None, "run": None, "baseline": None}
    dataset["backsplit"] |= {"data": data, "run": run, "baseline": baseline}
    file.write_text(json.dumps(dataset))
    context = Context(
        project,
        cases=["case_002"],
        declared_unseen=declared,
        folds=[0],
        checkpoint="checkpoint_final.pth",
    )
    tasks.run_predict(context)  # type: ignore[arg-type]
    entry = context.record["cases"]["case_002"]
    assert entry["seen"] == seen
    assert entry["role"] == ("held out" if role == "validation" else "training")
    arm = ArmFolder.open("new model", context.folder)
    assert arm.seen("case_002", [digest]) == ("seen" if role == "training" else seen)


def test_a_prediction_counts_gpus_as_a_training_does(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    tasks.run_predict(Context(project, cases=["case_001"], folds=[0]))  # type: ignore[arg-type]
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


@pytest.mark.training
def test_a_real_job(project: Path) -> None:
    params = {"model": "jobs/0001-train/model", "mirroring": False}
    job = submit(project, "predict", params, env={"OMP_NUM_THREADS": "1"})
    status = job.wait(timeout_s=120)
    assert status.state is State.SUCCEEDED, job.log_tail()
    assert (job.folder / "predictions" / "case_003.nii.gz").exists()
