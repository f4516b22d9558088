"""The only hop between threads: work goes to a lane, its outcome comes back to the window."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from qtpy.QtCore import QObject, Qt, Signal, Slot

Result = TypeVar("Result")


class Hop(QObject):
    """Calls functions in the thread of the window, in the order they were given."""

    _given = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._waiting: deque[Callable[[], object]] = deque()
        self._given.connect(self._call, Qt.ConnectionType.QueuedConnection)

    def call(self, function: Callable[[], object]) -> None:
        """Call a function in the window's thread, soon. Any thread may ask."""
        self._waiting.append(function)
        try:
            self._given.emit()
        except RuntimeError:  # the window is gone: nobody is left to be told
            return

    def flush(self) -> None:
        """Call at once what waits; in the window's thread only."""
        while self._waiting:
            self._call()

    def finish(self) -> None:
        """Call at once what waits, for a window that is gone: nobody is told what goes wrong."""
        while self._waiting:
            with suppress(Exception):
                self._waiting.popleft()()

    @Slot()
    def _call(self) -> None:
        if self._waiting:
            self._waiting.popleft()()


class Lane:
    """One thread that does one thing after the other.

    Parameters
    ----------
    hop : Hop
        Where outcomes are told.
    failed : callable
        Takes an error nobody asked for, in the window's thread.
    """

    def __init__(self, hop: Hop, failed: Callable[[BaseException], object], name: str) -> None:
        self._hop = hop
        self._failed = failed
        self._closed = False
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"backsplit {name}")

    def do(
        self,
        work: Callable[[], Result],
        then: Callable[[Result], object] | None = None,
        failed: Callable[[BaseException], object] | None = None,
    ) -> Future[Result]:
        """Do some work after what was given before; tell its outcome in the window's thread.

        While Python ends it takes no more threads: the work is then done at once, in this one.
        """
        future = self._submitted(work)
        future.add_done_callback(lambda done: self._tell(done, then, failed or self._failed))
        return future

    def _submitted(self, work: Callable[[], Result]) -> Future[Result]:
        try:
            return self._pool.submit(work)
        except RuntimeError:
            if self._closed:
                raise
        future: Future[Result] = Future()
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self, *, drop: bool = False) -> None:
        """Take no more work; `drop` forgets what has not begun. It does not wait."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=drop)

    def _tell(
        self,
        done: Future[Any],
        then: Callable[[Any], object] | None,
        failed: Callable[[BaseException], object],
    ) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._hop.call(lambda: failed(error))
        elif then is not None:
            result = done.result()
            self._hop.call(lambda: then(result))
