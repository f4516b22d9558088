"""The task's own process: `python -m napari_backsplit.backend.jobs.runner FOLDER TARGET`.

Started by the worker, which watches it and which it does not outlive. `run_here` does the same
work in the present process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from napari_backsplit.backend.jobs import failures
from napari_backsplit.backend.jobs.context import JobContext, Stop
from napari_backsplit.backend.jobs.events import plain
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.processes import mark
from napari_backsplit.backend.jobs.registry import TASKS, load
from napari_backsplit.backend.jobs.spec import State
from napari_backsplit.backend.jobs.worker import opened

if TYPE_CHECKING:
    from napari_backsplit.backend.jobs.job import Job


def carry_out(folder: JobFolder, target: str, stop: Stop | None = None) -> State:
    """Run the task of a running job and write its final state.

    Parameters
    ----------
    folder : JobFolder
        A job in the state RUNNING.
    target : str
        The task, "module:function".
    stop : Stop, optional
        Set from outside when the process shall end.
    """
    stop = stop or Stop()
    try:
        result = _result(folder, target, stop)
        return _finish(folder, failures.Outcome(State.SUCCEEDED), result)
    except BaseException as error:
        _log(folder, error)
        return _finish(folder, _outcome(error, folder, stop))


def run_here(job: Job, tasks: Mapping[str, str] = TASKS) -> State:
    """Run a pending job to its end in the present process, for tests and for debugging."""
    folder = JobFolder(job.folder)
    with opened(folder, tasks) as target:
        return carry_out(folder, target) if target else folder.read_record().state


def _result(folder: JobFolder, target: str, stop: Stop) -> dict[str, Any]:
    context = JobContext(folder, stop)
    try:
        return plain(load(target)(context) or {}, "The result of the task")
    finally:
        context.close()


def _outcome(error: BaseException, folder: JobFolder, stop: Stop) -> failures.Outcome:
    if stop.signal is not None:
        return failures.stopped(stop.signal)
    if folder.cancel_file.exists():
        return failures.cancelled()
    return failures.of_error(error, folder.path)


def _finish(
    folder: JobFolder, outcome: failures.Outcome, result: dict[str, Any] | None = None
) -> State:
    state, error, remedy, cause = outcome
    record = folder.read_record()
    folder.write_record(record.moved(state, error=error, remedy=remedy, cause=cause, result=result))
    return state


def _log(folder: JobFolder, error: BaseException) -> None:
    with suppress(OSError), folder.log_file.open("a", encoding="utf-8") as log:
        traceback.print_exception(error, file=log)


def _heed_signals(stop: Stop) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        signal.signal(number, lambda received, _: stop.request(received))
    if hasattr(os, "register_at_fork"):  # A forked child must die of SIGTERM, as is usual.
        os.register_at_fork(
            after_in_child=lambda: [signal.signal(n, signal.SIG_DFL) for n in numbers]
        )


def _heed_worker(stop: Stop) -> None:
    """Listen on standard input: a number asks to stop, its end means that the worker died."""
    channel = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_listen, args=(channel, stop), name="worker", daemon=True).start()


def _listen(channel: int, stop: Stop) -> None:
    while message := os.read(channel, 64):
        stop.request(int(message.split()[0]))
    _end_with_children()


def _end_with_children() -> None:
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    os._exit(1)


def main(path: str, target: str) -> int:
    """Run one task; 0 if it succeeded."""
    stop = Stop()
    _heed_signals(stop)
    _heed_worker(stop)
    folder = JobFolder(Path(path))
    with suppress(OSError):
        folder.write_record(folder.read_record().model_copy(update={"task": mark()}))
    return 0 if carry_out(folder, target, stop) is State.SUCCEEDED else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
