"""The jobs of a project: new ones, all there are, and the order of those that wait."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import JobError, ProjectError
from napari_backsplit.backend.files import write_json, write_text, writing
from napari_backsplit.backend.jobs.events import plain
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.job import Job
from napari_backsplit.backend.jobs.order import changing, locked, read_order
from napari_backsplit.backend.jobs.processes import environment, is_alive, mark, own_group
from napari_backsplit.backend.jobs.registry import reference
from napari_backsplit.backend.jobs.schedule import View, is_left, occupied
from napari_backsplit.backend.jobs.spec import JobSpec, ProcessMark, Record, State

_PACKAGES = ("napari-backsplit", "torch", "nnunetv2", "numpy")
_SUPERVISOR = (sys.executable, "-P", "-m", "napari_backsplit.backend.jobs.supervisor")
_DEVICE = re.compile(r"cpu|mps|cuda(:\d+)?")


def submit(
    project_folder: Path,
    task: str,
    params: Mapping[str, Any],
    title: str = "",
    *,
    needs: Sequence[str] = (),
    chain: str = "",
    device: str = "",
    where: str = "",
    start: bool = True,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> Job:
    """Make a job and start it, detached from the present process.

    Parameters
    ----------
    project_folder : Path
        The job gets a folder of its own in its `jobs` folder.
    task : str
        A name of the task registry.
    params : mapping
        JSON values; paths relative to the project folder.
    title : str
        For people.
    needs : sequence of str
        Ids of the jobs that must have succeeded before the queue starts this one.
    chain : str
        Id of the first job of the chain that it is a link of; "" for that first job itself.
    device : str
        What it occupies: cpu, mps, cuda or cuda:N; by default the device that its parameters
        name, or the CPU.
    where : str
        Address of the Dask scheduler that runs it; "" for this machine.
    start : bool
        False leaves the job pending, for a worker on another machine.
    env : mapping, optional
        Environment variables to set on top of the present ones, for the job alone.
    command : sequence of str, optional
        The worker's argv without the job folder; its process is the worker. Such a worker
        brings its own registry, so the name of the task is left to it.

    Raises
    ------
    JobError
        The task, a need or the device is unknown, `params` is not plain JSON, or the worker
        cannot be started.
    ProjectError
        The disk is full, or cannot be written; then there is no job.
    """
    asked = {"needs": tuple(needs), "chain": chain, "device": device, "where": where}
    job = make(project_folder, task, params, title, known=command is not None, **asked)
    if start:
        job.start(env=env, command=command)
    return job


def enqueue(
    project_folder: Path,
    task: str,
    params: Mapping[str, Any],
    title: str = "",
    *,
    needs: Sequence[str] = (),
    chain: str = "",
    device: str = "",
    where: str = "",
    env: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> Job:
    """Make a job, put it last in the queue, and see to it that a supervisor runs.

    Parameters
    ----------
    project_folder, task, params, title, needs, chain, device, where
        As for `submit`.
    env, command
        As for `ensure_supervisor`.

    Raises
    ------
    JobError
        As for `submit`.
    ProjectError
        The disk is full, or cannot be written; then there is no job.
    """
    asked = {"needs": tuple(needs), "chain": chain, "device": device, "where": where}
    job = make(project_folder, task, params, title, known=command is not None, **asked)
    try:
        with changing(job.folder.parent) as order:
            order.append(job.id)
    except ProjectError:
        job.delete()
        raise
    ensure_supervisor(project_folder, env=env, command=command)
    return job


def queued(project_folder: Path) -> list[str]:
    """Return the ids of the jobs left to the supervisor, in their order.

    A job is among them from when it is enqueued until it is over: the running ones too.
    """
    return read_order(Path(project_folder) / "jobs")


def move(project_folder: Path, job_id: str | Sequence[str], place: int) -> None:
    """Give a queued job another place, 0 being the first; several stay together, as given.

    Raises
    ------
    JobError
        One is not in the queue.
    """
    ids = [job_id] if isinstance(job_id, str) else list(job_id)
    with changing(Path(project_folder).resolve() / "jobs") as order:
        if missing := next((job for job in ids if job not in order), ""):
            raise JobError(f"The job {missing} is not in the queue.", "See: backsplit jobs list")
        others = [job for job in order if job not in ids]
        place = max(0, place)
        order[:] = [*others[:place], *ids, *others[place:]]


def go_on(
    job: Job,
    *,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> None:
    """Put a failed, cancelled or lost job in front of the queue, to go on where it ended.

    A pending one that is not in the queue is put there too.

    Parameters
    ----------
    env, command
        As for `ensure_supervisor`.

    Raises
    ------
    JobError
        The job is in another state.
    """
    status = job.status()
    if status.state is not State.PENDING or job.launched:
        job.resume(start=False)
    with changing(job.folder.parent) as order:
        order.insert(0, job.id)
    ensure_supervisor(job.folder.parent.parent, env=env, command=command)


def take(project_folder: Path, ids: Collection[str]) -> None:
    """Take jobs from the queue; they stay as they are."""
    with changing(Path(project_folder).resolve() / "jobs") as order:
        order[:] = [job for job in order if job not in ids]


def size_bytes(job: Job) -> int:
    """Return the space that deleting a job frees; files that others hold too count nothing."""
    return job.size_bytes()


def views(jobs: Iterable[Job]) -> dict[str, View]:
    """Look at jobs as the queue sees them."""
    return {job.id: _view(job) for job in jobs}


def _view(job: Job) -> View:
    try:
        spec, state = job.spec, job.status().state
        if state is State.CANCELLED and job.interrupted:
            state = State.LOST
    except JobError:
        return View(None)
    launched = state is State.PENDING and job.launched
    return View(state, spec.needs, occupied(spec), launched)


def ensure_supervisor(
    project_folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> None:
    """Start the project's supervisor where none runs and there is something for it to do.

    Parameters
    ----------
    env : mapping, optional
        Environment variables for it and its jobs, on top of the present ones.
    command : sequence of str, optional
        The argv of the workers that it starts, as for `submit`.

    Raises
    ------
    JobError
        It cannot be started.
    """
    project = Path(project_folder).resolve()
    jobs = project / "jobs"
    order = read_order(jobs)
    if not order or is_supervised(project) or not is_left(order, views(list_jobs(project))):
        return
    with locked(jobs):
        if not is_supervised(project):
            _start_supervisor(project, [*_SUPERVISOR, str(project), *(command or ())], env)


def _start_supervisor(project: Path, argv: list[str], env: Mapping[str, str] | None) -> None:
    jobs = project / "jobs"
    try:
        with (jobs / "supervisor.log").open("ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=jobs,
                env=environment(env),
                **own_group(),
            )
    except OSError as error:
        raise JobError(f"The supervisor of {project.name} cannot start: {error}.") from error
    with suppress(OSError):
        write_text(jobs / "supervisor.json", mark(process.pid).model_dump_json())
    threading.Thread(target=process.wait, name="reap supervisor", daemon=True).start()


def is_supervised(project_folder: Path) -> bool:
    """Whether the project's supervisor runs on this machine."""
    with suppress(OSError, ValueError):
        file = Path(project_folder) / "jobs" / "supervisor.json"
        return is_alive(ProcessMark.model_validate_json(file.read_bytes())) is True
    return False


