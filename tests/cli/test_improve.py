from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from napari_backsplit.backend import jobs as backend_jobs
from napari_backsplit.backend.cluster_consent import give_consent
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.jobs import Job, State
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.consent import ConsentMissing
from napari_backsplit.backend.training import estimate as estimating
from napari_backsplit.backend.training import preflight as preflighting
from napari_backsplit.backend.training.checks import Check, passed, refused, warned
from napari_backsplit.backend.training.spec import RunSpec
from napari_backsplit.cli import app, improve
from tests.backend.improvement_support import (
    FOLDS,
    compared,
    hold_queue,
    make_own,
    make_project,
    succeeded,
    write_foreign,
)

runner = CliRunner()
TAKES = SimpleNamespace(text="about 3 h on NVIDIA A; 1 GB of 18 GB free space")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("made")
    folder = make_project(home / "project")
    make_own(folder, write_foreign(home / "nnUNetTrainer__tiny__3d_fullres"))
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A project with a plan set and one binary training, which a test may change."""
    return Path(shutil.copytree(made, tmp_path / "project"))


@pytest.fixture(autouse=True)
def queue(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that were queued; none is started."""
    return hold_queue(monkeypatch)


@pytest.fixture(autouse=True)
def checks(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """What the preflight finds; empty unless a test adds to it."""
    found: list[Check] = []
    monkeypatch.setattr(preflighting, "preflight", lambda *given, **how: found)
    monkeypatch.setattr(estimating, "estimate", lambda *given, **how: TAKES)
    return found


def call(project: Path, *command: str) -> Result:
    return runner.invoke(app, [*command, "-p", str(project)])


def test_improve_says_what_it_does_and_queues_it(project: Path, queue: list[Job]) -> None:
    options = ("--epochs", "7", "--device", "cuda:1", "--where", "tls://there:1")
    refused = call(project, "improve", "1", *options, "--declare-unseen", "--detach")
    assert isinstance(refused.exception, ConsentMissing)
    assert queue == []
    with Project.open(project) as opened:
        give_consent(opened, "tls://there:1")
    result = call(project, "improve", "1", *options, "--declare-unseen", "--detach")
    assert result.exit_code == 0, result.output
    assert (
        "Fine-tune binary model of job 1 with kidney, 7 epochs, about 3 h on NVIDIA A; 1 GB of "
        "18 GB free space." in result.stderr
    )
    assert "Supports: kidney. Lesions that lie in each:" in result.stderr
    assert f"Queued as {queue[0].id}." in result.stdout
    run = RunSpec.model_validate(queue[0].spec.params["run"])
    assert (run.epochs, run.device, run.optimiser) == (7, "cuda:1", "adamw")
    assert queue[0].spec.where == "tls://there:1"
    assert len(queue) == 6
    assert queue[2].spec.params["declared_unseen"]


def test_what_is_refused_is_not_begun(project: Path, queue: list[Job], checks: list[Check]) -> None:
    checks += [
        passed("disk", "Enough."),
        warned("supports", "Many.", "Take fewer."),
        refused("memory", "It needs 12 GB of 11 GB.", "Lower the patch."),
    ]
    result = call(project, "improve", "1")
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == "It cannot begin: It needs 12 GB of 11 GB. Lower the patch."
    assert "supports: Many. Take fewer." in result.stderr
    assert "Enough" not in result.stderr
    assert queue == []


def test_options_reach_the_chain(project: Path, queue: list[Job]) -> None:
    call(project, "improve", "1", "--no-control", "--supports", "liver", "--detach")
    assert [job.spec.task for job in queue] == ["train", "predict", "predict", "compare"]
    assert queue[0].spec.title == "fine-tune with liver"
    queue.clear()
    call(project, "improve", "1", "--folds", "0,1", "--epochs", "3", "--detach")
    assert len([job for job in queue if job.spec.task == "train"]) == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--epochs", "0"), "--epochs 0"),
        (("--folds", "a"), "no list of folds"),
        (("--folds", "0,9"), "no fold 9"),
        (("--fold", "9"), "no fold 9"),
    ],
)
def test_a_value_that_cannot_be_is_named(
    project: Path, queue: list[Job], options: tuple[str, ...], words: str
) -> None:
    result = call(project, "improve", "1", *options)
    assert isinstance(result.exception, InputError)
    assert words in str(result.exception)
    assert queue == []


