"""Tasks for the tests: imported by a job's own process only."""
# ruff: noqa: T201

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.jobs import Cancelled, JobContext, Metric, Note, Phase, Progress

NAMES = """succeed raise_remedy raise_plain crash leave killed loop deaf family stubborn escape
silent_family full_events full_file full_device no_memory cuda_memory count bad_result environment
print_lines swallow pool linger fork_terminate epochs lost_again mendable"""
TASKS = {name: f"tiny_tasks:{name}" for name in NAMES.split()}
TASKS["missing"] = "no_such_module:run"

_DEAF = (
    "import signal, time, sys; [signal.signal(s, signal.SIG_IGN) for s in (15, 2, 1)];"
    "print('up', flush=True); time.sleep(120)"
)


def succeed(context: JobContext) -> dict[str, Any]:
    context.report(Phase("add"))
    context.report(Metric("loss", 0, float("nan")))
    for i in range(3):
        context.checkpoint()
        context.report(Progress(i + 1, 3, "adding", 0.5))
    context.report(Note("info", "done"))
    print("a line in the log")
    return {"sum": context.params["a"] + context.params["b"]}


def raise_remedy(context: JobContext) -> None:
    raise InputError("The spacing is 0 mm.", "Correct the header.")


def raise_plain(context: JobContext) -> None:
    raise ValueError(f"bad value in {context.project_folder}/images/case_001.nii.gz\nsecond line")


def crash(context: JobContext) -> None:
    ctypes.string_at(0)


def leave(context: JobContext) -> None:
    os._exit(7)


def killed(context: JobContext) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def loop(context: JobContext) -> None:
    """Run until told otherwise; save what a resumed job needs."""
    step = 0
    try:
        while True:
            context.checkpoint()
            context.report(Progress(step := step + 1, 0))
            time.sleep(0.02)
    except Cancelled:
        (context.folder / "saved").write_text(str(step))
        raise


def deaf(context: JobContext) -> None:
    time.sleep(120)


def _deaf_child(context: JobContext, **how: Any) -> None:
    child = subprocess.Popen([sys.executable, "-c", _DEAF], stdout=subprocess.PIPE, **how)
    assert child.stdout
    child.stdout.readline()
    (context.folder / "child").write_text(str(child.pid))


def family(context: JobContext) -> None:
    """A grandchild that ignores SIGTERM, and a task that heeds its checkpoints."""
    _deaf_child(context)
    loop(context)


def stubborn(context: JobContext) -> None:
    """A grandchild that ignores SIGTERM, and a task that never looks."""
    _deaf_child(context)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(120)


def escape(context: JobContext) -> None:
    """A grandchild in a session of its own."""
    _deaf_child(context, start_new_session=True)
    loop(context)


def silent_family(context: JobContext) -> None:
    """A grandchild without our environment variables."""
    _deaf_child(context, env={})
    loop(context)


def full_events(context: JobContext) -> None:
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        real(descriptor, data[:5])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.write = write
    try:
        context.report(Phase("never read"))
    finally:
        os.write = real


def full_file(context: JobContext) -> None:
    with (context.folder / "big").open("wb") as file:
        while True:
            file.write(bytes(1 << 16))


def no_memory(context: JobContext) -> None:
    bytearray(1 << 62)


class OutOfMemoryError(RuntimeError):
    pass


def cuda_memory(context: JobContext) -> None:
    raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def count(context: JobContext) -> dict[str, Any]:
    """Count to 40 in steps that survive a kill."""
    file = context.folder / "count"
    start = n = int(file.read_text()) if context.resumed and file.exists() else 0
    while n < context.params.get("to", 40):
        context.checkpoint()
        n += 1
        temporary = file.with_suffix(".new")
        temporary.write_text(str(n))
        temporary.replace(file)
        context.report(Progress(n, 40))
        time.sleep(0.02)
    return {"start": start, "end": n, "attempt": context.attempt}


def bad_result(context: JobContext) -> dict[str, Any]:
    return {"path": Path()}


def environment(context: JobContext) -> dict[str, Any]:
    return {
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "unbuffered": os.environ.get("PYTHONUNBUFFERED"),
        "session": os.getsid(0) == os.getpid(),
        "torch": "torch" in sys.modules,
        "path": "" in sys.path or str(context.folder) in sys.path,
        "stdin": sys.stdin.read(),
    }


def print_lines(context: JobContext) -> None:
    for i in range(30):
        print("line", i)
    print("10%\r50%\r100%")
    print("to stderr", file=sys.stderr)


def swallow(context: JobContext) -> None:
    while True:
        try:
            context.checkpoint()
            time.sleep(0.02)
        except Exception:
            continue


def _square(x: int) -> int:
    return x * x


def pool(context: JobContext) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        return {"squares": workers.map(_square, [1, 2, 3])}


def linger(context: JobContext) -> dict[str, Any]:
    """Succeed, and leave a process behind."""
    _deaf_child(context)
    return {}


def fork_terminate(context: JobContext) -> dict[str, Any]:
    """A forked child dies of SIGTERM although its parent only takes note of it."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(120,))
    child.start()
    time.sleep(0.1)
    child.terminate()
    child.join(5)
    return {"exit": child.exitcode}


def full_device(context: JobContext) -> None:
    """Linux's device that is always full; elsewhere the same error by hand."""
    device = Path("/dev/full")
    if not device.exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    device.write_bytes(b"1")


def epochs(context: JobContext) -> dict[str, Any]:
    """Count epochs as a training does: a checkpoint after each, and a line in the log before it.

    Says so in the project where another job holds the same device.
    """
    alone = _hold_device(context)
    file = context.folder / "checkpoint"
    epoch = int(file.read_text()) if file.exists() else 0
    while epoch < context.params["epochs"]:
        context.checkpoint()
        with (context.folder / "epochs").open("a") as log:
            log.write(f"{epoch}\n")
        context.report(Progress(epoch + 1, context.params["epochs"]))
        time.sleep(context.params.get("epoch_s", 0.03))
        epoch += 1
        temporary = file.with_suffix(".new")
        temporary.write_text(str(epoch))
        temporary.replace(file)
    alone.close()
    return {"epochs": epoch}


def _hold_device(context: JobContext) -> Any:
    import fcntl

    name = context.spec.device.replace("cuda:0", "cuda")
    file = (context.project_folder / f"device-{name}").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        (context.project_folder / "clash").write_text(context.spec.id)
    with (context.project_folder / "started").open("a") as log:
        log.write(f"{context.spec.id}\n")
    return file


def lost_again(context: JobContext) -> None:
    """Its worker is killed each time; it comes as far as before and no further."""
    context.report(Progress(1, 10))
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(120)


def mendable(context: JobContext) -> None:
    """Fail until a person has mended something."""
    if not (context.project_folder / "mended").exists():
        raise InputError("Something is broken.", "Mend it.")
