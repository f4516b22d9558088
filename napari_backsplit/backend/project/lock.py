"""One writer at a time: a lock file, and a word about who holds it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.project.schema import today

_HOLDER = ".lock.json"


class WriterLock:
    """The right to write in a project folder, held until `release`.

    Raises
    ------
    ProjectError
        Another process or window holds it; the error says who.
    """

    def __init__(self, folder: Path) -> None:
        self._holder = folder / _HOLDER
        self._lock = FileLock(folder / ".lock", timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise ProjectError(
                f"The project is open for writing in {who_holds(folder)}.",
                "Close it there, or open it here to read only.",
            ) from None
        self._sign()

    def _sign(self) -> None:
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": today()}
        try:
            write_json(self._holder, me)
        except OSError:
            self._lock.release()
            raise

    def release(self) -> None:
        """Let another writer in."""
        if self._lock.is_locked:
            self._holder.unlink(missing_ok=True)
            self._lock.release()


def who_holds(folder: Path) -> str:
    """Say which process holds the lock of a project that is known to be held."""
    try:
        holder = read_json(folder / _HOLDER)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (InputError, KeyError, TypeError):
        return "another process"


def is_held(folder: Path) -> bool:
    """Whether some process says that it writes in a project, and did not die on this machine."""
    try:
        holder = read_json(folder / _HOLDER)
        return bool(holder["host"] != socket.gethostname() or psutil.pid_exists(holder["pid"]))
    except (InputError, KeyError, TypeError):
        return (folder / _HOLDER).exists()
