"""Real train jobs that are killed, stopped, held, or run out of disk and memory."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.jobs import Job, Metric, Note, Progress, State, failures, submit
from napari_backsplit.backend.jobs.processes import family
from napari_backsplit.backend.prediction.checkpoint import load_checkpoint
from napari_backsplit.backend.training.spec import RunSpec
from napari_backsplit.backend.training.trainer import LATEST
from tests.backend.jobs.job_support import lives, until
from tests.backend.training.conftest import RUN

pytestmark = [
    pytest.mark.training,
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's process groups"),
]
ENV = {"OMP_NUM_THREADS": "1"}
LIMIT_S = 120.0
Train = Callable[..., Job]


@pytest.fixture
def project(planned: Path, tmp_path: Path) -> Iterator[Path]:
    """A planned project that a test may change."""
    folder = tmp_path / "project"
    shutil.copytree(planned, folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def train(project: Path) -> Iterator[Train]:
    """Submit a training; what a failed test left running is ended."""
    jobs = []

    def start(folder: Path = project, **changes: Any) -> Job:
        spec = RunSpec.model_validate(RUN.model_dump() | {"arm": "binary"} | changes)
        jobs.append(submit(folder, "train", {"run": spec.model_dump(mode="json")}, env=ENV))
        return jobs[-1]

    yield start
    for job in jobs:
        job.cancel(grace_s=0)
        job.wait(20)


@pytest.fixture(scope="module")
def whole(planned: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Job]:
    """Train a number of epochs without a break, once for all tests of this file."""
    folder = tmp_path_factory.mktemp("whole") / "project"
    shutil.copytree(planned, folder)

    @cache
    def run(epochs: int) -> Job:
        spec = RUN.model_copy(update={"arm": "binary", "epochs": epochs})
        job = submit(folder, "train", {"run": spec.model_dump(mode="json")}, env=ENV)
        _ends(job)
        return job

    return run


def _fold(job: Job) -> Path:
    return job.folder / "model" / "fold_0"


def _epochs(job: Job) -> list[int]:
    """Return the epochs that were reported, in order, repeated ones too."""
    metrics = (e for e in job.events()[0] if isinstance(e, Metric))
    return [metric.step for metric in metrics if metric.name == "target Dice"]


def _resumed_after(job: Job) -> int:
    """Return the epoch that the last attempt went on from; 0 if it began anew."""
    notes = [e.text for e in job.events()[0] if isinstance(e, Note)]
    found = [re.fullmatch(r"Resumed after epoch (\d+) of \d+\.", text) for text in notes]
    return max((int(match[1]) for match in found if match), default=0)


def _trains(job: Job, epochs: int = 1) -> None:
    until(lambda: len(_epochs(job)) >= epochs or job.status().final, LIMIT_S)
    assert job.status().state is State.RUNNING, job.log_tail()


def _ends(job: Job) -> None:
    status = job.wait(LIMIT_S)
    assert status.state is State.SUCCEEDED, (status, job.log_tail())


def _assert_same_models(job: Job, other: Job) -> None:
    for name in ("checkpoint_final.pth", "checkpoint_best.pth"):
        ours, theirs = (load_checkpoint(_fold(j) / name)["network_weights"] for j in (job, other))
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            torch.testing.assert_close(theirs[key], value, rtol=0, atol=0)


# ---------------------------------------------------------------------- kill -9


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_while_it_writes_a_checkpoint(
    train: Train, whole: Callable[[int], Job], rounds: int
) -> None:
    epochs = 15 * rounds
    job = train(epochs=epochs)
    _trains(job, 2)
    for attempt in range(1, rounds + 1):
        _kill_in_a_write(job, LATEST if attempt % 2 else ".pth")
        assert job.status().state is State.LOST
        reported = len(set(_epochs(job)))

        job.resume(env=ENV)

        _trains(job, len(_epochs(job)) + 1)
        assert _resumed_after(job) >= reported - 1 > 0
    _ends(job)

    assert _epochs(job)[-1] == epochs - 1
    assert [past.state for past in job.status().attempts] == [State.LOST] * rounds
    _assert_same_models(job, whole(epochs))
    assert sorted(f.name for f in _fold(job).iterdir() if f.name.startswith(".")) == []


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_at_any_time(train: Train, whole: Callable[[int], Job], rounds: int) -> None:
    """The epochs, the learning rates and the weights are those of an undisturbed run."""
    random = np.random.default_rng(rounds)
    epochs = 15 * rounds
    job = train(epochs=epochs)
    tokens = []
    for _ in range(rounds):
        _trains(job, len(_epochs(job)) + int(random.integers(1, 4)))
        time.sleep(random.uniform(0, 0.3))  # anywhere in an epoch
        tokens.append(read_json(job.folder / "status.json")["token"])
        _kill(job)
        assert job.status().state is State.LOST
        job.resume(env=ENV)
    _ends(job)

    rates, undisturbed = _rates(job), _rates(whole(epochs))
    repeated = len(rates) - len(set(rates))
    assert repeated <= rounds, "at most one epoch a kill"
    assert sorted(set(rates)) == undisturbed
    assert len(undisturbed) == epochs
    _assert_same_models(job, whole(epochs))
    assert [family(None, token) for token in tokens] == [[]] * rounds


def _kill(job: Job) -> None:
    """Kill all of a job at once, as the end of the machine does."""
    status = job.status()
    for pid in (status.pid or 0, status.task_pid or 0):
        with suppress(ProcessLookupError):  # the task ends itself when its worker is gone
            os.killpg(pid, signal.SIGKILL)
    until(lambda: not lives(status.pid) and not lives(status.task_pid))


def _rates(job: Job) -> list[tuple[int, float]]:
    """Return (epoch, learning rate) of all that was trained, repeated epochs too."""
    metrics = (e for e in job.events()[0] if isinstance(e, Metric))
    return [(metric.step, metric.value) for metric in metrics if metric.name == "learning rate"]


def _kill_in_a_write(job: Job, name: str) -> None:
    """Freeze the task as a checkpoint's temporary file is seen; kill all if it is still there."""
    status = job.status()
    worker, task = status.pid or 0, status.task_pid or 0
    while not _frozen_in_a_write(_fold(job), name, task):
        assert lives(task), "no write was caught before the end"
    os.killpg(worker, signal.SIGKILL)
    os.killpg(task, signal.SIGKILL)
    until(lambda: not lives(worker) and not lives(task))


