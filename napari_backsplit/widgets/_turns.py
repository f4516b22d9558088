"""Work that is spread over turns of the event loop, so that no turn holds the window long."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from qtpy.QtCore import QObject, QTimer


class Turns(QObject):
    """Does one thing in each turn of the event loop, in the order they were given."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._waiting: deque[Callable[[], object]] = deque()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._take)

    def do(self, *steps: Callable[[], object]) -> None:
        """Do these after what was given before, each in a turn of its own."""
        self._waiting += steps
        if self._waiting:
            self._timer.start()

    def drop(self) -> None:
        """Forget what was not done yet."""
        self._waiting.clear()
        self._timer.stop()

    def _take(self) -> None:
        step = self._waiting.popleft()
        if self._waiting:
            self._timer.start()
        step()
