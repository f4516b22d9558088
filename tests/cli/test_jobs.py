"""The commands for jobs: chains as one thing, the order of the queue, repeat, delete."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from napari_backsplit.backend import jobs
from napari_backsplit.backend.errors import InputError, JobError
from napari_backsplit.backend.jobs import Job, Progress, State, chain, enqueue, queue, queued
from napari_backsplit.backend.jobs.events import EventLog
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.processes import mark
from napari_backsplit.cli import app
from napari_backsplit.cli.jobs import size_words, time_words
from tests.backend.jobs.job_support import HOW, end_supervisor, until

runner = CliRunner()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that passes for a project, and the present one; nothing starts by itself."""
    for module in (queue, chain):
        monkeypatch.setattr(module, "ensure_supervisor", lambda *_, **__: None)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project.json").write_text("{}")
    return tmp_path


@pytest.fixture
def links(project: Path) -> list[Job]:
    """A chain of two, and a job after it."""
    first = enqueue(project, "plan", {}, "Fine-tune: plan")
    run = {"run": {"epochs": 50, "initial_lr": 0.1}, "of": f"jobs/{first.id}"}
    second = enqueue(project, "train", run, "Fine-tune: train", needs=[first.id], chain=first.id)
    return [first, second, enqueue(project, "predict", {}, "Predict 3 cases")]


def call(*arguments: object) -> Result:
    return runner.invoke(app, ["jobs", *map(str, arguments)])


def said(*arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.exception
    return result.stdout


def rows(*arguments: object) -> list[dict[str, Any]]:
    return json.loads(said("list", "--json", *arguments))


def works(job: Job, *events: Progress) -> None:
    """Let a job run, for those who look."""
    files = JobFolder(job.folder)
    files.heartbeat_file.touch()
    files.write_record(files.read_record().moved(State.RUNNING, worker=mark()))
    log = EventLog(files.events_file)
    for event in events:
        log.append(event)
    log.close()


def fails(job: Job) -> None:
    works(job)
    files = JobFolder(job.folder)
    files.write_record(files.read_record().moved(State.FAILED, error="It broke."))


def test_a_chain_is_one_line(links: list[Job]) -> None:
    works(links[0], Progress(1, 8), Progress(2, 8, "planning", 3700.0))
    chained, alone = rows()
    assert chained == {
        "job": "0001-plan",
        "title": "Fine-tune",
        "state": "RUNNING",
        "step": "step 1 of 2",
        "progress": "25 %",
        "left": "1 h 2 min",
        "message": "",
    }
    assert (alone["job"], alone["step"]) == ("0003-predict", "")
    assert alone["message"] == "waits for cpu, after 0001-plan"
    assert [row["job"] for row in rows("--all")] == [job.id for job in links]
    assert rows("--all")[1]["message"] == "waits for 0001-plan"
    assert "0001-plan" in said("list")


def test_jobs_are_found_by_what_they_are_called(links: list[Job]) -> None:
    assert [row["job"] for row in rows("--find", "PREDICT")] == ["0003-predict"]
    assert [row["job"] for row in rows("--find", "train")] == ["0001-plan"]
    assert rows("--find", "nothing") == []


def test_sizes_are_shown_where_asked(links: list[Job]) -> None:
    (links[2].folder / "model").write_bytes(bytes(2_000_000))
    assert rows("--size")[1]["size"] > 2_000_000
    assert "2.1 MB" in said("list", "--size")


def test_a_chain_moves_as_one(project: Path, links: list[Job]) -> None:
    assert "0003-predict, 0001-plan, 0002-train" in said("move", 1, 2)
    assert "0001-plan, 0002-train, 0003-predict" in said("move", 1, 1)
    said("move", 2, 3)
    assert queued(project) == ["0001-plan", "0003-predict", "0002-train"]
    assert call("move", 1, 0).exit_code == 2


def test_delete_says_the_space(project: Path, links: list[Job]) -> None:
    refused = call("delete", 1, "--only")
    assert isinstance(refused.exception, JobError)
    assert "0002-train needs the job 0001-plan" in str(refused.exception)
    (links[0].folder / "big").write_bytes(bytes(3_000_000))
    assert "Deleted 0001-plan: 3.1 MB are free again." in said("delete", 1)
    assert queued(project) == ["0003-predict"]


def test_repeat_with_changes(project: Path, links: list[Job]) -> None:
    fails(links[1])
    text = said("repeat", 2, "--set", "run.epochs=5", "--set", "run.device=cuda", "--title", "New")
    assert "Queued 0004-train: New." in text
    again = Job(project / "jobs" / "0004-train")
    assert again.spec.params["run"] == {"epochs": 5, "initial_lr": 0.1, "device": "cuda"}
    wrong = call("repeat", 2, "--set", "run=1", "--set", "run.epochs=3")
    assert isinstance(wrong.exception, InputError)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("run.epoch=1", "no parameter run.epoch"),
        ("epochs=1", "no parameter 'epochs'"),
        ("run.epochs=0", "--epochs 0"),
        ("run=1", "no single value"),
    ],
)
def test_repeat_refuses_what_the_job_would_not_take(
    project: Path, links: list[Job], change: str, said: str
) -> None:
    fails(links[1])
    wrong = call("repeat", 2, "--set", change)
    assert isinstance(wrong.exception, InputError)
    assert said in str(wrong.exception)
    assert queued(project) == ["0001-plan", "0002-train", "0003-predict"]