def _frozen_in_a_write(folder: Path, name: str, task: int) -> bool:
    if not _being_written(folder, name):
        return False
    os.killpg(task, signal.SIGSTOP)
    until(lambda: not lives(task) or psutil.Process(task).status() == psutil.STATUS_STOPPED)
    if _being_written(folder, name):
        return True
    os.killpg(task, signal.SIGCONT)
    return False


def _being_written(folder: Path, name: str) -> bool:
    files = os.listdir(folder)  # noqa: PTH208  faster than Path.iterdir, and this is a race
    return any(file.startswith(".tmp-") and file.endswith(name) for file in files)


# ---------------------------------------------------------------------- cancel, SIGTERM, pause


@pytest.mark.parametrize(("how", "workers"), [("cancel", 0), ("cancel", 2), ("SIGTERM", 2)])
def test_stopped_without_leaving_a_process(train: Train, how: str, workers: int) -> None:
    job = train(epochs=30, workers=workers)
    _trains(job)
    status = job.status()
    started = psutil.Process(status.task_pid).children(recursive=True)
    assert len(started) >= workers
    token = read_json(job.folder / "status.json")["token"]

    if how == "cancel":
        job.cancel()
    else:
        os.kill(status.pid or 0, signal.SIGTERM)
    ended = job.wait(60)

    assert ended.state is State.CANCELLED
    assert "by force" not in ended.error
    until(lambda: not lives(status.pid))
    assert not any(lives(process.pid) for process in started)
    assert not lives(status.task_pid)
    assert family(None, token) == []
    reported = len(_epochs(job))
    assert reported < 30

    job.resume(env=ENV)
    _ends(job)
    assert _resumed_after(job) >= reported - 1
    assert _epochs(job)[-1] == 29


