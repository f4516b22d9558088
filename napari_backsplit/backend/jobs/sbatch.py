"""Writes pending jobs as a plain SLURM array, for a cluster without Dask."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from napari_backsplit.backend.cluster_settings import ClusterSettings, SbatchOptions
from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.files import atomic_path, write_text, writing
from napari_backsplit.backend.jobs.job import Job
from napari_backsplit.backend.jobs.queue import take
from napari_backsplit.backend.jobs.spec import State

NOTICE_S = 120  # from SLURM's TERM to the end of the time


def levels(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return jobs in groups, each of which needs only those before it.

    Raises
    ------
    JobError
        A job is not to be run, or needs one that is neither among them nor succeeded.
    """
    by_id = {job.id: job for job in jobs}
    for job in by_id.values():
        _require_runnable(job)
        _require_needs(job, by_id)
    sorter = TopologicalSorter(
        {name: {n for n in job.spec.needs if n in by_id} for name, job in by_id.items()}
    )
    found = []
    try:
        sorter.prepare()
    except CycleError as error:
        raise JobError(f"The jobs {', '.join(error.args[1])} need one another.") from None
    while sorter.is_active():
        ready = sorter.get_ready()
        found.append([by_id[name] for name in sorted(ready)])
        sorter.done(*ready)
    return found


def _require_runnable(job: Job) -> None:
    status = job.status()
    started = status.state in (State.RUNNING, State.PAUSED) or (
        status.state is State.PENDING and job.launched
    )
    if started or status.state is State.SUCCEEDED:
        raise JobError(
            f"The job {job.id} is {'RUNNING' if started else status.state}.",
            "Only jobs that wait, or that were cancelled, failed or lost, can be exported.",
        )
    if job.spec.where:
        raise JobError(
            f"The job {job.id} is for the scheduler {job.spec.where}.",
            "Make it without that address, then export it.",
        )


def _require_needs(job: Job, listed: dict[str, Job]) -> None:
    for need in job.spec.needs:
        if need not in listed and Job(job.folder.with_name(need)).status().state != "SUCCEEDED":
            raise JobError(
                f"The job {job.id} needs {need}, which has not succeeded.",
                f"Export {need} as well, or let it end first.",
            )


def sbatch(jobs: Sequence[Job], options: SbatchOptions, folders_file: str) -> str:
    """Return the script of an array of jobs that do not need one another.

    Parameters
    ----------
    jobs : sequence of Job
        In the order of the lines of `folders_file`.
    folders_file : str
        Lists their folders, one a line, as the cluster knows them. The script's first argument
        names another list.
    """
    return _SCRIPT.format(
        header="\n".join(f"#SBATCH {option}" for option in _header(jobs, options)),
        setup=options.setup.replace("\\n", "\n") or ":",
        folders=shlex.quote(folders_file),
        python=shlex.quote(options.python or sys.executable),
        notice=NOTICE_S + 60,
    )


def _header(jobs: Sequence[Job], options: SbatchOptions) -> list[str]:
    minutes = max(1, round(options.hours * 60))
    lines = [
        "--job-name=backsplit",
        f"--array={_array(jobs, options)}",
        f"--gres={_gres(jobs, options)}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={options.cpus}",
        f"--mem={options.memory_gb}G",
        f"--time={minutes}",
        "--requeue",
        f"--signal=B:TERM@{NOTICE_S}",
        "--open-mode=append",
        "--output=backsplit-%A_%a.txt",
    ]
    named = {"partition": options.partition, "account": options.account}
    return lines + [f"--{name}={value}" for name, value in named.items() if value]


def _array(jobs: Sequence[Job], options: SbatchOptions) -> str:
    return f"0-{len(jobs) - 1}%{options.at_once}"


def _gres(jobs: Sequence[Job], options: SbatchOptions) -> str:
    wanted = options.gpus and any(job.spec.device.startswith("cuda") for job in jobs)
    return f"gpu:{options.gpus}" if wanted else "none"


