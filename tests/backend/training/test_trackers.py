from __future__ import annotations

import json
import struct
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training import trackers as module
from napari_backsplit.backend.training.trackers import Trackers, plain_name, require_tracker

Points = dict[str, dict[int, float]]


def _events(file: Path) -> list[Event]:
    """Read a file of TensorBoard's, record by record."""
    data, events = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[12 + length + 4 :]
    return events


def shown(folder: Path) -> Points:
    """Return the curves as TensorBoard shows them: what a later attempt repeats is void."""
    curves: Points = {}
    for file in sorted(folder.iterdir()):
        for event in _events(file):
            if event.session_log.status == SessionLog.START:
                for points in curves.values():
                    for step in [step for step in points if step >= event.step]:
                        del points[step]
            for value in event.summary.value:
                points = curves.setdefault(value.tag, {})
                assert event.step not in points, "a step twice"
                points[event.step] = value.simple_value
    return curves


def _fail(text: str) -> None:
    pytest.fail(text)


def test_tensorboard_reads_the_curves_of_all_attempts(tmp_path: Path) -> None:
    for first, value in ((0, 1.0), (2, 2.0)):
        with Trackers("none", tmp_path, first, _fail) as trackers:
            for step in range(first, first + 4):
                trackers.add("seconds: data", step, value)
    assert shown(tmp_path / "tensorboard") == {
        "seconds/data": {0: 1.0, 1: 1.0, 2: 2.0, 3: 2.0, 4: 2.0, 5: 2.0}
    }
    first, _ = sorted((tmp_path / "tensorboard").iterdir())
    assert _events(first)[0].file_version == "brain.Event:2"
    assert [file.name.rsplit(".")[-1] for file in (tmp_path / "tensorboard").iterdir()] in (
        ["0", "1"],
        ["1", "0"],
    ), "the name of this machine is not in them"


def test_a_killed_training_keeps_its_curves(tmp_path: Path) -> None:
    """Nothing is held back in the process."""
    trackers = Trackers("none", tmp_path, 0, _fail)
    trackers.add("target Dice", 0, 0.5)
    assert shown(tmp_path / "tensorboard") == {"target Dice": {0: 0.5}}


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    with Trackers("none", tmp_path, 0, _fail) as trackers:
        trackers.add("Dice of liver", 0, float("nan"))
        trackers.add("training loss", 0, float("inf"))
    assert shown(tmp_path / "tensorboard") == {}


def test_names_suit_every_tracker() -> None:
    assert plain_name("seconds: data") == "seconds/data"
    assert plain_name("Dice of left kidney") == "Dice of left kidney"
    assert plain_name("Dice of T1+C (2)") == "Dice of T1_C _2_"


def test_a_disk_that_is_full_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    with Trackers("none", tmp_path, 0, notes.append) as trackers:

        def full(tracker: Any, *point: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module.TensorBoard, "add", full)
        for step in range(3):
            trackers.add("training loss", step, 1.0)
    (note,) = notes
    assert note.startswith("TensorBoard does not take the curves any more (OSError)")


# ---------------------------------------------------------------------- others


class FakeMlflow:
    """Stands in for mlflow.tracking: keeps what it is sent."""

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.points: list[tuple[str, str, float, int]] = []
        self.ended: list[str] = []
        self.error: Exception | None = None
        self.held = threading.Event()
        self.held.set()

    def MlflowClient(self) -> FakeMlflow:
        return self

    def get_experiment_by_name(self, name: str) -> Any:
        return None

    def create_experiment(self, name: str) -> str:
        assert name == "napari-backsplit"
        return "7"

    def create_run(self, experiment: str, **given: Any) -> Any:
        self.runs.append(given)
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run{len(self.runs)}"))

    def log_metric(self, run: str, name: str, value: float, step: int) -> None:
        assert self.held.wait(20)
        if self.error is not None:
            raise self.error
        self.points.append((run, name, value, step))

    def set_terminated(self, run: str) -> None:
        self.ended.append(run)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(tracking=fake))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", fake)
    return fake


def _job(folder: Path) -> Path:
    job = folder / "jobs" / "0003-train"
    job.mkdir(parents=True)
    return job


def test_mlflow_gets_numbers_and_the_name_of_the_job(tmp_path: Path, mlflow: FakeMlflow) -> None:
    job = _job(tmp_path)
    for first in (0, 2):
        with Trackers("mlflow", job, first, _fail) as trackers:
            trackers.add("seconds: data", first, 1.5)
            trackers.add("Dice of liver", first, float("nan"))
    assert mlflow.runs == [{"run_name": "0003-train"}], "a resumed job goes on with its run"
    assert mlflow.points == [("run1", "seconds/data", 1.5, 0), ("run1", "seconds/data", 1.5, 2)]
    assert mlflow.ended == ["run1", "run1"]
    assert json.loads((job / "tracker.json").read_text()) == {"mlflow": "run1"}


def test_a_tracker_that_fails_is_left_out(tmp_path: Path, mlflow: FakeMlflow) -> None:
    notes: list[str] = []
    mlflow.error = ConnectionError("http://server:5000 with a token")
    with Trackers("mlflow", _job(tmp_path), 0, notes.append) as trackers:
        for step in range(5):
            trackers.add("training loss", step, 1.0)
    (note,) = notes
    assert note.startswith("MLflow does not take the curves any more (ConnectionError)")
    assert "token" not in note


def test_a_slow_tracker_holds_up_nothing(
    tmp_path: Path, mlflow: FakeMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BROKEN_OFF_S", 0.1)
    mlflow.held.clear()
    notes: list[str] = []

    def cancelled() -> None:
        with Trackers("mlflow", _job(tmp_path), 0, notes.append) as trackers:
            for step in range(100):
                trackers.add("training loss", step, 1.0)
            raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        cancelled()
    assert time.monotonic() - begin < 5
    assert len(notes) == 1
    mlflow.held.set()


def test_wandb_gets_numbers_and_the_name_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, Any]] = []
    points: list[tuple[dict[str, float], int]] = []
    run = SimpleNamespace(
        log=lambda point, step: points.append((point, step)), finish=lambda: points.append(({}, -1))
    )

    def init(**given: Any) -> Any:
        begun.append(given)
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=dict))
    job = _job(tmp_path)
    for first in (0, 1):
        with Trackers("wandb", job, first, _fail) as trackers:
            trackers.add("target Dice", first, 0.5)
    assert points == [({"target Dice": 0.5}, 0), ({}, -1), ({"target Dice": 0.5}, 1), ({}, -1)]
    one, two = begun
    assert one["name"] == "0003-train"
    assert one["resume"] == "allow"
    assert one["id"] == two["id"]
    assert one["settings"]["x_disable_meta"] is True
    assert one["settings"]["console"] == "off"


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    require_tracker("none")
    with pytest.raises(InputError, match="MLflow is not installed") as refused:
        require_tracker("mlflow")
    assert "pip install mlflow" in refused.value.remedy