def test_cancel_and_resume_of_a_chain(project: Path, links: list[Job]) -> None:
    assert said("cancel", 1) == "0001-plan CANCELLED\n"
    assert queued(project) == ["0003-predict"]
    said("resume", 1, "--detach")
    assert queued(project) == ["0001-plan", "0002-train", "0003-predict"]
    assert said("cancel", 1, "--only") == "0001-plan CANCELLED\n"
    assert queued(project) == ["0001-plan", "0002-train", "0003-predict"]
    (row, _) = rows()
    assert (row["state"], row["message"]) == ("CANCELLED", "The job was cancelled.")


def test_the_time_to_end_is_that_of_a_chain_too(links: list[Job], monkeypatch) -> None:
    works(links[0])
    monkeypatch.setattr(Job, "wait", lambda job, _: job.status())
    said("cancel", 1, "--grace-s", 3)
    assert JobFolder(links[0].folder).grace_s(0) == 3


def test_no_number_of_a_job(links: list[Job]) -> None:
    for number in ("9", "²", "../0001-plan"):
        assert isinstance(call("log", number).exception, JobError)


def test_run_follows_the_queue_to_its_end(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = {"command": HOW["command"]}
    first = enqueue(project, "epochs", {"epochs": 3}, **how)
    broken = enqueue(project, "mendable", {}, needs=[first.id], **how)
    enqueue(project, "epochs", {"epochs": 1}, needs=[broken.id], **how)
    monkeypatch.undo()
    monkeypatch.chdir(project)
    start = partial(jobs.ensure_supervisor, **HOW)
    monkeypatch.setattr(jobs, "ensure_supervisor", start)
    try:
        result = call("run")
        assert result.exit_code == 1
        assert f"{broken.id} FAILED: Something is broken. Mend it." in result.output
        waiting = f"waits for {broken.id}, which failed"
        assert waiting in result.output
        until(lambda: queued(project) == ["0003-epochs"])
        assert rows()[2]["message"] == waiting
    finally:
        end_supervisor(project)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(20, "under a minute"), (60, "1 min"), (3599, "1 h 0 min"), (11_400, "3 h 10 min")],
)
def test_times(seconds: float, words: str) -> None:
    assert time_words(seconds) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2e9, "2.0 GB"), (3e15, "3000.0 TB")],
)
def test_sizes(size: float, words: str) -> None:
    assert size_words(size) == words
