"""A heartbeat, as one observer sees it."""

from __future__ import annotations

import time


class Pulse:
    """How long a heartbeat has stood still, by the observer's own clock.

    Between two looks at most a share of the limit counts, so neither a machine that slept nor a
    clock that was set makes a silence.

    Attributes
    ----------
    moved : bool
        Whether the heartbeat was seen to change.
    """

    def __init__(self) -> None:
        self.moved = False
        self._beat: int | None = None
        self._silent_s = 0.0
        self._looked: float | None = None

    def silent_s(self, beat: int | None, limit_s: float) -> float:
        """Return the seconds of silence up to now.

        Parameters
        ----------
        beat : int or None
            What changes with each sign of life; None where there was none yet.
        limit_s : float
            The silence that matters; it takes at least four looks.
        """
        now, before = time.monotonic(), self._looked
        self._looked = now
        if before is None or beat != self._beat:
            self.moved = before is not None
            self._beat, self._silent_s = beat, 0.0
        else:
            self._silent_s += min(now - before, limit_s / 4)
        return self._silent_s
