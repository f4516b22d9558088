"""What a prediction's job says while it runs. Needs no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from napari_backsplit.backend.jobs import JobContext, Note, Progress

PARTS = 100
"""Units of progress a case has, whatever its number of tiles."""

_TILE_REPORT_S = 2.0


class Reports:
    """Turns tiles and cases into a job's events, and lets the job be stopped between tiles.

    Parameters
    ----------
    context : JobContext
    total, done : int
        Cases of the job, and those that an earlier attempt finished.

    Attributes
    ----------
    between : callable
        Called between tiles; what it raises stops.
    """

    def __init__(self, context: JobContext, total: int, done: int) -> None:
        self._context, self._total = context, total
        self._at_start = self._finished = done
        self._case = ""
        self._under_way: dict[str, float] = {}
        self._noted: set[str] = set()
        self._began = self._said = time.monotonic()
        self.between: Callable[[], None] = lambda: None

    def start(self, case: str) -> None:
        """Say that the device turns to this case."""
        self._context.checkpoint()
        self._case = case
        self._under_way[case] = 0.0
        self._say(case)

    def tile(self, done: int, total: int) -> None:
        """Report before a tile; raises what stops the job."""
        self._context.checkpoint()
        self.between()
        self._under_way[self._case] = done / total
        if time.monotonic() - self._said >= _TILE_REPORT_S:
            self._say(f"{self._case}: {done} of {total} tiles")

    def finished(self, case: str, notes: Iterable[str]) -> None:
        """Report that the files of a case are written."""
        self._finished += 1
        self._under_way.pop(case, None)
        self.notes(notes)
        self._say(case)

    def notes(self, texts: Iterable[str]) -> None:
        """Report notes, each only once."""
        for text in texts:
            if text not in self._noted:
                self._noted.add(text)
                self._context.report(Note(level="info", text=text))

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        done = self._finished + sum(self._under_way.values())
        made = done - self._at_start
        eta_s = (self._said - self._began) / made * (self._total - done) if made > 0 else None
        self._context.report(
            Progress(done=int(PARTS * done), total=PARTS * self._total, text=text, eta_s=eta_s)
        )
