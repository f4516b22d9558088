"""Why a task ended, in one sentence, and what to do about it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.jobs.context import Cancelled
from napari_backsplit.backend.jobs.spec import State

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_LITTLE_BYTES = 1 << 20
_OUT_OF_MEMORY = {"MemoryError", "OutOfMemoryError"}
_LOWER = "Lower the patch size or the batch size, or close other programs, then resume the job."
_CONTINUE = "Resume the job to continue."


class Outcome(NamedTuple):
    """A final state with its reason and remedy."""

    state: State
    error: str = ""
    remedy: str = ""


def stopped(number: int) -> Outcome:
    """Return the outcome of a job whose process was told to stop by a signal."""
    return Outcome(State.CANCELLED, f"The job was stopped by signal {number}.", _CONTINUE)


def cancelled(text: str = "The job was cancelled.") -> Outcome:
    """Return the outcome of a cancelled job."""
    return Outcome(State.CANCELLED, text, _CONTINUE)


def of_error(error: BaseException, folder: Path) -> Outcome:
    """Return the outcome of a task that raised `error`.

    Parameters
    ----------
    error : BaseException
        What the task raised.
    folder : Path
        The job's folder; full paths of its project are shortened in the reason.
    """
    if isinstance(error, Cancelled | KeyboardInterrupt):
        return cancelled()
    if _is_disk_full(error, folder):
        return Outcome(
            State.FAILED,
            f"There was no space left on the disk of the job {folder.name}.",
            "Free some space, then resume the job.",
        )
    if isinstance(error, BackSplitError):
        return Outcome(State.FAILED, error.problem, error.remedy)
    reason = _one_line(error, folder)
    if _is_out_of_memory(error):
        return Outcome(State.FAILED, f"The task ran out of memory: {reason}.", _LOWER)
    return Outcome(State.FAILED, f"The task failed: {reason}.", "The job's log has the details.")


def of_exit(code: int) -> Outcome:
    """Return the outcome of a task whose process ended without naming one.

    Parameters
    ----------
    code : int
        The exit code; on POSIX the negative number of the signal that killed it.
    """
    if -code in (signal.SIGTERM, signal.SIGINT):
        return stopped(-code)
    if -code == getattr(signal, "SIGKILL", 9):
        return Outcome(
            State.FAILED, "The task was killed, as the system does when memory runs out.", _LOWER
        )
    how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
    return Outcome(
        State.FAILED, f"The task's process {how} without a result.", "The job's log may say why."
    )


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_disk_full(error: BaseException, folder: Path) -> bool:
    if any(isinstance(e, OSError) and e.errno in _FULL for e in _chain(error)):
        return True
    # Libraries turn a failed write into an error of their own, without its number.
    return isinstance(error, OSError | RuntimeError) and _free_bytes(folder) < _LITTLE_BYTES


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return _LITTLE_BYTES


def _is_out_of_memory(error: BaseException) -> bool:
    names = {kind.__name__ for e in _chain(error) for kind in type(e).__mro__}
    text = str(error).lower()
    return bool(names & _OUT_OF_MEMORY) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "can't allocate memory" in text)
    )


def _one_line(error: BaseException, folder: Path) -> str:
    text = str(error).replace(str(folder.parent.parent) + os.sep, "")
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first[:300]}".rstrip(":. ")
