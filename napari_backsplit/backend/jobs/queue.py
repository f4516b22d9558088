"""The jobs of a project: new ones and all there are."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.files import write_json, write_text
from napari_backsplit.backend.jobs.events import plain
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.job import Job
from napari_backsplit.backend.jobs.registry import reference
from napari_backsplit.backend.jobs.spec import JobSpec, Record

_PACKAGES = ("napari-backsplit", "torch", "nnunetv2", "numpy")


def submit(
    project_folder: Path,
    task: str,
    params: Mapping[str, Any],
    title: str = "",
    *,
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
        The task is unknown, `params` is not plain JSON, or the worker cannot be started.
    """
    if command is None:
        reference(task)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", task):
        raise JobError(f"The task name {task!r} is not a plain word.")
    values = plain(dict(params), f"The parameters of {task!r}")
    folder = _make_folder(Path(project_folder).resolve() / "jobs", task)
    spec = JobSpec(
        id=folder.name,
        task=task,
        params=values,
        title=title,
        versions=_versions(),
        platform=platform.platform(),
    )
    job = _publish(folder, spec)
    if start:
        job.start(env=env, command=command)
    return job


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
    with FileLock(jobs / ".lock"):
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