def test_a_pause_holds_the_iterations(train: Train) -> None:
    job = train(epochs=30)
    _trains(job)
    job.pause()
    until(lambda: job.status().state is State.PAUSED)
    task = psutil.Process(job.status().task_pid)
    events, spent = job.events()[0], sum(task.cpu_times()[:2])
    for _ in range(2):  # signs of life, and of nothing else
        beat = (job.folder / "heartbeat").stat().st_mtime_ns
        until(lambda beat=beat: (job.folder / "heartbeat").stat().st_mtime_ns > beat)
    assert job.status().state is State.PAUSED
    assert job.events()[0] == events
    assert sum(task.cpu_times()[:2]) - spent < 1.0

    job.unpause()
    _ends(job)
    assert _epochs(job) == list(range(30))
    assert job.status().attempt == 1
    last = [e for e in job.events()[0] if isinstance(e, Progress)][-1]
    assert (last.done, last.total) == (30 * RUN.iterations, 30 * RUN.iterations)


# ---------------------------------------------------------------------- disk and memory


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)]
    made = subprocess.run(mount, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
    yield folder
    until(lambda: subprocess.run(["umount", folder], capture_output=True).returncode == 0)


def _fill(disk: Path, left: int) -> Path:
    """Fill a disk until `left` bytes are free."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        while (free := shutil.disk_usage(disk).free - left) > 0:
            with suppress(OSError):  # the training may have taken the last block meanwhile
                os.write(file.fileno(), bytes(min(free, 1 << 16)))
    return ballast


@pytest.mark.parametrize("left", [600_000, 0], ids=["no room for a checkpoint", "no room at all"])
def test_a_full_disk_keeps_the_checkpoint_and_the_job_goes_on(
    disk: Path, train: Train, whole: Callable[[int], Job], project: Path, left: int
) -> None:
    shutil.copytree(project, disk / "project", ignore=shutil.ignore_patterns("jobs", "raw"))
    shutil.copytree(project / "nnunet" / "raw", disk / "project/nnunet/raw", symlinks=True)
    job = train(disk / "project", epochs=30)
    _trains(job, 2)
    ballast = _fill(disk, left)

    status = job.wait(LIMIT_S)

    assert status.state is State.FAILED
    assert status.error == "There was no space left on the disk of the job 0001-train."
    assert status.remedy == "Free some space, then resume the job."
    assert status.cause == "disk full"
    assert load_checkpoint(_fold(job) / LATEST)["current_epoch"] >= len(_epochs(job)) - 1
    assert list(_fold(job).glob(".tmp-*")) == []
    until(lambda: not lives(status.pid))

    ballast.unlink()
    job.resume(env=ENV)
    _ends(job)
    assert job.status().attempt == 2
    _assert_same_models(job, whole(30))


def test_a_worker_that_died_is_named(train: Train) -> None:
    job = train(epochs=1000, workers=2)
    _trains(job)
    for process in psutil.Process(job.status().task_pid).children():
        process.kill()
    status = job.wait(LIMIT_S)
    assert status.state is State.FAILED
    assert status.cause == "workers died"


def test_memory_runs_out_in_a_training(train: Train) -> None:
    """More patches than any machine can address."""
    status = train(batch_size=10**12).wait(LIMIT_S)
    assert status.state is State.FAILED
    assert "ran out of memory" in status.error
    assert "Lower the patch size or the batch size" in status.remedy


def test_memory_runs_out_in_torch(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**16, dtype=torch.uint8)
    outcome = failures.of_error(raised.value, tmp_path)
    assert "ran out of memory" in outcome.error
    assert "Lower the patch size or the batch size" in outcome.remedy


# ---------------------------------------------------------------------- what it asks for


def test_a_device_that_is_not_there_is_named(train: Train) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has mps")
    status = train(device="mps").wait(LIMIT_S)
    assert status.state is State.FAILED
    assert status.error == "This machine has no device 'mps'."
    assert "cpu" in status.remedy


def test_a_baseline_cut_short_is_named(whole: Callable[[int], Job], project: Path) -> None:
    shutil.copytree(whole(30).folder / "model", project / "jobs" / "0001-train" / "model")
    path = project / "jobs/0001-train/model/fold_0/checkpoint_final.pth"
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)
    model = "jobs/0001-train/model"
    run = RUN.model_dump(mode="json") | {"arm": "binary", "baseline": model}
    for task, params in (("train", {"run": run}), ("predict", {"model": model})):
        status = submit(project, task, params, env=ENV).wait(LIMIT_S)
        assert status.state is State.FAILED
        assert "fold_0/checkpoint_final.pth is no whole checkpoint" in status.error
        assert "cut short" in status.remedy
