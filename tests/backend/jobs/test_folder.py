from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs import Job, JobContext, State, folder, list_jobs, submit
from napari_backsplit.backend.jobs.folder import RESERVE_BYTES, JobFolder
from napari_backsplit.backend.jobs.spec import Record


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return submit(tmp_path, "compare", {"cases": ["case_001"]}, "A title", start=False)


def test_job_json_says_what_is_needed_to_repeat(job: Job):
    spec = json.loads((job.folder / "job.json").read_text())
    assert spec["id"] == "0001-compare"
    assert spec["params"] == {"cases": ["case_001"]}
    assert spec["title"] == "A title"
    assert set(spec["versions"]) == {"python", "napari-backsplit", "torch", "nnunetv2", "numpy"}
    assert spec["platform"]
    assert job.spec.created.tzinfo is not None


def test_a_task_outside_the_registry_is_refused(tmp_path: Path):
    with pytest.raises(JobError, match=r"no task named 'os:system'.*plan"):
        submit(tmp_path, "os:system", {})
    with pytest.raises(JobError, match="not a plain word"):
        submit(tmp_path, "../../etc", {}, command=["true"])
    with pytest.raises(JobError, match="parameters of 'train'"):
        submit(tmp_path, "train", {"image": object()})
    assert list_jobs(tmp_path) == []


def test_numbers_are_never_given_twice(tmp_path: Path):
    ids = []
    threads = [
        threading.Thread(target=lambda: ids.append(submit(tmp_path, "train", {}, start=False).id))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids) == [f"{i:04d}-train" for i in range(1, 9)]
    list_jobs(tmp_path)[-1].delete()
    (tmp_path / "jobs" / "2024 copies").mkdir()
    assert submit(tmp_path, "plan", {}, start=False).id == "0009-plan"
    assert [job.id for job in list_jobs(tmp_path)][-2:] == ["0007-train", "0009-plan"]


def test_a_newer_or_torn_job_is_refused(job: Job):
    spec = json.loads((job.folder / "job.json").read_text())
    (job.folder / "job.json").write_text(json.dumps({**spec, "format_version": 99}))
    with pytest.raises(JobError, match="format 99"):
        _ = job.spec
    (job.folder / "status.json").write_text('{"state": "RUN')
    with pytest.raises(JobError, match=r"status.json is unusable"):
        job.status()


def test_only_one_holds_the_folder(job: Job):
    files = JobFolder(job.folder)
    refused = []

    def second() -> None:
        try:
            with files.hold(0.05):
                pass
        except JobError as error:
            refused.append(str(error))

    with files.hold(0):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "Another worker holds the job 0001-compare" in refused[0]
    second()
    assert len(refused) == 1


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_final_state_fits_on_a_full_disk(job: Job, monkeypatch: pytest.MonkeyPatch):
    files = JobFolder(job.folder)
    reserve = files.reserve_file.stat()
    assert reserve.st_size == RESERVE_BYTES
    monkeypatch.setattr(folder, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        files.write_record(Record(state=State.RUNNING))
    files.write_record(Record(state=State.FAILED, error="No space."))
    assert job.status().error == "No space."
    assert files.status_file.stat().st_ino == reserve.st_ino
    assert not files.reserve_file.exists()


def test_the_log_tail_shows_what_a_terminal_shows(job: Job):
    assert job.log_tail() == ""
    job_log = "".join(f"line {i}\n" for i in range(100)) + "10%\r50%\r100%\r\nlast \xe9\n"
    (job.folder / "log.txt").write_bytes(job_log.encode("latin-1"))
    assert job.log_tail(3) == "line 99\n100%\nlast \ufffd"


def test_checkpoints_look_at_the_disk_five_times_a_second(job: Job, monkeypatch):
    looks = []
    monkeypatch.setattr(
        JobFolder, "cancel_file", property(lambda f: looks.append(1) or f.path / "control/cancel")
    )
    context = JobContext(JobFolder(job.folder))
    for _ in range(2000):
        context.checkpoint()
    assert len(looks) <= 2
    context.close()


def test_paths_start_from_the_project(job: Job, tmp_path: Path):
    context = JobContext(JobFolder(job.folder))
    assert context.project_folder == tmp_path.resolve()
    assert context.path("images/a.nii.gz") == tmp_path.resolve() / "images" / "a.nii.gz"
    assert not context.resumed
    context.close()


def test_a_pending_job_is_cancelled_and_deleted(job: Job):
    with pytest.raises(JobError, match="PENDING cannot be resumed"):
        job.resume()
    job.cancel()
    assert job.status().state is State.CANCELLED
    with pytest.raises(JobError, match="CANCELLED and cannot be paused"):
        job.pause()
    job.delete()
    assert list(job.folder.parent.glob("*compare*")) == []


def test_a_worker_that_cannot_start_leaves_the_job_pending(job: Job):
    with pytest.raises(JobError, match="cannot start"):
        job.start(command=["/no/such/python"])
    assert job.status().state is State.PENDING
