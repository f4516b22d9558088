"""What a job has said so far, kept small enough to be drawn: read bit by bit, in any thread."""

from __future__ import annotations

import os
import time
from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.jobs.events import (
    Event,
    Metric,
    Note,
    Phase,
    Picture,
    Progress,
    from_line,
)

POINTS = 2000
"""Points of a curve from which on it is thinned; no screen shows more."""

NOTES = 200
_SLICE_BYTES = 1 << 15
_LINE_BYTES = 1 << 22
_REST_S = 0.004
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """A metric over its steps.

    Attributes
    ----------
    steps, values : float64[n]
        Steps rise; a value may be NaN or infinite. Never changed.
    """

    steps: Floats
    values: Floats


@dataclass(frozen=True, eq=False)
class Digest:
    """What a job has said so far.

    Attributes
    ----------
    curves : mapping
        Metric -> its curve, in the order in which they were first named.
    notes : tuple of Note
        The newest, oldest first.
    pictures : tuple of Picture
        By their step.
    last_time : float
        When the newest event was written, seconds since 1970; 0 before the first.
    behind : bool
        Whether more was written than has been read.
    """

    phase: str = ""
    progress: Progress | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    pictures: tuple[Picture, ...] = ()
    last_time: float = 0.0
    behind: bool = False


class EventReader:
    """Reads a job's events as they come, and forgets what cannot be shown.

    It reads in slices and rests between them, so that a thread that reads hundreds of
    megabytes leaves Python's lock to the others.

    Parameters
    ----------
    path : Path
        events.jsonl of the job; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._forget()

    def _forget(self) -> None:
        self._position = 0
        self._growing: dict[str, _Growing] = {}
        self._notes: deque[Note] = deque(maxlen=NOTES)
        self._pictures: dict[int, Picture] = {}
        self._phase, self._last_time = "", 0.0
        self._progress: Progress | None = None
        self._digest = Digest()

    def read(self, budget_s: float = 0.4) -> Digest:
        """Read on for at most about `budget_s`; the same object again where nothing is new."""
        until = time.monotonic() + budget_s
        new = behind = False
        for lines in self._slices():
            for line in lines:
                event = from_line(line)
                if event is not None:
                    self._take(event)
            new = True
            if behind := time.monotonic() > until:
                break
        if new or behind != self._digest.behind:
            self._digest = self._summary(behind)
        return self._digest

    def _slices(self) -> Iterator[list[bytes]]:
        """Yield whole lines, a slice at a time; one that nobody ends is passed over."""
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._position:
                    self._forget()  # another file of that name
                file.seek(self._position)
                kept = b""
                while data := file.read(_SLICE_BYTES):
                    whole, newline, rest = (kept + data).rpartition(b"\n")
                    self._position += len(whole) + len(newline)
                    kept = rest
                    if len(kept) > _LINE_BYTES:
                        self._position += len(kept)
                        kept = b""
                    if newline:
                        yield whole.split(b"\n")
                    if len(data) == _SLICE_BYTES:
                        time.sleep(_REST_S)
        except FileNotFoundError:
            return

    def _take(self, event: Event) -> None:
        self._last_time = max(self._last_time, event.time)
        match event:
            case Metric(name=name, step=step, value=value):
                self._growing.setdefault(name, _Growing()).add(step, value)
            case Progress():
                self._progress = event
            case Phase(name=name):
                self._phase = name
            case Note():
                self._notes.append(event)
            case Picture(step=step):
                self._pictures[step] = event

    def _summary(self, behind: bool) -> Digest:
        return Digest(
            phase=self._phase,
            progress=self._progress,
            curves=MappingProxyType({n: g.curve() for n, g in self._growing.items()}),
            notes=tuple(self._notes),
            pictures=tuple(self._pictures[step] for step in sorted(self._pictures)),
            last_time=self._last_time,
            behind=behind,
        )


class _Growing:
    """A curve that points are added to; it is thinned when it holds twice what can be drawn."""

    def __init__(self) -> None:
        self._steps, self._values = array("d"), array("d")
        self._curve: Curve | None = None

    def add(self, step: float, value: float) -> None:
        while self._steps and self._steps[-1] >= step:  # resumed: the epoch is done again
            self._steps.pop()
            self._values.pop()
        self._steps.append(step)
        self._values.append(value)
        self._curve = None
        if len(self._steps) >= 2 * POINTS:
            thin = thinned(self.curve())
            self._steps, self._values = array("d", thin.steps), array("d", thin.values)
            self._curve = None

    def curve(self) -> Curve:
        if self._curve is None:
            self._curve = thinned(Curve(np.array(self._steps), np.array(self._values)))
        return self._curve


def thinned(curve: Curve, most: int = POINTS) -> Curve:
    """Return a curve of at most `most` points: of each bucket its lowest and its highest value.

    A curve that is short enough is returned as it is. The first and the last point stay.
    """
    count = len(curve.steps)
    if count <= most:
        return curve
    edges = np.linspace(1, count - 1, (most - 2) // 2 + 1).astype(np.intp)
    low = np.where(np.isnan(curve.values), np.inf, curve.values)
    high = np.where(np.isnan(curve.values), -np.inf, curve.values)
    kept = [0, count - 1]
    for begin, end in pairwise(edges):
        kept += [begin + int(low[begin:end].argmin()), begin + int(high[begin:end].argmax())]
    index = np.unique(kept)
    return Curve(curve.steps[index], curve.values[index])


SPLIT = ("data", "forward", "backward", "validation", "checkpoint")
"""What an epoch's time goes to; the trainer reports each as "seconds: <name>"."""


def epoch_seconds(digest: Digest, epochs: int = 5) -> dict[str, float]:
    """Return what an epoch's time goes to, median of the last epochs, s; empty before the first."""
    found = {}
    for part in SPLIT:
        curve = digest.curves.get(f"seconds: {part}")
        if curve is not None:
            finite = curve.values[-epochs:][np.isfinite(curve.values[-epochs:])]
            if len(finite):
                found[part] = float(np.median(finite))
    return found


def data_share(seconds: Mapping[str, float]) -> float:
    """Return the share of an epoch's time that waits for data, 0 to 1; 0 where unknown."""
    total = sum(seconds.values())
    return seconds.get("data", 0.0) / total if total > 0 else 0.0
