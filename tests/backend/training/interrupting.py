"""What ends a training after some of its batches, as a kill would."""

from __future__ import annotations

from collections.abc import Callable


class Stopped(Exception):
    """A training was ended from outside."""


def stop_after(iterations: int) -> Callable[[], None]:
    """Return a `Run.check` that lets so many batches pass."""
    left = [iterations]

    def check() -> None:
        if not left[0]:
            raise Stopped
        left[0] -= 1

    return check
