"""What a job takes of its machine: measured where it runs, written where it is followed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs.devices import Card, cards_now, cores, memory_bytes, visible
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.processes import is_alive, session

EVERY_S = 2.0
SHARE = 0.005
"""Share of a core that asking NVIDIA's tool may take: where it is slow, it is asked less often."""
PATIENCE_S = 60.0
_GONE = (psutil.Error, OSError)


@checked(frozen=True)
class GpuGauge:
    """A GPU of the job's machine, with all that runs on it; None where it does not tell.

    Attributes
    ----------
    name, title : str
        As torch names it (cuda:0), and as a person knows it.
    utilisation : float or None
        Per cent of the time in which it worked.
    used_bytes, total_bytes : int or None
        Its memory.
    """

    name: str
    title: str
    utilisation: float | None = None
    used_bytes: int | None = None
    total_bytes: int | None = None


@checked(frozen=True)
class Gauges:
    """What a job takes, at a time.

    Attributes
    ----------
    time : float
        Seconds since 1970.
    cpu_percent : float
        Of one core, summed over the job's processes: 350 are three and a half cores.
    cores : int
        Cores that the job may use.
    used_bytes : int
        Memory of the job's processes; what they share counts once.
    total_bytes : int
        Memory of the machine, or the limit of the job's control group where that is lower.
    gpus : tuple of GpuGauge
        In CUDA's order.
    """

    time: float
    cpu_percent: float
    cores: int
    used_bytes: int
    total_bytes: int
    gpus: tuple[GpuGauge, ...] = ()


_ADAPTER = TypeAdapter(Gauges)


def read_gauges(folder: Path) -> Gauges | None:
    """Return what was measured last in a job's folder; None where nothing was."""
    try:
        return _ADAPTER.validate_json((folder / "gauges.json").read_bytes())
    except (OSError, ValidationError):
        return None


@contextmanager
def measured(folder: JobFolder, every_s: float = EVERY_S) -> Iterator[None]:
    """Measure a job from its worker, in a thread of its own, while the block runs.

    Whatever fails in it costs a measurement, never the job.
    """
    over = threading.Event()
    meter = Meter(folder)

    def measure() -> None:
        while not over.wait(every_s):
            with suppress(Exception):
                _write(folder.path / "gauges.json", meter.read())

    thread = threading.Thread(target=measure, name="gauges", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()  # not waited for: NVIDIA's tool may hang


def _write(path: Path, gauges: Gauges) -> None:
    # Atomic, but not forced to the disk: after a crash nobody misses it.
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        temporary.write_bytes(_ADAPTER.dump_json(gauges))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Meter:
    """Reads what the processes of a job take.

    Parameters
    ----------
    folder : JobFolder
        The job; its status names the process of its task.
    ask : callable, optional
        Returns the GPUs as they are now.
    """

    def __init__(self, folder: JobFolder, ask: Callable[[], tuple[Card, ...]] = cards_now) -> None:
        self._folder = folder
        self._cards = _Cards(ask)
        self._spent: dict[tuple[int, float], float] = {}
        self._looked = time.monotonic()

    def read(self) -> Gauges:
        """Measure now; the CPU since the last time."""
        uses = _uses(self._family())
        return Gauges(
            time=time.time(),
            cpu_percent=self._cpu_percent(uses),
            cores=cores(),
            used_bytes=sum(use.own_bytes for use in uses)
            + max((use.shared_bytes for use in uses), default=0),
            total_bytes=memory_bytes(),
            gpus=tuple(_gpu(number, card) for number, card in enumerate(self._cards.now())),
        )

    def _family(self) -> list[psutil.Process]:
        try:
            task = self._folder.read_record().task
        except (JobError, OSError):
            return []
        if task is None or not is_alive(task):
            return []
        if hasattr(os, "getsid"):
            return session(task.pid)
        with suppress(*_GONE):
            leader = psutil.Process(task.pid)
            return [leader, *leader.children(recursive=True)]
        return []

    def _cpu_percent(self, uses: list[_Use]) -> float:
        now = time.monotonic()
        spent = {use.process: use.cpu_s for use in uses}
        seconds = sum(max(0.0, s - self._spent.get(p, 0.0)) for p, s in spent.items())
        elapsed, self._looked, self._spent = now - self._looked, now, spent
        return round(100 * seconds / max(elapsed, 1e-3), 1)


@dataclass(frozen=True)
class _Use:
    process: tuple[int, float]
    cpu_s: float
    own_bytes: int
    shared_bytes: int


def _uses(processes: list[psutil.Process]) -> list[_Use]:
    found: list[_Use] = []
    for process in processes:
        with suppress(*_GONE), process.oneshot():
            times, memory = process.cpu_times(), process.memory_info()
            shared = getattr(memory, "shared", 0)
            mark = (process.pid, process.create_time())
            cpu_s = times.user + times.system
            found.append(_Use(mark, cpu_s, max(0, memory.rss - shared), shared))
    return found


class _Cards:
    """The GPUs, asked for as often as that is cheap; seldom where there are none."""

    def __init__(self, ask: Callable[[], tuple[Card, ...]]) -> None:
        self._ask = ask
        self._known: tuple[Card, ...] = ()
        self._due = 0.0

    def now(self) -> tuple[Card, ...]:
        if time.monotonic() >= self._due:
            begun = time.monotonic()
            cards = visible(self._ask(), os.environ)
            took_s = time.monotonic() - begun
            self._known = cards
            wait_s = took_s / SHARE if cards else PATIENCE_S
            self._due = time.monotonic() + min(wait_s, PATIENCE_S)
        return self._known


def _gpu(number: int, card: Card) -> GpuGauge:
    return GpuGauge(
        f"cuda:{number}", card.title, card.utilisation, card.used_bytes, card.total_bytes
    )
