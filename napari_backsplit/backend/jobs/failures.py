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
from napari_backsplit.backend.jobs.spec import STOPPED, Cause, State

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_LITTLE_BYTES = 1 << 20
_GPU_WORDS = ("cuda", "cudnn", "cublas", "hip out", "mps backend")
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
_WORKER_WORDS = ("background workers are no longer alive", "background workers died")
_LOWER = "Lower the patch size or the batch size, or close other programs, then resume the job."
_FEWER = "Lower the number of workers, or close other programs, then resume the job."
_STEADY = "Lower the learning rate, and look for broken values in the images; then repeat the job."
_CONTINUE = "Resume the job to continue."


class Outcome(NamedTuple):
    """A final state with its reason and remedy."""

    state: State
    error: str = ""
    remedy: str = ""
    cause: Cause = ""


def stopped(number: int) -> Outcome:
    """Return the outcome of a job whose process was told to stop by a signal."""
    return Outcome(State.CANCELLED, f"{STOPPED} {number}.", _CONTINUE, "stopped")


def cancelled(text: str = "The job was cancelled.") -> Outcome:
    """Return the outcome of a cancelled job."""
    return Outcome(State.CANCELLED, text, _CONTINUE, "stopped")


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
            "disk full",
        )
    cause = _cause(error)
    if isinstance(error, BackSplitError):
        return Outcome(State.FAILED, error.problem, error.remedy, cause or "refused")
    text, remedy = _WORDS[cause]
    return Outcome(State.FAILED, f"{text}: {_one_line(error, folder)}.", remedy, cause)


_WORDS: dict[Cause, tuple[str, str]] = {
    "gpu memory": ("The task ran out of GPU memory", _LOWER),
    "memory": ("The task ran out of memory", _LOWER),
    "workers died": (
        "The processes that prepare the data died, as they do when memory runs out",
        _FEWER,
    ),
    "not a number": ("The task computed a value that is no number", _STEADY),
    "": ("The task failed", "The job's log has the details."),
}


def _cause(error: BaseException) -> Cause:
    """Return the kind of failure that an error, or one behind it, tells of."""
    found = (_cause_of(e) for e in _chain(error))
    return next((cause for cause in found if cause), "")


def _cause_of(error: BaseException) -> Cause:
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error).lower()
    short = isinstance(error, RuntimeError) and any(words in text for words in _MEMORY_WORDS)
    if "OutOfMemoryError" in names or (short and any(words in text for words in _GPU_WORDS)):
        return "gpu memory"
    if "MemoryError" in names or short:
        return "memory"
    if isinstance(error, RuntimeError) and any(words in text for words in _WORKER_WORDS):
        return "workers died"
    return "not a number" if isinstance(error, FloatingPointError) else ""


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
            State.FAILED,
            "The task was killed, as the system does when memory runs out.",
            _LOWER,
            "killed",
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


def _one_line(error: BaseException, folder: Path) -> str:
    text = str(error).replace(str(folder.parent.parent) + os.sep, "")
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first[:300]}".rstrip(":. ")