def make(
    project_folder: Path,
    task: str,
    params: Mapping[str, Any],
    title: str,
    *,
    known: bool = False,
    **asked: Any,
) -> Job:
    """Make the folder of a job that nothing starts yet.

    Parameters
    ----------
    known : bool
        The task's name is left to whoever runs it.
    **asked
        Further fields of its specification.

    Raises
    ------
    JobError
        As for `submit`.
    """
    if not known:
        reference(task)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", task):
        raise JobError(f"The task name {task!r} is not a plain word.")
    values = plain(dict(params), f"The parameters of {task!r}")
    jobs = Path(project_folder).resolve() / "jobs"
    asked["device"] = asked.get("device") or device_of(values)
    _check(jobs, asked)
    folder = _make_folder(jobs, task)
    spec = JobSpec(
        id=folder.name,
        task=task,
        params=values,
        title=title,
        versions=_versions(),
        platform=platform.platform(),
        **asked,
    )
    try:
        with writing(f"The job {folder.name}"):
            return _publish(folder, spec)
    except ProjectError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def device_of(params: Mapping[str, Any], otherwise: str = "cpu") -> str:
    """Return the device that a job's parameters name, at the top or in `run`."""
    run = params.get("run")
    return str((run if isinstance(run, Mapping) else params).get("device") or otherwise)


def _check(jobs: Path, asked: Mapping[str, Any]) -> None:
    for need in asked.get("needs", ()):
        if not (jobs / need / "job.json").exists():
            raise JobError(f"There is no job {need!r} to need.", "Make it first.")
    if not _DEVICE.fullmatch(device := asked["device"]):
        raise JobError(f"There is no device {device!r}.", "Use cpu, mps, cuda or cuda:N.")


def list_jobs(project_folder: Path) -> list[Job]:
    """Return the jobs of a project, oldest first; a folder still being made is left out."""
    files = sorted((Path(project_folder) / "jobs").glob("[0-9]*/job.json"))
    return [Job(file.parent) for file in files]


def _publish(folder: Path, spec: JobSpec) -> Job:
    files = JobFolder(folder)
    files.make_reserve()
    files.write_record(Record())
    write_json(files.spec_file, spec.model_dump(mode="json"))
    return Job(folder)


def _make_folder(jobs: Path, task: str) -> Path:
    """Make <number>-<task>. No number is ever given twice, not even after a deletion."""
    jobs.mkdir(parents=True, exist_ok=True)
    with locked(jobs):
        folder = jobs / f"{_next_number(jobs):04d}-{task}"
        (folder / "control").mkdir(parents=True)
        write_text(jobs / ".last", folder.name)
    return folder


def _next_number(jobs: Path) -> int:
    names = [path.name for path in jobs.glob("[0-9]*")]
    last = jobs / ".last"
    if last.exists():
        names.append(last.read_text(encoding="utf-8"))
    numbers = (name.partition("-")[0] for name in names)
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
