"""The SLURM script is run by bash for real, with stand-ins for SLURM's own commands."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_support import COMMAND
from job_support import ENV, epochs_of, processes_of, until
from pydantic import ValidationError

from napari_backsplit.backend.cluster_settings import ClusterSettings, SbatchOptions
from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs import Job, State, queued, submit
from napari_backsplit.backend.jobs.order import changing
from napari_backsplit.backend.jobs.sbatch import export, levels

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
NONE = ClusterSettings()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a folder that a shell would take apart."""
    folder = tmp_path / "it's $HOME, a project"
    folder.mkdir()
    return folder


@pytest.fixture
def pending(project: Path) -> Callable[..., Job]:
    def make(task: str = "epochs", epochs: int = 3, **how: Any) -> Job:
        params = {"epochs": epochs, "epoch_s": how.pop("epoch_s", 0.03)}
        return submit(project, task, params, command=COMMAND, start=False, **how)

    return make


@pytest.fixture
def python(tmp_path: Path) -> str:
    """A Python whose module runs the tests' tasks."""
    file = tmp_path / "my python"
    code = COMMAND[-1].replace("sys.argv[1:]", "sys.argv[4:]")
    words = [f"{name}={value}" for name, value in ENV.items()]
    call = shlex.join(["env", *words, sys.executable, "-c", code])
    file.write_text(f'#!/bin/bash\nexec {call} "$@"\n')
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def slurm(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """SLURM's commands, which only take note of what they were told."""
    place = tmp_path / "bin"
    place.mkdir()
    for name, answer in (("sbatch", 'echo "$RANDOM;cluster"'), ("scontrol", ":")):
        file = place / name
        file.write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/asked\n{answer}\n')
        file.chmod(0o755)

    def environment(number: int = 0, left_s: float = 3600) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{place}:{os.environ['PATH']}",
            "SLURM_ARRAY_TASK_ID": str(number),
            "SLURM_ARRAY_JOB_ID": "77",
            "SLURM_JOB_END_TIME": str(int(time.time() + left_s)),
        }

    return environment


def asked(tmp_path: Path) -> list[str]:
    file = tmp_path / "asked"
    return file.read_text().splitlines() if file.exists() else []


def directives(script: Path) -> dict[str, str]:
    lines = [x.removeprefix("#SBATCH --") for x in script.read_text().splitlines() if "#SB" in x]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_each_task_of_the_array_runs_its_job(pending, python, slurm, tmp_path, project):
    jobs = [pending() for _ in range(2)]
    script = tmp_path / "my runs.sh"
    command = export(jobs, script, SbatchOptions(python=python, setup="SAID=1\\nexport SAID"), NONE)
    assert command == f"sbatch '{script}'"
    subprocess.run(["bash", "-n", script], check=True)
    for number, states in ((1, ["PENDING", "SUCCEEDED"]), (0, ["SUCCEEDED"] * 2)):
        ended = subprocess.run([script], env=slurm(number), check=False, cwd=tmp_path)
        assert ended.returncode == 0
        assert [job.status().state for job in jobs] == states
    assert asked(tmp_path) == []
    assert not processes_of(project)


def test_what_slurm_is_asked_for(pending, tmp_path):
    script = tmp_path / "runs.sh"
    options = SbatchOptions(
        at_once=2, gpus=1, cpus=6, memory_gb=48, hours=1.5, partition="gpu", account="a.b"
    )
    export([pending(device="cuda"), pending(), pending()], script, options, NONE)
    found = directives(script)
    assert found["array"] == "0-2%2"
    assert found["gres"] == "gpu:1"
    assert (found["cpus-per-task"], found["mem"], found["time"]) == ("6", "48G", "90")
    assert (found["partition"], found["account"]) == ("gpu", "a.b")
    assert found["signal"] == "B:TERM@120"
    assert "requeue" in found
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize(("left_s", "again"), [(100, True), (3600, False)])
def test_an_interrupted_task_saves_and_goes_on(
    left_s, again, pending, python, slurm, tmp_path, project
):
    """SLURM starts it again where its time was up; one that a person cancelled it does not."""
    job = pending(epochs=60)
    script = tmp_path / "runs.sh"
    export([job], script, SbatchOptions(python=python), NONE)
    process = subprocess.Popen(["bash", script], env=slurm(0, left_s))
    until(lambda: (job.folder / "checkpoint").exists())
    process.terminate()
    assert process.wait(30) == 2
    assert job.status().state is State.CANCELLED
    assert asked(tmp_path) == (["scontrol requeue 77_0"] if again else [])
    assert not processes_of(project)
    if not again:
        return
    assert subprocess.run(["bash", script], env=slurm(0), check=False).returncode == 0
    done = epochs_of(job)
    assert sorted(set(done)) == list(range(60))
    assert len(done) <= 61
    assert job.status().attempt == 2


