from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from napari_backsplit.backend.comparison.tasks import ArmFolder
from napari_backsplit.backend.errors import InputError, JobError, ProjectError
from napari_backsplit.backend.jobs import Event, Job, Note, Progress, State, submit
from napari_backsplit.backend.prediction import reports, roles, tasks
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
    assert progress[-1].done == progress[-1].total


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


def _header(path: Path) -> str:
    said: bytes = nibabel.load(path).header["descrip"].item()  # type: ignore[attr-defined]
    return said.decode()


def test_the_rule_is_named_in_the_record_and_in_the_file(project: Path) -> None:
    context = Context(project, cases=["case_002"], rule="p > 0.5", gap=True, probabilities=True)
    tasks.run_predict(context)  # type: ignore[arg-type]
    folder = context.folder / "predictions"
    assert context.record["settings"]["rule"] == "p > 0.5"
    assert "p > 0.5" in _header(folder / "case_002.nii.gz")
    probability = sitk.GetArrayFromImage(
        sitk.ReadImage(str(folder / "case_002_probability.nii.gz"))
    )
    mask = read_label_map(folder / "case_002.nii.gz").array
    np.testing.assert_array_equal(mask, probability > 0.5)
    gap = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "case_002_gap.nii.gz")))
    assert gap.shape == mask.shape
    assert gap.max() > 0
    plain = Context(project, "0003-predict", cases=["case_002"])
    tasks.run_predict(plain)  # type: ignore[arg-type]
    assert plain.record["settings"]["rule"] == "argmax"
    assert "argmax" in _header(plain.folder / "predictions" / "case_002.nii.gz")


def test_an_unknown_rule_and_a_gap_that_is_zero_are_refused(tiny: Any, project: Path) -> None:
    with pytest.raises(InputError, match=r"no rule 'majority'.*argmax"):
        tasks.run_predict(Context(project, rule="majority"))  # type: ignore[arg-type]
    binary = tiny.write_model(project.parent / "m", {"lesion": 1})
    context = Context(project, model=str(binary), gap=True)
    with pytest.raises(InputError, match="information gap is zero"):
        tasks.run_predict(context)  # type: ignore[arg-type]
    assert not context._done()


def test_progress_is_told_for_tiles_with_the_time_left(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_TILE_REPORT_S", 0.0)
    context = Context(project, folds=[0])
    tasks.run_predict(context)  # type: ignore[arg-type]
    progress = [event for event in context.events if isinstance(event, Progress)]
    done = [event.done for event in progress]
    assert done == sorted(done)
    assert {event.total for event in progress} == {200}
    assert len(set(done)) > 6
    assert any("case_003: 2 of " in event.text for event in progress)
    assert progress[-1].eta_s == 0
    assert all(event.eta_s is not None for event in progress if event.done > 0)
    assert all(event.done <= event.total for event in progress)


def test_a_case_is_named_in_its_error_and_the_case_before_is_kept(project: Path) -> None:
    with Project.open(project, read_only=True) as opened:
        (path,) = opened.image_paths("case_003")
    content = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(content[:100])
    context = Context(project)
    with pytest.raises(InputError, match="Case case_003: The image is damaged or cut short"):
        tasks.run_predict(context)  # type: ignore[arg-type]
    assert [file.name for file in context._done()] == ["case_002.nii.gz"]
    path.write_bytes(content)
    tasks.run_predict(context)  # type: ignore[arg-type]
    assert len(context._done()) == 2


def test_a_full_disk_leaves_no_half_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(image: object, path: str, compress: bool) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("ITK ERROR: could not write")

    context = Context(project, cases=["case_002"])
    monkeypatch.setattr(sitk, "WriteImage", full)
    with pytest.raises(ProjectError, match=r"Case case_002: .*cannot be written.*disk"):
        tasks.run_predict(context)  # type: ignore[arg-type]
    assert not list((context.folder / "predictions").iterdir())


def test_what_a_killed_worker_left_half_written_is_removed(project: Path) -> None:
    context = Context(project, cases=["case_002"])
    torn = context.folder / "predictions" / ".tmp-0123-case_002.nii.gz"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"half")
    tasks.run_predict(context)  # type: ignore[arg-type]
    assert not torn.exists()
    assert len(context._done()) == 1


