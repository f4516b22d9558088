"""A helper process of this one: it reports by lines of JSON, and ends when this process does.

Both ends are here: `Child` starts it and reads what it reports, `Reporter` and `follow_parent`
are for the program that runs in it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import BackSplitError, InputError, UntrustedModelError
from napari_backsplit.backend.jobs.processes import own_group
from napari_backsplit.backend.structures.engines import EngineCancelled, EngineError

Report = dict[str, Any]

POLL_S = 0.05
_PARENT_POLL_S = 1.0
_REFUSALS: Mapping[str, type[BackSplitError]] = {
    "InputError": InputError,
    "UntrustedModelError": UntrustedModelError,
}


class Child:
    """A running `python -m module`, in a process group of its own.

    Parameters
    ----------
    module : str
        The module to run; it is handed this process' number first.
    arguments : sequence of str
        What follows it on its command line. Secrets belong in `environment`.
    environment : mapping
        Variables added to this process' own, for the child only.
    log : Path
        Takes what the child prints, at its end.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as printed:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(os.getpid()), *arguments],
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                stdin=subprocess.PIPE,  # Never written to: its end tells the child of ours.
                stdout=subprocess.PIPE,
                stderr=printed,
                **own_group(),
            )
        self.log = log
        self._reports: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="child-reports", daemon=True).start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def report(self, cancelled: Callable[[], bool], limit_s: float) -> Report:
        """Wait for what the child reports next.

        Raises
        ------
        EngineCancelled
            `cancelled` came true; the child goes on.
        EngineError
            It ended or was silent for `limit_s`.
        InputError, UntrustedModelError
            It refused what it was given.
        """
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if cancelled():
                raise EngineCancelled
            with suppress(queue.Empty):
                return self._sorted(self._reports.get(timeout=POLL_S))
        raise EngineError(f"A helper process said nothing for {limit_s:g} s.", f"See {self.log}.")

    def _sorted(self, report: Report | None) -> Report:
        if report is None:
            code = self._process.wait()
            raise EngineError(
                f"A helper process ended with code {code}.", f"{self.log} may say why; try again."
            )
        if "problem" in report:
            remedy = report["remedy"] or f"See {self.log}."
            raise _REFUSALS.get(report["kind"], EngineError)(report["problem"], remedy)
        return report

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            for line in self._process.stdout or ():
                self._reports.put(json.loads(line))
        self._reports.put(None)

    def kill(self) -> None:
        """End it and all that it started, and wait until it is gone. Twice is no error."""
        if self.alive:
            with suppress(OSError):
                if hasattr(os, "killpg"):
                    os.killpg(self.pid, signal.SIGKILL)
                else:
                    self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()


class Reporter:
    """The child's end: keeps the standard output for reports; what is printed goes to the log."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def say(self, state: str, **more: Any) -> None:
        """Report a state."""
        self._write({"state": state, **more})

    def refuse(self, error: BaseException) -> None:
        """Report why there is no going on."""
        problem = getattr(error, "problem", "") or f"{type(error).__name__}: {error}."
        remedy = getattr(error, "remedy", "")
        self._write({"kind": type(error).__name__, "problem": problem, "remedy": remedy})

    def _write(self, report: Report) -> None:
        with suppress(OSError):
            self._out.write(json.dumps(report) + "\n")
            self._out.flush()


def follow_parent(parent: int) -> None:
    """Let this process end at once when its parent does, however that ends.

    Parameters
    ----------
    parent : int
        The parent's number, as the parent said it: it may be gone by now.
    """
    for watch in (_await_end_of_input, lambda: _await_other_parent(parent)):
        threading.Thread(target=_then_exit, args=(watch,), daemon=True).start()


def _then_exit(watch: Callable[[], None]) -> None:
    watch()
    os._exit(1)


def _await_end_of_input() -> None:
    with suppress(OSError):
        while os.read(0, 1024):
            pass


def _await_other_parent(parent: int) -> None:
    """Wait until the parent is another: its pipe may live on in a process that it forked."""
    while os.name != "posix" or os.getppid() == parent:
        time.sleep(_PARENT_POLL_S)