def test_a_task_whose_node_died_goes_on(pending, python, slurm, tmp_path, project):
    job = pending(epochs=60)
    script = tmp_path / "runs.sh"
    export([job], script, SbatchOptions(python=python), NONE)
    process = subprocess.Popen(["bash", script], env=slurm(0), start_new_session=True)
    until(lambda: (job.folder / "checkpoint").exists())
    os.killpg(process.pid, 9)
    process.wait()
    assert subprocess.run(["bash", script], env=slurm(0), check=False).returncode == 0
    assert len(epochs_of(job)) <= 61
    assert job.status().result == {"epochs": 60}


def test_a_failed_job_is_a_failed_task(pending, python, slurm, tmp_path):
    """So those that need it never start; and starting it again by itself would not mend it."""
    job = pending("mendable")
    script = tmp_path / "runs.sh"
    export([job], script, SbatchOptions(python=python), NONE)
    for _ in range(2):
        assert subprocess.run(["bash", script], env=slurm(0), check=False).returncode == 1
    assert job.status().attempt == 1


def test_links_of_a_chain_follow_one_another(pending, python, slurm, tmp_path):
    trainings = [pending(device="cuda") for _ in range(2)]
    compare = pending(needs=tuple(job.id for job in trainings))
    assert levels([compare, *trainings]) == [trainings, [compare]]
    script = tmp_path / "cross.sh"
    command = export([compare, *trainings], script, SbatchOptions(python=python), NONE)
    subprocess.run(command, shell=True, check=True, env=slurm(), capture_output=True)
    first, second = asked(tmp_path)
    assert "--array=0-1%4 --gres=gpu:1" in first
    assert first.endswith("cross.jobs-1.txt")
    assert "--dependency=afterok:" in second
    assert "--array=0-0%4 --gres=none" in second
    trained, compared = (Path(line.rpartition(" ")[2]).read_text() for line in (first, second))
    assert trained == "".join(f"{job.folder}\n" for job in trainings)
    assert compared == f"{compare.folder}\n"
    folders = second.rpartition(" ")[2]  # What SLURM would run.
    subprocess.run(["bash", script, folders], env=slurm(), check=True)
    assert compare.status().state is State.SUCCEEDED


def test_what_a_job_needs_must_come_too(pending, tmp_path):
    train = pending()
    predict = pending(needs=(train.id,))
    with pytest.raises(JobError, match=f"{predict.id} needs {train.id}, which has not succeeded"):
        export([predict], tmp_path / "runs.sh", SbatchOptions(), NONE)
    assert not (tmp_path / "runs.sh").exists()


def test_exported_jobs_leave_the_queue(pending, project, tmp_path):
    jobs = [pending() for _ in range(3)]
    with changing(project / "jobs") as order:
        order.extend(job.id for job in jobs)
    export(jobs[:2], tmp_path / "runs.sh", SbatchOptions(), NONE)
    assert queued(project) == [jobs[2].id]


def test_what_cannot_be_exported(pending, project, tmp_path, run):
    script = tmp_path / "runs.sh"
    running = run("loop", folder=project)
    elsewhere = pending(where="tcp://127.0.0.1:8786")
    second = pending(device="cuda:1")
    over = run("succeed", {"a": 1, "b": 2}, folder=project)
    until(lambda: over.status().state is State.SUCCEEDED)
    for job, why in (
        (running, "is RUNNING"),
        (over, "is SUCCEEDED"),
        (elsewhere, "is for the scheduler"),
        (second, "is for cuda:1"),
    ):
        with pytest.raises(JobError, match=why):
            export([job], script, SbatchOptions(), NONE)
    with pytest.raises(JobError, match="no job to export"):
        export([], script, SbatchOptions(), NONE)
    assert not script.exists()
    running.cancel(0)
    running.wait(10)


def test_a_failed_job_is_opened_anew(pending, run, project, tmp_path):
    job = run("raise_plain", folder=project)
    until(lambda: job.status().state is State.FAILED)
    export([job], tmp_path / "runs.sh", SbatchOptions(), NONE)
    assert (job.status().state, job.status().attempt) == (State.PENDING, 2)


def test_paths_are_those_of_the_cluster(pending, project, tmp_path):
    job = pending()
    settings = ClusterSettings(path_map=f"{tmp_path}=/scratch/me")
    command = export([job], tmp_path / "runs.sh", SbatchOptions(), settings)
    assert command == "sbatch /scratch/me/runs.sh"
    listed = (tmp_path / "runs.jobs-1.txt").read_text()
    assert listed == f"/scratch/me/{project.name}/jobs/{job.id}\n"
    assert "list=/scratch/me/runs.jobs-1.txt" in (tmp_path / "runs.sh").read_text()


@pytest.mark.parametrize(
    "value", [{"partition": "gpu\n#SBATCH --x"}, {"account": "a b"}, {"python": "a\nb"}]
)
def test_an_option_is_one_word(value):
    with pytest.raises(ValidationError):
        SbatchOptions(**value)