def test_too_little_memory_is_said_before_the_image_is_read(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_backsplit.backend.prediction import preparation

    def read(*_: object) -> None:
        raise AssertionError("the image was read")

    monkeypatch.setattr(preparation.Preparation, "_read", read)
    monkeypatch.setattr(preparation, "free_memory_bytes", lambda: 1000)
    context = Context(project)
    with pytest.raises(JobError, match=r"Case case_002: .*GB of memory, 0\.0 GB are free.*Close"):
        tasks.run_predict(context)  # type: ignore[arg-type]


def test_cases_that_do_not_fit_side_by_side_are_predicted_one_after_the_other(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_backsplit.backend.prediction import preparation

    asked: list[int] = []

    def free() -> int:
        asked.append(0)
        return 0 if len(asked) == 2 else 10**12  # the second asks while the first is at work

    monkeypatch.setattr(preparation, "free_memory_bytes", free)
    context = Context(project)
    tasks.run_predict(context)  # type: ignore[arg-type]
    assert len(context._done()) == 2
    assert len(asked) == 3


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
    with pytest.raises(InputError, match="same label"):
        tasks.match_targets(opened, ["tumor", "lesion"], {"lesion": "Tumor"})


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
    assert roles.role_of(card, {"a"}) == role


def test_the_record_of_what_was_seen() -> None:
    card = {"data": {"training": {"x": "b", "y": "a"}, "validation": {"z": "c"}}}
    known = {"training": ["a", "b"], "validation": ["c"]}
    assert roles.seen_record(card) == known | {"complete": True}
    unknown = card | {"baseline": {"data": None}}
    assert roles.seen_record(unknown) == known | {"complete": False}


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
def test_a_cancelled_job_stops_between_tiles(project: Path) -> None:
    params = {"model": "jobs/0001-train/model", "step_size": 0.01}
    job = submit(project, "predict", params, env={"OMP_NUM_THREADS": "1"})
    _await_tiles(job)
    job.cancel()
    status = job.wait(timeout_s=60)
    assert status.state is State.CANCELLED, job.log_tail()
    assert not list((job.folder / "predictions").glob("*"))


@pytest.mark.training
def test_a_killed_job_redoes_only_the_case_that_was_not_finished(project: Path) -> None:
    params = {"model": "jobs/0001-train/model", "mirroring": False, "step_size": 0.2}
    job = submit(project, "predict", params, env={"OMP_NUM_THREADS": "1"})
    first, second = (job.folder / "predictions" / f"case_00{i}.nii.gz" for i in (2, 3))
    _await(job, first.exists)
    status = job.status()
    for pid in (status.pid or 0, status.task_pid or 0):
        with suppress(ProcessLookupError):  # the task ends itself when its worker is gone
            os.killpg(pid, signal.SIGKILL)
    assert job.wait(timeout_s=60).state is State.LOST
    assert not second.exists()
    written = first.stat().st_mtime_ns
    job.resume(env={"OMP_NUM_THREADS": "1"})
    assert job.wait(timeout_s=120).state is State.SUCCEEDED, job.log_tail()
    assert second.exists()
    assert first.stat().st_mtime_ns == written


def _await(job: Job, what: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not what():
        assert time.monotonic() < end, job.log_tail()
        time.sleep(0.01)


def _await_tiles(job: Job) -> None:
    end = time.monotonic() + 120
    while not any("tiles" in e.text for e in job.events()[0] if isinstance(e, Progress)):
        assert time.monotonic() < end, job.log_tail()
        assert not job.status().final, job.log_tail()


@pytest.mark.training
def test_a_real_job(project: Path) -> None:
    params = {"model": "jobs/0001-train/model", "mirroring": False}
    job = submit(project, "predict", params, env={"OMP_NUM_THREADS": "1"})
    status = job.wait(timeout_s=120)
    assert status.state is State.SUCCEEDED, job.log_tail()
    assert (job.folder / "predictions" / "case_003.nii.gz").exists()