def export(
    jobs: Sequence[Job], script: Path, options: SbatchOptions, settings: ClusterSettings
) -> str:
    """Write jobs as a SLURM array beside its lists of folders; return the command that submits it.

    Jobs that need one another become several arrays, each after the one before; a second script
    submits them. The jobs leave the queue of this machine; those that had ended are opened anew.

    Parameters
    ----------
    script : Path
        The script to write; the lists and the second script get its name with a suffix.

    Raises
    ------
    JobError
        As for `levels`, or a job began meanwhile.
    """
    groups = levels(jobs)
    if not groups:
        raise JobError("There is no job to export.", "Name pending jobs: backsplit jobs list")
    _require_devices(jobs, options)
    with writing(f"The script {script.name}"):
        command = _write(groups, script.resolve(), options, settings)
    for project in {job.folder.parent.parent for job in jobs}:
        take(project, {job.id for job in jobs})
    for job in jobs:
        _require_runnable(job)
        if job.status().resumable:
            job.resume(start=False)
    return command


def _require_devices(jobs: Sequence[Job], options: SbatchOptions) -> None:
    """Refuse a job for a GPU that its task will not have: SLURM numbers those of a task from 0."""
    for job in jobs:
        name, _, number = job.spec.device.partition(":")
        if name == "cuda" and int(number or 0) >= max(1, options.gpus):
            raise JobError(
                f"The job {job.id} is for {job.spec.device}, and its task has {options.gpus} GPUs.",
                "Repeat the job with the device cuda, then export that.",
            )


def _write(
    groups: Sequence[Sequence[Job]], script: Path, options: SbatchOptions, settings: ClusterSettings
) -> str:
    """Write the scripts and lists; return the command that submits them."""
    lists = [script.with_name(f"{script.stem}.jobs-{n}.txt") for n in range(1, len(groups) + 1)]
    for file, group in zip(lists, groups, strict=True):
        write_text(file, "".join(f"{settings.there(job.folder)}\n" for job in group))
    paths = [settings.there(file) for file in lists]
    _write_script(script, sbatch(groups[0], options, paths[0]))
    if len(groups) == 1:
        return f"sbatch {shlex.quote(settings.there(script))}"
    submit = script.with_name(f"{script.stem}.submit.sh")
    _write_script(submit, _submit_script(groups, options, settings.there(script), paths))
    return f"bash {shlex.quote(settings.there(submit))}"


def _submit_script(
    groups: Sequence[Sequence[Job]], options: SbatchOptions, script: str, lists: Sequence[str]
) -> str:
    lines = ["#!/bin/bash", "# Submits arrays of jobs, each after all of the one before succeeded."]
    lines.append("set -euo pipefail")
    after = ""
    for group, folders in zip(groups, lists, strict=True):
        how = f"--array={_array(group, options)} --gres={_gres(group, options)}"
        call = f"sbatch --parsable {after}{how} {shlex.quote(script)} {shlex.quote(folders)}"
        lines += [f"id=$({call})", 'id="${id%%;*}"', 'echo "submitted $id"']
        after = '--dependency=afterok:"$id" --kill-on-invalid-dep=yes '
    return "\n".join(lines) + "\n"


def _write_script(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.chmod(0o755)


_SCRIPT = """\
#!/bin/bash
{header}
# Each task of the array brings one job folder to its end. One that SLURM interrupts saves, and
# goes on from there when it is started again: by SLURM, or by submitting this script once more.
set -euo pipefail
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
{setup}

list={folders}
mapfile -t folders < "${{1:-$list}}"
folder="${{folders[$SLURM_ARRAY_TASK_ID]}}"

stopped=0
stop() {{
    trap '' TERM
    stopped=1
    kill -TERM $(jobs -p) 2>/dev/null || true
}}
trap stop TERM

{python} -P -m napari_backsplit.backend.jobs.cluster "$folder" &
code=0
wait $! || code=$?
if (( stopped && code > 128 )); then
    code=0
    wait $! || code=$?
    # Only where the time was up: who cancels the job does not want it again.
    left=$(( ${{SLURM_JOB_END_TIME:-0}} - $(date +%s) ))
    if (( code != 0 && left > -{notice} && left < {notice} )); then
        scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}" || true
    fi
fi
exit "$code"
"""
