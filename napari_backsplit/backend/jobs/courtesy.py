"""Courtesy between one user's processes: who trains waits while another answers a person's click.

Who is about to compute an answer claims the device: a small file in a folder of the user's, which
is touched while the claim is held. Who trains looks there between two iterations. A claim counts
for a moment longer than it is held, so that prompts given one after the other are not interleaved
with iterations. A claim whose process died, or that was not touched for long, does not count.

Best effort: both must run on this machine and have the same runtime folder, and a GPU is known by
its number after CUDA_VISIBLE_DEVICES. Where anything fails nobody waits.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path, user_runtime_path
from pydantic import ValidationError

from napari_backsplit.backend.jobs.processes import is_alive, mark
from napari_backsplit.backend.jobs.spec import ProcessMark

STALE_S = 30.0
"""A claim that was not touched for so long is forgotten: its process hangs."""

TOUCH_S = 5.0
LINGER_S = 0.5
"""How long a claim counts after it was given up. Longer than a queue of prompts takes from one to
the next, shorter than a person takes to look at an answer."""

HELD, FREE, PAST = ".held", ".free", ".past"
_MOVED_BY = "BACKSPLIT_CONFIG_DIR"


@contextmanager
def claim(device: str, *, free_cache: bool = False) -> Iterator[None]:
    """Claim a device while a person waits for what is computed on it.

    Never fails and never waits: where no claim can be made the work is done without.

    Parameters
    ----------
    device : str
        cpu, mps, cuda or cuda:N; "" claims nothing.
    free_cache : bool
        Also ask those who stand aside to give the memory back that they keep for later.
    """
    file = _put_down(device, FREE if free_cache else HELD) if device else None
    if file is None:
        yield
        return
    over = threading.Event()
    threading.Thread(target=_keep, args=(file, over), name="backsplit claim", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        _give_up(file)


def claimed(device: str) -> bool:
    """Whether someone waits for an answer from a device. Microseconds where nobody does."""
    return any(_counts(file) for file in _files(device))


def release_asked(device: str) -> bool:
    """Whether who claims a device also wants the memory that others keep there for later."""
    return any(file.suffix == FREE and _counts(file) for file in _files(device))


def folder() -> Path:
    """Return where this user's claims are; it need not exist."""
    return _folder(os.environ.get(_MOVED_BY, ""), os.environ.get("XDG_RUNTIME_DIR", ""))


@cache
def _folder(moved_to: str, _runtime: str) -> Path:
    if moved_to:
        return Path(moved_to) / "claims"
    with warnings.catch_warnings():  # It warns of every session without a runtime folder.
        warnings.simplefilter("ignore")
        with suppress(OSError):
            return user_runtime_path("napari-backsplit", appauthor=False) / "claims"
    return user_cache_path("napari-backsplit", appauthor=False) / "claims"


def canonical(device: str) -> str:
    """Return the one name of a device for all processes: cuda is cuda:0, as the driver counts."""
    return _canonical(device, os.environ.get("CUDA_VISIBLE_DEVICES"))


@cache
def _canonical(device: str, visible: str | None) -> str:
    kind, _, number = device.lower().partition(":")
    if kind != "cuda":
        return kind
    index = int(number) if number.isdecimal() else 0
    shown = [name.strip() for name in visible.split(",")] if visible else []
    return f"cuda:{shown[index] if index < len(shown) else index}"


@cache
def _beginning(device: str, visible: str | None) -> str:
    return re.sub(r"[^a-zA-Z0-9-]", "-", _canonical(device, visible)) + "~"


def _files(device: str) -> Iterator[Path]:
    beginning = _beginning(device, os.environ.get("CUDA_VISIBLE_DEVICES"))
    place = folder()
    try:
        names = os.listdir(place)  # noqa: PTH208  # Asked in every iteration of a training.
    except OSError:
        return
    yield from (place / name for name in names if name.startswith(beginning))


def _counts(file: Path) -> bool:
    """Whether a claim counts; one that does not is removed."""
    try:
        stands = _stands(file)
    except FileNotFoundError:
        return False
    except (OSError, ValidationError):
        stands = False
    if not stands:
        with suppress(OSError):
            file.unlink()
    return stands


def _stands(file: Path) -> bool:
    about = file.stat()
    # A time in the future is as old: the clock was set back.
    age_s = abs(time.time() - about.st_mtime)
    if age_s > (LINGER_S if file.suffix == PAST else STALE_S) or not _is_ours(about):
        return False
    return is_alive(ProcessMark.model_validate_json(file.read_bytes())) is not False


def _is_ours(about: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or about.st_uid == os.getuid()


def _put_down(device: str, kind: str) -> Path | None:
    """Write a claim, and remove those that count no more; None where it cannot be."""
    place = folder()
    beginning = _beginning(device, os.environ.get("CUDA_VISIBLE_DEVICES"))
    file = place / f"{beginning}{os.getpid()}~{secrets.token_hex(4)}{kind}"
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for other in place.glob("*~*"):
            _counts(other)
        _write(file)
    except OSError:
        return None
    return file


def _write(file: Path) -> None:
    """Write a claim that no reader sees half of. It need not outlive a power failure."""
    temporary = file.with_name(f".{file.name}")
    temporary.write_text(mark().model_dump_json())
    temporary.replace(file)


def _keep(file: Path, over: threading.Event) -> None:
    while not over.wait(TOUCH_S):
        with suppress(OSError):
            _touch(file, over)


def _touch(file: Path, over: threading.Event) -> None:
    try:
        os.utime(file)
    except FileNotFoundError:
        if over.is_set():
            return
        _write(file)  # This process was asleep for long, and is awake again.
        if over.is_set():
            file.unlink(missing_ok=True)


def _give_up(file: Path) -> None:
    with suppress(OSError):
        os.utime(file)
        file.replace(file.with_suffix(PAST))
