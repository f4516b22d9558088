"""What a probe measured of a training: run in a process of its own, kept in the user's cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import psutil
from platformdirs import user_cache_path

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.jobs.devices import Device
from napari_backsplit.backend.jobs.processes import end, own_group
from napari_backsplit.backend.training.workload import Workload

CACHE = "BACKSPLIT_CACHE_DIR"
"""The environment variable that moves the measurements to another folder."""

LIMIT_S = 90.0
"""Longest that a probe may take; what it had measured by then counts."""

POLL_S = 0.1

Problem = Literal["", "slow", "gpu memory", "memory", "failed"]


@dataclass(frozen=True)
class Measurement:
    """What a probe measured; None where it did not come that far.

    Attributes
    ----------
    seconds_per_iteration, seconds_per_validation : float or None
        Of the network alone, for a batch. Where `problem` is "slow" the first is the least that
        an iteration takes.
    seconds_per_batch, seconds_per_validation_batch : float or None
        Of one process that draws and augments a batch.
    seconds_per_checkpoint : float or None
    peak_gpu_bytes, peak_rss_bytes, parameters, checkpoint_bytes : int or None
    patch_size : list of int or None
        As the network was planned, voxels.
    device_title : str
    iterations : int
        How many were timed.
    problem : Problem
        "gpu memory", "memory": more than there is.
    text : str
        What went wrong, for a log.
    """

    seconds_per_iteration: float | None = None
    seconds_per_validation: float | None = None
    seconds_per_batch: float | None = None
    seconds_per_validation_batch: float | None = None
    seconds_per_checkpoint: float | None = None
    peak_gpu_bytes: int | None = None
    peak_rss_bytes: int | None = None
    parameters: int | None = None
    checkpoint_bytes: int | None = None
    patch_size: list[int] | None = None
    device_title: str = ""
    iterations: int = 0
    problem: Problem = ""
    text: str = ""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Measurement:
        """Read one; keys of another version are left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: item for key, item in value.items() if key in known})


def measure(
    load: Workload,
    device: Device,
    *,
    limit_s: float = LIMIT_S,
    again: bool = False,
    stop: threading.Event | None = None,
) -> Measurement | None:
    """Measure a training on a device, unless it was measured before.

    Parameters
    ----------
    load : Workload
    device : Device
    limit_s : float
        Longest that it may take.
    again : bool
        Measure also what was measured before.
    stop : threading.Event, optional
        Set it to end the probe.

    Returns
    -------
    Measurement or None
        A training that does not fit is a result too; it is kept, unless the probe itself failed.
        None where it was stopped.
    """
    found = None if again else cached(load, device)
    if found is not None:
        return found
    measured = _run(load, device.title, limit_s, stop or threading.Event())
    if measured is not None and measured.problem != "failed":
        write_json(_cache_file(load, device), asdict(measured))
    return measured


def cached(load: Workload, device: Device) -> Measurement | None:
    """Return what was measured before of such a training on such a device."""
    file = _cache_file(load, device)
    with suppress(BackSplitError, TypeError, AttributeError):
        return Measurement.from_json(read_json(file)) if file.is_file() else None
    return None


def _cache_file(load: Workload, device: Device) -> Path:
    chosen = os.environ.get(CACHE)
    folder = Path(chosen) if chosen else user_cache_path("napari-backsplit")
    return folder / "probes" / f"{load.key(device.title)}.json"


def _run(
    load: Workload, device_title: str, limit_s: float, stop: threading.Event
) -> Measurement | None:
    """Run the probe, at most `limit_s`, and end all that it started."""
    with TemporaryDirectory(prefix="backsplit-probe-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        write_json(folder / "workload.json", load.as_json())
        with (folder / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", f"{__package__}.probe", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **own_group(),
            )
        try:
            code = _wait(process, limit_s, stop)
        finally:
            end(lambda: list(_family(process.pid)))
            process.wait()
        if stop.is_set():
            return None
        stages = list(_stages(folder / "stages.jsonl"))
        return _measured(stages, code, device_title, (folder / "log.txt").read_bytes())


def _wait(process: subprocess.Popen[bytes], limit_s: float, stop: threading.Event) -> int | None:
    """Return a process's exit code; None where it took too long or was stopped."""
    limit = time.monotonic() + limit_s
    while process.poll() is None:
        if time.monotonic() > limit or stop.wait(POLL_S):
            return None
    return process.returncode


def _family(pid: int) -> Iterator[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            yield process
        yield from process.children(recursive=True)


def _stages(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):
                yield json.loads(line)


def _measured(
    stages: list[dict[str, Any]], code: int | None, title: str, log: bytes
) -> Measurement:
    """Put together what a probe wrote, and why it ended."""
    values = {key: item for stage in stages for key, item in stage.items()}
    stepping = values.pop("stepping_since", None)
    found = Measurement.from_json({**values, "device_title": title})
    if found.problem or code == 0:
        return found
    if code is None:
        least = None if stepping is None else time.time() - stepping
        seconds = found.seconds_per_iteration or least  # where none was finished
        change: dict[str, Any] = {"problem": "slow", "seconds_per_iteration": seconds}
    elif code in (-9, 137):
        change = {"problem": "memory", "text": "The probe was killed: memory ran out."}
    else:
        last = log.decode(errors="replace").strip().rpartition("\n")[2][:300]
        change = {"problem": "failed", "text": last or f"The probe ended with code {code}."}
    return Measurement(**{**asdict(found), **change})