def _ended(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    """Let the chain of the next command end as soon as it is looked at."""

    def end(chain: Any, quiet: bool = False) -> None:
        for job in chain.jobs[:-1]:
            succeeded(job, {})
        low, high = [0.5] * 8, [0.7] * 8
        compared(project, {"baseline": low, "control": low, "new model": high}, chain=chain.name)

    monkeypatch.setattr(improve, "follow_chain", end)


def test_the_answer_comes_at_the_end(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _ended(monkeypatch, project)
    result = call(project, "improve", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("The new model is probably better than the baseline and than")
    assert "Report:" in result.stdout


def test_json_is_json(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.parent)
    project = Path(project.name)  # as a person names it
    _ended(monkeypatch, project)
    found = json.loads(call(project, "improve", "1", "--json").stdout)
    assert found["better"] is True
    assert found["chain"] == "0002-train"
    assert found["report"].startswith("comparisons/")
    detached = call(project, "improve", "1", "--epochs", "3", "--json", "--detach")
    assert [*json.loads(detached.stdout)] == ["chain"]


def test_a_chain_is_followed_link_by_link(
    project: Path, queue: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look finds the next link running; the one that is followed then succeeds."""
    from napari_backsplit.backend.jobs.folder import JobFolder
    from napari_backsplit.backend.jobs.spec import Record
    from napari_backsplit.cli import console

    call(project, "improve", "1", "--no-control", "--detach")
    followed = []

    def follow(job: Job, quiet: bool) -> None:
        followed.append(job.id)
        succeeded(job, {})

    class Looked:
        name = queue[0].id

        def status(self) -> Any:
            left = [job for job in queue if job.id not in followed]
            if left:
                JobFolder(left[0].folder).write_record(Record(state=State.RUNNING))
            state = State.RUNNING if left else State.SUCCEEDED
            return backend_jobs.ChainStatus(
                state, len(followed), len(queue), left[0] if left else None, ""
            )

    monkeypatch.setattr(console, "follow_job", follow)
    said: list[str] = []
    monkeypatch.setattr(console, "say_aside", lambda text, style="": said.append(text))
    improve.follow_chain(Looked())  # type: ignore[arg-type]
    assert followed == [job.id for job in queue]
    assert said[0] == "Step 1 of 4: fine-tune with kidney"
    assert said[-1] == "Step 4 of 4: compare"


def test_crossvalidate_queues_folds_and_arms(project: Path, queue: list[Job]) -> None:
    options = ("--arms", "binary,backsplit", "--supports", "kidney", "--epochs", "3")
    result = call(project, "crossvalidate", *options, "--devices", "cuda:0,cuda:1", "--detach")
    assert result.exit_code == 0, result.output
    trainings = [job for job in queue if job.spec.task == "train"]
    assert len(trainings) == 2 * FOLDS
    assert {job.spec.device for job in trainings} == {"cuda:0", "cuda:1"}
    assert [*queue[-1].spec.params["arms"]] == ["binary", "backsplit"]


def test_crossvalidate_plans_where_there_is_no_plan_set(tmp_path: Path, queue: list[Job]) -> None:
    folder = make_project(tmp_path / "new")
    result = call(folder, "crossvalidate", "--folds", "0,1,2", "--detach")
    assert result.exit_code == 0, result.output
    assert queue[0].spec.params["plan"]["folds"] == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--arms", "binary"), "two arms"),
        (("--arms", "binary,nonsense"), "--arm 'nonsense'"),
        (("--folds", "0,9"), "no fold 9"),
    ],
)
def test_a_cross_validation_that_cannot_be_is_refused(
    project: Path, queue: list[Job], options: tuple[str, ...], words: str
) -> None:
    result = call(project, "crossvalidate", *options, "--detach")
    assert isinstance(result.exception, InputError)
    assert words in str(result.exception)
    assert queue == []
