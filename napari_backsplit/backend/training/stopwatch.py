"""Where the time of an epoch goes. Worker only.

Nothing here waits for a GPU: events are put into its stream and read when the epoch is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

PARTS = ("data", "forward", "backward", "validation", "checkpoint", "picture")
"""What an epoch is made of. "waiting" is none of it: a paused job does not train."""

WAITING = "waiting"
ON_GPU = ("forward", "backward")
"""Parts that a GPU works on while the CPU goes on."""

LONGEST_S = 600.0
"""No step takes longer. A longer one is a laptop that slept, where its clock counts sleep."""


class Stopwatch:
    """Seconds of the present epoch, by part.

    Parameters
    ----------
    device : str
        cpu, mps or cuda. On cuda the forward and backward passes are timed on the GPU.
    clock : callable
        Seconds that never jump.
    """

    def __init__(self, device: str = "cpu", clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._gpu = ON_GPU if device == "cuda" else ()
        self.start()

    def start(self) -> None:
        """Begin an epoch."""
        self.seconds = 0.0
        self.parts = dict.fromkeys((*PARTS, WAITING), 0.0)
        self._events: dict[str, list[Any]] = {name: [] for name in self._gpu}
        self._last = self._clock()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens here as a part of the epoch, or as waiting. Parts do not nest."""
        self.seconds += self._passed()
        begin = self._mark(name)
        yield
        passed = self._passed()
        if begin:
            self._events[name].append((begin, self._mark(name)))
        else:
            self.parts[name] += passed
        if name != WAITING:
            self.seconds += passed

    def lap(self) -> dict[str, float]:
        """Return the seconds of the parts and of the whole "epoch", without waiting."""
        self.seconds += self._passed()
        for name, pairs in self._events.items():
            if pairs:
                pairs[-1][1].synchronize()
            self.parts[name] = sum(begin.elapsed_time(end) for begin, end in pairs) / 1000
        return {**{name: self.parts[name] for name in PARTS}, "epoch": self.seconds}

    def _passed(self) -> float:
        """Return the seconds since the last look."""
        last, self._last = self._last, self._clock()
        return min(max(self._last - last, 0.0), LONGEST_S)

    def _mark(self, name: str) -> Any:
        if name not in self._gpu:
            return None
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event
