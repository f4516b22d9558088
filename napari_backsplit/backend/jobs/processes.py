"""Processes: recognised beyond their number, and ended with all they started."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from napari_backsplit.backend.jobs.spec import ProcessMark

TOKEN = "NAPARI_BACKSPLIT_JOB_TOKEN"
_PROC = Path("/proc")
_HAS_PROC = (_PROC / "self" / "stat").exists()
_GONE = (psutil.NoSuchProcess, psutil.AccessDenied, OSError)


@cache
def host() -> str:
    """Return a name of this machine; two containers on it differ."""
    namespace = ""
    with suppress(OSError):
        namespace = str((_PROC / "self" / "ns" / "pid").readlink())
    return f"{platform.node()} {namespace}".strip()


@cache
def _boot() -> str:
    with suppress(OSError):
        return (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
    return ""


def started(pid: int) -> str | None:
    """Return when a process started, in a form only fit for comparison; None if it is dead.

    On Linux this is ticks since a named boot, which a change of the clock does not move.
    A zombie is dead.
    """
    try:
        return _ticks(pid) if _HAS_PROC else _create_time(pid)
    except _GONE:
        return None


def _ticks(pid: int) -> str | None:
    fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{_boot()}:{fields[19]}"


def _create_time(pid: int) -> str | None:
    process = psutil.Process(pid)
    dead = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return None if dead else repr(process.create_time())


def mark(pid: int | None = None) -> ProcessMark:
    """Return the mark of a process, this one by default."""
    pid = os.getpid() if pid is None else pid
    return ProcessMark(pid=pid, started=started(pid) or "", host=host())


def is_alive(process: ProcessMark) -> bool | None:
    """Whether the marked process runs; None when it is on another machine."""
    if process.host != host():
        return None
    return started(process.pid) == process.started


def family(task: ProcessMark | None, token: str) -> list[psutil.Process]:
    """Find the processes of an attempt on this machine, this process excepted.

    They carry the attempt's token in their environment, or belong to the session of the task's
    process. The session counts only while that process lives: a number that came into use
    again proves nothing.
    """
    leader = task.pid if task is not None and is_alive(task) else None
    others = (p for p in psutil.process_iter() if p.pid != os.getpid())
    return [p for p in others if _belongs(p, leader, token)]


def session(leader: int) -> list[psutil.Process]:
    """Find the living processes of a session whose number is known to be still its own."""
    others = (p for p in psutil.process_iter() if p.pid != os.getpid())
    return [p for p in others if _in_session(p.pid, leader) and started(p.pid)]


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a child is over. Where the system can, its number stays taken until it is waited for.

    So a session of that number is the child's for certain.
    """
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    how = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, how) is not None


def _belongs(process: psutil.Process, leader: int | None, token: str) -> bool:
    if leader is not None and (process.pid == leader or _in_session(process.pid, leader)):
        return started(process.pid) is not None
    return bool(token) and _token(process) == token


def _in_session(pid: int, leader: int) -> bool:
    with suppress(OSError):
        return hasattr(os, "getsid") and os.getsid(pid) == leader
    return False


def _token(process: psutil.Process) -> str | None:
    try:
        token: str | None = process.environ().get(TOKEN)
    except (*_GONE, ValueError):
        return None
    return token


def end(find: Callable[[], list[psutil.Process]], *, ask_s: float = 0.0) -> bool:
    """End processes, asking first, until none is found.

    Parameters
    ----------
    find : callable
        Looks for the processes; called again, since they may start others meanwhile.
    ask_s : float
        Seconds between SIGTERM and SIGKILL; 0 kills at once.

    Returns
    -------
    bool
        Whether all of them are gone.
    """
    if ask_s:
        _signal(find(), "terminate")
        _await_none(find, ask_s)
    deadline = time.monotonic() + 10
    while (found := find()) and time.monotonic() < deadline:
        _signal(found, "kill")
        time.sleep(0.02)  # No wait: the exit code of a child is its parent's to read.
    return not found


def end_marked(process: ProcessMark) -> None:
    """Kill one marked process, if it still is that process."""
    if is_alive(process):
        with suppress(*_GONE):
            found = psutil.Process(process.pid)
            end(lambda: [found] if is_alive(process) else [])


def _signal(processes: list[psutil.Process], how: str) -> None:
    for process in processes:
        with suppress(*_GONE):
            getattr(process, how)()


def _await_none(find: Callable[[], list[psutil.Process]], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while find() and time.monotonic() < deadline:
        time.sleep(0.05)


def environment(env: Mapping[str, str] | None) -> dict[str, str]:
    """Return the environment of a detached process: the present one with `env` on top."""
    values = {**os.environ, **(env or {}), "PYTHONUNBUFFERED": "1"}
    values.pop(TOKEN, None)
    return values


def own_group() -> dict[str, Any]:
    """Return the arguments of Popen that give a process its own session or group."""
    if os.name == "posix":
        return {"start_new_session": True}
    return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
