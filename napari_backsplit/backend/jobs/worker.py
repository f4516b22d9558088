"""Runs one job to its end: `python -m napari_backsplit.backend.jobs.worker JOB_FOLDER`.

The worker holds the job's lock, gives its signs of life, and watches the task in a process
group of its own: so a task that crashes, hangs or eats the memory still gets its final state,
and whatever it started is ended with it. Exit code: 0 succeeded, 1 failed, 2 cancelled,
3 refused.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs import failures
from napari_backsplit.backend.jobs.context import Stop
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.gauges import measured
from napari_backsplit.backend.jobs.processes import (
    TOKEN,
    end,
    family,
    has_ended,
    mark,
    own_group,
    session,
)
from napari_backsplit.backend.jobs.registry import TASKS, reference
from napari_backsplit.backend.jobs.spec import GRACE_S, Record, State, now

BEAT_S = 2.0
STOP_GRACE_S = 8.0  # the same after a signal: container runtimes kill after 10 s
EXIT_GRACE_S = 10.0  # for the task's process to leave, once its final state is written
GONE_GRACE_S = 60.0  # for a folder to come back, which on a network's disk it may
REFUSED = 3
_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")
_EXIT = {State.SUCCEEDED: 0, State.FAILED: 1, State.CANCELLED: 2}
_RUNNER = "napari_backsplit.backend.jobs.runner"
_LOG = logging.getLogger(__name__)


def main(folder: str | Path, tasks: Mapping[str, str] = TASKS) -> int:
    """Run the pending job in `folder` and return the exit code.

    Parameters
    ----------
    folder : str or Path
        The job's folder.
    tasks : mapping, optional
        The registry: what each task name stands for, "module:function".
    """
    files = JobFolder(Path(folder).resolve())
    try:
        with _signals() as stop, opened(files, tasks) as target:
            if target:
                _Watch(files, stop).run(target)
            return _EXIT[files.read_record().state]
    except JobError as error:
        _LOG.error("%s", error)
        return REFUSED


@contextmanager
def opened(folder: JobFolder, tasks: Mapping[str, str]) -> Iterator[str]:
    """Hold a pending job, bring it to RUNNING, and give signs of life meanwhile.

    Yields
    ------
    str
        The task, "module:function"; empty when the job got its final state at once, because
        it was cancelled before or its task is unknown.

    Raises
    ------
    JobError
        Another worker holds the job, or it is not pending.
    """
    with folder.hold(2.0):
        record = folder.read_record()
        if record.state is not State.PENDING:
            raise JobError(
                f"The job {folder.path.name} is {record.state}, not PENDING.",
                "Resume it before a worker runs it.",
            )
        with _heartbeat(folder.heartbeat_file), measured(folder):
            yield _begin(folder, record, tasks)


def _begin(folder: JobFolder, record: Record, tasks: Mapping[str, str]) -> str:
    if folder.cancel_file.exists():
        return _close(folder, failures.cancelled("The job was cancelled before it started."))
    try:
        if not folder.reserve_file.exists():
            folder.make_reserve()
        target = reference(folder.read_spec().task, tasks)
        token = secrets.token_hex(16)
        folder.write_record(record.moved(State.RUNNING, started=now(), worker=mark(), token=token))
    except (JobError, OSError) as error:
        return _close(folder, failures.of_error(error, folder.path))
    return target


def _close(folder: JobFolder, outcome: failures.Outcome) -> str:
    state, error, remedy, cause = outcome
    record = folder.read_record()
    folder.write_record(record.moved(state, error=error, remedy=remedy, cause=cause))
    return ""


@contextmanager
def _heartbeat(path: Path, every_s: float = BEAT_S) -> Iterator[None]:
    over = threading.Event()

    def beat() -> None:
        while not over.wait(every_s):
            _touch(path)

    _touch(path)
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _touch(path: Path) -> None:
    with suppress(OSError):
        path.touch()


@contextmanager
def _signals() -> Iterator[Stop]:
    """Take note of the signals that ask to stop; outside the main thread none can be taken."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    earlier = {n: signal.signal(n, lambda received, _: stop.request(received)) for n in numbers}
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


class _Watch:
    """Watches the process of a task from its start to the end of all it started."""

    def __init__(self, folder: JobFolder, stop: Stop) -> None:
        self._folder = folder
        self._stop = stop
        self._token = folder.read_record().token
        self._since: dict[str, float] = {}
        self._told = False
        self._read_ns = 0
        self._finished = False

    def run(self, target: str) -> None:
        """Run the task; when this returns the job has its final state and no process is left."""
        try:
            process = self._start(target)
        except OSError as error:
            _close(self._folder, failures.of_error(error, self._folder.path))
            return
        try:
            self._await(process)
        finally:
            end(lambda: self._family(process), ask_s=1.0)
            process.wait()
        if not self._folder.read_record().final:
            _close(self._folder, self._outcome(process.returncode))

    def _start(self, target: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-X", "faulthandler", "-m", _RUNNER]
        with self._folder.log_file.open("ab") as log:
            return subprocess.Popen(
                [*command, str(self._folder.path), target],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder.path,
                env={**os.environ, "PYTHONUNBUFFERED": "1", TOKEN: self._token},
                **own_group(),
            )

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        while not has_ended(process):
            time.sleep(0.1)
            self._pass_on(process)
            if time.monotonic() > self._deadline():
                end(lambda: self._family(process), ask_s=2.0)

    def _pass_on(self, process: subprocess.Popen[bytes]) -> None:
        if self._stop.signal is not None and not self._told and process.stdin:
            self._told = True
            with suppress(OSError):
                process.stdin.write(b"%d\n" % self._stop.signal)
                process.stdin.flush()

    def _deadline(self) -> float:
        gone = not self._folder.path.is_dir()
        if not gone:
            self._since.pop("gone", None)
        limits = {
            "gone": (gone, GONE_GRACE_S),
            "stop": (self._stop.signal is not None, STOP_GRACE_S),
            "cancel": (self._folder.cancel_file.exists(), self._folder.grace_s(GRACE_S)),
            "exit": (self._is_finished(), EXIT_GRACE_S),
        }
        due = (
            self._since.setdefault(name, time.monotonic()) + grace_s
            for name, (holds, grace_s) in limits.items()
            if holds
        )
        return min(due, default=float("inf"))

    def _is_finished(self) -> bool:
        with suppress(OSError, JobError):
            changed_ns = self._folder.status_file.stat().st_mtime_ns
            if changed_ns != self._read_ns:
                self._read_ns = changed_ns
                self._finished = self._folder.read_record().final
        return self._finished

    def _family(self, process: subprocess.Popen[bytes]) -> list[psutil.Process]:
        found = {p.pid: p for p in session(process.pid)}
        return list(found.values()) + [p for p in family(None, self._token) if p.pid not in found]

    def _outcome(self, code: int) -> failures.Outcome:
        if self._stop.signal is not None:
            return failures.stopped(self._stop.signal)
        if self._folder.cancel_file.exists():
            return failures.cancelled(
                "The job was cancelled; its task did not end in time and was ended by force."
            )
        return failures.of_exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
